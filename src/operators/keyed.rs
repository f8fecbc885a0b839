//! Keyed operators of an author's own: state for each key, kept by the author's code, that survives freezing.
//!
//! **Law.** The author owes it: a key's state must be a function of the key's rows alone, whatever the order in which they
//! came and however they were grouped into changes, and the state of no rows is `State::default()`. Then a key's state can be
//! brought in from the base when a change first touches it, and each output is the results of the state after a tick minus
//! those of the state before. The type cannot check it; [`crate::testing::check_layers`] does.
//! **State.** A hash table of the keys touched since the base, with their states; keys that are as if never seen are forgotten. A generation keeps a state for each key, not
//! the rows: that is what a keyed operator is for, where [`Flow::reduce`] would keep all rows.
//! **Cost.** For each touched key and tick one update with the tick's changes and two calls for results; one look-up into the
//! base for each key, once.

use std::cell::RefCell;
use std::rc::Rc;

use differential_dataflow::AsCollection;
use differential_dataflow::consolidation::consolidate;

use crate::runs::{Data, Lookup, Run};

use super::flow::{Diff, Flow, Table, place, table};
use super::in_order::by_key_in_order;
use super::quarantine::{Failure, Guard, attempt, settle};

/// A keyed operator of an author's own, for [`Flow::keyed`].
///
/// `update(update(s, a), b)` must be `update(s, a + b)`, and taking back what was added must give the state before.
///
/// ```
/// use lambdaflow::prelude::*;
///
/// /// How far apart the least and the greatest reading of each sensor are, over a bounded number of bins.
/// struct Spread;
/// impl Keyed for Spread {
///     type Key = String;
///     type Row = u64;
///     /// Readings in each bin of ten; bins without readings are not in it, so that no rows are the default.
///     type State = Vec<(u64, i64)>;
///     type Out = u64;
///
///     fn update(&mut self, _: &String, bins: &mut Self::State, changes: &[(u64, Diff)]) {
///         for (reading, n) in changes {
///             match bins.binary_search_by_key(&(reading / 10), |(bin, _)| *bin) {
///                 Ok(at) => bins[at].1 += *n as i64,
///                 Err(at) => bins.insert(at, (reading / 10, *n as i64)),
///             }
///         }
///         bins.retain(|(_, readings)| *readings != 0);
///     }
///
///     fn results(&mut self, _: &String, bins: &Self::State, out: &mut Vec<(u64, Diff)>) {
///         if let (Some((least, _)), Some((greatest, _))) = (bins.first(), bins.last()) {
///             out.push((10 * (greatest - least), 1));
///         }
///     }
/// }
/// # fn spread(readings: Flow<'_, (String, u64)>, views: &mut Views) {
/// views.publish("spread", readings.keyed("Spread", Spread));
/// # }
/// ```
pub trait Keyed: 'static {
    /// What state is kept by.
    type Key: Data;
    /// The other part of an input row.
    type Row: Data;
    /// What is kept for a key; the default is that of no rows.
    type State: Data + Default;
    /// The other part of an output row.
    type Out: Data;

    /// Adds changes of the key's rows to its state. There is at least one, none is zero, each row comes once.
    ///
    /// A panic here is not quarantined, since it may leave the state half changed: it fails the batch, or ends the process.
    fn update(&mut self, key: &Self::Key, state: &mut Self::State, changes: &[(Self::Row, Diff)]);

    /// Adds the output rows that a state stands for, with their multiplicities. It is a function of key and state, and not
    /// called for the default, which has none. If it panics, the key has an error in place of rows, until its state changes.
    fn results(&mut self, key: &Self::Key, state: &Self::State, out: &mut Vec<(Self::Out, Diff)>);
}

/// States of a touched key.
struct States<S> {
    base: S,
    now: S,
}

impl<'s, K: Data, V: Data> Flow<'s, (K, V)> {
    /// Runs a keyed operator of an author's own, under a name that profiles show.
    pub fn keyed<O: Keyed<Key = K, Row = V>>(self, name: &str, mut operator: O) -> Flow<'s, (K, O::Out)> {
        let graph = self.graph;
        let slot = graph.slot::<K, O::State, Diff>(name);
        let keys: Rc<RefCell<Table<K, States<O::State>>>> = Rc::new(RefCell::new(table()));
        let frozen = Rc::clone(&keys);
        graph.freeze_by(&slot, move || {
            let keys = std::mem::take(&mut *frozen.borrow_mut());
            Run::from_rows(keys.into_iter().flat_map(|(key, States { base, now })| {
                let kept = [(base, -1), (now, 1)].into_iter().filter(|(state, _)| *state != O::State::default());
                kept.map(move |(state, n)| (key.clone(), state, n))
            }))
        });

        let mut base = Lookup::new(&slot.base);
        let mut guard = graph.guard(name);
        let outcomes = by_key_in_order(place(self.changes.inner), name, move |key: K, changes, made| {
            let mut keys = keys.borrow_mut();
            if !keys.contains_key(&key) {
                let base = base.rows(&key).first().map_or_else(O::State::default, |(state, _)| state.clone());
                keys.insert(key.clone(), States { now: base.clone(), base });
            }
            let states = keys.get_mut(&key).expect("inserted above");
            let state = &mut states.now;
            made.extend(results(&mut operator, &mut guard, &key, state).map(|(outcome, n)| (outcome, -n)));
            operator.update(&key, state, &changes);
            made.extend(results(&mut operator, &mut guard, &key, state));
            consolidate(made);
            if states.base == states.now && states.now == O::State::default() {
                keys.remove(&key);
            }
        });
        Flow::new(graph.clone(), settle(&graph, outcomes).as_collection())
    }
}

/// The output rows of a state, or how the author's code failed on it.
fn results<O: Keyed>(operator: &mut O, guard: &mut Guard, key: &O::Key, state: &O::State) -> impl Iterator<Item = Outcome<O>> + use<O> {
    let mut rows = Vec::new();
    let outcome = match *state == O::State::default() {
        true => Ok(()),
        false => attempt(|| {
            operator.results(key, state, &mut rows);
            Ok(())
        }),
    };
    let failure = outcome.err().map(|message| {
        rows.clear();
        (Err(Box::new(guard.row(message, key))), 1)
    });
    let key = key.clone();
    rows.into_iter().map(move |(row, n)| (Ok((key.clone(), row)), n)).chain(failure)
}

type Outcome<O> = (Result<(<O as Keyed>::Key, <O as Keyed>::Out), Box<Failure>>, Diff);
