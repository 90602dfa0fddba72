//! What every ledger must do. Times are either long over or an hour away, so that no test waits.

pub(crate) mod accept;
pub(crate) mod claim;
pub(crate) mod dispatchers;
pub(crate) mod maintain;
pub(crate) mod pools;
pub(crate) mod read;
pub(crate) mod record;
pub(crate) mod replays;
pub(crate) mod table;

/// Runs the suite over `$open`, an async function that answers `(Arc<dyn Ledger>, guard)`, or an option of it: `None`
/// where there is no server to test on.
macro_rules! conformance_suite {
    ($open:path) => {
        crate::ledger::conformance::conformance_tests!($open;
            accept: [
                an_event_is_committed_with_its_body_and_targets,
                a_retried_accept_changes_nothing,
                a_retried_accept_does_not_bring_back_finished_parts,
                a_repeated_key_answers_the_first_event,
                a_key_used_for_something_else_is_a_conflict,
                two_uses_of_a_key_in_one_batch_accept_one,
                an_expired_key_is_free_again,
                keys_of_tenants_are_apart,
                a_large_fanout_is_leased_in_parts,
                an_event_without_targets_is_kept,
                an_empty_body_is_kept,
            ],
            record: [
                a_part_becomes_deliveries_with_their_attempts,
                a_stale_part_is_superseded_and_its_attempts_kept,
                a_late_success_of_a_stale_part_finishes_an_open_delivery,
                a_late_success_before_the_new_holder_reports_counts,
                a_stale_hold_that_reports_twice_keeps_its_success,
                a_stale_follower_leaves_the_new_holders_work_alone,
                a_stale_followers_success_before_the_new_holder_reports_counts,
                a_stale_followers_success_finishes_what_the_new_holder_has_in_flight,
                results_must_cover_the_part,
                an_empty_answer_is_kept,
                a_failed_delivery_goes_on_until_it_ends,
                a_repeated_record_counts_its_attempt_once,
                waiting_without_an_attempt_counts_none,
                a_holder_cancels_what_is_no_longer_wanted,
                in_flight_keeps_the_hold_until_its_lease_ends,
                changes_of_one_delivery_in_one_batch_build_on_each_other,
                a_late_success_finishes_and_a_late_failure_changes_nothing,
                take_raises_the_generation_once,
                replay_starts_a_new_run_of_the_same_delivery,
                a_late_success_of_an_old_run_does_not_finish_the_new_one,
                replay_refuses_what_is_open_missing_or_foreign,
            ],
            replays: [
                a_replay_finds_what_is_finished_in_its_scope,
                a_replay_finds_nothing_outside_its_time,
                pages_of_a_replay_come_to_the_whole,
                what_has_left_the_table_is_not_found,
                events_come_with_their_targets,
                a_step_starts_each_delivery_once,
                a_step_that_others_were_faster_than_does_nothing,
                a_step_leaves_alone_what_has_changed_since,
                what_is_missing_becomes_a_target_of_its_event,
                a_target_added_beside_a_held_part_is_apart_from_it,
                runs_are_counted_as_they_end,
                a_run_that_gave_way_to_a_later_one_is_counted_too,
                a_replay_that_started_nothing_is_finished_at_its_end,
                the_same_replay_begins_once,
                what_others_own_is_never_touched,
                a_replay_is_forgotten_with_the_time_that_it_asked_for,
                a_leader_that_was_replaced_starts_nothing,
            ],
            claim: [
                a_leased_part_is_claimed_when_its_lease_is_over,
                claimed_work_carries_the_whole_event,
                a_claim_is_claimed_again_when_its_lease_is_over,
                lanes_take_turns,
                a_tenant_cannot_take_all_lanes_of_a_claim,
                a_flood_of_parts_leaves_room_for_retries,
                a_claim_keeps_to_its_bound,
                a_closed_gate_holds_whatever_waits,
                a_quota_bounds_a_claim_and_closes_the_gate_again,
                next_due_says_when_to_come_back,
                pools_are_apart,
                expired_leases_are_due_at_once,
                a_wake_between_two_claims_is_not_lost,
            ],
            dispatchers: [
                whoever_beats_is_listed_with_what_it_last_said,
                whoever_retires_is_forgotten,
                the_clock_of_the_ledger_is_told,
                what_the_dead_have_in_flight_is_claimed_before_its_lease_is_over,
                what_the_retired_have_in_flight_is_due_at_once,
            ],
            maintain: [
                what_is_older_than_its_retention_is_given_up_and_gone,
                tenants_and_steps_of_maintenance_are_many,
            ],
            pools: [
                what_is_late_is_told_from_what_is_held_and_what_waits,
                what_waits_behind_a_gate_is_open_and_not_late,
                what_was_late_is_so_on_the_queue_too,
                loads_of_pools_are_apart_and_in_the_order_asked,
                rates_count_what_was_accepted_attempted_and_delivered,
                metrics_of_pools_can_be_published_again_and_again,
                metrics_of_pools_of_a_replaced_leader_are_refused,
            ],
            table: [
                versions_rise_and_loads_tell_what_changed,
                an_empty_change_keeps_the_version,
                every_row_tells_which_version_changed_it_last,
                a_leader_that_was_replaced_writes_nothing,
                a_new_leader_shuts_the_old_one_out_before_it_has_changed_anything,
                a_version_from_elsewhere_reloads_everything,
                every_load_tells_the_same_history,
                gates_follow_the_state_of_the_row,
                a_dropped_endpoint_holds_until_its_grace_is_over,
                a_recreated_endpoint_adopts_what_waits,
                orphans_in_flight_are_left_to_finish,
                disabled_until_the_revision_changes,
                a_disable_of_an_old_revision_is_ignored,
                a_new_revision_opens_the_gate,
                a_late_gate_of_an_old_revision_is_ignored,
            ],
            read: [
                pages_of_deliveries_are_stable_under_inserts,
                deliveries_are_filtered_by_event_endpoint_and_state,
                pages_of_events_are_filtered_by_type,
                foreign_tenants_see_nothing,
                the_backlog_counts_gated_deliveries_apart,
                endpoint_facts_sum_the_attempts,
                a_failed_transform_says_nothing_of_the_endpoint,
                expired_keys_are_removed_in_bounded_steps,
            ],
        );
    };
}

macro_rules! conformance_tests {
    ($open:path; $($module:ident: [$($name:ident,)*],)*) => {
        $($(
            #[tokio::test]
            async fn $name() {
                let opened: Option<(_, _)> = $open().await.into();
                let Some((ledger, _guard)) = opened else { return };
                crate::ledger::conformance::$module::$name(&ledger).await;
                crate::ledger::support::assert_balanced(&ledger).await;
            }
        )*)*
    };
}

pub(crate) use {conformance_suite, conformance_tests};
