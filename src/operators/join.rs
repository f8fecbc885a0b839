//! Join: all pairs of rows with equal keys.
//!
//! **Law.** `(A + a)(B + b) - AB = ab + aB + Ab` for bases A, B and changes a, b. The first term joins changes with changes, the
//! other two are look-ups of one side's changes in the other side's frozen run.
//! **State.** A hash table of the keys touched since the base, with the changes of both sides; keys whose changes cancel are
//! forgotten.
//! **Cost.** For each key and tick with a change one look-up into the base and one into the table for each side that changed,
//! and the pairs it makes. Other operators get their turn between keys; one key's pairs of a tick are made at once.
//!
//! Differential's join works over sorted batches, for partially ordered times. Ticks are totally ordered, so a table does, as
//! for `reduce`; and it compiles to a fraction of the code.

use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::Rc;

use differential_dataflow::AsCollection;
use differential_dataflow::consolidation::consolidate;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::runs::{Data, Lookup, Run};

use super::flow::{Diff, Flow, Table, Update, place, table};
use super::in_order::InOrder;
use super::quarantine::{attempt, settle};

impl<'s, K: Data, V: Data> Flow<'s, (K, V)> {
    /// Rows `(key, (left, right))` for all pairs; multiplicities multiply.
    pub fn join<W: Data>(self, other: Flow<'s, (K, W)>) -> Flow<'s, (K, (V, W))> {
        let graph = self.graph.clone();
        let pairs = self.pairs(other, |key, left, right| (key.clone(), (left.clone(), right.clone())));
        Flow::new(graph, pairs.as_collection())
    }

    /// A row made of each pair.
    pub fn join_map<W: Data, D: Data>(self, other: Flow<'s, (K, W)>, logic: impl Fn(&K, &V, &W) -> D + 'static) -> Flow<'s, D> {
        let graph = self.graph.clone();
        let mut guard = graph.guard("join_map");
        let outcomes = self.pairs(other, move |key, left, right| {
            attempt(|| Ok(logic(key, left, right))).map_err(|message| Box::new(guard.row(message, &(key, left, right))))
        });
        Flow::new(graph.clone(), settle(&graph, outcomes).as_collection())
    }

    /// What `pair` makes of each pair of rows; it must not panic.
    fn pairs<W: Data, D: Ord + Clone + Debug + 'static>(
        self,
        other: Flow<'s, (K, W)>,
        mut pair: impl FnMut(&K, &V, &W) -> D + 'static,
    ) -> StreamVec<'s, u64, Update<D>> {
        let graph = self.graph;
        let left_slot = graph.slot::<K, V, Diff>("Join left");
        let right_slot = graph.slot::<K, W, Diff>("Join right");
        let keys: Rc<RefCell<Table<K, Sides<V, W>>>> = Rc::new(RefCell::new(table()));
        let (left_frozen, right_frozen) = (Rc::clone(&keys), Rc::clone(&keys));
        graph.freeze_by(&left_slot, move || {
            Run::from_rows(left_frozen.borrow_mut().iter_mut().flat_map(|(key, sides)| sides.left.take(key)))
        });
        graph.freeze_by(&right_slot, move || {
            Run::from_rows(right_frozen.borrow_mut().iter_mut().flat_map(|(key, sides)| sides.right.take(key)))
        });

        let mut left_base = Lookup::new(&left_slot.base);
        let mut right_base = Lookup::new(&right_slot.base);
        let (left, right) = (place(self.changes.inner), place(other.changes.inner));
        let scope = left.scope();
        left.binary_frontier(right, Pipeline, Pipeline, "Join", move |capability, info| {
            drop(capability);
            let mut pending: InOrder<K, (Vec<(V, Diff)>, Vec<(W, Diff)>)> = InOrder::new(scope.activator_for(info.address));
            move |(left, left_frontier), (right, right_frontier), output| {
                left.for_each_stamp(|stamp, containers| {
                    let Some(capability) = stamp.retain_least(0) else { return };
                    for ((key, val), tick, diff) in containers.flat_map(|updates| updates.drain(..)) {
                        pending.at(tick, &capability).entry(key).or_default().0.push((val, diff));
                    }
                });
                right.for_each_stamp(|stamp, containers| {
                    let Some(capability) = stamp.retain_least(0) else { return };
                    for ((key, val), tick, diff) in containers.flat_map(|updates| updates.drain(..)) {
                        pending.at(tick, &capability).entry(key).or_default().1.push((val, diff));
                    }
                });
                let frontiers = [left_frontier.frontier(), right_frontier.frontier()];
                let mut keys = keys.borrow_mut();
                pending.work_off(&frontiers, output, |key, (mut lefts, mut rights), made| {
                    consolidate(&mut lefts);
                    consolidate(&mut rights);
                    let mut join = |left: &V, right: &W, times| made.push((pair(&key, left, right), times));
                    if !lefts.is_empty() {
                        let base = right_base.rows(&key);
                        lefts.iter().for_each(|(left, n)| base.iter().for_each(|(right, m)| join(left, right, n * m)));
                    }
                    if !rights.is_empty() {
                        let base = left_base.rows(&key);
                        rights.iter().for_each(|(right, m)| base.iter().for_each(|(left, n)| join(left, right, n * m)));
                    }
                    let known = keys.entry_ref(&key).or_default();
                    for (left, n) in &lefts {
                        known.right.rows.iter().for_each(|(right, m)| join(left, right, n * m));
                    }
                    known.left.add(lefts);
                    for (right, m) in &rights {
                        known.left.rows.iter().for_each(|(left, n)| join(left, right, n * m));
                    }
                    known.right.add(rights);
                    if known.left.rows.is_empty() && known.right.rows.is_empty() {
                        keys.remove(&key);
                    }
                    consolidate(made);
                });
            }
        })
    }
}

/// The changes of both sides of a key.
struct Sides<V, W> {
    left: Side<V>,
    right: Side<W>,
}

impl<V, W> Default for Sides<V, W> {
    fn default() -> Self {
        Self { left: Side::default(), right: Side::default() }
    }
}

/// Changes of one side of a key. The last may be of rows that are there already: they are added up when there are as many
/// of them as of the others, so that a change costs logarithmic time in a large group.
struct Side<V> {
    rows: Vec<(V, Diff)>,
    consolidated: usize,
}

impl<V> Default for Side<V> {
    fn default() -> Self {
        Self { rows: Vec::new(), consolidated: 0 }
    }
}

impl<V: Ord> Side<V> {
    fn add(&mut self, changes: Vec<(V, Diff)>) {
        if changes.is_empty() {
            return;
        }
        if self.rows.is_empty() {
            self.rows = changes;
            self.consolidated = self.rows.len();
            return;
        }
        self.rows.extend(changes);
        // 8: below that, sorting costs less than joining rows that cancel.
        if self.rows.len() >= 2 * self.consolidated || self.rows.len() <= 8 {
            consolidate(&mut self.rows);
            self.consolidated = self.rows.len();
        }
    }

    fn take<K: Clone>(&mut self, key: &K) -> impl Iterator<Item = (K, V, Diff)> + use<K, V> {
        let key = key.clone();
        std::mem::take(self).rows.into_iter().map(move |(val, n)| (key.clone(), val, n))
    }
}
