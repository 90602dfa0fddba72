//! What a process knows when it begins to work.

use std::sync::Arc;

use async_trait::async_trait;
use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::ledger::{Ledger, LedgerError};
use dispatcher::queue::memory::MemoryQueue;
use dispatcher::service::{Service, ServiceConfig};
use dispatcher_core::address::AddressPolicy;
use dispatcher_core::limits::MEMORY_QUEUE_MESSAGES_MAX;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::deliver::harness::{endpoint, policy, sealing_key};
use crate::ledger_proxy::{Before, LedgerProxy};
use crate::program::harness::table;

/// Publishes a table before each beat, as an operator may that does not know of the process yet.
struct PublishesBeforeBeats(Arc<dyn Ledger>);

#[async_trait]
impl Before for PublishesBeforeBeats {
    async fn call(&self, method: &'static str) -> Result<(), LedgerError> {
        if method == "beat" {
            self.0.publish_table(table(endpoint("sink", "http://127.0.0.1:9", policy())), None).await?;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_published_before_a_process_is_known_is_loaded_before_it_works() {
    let folder = tempfile::tempdir().unwrap();
    let real: Arc<dyn Ledger> = Arc::new(SqliteLedger::open_in(folder.path()).await.unwrap());
    let ledger = Arc::new(LedgerProxy { real: Arc::clone(&real), before: PublishesBeforeBeats(Arc::clone(&real)) });
    let queue = Arc::new(MemoryQueue::new(MEMORY_QUEUE_MESSAGES_MAX));
    let config = ServiceConfig::new(ledger, queue, Arc::new(sealing_key()), AddressPolicy::development());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shutdown = CancellationToken::new();
    let service = Service::start(config, listener, None, shutdown.clone()).await.unwrap();
    assert_ne!(service.snapshot.borrow().routes.len(), 0, "it works with a table from before it was known");
    shutdown.cancel();
    service.join.await.unwrap().unwrap();
}
