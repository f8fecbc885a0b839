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
use super::monoid::{Fold, Monoid};
use super::quarantine::{Graph, attempt, settle};

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

/// Follows the sum of each key. `logic` gets a key, its sum before (none if zero) and after, and adds row changes; it must
/// not panic. Updates must already be placed by key.
pub(crate) fn running<'s, K: Data, R: Change, D: Data>(
    graph: Graph<'s>,
    name: &str,
    changes: StreamVec<'s, u64, ((K, ()), u64, R)>,
    logic: impl FnMut(&K, Option<&R>, Option<&R>, &mut Vec<(D, Diff)>) + 'static,
) -> Flow<'s, D> {
    let rows = follow(&graph, name, changes, logic);
    Flow::new(graph, rows.as_collection())
}

fn follow<'s, K: Data, R: Change, D: Clone + 'static>(
    graph: &Graph<'s>,
    name: &str,
    changes: StreamVec<'s, u64, ((K, ()), u64, R)>,
    mut logic: impl FnMut(&K, Option<&R>, Option<&R>, &mut Vec<(D, Diff)>) + 'static,
) -> StreamVec<'s, u64, Update<D>> {
    let slot = graph.slot::<K, (), R>(name);
    let sums: Rc<RefCell<Table<K, Sums<R>>>> = Rc::new(RefCell::new(table()));
    let frozen = Rc::clone(&sums);
    graph.freeze_by(&slot, move || {
        Run::from_rows(std::mem::take(&mut *frozen.borrow_mut()).into_iter().filter_map(|(key, sums)| Some((key, (), sums.changes?))))
    });

    let mut base = Lookup::new(&slot.base);
    let scope = changes.scope();
    changes.unary_frontier(Pipeline, name, move |capability, info| {
        drop(capability);
        let mut pending: InOrder<K, R> = InOrder::new(scope.activator_for(info.address));
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
            let mut sums = sums.borrow_mut();
            pending.work_off(&[frontier.frontier()], output, |key, change, made| {
                if change.is_zero() {
                    return;
                }
                if !sums.contains_key(&key) {
                    let base = base.rows(&key).first().map(|((), sum)| sum.clone());
                    sums.insert(key.clone(), Sums { base, changes: None });
                }
                let known = sums.get_mut(&key).expect("inserted above");
                let before = known.total();
                known.add(change);
                logic(&key, before.as_ref(), known.total().as_ref(), made);
            });
        }
    })
}

impl<'s, K: Data, M: Monoid + Data> Aggregated<'s, K, M> {
    /// A row `(key, sum)` for each group, replaced whenever the sum changes.
    pub fn rows(self) -> Flow<'s, (K, M)> {
        running(self.graph, "Rows", self.changes.inner, |key, before: Option<&Fold<M>>, after: Option<&Fold<M>>, made| {
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
        running(self.graph, "Keys", self.changes.inner, |key, before: Option<&Fold<M>>, after, made| {
            if before.is_some() != after.is_some() {
                made.push((key.clone(), if after.is_some() { 1 } else { -1 }));
            }
        })
    }
}

impl<'s, D: Data> Flow<'s, D> {
    /// Replaces each row's multiplicity `n` by `logic(row, n)`; absent rows stay absent.
    pub fn threshold(self, mut logic: impl FnMut(&D, Diff) -> Diff + 'static) -> Flow<'s, D> {
        let mut guard = self.graph.guard("threshold");
        let placed = place(self.changes.map(|row| (row, ())).inner);
        let outcomes = follow(&self.graph, "Threshold", placed, move |row, before: Option<&Diff>, after: Option<&Diff>, made| {
            for (n, sign) in [(before, -1), (after, 1)].into_iter().filter_map(|(n, sign)| Some((*n?, sign))) {
                made.push(match attempt(|| Ok(logic(row, n))) {
                    Ok(times) => (Ok(row.clone()), sign * times),
                    Err(message) => (Err(Box::new(guard.row(message, row))), sign),
                });
            }
            // One change of the row where it was there before and is after.
            if let [(Ok(_), before), (Ok(_), after)] = &mut made[..] {
                *before += *after;
                made.truncate(1);
            }
            made.retain(|(_, times)| *times != 0);
        });
        Flow::new(self.graph.clone(), settle(&self.graph, outcomes).as_collection())
    }

    /// Each row once, if its multiplicity is positive.
    pub fn distinct(self) -> Flow<'s, D> {
        let placed = place(self.changes.map(|row| (row, ())).inner);
        running(self.graph, "Distinct", placed, |row, before: Option<&Diff>, after: Option<&Diff>, made| {
            let present = |n: Option<&Diff>| Diff::from(n.is_some_and(|n| *n > 0));
            let change = present(after) - present(before);
            if change != 0 {
                made.push((row.clone(), change));
            }
        })
    }

    /// A row `(row, n)` for each row with multiplicity `n`, if that is not zero.
    pub fn count(self) -> Flow<'s, (D, Diff)> {
        let placed = place(self.changes.map(|row| (row, ())).inner);
        running(self.graph, "Count", placed, |row, before: Option<&Diff>, after: Option<&Diff>, made| {
            made.extend(before.map(|n| ((row.clone(), *n), -1)));
            made.extend(after.map(|n| ((row.clone(), *n), 1)));
        })
    }
}
