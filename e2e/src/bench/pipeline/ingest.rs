//! Its first half: HTTP in, a batch into the table, answers, messages out.

use std::convert::Infallible;
use std::sync::Arc;

use anyhow::Result;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};
use sqlx::PgConnection;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::rows::{self, Rows};
use super::{QUEUE, channel, connect};
use crate::bench::child::tell_address;

/// Most events of one copy; they are those that came while the last one was under way.
const BATCH_EVENTS_MAX: usize = 512;
/// Batches that may wait for their confirms while further ones are copied.
const PUBLISHING_MAX: usize = 64;
/// Delivery mode of a message that the broker writes to disk (AMQP 0-9-1, 1.8.3).
const PERSISTENT: u8 = 2;

/// A request that waits for its answer.
struct Waiting {
    id: Uuid,
    path: u8,
    body: Bytes,
    answer: oneshot::Sender<()>,
}

/// Runs until it is killed. A request's path is [`super::path`].
pub async fn run(database: &str, broker: &str) -> Result<()> {
    let connection = rows::connect(database).await?;
    let broker = connect(broker).await?;
    let channel = channel(&broker).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let (sender, receiver) = mpsc::channel(4096);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    tell_address("api", listener.local_addr()?).await?;
    tokio::spawn(listen(listener, sender));
    copy_and_publish(connection, channel, receiver).await
}

async fn listen(listener: TcpListener, sender: mpsc::Sender<Waiting>) {
    while let Ok((stream, _)) = listener.accept().await {
        // As in the load: a benchmark measures the work, not the wait of small packets.
        let _ = stream.set_nodelay(true);
        let sender = sender.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| accept(sender.clone(), request));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn accept(
    sender: mpsc::Sender<Waiting>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().trim_start_matches('/').parse().unwrap_or(0);
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    if let Ok(body) = request.into_body().collect().await {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { id: Uuid::now_v7(), path, body: body.to_bytes(), answer };
        if sender.send(waiting).await.is_ok() && answered.await.is_ok() {
            *response.status_mut() = StatusCode::ACCEPTED;
        }
    }
    Ok(response)
}

/// Copies the next batch while the messages of those before are confirmed.
async fn copy_and_publish(
    mut connection: PgConnection,
    channel: Channel,
    mut receiver: mpsc::Receiver<Waiting>,
) -> Result<()> {
    let channel = Arc::new(channel);
    let publishing = Arc::new(tokio::sync::Semaphore::new(PUBLISHING_MAX));
    let mut batch = Vec::with_capacity(BATCH_EVENTS_MAX);
    while receiver.recv_many(&mut batch, BATCH_EVENTS_MAX).await > 0 {
        let mut rows = Rows::new();
        for waiting in &batch {
            rows.row(2).uuid(waiting.id).bytes(&waiting.body);
        }
        rows.copy(&mut connection, "COPY events (id, body) FROM STDIN (FORMAT binary)").await?;
        let mut messages = Vec::with_capacity(batch.len());
        for Waiting { id, path, body, answer } in batch.drain(..) {
            // A client that has gone is of no interest here.
            let _ = answer.send(());
            if path > 0 {
                messages.push([&[path], id.as_bytes().as_slice(), &body].concat());
            }
        }
        if messages.is_empty() {
            continue;
        }
        let permit = Arc::clone(&publishing).acquire_owned().await?;
        let channel = Arc::clone(&channel);
        tokio::spawn(async move {
            publish(&channel, messages).await.expect("the broker confirms what the bare pipeline publishes");
            drop(permit);
        });
    }
    Ok(())
}

async fn publish(channel: &Channel, messages: Vec<Vec<u8>>) -> Result<()> {
    let mut confirms = FuturesUnordered::new();
    for message in &messages {
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT);
        let options = BasicPublishOptions::default();
        confirms.push(channel.basic_publish("".into(), QUEUE.into(), options, message, properties).await?);
    }
    while let Some(confirm) = confirms.next().await {
        anyhow::ensure!(matches!(confirm?, Confirmation::Ack(None)), "the broker refused a message");
    }
    Ok(())
}
