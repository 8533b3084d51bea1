//! The real binary over real TLS: `accounts` (administration, tokens, master key), `identity` (who somebody is), `agents`
//! (enrolled computers and their jobs), `upload` (data in and out), `tenants` (who buys what and gives it to whom, and
//! what follows), `quota` (limits, who they refuse and what they let through), `refusals` (every wrong request has its
//! own clear answer
//! and leaves nothing behind), `every_route` (every route against every role), `timing` (nothing is told by how long an
//! answer takes), `described` (the API against its own description), `audit` (who did what), `lifecycle` (starting, stopping, full disk, the same data folder twice).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failure here is the failure of the test")]

mod accounts;
mod agents;
mod audit;
mod described;
mod every_route;
mod harness;
mod identity;
mod isolation;
mod job_lists;
mod lifecycle;
mod messages;
mod quota;
#[path = "../../../tests/src/receivers.rs"]
#[allow(dead_code, reason = "the end-to-end tests use more of it")]
mod receivers;
mod refusals;
mod removal;
mod states;
mod tenants;
mod timing;
mod upload;
mod webhooks;
