//! What every queue must do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dispatcher::queue::{PublishError, Track};
use tokio_util::sync::CancellationToken;

use super::support::{DEADLINE, POOL, TestQueue, drain, message, messages, next, number, publish, until, waits};

/// Runs the suite over `$open`, an async function from a bound on the messages of a queue to `Option<impl TestQueue>`.
macro_rules! conformance_suite {
    ($open:path) => {
        crate::queue::conformance::conformance_tests!($open, 2: [
            a_full_track_refuses_and_the_others_do_not,
            room_shrinks_with_what_waits,
        ]);
        crate::queue::conformance::conformance_tests!($open, 4096: [
            fresh_messages_come_before_due_ones_each_in_order,
            a_message_that_is_not_acknowledged_comes_again_and_says_so,
            a_message_that_keeps_coming_back_counts_its_deliveries,
            a_dropped_consumer_gives_back_what_it_holds_in_order,
            what_is_acknowledged_in_any_order_does_not_come_again,
            a_consumer_holds_no_more_deliveries_than_it_may,
            a_cancelled_call_loses_no_message,
            consumers_share_a_pool_and_each_message_goes_to_one,
            a_closed_queue_takes_nothing_more_and_its_consumers_see_the_end,
        ]);
    };
}

macro_rules! conformance_tests {
    ($open:path, $messages_max:literal: [$($name:ident,)*]) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(queue) = $open($messages_max).await {
                    crate::queue::conformance::$name(&queue).await;
                }
            }
        )*
    };
}

pub(crate) use {conformance_suite, conformance_tests};

pub(crate) async fn a_full_track_refuses_and_the_others_do_not(test: &dyn TestQueue) {
    let queue = test.queue();
    let mut taken = 0;
    while let Ok(()) = queue.publish(POOL, Track::Fresh, vec![message(taken, 1)]).await.remove(0) {
        taken += 1;
        assert!(taken < 100, "nothing bounds the queue");
    }
    assert!(taken >= 2);
    assert_eq!(queue.publish(POOL, Track::Fresh, messages(7..9)).await, [Err(PublishError::Full); 2]);
    assert_eq!(queue.publish(POOL, Track::Due, messages(9..10)).await, [Ok(())]);
    assert_eq!(queue.publish("other", Track::Fresh, messages(9..10)).await, [Ok(())]);
    let mut consumer = queue.consume(POOL, 10).await.unwrap();
    // Of two tracks either may be heard of first; of one, what came first.
    let first = [number(&next(&mut consumer).await), number(&next(&mut consumer).await)];
    assert!(first.contains(&0), "{first:?}");
}

pub(crate) async fn room_shrinks_with_what_waits(test: &dyn TestQueue) {
    let queue = test.queue();
    let empty = queue.room(POOL, Track::Due);
    assert!(empty > 0);
    queue.publish(POOL, Track::Due, vec![message(0, 100)]).await.remove(0).unwrap();
    assert!(queue.room(POOL, Track::Due) < empty);
    assert_eq!(queue.room(POOL, Track::Fresh), empty);
    queue.publish(POOL, Track::Due, vec![message(1, 1)]).await.remove(0).unwrap();
    assert_eq!(queue.room(POOL, Track::Due), 0);
    let mut consumer = queue.consume(POOL, 1000).await.unwrap();
    next(&mut consumer).await.ack.acknowledge();
    until("room again", async || queue.room(POOL, Track::Due) > 0).await;
}

pub(crate) async fn fresh_messages_come_before_due_ones_each_in_order(test: &dyn TestQueue) {
    let queue = test.queue();
    let mut consumer = queue.consume(POOL, 1).await.unwrap();
    publish(&*queue, Track::Due, 9..10).await;
    let first = next(&mut consumer).await;
    publish(&*queue, Track::Due, 10..11).await;
    publish(&*queue, Track::Fresh, 0..2).await;
    test.sent().await;
    first.ack.acknowledge();
    assert_eq!(drain(&mut consumer, 3).await, [(0, false), (1, false), (10, false)]);
}

pub(crate) async fn a_message_that_is_not_acknowledged_comes_again_and_says_so(test: &dyn TestQueue) {
    let queue = test.queue();
    publish(&*queue, Track::Fresh, 0..1).await;
    let mut consumer = queue.consume(POOL, 10).await.unwrap();
    let first = next(&mut consumer).await;
    assert_eq!((number(&first), first.redelivered, first.delivery_count), (0, false, 0));
    publish(&*queue, Track::Fresh, 1..2).await;
    drop(first.ack);
    let mut seen = drain(&mut consumer, 2).await;
    seen.sort_unstable();
    assert_eq!(seen, [(0, true), (1, false)]);
    assert!(waits(&mut consumer).await);
}

pub(crate) async fn a_message_that_keeps_coming_back_counts_its_deliveries(test: &dyn TestQueue) {
    let queue = test.queue();
    publish(&*queue, Track::Fresh, 0..1).await;
    let mut consumer = queue.consume(POOL, 10).await.unwrap();
    for delivery_count in 0..5 {
        assert_eq!(next(&mut consumer).await.delivery_count, delivery_count);
    }
}

