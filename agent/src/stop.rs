//! One run has many threads; the first that fails stops all of them. Every wait of a run goes through here.

use crate::error::AgentError;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Shared by the threads of a run: stopped or not, and why.
#[derive(Clone, Default)]
pub struct Stop(Arc<Inner>);

#[derive(Default)]
struct Inner {
    stopped: AtomicBool,
    reason: Mutex<Option<AgentError>>,
    changed: Condvar,
}

/// How often waits that have no wake-up of their own look for a stop.
pub const STOP_POLL: Duration = Duration::from_millis(200);

impl Stop {
    /// Stops the run because of `reason`; only the first reason is kept.
    pub fn fail(&self, reason: AgentError) {
        let mut slot = self.0.reason.lock();
        if slot.is_none() && !matches!(reason, AgentError::Stopped) {
            *slot = Some(reason);
        }
        self.0.stopped.store(true, Ordering::SeqCst);
        self.0.changed.notify_all();
    }

    /// True once any thread failed.
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }

    /// `Err(Stopped)` once any thread failed.
    pub fn check(&self) -> Result<(), AgentError> {
        if self.is_stopped() { Err(AgentError::Stopped) } else { Ok(()) }
    }

    /// Sleeps, or returns `Err(Stopped)` as soon as the run is stopped.
    pub fn sleep(&self, duration: Duration) -> Result<(), AgentError> {
        let until = Instant::now() + duration;
        let mut slot = self.0.reason.lock();
        while !self.is_stopped() {
            if self.0.changed.wait_until(&mut slot, until).timed_out() {
                break;
            }
        }
        drop(slot);
        self.check()
    }

    /// The reason of the first failure, once; afterwards `Stopped`.
    pub fn take_reason(&self) -> AgentError {
        self.0.reason.lock().take().unwrap_or(AgentError::Stopped)
    }

    /// `result`, but with the first failure of the run in place of the `Stopped` that followed from it.
    pub fn explain<T>(&self, result: Result<T, AgentError>) -> Result<T, AgentError> {
        match result {
            Ok(value) => match self.is_stopped() {
                true => Err(self.take_reason()),
                false => Ok(value),
            },
            Err(AgentError::Stopped) => Err(self.take_reason()),
            Err(error) => {
                self.fail(AgentError::Stopped);
                Err(self.0.reason.lock().take().unwrap_or(error))
            }
        }
    }
}
