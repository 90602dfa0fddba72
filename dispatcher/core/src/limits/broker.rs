//! Limits of what goes through the broker.

use std::time::Duration;

use super::LEASE;

/// Largest envelope of a queue message, in bytes: the bodies, and 128 events with all attributes that one may have.
pub const ENVELOPE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest name of a pool, in bytes: with what goes round it, it must fit into the 255 of a queue's name.
pub const POOL_NAME_BYTES_MAX: usize = 200;
/// Most pools that one process publishes to and consumes from.
pub const POOLS_MAX: usize = 256;
/// Most messages in one queue of the broker: the hard stop; publishers stop long before.
pub const BROKER_QUEUE_MESSAGES_MAX: u32 = 8192;
/// Most bytes in one queue of the broker.
pub const BROKER_QUEUE_BYTES_MAX: u32 = 1024 * 1024 * 1024;
/// How often the broker delivers one message before it drops it; the ledger still has the work.
pub const BROKER_DELIVERIES_MAX: u32 = 20;
/// Deliveries that may wait in one queue of the broker before anything is known about how fast it is emptied.
pub const QUEUE_DELIVERIES_MIN: usize = 1024;
/// Deliveries in one queue of the broker beyond which publishers of backlog hold back, however fast it is emptied.
pub const QUEUE_DELIVERIES_MAX: usize = 131_072;
/// How much work publishers keep in a queue of the broker: short against a lease, long against a look at the queue.
pub const QUEUE_HORIZON: Duration = Duration::from_millis(1500);
/// How often a queue of the broker is looked at while there is something in it.
pub const QUEUE_LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How often a queue of the broker is looked at while nothing happens.
pub const QUEUE_LOOK_INTERVAL_IDLE: Duration = Duration::from_secs(1);
/// Most calls that publish at once; each has a channel of its own.
pub const PUBLISH_CHANNELS_MAX: usize = 16;
/// Most messages of one call that the broker has not confirmed.
pub const PUBLISH_WINDOW_MESSAGES_MAX: usize = 256;
/// Most bytes of messages that the broker has not confirmed.
pub const PUBLISH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long a publisher waits for the broker; a later answer is worth nothing, the lease is over.
pub const PUBLISH_DEADLINE: Duration = LEASE;
/// How long confirms may be missing before the connection is given up.
pub const PUBLISH_CONFIRM_DEADLINE: Duration = Duration::from_mins(1);
/// Fewest messages of one queue that the broker sends ahead of acknowledgements: one is being worked on, one waits.
pub const PREFETCH_MESSAGES_MIN: u16 = 2;
/// Most messages of one queue that the broker sends ahead of acknowledgements.
pub const PREFETCH_MESSAGES_MAX: u16 = 512;
/// Most bytes of one queue that the broker sends ahead of acknowledgements, by the average size of its messages.
pub const PREFETCH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long a connection to the broker may take to open.
pub const BROKER_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the broker may take to say hello, and to answer a request.
pub const BROKER_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Shortest pause before the next attempt to reach the broker; it doubles.
pub const BROKER_RETRY_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause before the next attempt to reach the broker.
pub const BROKER_RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a queue of the broker may be without a leader until it is deleted and made anew.
pub const QUEUE_LEADERLESS_MAX: Duration = Duration::from_secs(10);
/// Silence of the broker, in seconds, after which it counts as lost (twice this, AMQP 0-9-1, 4.2.7). So does a process of
/// ours that stands: until then the broker hands it work that nobody does. A false alarm costs a reconnection.
pub const BROKER_HEARTBEAT_SECONDS: u16 = 2;
