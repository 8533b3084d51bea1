//! What server and agent say to each other: paths, JSON bodies, framed binary bodies, error codes, protocol version.
//! Types and their encoding, no behaviour. Everything lives under [`PREFIX`]; ids are lower-case hexadecimal in JSON
//! and paths, raw bytes in binary bodies; times are nanoseconds since 1970 UTC; sizes are bytes.
#![forbid(unsafe_code)]

pub mod accounts;
pub mod agents;
pub mod audit;
pub mod browse;
pub mod care;
pub mod computers;
pub mod deletion;
pub mod exports;
pub mod identity;
pub mod invitations;
pub mod jobs;
pub mod members;
pub mod notices;
pub mod objects;
pub mod outbox;
pub mod page;
pub mod plans;
pub mod problem;
pub mod quota;
pub mod removal;
pub mod retention;
pub mod services;
pub mod states;
pub mod tenants;
pub mod upload;
pub mod vault;
pub mod webhook;

/// Every path starts with this.
pub const PREFIX: &str = "/api/v1";
/// Version of the protocol; a server refuses an agent whose major version differs (header [`PROTOCOL_HEADER`]).
pub const PROTOCOL_VERSION: u32 = 1;
/// Header in which an agent names its protocol version.
pub const PROTOCOL_HEADER: &str = "holdfast-protocol";
/// Media type of framed binary bodies.
pub const BINARY: &str = "application/vnd.holdfast.objects";
/// Media type of errors (RFC 9457).
pub const PROBLEM: &str = "application/problem+json";
