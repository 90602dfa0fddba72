//! What is known of one source's token, and when to ask for the next. Pure: time is an argument, in milliseconds since
//! the Unix epoch.

use std::ops::Range;
use std::time::Duration;

use dispatcher_core::limits::{
    TOKEN_EXPIRY_MARGIN, TOKEN_LIFETIME_SHARE, TOKEN_REFRESH_AHEAD, TOKEN_RETRY_PAUSE_MAX, TOKEN_RETRY_PAUSE_MIN,
};
use http::HeaderValue;

use super::answer::{BEARER, Grant};

/// The token that a source gave last, and when it may be asked again.
#[derive(Debug, Default)]
pub(super) struct State {
    kept: Option<Kept>,
    /// After a failure: when it is not asked. A clock that was set back ends that too.
    pause: Range<u64>,
    /// Failures since the last token.
    failures: u32,
    /// Tokens in a row that were refused soon after they had been given.
    refusals: u32,
    /// Tokens that were given.
    tokens: u64,
}

/// A token to send. Prints nothing of itself.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// The whole header, marked as sensitive.
    pub(super) header: HeaderValue,
    number: u64,
}

impl Token {
    /// The token alone.
    pub(super) fn secret(&self) -> &[u8] {
        &self.header.as_bytes()[BEARER.len()..]
    }
}

#[derive(Debug)]
struct Kept {
    token: Token,
    /// When it is used. A clock that was set back ends it too.
    used: Range<u64>,
    next_from_ms: u64,
}

/// What to do for somebody who wants the token.
#[derive(Debug)]
pub(super) enum Look {
    /// This is it.
    Use(Token),
    /// This is it, and it is time to ask for the next.
    UseAndAsk(Token),
    /// There is none.
    Ask,
    /// There is none, and none could be had a moment ago: it may be asked for after this time.
    Pause(Duration),
}

impl State {
    /// What to do now.
    pub(super) fn look(&self, now_ms: u64) -> Look {
        let is_paused = self.pause.contains(&now_ms);
        match self.kept.as_ref().filter(|kept| kept.used.contains(&now_ms)) {
            Some(kept) if now_ms >= kept.next_from_ms && !is_paused => Look::UseAndAsk(kept.token.clone()),
            Some(kept) => Look::Use(kept.token.clone()),
            None if is_paused => Look::Pause(Duration::from_millis(self.pause.end - now_ms)),
            None => Look::Ask,
        }
    }

    /// A token was given. Its lifetime counts from when it was asked for.
    pub(super) fn granted(&mut self, grant: Grant, asked_at_ms: u64) -> Token {
        let share = grant.lifetime / TOKEN_LIFETIME_SHARE;
        let used_for = grant.lifetime.saturating_sub(TOKEN_EXPIRY_MARGIN.min(share));
        let next_after = used_for.saturating_sub(TOKEN_REFRESH_AHEAD.min(share));
        self.tokens += 1;
        let token = Token { header: grant.header, number: self.tokens };
        self.kept = Some(Kept {
            token: token.clone(),
            used: asked_at_ms..after(asked_at_ms, used_for),
            next_from_ms: after(asked_at_ms, next_after),
        });
        self.pause = 0..0;
        self.failures = 0;
        token
    }

    /// None was given. A token that can still be used is kept.
    pub(super) fn failed(&mut self, retry_after: Option<Duration>, now_ms: u64) {
        self.failures = self.failures.saturating_add(1);
        let pause = pause(self.failures).max(retry_after.unwrap_or_default()).min(TOKEN_RETRY_PAUSE_MAX);
        self.pause = now_ms..after(now_ms, pause);
    }

    /// The receiver refused a token. It is asked for anew at the next use; if the one before was refused soon as well,
    /// not until this one has reached an age that grows: a receiver that refuses all tokens costs the token endpoint no
    /// more requests than one that gives none.
    pub(super) fn refused(&mut self, token: &Token, now_ms: u64) {
        let Some(kept) = self.kept.as_ref().filter(|kept| kept.token.number == token.number) else { return };
        let age = Duration::from_millis(now_ms.saturating_sub(kept.used.start));
        if self.refusals > 0 && age < pause(self.refusals) {
            return;
        }
        self.refusals = if age < TOKEN_RETRY_PAUSE_MAX { self.refusals.saturating_add(1) } else { 1 };
        self.kept = None;
    }
}

/// The pause after the nth failure, from 1: doubles up to its bound.
fn pause(number: u32) -> Duration {
    let factor = 2_u32.saturating_pow(number.saturating_sub(1));
    TOKEN_RETRY_PAUSE_MIN.saturating_mul(factor).min(TOKEN_RETRY_PAUSE_MAX)
}

