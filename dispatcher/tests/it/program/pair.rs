//! The distributed pair: processes that know each other only through the database and the broker.

use std::collections::HashSet;
use std::time::Duration;

use dispatcher::ledger::sqlite::SqliteLedger;
use dispatcher::ledger::{DispatcherRole, Ledger};
use dispatcher_core::table::TableVersion;
use rustix::process::Signal;

use super::harness::{Program, World, delivered, publish, table};
use crate::deliver::harness::{KEY, Receiver, Seen, endpoint, eventually, policy};

fn deliveries(seen: &[Seen]) -> HashSet<String> {
    seen.iter().map(|seen| seen.headers["webhook-id"].to_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_accepts_others_deliver_signed_and_once() {
    const EVENTS: usize = 40;
    let Some((world, ledger, receiver)) = World::with_receiver(200).await else { return };
    let mut ingest = world.start("ingest", &[]);
    let mut delivering = [world.start("deliver", &[]), world.start("deliver", &[])];
    let address = ingest.address("api").await;
    for program in &mut delivering {
        program.ready().await;
    }
    ingest.ready().await;
    let known = ledger.dispatchers(Duration::from_mins(1)).await.unwrap();
    let roles = |role| known.iter().filter(|known| known.role == role).count();
    assert_eq!((roles(DispatcherRole::Ingest), roles(DispatcherRole::Deliver)), (1, 2), "{known:?}");
    assert!(known.iter().all(|known| known.table_version == TableVersion(1)), "{known:?}");
    for number in 0..EVENTS {
        let (status, answer) = publish(address, "order.created", number).await;
        assert_eq!((status, &answer["fanout_count"]), (202, &1.into()), "{answer}");
    }
    delivered(&ledger, EVENTS as u64).await;
    let seen = receiver.seen();
    assert_eq!((seen.len(), deliveries(&seen).len()), (EVENTS, EVENTS), "each was sent once");
    let verifier = standardwebhooks::Webhook::from_bytes(KEY.to_vec()).unwrap();
    for seen in &seen {
        verifier.verify(&seen.body, &seen.headers).unwrap();
    }
    for mut program in delivering.into_iter().chain([ingest]) {
        let (_, metrics) = program.admin("/metrics").await;
        assert!(metrics.contains("harborhook_table_version 1"), "{metrics}");
        program.signal(Signal::TERM);
        let ended = program.end().await;
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    assert_eq!(ledger.dispatchers(Duration::from_mins(1)).await.unwrap(), [], "who has ended is forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_held_another_delivers() {
    const EVENTS: usize = 20;
    let Some((world, ledger, receiver)) = World::with_receiver(0).await else { return };
    let mut ingest = world.start("ingest", &[]);
    let mut doomed = world.start("deliver", &[]);
    let address = ingest.address("api").await;
    ingest.ready().await;
    doomed.ready().await;
    for number in 0..EVENTS {
        assert_eq!(publish(address, "order.created", number).await.0, 202);
    }
    eventually("it holds all of them", || async { receiver.count() == EVENTS }).await;
    doomed.signal(Signal::KILL);
    assert_eq!(doomed.end().await.code, None, "it ended by the signal");
    receiver.answer(200);
    let mut other = world.start("deliver", &[]);
    other.ready().await;
    delivered(&ledger, EVENTS as u64).await;
    assert_eq!(deliveries(&receiver.seen()).len(), EVENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_on_a_file_delivers_too_and_nobody_else_may_use_the_file() {
    let receiver = Receiver::start(200).await;
    let folder = tempfile::tempdir().unwrap();
    let (file, key) = (folder.path().join("ledger.db"), folder.path().join("key"));
    std::fs::write(&key, [7; 32]).unwrap();
    {
        let ledger = SqliteLedger::open(&file).await.unwrap();
        ledger.publish_table(table(endpoint("sink", &receiver.url, policy())), None).await.unwrap();
    }
    let database = format!("sqlite:{}", file.display());
    let line = [
        &["all", "--database", &*database, "--queue", "memory:", "--sealing-key-file", key.to_str().unwrap()][..],
        &["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"],
        &["--allow-http", "--allow-address", "127.0.0.1/32", "--allow-port", "any"],
    ]
    .concat();
    let mut program = Program::start(&line);
    program.ready().await;
    assert_eq!(publish(program.address("api").await, "order.created", 1).await.0, 202);
    eventually("it is sent", || async { receiver.count() == 1 }).await;

    let second = Program::start(&line).end().await;
    assert_eq!(second.code, Some(2), "{second:?}");
    assert!(second.stderr.contains("another process uses it"), "{second:?}");
    program.signal(Signal::INT);
    let ended = program.end().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
