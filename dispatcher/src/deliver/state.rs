//! What one process knows about one endpoint, and what follows from it. Pure: time is an argument.

use std::time::Duration;

use dispatcher_core::breaker::{Admit, Breaker, BreakerState, Ticket, Transition};
use dispatcher_core::classify::{EndpointEffect, endpoint_effect};
use dispatcher_core::delivery::Outcome;
use dispatcher_core::id::EndpointId;
use dispatcher_core::pace::Pace;
use dispatcher_core::table::EndpointRow;
use dispatcher_core::window::{Window, WindowResult};

use super::as_ms;
use super::recorder::Effect;
use crate::http::Exchange;
use crate::ledger::{DisableReason, GateChange};

/// Breaker, pace and window of an endpoint, and how its lane in the ledger was set.
#[derive(Debug)]
pub(super) struct State {
    endpoint: EndpointId,
    soft_budget: Duration,
    revision: String,
    breaker: Breaker,
    pace: Option<Pace>,
    /// Deliveries that the pace lets go within a soft budget.
    pace_quota: u32,
    probes: u32,
    window: Window,
    /// Counts revisions: a ticket of an earlier breaker says nothing to a new one.
    epoch: u64,
    /// Until when the circuit is open, or the receiver asked for a pause.
    closed_until_ms: u64,
    failing_since_ms: Option<u64>,
    is_disabled: bool,
    is_slow: bool,
    /// Whether the lane may be closed or bounded, by us or by a process before us.
    is_lane_restricted: bool,
}

/// An exchange that may be made, and is counted as in flight.
#[derive(Debug)]
pub(super) struct Pass {
    ticket: Ticket,
    epoch: u64,
}

/// Whether a delivery may go now.
#[derive(Debug)]
pub(super) enum Enter {
    /// It may.
    Go(Pass),
    /// Others are in flight; ask again when one of them has ended.
    WaitForRoom,
    /// The rate is used up; ask again after this time.
    WaitForPace(Duration),
    /// Not soon: it waits in the ledger, behind this gate.
    Park(GateChange),
    /// Not until the endpoint's revision changes.
    Disabled,
}

impl State {
    pub(super) fn new(row: &EndpointRow, soft_budget: Duration) -> Self {
        let mut state = Self {
            endpoint: row.id,
            soft_budget,
            revision: String::new(),
            breaker: Breaker::new(row.policy.circuit_breaker),
            pace: None,
            pace_quota: 0,
            probes: 0,
            window: Window::new(row.policy.max_in_flight),
            epoch: 0,
            closed_until_ms: 0,
            failing_since_ms: None,
            is_disabled: false,
            is_slow: false,
            is_lane_restricted: true,
        };
        state.begin_revision(row);
        state
    }

    /// Asks for an exchange. `patience` is how long the delivery can still wait in this process.
    pub(super) fn enter(&mut self, row: &EndpointRow, now_ms: u64, patience: Duration) -> Enter {
        if self.revision != row.revision {
            self.begin_revision(row);
        }
        if self.is_disabled {
            return Enter::Disabled;
        }
        if now_ms < self.closed_until_ms {
            return Enter::Park(self.gate(now_ms, Duration::ZERO));
        }
        let ticket = match self.breaker.admit(now_ms) {
            Admit::Go(ticket) | Admit::Probe(ticket) => ticket,
            Admit::Wait(pause) => return Enter::Park(self.gate(now_ms, pause)),
        };
        if self.window.in_flight() >= self.window.limit() {
            self.breaker.abandon(ticket);
            if self.is_slow || patience.is_zero() {
                return Enter::Park(self.gate(now_ms, self.soft_budget));
            }
            return Enter::WaitForRoom;
        }
        if let Some(Err(wait)) = self.pace.as_mut().map(|pace| pace.take(now_ms)) {
            self.breaker.abandon(ticket);
            if wait > patience {
                return Enter::Park(self.gate(now_ms, wait));
            }
            return Enter::WaitForPace(wait);
        }
        self.window.try_enter();
        Enter::Go(Pass { ticket, epoch: self.epoch })
    }

