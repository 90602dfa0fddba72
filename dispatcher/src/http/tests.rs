use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::delivery::Outcome;
use dispatcher_core::table::{ClientAuthentication, TokenSource};
use futures::future::BoxFuture;
use http::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use url::Url;

use super::{Client, ClientConfig, Exchange, Lookup, NotMade, Request, ResolverConfig, TokenSlot, Tokens};

/// Answers every look-up with the same addresses.
struct Answers(Vec<&'static str>);

impl Lookup for Answers {
    fn lookup(&self, _host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let addresses = self.0.iter().map(|text| text.parse().unwrap()).collect();
        Box::pin(async move { Ok(addresses) })
    }
}

async fn post(client: &Client, url: &str) -> Exchange {
    let url = Url::parse(url).unwrap();
    let (headers, body) = (HeaderMap::new(), Bytes::from_static(b"{}"));
    client
        .exchange(Request { url: &url, identity: None, headers, body, deadline: Duration::from_secs(20) })
        .await
        .unwrap()
}

fn client(policy: AddressPolicy, fixed_hosts: HashMap<String, SocketAddr>, answers: Vec<&'static str>) -> Client {
    let config = ClientConfig { address_policy: policy, resolver: ResolverConfig { fixed_hosts } };
    Client::with_lookup(config, Answers(answers)).unwrap()
}

#[tokio::test]
async fn one_forbidden_answer_refuses_the_whole_name() {
    for answers in [vec!["93.184.215.14", "10.0.0.1"], vec!["127.0.0.1"], vec!["::ffff:169.254.169.254", "1.1.1.1"]] {
        let client = client(AddressPolicy::public_https(), HashMap::new(), answers.clone());
        let exchange = post(&client, "https://hooks.example.com/secret-path").await;
        assert_eq!(exchange.outcome, Outcome::AddressBlocked, "{answers:?}");
        let excerpt = String::from_utf8(exchange.excerpt.to_vec()).unwrap();
        assert!(!excerpt.contains("secret-path"), "{excerpt}");
        assert!(answers.iter().all(|answer| !excerpt.contains(answer)), "what a name resolves to is ours: {excerpt}");
    }
}

#[tokio::test]
async fn a_denied_address_is_refused_without_telling_the_deny_list() {
    let mut policy = AddressPolicy::public_https();
    policy.deny.push("93.184.0.0/16".parse().unwrap());
    let client = client(policy, HashMap::new(), vec!["93.184.215.14"]);
    let excerpt = post(&client, "https://hooks.example.com/").await.excerpt;
    let excerpt = String::from_utf8(excerpt.to_vec()).unwrap();
    assert!(excerpt.contains("denied") && !excerpt.contains("93.184"), "{excerpt}");
}

/// Fails every look-up for want of a file descriptor.
struct NoFileDescriptor;

impl Lookup for NoFileDescriptor {
    fn lookup(&self, _host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async { Err(io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error())) })
    }
}

#[tokio::test]
async fn an_exchange_that_this_machine_cannot_make_is_no_outcome() {
    let (address_policy, resolver) = (AddressPolicy::public_https(), ResolverConfig::default());
    let client = Client::with_lookup(ClientConfig { address_policy, resolver }, NoFileDescriptor).unwrap();
    let url = Url::parse("https://hooks.example.com/").unwrap();
    let (headers, body) = (HeaderMap::new(), Bytes::new());
    let request = Request { url: &url, identity: None, headers, body, deadline: Duration::from_secs(20) };
    assert_eq!(client.exchange(request).await, Err(NotMade::FileDescriptors));
}

#[tokio::test]
async fn a_token_that_this_machine_cannot_ask_for_is_no_outcome_and_no_failure_of_its_server() {
    let (address_policy, resolver) = (AddressPolicy::public_https(), ResolverConfig::default());
    let client = Client::with_lookup(ClientConfig { address_policy, resolver }, NoFileDescriptor).unwrap();
    let tokens = Tokens::new(client.clone(), Duration::from_secs(20));
    let source = TokenSource {
        url: "https://login.example.com/token".to_owned().into(),
        client_id: "hooks".to_owned().into(),
        client_secret: "hunter2".to_owned().into(),
        authentication: ClientAuthentication::Basic,
        scopes: Vec::new(),
        audience: None,
    };
    let slot = TokenSlot::new(source);
    let url = Url::parse("https://hooks.example.com/").unwrap();
    // Nothing is remembered: it is tried again at once.
    for _ in 0..2 {
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        let request = Request { url: &url, identity: None, headers, body, deadline: Duration::from_secs(20) };
        assert_eq!(tokens.exchange(&client, Some(&slot), request).await, Err(NotMade::FileDescriptors));
    }
}

#[test]
fn a_request_is_printed_without_its_url_and_headers() {
    let url = Url::parse("https://hooks.example.com/hook?token=hunter2").unwrap();
    let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, "swordfish".parse().unwrap())]);
    let request = Request {
        url: &url,
        identity: None,
        headers,
        body: Bytes::from_static(b"{}"),
        deadline: Duration::from_secs(1),
    };
    let printed = format!("{request:?}");
    assert!(!printed.contains("hunter2") && !printed.contains("swordfish"), "{printed}");
}

#[tokio::test]
async fn a_name_without_or_with_too_many_addresses_is_a_dns_error() {
    for answers in [vec![], vec!["1.1.1.1"; 65]] {
        let client = client(AddressPolicy::public_https(), HashMap::new(), answers);
        assert_eq!(post(&client, "https://hooks.example.com/").await.outcome, Outcome::DnsError);
    }
}

#[tokio::test]
async fn a_fixed_host_is_not_looked_up_and_gives_its_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        let length = stream.read(&mut head).await.unwrap();
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        String::from_utf8_lossy(&head[..length]).to_ascii_lowercase()
    });
    let fixed_hosts = HashMap::from([("receiver.localhost".to_owned(), address)]);
    let client = client(AddressPolicy::development(), fixed_hosts, vec![]);
    let exchange = post(&client, "http://receiver.localhost/hook").await;
    assert_eq!((exchange.outcome, exchange.status_code), (Outcome::Delivered, Some(204)));
    let head = serve.await.unwrap();
    assert!(head.starts_with("post /hook http/1.1\r\n"), "{head}");
    assert!(head.contains(concat!("\r\nuser-agent: harborhook/", env!("CARGO_PKG_VERSION"), "\r\n")), "{head}");
    assert!(head.contains("\r\naccept: */*\r\n"), "{head}");
}

#[tokio::test]
async fn a_fixed_host_is_held_to_the_policy() {
    let fixed_hosts = HashMap::from([("hooks.example.com".to_owned(), "127.0.0.1:443".parse().unwrap())]);
    let client = client(AddressPolicy::public_https(), fixed_hosts, vec![]);
    assert_eq!(post(&client, "https://hooks.example.com/").await.outcome, Outcome::AddressBlocked);
}
