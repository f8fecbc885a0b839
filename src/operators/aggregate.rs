//! Aggregates: a key and a monoid's value for each group.
//!
//! **Law.** Linear in the monoid: the sum over base and changes is the sum of both sums. Nothing is looked up.
//! **State.** None before the exchange but a table of the epoch's groups; after it, what the view or the next operator keeps.
//! **Cost.** One look-up in a hash table for each event, by the borrowed key. A group crosses the exchange once an epoch on
//! each worker, not once an event; that is where an aggregate beats counting rows.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Range;

use columnar::{Borrow, BorrowedOf, Clear, Columnar, Index, Push, Ref};
use differential_dataflow::difference::{IsZero, Semigroup};
use differential_dataflow::{AsCollection, VecCollection};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use crate::log::Event;
use crate::runs::Data;

use super::events::{Chunk, Events};
use super::flow::{Flow, Table, Update, place, table};
use super::monoid::{Abelian, Fold, Monoid};
use super::quarantine::{Failure, Graph, Guard, attempt, guarded};

/// Groups that a worker combines before it passes them on; bounds memory when an epoch has more groups than this.
/// 2^20 groups of a 50-byte key and two counters take about 100 MB.
pub const COMBINED_GROUPS_MAX: usize = 1 << 20;

/// Sums by key, as changes since the base.
pub struct Aggregated<'s, K: Data, M: Monoid> {
    pub(crate) graph: Graph<'s>,
    pub(crate) changes: VecCollection<'s, u64, (K, ()), Fold<M>>,
}

impl<K: Data, M: Monoid> Clone for Aggregated<'_, K, M> {
    fn clone(&self) -> Self {
        Self { graph: self.graph.clone(), changes: self.changes.clone() }
    }
}

/// A key as an event lends it: hashed and compared as it is, copied only when its group is new.
///
/// Strings are `&[u8]` or `&str`, integers are values, tuples are tuples of these; any owned key can be lent as `&K`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a borrowed form of the key `{K}`",
    label = "a group's key must be a `{K}`, as an event lends it",
    note = "`String` is lent as `&[u8]` or `&str`, an integer as its value (`*event.field`), a tuple as a tuple of these, any owned key as `&K`",
    note = "the key's type is the first parameter of `aggregate::<Key, Monoid>`"
)]
pub trait KeyRef<K: Columnar> {
    /// Feeds the key to a hasher. Forms of one key that feed differently are combined apart, and meet behind the exchange.
    fn feed<H: Hasher>(&self, hasher: &mut H);
    /// Whether it is the stored key.
    fn is(&self, stored: Ref<'_, K>) -> bool;
    /// Copies it into a column.
    fn store(self, column: &mut K::Container);
}

impl KeyRef<String> for &[u8] {
    fn feed<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(self);
        hasher.write_usize(self.len());
    }
    fn is(&self, stored: &[u8]) -> bool {
        *self == stored
    }
    fn store(self, column: &mut <String as Columnar>::Container) {
        column.push(self);
    }
}

impl KeyRef<String> for &str {
    fn feed<H: Hasher>(&self, hasher: &mut H) {
        KeyRef::<String>::feed(&self.as_bytes(), hasher);
    }
    fn is(&self, stored: &[u8]) -> bool {
        self.as_bytes() == stored
    }
    fn store(self, column: &mut <String as Columnar>::Container) {
        column.push(self);
    }
}

/// Any owned key.
impl<K: Data> KeyRef<K> for &K {
    fn feed<H: Hasher>(&self, hasher: &mut H) {
        self.hash(hasher);
    }
    fn is(&self, stored: Ref<'_, K>) -> bool {
        **self == K::into_owned(stored)
    }
    fn store(self, column: &mut K::Container) {
        Push::<&K>::push(column, self);
    }
}

macro_rules! integer_key {
    ($($integer:ty),+) => {$(
        impl KeyRef<$integer> for $integer {
            fn feed<H: Hasher>(&self, hasher: &mut H) {
                self.hash(hasher);
            }
            fn is(&self, stored: Ref<'_, $integer>) -> bool {
                *self == <$integer>::into_owned(stored)
            }
            fn store(self, column: &mut <$integer as Columnar>::Container) {
                Push::<&$integer>::push(column, &self);
            }
        }
    )+};
}
integer_key!(u8, u16, u32, u64, i8, i16, i32, i64, bool);