    /// An exchange that was let go was not made, or was given up for reasons of ours.
    pub(super) fn abandon(&mut self, pass: &Pass) {
        self.window.leave(WindowResult::Neutral);
        if pass.epoch == self.epoch {
            self.breaker.abandon(pass.ticket);
        }
    }

    /// There was nothing to send for an exchange that was let go: it took no token and was no probe. Answers the gate
    /// of a lane that lets only so many through at a time, so that the next one may take the place.
    pub(super) fn give_back(&mut self, pass: &Pass, now_ms: u64) -> Option<Effect> {
        self.abandon(pass);
        if pass.epoch != self.epoch || self.is_disabled {
            return None;
        }
        if let Some(pace) = &mut self.pace {
            pace.give_back();
        }
        self.quota().is_some().then(|| Effect::Gate(self.gate(now_ms, Duration::ZERO)))
    }

    /// An exchange that was let go may not be made for a while: it is given back. Answers the gate to wait behind, unless
    /// the endpoint has changed, and the reason to wait with it.
    pub(super) fn put_off(&mut self, pass: &Pass, now_ms: u64, pause: Duration) -> Option<Effect> {
        self.give_back(pass, now_ms);
        let is_present = pass.epoch == self.epoch && !self.is_disabled;
        is_present.then(|| Effect::Gate(self.gate(now_ms, pause)))
    }

    /// An exchange ended. Answers what that means for the lane.
    pub(super) fn leave(&mut self, pass: &Pass, exchange: &Exchange, row: &EndpointRow, now_ms: u64) -> Vec<Effect> {
        self.window.leave(window_result(exchange.outcome));
        self.is_slow = exchange.duration >= self.soft_budget;
        if pass.epoch != self.epoch {
            return Vec::new();
        }
        let success = exchange.outcome == Outcome::Delivered;
        let mut effects = Vec::new();
        match self.breaker.record(pass.ticket, success, now_ms) {
            Some(Transition::Opened { pause } | Transition::Reopened { pause }) => {
                self.window.collapse();
                self.close(now_ms, pause);
            }
            Some(Transition::Closed) => self.is_lane_restricted = true,
            None => {}
        }
        match endpoint_effect(exchange.outcome, exchange.status_code, exchange.retry_after) {
            EndpointEffect::None => {}
            EndpointEffect::SlowDown(pause) => self.close(now_ms, pause),
            EndpointEffect::Disable => effects.extend(self.disable(DisableReason::Gone)),
        }
        if self.has_failed_too_long(success, row, now_ms) {
            effects.extend(self.disable(DisableReason::DisabledAfterFailures));
        }
        if self.is_lane_restricted && !self.is_disabled {
            effects.push(Effect::Gate(self.gate(now_ms, Duration::ZERO)));
        }
        effects
    }

    /// An exchange has outlived the soft budget.
    pub(super) fn mark_slow(&mut self) {
        self.is_slow = true;
    }

    /// Whether the last exchange that could tell was slow.
    pub(super) fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// There was no slow slot for an exchange: one at a time from here on.
    pub(super) fn collapse(&mut self) {
        self.window.collapse();
    }

    /// Whether one more may enter.
    pub(super) fn has_room(&self) -> bool {
        self.window.in_flight() < self.window.limit()
    }

    /// The gate that should be set now, closed for at least this long.
    pub(super) fn gate(&mut self, now_ms: u64, closed_for: Duration) -> GateChange {
        let closed_for = closed_for.max(Duration::from_millis(self.closed_until_ms.saturating_sub(now_ms)));
        let quota = self.quota();
        self.is_lane_restricted = !closed_for.is_zero() || quota.is_some();
        GateChange { endpoint: self.endpoint, revision: self.revision.clone(), closed_for, quota }
    }

