//! Reduce: any function of a key's rows.
//!
//! **Law.** When a change first touches a key, the key's rows in the base's run are brought in, and the function is applied
//! to them: those results are what the base already holds. From then on the table has base plus changes, and each output is
//! the results after a tick minus those before it. Keys never touched contribute nothing, as they should: their results are
//! the base's.
//! **State.** A hash table of the keys touched since the base, with their rows and results. A key whose rows are all gone
//! stays in it, since its base rows must be accounted for when freezing.
//! **Cost.** One call of the function for each touched key and tick, over all of the key's rows; one look-up into the base's
//! runs for each key, once.
//!
//! Differential's own reduce does the same over arrangements, for partially ordered times. Ticks are totally ordered, and at
//! small epochs a table that is changed in place costs a fraction of sorted batches that are merged.

use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::AsCollection;
use differential_dataflow::consolidation::consolidate;

use crate::runs::{Data, Lookup, Run};

use super::flow::{Diff, Flow, Table, place, table};
use super::in_order::by_key_in_order;
use super::quarantine::{Failure, Guard, attempt, settle};

/// A touched key: base plus changes, and what the function makes of them. Both are consolidated.
struct Group<V, W> {
    rows: Vec<(V, Diff)>,
    results: Results<W>,
}

/// What the function made of a key, or how it failed; its rows are then in quarantine as one.
type Results<W> = Result<Vec<(W, Diff)>, Box<Failure>>;

impl<'s, K: Data, V: Data> Flow<'s, (K, V)> {
    /// Replaces the rows of each key by what `logic` makes of them. It gets the key, its values in order with their
    /// multiplicities (never zero, never none at all), and adds `(value, multiplicity)` results. It must be a function:
    /// equal rows give equal results.
    pub fn reduce<W: Data>(self, logic: impl FnMut(&K, &[(&V, Diff)], &mut Vec<(W, Diff)>) + 'static) -> Flow<'s, (K, W)> {
        self.reduce_named("Reduce", logic)
    }

    /// [`Flow::reduce`] under a name that profiles show.
    pub fn reduce_named<W: Data>(
        self,
        name: &str,
        mut logic: impl FnMut(&K, &[(&V, Diff)], &mut Vec<(W, Diff)>) + 'static,
    ) -> Flow<'s, (K, W)> {
        let graph = self.graph;
        let mut guard = graph.guard(name);
        let slot = graph.slot::<K, V, Diff>(&format!("{name} to {}", std::any::type_name::<W>()));
        let groups: Rc<RefCell<Table<K, Group<V, W>>>> = Rc::new(RefCell::new(table()));

        let (frozen, base) = (Rc::clone(&groups), Arc::clone(&slot.base));
        graph.freeze_by(&slot, move || {
            // The table has the base's rows of its keys, the run must not.
            let mut base = Lookup::new(&base);
            let mut rows = Vec::new();
            for (key, group) in std::mem::take(&mut *frozen.borrow_mut()) {
                rows.extend(base.rows(&key).iter().map(|(val, n)| (key.clone(), val.clone(), -n)));
                rows.extend(group.rows.into_iter().map(|(val, n)| (key.clone(), val, n)));
            }
            Run::from_rows(rows)
        });

        let mut base = Lookup::new(&slot.base);
        let results = by_key_in_order(place(self.changes.inner), name, move |key: K, changes, made| {
            let mut groups = groups.borrow_mut();
            if !groups.contains_key(&key) {
                let rows = base.rows(&key).to_vec();
                let results = apply(&mut logic, &mut guard, &key, &rows);
                groups.insert(key.clone(), Group { rows, results });
            }
            let group = groups.get_mut(&key).expect("inserted above");
            change(&mut group.rows, changes);
            let results = apply(&mut logic, &mut guard, &key, &group.rows);
            let before = std::mem::replace(&mut group.results, results);
            if before != group.results {
                made.extend(outcomes(&key, before).map(|(outcome, n)| (outcome, -n)));
                made.extend(outcomes(&key, group.results.clone()));
                consolidate(made);
            }
        });
        Flow::new(graph.clone(), settle(&graph, results).as_collection())
    }
}

/// The results for a key's rows, consolidated; none for no rows.
fn apply<K: Debug, V, W: Ord>(
    logic: &mut impl FnMut(&K, &[(&V, Diff)], &mut Vec<(W, Diff)>),
    guard: &mut Guard,
    key: &K,
    rows: &[(V, Diff)],
) -> Results<W> {
    let mut results = Vec::new();
    if !rows.is_empty() {
        let lent: Vec<(&V, Diff)> = rows.iter().map(|(val, n)| (val, *n)).collect();
        let outcome = attempt(|| {
            logic(key, &lent, &mut results);
            Ok(())
        });
        outcome.map_err(|message| Box::new(guard.row(message, key)))?;
        consolidate(&mut results);
    }
    Ok(results)
}

fn outcomes<K: Clone, W>(key: &K, results: Results<W>) -> impl Iterator<Item = (Result<(K, W), Box<Failure>>, Diff)> {
    let (rows, failure) = match results {
        Ok(rows) => (rows, None),
        Err(failure) => (Vec::new(), Some(failure)),
    };
    rows.into_iter().map(|(row, n)| (Ok((key.clone(), row)), n)).chain(failure.map(|failure| (Err(failure), 1)))
}

/// Adds consolidated changes to consolidated rows.
fn change<V: Ord>(rows: &mut Vec<(V, Diff)>, changes: Vec<(V, Diff)>) {
    // Each insertion moves what is behind it; beyond a few, sorting once is cheaper.
    if changes.len() > 4 + rows.len() / 16 {
        rows.extend(changes);
        consolidate(rows);
        return;
    }
    for (val, n) in changes {
        match rows.binary_search_by(|(known, _)| known.cmp(&val)) {
            Ok(at) => {
                rows[at].1 += n;
                if rows[at].1 == 0 {
                    rows.remove(at);
                }
            }
            Err(at) => rows.insert(at, (val, n)),
        }
    }
}
