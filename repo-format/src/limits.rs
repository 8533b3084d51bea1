//! Every maximum of the format, and the relations between them that other code relies on.

/// Largest plaintext of one chunk, bytes (the `default` profile's maximum).
pub const CHUNK_BYTES_MAX: usize = 4 << 20;
/// Most distinct children of one node.
pub const NODE_CHILDREN_MAX: usize = 1024;
/// Largest body of one node, bytes.
pub const NODE_BODY_BYTES_MAX: usize = 256 << 10;
/// Largest whole node as plaintext: header, child ids and body.
pub const NODE_BYTES_MAX: usize = 64 + NODE_CHILDREN_MAX * 32 + NODE_BODY_BYTES_MAX;
/// Files below this size are bundled, bytes.
pub const BUNDLED_FILE_BYTES_MAX: usize = (64 << 10) - 1;
/// A bundle closes at the first file end at or after this many bytes whose file hash says so.
pub const BUNDLE_BYTES_MIN: usize = 128 << 10;
/// A bundle closes at the first file end at or after this many bytes whatever the hash says.
pub const BUNDLE_BYTES_SOFT_MAX: usize = 1 << 20;
/// A pack is sealed when its next frame would pass this many bytes.
pub const PACK_BYTES_TARGET: u64 = 64 << 20;
/// Most frames in one pack; a pack is sealed when it is reached.
pub const PACK_FRAMES_MAX: usize = 65_536;
/// Bytes covered by one stripe checksum of a pack's trailer.
pub const STRIPE_BYTES: u64 = 256 << 10;
/// Longest name of one directory entry, bytes (Linux NAME_MAX is 255; network file systems go further).
pub const NAME_BYTES_MAX: usize = 4096;
/// Longest path-map key, bytes: all directory components with their separators, and the name.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Largest extended attribute value kept inside an entry, bytes; larger ones are chunk references.
pub const XATTR_INLINE_BYTES_MAX: usize = 2048;
/// Most extended attributes of one entry.
pub const XATTRS_MAX: usize = 1024;
/// Longest symbolic link target, bytes.
pub const SYMLINK_TARGET_BYTES_MAX: usize = 64 << 10;
/// A file with more content elements than this keeps them in a node list of its own.
pub const CONTENT_INLINE_MAX: usize = 8;
/// Deepest tree that a reader follows; the writer never comes near it.
pub const TREE_DEPTH_MAX: usize = 16;
/// Largest journal record, bytes.
pub const JOURNAL_RECORD_BYTES_MAX: usize = 1 << 20;
/// Largest keyring file, bytes.
pub const KEYRING_BYTES_MAX: usize = 256 << 20;
/// Bytes a frame adds to its payload: header and authentication tag.
pub const FRAME_OVERHEAD_BYTES: usize = 96 + 16;
/// Largest stored frame: an incompressible chunk is kept raw, a node never grows past this either.
pub const FRAME_BYTES_MAX: usize = CHUNK_BYTES_MAX + FRAME_OVERHEAD_BYTES;

const _: () = assert!(NODE_BYTES_MAX <= CHUNK_BYTES_MAX);
const _: () = assert!(BUNDLE_BYTES_SOFT_MAX + BUNDLED_FILE_BYTES_MAX <= CHUNK_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX as u64 * 2 < PACK_BYTES_TARGET);
const _: () = assert!(PACK_BYTES_TARGET < u32::MAX as u64);
const _: () = assert!(KEY_BYTES_MAX + SYMLINK_TARGET_BYTES_MAX + XATTR_INLINE_BYTES_MAX < NODE_BODY_BYTES_MAX);
