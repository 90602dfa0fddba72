//! A removal of much at once waits for people to confirm it, by an annotation of the operator's Lease.

use dispatcher_core::limits::API_CALL_DEADLINE;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};

use super::failure::{ApiFailure, within};
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
}
