//! What may pass is waited for: alive, not ready, told once, and then all goes on.

use std::sync::Arc;

use dispatcher::ledger::Ledger;
use dispatcher::ledger::postgres::{PostgresConfig, PostgresLedger};
use rustix::process::Signal;
use serde_json::Value;

use super::harness::{Program, World, changed, delivered, publish, table};
use crate::deliver::harness::{Receiver, endpoint, policy};

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_away_are_waited_for_and_then_used() {
    let Some(mut postgres) = testbed::postgres(&[]).await.unwrap() else { return };
    let Some(mut rabbitmq) = testbed::rabbitmq(&[]).await.unwrap() else { return };
    let receiver = Receiver::start(200).await;
    let Some(world) = World::empty().await else { return };
    let (database, queue) = (postgres.url().to_owned(), format!("{}%2f", rabbitmq.url()));
    postgres.kill().unwrap();
    rabbitmq.kill().unwrap();
    let mut ingest = world.start_on("ingest", &database, &queue, &[]);
    let mut deliver = world.start_on("deliver", &database, &queue, &[]);
    for program in [&mut ingest, &mut deliver] {
        program.finds("ledger", "unreachable").await;
        assert_eq!(program.admin("/healthz").await, (200, "ok\n".to_owned()));
        assert_eq!(program.admin("/metrics").await.0, 200);
        let answer = program.finds("queue", "unreachable").await;
        assert_eq!(answer["checks"]["table"], "not_loaded", "{answer}");
    }
    let api = ingest.address("api").await;
    let (status, problem) = publish(api, "order.created", 0).await;
    assert_eq!(status, 503, "{problem}");
    assert!(problem["type"].as_str().unwrap().ends_with("ledger-unavailable"), "{problem}");

    postgres.restart().await.unwrap();
    ingest.finds("ledger", "schema_too_old").await;
    assert_eq!(Program::start(&["migrate", "--database", &database]).end().await.code, Some(0));
    let ledger = PostgresLedger::connect(PostgresConfig::new(&database)).await.unwrap();
    let ledger: Arc<dyn Ledger> = Arc::new(ledger);
    let row = endpoint("sink", &receiver.url, policy());
    let version = ledger.publish_table(table(row), None).await.unwrap();
    // What ingests is of use without a broker; what only delivers is not.
    ingest.ready().await;
    ingest.until(|answer| answer["table_version"] == version.0).await;
    let (status, answer) = publish(api, "order.created", 1).await;
    assert_eq!(status, 202, "{answer}");
    let answer = deliver.finds("table", "ok").await;
    assert_eq!((&answer["ready"], &answer["checks"]["queue"]), (&false.into(), &"unreachable".into()), "{answer}");

    rabbitmq.restart().await.unwrap();
    deliver.ready().await;
    delivered(&ledger, 1).await;
    let told = deliver.said().matches("the database cannot be used yet").count();
    assert!(told <= 4, "it is told once for each change, not {told} times: {}", deliver.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_is_waited_for() {
    let Some(world) = World::empty().await else { return };
    assert_eq!(Program::start(&["migrate", "--database", world.database.url()]).end().await.code, Some(0));
    let standby = changed(world.database.url(), |url| {
        url.set_query(Some("options[default_transaction_read_only]=on"));
    });
    let mut program = world.start_on("deliver", &standby, world.vhost.url(), &["--log-format", "json"]);
    program.finds("ledger", "unreachable").await;
    assert!(program.said().contains("takes no writes"), "{}", program.said());
    program.signal(Signal::TERM);
    let ended = program.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for line in ended.stderr.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string() && line["fields"]["message"].is_string(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_too_old_is_waited_for() {
    let Some(world) = World::empty().await else { return };
    let mut program = world.start("ingest", &[]);
    program.finds("ledger", "schema_too_old").await;
    assert!(program.said().contains("dispatcher migrate"), "{}", program.said());
    let ended = Program::start(&["migrate", "--database", world.database.url()]).end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    program.ready().await;
}
