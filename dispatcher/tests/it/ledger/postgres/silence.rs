//! A network that stands and carries nothing.

use std::sync::Arc;
use std::time::Duration;

use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use dispatcher::ledger::{Accepted, Ledger, LedgerError, NewEvent};
use testbed::Proxy;

use super::{config, connect, database};
use crate::ledger::support::*;

/// Longest wait for what must happen.
const DEADLINE: Duration = Duration::from_mins(2);

/// A ledger with two connections for its work and little patience, the network to its server, and a ledger beside it.
struct Scene {
    ledger: Arc<dyn Ledger>,
    proxy: Proxy,
    direct: Arc<dyn Ledger>,
    _database: testbed::TestDatabase,
}

impl Scene {
    async fn open() -> Option<Self> {
        let database = database().await?;
        let proxy = Proxy::to(database.url()).await.unwrap();
        let url = proxy.through(database.url()).unwrap().into();
        let config = PostgresConfig {
            url,
            pool_connections_max: 3,
            answer_timeout: Duration::from_millis(500),
            statement_timeout: Duration::from_millis(500),
            ..config(&database)
        };
        let ledger: Arc<dyn Ledger> = Arc::new(PostgresLedger::connect(config).await.unwrap());
        let direct: Arc<dyn Ledger> = Arc::new(connect(&database).await);
        Some(Self { ledger, proxy, direct, _database: database })
    }

    /// Accepts, as often as it takes.
    async fn accept_in_the_end(&self, events: &[NewEvent]) {
        let trying = async {
            loop {
                match self.ledger.accept(events.to_vec()).await {
                    Ok(answers) => {
                        return assert!(answers.iter().all(|answer| *answer == Accepted::New), "{answers:?}");
                    }
                    Err(LedgerError::Unavailable(_)) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        };
        tokio::time::timeout(DEADLINE, trying).await.expect("a connection is free for it");
    }

    async fn assert_accepted(&self, count: u64) {
        assert_eq!(self.direct.balance().await.unwrap()[0].accepted, count);
        assert_balanced(&self.direct).await;
    }
}

fn assert_unavailable<T: std::fmt::Debug>(answer: &Result<T, LedgerError>) {
    assert!(matches!(answer, Err(LedgerError::Unavailable(_))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_stands_holds_nobody_for_ever_and_nothing_is_there_twice() {
    let Some(scene) = Scene::open().await else { return };
    scene.accept_in_the_end(&[new_event(&["a"], HOUR)]).await;
    scene.proxy.hold();
    let unclear: Vec<_> = (0..3).map(|_| new_event(&["a"], HOUR)).collect();
    let calls = async {
        for new in &unclear {
            assert_unavailable(&scene.ledger.accept(vec![new.clone()]).await);
        }
        let change = part_change(&unclear[0], 0, 1, &delivered(1));
        assert_unavailable(&scene.ledger.record(vec![change]).await);
        assert_unavailable(&scene.ledger.balance().await);
        assert_unavailable(&scene.ledger.ping().await);
    };
    tokio::time::timeout(DEADLINE, calls).await.expect("no call waits for ever");
    // Some of what was asked arrives only now.
    scene.proxy.release();
    scene.accept_in_the_end(&unclear).await;
    scene.assert_accepted(4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_lead_nowhere_do_not_keep_their_places() {
    let Some(scene) = Scene::open().await else { return };
    let [one, two, three] = [(); 3].map(|()| [new_event(&["a"], HOUR)]);
    tokio::join!(scene.accept_in_the_end(&one), scene.accept_in_the_end(&two));
    scene.proxy.strand();
    scene.accept_in_the_end(&three).await;
    scene.assert_accepted(3).await;
}