    /// Most deliveries that one claim should take.
    fn quota(&self) -> Option<u32> {
        if self.breaker.state() != BreakerState::Closed {
            Some(self.probes)
        } else if self.pace.is_some() {
            Some(self.pace_quota)
        } else if self.is_slow {
            Some(self.window.limit())
        } else {
            None
        }
    }

    /// Whatever made the endpoint fail may have been changed: it starts anew, but for what is in flight.
    fn begin_revision(&mut self, row: &EndpointRow) {
        let policy = &row.policy;
        self.revision.clone_from(&row.revision);
        self.epoch += 1;
        self.breaker = Breaker::new(policy.circuit_breaker);
        self.probes = policy.circuit_breaker.probes.max(1);
        self.window.set_max(policy.max_in_flight);
        self.pace = policy.rate_limit.map(Pace::new);
        let tokens = policy.rate_limit.map_or(0, |limit| u64::from(limit.per_second) * as_ms(self.soft_budget) / 1_000);
        self.pace_quota = u32::try_from(tokens).unwrap_or(u32::MAX).max(1);
        self.closed_until_ms = 0;
        self.failing_since_ms = None;
        self.is_disabled = false;
        self.is_slow = false;
        self.is_lane_restricted = true;
    }

    fn close(&mut self, now_ms: u64, pause: Duration) {
        self.closed_until_ms = self.closed_until_ms.max(now_ms.saturating_add(as_ms(pause)));
        self.is_lane_restricted = true;
    }

    fn disable(&mut self, reason: DisableReason) -> Option<Effect> {
        let is_new = !std::mem::replace(&mut self.is_disabled, true);
        is_new.then(|| Effect::Disable { endpoint: self.endpoint, revision: self.revision.clone(), reason })
    }

    fn has_failed_too_long(&mut self, success: bool, row: &EndpointRow, now_ms: u64) -> bool {
        if success {
            self.failing_since_ms = None;
            return false;
        }
        let failing_ms = now_ms.saturating_sub(*self.failing_since_ms.get_or_insert(now_ms));
        row.policy.disable_after_failing_for_seconds.is_some_and(|seconds| failing_ms >= u64::from(seconds) * 1_000)
    }
}

/// Only failures that can come from too much load narrow the window.
fn window_result(outcome: Outcome) -> WindowResult {
    match outcome {
        Outcome::Delivered => WindowResult::Success,
        Outcome::Timeout
        | Outcome::ConnectionRefused
        | Outcome::Network
        | Outcome::TlsError
        | Outcome::Http429
        | Outcome::Http5xx => WindowResult::Failure,
        Outcome::DnsError
        | Outcome::AddressBlocked
        | Outcome::Http3xx
        | Outcome::Http4xx
        | Outcome::Http410
        | Outcome::TransformFailed
        | Outcome::TokenFailed => WindowResult::Neutral,
    }
}

#[cfg(test)]
mod tests {
    use dispatcher_core::delivery::Outcome;
    use dispatcher_core::id::TenantId;
    use dispatcher_core::recipient::RecipientRule;
    use dispatcher_core::retry::RetryPolicy;
    use dispatcher_core::table::{
        BodyFormat, BreakerPolicy, DeliveryPolicy, EndpointState, RateLimit, Sealed, SigningScheme,
    };

    use super::*;

    const NOW_MS: u64 = 1_700_000_000_000;
    const BUDGET: Duration = Duration::from_secs(1);

