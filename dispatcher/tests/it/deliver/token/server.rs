//! A token endpoint on loopback that behaves as it is told.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use axum::routing::{any, post};
use bytes::Bytes;
use dispatcher_core::table::{ClientAuthentication, TokenSource};
use futures::stream;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// The secret that the server knows.
pub(crate) const SECRET: &str = "correct-horse";
/// `hooks` and the secret, as RFC 6749, 2.3.1, sends them.
const AUTHORIZATION: &str = "Basic aG9va3M6Y29ycmVjdC1ob3JzZQ==";

/// How the next requests are answered.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// Whoever knows the secret gets the next token.
    Grant { expires_in: u64 },
    /// Everybody gets this.
    Answer { status: u16, head: Option<(&'static str, String)>, body: String },
    /// Nothing, until it is told something else.
    Hang,
    /// The beginning of a body, and then a byte from time to time.
    Drip,
    /// A body that never ends.
    Endless,
}

pub(crate) struct TokenServer {
    pub(crate) url: String,
    /// Answers every request with its own `Authorization` header.
    pub(crate) echo_url: String,
    told: Arc<Told>,
}

struct Told {
    behaviour: watch::Sender<Behaviour>,
    seen: Mutex<Vec<(HeaderMap, String)>>,
}

impl TokenServer {
    pub(crate) async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let told = Arc::new(Told { behaviour: watch::Sender::new(behaviour), seen: Mutex::default() });
        let router = Router::new()
            .route("/token", post(token))
            .route("/echo", any(|headers: HeaderMap| async move { headers["authorization"].as_bytes().to_vec() }))
            .with_state(Arc::clone(&told));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url: format!("http://{address}/token"), echo_url: format!("http://{address}/echo"), told }
    }

    /// Answers so from the next answer on; requests that hang are answered so.
    pub(crate) fn behave(&self, behaviour: Behaviour) {
        self.told.behaviour.send_replace(behaviour);
    }

    pub(crate) fn count(&self) -> usize {
        self.told.seen.lock().unwrap().len()
    }

    /// Headers and bodies of the requests.
    pub(crate) fn seen(&self) -> Vec<(HeaderMap, String)> {
        self.told.seen.lock().unwrap().clone()
    }

    /// A source that asks this server with this secret.
    pub(crate) fn source(&self, secret: &str) -> TokenSource {
        TokenSource {
            url: self.url.clone().into(),
            client_id: "hooks".to_owned().into(),
            client_secret: secret.to_owned().into(),
            authentication: ClientAuthentication::Basic,
            scopes: vec!["hooks.write".to_owned()],
            audience: None,
        }
    }
}

async fn token(State(told): State<Arc<Told>>, headers: HeaderMap, body: String) -> Response<Body> {
    let number = {
        let mut seen = told.seen.lock().unwrap();
        seen.push((headers.clone(), body));
        seen.len()
    };
    let mut behaviour = told.behaviour.subscribe();
    let behaviour = behaviour.wait_for(|behaviour| !matches!(behaviour, Behaviour::Hang)).await.unwrap().clone();
    let answer = |status: u16, body: Body| Response::builder().status(status).body(body).unwrap();
    match behaviour {
        Behaviour::Grant { .. } if headers["authorization"] != AUTHORIZATION => {
            answer(401, r#"{"error":"invalid_client","error_description":"who are you?"}"#.into())
        }
        Behaviour::Grant { expires_in } => {
            let body =
                format!(r#"{{"access_token":"token-{number}","token_type":"bearer","expires_in":{expires_in}}}"#);
            answer(200, body.into())
        }
        Behaviour::Answer { status, head, body } => {
            let mut response = answer(status, body.into());
            if let Some((name, value)) = head {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }
        Behaviour::Drip => answer(200, repeated(Bytes::from_static(b" "), Duration::from_millis(20))),
        Behaviour::Endless => answer(200, repeated(Bytes::from(vec![b' '; 4_096]), Duration::ZERO)),
        Behaviour::Hang => unreachable!("it was waited for something else"),
    }
}

fn repeated(bytes: Bytes, pause: Duration) -> Body {
    Body::from_stream(stream::unfold(bytes, move |bytes| async move {
        tokio::time::sleep(pause).await;
        Some((Ok::<_, Infallible>(bytes.clone()), bytes))
    }))
}