macro_rules! tuple_key {
    ($($lent:ident $key:ident $index:tt),+) => {
        impl<$($key: Columnar, $lent: KeyRef<$key>),+> KeyRef<($($key,)+)> for ($($lent,)+) {
            fn feed<H_: Hasher>(&self, hasher: &mut H_) {
                $(self.$index.feed(hasher);)+
            }
            fn is(&self, stored: Ref<'_, ($($key,)+)>) -> bool {
                $(self.$index.is(stored.$index))&&+
            }
            fn store(self, column: &mut <($($key,)+) as Columnar>::Container) {
                $(self.$index.store(&mut column.$index);)+
            }
        }
    };
}
tuple_key!(A KA 0, B KB 1);
tuple_key!(A KA 0, B KB 1, C KC 2);
tuple_key!(A KA 0, B KB 1, C KC 2, D KD 3);

/// Collects the groups of one epoch. An author's closure adds to it.
pub struct Groups<K: Data, M: Monoid> {
    /// The sum stands in the slot, since it is needed whenever the slot is; the key is elsewhere.
    slots: HashTable<Group<M>>,
    keys: K::Container,
    /// By group, for when the table grows.
    hashes: Vec<u64>,
    state: FixedState,
}

struct Group<M> {
    at: u32,
    sum: Fold<M>,
}

impl<K: Data, M: Monoid> Default for Groups<K, M> {
    fn default() -> Self {
        Self { slots: HashTable::new(), keys: Default::default(), hashes: Vec::new(), state: FixedState::default() }
    }
}

impl<K: Data, M: Monoid> Groups<K, M> {
    /// Adds a value to a key's group.
    #[inline]
    pub fn add<Q: KeyRef<K>>(&mut self, key: Q, value: M) {
        let mut hasher = self.state.build_hasher();
        key.feed(&mut hasher);
        let hash = hasher.finish();
        let keys = self.keys.borrow();
        match self.slots.find_mut(hash, |group| key.is(keys.get(group.at as usize))) {
            Some(Group { sum, .. }) => {
                sum.0 += 1;
                sum.1.plus_equals(&value);
            }
            None => self.insert(hash, key, value),
        }
    }

    #[cold]
    fn insert<Q: KeyRef<K>>(&mut self, hash: u64, key: Q, value: M) {
        let at = self.hashes.len() as u32;
        key.store(&mut self.keys);
        self.hashes.push(hash);
        let hashes = &self.hashes;
        self.slots.insert_unique(hash, Group { at, sum: (1, value) }, |group| hashes[group.at as usize]);
    }

    fn len(&self) -> usize {
        self.slots.len()
    }

    fn clear(&mut self) {
        self.slots.clear();
        self.keys.clear();
        self.hashes.clear();
    }

    /// The groups so far; starts again with none.
    fn take(&mut self) -> impl Iterator<Item = (K, Fold<M>)> + use<K, M> {
        let Self { slots, keys, .. } = std::mem::take(self);
        slots.into_iter().map(move |Group { at, sum }| (K::into_owned(keys.borrow().get(at as usize)), sum))
    }
}

/// The groups of one epoch, and what they were made of until code first failed.
///
/// A sum cannot give back what half an event added. So when the code fails, the groups are made again from the start, each
/// event tried on its own before it is added: a failure costs a second pass over what was combined, and the rest of the
/// epoch two calls for each event. Epochs without failures pay for remembering blocks, which are mapped.
struct Combined<E: Event, K: Data, M: Monoid> {
    groups: Groups<K, M>,
    made_of: Vec<(Chunk<E>, Range<usize>)>,
    failures: Vec<Failure>,
    failed: bool,
}

impl<E: Event, K: Data, M: Monoid> Default for Combined<E, K, M> {
    fn default() -> Self {
        Self { groups: Groups::default(), made_of: Vec::new(), failures: Vec::new(), failed: false }
    }
}

