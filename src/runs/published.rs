//! What a worker of a speed graph shows of one view: its changes since the base, replaced whole on each frontier change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use super::data::{Change, Data};
use super::shared::Batch;

/// Changes that are exact for reads at ticks in `[since, upper)`.
pub struct Changes<K: Data, V: Data, R: Change> {
    /// Reads below would see times that have been coalesced.
    pub since: u64,
    /// Reads here and above are not complete yet.
    pub upper: u64,
    /// May hold updates at or beyond `upper`: readers filter by time.
    pub batches: Vec<Batch<K, V, R>>,
}

/// The place where one worker publishes one view, and others read it without a lock.
pub struct Published<K: Data, V: Data, R: Change> {
    changes: ArcSwap<Changes<K, V, R>>,
}

impl<K: Data, V: Data, R: Change> Published<K, V, R> {
    /// Nothing is known yet: complete below the base's frontier only.
    pub fn new(base: u64) -> Self {
        Self { changes: ArcSwap::from_pointee(Changes { since: base.saturating_sub(1), upper: base, batches: Vec::new() }) }
    }

    /// The changes as they are now.
    pub fn load(&self) -> Arc<Changes<K, V, R>> {
        self.changes.load_full()
    }

    /// Replaces the changes: batches, since and upper together.
    pub fn store(&self, changes: Changes<K, V, R>) {
        self.changes.store(Arc::new(changes));
    }
}

/// How far back the published changes of a graph must stay readable.
///
/// The last `ticks` ticks are, counted from the frontier that is served: under load one view can be far ahead of the slowest,
/// and it must still answer at the tick at which all do. A handover also holds the tick it will audit at.
#[derive(Debug)]
pub struct History {
    first: u64,
    ticks: u64,
    served: AtomicU64,
    hold: AtomicU64,
}

impl History {
    /// Of a graph that is exact at `first` and later; what was before is in it as one sum.
    pub fn new(first: u64, ticks: u64) -> Self {
        Self { first, ticks, served: AtomicU64::new(first.saturating_add(1)), hold: AtomicU64::new(u64::MAX) }
    }

    /// Answers are given at every tick before `frontier`.
    pub fn serve(&self, frontier: u64) {
        self.served.fetch_max(frontier, Ordering::SeqCst);
    }

    /// Reads at `tick` must stay exact until [`History::release`].
    pub fn hold(&self, tick: u64) {
        self.hold.store(tick, Ordering::SeqCst);
    }

    /// Ends the hold.
    pub fn release(&self) {
        self.hold.store(u64::MAX, Ordering::SeqCst);
    }

    /// The earliest tick that must stay readable.
    pub fn since(&self) -> u64 {
        let kept = self.served.load(Ordering::SeqCst).saturating_sub(self.ticks.max(1));
        kept.min(self.hold.load(Ordering::SeqCst)).max(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // With 60 s of history, a read at a tick before the last handover was answered with all rows of the base, later ones
    // included.
    #[test]
    fn history_does_not_reach_into_the_base() {
        let history = History::new(999, 60);
        assert_eq!(history.since(), 999);
        history.serve(1_030);
        assert_eq!(history.since(), 999);
        history.serve(1_100);
        assert_eq!(history.since(), 1_040);
        history.hold(1_020);
        assert_eq!(history.since(), 1_020);
        history.release();
        assert_eq!(history.since(), 1_040);
    }

    // A worker that was 6 s behind in one view made others forget the tick that was being served: reads of them failed.
    #[test]
    fn history_is_counted_from_what_is_served() {
        let history = History::new(0, 5);
        assert_eq!(history.since(), 0, "however far a view is ahead");
        history.serve(7);
        history.serve(6);
        assert_eq!(history.since(), 2, "it never goes back");
        assert_eq!(History::new(0, u64::MAX).since(), 0);
    }
}
