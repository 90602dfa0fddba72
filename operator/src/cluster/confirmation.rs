//! A removal of much at once is told to people, and waits for their confirmation: an annotation of the operator's Lease.

use dispatcher_core::limits::{API_CALL_DEADLINE, EVENT_NOTE_BYTES_MAX};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

use super::failure::{ApiFailure, FailureClass, cut, within};
use crate::plan::removal::{CONFIRM_REMOVAL_ANNOTATION, Withheld};

/// Where a removal is confirmed.
#[derive(Clone)]
pub struct Confirmation {
    /// The API server.
    pub client: Client,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub lease: String,
    /// Who tells: the name of this process's pod.
    pub identity: String,
}

impl Confirmation {
    /// The removal that somebody has confirmed last.
    ///
    /// # Errors
    /// The API server's.
    pub async fn read(&self) -> Result<Option<String>, ApiFailure> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let lease = within(API_CALL_DEADLINE, api.get(&self.lease)).await?;
        Ok(lease.metadata.annotations.and_then(|mut annotations| annotations.remove(CONFIRM_REMOVAL_ANNOTATION)))
    }

    /// What is the matter and what to do, in one line.
    pub fn message(&self, withheld: &Withheld) -> String {
        withheld.message(&self.namespace, &self.lease)
    }

    /// Tells by an Event about the Lease: once for each removal, since its name is that of the removal.
    ///
    /// # Errors
    /// The API server's. That the Event is refused keeps nobody from anything.
    pub async fn tell(&self, withheld: &Withheld) -> Result<(), ApiFailure> {
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{}.removal-{}", self.lease, withheld.digest)),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(Timestamp::now())),
            reporting_controller: Some("harborhook.dev/operator".to_owned()),
            reporting_instance: Some(self.identity.clone()),
            action: Some("Publish".to_owned()),
            reason: Some("RemovalNotConfirmed".to_owned()),
            type_: Some("Warning".to_owned()),
            note: Some(cut(self.message(withheld), EVENT_NOTE_BYTES_MAX)),
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
        match within(API_CALL_DEADLINE, api.create(&PostParams::default(), &event)).await {
            Err(failure) if failure.class != FailureClass::Exists => Err(failure),
            _ => Ok(()),
        }
    }
}