impl<E: Event, K: Data, M: Monoid> Combined<E, K, M> {
    fn add(
        &mut self,
        chunk: &Chunk<E>,
        rows: Range<usize>,
        logic: &mut impl FnMut(&BorrowedOf<'_, E>, usize, &mut Groups<K, M>) -> Result<(), String>,
        guard: &mut Guard,
        scratch: &mut Groups<K, M>,
    ) {
        self.made_of.push((chunk.clone(), rows.clone()));
        if !self.failed {
            let columns = chunk.columns();
            let groups = &mut self.groups;
            if attempt(|| rows.into_iter().try_for_each(|row| logic(&columns, row, groups))).is_ok() {
                return;
            }
            self.failed = true;
            self.groups.clear();
        }
        for (chunk, rows) in self.made_of.drain(..) {
            let columns = chunk.columns();
            for row in rows {
                scratch.clear();
                let tried = attempt(|| logic(&columns, row, scratch));
                // Code that fails only the second time is no function of the event; there is nothing to fall back on.
                let added = tried.and_then(|()| logic(&columns, row, &mut self.groups));
                if let Err(message) = added {
                    self.failures.push(guard.event(message, chunk.block(), row));
                }
            }
        }
    }

    fn emit(&mut self, sums: &mut Session<'_, '_, Summed<K, M>>, errors: &mut Session<'_, '_, Update<Failure>>, time: u64) {
        let Self { mut groups, failures, .. } = std::mem::take(self);
        sums.give_iterator(groups.take().map(|(key, sum)| ((key, ()), time, sum)));
        errors.give_iterator(failures.into_iter().map(|failure| (failure, time, 1)));
    }
}

type Summed<K, M> = ((K, ()), u64, Fold<M>);
type Session<'a, 'b, D> =
    timely::dataflow::operators::generic::Session<'a, 'b, u64, timely::container::CapacityContainerBuilder<Vec<D>>, Capability<u64>>;

impl<'s, E: Event> Events<'s, E> {
    /// Sums by key. The closure adds any number of `(key, value)` for an event, by borrowed key.
    ///
    /// ```
    /// # use lambdaflow::prelude::*;
    /// # #[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
    /// # struct Request { at: u64, path: String, bytes: u64 }
    /// # impl Event for Request { const NAME: &'static str = "Request"; const VERSION: u32 = 1; const FIELDS: &'static [&'static str] = &[]; }
    /// fn traffic(requests: Events<'_, Request>, views: &mut Views) {
    ///     // Hits and bytes by path and hour; `r.path` is borrowed, the hour is computed.
    ///     let hits = requests.aggregate::<(String, u64), (Count, Sum)>(|r, groups| {
    ///         groups.add((r.path, *r.at - *r.at % 3_600), (Count::one(), Sum::of(*r.bytes)))
    ///     });
    ///     views.publish("hits", hits).key(&["path", "hour"]).value(&["hits", "bytes"]);
    /// }
    /// # let events = vec![(Tick(1), Request { at: 7_201, path: "/".into(), bytes: 5 })];
    /// # let answers = lambdaflow::testing::answers_after_cuts(traffic, &events, &[], 1, 1);
    /// # assert_eq!(answers["hits"][0].key, serde_json::json!(["/", 7_200]));
    /// ```
    pub fn aggregate<K: Data, M: Monoid>(self, mut logic: impl FnMut(Ref<'_, E>, &mut Groups<K, M>) + 'static) -> Aggregated<'s, K, M> {
        self.aggregate_columns(move |columns, row, groups| logic(columns.get(row), groups))
    }

    /// [`Events::aggregate`] for events with many fields: the closure gets the columns and the number of an event's row,
    /// and reads only the columns it names. A borrowed event has all fields looked up.
    ///
    /// ```
    /// # use lambdaflow::prelude::*;
    /// # use columnar::Index;
    /// # #[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
    /// # struct Request { at: u64, path: String, bytes: u64 }
    /// # impl Event for Request { const NAME: &'static str = "Request"; const VERSION: u32 = 1; const FIELDS: &'static [&'static str] = &[]; }
    /// fn traffic(requests: Events<'_, Request>, views: &mut Views) {
    ///     let hits = requests.aggregate_columns::<String, Count>(|requests, row, groups| groups.add(requests.path.get(row), Count::one()));
    ///     views.publish("hits", hits);
    /// }
    /// # let events = vec![(Tick(1), Request { at: 7_201, path: "/".into(), bytes: 5 })];
    /// # let answers = lambdaflow::testing::answers_after_cuts(traffic, &events, &[], 1, 1);
    /// # assert_eq!(answers["hits"][0].key, "/");
    /// ```
    pub fn aggregate_columns<K: Data, M: Monoid>(
        self,
        mut logic: impl FnMut(&BorrowedOf<'_, E>, usize, &mut Groups<K, M>) + 'static,
    ) -> Aggregated<'s, K, M> {
        self.combine("aggregate", move |columns, row, groups| {
            logic(columns, row, groups);
            Ok(())
        })
    }

