//! How many files the process may have open: each connected agent is one, beside the store's own.

use crate::limits::CONNECTIONS_MAX;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Connections as many as there may be, and as much again for packs, index and accounts.
const OPEN_FILES_WANTED: u64 = 4 * CONNECTIONS_MAX as u64;
/// With fewer than so many the server soon takes no more connections: each agent keeps one open.
const OPEN_FILES_ENOUGH: u64 = 4096;

/// Takes what the system lets a process ask for, since many systems give a process 1,024 as long as it does not ask.
pub fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES_WANTED, |maximum| maximum.min(OPEN_FILES_WANTED));
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files cannot be raised");
        }
    }
    let open_files = getrlimit(Resource::Nofile).current;
    match open_files {
        Some(allowed) if allowed < OPEN_FILES_ENOUGH => tracing::warn!(
            allowed,
            "few files can be open at once: beyond that agents cannot connect; raise the hard limit (LimitNOFILE in a systemd unit)"
        ),
        _ => tracing::debug!(?open_files, "open files"),
    }
}
