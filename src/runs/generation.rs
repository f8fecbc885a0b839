//! A generation: every collection that a dataflow keeps, complete through one frontier.

use std::any::Any;
use std::sync::Arc;

use super::levels::AnyLevels;
use crate::log::Tick;

/// One worker's part of a generation: the levels of each slot, in the order in which the dataflow asked for slots.
#[derive(Clone, Default)]
pub struct Shard {
    slots: Vec<Arc<dyn AnyLevels>>,
}

impl Shard {
    /// A shard of the given slots.
    pub fn new(slots: Vec<Arc<dyn AnyLevels>>) -> Self {
        Self { slots }
    }

    /// The levels of a slot, if they are of type `L`.
    pub fn slot<L: Any + Send + Sync>(&self, index: usize) -> Option<Arc<L>> {
        Arc::clone(self.slots.get(index)?).into_any().downcast().ok()
    }

    /// Merges runs of similar size in every slot.
    pub fn compact(&self) {
        self.slots.iter().for_each(|slot| slot.compact());
    }

    /// Number of runs and of rows over all slots.
    pub fn size(&self) -> (usize, usize) {
        self.slots.iter().map(|slot| slot.size()).fold((0, 0), |(runs, rows), (r, n)| (runs + r, rows + n))
    }
}

/// All runs of a dataflow, complete through `frontier`.
#[derive(Clone, Default)]
pub struct Generation {
    /// Counts up with each commit; 0 is the empty generation.
    pub id: u64,
    /// Every event with a smaller tick is in, no other.
    pub frontier: Tick,
    /// One shard for each worker, by index.
    pub shards: Vec<Arc<Shard>>,
}

impl Generation {
    /// The generation before the first event.
    pub fn empty(workers: usize) -> Self {
        Self { id: 0, frontier: Tick(0), shards: vec![Arc::default(); workers] }
    }

    /// Whether it holds nothing because nothing was computed yet.
    pub fn is_initial(&self) -> bool {
        self.id == 0
    }

    /// Number of runs and of rows over all shards.
    pub fn size(&self) -> (usize, usize) {
        self.shards.iter().map(|shard| shard.size()).fold((0, 0), |(runs, rows), (r, n)| (runs + r, rows + n))
    }
}
