//! What a request carries: credentials, headers, signatures, and the Secrets that they come from.
#![expect(unreachable_pub, reason = "the schema derive repeats every struct inside a function")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{limits, schema};

/// A key of a Secret in the same namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret. Required.
    #[schemars(length(min = 1, max = limits::OBJECT_NAME_LENGTH_MAX))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')")
        .message("must be the name of a Secret: lower case letters, digits, - and ."))]
    pub name: String,
    /// Key in the Secret's data. Required.
    #[schemars(length(min = 1, max = limits::SECRET_KEY_LENGTH_MAX))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9._-]+$')")
        .message("must be a key of a Secret: letters, digits, -, _ and ."))]
    pub key: String,
}

/// An object of the same namespace (of the release's namespace for pools), by name.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// Name of the object. Required.
    #[schemars(length(min = 1, max = limits::OBJECT_NAME_LENGTH_MAX))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')")
        .message("must be the name of an object: lower case letters, digits, - and ."))]
    pub name: String,
}

/// Where a value comes from, if not from the resource itself.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValueFrom {
    /// A key of a Secret. Required.
    pub secret_key_ref: SecretKeyRef,
}

/// How requests are signed.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signing {
    /// The form of the signature. Default: `StandardWebhooks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<SigningScheme>,
    /// The key. For `StandardWebhooksEd25519` a private key: `whsk_` and base64. Else a key that the receiver holds too:
    /// `whsec_` and base64, or the key itself. Default: the controller makes a Secret that belongs to the endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
    /// Seconds for which the previous key goes on signing beside a new one. Default: 86400.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = limits::ROTATION_OVERLAP_SECONDS_MAX))]
    pub rotation_overlap_seconds: Option<i32>,
}

/// Forms of signatures.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SigningScheme {
    /// Standard Webhooks 1.0, `v1`: HMAC-SHA256.
    #[default]
    StandardWebhooks,
    /// Standard Webhooks 1.0, `v1a`: Ed25519.
    StandardWebhooksEd25519,
    /// `X-HarborHook-Signature`.
    HarborHook,
    /// `X-Hub-Signature-256`.
    GitHub,
    /// `Stripe-Signature`.
    Stripe,
}

/// A header of every request. The names that HTTP, signatures and CloudEvents need are refused.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.value) != has(self.valueFrom)").message("set exactly one of value and valueFrom"))]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Name of the header. Required.
    #[schemars(length(min = 1, max = limits::HEADER_NAME_LENGTH_MAX))]
    #[x_kube(
        validation = Rule::new("self.matches('^[A-Za-z0-9!#$%&*+.^_`|~-]+$')")
            .message("must be a header name: letters, digits and !#$%&*+-.^_`|~"),
        validation = Rule::new("!(self.lowerAscii() in ['host', 'content-length', 'content-type', 'content-encoding', \
            'transfer-encoding', 'connection', 'keep-alive', 'te', 'trailer', 'upgrade', 'expect', 'date', 'stripe-signature', \
            'x-hub-signature', 'x-hub-signature-256', 'x-github-delivery', 'x-trace-id'])")
            .message("is reserved: it is set by HTTP itself or by the signature"),
        validation = Rule::new("!['webhook-', 'ce-', 'proxy-', 'x-harborhook-'].exists(prefix, self.lowerAscii().startsWith(prefix))")
            .message("begins with a reserved prefix: webhook-, ce-, proxy- or x-harborhook-")
    )]
    pub name: String,
    /// Its value, if it is no secret. Default: none; set either this or `valueFrom`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = limits::HEADER_VALUE_LENGTH_MAX))]
    #[x_kube(validation = Rule::new("self.matches('^[\\\\x20-\\\\x7e]*$')")
        .message("must be printable ASCII without line breaks"))]
    pub value: Option<String>,
    /// Its value from a Secret. Default: none; set either this or `value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_from: Option<ValueFrom>,
}

