//! Tells people, by Events about the operator's Lease, of what nobody but they can end: what keeps the leader from its
//! work, and a removal that waits.

use std::collections::HashMap;

use dispatcher_core::limits::{API_CALL_DEADLINE, EVENT_NOTE_BYTES_MAX, NOTICE_INTERVAL, NOTICE_REPEAT_MIN};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::failure::{ApiFailure, cut, within};
use super::lease::{Lead, Leadership};
use super::metrics::TroubledPart;
use super::readiness::Readiness;

/// What is told with.
pub struct Notices {
    /// The API server.
    pub client: Client,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub lease: String,
    /// Who tells: the name of this process's pod.
    pub identity: String,
    /// Whether this process leads: no other one tells of more than that it cannot.
    pub lead: Lead,
    /// What there is to tell.
    pub readiness: Readiness,
}

/// Something that people are to know: its reason, and what is the matter and what to do; no note if it is over.
type Notice = (&'static str, Option<String>);

/// What was told last, by reason.
#[derive(Default)]
struct Told {
    /// Whether there was a note at the last look: what passes within a look is not told.
    seen: HashMap<&'static str, bool>,
    told: HashMap<&'static str, (Option<String>, Instant)>,
}

impl Notices {
    /// Tells until it is told to stop.
    pub async fn run(self, shutdown: CancellationToken) {
        shutdown.run_until_cancelled(self.tell_for_ever()).await;
    }

    async fn tell_for_ever(&self) {
        let mut told = Told::default();
        loop {
            sleep(NOTICE_INTERVAL).await;
            for notice in self.notices() {
                if told.is_news(&notice, Instant::now()) {
                    match self.tell(&notice).await {
                        Ok(()) => told.record(notice, Instant::now()),
                        Err(failure) => tracing::debug!(%failure, reason = notice.0, "no Event tells of it"),
                    }
                }
            }
        }
    }

    fn notices(&self) -> Vec<Notice> {
        let of = |(part, complaints): (TroubledPart, Vec<String>)| {
            (reason_of(part), (!complaints.is_empty()).then(|| complaints.join("; ")))
        };
        let mut notices: Vec<Notice> = self.readiness.troubles().into_iter().map(of).collect();
        notices.push(("RemovalNotConfirmed", self.readiness.removal()));
        if self.lead.now() == Leadership::Follower {
            // Who leads tells of the rest. If nobody can, nobody else tells that.
            notices.retain(|(reason, _)| *reason == reason_of(TroubledPart::Lease));
        }
        notices
    }

    async fn tell(&self, (reason, note): &Notice) -> Result<(), ApiFailure> {
        let (type_, note) = match note {
            Some(note) => ("Warning", note.clone()),
            None => ("Normal", "This is over".to_owned()),
        };
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", self.lease)),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(Timestamp::now())),
            reporting_controller: Some("harborhook.dev/operator".to_owned()),
            reporting_instance: Some(self.identity.clone()),
            action: Some("Publish".to_owned()),
            reason: Some((*reason).to_owned()),
            type_: Some(type_.to_owned()),
            note: Some(cut(note, EVENT_NOTE_BYTES_MAX)),
            regarding: Some(ObjectReference {
                api_version: Some("coordination.k8s.io/v1".to_owned()),
                kind: Some("Lease".to_owned()),
                name: Some(self.lease.clone()),
                namespace: Some(self.namespace.clone()),
                ..ObjectReference::default()
            }),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        within(API_CALL_DEADLINE, api.create(&PostParams::default(), &event)).await.map(drop)
    }
}

fn reason_of(part: TroubledPart) -> &'static str {
    match part {
        TroubledPart::Watches => "CannotWatch",
        TroubledPart::Lease => "CannotLead",
        TroubledPart::Ledger => "LedgerUnavailable",
    }
}

impl Told {
    /// Whether it is to be told now: it stands for the second time, and differs from what was told last. Other words for
    /// the same are told seldom.
    fn is_news(&mut self, (reason, note): &Notice, now: Instant) -> bool {
        let stands = self.seen.insert(*reason, note.is_some()) == Some(note.is_some());
        let is_other = match self.told.get(reason) {
            None => note.is_some(),
            Some((told, _)) if told.is_some() != note.is_some() => true,
            Some((told, at)) => told != note && now >= *at + NOTICE_REPEAT_MIN,
        };
        stands && is_other
    }

    fn record(&mut self, (reason, note): Notice, now: Instant) {
        self.told.insert(reason, (note, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_is_told_once_and_its_end_too() {
        let (mut told, mut now) = (Told::default(), Instant::now());
        let mut look = |note: Option<&str>, seconds: u64| {
            now += std::time::Duration::from_secs(seconds);
            let notice = ("CannotWatch", note.map(ToOwned::to_owned));
            let is_news = told.is_news(&notice, now);
            if is_news {
                told.record(notice, now);
            }
            is_news
        };
        assert!(!look(None, 5) && !look(None, 5), "nothing was ever wrong");
        assert!(!look(Some("a"), 5), "it may pass");
        assert!(look(Some("b"), 5) && !look(Some("b"), 5), "whatever the words");
        assert!(!look(Some("c"), 5) && !look(Some("b"), 5), "other words within the minute");
        assert!(look(Some("c"), 60));
        assert!(!look(None, 5) && look(None, 5) && !look(None, 5));
        assert!(!look(Some("b"), 5) && look(Some("b"), 5), "it is back");
    }
}