    fn row() -> EndpointRow {
        let tenant = TenantId::of_namespace_name("shop");
        EndpointRow {
            id: EndpointId::derive(tenant, "e"),
            tenant,
            name: "e".into(),
            revision: "1".into(),
            recipient: RecipientRule::Any,
            state: EndpointState::Active,
            host: "receiver.example".into(),
            policy: DeliveryPolicy {
                timeout_seconds: 15,
                retry: RetryPolicy::default(),
                rate_limit: Some(RateLimit { per_second: 1, burst: 1 }),
                max_in_flight: 1,
                circuit_breaker: BreakerPolicy {
                    min_attempts: 1,
                    initial_pause_seconds: 10,
                    ..BreakerPolicy::default()
                },
                disable_after_failing_for_seconds: Some(1),
                format: BodyFormat::Payload,
                signing_scheme: SigningScheme::StandardWebhooks,
            },
            pool: "default".into(),
            sealed: Sealed::default(),
        }
    }

    fn pass(state: &mut State, row: &EndpointRow, now_ms: u64) -> Pass {
        match state.enter(row, now_ms, Duration::ZERO) {
            Enter::Go(pass) => pass,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_given_back_costs_the_endpoint_nothing() {
        let row = row();
        let mut state = State::new(&row, BUDGET);
        // Neither a place, nor a token, nor a failure, for as long as it goes on.
        for second in 0..100 {
            let now_ms = NOW_MS + second * 1_000;
            for _ in 0..3 {
                let pass = pass(&mut state, &row, now_ms);
                state.give_back(&pass, now_ms);
            }
        }
        assert_eq!(state.breaker.state(), BreakerState::Closed);
        assert_eq!((state.window.in_flight(), state.window.limit()), (0, 1));
        assert_eq!((state.failing_since_ms, state.is_disabled), (None, false));
    }

    #[test]
    fn what_is_put_off_costs_nothing_and_waits_behind_the_gate_of_its_revision_alone() {
        let mut row = row();
        let mut state = State::new(&row, BUDGET);
        let pause = Duration::from_secs(40);
        for second in 0..100 {
            // Each finds the token of the pace that the one before gave back.
            let pass = pass(&mut state, &row, NOW_MS + second);
            let Some(Effect::Gate(gate)) = state.put_off(&pass, NOW_MS + second, pause) else { panic!("no gate") };
            assert_eq!((gate.closed_for, gate.revision.as_str()), (pause, "1"));
        }
        assert_eq!((state.breaker.state(), state.failing_since_ms), (BreakerState::Closed, None));
        assert_eq!((state.window.in_flight(), state.window.limit()), (0, 1));

        row.policy.max_in_flight = 2;
        let old = pass(&mut state, &row, NOW_MS + 100);
        row.revision = "2".into();
        let new = pass(&mut state, &row, NOW_MS + 100);
        assert!(state.put_off(&old, NOW_MS + 100, pause).is_none(), "what has changed is not held up");
        assert!(state.put_off(&new, NOW_MS + 100, pause).is_some());
    }

    #[test]
    fn a_probe_that_is_given_back_leaves_its_place_to_the_next() {
        let mut row = row();
        row.policy.rate_limit = None;
        row.policy.disable_after_failing_for_seconds = None;
        let mut state = State::new(&row, BUDGET);
        let first = pass(&mut state, &row, NOW_MS);
        let failed = Exchange {
            outcome: Outcome::Http5xx,
            status_code: Some(500),
            retry_after: None,
            excerpt: bytes::Bytes::new(),
            duration: Duration::ZERO,
        };
        state.leave(&first, &failed, &row, NOW_MS);
        assert!(matches!(state.enter(&row, NOW_MS, Duration::ZERO), Enter::Park(_)), "the circuit is open");

        let later_ms = NOW_MS + 60_000;
        for _ in 0..3 {
            let probe = pass(&mut state, &row, later_ms);
            let gate = state.give_back(&probe, later_ms);
            // The claim that brought the probe closed the lane until its lease is over.
            let Some(Effect::Gate(gate)) = gate else { panic!("{gate:?}") };
            assert_eq!((gate.closed_for, gate.quota), (Duration::ZERO, Some(1)));
        }
        assert_ne!(state.breaker.state(), BreakerState::Closed, "nothing was learnt of the receiver");
    }
}
