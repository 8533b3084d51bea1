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

/// Cancels what runs for somebody, from outside: every run's [`Stop`] is registered with it.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Mutex<Cancelling>>);

#[derive(Default)]
struct Cancelling {
    cancelled: bool,
    stops: Vec<Stop>,
}

impl Cancel {
    /// A new run's stop, stopped already when everything was cancelled before.
    pub fn stop(&self) -> Stop {
        let stop = Stop::default();
        let mut state = self.0.lock();
        if state.cancelled {
            stop.fail(AgentError::Stopped);
        }
        // Runs that have ended are not kept for ever.
        state.stops.retain(|stop| Arc::strong_count(&stop.0) > 1);
        state.stops.push(stop.clone());
        stop
    }

    /// Stops all runs, also those that begin later.
    pub fn cancel(&self) {
        let mut state = self.0.lock();
        state.cancelled = true;
        for stop in state.stops.drain(..) {
            stop.fail(AgentError::Stopped);
        }
    }

    /// Whether somebody cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.lock().cancelled
    }
}

/// How often waits that have no wake-up of their own look for a stop.
pub const STOP_POLL: Duration = Duration::from_millis(200);

/// A random part of `within`, so that many agents do not come at the same moment.
pub fn jitter(within: Duration) -> Duration {
    within.mul_f64(f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX))
}

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
