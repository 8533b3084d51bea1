//! Every bound of the pipeline, and how they hang together. All of it stays below 200 MB.

/// Chunks and nodes kept until they are durable, bytes: plaintext until compressed, compressed afterwards.
pub const WINDOW_BYTES_MAX: u64 = 64 << 20;
/// A round closes at this much plaintext.
pub const ROUND_PLAIN_BYTES: u64 = 24 << 20;
/// A round closes at this much to send.
pub const ROUND_STORED_BYTES: u64 = 14 << 20;
/// A round closes at this age, milliseconds.
pub const ROUND_AGE_MS: u64 = 1000;
/// Chunks sent and not yet durable: what a crash of the server may cost twice, bytes.
pub const UNACKNOWLEDGED_BYTES_MAX: u64 = 28 << 20;
/// Body of one request for chunks, bytes.
pub const CHUNK_BODY_BYTES: usize = 4 << 20;
/// Body of one request for nodes, bytes.
pub const NODE_BODY_BYTES: usize = 8 << 20;
/// A body of chunks leaves at this age even if small, milliseconds.
pub const BODY_AGE_MS: u64 = 20;
/// A question for this many chunks leaves at once.
pub const QUESTION_IDS: usize = 64;
/// A smaller one leaves at this age, milliseconds.
pub const QUESTION_AGE_MS: u64 = 10;
/// Connections for chunks.
pub const SENDERS: usize = 4;
/// Connections for `have`.
pub const ASKERS: usize = 2;
/// Contents of small files and metadata between the scan and the path map, bytes.
pub const JOB_BYTES_MAX: u64 = 16 << 20;
/// One job: most items.
pub const JOB_ITEMS_MAX: usize = 256;
/// One job: most bytes of small files.
pub const JOB_READ_BYTES: u64 = 1 << 20;
/// What an item costs in memory beside its content, bytes.
pub const ITEM_BYTES: u64 = 1024;
/// Most reading threads: compression, not reading, is what many cores help with.
pub const READERS_MAX: usize = 4;
/// Read buffer of a worker for large files, bytes: twice the largest chunk.
pub const READ_BUFFER_BYTES: usize = 8 << 20;
/// Entries that wait for their bundle; then it is closed early.
pub const WAITING_ENTRIES_MAX: usize = 8192;
/// Small files remembered by content, so that copies are not bundled twice.
pub const KNOWN_SMALL_FILES_MAX: usize = 65_536;
/// Groups of hard links remembered, so that a file is read once.
pub const LINK_GROUPS_MAX: usize = 65_536;
/// Bundles whose use is counted, at about 60 bytes each; further ones are left as they are.
pub const BUNDLES_WATCHED_MAX: usize = 200_000;
/// Parts of bundles known to be counted, at about 10 to 20 bytes each; of further ones copies count as well.
pub const SLICES_WATCHED_MAX: usize = 1_800_000;
/// Durable chunks remembered, so that they are not asked for again.
pub const DURABLE_IDS_MAX: usize = 131_072;
/// Times a round of nodes may be refused for missing chunks.
pub const ROUND_ATTEMPTS_MAX: u32 = 50;

const _: () = assert!(CHUNK_BODY_BYTES + repo_format::limits::CHUNK_BYTES_MAX < api::upload::UPLOAD_BODY_BYTES_MAX);
const _: () = assert!(NODE_BODY_BYTES + repo_format::limits::CHUNK_BYTES_MAX < api::upload::UPLOAD_BODY_BYTES_MAX);
const _: () = assert!(2 * ROUND_PLAIN_BYTES + 2 * repo_format::limits::CHUNK_BYTES_MAX as u64 <= WINDOW_BYTES_MAX);
const _: () = assert!(ROUND_PLAIN_BYTES <= UNACKNOWLEDGED_BYTES_MAX);
const _: () = assert!(READ_BUFFER_BYTES >= 2 * repo_format::limits::CHUNK_BYTES_MAX);
const _: () = assert!(UNACKNOWLEDGED_BYTES_MAX <= 32 << 20);
