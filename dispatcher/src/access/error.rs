//! Why a request has no access.

/// Why a token is refused, or permits too little. A closed set: the names are labels of a metric. What the client is told
/// says less: whoever holds no valid token learns nothing that helps to make one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AccessError {
    /// The request has no header `Authorization`.
    #[error("there is no token")]
    Missing,
    /// The header stands there twice, or is not of the scheme Bearer.
    #[error("the header holds no bearer token")]
    NotBearer,
    /// The token is longer than one may be.
    #[error("the token is too long")]
    TooLong,
    /// It is no signed JWT: not three parts, not base64url, not JSON objects.
    #[error("the token is not a signed JWT")]
    Malformed,
    /// The header `typ` names another kind of token.
    #[error("the token is of another type")]
    WrongType,
    /// The header `crit` names an extension, and none is known.
    #[error("the token has a critical header that is not understood")]
    CriticalHeader,
    /// Not RS256, ES256 or EdDSA.
    #[error("the token's algorithm is not supported")]
    UnsupportedAlgorithm,
    /// Nobody here trusts the issuer, or the token names none.
    #[error("the token's issuer is not known")]
    UnknownIssuer,
    /// The issuer's keys have not been had yet, or for too long.
    #[error("the issuer's keys are not there")]
    KeysUnavailable,
    /// The token names no key, and the issuer has several.
    #[error("the token does not name its key")]
    AmbiguousKey,
    /// The issuer has no such key for this algorithm.
    #[error("the token's key is not known")]
    UnknownKey,
    /// The signature is not that of the key.
    #[error("the signature does not verify")]
    WrongSignature,
    /// The token is for somebody else.
    #[error("the token is for another audience")]
    WrongAudience,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come, or it was issued in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A claim that has to be there is not, or is not what it has to be.
    #[error("a claim is missing or invalid")]
    InvalidClaim,
    /// It names no tenant, or its claims do not agree on one.
    #[error("the token names no tenant")]
    NoTenant,
    /// It is valid, and for another tenant.
    #[error("the token is for another tenant")]
    OtherTenant,
    /// It is valid, and lacks the scope.
    #[error("the token lacks the scope")]
    MissingScope,
}

impl AccessError {
    /// Every reason.
    pub const ALL: [Self; 19] = [
        Self::Missing,
        Self::NotBearer,
        Self::TooLong,
        Self::Malformed,
        Self::WrongType,
        Self::CriticalHeader,
        Self::UnsupportedAlgorithm,
        Self::UnknownIssuer,
        Self::KeysUnavailable,
        Self::AmbiguousKey,
        Self::UnknownKey,
        Self::WrongSignature,
        Self::WrongAudience,
        Self::Expired,
        Self::NotYetValid,
        Self::InvalidClaim,
        Self::NoTenant,
        Self::OtherTenant,
        Self::MissingScope,
    ];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::NotBearer => "not_bearer",
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::WrongType => "wrong_type",
            Self::CriticalHeader => "critical_header",
            Self::UnsupportedAlgorithm => "unsupported_algorithm",
            Self::UnknownIssuer => "unknown_issuer",
            Self::KeysUnavailable => "keys_unavailable",
            Self::AmbiguousKey => "ambiguous_key",
            Self::UnknownKey => "unknown_key",
            Self::WrongSignature => "wrong_signature",
            Self::WrongAudience => "wrong_audience",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::InvalidClaim => "invalid_claim",
            Self::NoTenant => "no_tenant",
            Self::OtherTenant => "other_tenant",
            Self::MissingScope => "missing_scope",
        }
    }
}
