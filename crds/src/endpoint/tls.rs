//! Whom an endpoint's connections trust, and who they are.
#![expect(unreachable_pub, reason = "the schema derive repeats every struct inside a function")]

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::request::{ObjectRef, SecretKeyRef};

/// Certificates of connections to the endpoint. At least one of the fields is set.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.caSecretKeyRef) || has(self.clientCertificateSecretRef)")
    .message("set caSecretKeyRef, clientCertificateSecretRef or both"))]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Certificate authorities to trust, PEM, from a Secret. They replace the system's authorities for this endpoint:
    /// name a public authority too if the receiver may use one. Default: the system's authorities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret_key_ref: Option<SecretKeyRef>,
    /// Client certificate, from a Secret of type `kubernetes.io/tls`: `tls.crt` with the certificate and its chain,
    /// `tls.key` with its private key. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<ObjectRef>,
}
