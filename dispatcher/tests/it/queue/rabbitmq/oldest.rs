//! The same on the oldest release of the broker that is supported.

use super::support::RabbitTest;

/// A queue on a vhost of its own; `None` without a server.
async fn open(messages_max: u32) -> Option<RabbitTest> {
    let vhost = testbed::vhost_of_oldest().await.expect("the test bed works or says why it cannot");
    RabbitTest::connect(vhost?, messages_max).await
}

crate::queue::conformance::conformance_suite!(open);
