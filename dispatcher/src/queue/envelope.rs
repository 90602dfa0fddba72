//! The bytes of a queue message.
//!
//! Layout of version 1; integers that count something are LEB128, all others are big-endian:
//!
//! ```text
//! envelope   = version:u8 items:count item*
//! item       = event table_version:u64 lease_until_unix_ms:u64 work
//! event      = 0 id:16 tenant:16 type:text recipient:(0 | 1 text) content_type:text
//!                attributes:count (name:text value:text)* body:bytes
//!            | 1 item_index:count                              the event of an earlier item
//! work       = 0 part:u16 gen:u32 targets:count target*
//!            | 1 deliveries:count (id:16 target run:u32 gen:u32 attempts:u32 run_age_ms:u64)*
//! target     = subscription:16 endpoint:16
//! text,bytes = length:count octet*
//! ```
//!
//! The version stands in the queue's name too, so that a process never sees what it cannot read; here it guards
//! against a queue that was filled by hand.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::decode;
pub use encode::encode;

/// The version that [`encode`] writes and [`decode`] reads.
pub const VERSION: u8 = 1;

/// Why bytes are no message, or a message has no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Written by a release that this one does not know.
    #[error("the envelope has version {0}; this release reads version {VERSION}")]
    UnknownVersion(u8),
    /// The bytes end where more were announced.
    #[error("the envelope ends too early")]
    TooShort,
    /// Bytes follow the last item.
    #[error("bytes follow the last item of the envelope")]
    TooLong,
    /// More items, deliveries or bytes than one message may hold.
    #[error("the message is larger than one message may be")]
    TooLarge,
    /// A tag, a count or a text that no encoder writes.
    #[error("the envelope holds a value that has no meaning")]
    Malformed,
}

const EVENT_WHOLE: u8 = 0;
const EVENT_EARLIER: u8 = 1;
const ABSENT: u8 = 0;
const PRESENT: u8 = 1;
const WORK_PART: u8 = 0;
const WORK_DUE: u8 = 1;
