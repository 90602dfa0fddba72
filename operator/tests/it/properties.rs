//! Laws of plans over random worlds.

use std::collections::HashMap;
use std::sync::Arc;

use dispatcher_core::address::AddressPolicy;
use dispatcher_core::seal::SealingKey;
use operator::plan::{Memory, PlanContext, plan, plan_again};
use operator::world::World;
use operator::world::files::Loaded;
use operator::world::resource::read_text;
use operator::world::store::FileStore;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::fixtures::{NOW, pool};

const URLS: [&str; 4] =
    ["https://example.com/a", "https://10.0.0.1/", "http://example.com/", "https://example.org:8443/x"];
const FILTERS: [&str; 3] = ["event.data.amount > 3", "(", "true"];
const TYPES: [&str; 3] = ["order.*", "**", "order.created"];

#[derive(Clone, Debug)]
struct EndpointShape {
    name: usize,
    namespace: usize,
    url: usize,
    secret: usize,
    suspend: bool,
    label: usize,
    overlap: u32,
    timeout: i32,
}

#[derive(Clone, Debug)]
struct SubscriptionShape {
    name: usize,
    namespace: usize,
    by_label: bool,
    target: usize,
    filter: Option<usize>,
    transform: Option<usize>,
    event_type: usize,
    suspend: bool,
}

fn endpoint_shape() -> impl Strategy<Value = EndpointShape> {
    (0..3_usize, 0..2_usize, 0..URLS.len(), 0..4_usize, any::<bool>(), 0..2_usize, 0..3_u32, 0..3_i32).prop_map(
        |(name, namespace, url, secret, suspend, label, overlap, timeout)| EndpointShape {
            name,
            namespace,
            url,
            secret,
            suspend,
            label,
            overlap: overlap * 60,
            timeout,
        },
    )
}

fn subscription_shape() -> impl Strategy<Value = SubscriptionShape> {
    let expressions = || proptest::option::of(0..FILTERS.len());
    let expressions = (expressions(), expressions());
    (0..3_usize, 0..2_usize, any::<bool>(), 0..4_usize, expressions, 0..TYPES.len(), any::<bool>()).prop_map(
        |(name, namespace, by_label, target, (filter, transform), event_type, suspend)| SubscriptionShape {
            name,
            namespace,
            by_label,
            target,
            filter,
            transform,
            event_type,
            suspend,
        },
    )
}

fn text_of(endpoints: &[EndpointShape], subscriptions: &[SubscriptionShape], secrets: &[(usize, usize)]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let head = "---\napiVersion: harborhook.dev/v1alpha1\n";
    for shape in endpoints {
        let EndpointShape { name, namespace, url, secret, suspend, label, overlap, .. } = shape;
        let reference =
            if *secret == 3 { String::new() } else { format!(", secretKeyRef: {{name: k{secret}, key: key}}") };
        writeln!(
            text,
            "{head}kind: Endpoint\nmetadata: {{name: e{name}, namespace: n{namespace}, labels: {{team: t{label}}}}}\n\
             spec: {{url: '{}', suspend: {suspend}, signing: {{rotationOverlapSeconds: {overlap}{reference}}}}}",
            URLS[*url],
        )
        .unwrap();
    }
    for shape in subscriptions {
        let SubscriptionShape { name, namespace, by_label, target, filter, transform, event_type, suspend } = shape;
        let target = if *by_label {
            format!("endpointSelector: {{matchLabels: {{team: t{target}}}}}")
        } else {
            format!("endpointRef: {{name: e{target}}}")
        };
        let expression = |field: &str, place: Option<usize>| {
            place.map_or(String::new(), |place| format!(", {field}: '{}'", FILTERS[place]))
        };
        let expressions = expression("filter", *filter) + &expression("transform", *transform);
        writeln!(
            text,
            "{head}kind: Subscription\nmetadata: {{name: s{name}, namespace: n{namespace}}}\n\
             spec: {{{target}, eventTypes: ['{}'], suspend: {suspend}{expressions}}}",
            TYPES[*event_type],
        )
        .unwrap();
    }
    for (name, value) in secrets {
        for namespace in 0..2 {
            writeln!(
                text,
                "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: k{name}, namespace: n{namespace}}}\n\
                 stringData: {{key: 'a-key-of-some-length-{value}'}}"
            )
            .unwrap();
        }
    }
    text
}

fn world_of(endpoints: &[EndpointShape], subscriptions: &[SubscriptionShape], secrets: &[(usize, usize)]) -> World {
    let mut store = FileStore::default();
    let file = read_text("random.yaml", &text_of(endpoints, subscriptions, secrets));
    // Duplicates are refused here; the first of them counts.
    store.update(Loaded { files: vec![file], problems: Vec::new(), complete: true });
    let mut world = store.world();
    for (endpoint, shape) in world.endpoints.iter_mut().zip(endpoints) {
        // Zero is what no schema of this release admits.
        Arc::make_mut(endpoint).spec.timeout_seconds = Some(shape.timeout);
    }
    world
}

type Step = (Vec<EndpointShape>, Vec<SubscriptionShape>, Vec<(usize, usize)>, u64);

fn step() -> impl Strategy<Value = Step> {
    (vec(endpoint_shape(), 0..5), vec(subscription_shape(), 0..5), vec((0..3_usize, 0..3_usize), 0..4), 0..200_000_u64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn planning_what_an_applied_plan_leaves_changes_nothing(steps in vec(step(), 1..5), up_to_date in 0..3_u32) {
        let key = SealingKey::from_bytes(&[3; 32]);
        let policy = AddressPolicy::public_https();
        let context = PlanContext { sealing_key: &key, address_policy: &policy };
        let (mut published, mut row_versions, mut now) = (Vec::new(), HashMap::new(), NOW);
        let mut memory = Memory::default();
        for (endpoints, subscriptions, secrets, later) in &steps {
            let mut world = world_of(endpoints, subscriptions, secrets);
            world.published = published;
            world.pools.insert("default".to_owned(), pool(2, up_to_date));
            world.row_versions = row_versions;
            now += later;
            let first = plan(&world, &context, now);
            let remembering = plan_again(&world, &context, now, &mut memory);
            prop_assert_eq!(format!("{remembering:?}"), format!("{first:?}"));
            world.apply(&first);
            let second = plan(&world, &context, now);
            prop_assert!(second.table.is_empty(), "{:?}", second.table);
            prop_assert_eq!(&second.generate_secrets, &first.generate_secrets);
            // Statuses tell that the table is published, once.
            world.apply(&second);
            let third = plan(&world, &context, now);
            for _ in 0..2 {
                let remembering = plan_again(&world, &context, now, &mut memory);
                prop_assert_eq!(format!("{remembering:?}"), format!("{third:?}"), "whatever was found out before");
            }
            prop_assert!(third.table.is_empty() && third.statuses.is_empty(), "{:?}", third);
            (published, row_versions) = (world.published, world.row_versions);
        }
    }
}
