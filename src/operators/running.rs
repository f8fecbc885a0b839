//! Running values: rows that follow a group's sum as it changes. `count`, `distinct` and `threshold` are made of it.
//!
//! **Law.** The sum of a key is brought in from the base when a change first touches the key; from then on the table holds
//! base plus changes, and each output is the row of the sum after minus the row of the sum before. Before the first change
//! both are the base's, so the outputs are changes relative to the base's rows.
//! **State.** A hash table of the keys touched since the base, with their sums.
//! **Cost.** One table look-up and at most two rows for each key and tick at which its sum changes; one look-up into the
//! base's runs for each key, once.

use std::cell::RefCell;
use std::rc::Rc;

use differential_dataflow::AsCollection;
use differential_dataflow::difference::Semigroup;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::runs::{Change, Data, Lookup, Run};

use super::aggregate::Aggregated;
use super::flow::{Diff, Flow, Table, Update, place, table};
use super::in_order::InOrder;
use super::layer::Layer;
use super::monoid::{Fold, Monoid};

/// What is known of a touched key.
struct Sums<R> {
    base: Option<R>,
    changes: Option<R>,
}

impl<R: Semigroup> Sums<R> {
    fn total(&self) -> Option<R> {
        let total = match (&self.base, &self.changes) {
            (Some(base), Some(changes)) => {
                let mut total = base.clone();
                total.plus_equals(changes);
                Some(total)
            }
            (one, other) => one.clone().or_else(|| other.clone()),
        };
        total.filter(|total| !total.is_zero())
    }

    fn add(&mut self, change: R) {
        match &mut self.changes {
            Some(changes) => changes.plus_equals(&change),
            None => self.changes = Some(change),
        }
    }
}

/// Follows the sum of each key. `logic` gets a key, its sum before (none if zero) and after, and adds row changes.
/// Updates must already be placed by key.
pub(crate) fn running<'s, K: Data, R: Change, D: Data>(
    layer: Layer,
    name: &str,
    changes: StreamVec<'s, u64, ((K, ()), u64, R)>,
    mut logic: impl FnMut(&K, Option<&R>, Option<&R>, &mut Vec<(D, Diff)>) + 'static,
) -> Flow<'s, D> {
    let slot = layer.slot::<K, (), R>(name);
    let sums: Rc<RefCell<Table<K, Sums<R>>>> = Rc::new(RefCell::new(table()));
    let frozen = Rc::clone(&sums);
    layer.freeze_by(&slot, move || {
        Run::from_rows(std::mem::take(&mut *frozen.borrow_mut()).into_iter().filter_map(|(key, sums)| Some((key, (), sums.changes?))))
    });

    let mut base = Lookup::new(&slot.base);
    let rows = changes.unary_frontier(Pipeline, name, move |capability, _| {
        drop(capability);
        let mut pending: InOrder<K, R> = InOrder::default();
        let mut made: Vec<(D, Diff)> = Vec::new();
        move |(input, frontier), output| {
            input.for_each_stamp(|stamp, containers| {
                let Some(capability) = stamp.retain_least(0) else {
                    return;
                };
                for ((key, ()), time, change) in containers.flat_map(|updates| updates.drain(..)) {
                    match pending.at(time, &capability).entry(key) {
                        hashbrown::hash_map::Entry::Occupied(mut sum) => sum.get_mut().plus_equals(&change),
                        hashbrown::hash_map::Entry::Vacant(none) => {
                            none.insert(change);
                        }
                    }
                }
            });
            while let Some((time, capability, changed)) = pending.next_complete(frontier.frontier()) {
                let mut session = output.session(&capability);
                let mut sums = sums.borrow_mut();
                for (key, change) in changed {
                    if change.is_zero() {
                        continue;
                    }
                    if !sums.contains_key(&key) {
                        let base = base.rows(&key).first().map(|((), sum)| sum.clone());
                        sums.insert(key.clone(), Sums { base, changes: None });
                    }
                    let known = sums.get_mut(&key).expect("inserted above");
                    let before = known.total();
                    known.add(change);
                    logic(&key, before.as_ref(), known.total().as_ref(), &mut made);
                    session.give_iterator(made.drain(..).map(|(row, diff)| -> Update<D> { (row, time, diff) }));
                }
            }
        }
    });
    Flow::new(layer, rows.as_collection())
}

impl<'s, K: Data, M: Monoid + Data> Aggregated<'s, K, M> {
    /// A row `(key, sum)` for each group, replaced whenever the sum changes.
    pub fn rows(self) -> Flow<'s, (K, M)> {
        running(self.layer, "Rows", self.changes.inner, |key, before: Option<&Fold<M>>, after: Option<&Fold<M>>, made| {
            if before.map(|sum| &sum.1) != after.map(|sum| &sum.1) {
                made.extend(before.map(|sum| ((key.clone(), sum.1.clone()), -1)));
                made.extend(after.map(|sum| ((key.clone(), sum.1.clone()), 1)));
            }
        })
    }
}

impl<'s, K: Data, M: Monoid> Aggregated<'s, K, M> {
    /// A row for each group that has records.
    pub fn keys(self) -> Flow<'s, K> {
        running(self.layer, "Keys", self.changes.inner, |key, before: Option<&Fold<M>>, after, made| {
            if before.is_some() != after.is_some() {
                made.push((key.clone(), if after.is_some() { 1 } else { -1 }));
            }
        })
    }
}

impl<'s, D: Data> Flow<'s, D> {
    /// Replaces each row's multiplicity `n` by `logic(row, n)`; absent rows stay absent.
    pub fn threshold(self, mut logic: impl FnMut(&D, Diff) -> Diff + 'static) -> Flow<'s, D> {
        self.threshold_named("Threshold", move |row, n| logic(row, n))
    }

    /// Each row once, if its multiplicity is positive.
    pub fn distinct(self) -> Flow<'s, D> {
        self.threshold_named("Distinct", |_, n| Diff::from(n > 0))
    }

    fn threshold_named(self, name: &str, mut logic: impl FnMut(&D, Diff) -> Diff + 'static) -> Flow<'s, D> {
        let placed = place(self.changes.map(|row| (row, ())).inner);
        running(self.layer, name, placed, move |row, before, after, made| {
            let mut apply = |n: Option<&Diff>| n.map_or(0, |n| logic(row, *n));
            let change = apply(after) - apply(before);
            if change != 0 {
                made.push((row.clone(), change));
            }
        })
    }

    /// A row `(row, n)` for each row with multiplicity `n`, if that is not zero.
    pub fn count(self) -> Flow<'s, (D, Diff)> {
        let placed = place(self.changes.map(|row| (row, ())).inner);
        running(self.layer, "Count", placed, |row, before: Option<&Diff>, after: Option<&Diff>, made| {
            made.extend(before.map(|n| ((row.clone(), *n), -1)));
            made.extend(after.map(|n| ((row.clone(), *n), 1)));
        })
    }
}
