//! Limits of what works on files and for people: resources, their statuses, the command line.

use std::time::Duration;

// --- Resource files -----------------------------------------------------------------------------

/// Most files that one load of resources reads.
pub const RESOURCE_FILES_MAX: usize = 2_000;
/// Largest file of resources, and largest stream of them, in bytes.
pub const RESOURCE_FILE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most bytes that one load of resources reads.
pub const RESOURCE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Deepest folder, counted from the one that was named, in which resources are looked for.
pub const RESOURCE_FOLDER_DEPTH_MAX: usize = 16;
/// Most entries of folders that one load of resources looks at.
pub const RESOURCE_FOLDER_ENTRIES_MAX: usize = 20_000;
/// Most documents in one file of resources.
pub const RESOURCE_DOCUMENTS_MAX: usize = 4_000;
/// Deepest nesting of a resource.
pub const RESOURCE_DEPTH_MAX: usize = 32;
/// Most nodes of one document, those that aliases repeat included.
pub const RESOURCE_NODES_MAX: usize = 100_000;
/// Most bytes of one Secret's values, as in Kubernetes.
pub const SECRET_BYTES_MAX: usize = 1024 * 1024;

// --- Statuses -----------------------------------------------------------------------------------

/// Window of the facts in an endpoint's status.
pub const FACTS_WINDOW: Duration = Duration::from_mins(5);
/// Shortest time between two changes of the facts in an endpoint's status. Conditions change at once.
pub const FACTS_INTERVAL: Duration = Duration::from_secs(30);

// --- Command line -------------------------------------------------------------------------------

/// Most characters of a transform's result that a line of the command line shows.
pub const TRANSFORM_SHOWN_CHARACTERS_MAX: usize = 120;
/// How long the command line waits for a connection to the API.
pub const CLIENT_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the command line waits for a whole answer of the API.
pub const CLIENT_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer of the API that the command line reads, in bytes: the largest event in base64, with room.
pub const CLIENT_RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most connections that the test receiver serves at once.
pub const RECEIVER_CONNECTIONS_MAX: usize = 1024;
/// Most requests that the test receiver has answered and nobody has looked at yet.
pub const RECEIVER_SEEN_MAX: usize = 4096;
/// Most bytes of a secret read from a file or from standard input.
pub const SECRET_INPUT_BYTES_MAX: usize = 4 * 1024;
/// Most bytes of headers that `verify` reads.
pub const HEADERS_INPUT_BYTES_MAX: usize = 64 * 1024;
/// Deepest folder, counted from the one that was named, in which the development server looks for sample events.
pub const SAMPLE_FOLDER_DEPTH_MAX: usize = 8;
/// Most sample events that one start of the development server publishes.
pub const SAMPLE_EVENTS_MAX: usize = 1_000;
/// Most bytes of one file of sample events.
pub const SAMPLE_FILE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long files must be left alone before a change of them is read.
pub const FILE_SETTLE_TIME: Duration = Duration::from_millis(50);
/// Most times that a change waits for the next one: a file that is written without end is read all the same.
pub const FILE_SETTLE_ROUNDS_MAX: usize = 20;
/// How often the development server reads its files again, whether or not it was told of a change.
pub const FILE_REREAD_INTERVAL: Duration = Duration::from_secs(2);
/// Most lines that a long-running command holds for a reader that is behind; further ones are counted, not held.
pub const OUTPUT_LINES_MAX: usize = 4096;
/// How long a command that ends waits for a reader that takes nothing more of what was printed.
pub const OUTPUT_PATIENCE: Duration = Duration::from_secs(1);
/// How long the development server waits before it plans again after the ledger did not answer.
pub const DEVELOPMENT_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Longest wait of the development server until a published table is in use. Later it comes into use all the same.
pub const DEVELOPMENT_TABLE_PATIENCE: Duration = Duration::from_secs(5);
/// Pause of the test receiver after a failed accept.
pub const RECEIVER_ACCEPT_PAUSE: Duration = Duration::from_millis(50);
