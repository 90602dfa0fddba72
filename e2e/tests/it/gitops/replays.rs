//! Replays.

use crds::Kind;
use crds::definition::default_status;
use dispatcher::ledger::{ReplayCursor, ReplayRecord, ReplayStage};
use dispatcher_core::id::TenantId;
use operator::plan::replay::{ReplayProgress, replay_id};
use operator::world::{Malformed, World};
use serde_json::Value;
use uuid::Uuid;

use super::Health::{Degraded, Healthy, Progressing, Suspended};
use super::routes::{endpoint, subscription};
use super::{Case, NOW_UNIX_MS, after, numbered, object, world};

/// A replay beside a route that is in effect.
fn settled(more: &str) -> World {
    let spec = format!("sinceTime: \"2023-11-01T00:00:00Z\", untilTime: \"2023-11-02T00:00:00Z\"{more}");
    let text = format!("{}{}{}", endpoint(""), subscription(""), object(Kind::Replay, "r", &spec));
    after(world(&text), 3)
}

fn begun(mut world: World, stage: ReplayStage, trouble: Option<&str>) -> World {
    let replay = replay_id(TenantId::of_namespace_name("shop"), "r", &world.replays[0].spec);
    let record = ReplayRecord {
        replay,
        step: 1,
        cursor: ReplayCursor { stage, after: Uuid::from_u128(7) },
        started_at_unix_ms: NOW_UNIX_MS,
        finished_at_unix_ms: None,
        until_unix_ms: NOW_UNIX_MS,
        matched: 40,
        queued: 30,
        delivered: 20,
        failed: 10,
    };
    world.replay_progress.insert(replay, ReplayProgress { record, trouble: trouble.map(ToOwned::to_owned) });
    after(world, 1)
}

fn finished(world: World) -> World {
    let mut world = begun(world, ReplayStage::Done, None);
    for progress in world.replay_progress.values_mut() {
        progress.record.finished_at_unix_ms = Some(NOW_UNIX_MS);
    }
    after(world, 1)
}

fn malformed(mut world: World) -> World {
    let (kind, namespace, name) = (Kind::Replay, "shop".to_owned(), "r".to_owned());
    world.malformed.push(Malformed { kind, namespace, name, message: "spec.untilTime: is no time".to_owned() });
    after(world, 1)
}

fn first(world: &World) -> Value {
    numbered(&world.replays[0], 1)
}

pub(super) fn cases() -> Vec<Case> {
    const OF_ENDPOINT: &str = ", endpointRef: {name: e}";
    let waiting = settled(OF_ENDPOINT);
    let suspended = settled(&format!("{OF_ENDPOINT}, suspend: true"));
    let mut unseen = first(&waiting);
    unseen["status"] = default_status();
    let resumed = numbered(&suspended.replays[0], 2);
    let running = |trouble| begun(waiting.clone(), ReplayStage::Deliveries, trouble);
    let looked = begun(waiting.clone(), ReplayStage::Done, None);
    let stopped = begun(suspended.clone(), ReplayStage::Deliveries, None);
    let broken = settled(&format!("{OF_ENDPOINT}, filter: \"event.data.a >\""));
    let case = |what, object, health, says| Case { what, object, health, says };
    vec![
        case("a replay that nobody has seen", unseen, Progressing, "Waiting for the controller"),
        case("a replay that begins", first(&waiting), Progressing, "About to begin"),
        case("a replay that runs", first(&running(None)), Healthy, "Deliveries are looked for and started"),
        case("a replay whose ledger fails", first(&running(Some("no ledger"))), Progressing, "no ledger"),
        case("a replay with open deliveries", first(&looked), Healthy, "Everything is started"),
        case(
            "a complete replay",
            first(&finished(waiting.clone())),
            Healthy,
            "40 matched, 30 queued, 20 delivered, 10",
        ),
        case("a complete one of which nothing is left", first(&finished(suspended.clone())), Healthy, "40 matched"),
        case("a replay that may not begin", first(&suspended), Suspended, "Suspended, as the spec asks"),
        case("a replay that was stopped", first(&stopped), Suspended, "Suspended, as the spec asks"),
        case("a replay that was resumed a moment ago", resumed, Progressing, "Waiting for the controller"),
        case("a replay without endpoint", first(&settled(", endpointRef: {name: f}")), Progressing, "spec.endpointRef"),
        case(
            "a replay without subscription",
            first(&settled(", subscriptionRef: {name: t}")),
            Progressing,
            "spec.subscriptionRef",
        ),
        case("a replay with a broken filter", first(&broken), Degraded, "spec.filter: "),
        case("a replay that is not understood", first(&malformed(waiting)), Degraded, "spec.untilTime: is no time"),
    ]
}
