//! A message becomes bytes.

use std::collections::HashMap;

use dispatcher_core::delivery::Target;
use dispatcher_core::event::Event;
use dispatcher_core::id::EventId;
use dispatcher_core::limits::{ENVELOPE_BYTES_MAX, MESSAGE_DELIVERIES_MAX};

use super::{ABSENT, EVENT_EARLIER, EVENT_WHOLE, EnvelopeError, PRESENT, VERSION, WORK_DUE, WORK_PART};
use crate::queue::{Item, Message, Work};

/// The bytes of a message. Each event stands there once, however many items name it.
///
/// Fails with [`EnvelopeError::TooLarge`] beyond [`MESSAGE_DELIVERIES_MAX`] items or deliveries, or
/// [`ENVELOPE_BYTES_MAX`] bytes: [`super::decode`] would refuse what came of it.
pub fn encode(message: &Message) -> Result<Vec<u8>, EnvelopeError> {
    if message.items.len() > MESSAGE_DELIVERIES_MAX || message.deliveries() > MESSAGE_DELIVERIES_MAX {
        return Err(EnvelopeError::TooLarge);
    }
    let mut writer = Writer(Vec::with_capacity(expected_bytes(message)));
    writer.u8(VERSION);
    writer.count(message.items.len());
    let mut earlier: HashMap<EventId, usize> = HashMap::new();
    for (index, item) in message.items.iter().enumerate() {
        let first = *earlier.entry(item.event.id).or_insert(index);
        if first == index {
            writer.u8(EVENT_WHOLE);
            writer.event(&item.event);
        } else {
            writer.u8(EVENT_EARLIER);
            writer.count(first);
        }
        writer.item(item);
    }
    if writer.0.len() > ENVELOPE_BYTES_MAX { Err(EnvelopeError::TooLarge) } else { Ok(writer.0) }
}

/// A guess that is seldom too small: the buffer should not grow while it is written.
fn expected_bytes(message: &Message) -> usize {
    let bodies: usize = message.items.iter().map(|item| item.event.body.len()).sum();
    (bodies + message.items.len() * 256 + message.deliveries() * 72).min(ENVELOPE_BYTES_MAX)
}

struct Writer(Vec<u8>);

impl Writer {
    fn item(&mut self, item: &Item) {
        self.u64(item.table_version.0);
        self.u64(item.lease_until_unix_ms);
        match &item.work {
            Work::Part { part, r#gen, targets } => {
                self.u8(WORK_PART);
                self.u16(*part);
                self.u32(*r#gen);
                self.count(targets.len());
                for target in targets {
                    self.target(target);
                }
            }
            Work::Due(deliveries) => {
                self.u8(WORK_DUE);
                self.count(deliveries.len());
                for due in deliveries {
                    self.raw(due.delivery.0.as_bytes());
                    self.target(&due.target);
                    self.u32(due.run);
                    self.u32(due.r#gen);
                    self.u32(due.attempts);
                    self.u64(u64::try_from(due.run_age.as_millis()).unwrap_or(u64::MAX));
                }
            }
        }
    }

    fn event(&mut self, event: &Event) {
        self.raw(event.id.0.as_bytes());
        self.raw(event.tenant.0.as_bytes());
        self.bytes(event.event_type.as_bytes());
        match &event.recipient {
            None => self.u8(ABSENT),
            Some(recipient) => {
                self.u8(PRESENT);
                self.bytes(recipient.as_bytes());
            }
        }
        self.bytes(event.content_type.as_bytes());
        self.count(event.attributes.0.len());
        for (name, value) in &event.attributes.0 {
            self.bytes(name.as_bytes());
            self.bytes(value.as_bytes());
        }
        self.bytes(&event.body);
    }

    fn target(&mut self, target: &Target) {
        self.raw(target.subscription.0.as_bytes());
        self.raw(target.endpoint.0.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// LEB128: seven bits in each octet, the lowest first, the high bit set on all but the last.
    fn count(&mut self, count: usize) {
        let mut rest = count;
        while rest >= 0x80 {
            self.u8(0x80 | low_seven_bits(rest));
            rest >>= 7;
        }
        self.u8(low_seven_bits(rest));
    }

    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.raw(&value.to_be_bytes());
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

fn low_seven_bits(value: usize) -> u8 {
    value.to_le_bytes()[0] & 0x7f
}
