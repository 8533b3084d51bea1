//! Every limit of the server's doors, and the relations between them.

use api::upload::UPLOAD_BODY_BYTES_MAX;
use repo_format::limits::CHUNK_BYTES_MAX;
use std::time::Duration;

/// Most connections at once; further ones wait in the kernel's queue. Every agent keeps one open for its orders.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Most TLS handshakes at once: each costs a signature.
pub const HANDSHAKES_MAX: usize = 256;
/// A handshake must be done by then.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A request's head must have arrived by then, counted from the end of the answer before: also how long a connection
/// may be idle.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A body must bring its next bytes by then.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// A whole body must have arrived by then.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(1800);
/// A client must take the next piece of an answer by then.
pub const ANSWER_IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Largest JSON body, bytes.
pub const JSON_BYTES_MAX: usize = 1 << 20;
/// Received objects are handed to the store in groups of about this many payload bytes.
pub const GROUP_BYTES: usize = 1 << 20;
/// Received objects are handed to the store in groups of at most this many.
pub const GROUP_OBJECTS_MAX: usize = 4096;
/// Bytes of bodies that may be in memory at once, over all requests; more requests wait.
pub const BODIES_BYTES_MAX: usize = 128 << 20;
/// What one request that streams its body reserves of them: a group at the store and one on its way. Chunks of
/// [`CHUNK_BYTES_MAX`] need more for a moment; they are rare, and most clients are slower than the store.
pub const STREAMED_BODY_BYTES: usize = 2 * GROUP_BYTES;
/// A request waits this long for its share before it is told to try again.
pub const BODIES_WAIT: Duration = Duration::from_secs(30);
/// Pieces of an answer that may wait for the client.
pub const ANSWER_PIECES_MAX: usize = 4;
/// Largest piece of a streamed file, bytes.
pub const ANSWER_PIECE_BYTES: usize = 256 << 10;
/// Buffer of outgoing TLS records of one connection, bytes.
pub const TLS_BUFFER_BYTES: usize = 256 << 10;
/// Most entries in one page of a folder.
pub const ENTRIES_MAX: usize = 10_000;

const _: () = assert!(UPLOAD_BODY_BYTES_MAX <= BODIES_BYTES_MAX);
const _: () = assert!(STREAMED_BODY_BYTES <= BODIES_BYTES_MAX);
const _: () = assert!(CHUNK_BYTES_MAX <= 4 * GROUP_BYTES);
const _: () = assert!(BODIES_BYTES_MAX < u32::MAX as usize);
