//! Changes by tick and key, worked off tick by tick, each when it is complete.
//!
//! Operators that follow a key's state need its ticks in order: a row must never be derived from half a tick, nor from a
//! later one.

use std::collections::BTreeMap;
use std::hash::Hash;

use differential_dataflow::consolidation::consolidate;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::{Operator, OutputBuilderSession};
use timely::progress::frontier::AntichainRef;
use timely::scheduling::Activator;

use crate::runs::Data;

use super::flow::{Diff, Table, Update, table};

/// Rows that an operator makes in one activation before operators behind it get their turn; a key's rows are made at once.
const ROWS_PER_ACTIVATION: usize = 1 << 18;

/// What came in for ticks that are not worked off. `A` is what is gathered for a key.
pub(crate) struct InOrder<K, A> {
    ticks: BTreeMap<u64, (Capability<u64>, Table<K, A>)>,
    /// What is left of the tick that is being worked off.
    working: Option<(u64, Capability<u64>, hashbrown::hash_map::IntoIter<K, A>)>,
    activator: Activator,
}

/// An operator's output while it is active.
type Output<'a, D> = OutputBuilderSession<'a, u64, CapacityContainerBuilder<Vec<Update<D>>>>;

impl<K: Eq + Hash, A> InOrder<K, A> {
    /// Nothing yet, for an operator that is to be activated again when it has not come to an end.
    pub(crate) fn new(activator: Activator) -> Self {
        Self { ticks: BTreeMap::new(), working: None, activator }
    }

    /// What is gathered at a tick. The capability must be for that tick or an earlier one.
    pub(crate) fn at(&mut self, tick: u64, capability: &Capability<u64>) -> &mut Table<K, A> {
        &mut self.ticks.entry(tick).or_insert_with(|| (capability.delayed(&tick), table())).1
    }

    /// Hands what was gathered for each key to `touch`, tick by tick, as far as nothing more can come on any of the inputs.
    /// `touch` adds changes of the output.
    pub(crate) fn work_off<D: Clone + 'static>(
        &mut self,
        frontiers: &[AntichainRef<'_, u64>],
        output: &mut Output<'_, D>,
        mut touch: impl FnMut(K, A, &mut Vec<(D, Diff)>),
    ) {
        let mut made: Vec<(D, Diff)> = Vec::new();
        let mut left = ROWS_PER_ACTIVATION;
        while let Some((tick, capability, mut gathered)) = self.working.take().or_else(|| self.next_complete(frontiers)) {
            let mut session = output.session(&capability);
            for (key, of_key) in gathered.by_ref() {
                touch(key, of_key, &mut made);
                left = left.saturating_sub(1 + made.len());
                session.give_iterator(made.drain(..).map(|(row, diff)| -> Update<D> { (row, tick, diff) }));
                if left == 0 {
                    break;
                }
            }
            drop(session);
            if left == 0 {
                self.working = Some((tick, capability, gathered));
                self.activator.activate();
                return;
            }
        }
    }

    fn next_complete(
        &mut self,
        frontiers: &[AntichainRef<'_, u64>],
    ) -> Option<(u64, Capability<u64>, hashbrown::hash_map::IntoIter<K, A>)> {
        let complete = |tick: &u64| frontiers.iter().all(|frontier| !frontier.less_equal(tick));
        let first = self.ticks.first_entry().filter(|first| complete(first.key()))?;
        let (tick, (capability, gathered)) = first.remove_entry();
        Some((tick, capability, gathered.into_iter()))
    }
}

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
        let mut pending: InOrder<K, Vec<(V, Diff)>> = InOrder::new(scope.activator_for(info.address));
        move |(input, frontier), output| {
            input.for_each_stamp(|stamp, containers| {
                let Some(capability) = stamp.retain_least(0) else { return };
                for ((key, val), tick, diff) in containers.flat_map(|updates| updates.drain(..)) {
                    pending.at(tick, &capability).entry(key).or_default().push((val, diff));
                }
            });
            pending.work_off(&[frontier.frontier()], output, |key, mut changes, made| {
                consolidate(&mut changes);
                if !changes.is_empty() {
                    touch(key, changes, made);
                }
            });
        }
    })
}
