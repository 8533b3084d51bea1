//! Every limit of this crate in one place, and how they hang together.
//!
//! Sizes are bytes, durations are durations. The ones an operator may want to change are defaults of
//! [`crate::GatewayConfig`]; the others are set by what clients can bear.

use std::time::Duration;

/// Longest SFTP packet taken or sent, without its length field, as OpenSSH's server has it.
pub const PACKET_BYTES_MAX: u32 = 256 * 1024;
/// Longest answer to one READ; OpenSSH keeps 1 KiB of its packet for headers.
pub const READ_BYTES_MAX: u32 = PACKET_BYTES_MAX - 1024;
/// Longest answer to one READDIR: sshfs refuses replies above 128 KiB.
pub const LISTING_BYTES_MAX: usize = 96 * 1024;
/// Entries in one answer to READDIR, as OpenSSH's server has it.
pub const LISTING_ENTRIES_MAX: usize = 100;
/// Longest path taken, in bytes.
pub const PATH_BYTES_MAX: usize = 4096;
/// Longest name of one entry shown, in bytes; longer ones are left out of listings.
pub const NAME_BYTES_MAX: usize = 4096;
/// Requests that wait in one SFTP session, in bytes of memory; more is a flood and ends it.
pub const REQUEST_QUEUE_BYTES_MAX: usize = 8 << 20;
/// Replies that wait to be sent in one SFTP session, with those still being read.
pub const OUTPUT_BYTES_MAX: usize = 8 << 20;
/// Requests of one SFTP session that are worked on at once.
pub const REQUESTS_AT_ONCE: usize = 32;
/// Open files and folders in one SFTP session.
pub const HANDLES_MAX: usize = 128;
/// Gaps and pieces remembered per open file before the smallest gap is forgotten (counted as not read).
pub const COVERED_RANGES_MAX: usize = 1024;
/// Channels of one connection.
pub const CHANNELS_MAX: usize = 4;
/// Longest command line of an exec request.
pub const COMMAND_BYTES_MAX: usize = 8192;

/// Bytes of a direction after which keys are exchanged anew; clients ask for less if they want.
pub const REKEY_BYTES_MAX: usize = 1 << 30;
/// From the connection until somebody is logged in.
pub const LOGIN_GRACE: Duration = Duration::from_secs(30);
/// Connections that are not logged in, in all.
pub const STARTS_MAX: usize = 64;
/// Connections that are not logged in, per /24 or /56.
pub const STARTS_PER_NETWORK_MAX: usize = 16;
/// Connections of one key at once.
pub const CONNECTIONS_PER_KEY_MAX: usize = 20;
/// How often the key of a live connection is looked up again.
pub const RECHECK_INTERVAL: Duration = Duration::from_secs(30);
/// A connection on which nothing moves is ended after this.
pub const STALL_MAX: Duration = Duration::from_secs(15 * 60);
/// Under memory pressure, a connection that owes nothing but waits for its peer this long may be ended.
pub const STALL_UNDER_PRESSURE: Duration = Duration::from_secs(45);
/// How often live connections are looked at for stalls.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(15);
/// Sources whose penalties are remembered.
pub const PENALTY_SOURCES_MAX: usize = 65_536;

const _: () = assert!(READ_BYTES_MAX + 13 <= PACKET_BYTES_MAX);
const _: () = assert!(LISTING_BYTES_MAX < 100 * 1024);
const _: () = assert!(2 * NAME_BYTES_MAX + 1024 < LISTING_BYTES_MAX);
const _: () = assert!(OUTPUT_BYTES_MAX >= 16 * READ_BYTES_MAX as usize);
const _: () = assert!(RECHECK_INTERVAL.as_secs() < 60);
const _: () = assert!(STALL_UNDER_PRESSURE.as_secs() + 2 * SWEEP_INTERVAL.as_secs() < 90);
