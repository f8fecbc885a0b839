//! Changes by tick and key, worked off tick by tick, each when it is complete.
//!
//! Operators that follow a key's state need its ticks in order: a row must never be derived from half a tick, nor from a
//! later one.

use std::collections::BTreeMap;
use std::hash::Hash;

use differential_dataflow::consolidation::consolidate;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;
use timely::progress::frontier::AntichainRef;

use crate::runs::Data;

use super::flow::{Diff, Table, Update, table};

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
    pub(crate) fn next_complete(
        &mut self,
        frontier: AntichainRef<'_, u64>,
    ) -> Option<(u64, Capability<u64>, hashbrown::hash_map::IntoIter<K, A>)> {
        self.next_complete_in(&[frontier])
    }

    /// The earliest tick, if nothing more can come for it on any of some inputs.
    pub(crate) fn next_complete_in(
        &mut self,
        frontiers: &[AntichainRef<'_, u64>],
    ) -> Option<(u64, Capability<u64>, hashbrown::hash_map::IntoIter<K, A>)> {
        let complete = |tick: &u64| frontiers.iter().all(|frontier| !frontier.less_equal(tick));
        let first = self.ticks.first_entry().filter(|first| complete(first.key()))?;
        let (tick, (capability, gathered)) = first.remove_entry();
        Some((tick, capability, gathered.into_iter()))
    }
}

/// Rows that an operator makes in one activation before operators behind it get their turn; a key's rows are made at once.
pub(crate) const ROWS_PER_ACTIVATION: usize = 1 << 18;

/// The tick that is being worked off: what is left of it.
pub(crate) type Working<K, A> = Option<(u64, Capability<u64>, hashbrown::hash_map::IntoIter<K, A>)>;

/// Hands each key's changes of a tick, consolidated and not none, to `touch`, once the tick is complete; ticks in order.
/// `touch` adds changes of the output. Updates must already be placed by key.
pub(crate) fn by_key_in_order<'s, K: Data, V: Data, D: Clone + 'static>(
    placed: StreamVec<'s, u64, Update<(K, V)>>,
    name: &str,
    mut touch: impl FnMut(K, Vec<(V, Diff)>, &mut Vec<(D, Diff)>) + 'static,
) -> StreamVec<'s, u64, Update<D>> {
    let scope = placed.scope();
    placed.unary_frontier(Pipeline, name, move |capability, info| {
        drop(capability);
        let activator = scope.activator_for(info.address);
        let mut pending: InOrder<K, Vec<(V, Diff)>> = InOrder::default();
        let mut working: Working<K, Vec<(V, Diff)>> = None;
        let mut made: Vec<(D, Diff)> = Vec::new();
        move |(input, frontier), output| {
            input.for_each_stamp(|stamp, containers| {
                let Some(capability) = stamp.retain_least(0) else { return };
                for ((key, val), tick, diff) in containers.flat_map(|updates| updates.drain(..)) {
                    pending.at(tick, &capability).entry(key).or_default().push((val, diff));
                }
            });
            let mut left = ROWS_PER_ACTIVATION;
            while let Some((tick, capability, mut changed)) = working.take().or_else(|| pending.next_complete(frontier.frontier())) {
                let mut session = output.session(&capability);
                for (key, mut changes) in changed.by_ref() {
                    consolidate(&mut changes);
                    if !changes.is_empty() {
                        touch(key, changes, &mut made);
                        left = left.saturating_sub(1 + made.len());
                        session.give_iterator(made.drain(..).map(|(row, diff)| -> Update<D> { (row, tick, diff) }));
                    }
                    if left == 0 {
                        break;
                    }
                }
                drop(session);
                if left == 0 {
                    working = Some((tick, capability, changed));
                    activator.activate();
                    return;
                }
            }
        }
    })
}