    /// [`Events::aggregate`] with events that cannot be taken: the reason goes into the view `errors` with the event's
    /// partition, tick and offset, and nothing of the event is added.
    pub fn try_aggregate<K: Data, M: Monoid, Error: Display>(
        self,
        mut logic: impl FnMut(Ref<'_, E>, &mut Groups<K, M>) -> Result<(), Error> + 'static,
    ) -> Aggregated<'s, K, M> {
        self.combine("try_aggregate", move |columns, row, groups| logic(columns.get(row), groups).map_err(|error| error.to_string()))
    }

    fn combine<K: Data, M: Monoid>(
        self,
        name: &str,
        mut logic: impl FnMut(&BorrowedOf<'_, E>, usize, &mut Groups<K, M>) -> Result<(), String> + 'static,
    ) -> Aggregated<'s, K, M> {
        let mut guard = self.graph.guard(name);
        let one_epoch = self.graph.freezes();
        let mut builder = OperatorBuilder::new("Combine".to_owned(), self.chunks.scope());
        let mut input = builder.new_input(self.chunks, Pipeline);
        let (sums, sums_stream) = builder.new_output();
        let (errors, errors_stream) = builder.new_output();
        let (mut sums, mut errors) = (OutputBuilder::from(sums), OutputBuilder::from(errors));
        builder.build(move |_| {
            let mut held: BTreeMap<u64, (Capability<u64>, Capability<u64>, Combined<E, K, M>)> = BTreeMap::new();
            let mut scratch = Groups::default();
            move |frontiers| {
                let (mut sums, mut errors) = (sums.activate(), errors.activate());
                input.for_each_stamp(|stamp, containers| {
                    for chunk in containers.flat_map(|chunks| chunks.drain(..)) {
                        for (time, rows) in chunk.runs() {
                            let (sums_at, errors_at, combined) =
                                held.entry(time).or_insert_with(|| (stamp.delayed(&time, 0), stamp.delayed(&time, 1), Combined::default()));
                            combined.add(&chunk, rows, &mut logic, &mut guard, &mut scratch);
                            if combined.groups.len() >= COMBINED_GROUPS_MAX {
                                combined.emit(&mut sums.session(sums_at), &mut errors.session(errors_at), time);
                            }
                        }
                    }
                });
                // In one large epoch combining pays until the end; in small ones waiting only costs latency.
                held.retain(|time, (sums_at, errors_at, combined)| {
                    let done = !one_epoch || !frontiers[0].frontier().less_equal(time);
                    if done {
                        combined.emit(&mut sums.session(sums_at), &mut errors.session(errors_at), *time);
                    }
                    !done
                });
            }
        });
        self.graph.quarantine(errors_stream);
        Aggregated { graph: self.graph, changes: place(sums_stream).as_collection() }
    }
}

impl<'s, K: Data, T: Data> Flow<'s, (K, T)> {
    /// Sums by key over rows that may be retracted. Each row's value counts as often as the row does.
    pub fn aggregate<M: Abelian>(self, mut logic: impl FnMut(&T) -> M + 'static) -> Aggregated<'s, K, M> {
        let mut guard = self.graph.guard("aggregate");
        let mut groups: Table<(K, u64), Fold<M>> = table();
        let combined = guarded(&self.graph, self.changes.inner, "Combine", move |updates, combined, failed| {
            for ((key, row), time, diff) in updates {
                match attempt(|| Ok(logic(&row).times(diff))) {
                    Ok(value) => {
                        let sum = groups.entry((key, time));
                        sum.and_modify(|sum| sum.plus_equals(&(diff, value.clone()))).or_insert((diff, value));
                    }
                    Err(message) => failed.push((guard.row(message, &(key, row)), time, diff)),
                }
            }
            let groups = groups.drain().filter(|(_, sum)| !sum.is_zero());
            Extend::extend(combined, groups.map(|((key, time), sum)| ((key, ()), time, sum)));
        });
        Aggregated { graph: self.graph, changes: place(combined).as_collection() }
    }
}
