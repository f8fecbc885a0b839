//! A flow: a collection of changes inside a dataflow. Linear operators live here.
//!
//! **Law.** A linear operator maps the changes of its input to the changes of its output one by one, so the base needs no
//! look: f(base + changes) = f(base) + f(changes). **State.** None. **Cost.** One call for each change.

use std::fmt::Display;
use std::hash::Hash;

use differential_dataflow::{AsCollection, VecCollection};
use timely::dataflow::StreamVec;
use timely::dataflow::operators::generic::Operator;

use crate::runs::{Change, Data, bucket};

use super::exchange::Route;
use super::quarantine::{Graph, Made, attempt, guarded};

/// Multiplicities of rows.
pub type Diff = isize;

/// One change of a row: the row, the tick, how many times it appears (or disappears, below zero).
pub type Update<D> = (D, u64, Diff);

/// A collection of changes since the base. `D` is the type of its rows.
pub struct Flow<'s, D: Data> {
    pub(crate) graph: Graph<'s>,
    pub(crate) changes: VecCollection<'s, u64, D, Diff>,
}

impl<D: Data> Clone for Flow<'_, D> {
    fn clone(&self) -> Self {
        Self { graph: self.graph.clone(), changes: self.changes.clone() }
    }
}

impl<'s, D: Data> Flow<'s, D> {
    pub(crate) fn new(graph: Graph<'s>, changes: VecCollection<'s, u64, D, Diff>) -> Self {
        Self { graph, changes }
    }

    /// Replaces each row. State: none. Cost: one call for each change.
    pub fn map<E: Data>(self, mut logic: impl FnMut(D) -> E + 'static) -> Flow<'s, E> {
        self.each("map", move |row, made| {
            made.push(logic(row), 1);
            Ok(())
        })
    }

    /// Replaces each row, or says why not; the reasons go into the view `errors`.
    pub fn try_map<E: Data, Error: Display>(self, mut logic: impl FnMut(D) -> Result<E, Error> + 'static) -> Flow<'s, E> {
        self.each("try_map", move |row, made| {
            made.push(logic(row).map_err(|error| error.to_string())?, 1);
            Ok(())
        })
    }

    /// Replaces each row by any number of rows.
    pub fn flat_map<E: Data, I: IntoIterator<Item = E>>(self, mut logic: impl FnMut(D) -> I + 'static) -> Flow<'s, E> {
        self.each("flat_map", move |row, made| {
            logic(row).into_iter().for_each(|row| made.push(row, 1));
            Ok(())
        })
    }

    /// Keeps the rows for which `keep` holds.
    pub fn filter(self, mut keep: impl FnMut(&D) -> bool + 'static) -> Self {
        self.each("filter", move |row, made| {
            if keep(&row) {
                made.push(row, 1);
            }
            Ok(())
        })
    }

    /// The rows of both flows; multiplicities add up.
    pub fn concat(self, other: Self) -> Self {
        Flow::new(self.graph, self.changes.concat(other.changes))
    }

    /// The same rows with opposite multiplicities.
    pub fn negate(self) -> Self {
        Flow::new(self.graph, self.changes.negate())
    }

    /// Replaces each row by rows with multiplicities: `(row, n)` counts n times for each time the input row does.
    pub fn explode<E: Data, I: IntoIterator<Item = (E, Diff)>>(self, mut logic: impl FnMut(D) -> I + 'static) -> Flow<'s, E> {
        self.each("explode", move |row, made| {
            logic(row).into_iter().for_each(|(row, times)| made.push(row, times));
            Ok(())
        })
    }

    /// The rows that `logic` makes of each row: all or none of a row's.
    pub(crate) fn each<E: Data>(
        self,
        name: &str,
        mut logic: impl FnMut(D, &mut Made<'_, E>) -> Result<(), String> + 'static,
    ) -> Flow<'s, E> {
        let mut guard = self.graph.guard(name);
        let rows = guarded(&self.graph, self.changes.inner, name, move |mut updates, made, failed| {
            let (mut whole, mut current) = (made.len(), None);
            loop {
                let outcome = attempt(|| {
                    for (row, time, diff) in updates.by_ref() {
                        current = Some((time, diff));
                        logic(row, &mut Made::new(made, time, diff))?;
                        whole = made.len();
                    }
                    Ok(())
                });
                match (outcome, current) {
                    (Err(message), Some((time, diff))) => {
                        made.truncate(whole);
                        failed.push((guard.consumed(message), time, diff));
                    }
                    _ => return,
                }
            }
        });
        Flow::new(self.graph, rows.as_collection())
    }

    /// Applies differential code that owes the linear law: what it makes of a sum of changes is the sum of what it makes
    /// of each. The type cannot check that; [`crate::testing::check_layers`] does.
    pub fn linear<E: Data>(self, logic: impl FnOnce(VecCollection<'s, u64, D, Diff>) -> VecCollection<'s, u64, E, Diff>) -> Flow<'s, E> {
        Flow::new(self.graph, logic(self.changes))
    }

    /// The changes since the base, for differential code that only observes.
    pub fn changes(&self) -> VecCollection<'s, u64, D, Diff> {
        self.changes.clone()
    }
}

/// Moves each update to the worker that owns its key's bucket, where the base's shard has the same keys. The only place at which
/// rows of our operators change workers: `opaque`, `iterate`, `graphs` and raw differential code use differential's own exchange.
pub(crate) fn place<'s, K: Data, V: Data, R: Change>(stream: StreamVec<'s, u64, ((K, V), u64, R)>) -> StreamVec<'s, u64, ((K, V), u64, R)> {
    if stream.scope().peers() == 1 {
        return stream;
    }
    stream.unary(Route(|((key, _), _, _): &((K, V), u64, R)| bucket(key)), "Place", |_, _| {
        |input, output| {
            input.for_each(|time, updates| output.session(&time).give_container(updates));
        }
    })
}

/// Hash map for state that never leaves the process.
pub(crate) type Table<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;

pub(crate) fn table<K: Eq + Hash, V>() -> Table<K, V> {
    hashbrown::HashMap::with_hasher(foldhash::fast::FixedState::default())
}
