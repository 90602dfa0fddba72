//! How values stand in SQLite: rows of a statement as one JSON array, identities in it as hexadecimal text.

use std::time::Duration;

use dispatcher_core::delivery::DeliveryState;
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::LedgerError;

/// The rows of a statement. `json_each` unfolds them; `unhex(value->>0)` is an identity.
pub(super) fn rows<T: Serialize>(rows: &[T]) -> Result<String, LedgerError> {
    serde_json::to_string(rows).map_err(|_| refused("a row cannot be written as JSON"))
}

/// An identity within [`rows`].
#[derive(Clone, Copy)]
pub(super) struct Hex(pub(super) Uuid);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.simple().encode_lower(&mut [0; uuid::fmt::Simple::LENGTH]))
    }
}

/// An identity in a column of its own.
pub(super) fn blob(id: Uuid) -> Vec<u8> {
    id.as_bytes().to_vec()
}

/// Reads an identity.
pub(super) fn uuid(bytes: &[u8]) -> Result<Uuid, LedgerError> {
    Uuid::from_slice(bytes).map_err(|_| refused("an identity in the ledger has the wrong length"))
}

/// The name of a unit variant of a closed set, as serde knows it.
pub(super) fn name<T: Serialize>(value: T) -> Result<String, LedgerError> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => Ok(name),
        _ => Err(refused("a closed set has a variant without a name")),
    }
}

/// Reads a variant of a closed set by name.
pub(super) fn variant<T: DeserializeOwned>(name: Option<&str>) -> Result<Option<T>, LedgerError> {
    name.map(|name| serde_json::from_value(name.into()))
        .transpose()
        .map_err(|_| refused("the ledger holds a name that this release does not know"))
}

/// The number that stands for a state.
pub(super) fn state_number(state: DeliveryState) -> i64 {
    match state {
        DeliveryState::Open => 0,
        DeliveryState::Delivered => 1,
        DeliveryState::Dead => 2,
        DeliveryState::Cancelled => 3,
    }
}

/// Reads a state.
pub(super) fn state(number: i64) -> Result<DeliveryState, LedgerError> {
    Ok(match number {
        0 => DeliveryState::Open,
        1 => DeliveryState::Delivered,
        2 => DeliveryState::Dead,
        3 => DeliveryState::Cancelled,
        _ => return Err(refused("the ledger holds a state that this release does not know")),
    })
}

/// A count or time as SQLite keeps it. None of ours comes near the bound.
pub(super) fn integer(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reads a count or a time.
pub(super) fn count<T: TryFrom<i64>>(value: i64) -> Result<T, LedgerError> {
    T::try_from(value).map_err(|_| refused("the ledger holds a number out of range"))
}

/// Whole milliseconds of a duration.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).map_or(super::NEVER_MS, |ms| ms.min(super::NEVER_MS / 2))
}

pub(super) fn refused(message: &str) -> LedgerError {
    LedgerError::Refused(message.to_owned())
}
