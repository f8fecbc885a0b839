//! The only place that reads the wall clock.
//!
//! A clock proposes ticks; the log decides. A clock that stands still or goes back costs accuracy, not order.
use super::position::Tick;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Proposes the tick of the moment.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970, as far as this clock knows.
    fn now(&self) -> Tick;
}

/// The machine's clock.
#[derive(Copy, Clone, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Tick {
        // A clock set before 1970 proposes 0, which the log's floor overrules.
        Tick(SystemTime::now().duration_since(UNIX_EPOCH).map(|elapsed| elapsed.as_millis() as u64).unwrap_or(0))
    }
}

/// A clock that stands where it is set.
#[derive(Debug, Default)]
pub struct SimClock(AtomicU64);

impl SimClock {
    /// A clock that stands at `tick`.
    pub fn at(tick: u64) -> Arc<Self> {
        Arc::new(SimClock(AtomicU64::new(tick)))
    }

    /// Moves the clock, forward or back.
    pub fn set(&self, tick: u64) {
        self.0.store(tick, Ordering::SeqCst);
    }

    /// Moves the clock forward.
    pub fn pass(&self, ticks: u64) {
        self.0.fetch_add(ticks, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Tick {
        Tick(self.0.load(Ordering::SeqCst))
    }
}
