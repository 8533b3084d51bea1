//! The clock that decides what may be removed: wall time that is believed only while it moves as time does. A clock
//! set wrong for an hour must not expire a year of snapshots or end a hold.
//!
//! Wall time is compared with where the monotonic clock says it should be, counted from the last time it was known to
//! be right; over a restart with the last time written to disk. It is refused while it is more than a minute behind or
//! 48 hours ahead of that. A clock that is put right again is believed again; one that stays is believed once someone
//! confirms it.

use crate::error::{At, StoreError};
use crate::world::World;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};

/// File in the store's folder.
const CLOCK_FILE: &str = "clock";
/// Its first word: what it is, and its version.
const MAGIC: &str = "holdfast-clock-1";
const FILE_BYTES_MAX: u64 = 256;
/// Largest step back that is believed.
const BACK_NS_MAX: i64 = 60 * SECOND_NS;
/// Largest step ahead that is believed. A server that was off for longer needs a confirmation.
const AHEAD_NS_MAX: i64 = 48 * 3600 * SECOND_NS;
/// The file is written at most this often.
const WRITE_EVERY_NS: i64 = 60 * SECOND_NS;
const SECOND_NS: i64 = 1_000_000_000;

/// Times of this store that may end holds and soft deletes and expire snapshots.
pub(crate) struct GuardedClock {
    world: World,
    path: PathBuf,
    state: Mutex<State>,
}

/// A wall time known to be right and the monotonic time it was read at.
#[derive(Clone, Copy)]
struct Anchor {
    wall_ns: i64,
    monotonic_ns: i64,
}

struct State {
    anchor: Anchor,
    /// Latest time that was believed.
    last_ns: i64,
    /// Monotonic time of the last write of the file; `None`: not yet in this process.
    written_ns: Option<i64>,
    /// It is written with the next time that is believed.
    write_due: bool,
}

impl GuardedClock {
    /// Goes on from what the file in `directory` says; without one, from now.
    pub(crate) fn open(world: World, directory: &Path) -> Result<Self, StoreError> {
        let path = directory.join(CLOCK_FILE);
        let monotonic_ns = world.clock.monotonic_ns();
        let wall_ns = match world.vfs.read(&path, FILE_BYTES_MAX) {
            Ok(bytes) => decode(&bytes).unwrap_or_else(|| {
                tracing::error!(path = %path.display(), "the clock's file is damaged; nothing expires until the clock is confirmed");
                0
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => world.clock.now_ns(),
            Err(error) => return Err(error).at(&path),
        };
        let state =
            State { anchor: Anchor { wall_ns, monotonic_ns }, last_ns: wall_ns, written_ns: None, write_due: false };
        Ok(GuardedClock { world, path, state: Mutex::new(state) })
    }

    /// Nanoseconds since 1970, or [`StoreError::ClockJumped`].
    pub(crate) fn now_ns(&self) -> Result<i64, StoreError> {
        let mut state = self.state.lock();
        let (now_ns, monotonic_ns) = (self.world.clock.now_ns(), self.world.clock.monotonic_ns());
        let elapsed_ns = monotonic_ns.saturating_sub(state.anchor.monotonic_ns).max(0);
        let expected_ns = state.anchor.wall_ns.saturating_add(elapsed_ns);
        let off_ns = now_ns.saturating_sub(expected_ns);
        if !(-BACK_NS_MAX..=AHEAD_NS_MAX).contains(&off_ns) {
            return Err(StoreError::ClockJumped { last_ns: state.last_ns.max(expected_ns), now_ns });
        }
        self.believed(&mut state, now_ns, monotonic_ns);
        Ok(now_ns)
    }

    /// Someone says that the clock is right as it is now.
    pub(crate) fn confirm(&self) -> Result<i64, StoreError> {
        let mut state = self.state.lock();
        let (now_ns, monotonic_ns) = (self.world.clock.now_ns(), self.world.clock.monotonic_ns());
        self.world.vfs.replace(&self.path, &encode(now_ns)).at(&self.path)?;
        *state = State {
            anchor: Anchor { wall_ns: now_ns, monotonic_ns },
            last_ns: now_ns,
            written_ns: Some(monotonic_ns),
            write_due: false,
        };
        tracing::info!(now_ns, "the clock was confirmed");
        Ok(now_ns)
    }

    /// Writes the time down, if it is believed: the next start counts from this stop.
    pub(crate) fn stop(&self) {
        self.state.lock().write_due = true;
        if let Err(error) = self.now_ns() {
            tracing::warn!(%error, "the time of this stop is not written down");
        }
    }

    fn believed(&self, state: &mut State, now_ns: i64, monotonic_ns: i64) {
        state.last_ns = now_ns;
        let recently = |written_ns| monotonic_ns.saturating_sub(written_ns) < WRITE_EVERY_NS;
        if !std::mem::take(&mut state.write_due) && state.written_ns.is_some_and(recently) {
            return;
        }
        if state.written_ns.is_none() {
            // What passed since the last stop is explained; from here on the monotonic clock is the measure.
            state.anchor = Anchor { wall_ns: now_ns, monotonic_ns };
        }
        state.written_ns = Some(monotonic_ns);
        if let Err(error) = self.world.vfs.replace(&self.path, &encode(now_ns)) {
            // Older than it could be, the file only makes the check after a restart stricter.
            tracing::warn!(path = %self.path.display(), %error, "the clock's file could not be written");
        }
    }
}

fn encode(now_ns: i64) -> Vec<u8> {
    let text = format!("{MAGIC} {now_ns}");
    format!("{text} {:08x}\n", crc32c::crc32c(text.as_bytes())).into_bytes()
}

fn decode(bytes: &[u8]) -> Option<i64> {
    let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let (text, crc) = line.rsplit_once(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(text.as_bytes()) {
        return None;
    }
    text.strip_prefix(MAGIC)?.trim_start().parse().ok()
}

#[cfg(test)]
mod tests;
