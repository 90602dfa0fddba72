//! How watches do: told once for each change, and shown where readiness is asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::runtime::watcher;

use super::super::metrics::{OperatorMetrics, Watched};

/// Why a watch does not work. Its label is one of few.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WatchFailure {
    /// The API server does not know the resource.
    Missing,
    /// It may not be listed or watched.
    Forbidden,
    /// What was known is too old to go on from; everything is listed anew.
    Expired,
    /// The API server cannot be reached, or does not answer as it should.
    Unavailable,
}

impl WatchFailure {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Forbidden => "forbidden",
            Self::Expired => "expired",
            Self::Unavailable => "unavailable",
        }
    }

    fn of(error: &watcher::Error) -> Self {
        let status = match error {
            watcher::Error::WatchError(status)
            | watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status))
            | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status),
            _ => None,
        };
        match status.map(|status| status.code) {
            Some(404) => Self::Missing,
            Some(401 | 403) => Self::Forbidden,
            Some(410) => Self::Expired,
            _ => Self::Unavailable,
        }
    }
}

/// How a watch does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchState {
    /// Nothing was listed yet.
    Starting,
    /// It works.
    Works,
    /// It failed and is tried again; what was known before still counts.
    Fails(WatchFailure),
}

/// How all watches of the process do.
#[derive(Debug)]
pub struct WatchStates {
    states: Mutex<BTreeMap<String, State>>,
    metrics: Arc<OperatorMetrics>,
}

#[derive(Debug)]
struct State {
    now: WatchState,
    watched: Watched,
    namespace: Option<String>,
}

impl WatchStates {
    /// No watch yet.
    pub fn new(metrics: Arc<OperatorMetrics>) -> Self {
        Self { states: Mutex::default(), metrics }
    }

    /// Adds a watch; answers its name.
    pub(in crate::cluster) fn register(&self, watched: Watched, namespace: Option<&str>) -> String {
        let plural = watched.as_str();
        let name = namespace.map_or_else(|| plural.to_owned(), |namespace| format!("{plural} in {namespace}"));
        let namespace = namespace.map(ToOwned::to_owned);
        self.states().insert(name.clone(), State { now: WatchState::Starting, watched, namespace });
        name
    }

    /// How the watches do, by name.
    pub fn all(&self) -> BTreeMap<String, WatchState> {
        self.states().iter().map(|(name, state)| (name.clone(), state.now.clone())).collect()
    }

    /// What keeps the process from being ready, in sentences that say what to do.
    pub fn complaints(&self) -> Vec<String> {
        self.states().iter().filter_map(|(name, state)| complaint(name, state)).collect()
    }

    /// The same of watches that have failed, without those that only begin.
    pub fn failures(&self) -> Vec<String> {
        let states = self.states();
        let failed = states.iter().filter(|(_, state)| matches!(state.now, WatchState::Fails(_)));
        failed.filter_map(|(name, state)| complaint(name, state)).collect()
    }

    pub(in crate::cluster) fn works(&self, name: &str) {
        if self.set(name, WatchState::Works) {
            tracing::info!(watch = name, "the watch works");
        }
    }

    pub(in crate::cluster) fn failed(&self, name: &str, error: &watcher::Error) {
        self.fails(name, WatchFailure::of(error), &error.to_string());
    }

    pub(in crate::cluster) fn late(&self, name: &str) {
        self.fails(name, WatchFailure::Unavailable, "no answer in time");
    }

    fn fails(&self, name: &str, failure: WatchFailure, error: &str) {
        if let Some(state) = self.states().get(name) {
            self.metrics.watch_restarted(state.watched, failure);
        }
        // To list anew is the cure of what is expired, and nothing to worry about.
        if failure == WatchFailure::Expired {
            tracing::info!(watch = name, "the watch has expired; everything is listed anew");
        } else if self.set(name, WatchState::Fails(failure)) {
            let complaint = self.states().get(name).and_then(|state| complaint(name, state)).unwrap_or_default();
            tracing::warn!(watch = name, reason = failure.as_str(), error, "{complaint}; trying again");
        }
    }

    /// Answers whether that is news.
    fn set(&self, name: &str, new: WatchState) -> bool {
        let mut states = self.states();
        let Some(state) = states.get_mut(name) else { return false };
        let is_news = state.now != new;
        state.now = new;
        is_news
    }

    fn states(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn complaint(name: &str, state: &State) -> Option<String> {
    let State { now, watched, namespace } = state;
    let plural = watched.as_str();
    let group = crds::GROUP;
    match now {
        WatchState::Works => None,
        WatchState::Starting => Some(format!("{name}: not listed yet")),
        WatchState::Fails(WatchFailure::Forbidden) if *watched == Watched::Namespaces => {
            let what = namespace.as_ref().map_or_else(
                || "a ClusterRole grant list and watch on namespaces".to_owned(),
                |namespace| format!("a Role in namespace {namespace} grant get on namespaces"),
            );
            Some(format!("{name}: not allowed: let {what}"))
        }
        WatchState::Fails(WatchFailure::Missing) => Some(format!(
            "{name}: the CustomResourceDefinition {plural}.{group} is missing or does not serve {}: install the \
             definitions of this release",
            crds::VERSION
        )),
        WatchState::Fails(WatchFailure::Forbidden) => {
            let by = match namespace {
                Some(namespace) => format!("a Role in namespace {namespace}"),
                None => "a ClusterRole".to_owned(),
            };
            Some(format!("{name}: not allowed: let {by} grant get, list and watch on {plural}"))
        }
        WatchState::Fails(WatchFailure::Expired | WatchFailure::Unavailable) => {
            Some(format!("{name}: the API server cannot be reached or does not answer"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16) -> watcher::Error {
        let status = kube::core::Status { code, ..kube::core::Status::default() };
        watcher::Error::InitialListFailed(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn every_failure_says_what_to_do_until_the_watch_works() {
        let states = WatchStates::new(Arc::new(OperatorMetrics::new()));
        let name = states.register(Watched::Resources(crds::Kind::Endpoint), Some("shop"));
        assert!(states.complaints()[0].contains("not listed yet"));
        for (code, what) in [
            (404, "hookendpoints.harborhook.dev is missing or does not serve v1alpha1"),
            (403, "a Role in namespace shop"),
            (500, "cannot be reached"),
        ] {
            states.failed(&name, &error(code));
            assert!(states.complaints()[0].contains(what), "{:?}", states.complaints());
        }
        states.works(&name);
        assert!(states.complaints().is_empty());
        states.failed(&name, &error(410));
        assert!(states.complaints().is_empty(), "to list anew is no failure");
    }
}
