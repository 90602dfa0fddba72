//! Access to the API: whoever makes a request proves who they are by a bearer token (RFC 6750), a JSON Web Token that is
//! verified by its issuer's published keys.
//!
//! Reading and verifying a token is a function of the token, its issuer's rules and keys, and the time ([`token`],
//! [`keys`], [`verify`]); where the keys come from stands apart ([`issuers`], [`IssuersTask`]).

mod cache;
mod directory;
mod error;
mod gate;
pub mod issuers;
pub mod keys;
mod principal;
mod remote;
mod routes;
pub mod token;
pub mod verify;

use std::path::PathBuf;
use std::sync::Arc;

pub use self::directory::IssuersTask;
pub use self::error::AccessError;
pub use self::gate::{TokenGate, for_tokens_only};
pub use self::issuers::{ConfiguredIssuer, IssuersFileError};
pub use self::principal::{Principal, Tenants};
pub use self::remote::FetchTimes;
pub use self::routes::{ROUTES, RouteRule};

/// Who may use the API.
#[derive(Clone, Debug)]
pub enum Access {
    /// Whoever reaches the listeners. So that of the API must be one that only this machine reaches, and both answer
    /// only to names of this machine.
    Open,
    /// Whoever has a token of an issuer that is trusted: one of those that the routing table holds, and of these.
    Tokens(Arc<TokenConfig>),
}

/// Whose tokens are accepted beside those of the issuers in the routing table.
#[derive(Clone, Debug, Default)]
pub struct TokenConfig {
    /// The file of issuers, with what was read from it at the start.
    pub file: Option<(PathBuf, Vec<ConfiguredIssuer>)>,
    /// When keys are fetched.
    pub times: FetchTimes,
}

impl TokenConfig {
    /// Reads the file of issuers, if there is one.
    ///
    /// # Errors
    /// [`IssuersFileError`] if it cannot be used.
    pub fn read(file: Option<PathBuf>) -> Result<Self, IssuersFileError> {
        let file = file.map(|path| Ok((path.clone(), issuers::read_file(&path)?))).transpose()?;
        Ok(Self { file, times: FetchTimes::default() })
    }
}
