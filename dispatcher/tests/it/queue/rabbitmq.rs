//! The queue on RabbitMQ, on a vhost or a server of the test's own.

mod failures;
mod oldest;
mod refusals;
mod support;
#[cfg(feature = "amqps")]
mod tls;

use self::support::{RabbitTest, vhost};

/// A queue on a vhost of its own; `None` without a server.
async fn open(messages_max: u32) -> Option<RabbitTest> {
    RabbitTest::connect(vhost().await?, messages_max).await
}

crate::queue::conformance::conformance_suite!(open);
