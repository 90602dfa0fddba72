//! Publishing: pipelined, confirmed, bounded.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use dispatcher_core::limits::{
    PUBLISH_BYTES_MAX, PUBLISH_CHANNELS_MAX, PUBLISH_CONFIRM_DEADLINE, PUBLISH_DEADLINE, PUBLISH_WINDOW_MESSAGES_MAX,
};
use futures::StreamExt;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::Counts;
use super::link::{Link, Session};
use super::lock;
use super::pools::WatchedQueue;
use crate::queue::envelope;
use crate::queue::{Message, PublishError};

/// Delivery mode of a message that the broker writes to disk (AMQP 0-9-1, 1.8.3).
const PERSISTENT: u8 = 2;
/// The unit in which unconfirmed bytes are counted.
const PERMIT_BYTES: usize = 1024;

/// The publishing side.
///
/// Each call has a channel of its own while it lasts. The broker may confirm many messages in one word, and then the
/// client library hands a returned message to any one of them; within a channel of its own, a call finds all that were
/// returned to it and tells them by their number.
pub(super) struct Publisher {
    link: Link,
    messages_max: u32,
    calls: Arc<Semaphore>,
    /// Permits of [`PERMIT_BYTES`].
    bytes: Semaphore,
    idle_channels: Mutex<Vec<Channel>>,
    counts: Arc<Counts>,
}

impl Publisher {
    pub(super) fn new(link: Link, messages_max: u32, counts: Arc<Counts>) -> Self {
        Self {
            link,
            messages_max,
            calls: Arc::new(Semaphore::new(PUBLISH_CHANNELS_MAX)),
            bytes: Semaphore::new(PUBLISH_BYTES_MAX / PERMIT_BYTES),
            idle_channels: Mutex::default(),
            counts,
        }
    }

    /// Publishes and waits for the confirms, at most [`PUBLISH_DEADLINE`]: what is not answered by then counts as not
    /// taken on. Its confirms are awaited beyond the call all the same, so that its channel can be used again.
    pub(super) async fn publish(
        self: &Arc<Self>,
        queue: Arc<WatchedQueue>,
        messages: Vec<Message>,
    ) -> Vec<Result<(), PublishError>> {
        let count = messages.len();
        let publisher = Arc::clone(self);
        let call = async move {
            publisher.link.session().filter(|session| session.takes_messages())?;
            let call = Arc::clone(&publisher.calls).acquire_owned().await.ok()?;
            // Waiting may have taken long enough for the answer to change.
            let session = publisher.link.session().filter(|session| session.takes_messages())?;
            let (sender, results) = oneshot::channel();
            tokio::spawn(publisher.exchange_and_answer(session, queue, messages, sender, call));
            results.await.ok()
        };
        match timeout(PUBLISH_DEADLINE, call).await {
            Ok(Some(results)) => results,
            Ok(None) | Err(_) => vec![Err(PublishError::Unavailable); count],
        }
    }

    pub(super) fn takes_messages(&self) -> bool {
        self.link.session().is_some_and(|session| session.takes_messages())
    }

    async fn exchange_and_answer(
        self: Arc<Self>,
        session: Arc<Session>,
        queue: Arc<WatchedQueue>,
        messages: Vec<Message>,
        sender: oneshot::Sender<Vec<Result<(), PublishError>>>,
        _call: OwnedSemaphorePermit,
    ) {
        let mut results = vec![Err(PublishError::Unavailable); messages.len()];
        {
            let mut exchange = std::pin::pin!(self.exchange(&session, &queue, &messages, &mut results));
            loop {
                let exchanged = tokio::select! {
                    exchanged = timeout(PUBLISH_CONFIRM_DEADLINE, &mut exchange) => exchanged,
                    () = session.gone() => break,
                };
                match exchanged {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(queue = queue.name.as_str(), %error, "nothing was published"),
                    // As long as its alarm lasts the broker confirms nothing, and another connection would fare no better.
                    Err(_) if session.is_blocked() => continue,
                    Err(_) => session.give_up(),
                }
                break;
            }
        }
        // Nobody waits any more when the answer comes too late.
        let _late = sender.send(results);
    }

    /// Publishes all messages; those that were not taken on once more, after the queue was made anew where it is missing.
    async fn exchange(
        &self,
        session: &Session,
        queue: &WatchedQueue,
        messages: &[Message],
        results: &mut [Result<(), PublishError>],
    ) -> lapin::Result<()> {
        let mut indexes: Vec<usize> = (0..messages.len()).collect();
        let first = self.round(session, queue, messages, &indexes, results).await;
        if first.as_ref().is_ok_and(|is_final| *is_final) || !session.takes_messages() {
            return first.map(drop);
        }
        session.forget(&queue.name).await;
        indexes.retain(|index| results[*index] == Err(PublishError::Unavailable));
        self.round(session, queue, messages, &indexes, results).await.map(drop)
    }