fn after(now_ms: u64, duration: Duration) -> u64 {
    now_ms.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn grant(lifetime_seconds: u64) -> Grant {
        let mut header = HeaderValue::from_static("Bearer hunter2");
        header.set_sensitive(true);
        Grant { header, lifetime: Duration::from_secs(lifetime_seconds) }
    }

    /// One letter for what to do: used, used and asked, asked, paused.
    fn look(state: &State, at_seconds: u64) -> char {
        match state.look(NOW + at_seconds * 1_000) {
            Look::Use(_) => 'u',
            Look::UseAndAsk(_) => 'n',
            Look::Ask => 'a',
            Look::Pause(_) => 'p',
        }
    }

    #[test]
    fn a_token_is_used_until_shortly_before_it_expires_and_the_next_is_asked_for_before_that() {
        for (lifetime_seconds, next_from, ends) in [
            // A minute ahead of ten seconds before the end.
            (3_600, 3_530, 3_590),
            (600, 530, 590),
            // Of a short life each takes a fifth.
            (50, 30, 40),
            (5, 3, 4),
        ] {
            let mut state = State::default();
            assert_eq!(look(&state, 0), 'a');
            state.granted(grant(lifetime_seconds), NOW);
            for (at, expected) in
                [(0, 'u'), (next_from - 1, 'u'), (next_from, 'n'), (ends - 1, 'n'), (ends, 'a'), (ends + 9_999, 'a')]
            {
                assert_eq!(look(&state, at), expected, "{lifetime_seconds} s, after {at} s");
            }
            assert!(matches!(state.look(NOW - 1), Look::Ask), "a clock that was set back");
        }
    }

    #[test]
    fn a_failure_is_followed_by_a_pause_that_grows_to_its_bound_and_ends_with_a_token() {
        let mut state = State::default();
        let mut at = 0;
        for expected in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            assert_eq!(look(&state, at), 'a');
            state.failed(None, NOW + at * 1_000);
            let Look::Pause(again_in) = state.look(NOW + at * 1_000 + 1) else { panic!("it has failed") };
            assert_eq!(again_in, Duration::from_millis(expected * 1_000 - 1));
            assert_eq!(look(&state, at + expected), 'a');
            at += expected;
        }
        assert!(matches!(state.look(NOW), Look::Ask), "a clock that was set back");
        state.granted(grant(3_600), NOW + at * 1_000);
        assert_eq!(look(&state, at), 'u');
        state.failed(None, NOW + (at + 3_590) * 1_000);
        assert_eq!((look(&state, at + 3_590), look(&state, at + 3_591)), ('p', 'a'), "the pauses begin anew");
    }

    #[test]
    fn retry_after_lengthens_the_pause_up_to_its_bound() {
        for (asked, seconds) in [(0, 1), (7, 7), (9_999, 60)] {
            let mut state = State::default();
            state.failed(Some(Duration::from_secs(asked)), NOW);
            assert_eq!((look(&state, seconds - 1), look(&state, seconds)), ('p', 'a'), "{asked}");
        }
    }

    #[test]
    fn a_token_is_used_on_while_the_next_one_cannot_be_had() {
        let mut state = State::default();
        state.granted(grant(600), NOW);
        assert_eq!(look(&state, 530), 'n');
        state.failed(None, NOW + 530_000);
        assert_eq!((look(&state, 530), look(&state, 531)), ('u', 'n'));
        state.failed(Some(Duration::from_mins(1)), NOW + 580_000);
        assert_eq!((look(&state, 589), look(&state, 590), look(&state, 640)), ('u', 'p', 'a'));
    }

    #[test]
    fn a_refused_token_is_dropped_once_and_only_if_it_is_the_present_one() {
        let mut state = State::default();
        let first = state.granted(grant(3_600), NOW);
        state.refused(&first, NOW + 1);
        assert_eq!(look(&state, 1), 'a');
        let second = state.granted(grant(3_600), NOW + 1_000);
        state.refused(&first, NOW + 5_000);
        assert_eq!(look(&state, 5), 'u', "the second one was not refused");
        state.refused(&second, NOW + 1_999);
        assert_eq!(look(&state, 2), 'u', "refused at once again: it waits a second");
        state.refused(&second, NOW + 2_000);
        assert_eq!(look(&state, 2), 'a');
        let third = state.granted(grant(3_600), NOW + 2_000);
        state.refused(&third, NOW + 3_999);
        assert_eq!(look(&state, 4), 'u', "and then two");
        state.refused(&third, NOW + 100_000);
        let fourth = state.granted(grant(3_600), NOW + 100_000);
        state.refused(&fourth, NOW + 101_000);
        assert_eq!(look(&state, 101), 'a', "a token that was good for a minute begins a new row");
    }

    proptest! {
        #[test]
        fn whatever_happens_a_source_is_asked_seldom(steps in proptest::collection::vec((0..3_u8, 0..5_000_u64), 1..400)) {
            let (mut state, mut now_ms, mut asked_at_ms) = (State::default(), NOW, Vec::new());
            for (step, passed_ms) in steps {
                now_ms += passed_ms;
                match (state.look(now_ms), step) {
                    (Look::Use(token) | Look::UseAndAsk(token), _) => state.refused(&token, now_ms),
                    (Look::Pause(_), _) => {}
                    (Look::Ask, step) => {
                        asked_at_ms.push(now_ms);
                        if step == 0 {
                            state.granted(grant(3_600), now_ms);
                        } else {
                            state.failed(None, now_ms);
                        }
                    }
                }
            }
            // After a refusal it is asked at once; then a second must pass.
            for window in asked_at_ms.windows(3) {
                prop_assert!(window[2] - window[0] >= 1_000, "{window:?}");
            }
        }
    }

    #[test]
    fn nothing_of_a_token_is_printed() {
        let mut state = State::default();
        let token = state.granted(grant(60), NOW);
        assert_eq!(token.secret(), b"hunter2");
        let printed = format!("{token:?} {state:?} {:?} {:?}", state.look(NOW), grant(60));
        assert!(!printed.contains("hunter2"), "{printed}");
    }
}