/// Credentials in the `Authorization` header.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("self.type != 'Basic' || (has(self.username) && has(self.passwordSecretKeyRef))")
        .message("type Basic needs username and passwordSecretKeyRef"),
    validation = Rule::new("self.type == 'Basic' || !has(self.username)")
        .message("belongs to type Basic").field_path(".username"),
    validation = Rule::new("self.type == 'Basic' || !has(self.passwordSecretKeyRef)")
        .message("belongs to type Basic").field_path(".passwordSecretKeyRef"),
    validation = Rule::new("self.type != 'Bearer' || has(self.tokenSecretKeyRef)")
        .message("type Bearer needs tokenSecretKeyRef"),
    validation = Rule::new("self.type == 'Bearer' || !has(self.tokenSecretKeyRef)")
        .message("belongs to type Bearer").field_path(".tokenSecretKeyRef"),
    validation = Rule::new("self.type != 'OAuth2' || has(self.oauth2)")
        .message("type OAuth2 needs oauth2"),
    validation = Rule::new("self.type == 'OAuth2' || !has(self.oauth2)")
        .message("belongs to type OAuth2").field_path(".oauth2")
)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Which credentials. Required.
    #[serde(rename = "type")]
    pub type_: AuthType,
    /// User name; type `Basic` only, and required there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::USERNAME_LENGTH_MAX))]
    #[x_kube(validation = Rule::new("self.matches('^[\\\\x20-\\\\x39\\\\x3b-\\\\x7e]*$')")
        .message("must be printable ASCII without a colon"))]
    pub username: Option<String>,
    /// Password; type `Basic` only, and required there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_secret_key_ref: Option<SecretKeyRef>,
    /// Bearer token; type `Bearer` only, and required there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_secret_key_ref: Option<SecretKeyRef>,
    /// Where a bearer token is asked for; type `OAuth2` only, and required there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<OAuth2>,
}

/// Kinds of credentials.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AuthType {
    /// User name and password (RFC 7617).
    Basic,
    /// A token (RFC 6750).
    Bearer,
    /// A token (RFC 6750) that is asked for, kept, and asked for again before it expires: the client credentials grant
    /// of OAuth 2.0 (RFC 6749, 4.4).
    OAuth2,
}

/// The client credentials grant of OAuth 2.0.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.clientId) != has(self.clientIdSecretKeyRef)")
    .message("set exactly one of clientId and clientIdSecretKeyRef"))]
#[serde(rename_all = "camelCase")]
pub struct OAuth2 {
    /// Absolute URL of the token endpoint. The installation's policy holds for it as it does for the endpoint's own URL.
    /// Required.
    #[schemars(length(min = 1, max = limits::URL_LENGTH_MAX))]
    #[x_kube(
        validation = Rule::new("self.matches('^https?://[^/?#]') && self.matches('^[\\\\x21-\\\\x7e]+$') && isURL(self)")
            .message("must be an absolute URL in ASCII that begins with https:// or http://"),
        validation = Rule::new("!self.matches('^[A-Za-z]+://[^/?#]*@')")
            .message("must not contain a user name or password; use clientId and clientSecretSecretKeyRef"),
        validation = Rule::new("!self.contains('#')").message("must not contain a fragment")
    )]
    pub token_url: String,
    /// Client identifier, if it is no secret. Default: none; set either this or `clientIdSecretKeyRef`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::CLIENT_CREDENTIAL_LENGTH_MAX))]
    #[x_kube(validation = Rule::new("self.matches('^[\\\\x20-\\\\x7e]*$')")
        .message("must be printable ASCII without line breaks"))]
    pub client_id: Option<String>,
    /// Client identifier from a Secret. Default: none; set either this or `clientId`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id_secret_key_ref: Option<SecretKeyRef>,
    /// Client secret. Required.
    pub client_secret_secret_key_ref: SecretKeyRef,
    /// How the token endpoint learns client identifier and secret. Default: `Basic`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_authentication: Option<ClientAuthentication>,
    /// Scopes to ask for. Default: none, the token endpoint decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::scopes")]
    pub scopes: Vec<String>,
    /// The parameter `audience`, which some token endpoints want. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = limits::AUDIENCE_LENGTH_MAX))]
    #[x_kube(validation = Rule::new("self.matches('^[\\\\x20-\\\\x7e]*$')")
        .message("must be printable ASCII without line breaks"))]
    pub audience: Option<String>,
}

/// Ways in which a token endpoint learns who asks (RFC 6749, 2.3.1).
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClientAuthentication {
    /// In the `Authorization` header: `client_secret_basic`, which every server has to support.
    #[default]
    Basic,
    /// In the request's body: `client_secret_post`.
    Post,
}
