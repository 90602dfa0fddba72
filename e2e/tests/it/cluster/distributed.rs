//! The distributed installation: what it promises while one of its pods is killed.

use std::collections::HashSet;

use e2e::http::Received;
use hyper::StatusCode;
use serde_json::{Value, json};
use testbed::{PostgresServer, RabbitServer};

use super::support::{DEADLINE, Producer, Receiver, Setting, signing_key, token};

/// Events that are published around the kill of a dispatcher.
const EVENTS: usize = 200;
/// How many of them are published before it.
const BEFORE_KILL: usize = 100;
const LEASE: &str = "lease/harborhook-operator";

/// The servers that an installation works with.
struct Servers {
    _postgres: PostgresServer,
    _rabbitmq: RabbitServer,
}

/// Starts the servers, names them to the release in Secrets, and installs it.
async fn install(setting: &Setting) -> Option<Servers> {
    let (postgres, rabbitmq) = (testbed::postgres(&[]).await.unwrap()?, testbed::rabbitmq(&[]).await.unwrap()?);
    secret(setting, "pg", postgres.url()).await;
    secret(setting, "mq", &format!("{}%2f", rabbitmq.url())).await;
    let mut values = setting.values();
    values["postgres"] = json!({"existingSecret": "pg"});
    values["rabbitmq"] = json!({"existingSecret": "mq"});
    setting.helm_with_values("install", &values).await;
    for component in ["operator", "ingest", "dispatcher-default"] {
        setting.rolled_out(&format!("deployment/harborhook-{component}")).await;
    }
    Some(Servers { _postgres: postgres, _rabbitmq: rabbitmq })
}

/// A Secret with the URL of a server of this machine, as pods reach it.
async fn secret(setting: &Setting, name: &str, url: &str) {
    let mut url = url::Url::parse(url).unwrap();
    let exposed = setting.cluster.expose(url.port().unwrap()).await.unwrap();
    url.set_ip_host(exposed.ip()).unwrap();
    url.set_port(Some(exposed.port())).unwrap();
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"url": url.as_str()}});
    setting.namespace.kubectl().apply(&secret.to_string()).await.unwrap();
}

/// An endpoint at the receiver that gets every order, in effect everywhere.
async fn route(setting: &Setting, name: &str, receiver: &Receiver) {
    let url = format!("{}/{name}", receiver.url);
    let object = |kind: &str, spec: Value| json!({"apiVersion": "harborhook.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let both = [
        object("Endpoint", json!({"url": url})),
        object("Subscription", json!({"endpointRef": {"name": name}, "eventTypes": ["order.*"]})),
    ];
    let list = json!({"apiVersion": "v1", "kind": "List", "items": both});
    setting.tenant.kubectl().apply(&list.to_string()).await.unwrap();
    for kind in ["hookendpoint", "hooksubscription"] {
        setting.has_conditions(&format!("{kind}/{name}"), &["Programmed", "Ready"]).await;
    }
}

async fn publish(setting: &Setting, producer: &Producer, token: &str, number: usize) {
    let answer = producer.publish(setting.tenant.name(), Some(token), &json!({"number": number})).await;
    assert_eq!(answer.0, StatusCode::ACCEPTED, "{}", answer.1);
}

fn webhook_id(received: &Received) -> &str {
    received.headers["webhook-id"].to_str().unwrap()
}

#[tokio::test]
async fn killed_pods_lose_nothing_and_another_operator_leads() {
    let Some(setting) = Setting::start().await else { return };
    let Some(_servers) = install(&setting).await else { return };
    let receiver = setting.receiver().await;
    route(&setting, "billing", &receiver).await;
    let (producer, token) = (setting.producer().await, token(setting.tenant.kubectl()).await);
    let kubectl = setting.namespace.kubectl();

    for number in 0..EVENTS {
        if number == BEFORE_KILL {
            let pods = kubectl.get("pods").await.unwrap();
            let mut names = pods["items"].as_array().unwrap().iter().filter_map(|pod| pod["metadata"]["name"].as_str());
            let dispatcher = names.find(|name| name.contains("dispatcher-default")).unwrap();
            kubectl.run(["delete", "pod", dispatcher, "--force", "--grace-period=0"]).await.unwrap();
        }
        publish(&setting, &producer, &token, number).await;
    }
    for number in 0..EVENTS {
        receiver.receive(&json!({"number": number})).await;
    }
    let requests = receiver.received();
    assert_eq!(requests.iter().map(webhook_id).collect::<HashSet<_>>().len(), EVENTS);
    let secrets = setting.tenant.kubectl().get("secrets").await.unwrap();
    let secret = secrets["items"][0]["metadata"]["name"].as_str().unwrap();
    let key = signing_key(setting.tenant.kubectl(), secret).await;
    for delivery in &requests {
        key.verify(&delivery.body, &delivery.headers).unwrap();
    }

    let holder = |lease: &Value| lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    let led = holder(&kubectl.get(LEASE).await.unwrap());
    kubectl.run(["delete", "pod", &led, "--force", "--grace-period=0"]).await.unwrap();
    let another = |lease: &Value| !holder(lease).is_empty() && holder(lease) != led;
    kubectl.wait_for(LEASE, "another's", DEADLINE, another).await.unwrap();
    route(&setting, "later", &receiver).await;
}