pub(crate) async fn a_dropped_consumer_gives_back_what_it_holds_in_order(test: &dyn TestQueue) {
    let queue = test.queue();
    publish(&*queue, Track::Fresh, 0..3).await;
    let mut consumer = queue.consume(POOL, 10).await.unwrap();
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    drop(consumer);
    // Too late: the queue has taken it back.
    first.ack.acknowledge();
    let mut consumer = queue.consume(POOL, 10).await.unwrap();
    let seen = drain(&mut consumer, 3).await;
    // Whether the last was on its way to the first consumer is the queue's affair; if not, the second may get it first.
    let (last, given_back): (Vec<_>, Vec<_>) = seen.into_iter().partition(|(number, _)| *number == 2);
    assert_eq!((last.len(), &*given_back), (1, &[(0, true), (1, true)][..]));
    drop(second);
    assert!(waits(&mut consumer).await, "a receipt of the dropped consumer brings nothing back");
}

pub(crate) async fn what_is_acknowledged_in_any_order_does_not_come_again(test: &dyn TestQueue) {
    let queue = test.queue();
    publish(&*queue, Track::Fresh, 0..20).await;
    publish(&*queue, Track::Due, 20..30).await;
    let mut consumer = queue.consume(POOL, 1000).await.unwrap();
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(next(&mut consumer).await);
    }
    let (kept, done): (Vec<_>, Vec<_>) = held.into_iter().rev().partition(|received| number(received) % 10 == 3);
    for received in done {
        received.ack.acknowledge();
    }
    drop(consumer);
    drop(kept);
    let mut consumer = queue.consume(POOL, 1000).await.unwrap();
    let mut seen = drain(&mut consumer, 3).await;
    seen.sort_unstable();
    assert_eq!(seen, [(3, true), (13, true), (23, true)]);
    publish(&*queue, Track::Fresh, 30..31).await;
    assert_eq!(drain(&mut consumer, 1).await, [(30, false)], "nothing else came back");
}

pub(crate) async fn a_consumer_holds_no_more_deliveries_than_it_may(test: &dyn TestQueue) {
    let queue = test.queue();
    let batch = vec![message(0, 50), message(1, 3), message(2, 3), message(3, 3)];
    assert_eq!(queue.publish(POOL, Track::Fresh, batch).await, [Ok(()); 4]);
    let mut consumer = queue.consume(POOL, 4).await.unwrap();
    let large = next(&mut consumer).await;
    assert!(waits(&mut consumer).await, "the first message may be larger, a second must wait");
    large.ack.acknowledge();
    let (one, _two) = (next(&mut consumer).await, next(&mut consumer).await);
    assert!(waits(&mut consumer).await);
    one.ack.acknowledge();
    assert_eq!(number(&next(&mut consumer).await), 3);
}

pub(crate) async fn a_cancelled_call_loses_no_message(test: &dyn TestQueue) {
    const MESSAGES: u64 = 200;
    let queue = test.queue();
    let publisher = tokio::spawn({
        let queue = Arc::clone(&queue);
        async move {
            for number in 0..MESSAGES {
                publish(&*queue, Track::Fresh, number..number + 1).await;
                tokio::task::yield_now().await;
            }
        }
    });
    let mut consumer = queue.consume(POOL, 1000).await.unwrap();
    let mut seen = BTreeSet::new();
    let all = async {
        while seen.len() < usize::try_from(MESSAGES).unwrap() {
            tokio::select! {
                biased;
                received = consumer.next() => {
                    let received = received.unwrap().unwrap();
                    seen.insert(number(&received));
                    received.ack.acknowledge();
                }
                () = tokio::task::yield_now() => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, all).await.expect("every message arrives");
    publisher.await.unwrap();
}

pub(crate) async fn consumers_share_a_pool_and_each_message_goes_to_one(test: &dyn TestQueue) {
    const MESSAGES: usize = 500;
    let queue = test.queue();
    let (count, done) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let mut consumer = queue.consume(POOL, 1).await.unwrap();
        let (count, done) = (Arc::clone(&count), done.clone());
        tasks.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Some(received) = done.run_until_cancelled(next(&mut consumer)).await {
                assert!(!received.redelivered);
                seen.push(number(&received));
                received.ack.acknowledge();
                if count.fetch_add(1, Ordering::Relaxed) + 1 == MESSAGES {
                    done.cancel();
                }
            }
            seen
        }));
    }
    publish(&*queue, Track::Fresh, 0..MESSAGES as u64).await;
    let mut seen = Vec::new();
    for task in tasks {
        seen.extend(tokio::time::timeout(DEADLINE, task).await.expect("all arrive").unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..MESSAGES as u64).collect::<Vec<_>>());
}

pub(crate) async fn a_closed_queue_takes_nothing_more_and_its_consumers_see_the_end(test: &dyn TestQueue) {
    let queue = test.queue();
    let mut idle = queue.consume("idle", 10).await.unwrap();
    let ended = tokio::spawn(async move { idle.next().await.unwrap().is_none() });
    tokio::task::yield_now().await;
    test.close().await;
    assert!(tokio::time::timeout(DEADLINE, ended).await.expect("a waiting consumer wakes").unwrap());
    assert_eq!(queue.publish(POOL, Track::Due, messages(1..2)).await, [Err(PublishError::Unavailable)]);
    let mut late = queue.consume(POOL, 10).await.unwrap();
    assert!(tokio::time::timeout(DEADLINE, late.next()).await.expect("it is closed").unwrap().is_none());
}