    /// Publishes the messages at `indexes` to a queue that is there as far as is known. Answers whether it is final: no
    /// message came back, and the channel was not closed under them.
    async fn round(
        &self,
        session: &Session,
        queue: &WatchedQueue,
        messages: &[Message],
        indexes: &[usize],
        results: &mut [Result<(), PublishError>],
    ) -> lapin::Result<bool> {
        session.ensure(&queue.name, self.messages_max).await?;
        let channel = self.channel(session).await?;
        let returned = self.window(&channel, queue, messages, indexes, results).await;
        self.counts.returned.add(returned.len());
        let is_open = channel.status().connected();
        if is_open {
            lock(&self.idle_channels).push(channel);
        }
        if !returned.is_empty() {
            session.forget(&queue.name).await;
        }
        Ok(is_open && returned.is_empty())
    }

    /// Publishes the messages at `indexes` in order, many at a time, and writes down their results. Answers those that
    /// were returned: the broker confirms them too, but no queue has them.
    async fn window(
        &self,
        channel: &Channel,
        queue: &WatchedQueue,
        messages: &[Message],
        indexes: &[usize],
        results: &mut [Result<(), PublishError>],
    ) -> HashSet<usize> {
        let mut returned = HashSet::new();
        let exchanges = indexes.iter().copied().map(|index: usize| self.one(channel, queue, index, &messages[index]));
        let mut exchanges = futures::stream::iter(exchanges).buffered(PUBLISH_WINDOW_MESSAGES_MAX);
        let mut taken = Vec::with_capacity(indexes.len());
        while let Some(exchanged) = exchanges.next().await {
            returned.extend(exchanged.came_back.as_ref().and_then(number));
            taken.push((exchanged.index, exchanged.result, exchanged.sending));
        }
        for (index, result, sending) in taken {
            results[index] = if returned.contains(&index) { Err(PublishError::Unavailable) } else { result };
            if results[index].is_ok() {
                sending.confirmed();
            }
        }
        returned
    }

    /// One message: published, and whatever came of it.
    async fn one<'a>(
        &self,
        channel: &Channel,
        queue: &'a WatchedQueue,
        index: usize,
        message: &Message,
    ) -> Exchanged<'a> {
        let sending = Sending::new(queue, message.deliveries());
        let mut exchanged = Exchanged { index, result: Err(PublishError::Unavailable), came_back: None, sending };
        let envelope = match envelope::encode(message) {
            Ok(envelope) => envelope,
            Err(error) => {
                tracing::error!(queue = queue.name.as_str(), %error, "a message cannot be published");
                return exchanged;
            }
        };
        let permits = u32::try_from(envelope.len().div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _bytes = self.bytes.acquire_many(permits).await;
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let properties =
            BasicProperties::default().with_delivery_mode(PERSISTENT).with_message_id(index.to_string().into());
        let confirmation =
            match channel.basic_publish("".into(), queue.name.get(), options, &envelope, properties).await {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
        match confirmation {
            Ok(Confirmation::Ack(came_back)) => {
                exchanged.result = Ok(());
                exchanged.came_back = came_back;
            }
            Ok(Confirmation::Nack(came_back)) => {
                self.counts.refused.add(1);
                exchanged.result = Err(PublishError::Full);
                exchanged.came_back = came_back;
            }
            Ok(Confirmation::NotRequested) | Err(_) => {}
        }
        exchanged
    }

    /// A channel that nobody uses, or a new one.
    async fn channel(&self, session: &Session) -> lapin::Result<Channel> {
        loop {
            let Some(channel) = lock(&self.idle_channels).pop() else { break };
            // Those of a lost connection are dropped here.
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        let channel = session.channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    }
}

/// What came of one message.
struct Exchanged<'a> {
    index: usize,
    result: Result<(), PublishError>,
    /// A message that was returned in the meantime: this one, or another of the same channel.
    came_back: Option<BasicReturnMessage>,
    sending: Sending<'a>,
}

/// A message that counts as being in its queue, until it turns out that it is not.
struct Sending<'a> {
    queue: &'a WatchedQueue,
    is_confirmed: bool,
}

impl<'a> Sending<'a> {
    fn new(queue: &'a WatchedQueue, deliveries: usize) -> Self {
        lock(&queue.depth).sending(deliveries);
        Self { queue, is_confirmed: false }
    }

    fn confirmed(mut self) {
        self.is_confirmed = true;
    }
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        let mut depth = lock(&self.queue.depth);
        if self.is_confirmed {
            depth.confirmed();
        } else {
            depth.failed();
        }
    }
}

/// The number under which a returned message was published.
fn number(returned: &BasicReturnMessage) -> Option<usize> {
    returned.properties.message_id().as_ref()?.as_str().parse().ok()
}
