//! How values stand in PostgreSQL.

use std::time::Duration;

use dispatcher_core::delivery::DeliveryState;
use serde::de::DeserializeOwned;

use super::LedgerError;

/// Longest duration that is added to a time, in microseconds: a century, well within the range of a timestamp.
const MICROSECONDS_MAX: i64 = 100 * 365 * 24 * 60 * 60 * 1_000_000;

/// Whole microseconds of a duration.
pub(super) fn microseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).map_or(MICROSECONDS_MAX, |us| us.min(MICROSECONDS_MAX))
}

/// A count as a column of 32 bits. None of ours comes near the bound.
pub(super) fn int4(value: impl TryInto<i32>) -> i32 {
    value.try_into().unwrap_or(i32::MAX)
}

/// A count or a time as a column of 64 bits.
pub(super) fn int8(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// A status code as a column of 16 bits.
pub(super) fn int2(value: u16) -> i16 {
    i16::try_from(value).unwrap_or(i16::MAX)
}

/// Reads a count or a time.
pub(super) fn count<T: TryFrom<N>, N>(value: N) -> Result<T, LedgerError> {
    T::try_from(value).map_err(|_| refused("the ledger holds a number out of range"))
}

/// Reads a variant of a closed set by name.
pub(super) fn variant<T: DeserializeOwned>(name: Option<&str>) -> Result<Option<T>, LedgerError> {
    name.map(|name| serde_json::from_value(name.into()))
        .transpose()
        .map_err(|_| refused("the ledger holds a name that this release does not know"))
}

/// The number that stands for a state.
pub(super) fn state_number(state: DeliveryState) -> i16 {
    match state {
        DeliveryState::Open => 0,
        DeliveryState::Delivered => 1,
        DeliveryState::Dead => 2,
        DeliveryState::Cancelled => 3,
    }
}

/// Reads a state.
pub(super) fn state(number: i16) -> Result<DeliveryState, LedgerError> {
    Ok(match number {
        0 => DeliveryState::Open,
        1 => DeliveryState::Delivered,
        2 => DeliveryState::Dead,
        3 => DeliveryState::Cancelled,
        _ => return Err(refused("the ledger holds a state that this release does not know")),
    })
}

pub(super) fn refused(message: &str) -> LedgerError {
    LedgerError::Refused(message.to_owned())
}
