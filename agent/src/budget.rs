//! Byte budgets: a run may hold only so much in memory, and whoever wants more waits.

use crate::error::AgentError;
use crate::stop::{STOP_POLL, Stop};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;

/// A number of bytes that several threads share.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    total: u64,
    used: Mutex<u64>,
    freed: Condvar,
    stop: Stop,
}

/// Bytes taken from a [`Budget`]; given back when dropped.
pub struct Permit {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    /// `total` bytes, for the threads of the run that `stop` belongs to.
    pub fn new(total: u64, stop: Stop) -> Self {
        Budget(Arc::new(Inner { total, used: Mutex::new(0), freed: Condvar::new(), stop }))
    }

    /// Waits until `bytes` are free and takes them. A request above the whole budget is granted when nothing else is
    /// out, so that one large thing never blocks for ever.
    pub fn take(&self, bytes: u64) -> Result<Permit, AgentError> {
        let mut used = self.0.used.lock();
        loop {
            self.0.stop.check()?;
            if *used == 0 || *used + bytes <= self.0.total {
                *used += bytes;
                return Ok(Permit { budget: self.clone(), bytes });
            }
            self.0.freed.wait_for(&mut used, STOP_POLL);
        }
    }

    /// Bytes taken now.
    pub fn used(&self) -> u64 {
        *self.0.used.lock()
    }
}

impl Permit {
    /// Gives back all but `bytes`.
    pub fn shrink(&mut self, bytes: u64) {
        if bytes < self.bytes {
            self.give_back(self.bytes - bytes);
            self.bytes = bytes;
        }
    }

    /// Bytes it stands for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn give_back(&self, bytes: u64) {
        let mut used = self.budget.0.used.lock();
        *used = used.saturating_sub(bytes);
        drop(used);
        self.budget.0.freed.notify_all();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_and_large_requests_pass_alone() {
        let budget = Budget::new(10, Stop::default());
        let mut first = budget.take(8).unwrap();
        first.shrink(3);
        assert_eq!(budget.used(), 3);
        let second = budget.take(7).unwrap();
        drop((first, second));
        assert_eq!(budget.take(100).unwrap().bytes(), 100);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let stop = Stop::default();
        let budget = Budget::new(10, stop.clone());
        let _held = budget.take(10).unwrap();
        let waiter = std::thread::spawn({
            let budget = budget.clone();
            move || budget.take(1).is_err()
        });
        stop.fail(AgentError::Stopped);
        assert!(waiter.join().unwrap());
    }
}
