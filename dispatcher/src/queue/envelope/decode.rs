//! Bytes become a message, or an error: they may come from anybody who can reach the broker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dispatcher_core::delivery::Target;
use dispatcher_core::event::{Attributes, Event};
use dispatcher_core::id::{DeliveryId, EndpointId, EventId, SubscriptionId, TenantId};
use dispatcher_core::limits::{ATTRIBUTES_MAX, ENVELOPE_BYTES_MAX, MESSAGE_DELIVERIES_MAX};
use dispatcher_core::table::TableVersion;
use uuid::Uuid;

use super::{ABSENT, EVENT_EARLIER, EVENT_WHOLE, EnvelopeError, PRESENT, VERSION, WORK_DUE, WORK_PART};
use crate::queue::{DueDelivery, Item, Message, Work};

/// The message that [`super::encode`] made these bytes of.
///
/// Never panics and never allocates more than the bytes themselves justify.
pub fn decode(envelope: &Bytes) -> Result<Message, EnvelopeError> {
    let mut reader = Reader { envelope, position: 0 };
    match reader.u8()? {
        VERSION => {}
        other => return Err(EnvelopeError::UnknownVersion(other)),
    }
    if envelope.len() > ENVELOPE_BYTES_MAX {
        return Err(EnvelopeError::TooLarge);
    }
    let count = reader.count_at_most(MESSAGE_DELIVERIES_MAX)?;
    let mut message = Message { items: Vec::with_capacity(count) };
    for _ in 0..count {
        let item = reader.item(&message.items)?;
        message.items.push(item);
    }
    if message.deliveries() > MESSAGE_DELIVERIES_MAX {
        return Err(EnvelopeError::TooLarge);
    }
    if reader.position < envelope.len() { Err(EnvelopeError::TooLong) } else { Ok(message) }
}

struct Reader<'a> {
    envelope: &'a Bytes,
    position: usize,
}

impl<'a> Reader<'a> {
    fn item(&mut self, earlier: &[Item]) -> Result<Item, EnvelopeError> {
        let event = match self.u8()? {
            EVENT_WHOLE => Arc::new(self.event()?),
            EVENT_EARLIER => {
                let index = self.count_at_most(MESSAGE_DELIVERIES_MAX)?;
                Arc::clone(&earlier.get(index).ok_or(EnvelopeError::Malformed)?.event)
            }
            _ => return Err(EnvelopeError::Malformed),
        };
        Ok(Item {
            event,
            table_version: TableVersion(self.u64()?),
            lease_until_unix_ms: self.u64()?,
            work: self.work()?,
        })
    }

    fn work(&mut self) -> Result<Work, EnvelopeError> {
        match self.u8()? {
            WORK_PART => {
                let (part, r#gen) = (self.u16()?, self.u32()?);
                let count = self.count_at_most(MESSAGE_DELIVERIES_MAX)?;
                let targets = (0..count).map(|_| self.target()).collect::<Result<_, _>>()?;
                Ok(Work::Part { part, r#gen, targets })
            }
            WORK_DUE => {
                let count = self.count_at_most(MESSAGE_DELIVERIES_MAX)?;
                (0..count).map(|_| self.due()).collect::<Result<_, _>>().map(Work::Due)
            }
            _ => Err(EnvelopeError::Malformed),
        }
    }

    fn due(&mut self) -> Result<DueDelivery, EnvelopeError> {
        Ok(DueDelivery {
            delivery: DeliveryId(self.uuid()?),
            target: self.target()?,
            run: self.u32()?,
            r#gen: self.u32()?,
            attempts: self.u32()?,
            run_age: Duration::from_millis(self.u64()?),
        })
    }

    fn target(&mut self) -> Result<Target, EnvelopeError> {
        Ok(Target { subscription: SubscriptionId(self.uuid()?), endpoint: EndpointId(self.uuid()?) })
    }

    fn event(&mut self) -> Result<Event, EnvelopeError> {
        Ok(Event {
            id: EventId(self.uuid()?),
            tenant: TenantId(self.uuid()?),
            event_type: self.text()?,
            recipient: match self.u8()? {
                ABSENT => None,
                PRESENT => Some(self.text()?),
                _ => return Err(EnvelopeError::Malformed),
            },
            content_type: self.text()?,
            attributes: self.attributes()?,
            body: self.body()?,
        })
    }

    fn attributes(&mut self) -> Result<Attributes, EnvelopeError> {
        let count = self.count_at_most(ATTRIBUTES_MAX)?;
        (0..count).map(|_| Ok((self.text()?, self.text()?))).collect::<Result<_, _>>().map(Attributes)
    }

    /// A body that is most of the envelope shares its memory. A smaller one is copied: as long as one delivery of a
    /// batch is in flight, it must not hold the memory of the whole batch.
    fn body(&mut self) -> Result<Bytes, EnvelopeError> {
        let length = self.count()?;
        let start = self.position;
        let body = self.take(length)?;
        if body.len() > self.envelope.len() / 2 {
            return Ok(self.envelope.slice(start..start + length));
        }
        Ok(Bytes::copy_from_slice(body))
    }

    fn text(&mut self) -> Result<String, EnvelopeError> {
        let length = self.count()?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| EnvelopeError::Malformed)?;
        Ok(text.to_owned())
    }

    fn count_at_most(&mut self, count_max: usize) -> Result<usize, EnvelopeError> {
        let count = self.count()?;
        if count > count_max { Err(EnvelopeError::TooLarge) } else { Ok(count) }
    }

    /// LEB128 of at most four octets, 2^28 - 1: far above every count that is allowed.
    fn count(&mut self) -> Result<usize, EnvelopeError> {
        let mut count = 0_usize;
        for shift in [0, 7, 14, 21] {
            let octet = self.u8()?;
            count |= usize::from(octet & 0x7f) << shift;
            if octet < 0x80 {
                return Ok(count);
            }
        }
        Err(EnvelopeError::Malformed)
    }

    fn uuid(&mut self) -> Result<Uuid, EnvelopeError> {
        self.array().map(Uuid::from_bytes)
    }

    fn u8(&mut self) -> Result<u8, EnvelopeError> {
        self.array().map(|[octet]| octet)
    }

    fn u16(&mut self) -> Result<u16, EnvelopeError> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, EnvelopeError> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, EnvelopeError> {
        self.array().map(u64::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EnvelopeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], EnvelopeError> {
        let end = self.position.checked_add(length).ok_or(EnvelopeError::TooShort)?;
        let envelope: &'a [u8] = self.envelope;
        let taken = envelope.get(self.position..end).ok_or(EnvelopeError::TooShort)?;
        self.position = end;
        Ok(taken)
    }
}
