//! Changes by tick and key, worked off tick by tick, each when it is complete.
//!
//! Operators that follow a key's state need its ticks in order: a row must never be derived from half a tick, nor from a
//! later one.

use std::collections::BTreeMap;
use std::hash::Hash;

use timely::dataflow::operators::Capability;
use timely::progress::frontier::AntichainRef;

use super::flow::{Table, table};

/// What came in for ticks that are not complete. `A` is what is gathered for a key.
pub(crate) struct InOrder<K, A> {
    ticks: BTreeMap<u64, (Capability<u64>, Table<K, A>)>,
}

impl<K, A> Default for InOrder<K, A> {
    fn default() -> Self {
        Self { ticks: BTreeMap::new() }
    }
}

impl<K: Eq + Hash, A> InOrder<K, A> {
    /// What is gathered at a tick. The capability must be for that tick or an earlier one.
    pub(crate) fn at(&mut self, tick: u64, capability: &Capability<u64>) -> &mut Table<K, A> {
        &mut self.ticks.entry(tick).or_insert_with(|| (capability.delayed(&tick), table())).1
    }

    /// The earliest tick, if nothing more can come for it.
    pub(crate) fn next_complete(&mut self, frontier: AntichainRef<'_, u64>) -> Option<(u64, Capability<u64>, Table<K, A>)> {
        let first = self.ticks.first_entry().filter(|first| !frontier.less_equal(first.key()))?;
        let (tick, (capability, gathered)) = first.remove_entry();
        Some((tick, capability, gathered))
    }
}
