//! A bound on open file descriptors: slots that open themselves again when asked, and a pool that closes the ones
//! not used lately. Directories of the scan and files being restored both live in slots.

use parking_lot::Mutex;
use rustix::fd::OwnedFd;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

/// Most descriptors one pool keeps open between uses, unless the process's own limit is low.
pub const POOLED_FDS_MAX: usize = 256;
/// Most descriptors of files being restored that stay open between creation and their last byte: about as many small
/// files as are planned ahead, so that none of them is opened twice.
pub const POOLED_FILES_MAX: usize = 4096;
/// Fewest, however low the process's limit is.
const POOLED_FDS_MIN: usize = 8;

/// The pool. Descriptors in use by a caller at the moment come on top of its bound.
#[derive(Debug)]
pub struct FdPool {
    open_max: usize,
    open: AtomicUsize,
    queue: Mutex<VecDeque<Weak<Slot>>>,
}

/// Room for one descriptor that can be opened again at any time.
#[derive(Debug)]
pub(super) struct Slot {
    pool: Arc<FdPool>,
    fd: Mutex<Option<Arc<OwnedFd>>>,
    used: AtomicBool,
}

impl FdPool {
    /// A pool that keeps at most `open_max` descriptors open between uses.
    pub fn new(open_max: usize) -> Arc<Self> {
        let open_max = open_max.max(1);
        Arc::new(FdPool { open_max, open: AtomicUsize::new(0), queue: Mutex::new(VecDeque::new()) })
    }

    /// [`POOLED_FDS_MAX`], or a quarter of what the process may open if that is less.
    pub fn for_process() -> Arc<Self> {
        Self::new(quarter_of_limit().clamp(POOLED_FDS_MIN, POOLED_FDS_MAX))
    }

    /// For files being written: [`POOLED_FILES_MAX`], or a quarter of what the process may open if that is less.
    pub fn for_files() -> Arc<Self> {
        Self::new(quarter_of_limit().clamp(POOLED_FDS_MIN, POOLED_FILES_MAX))
    }

    /// Descriptors held open by the pool now.
    #[cfg(test)]
    pub fn open_count(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn slot(self: &Arc<Self>) -> Arc<Slot> {
        Arc::new(Slot { pool: self.clone(), fd: Mutex::new(None), used: AtomicBool::new(false) })
    }

    /// Notes that `slot` has opened, and closes others while there are too many. Second chance: a slot used since it
    /// was last looked at goes round once more.
    fn opened(&self, slot: &Arc<Slot>) {
        // Dropped after the lock is gone: the last reference to a slot may be one of these.
        let mut looked_at = Vec::new();
        let mut queue = self.queue.lock();
        queue.push_back(Arc::downgrade(slot));
        if queue.len() > self.open_max * 2 {
            queue.retain(|waiting| waiting.strong_count() > 0);
        }
        let mut chances = queue.len();
        while self.open.load(Ordering::Relaxed) > self.open_max {
            let Some(candidate) = queue.pop_front() else { break };
            let Some(other) = candidate.upgrade() else { continue };
            if chances > 0 && (other.used.swap(false, Ordering::Relaxed) || Arc::ptr_eq(&other, slot)) {
                chances -= 1;
                queue.push_back(candidate);
            } else if other.fd.lock().take().is_some() {
                self.open.fetch_sub(1, Ordering::Relaxed);
            }
            looked_at.push(other);
        }
    }
}

fn quarter_of_limit() -> usize {
    let allowed = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(allowed / 4).unwrap_or(usize::MAX)
}

impl Slot {
    /// The open descriptor, if there is one.
    pub(super) fn get(&self) -> Option<Arc<OwnedFd>> {
        let fd = self.fd.lock().clone();
        if fd.is_some() {
            self.used.store(true, Ordering::Relaxed);
        }
        fd
    }

    /// Keeps `fd` open for later uses. When two threads opened at the same time the first one's is kept.
    pub(super) fn put(self: &Arc<Self>, fd: OwnedFd) -> Arc<OwnedFd> {
        let mut place = self.fd.lock();
        if let Some(there) = &*place {
            return there.clone();
        }
        let fd = Arc::new(fd);
        *place = Some(fd.clone());
        drop(place);
        self.pool.open.fetch_add(1, Ordering::Relaxed);
        self.pool.opened(self);
        fd
    }

    /// The open descriptor, opened by `open` if need be.
    pub(super) fn get_or_open(
        self: &Arc<Self>,
        open: impl FnOnce() -> io::Result<OwnedFd>,
    ) -> io::Result<Arc<OwnedFd>> {
        match self.get() {
            Some(fd) => Ok(fd),
            None => Ok(self.put(open()?)),
        }
    }

    /// Closes the descriptor now.
    pub(super) fn close(&self) {
        if self.fd.lock().take().is_some() {
            self.pool.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn never_more_open_than_the_bound() {
        let pool = FdPool::new(4);
        let slots: Vec<_> = (0..50).map(|_| pool.slot()).collect();
        for round in 0..3 {
            for slot in &slots {
                slot.get_or_open(|| Ok(File::open("/dev/null")?.into())).unwrap();
                assert!(pool.open_count() <= 4, "round {round}");
            }
        }
        drop(slots);
        assert_eq!(pool.open_count(), 0);
    }

    #[test]
    fn dead_slots_do_not_pile_up() {
        let pool = FdPool::new(4);
        for _ in 0..10_000 {
            let slot = pool.slot();
            slot.get_or_open(|| Ok(File::open("/dev/null")?.into())).unwrap();
        }
        assert!(pool.queue.lock().len() <= 9);
        assert_eq!(pool.open_count(), 0);
    }
}
