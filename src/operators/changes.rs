//! Tables from streams of changes: upserts, inserts with updates and deletes, and copies that must count once.
//!
//! **Law.** What a key holds follows from the set of its changes, by an order that the changes carry: not from the order in
//! which they came, which nobody promises across partitions, retries and late arrivals. On events each is an aggregate by a
//! monoid that only grows; on flows a reduction.

use columnar::Ref;

use crate::log::Event;
use crate::runs::Data;

use super::aggregate::{Groups, KeyRef};
use super::events::Events;
use super::extremes::{Max, Min};
use super::flow::{Diff, Flow};
use super::monoid::Fold;
use super::running::running;

/// The last value of a key, with its order; none if it was deleted.
type Last<O, V> = Max<(O, Option<V>)>;

/// Takes the upserts that an author's closure finds in an event.
pub struct Upserts<'a, K: Data, O: Data, V: Data>(&'a mut Groups<K, Last<O, V>>);

impl<K: Data, O: Data, V: Data> Upserts<'_, K, O, V> {
    /// The key has this value, unless something with a greater order says otherwise.
    pub fn put(&mut self, key: impl KeyRef<K>, order: O, value: V) {
        self.0.add(key, Max::of((order, Some(value))));
    }

    /// The key has no value, unless something with a greater order says otherwise.
    pub fn delete(&mut self, key: impl KeyRef<K>, order: O) {
        self.0.add(key, Max::of((order, None)));
    }
}

impl<'s, E: Event> Events<'s, E> {
    /// A row `(key, value)` for each key: the value that was put with the greatest order, by the author's order (event time,
    /// a version, a sequence number of the source); none if that was a deletion. Of equal orders a value wins over a
    /// deletion, and the greater value over the less.
    ///
    /// **State.** One value and order for each touched key, deleted ones too: an older change may still come. **Cost.** One
    /// look-up by the borrowed key; two rows where the value changes.
    ///
    /// ```
    /// # use lambdaflow::prelude::*;
    /// # #[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
    /// # struct Profile { user: u64, version: u64, name: String, closed: bool }
    /// # impl Event for Profile { const NAME: &'static str = "Profile"; const VERSION: u32 = 1; const FIELDS: &'static [&'static str] = &[]; }
    /// fn names(profiles: Events<'_, Profile>, views: &mut Views) {
    ///     let names = profiles.upsert::<u64, u64, String>(|p, rows| match p.closed {
    ///         true => rows.delete(*p.user, *p.version),
    ///         false => rows.put(*p.user, *p.version, String::from_utf8_lossy(p.name).into_owned()),
    ///     });
    ///     views.publish("names", names).key(&["user"]).value(&["name"]);
    /// }
    /// # let profile = |user, version, name: &str, closed| (Tick(1), Profile { user, version, name: name.into(), closed });
    /// # let events = [profile(1, 2, "Ada", false), profile(1, 1, "A", false), profile(2, 1, "Bob", false), profile(2, 2, "", true)];
    /// # let answers = lambdaflow::testing::answers_after_cuts(names, &events, &[], 1, 1);
    /// # assert_eq!(answers["names"].len(), 1);
    /// # assert_eq!(answers["names"][0].value, "Ada");
    /// ```
    pub fn upsert<K: Data, O: Data, V: Data>(
        self,
        mut logic: impl FnMut(Ref<'_, E>, &mut Upserts<'_, K, O, V>) + 'static,
    ) -> Flow<'s, (K, V)> {
        let last = self.aggregate::<K, Last<O, V>>(move |event, groups| logic(event, &mut Upserts(groups)));
        running(last.graph, "Upsert", last.changes.inner, |key, before: Option<&Fold<Last<O, V>>>, after, made| {
            let value = |sum: Option<&Fold<Last<O, V>>>| -> Option<V> { sum?.1.get()?.1.clone() };
            let (before, after) = (value(before), value(after));
            if before != after {
                made.extend(before.map(|value| ((key.clone(), value), -1)));
                made.extend(after.map(|value| ((key.clone(), value), 1)));
            }
        })
    }

    /// One row `(id, row)` for each id, however often the event came: for sources that deliver more than once. Should copies
    /// of an id differ, the least row counts.
    ///
    /// **State.** One row for each touched id. **Cost.** One look-up by the borrowed id; rows where an id is new.
    ///
    /// ```
    /// # use lambdaflow::prelude::*;
    /// # #[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
    /// # struct Payment { id: u64, cents: i64 }
    /// # impl Event for Payment { const NAME: &'static str = "Payment"; const VERSION: u32 = 1; const FIELDS: &'static [&'static str] = &[]; }
    /// fn paid(payments: Events<'_, Payment>, views: &mut Views) {
    ///     let once = payments.deduplicate::<u64, i64>(|p, rows| rows.add(*p.id, Min::of(*p.cents)));
    ///     views.publish("paid", once.map(|(_id, cents)| ((), cents)).aggregate(|cents| Sum::of(*cents)));
    /// }
    /// # let events = [(1, 500), (2, 250), (1, 500)].map(|(id, cents)| (Tick(id), Payment { id, cents }));
    /// # let mut events = events.to_vec();
    /// # events.sort_by_key(|(tick, _)| *tick);
    /// # let answers = lambdaflow::testing::answers_after_cuts(paid, &events, &[], 1, 1);
    /// # assert_eq!(answers["paid"][0].value, 750);
    /// ```
    pub fn deduplicate<K: Data, V: Data>(self, logic: impl FnMut(Ref<'_, E>, &mut Groups<K, Min<V>>) + 'static) -> Flow<'s, (K, V)> {
        self.aggregate(logic).rows().flat_map(|(id, least)| Some((id, least.into_inner()?)))
    }

    /// The rows that a stream of changes leaves, of a source that sends the row before a change as well as the row after it
    /// (change data capture with full images). A source that sends keys and new values only is for [`Events::upsert`].
    ///
    /// **State.** None: a change is its rows with multiplicities. Order does not matter, but no change may be missing or come
    /// twice ([`Events::deduplicate`] by the source's position first). **Cost.** At most two rows.
    pub fn row_changes<D: Data, I: IntoIterator<Item = RowChange<D>>>(
        self,
        mut logic: impl FnMut(Ref<'_, E>) -> I + 'static,
    ) -> Flow<'s, D> {
        self.explode(move |event| logic(event).into_iter().flat_map(RowChange::updates))
    }
}

/// A change of a table by whole rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowChange<D> {
    /// A row appears.
    Insert(D),
    /// A row becomes another.
    Update {
        /// The row that was there.
        before: D,
        /// The row that is there now.
        after: D,
    },
    /// A row disappears.
    Delete(D),
}

impl<D> RowChange<D> {
    /// The change as rows with multiplicities.
    pub fn updates(self) -> impl Iterator<Item = (D, Diff)> {
        let (before, after) = match self {
            Self::Insert(row) => (None, Some(row)),
            Self::Update { before, after } => (Some(before), Some(after)),
            Self::Delete(row) => (Some(row), None),
        };
        before.map(|row| (row, -1)).into_iter().chain(after.map(|row| (row, 1)))
    }
}

impl<'s, K: Data, O: Data, V: Data> Flow<'s, (K, (O, Option<V>))> {
    /// [`Events::upsert`] for changes that can be retracted: `(key, (order, value))`, or no value for a deletion. When the last
    /// is taken back, the one before holds again.
    ///
    /// **State** and **Cost.** Those of [`Flow::top_k_by_group`], over all changes of a key.
    pub fn upsert(self) -> Flow<'s, (K, V)> {
        self.top_k_by_group(1, |(order, _)| order.clone()).flat_map(|(key, (_, value))| Some((key, value?)))
    }
}

impl<'s, K: Data, V: Data> Flow<'s, (K, V)> {
    /// One row for each id, the least of those present: [`Events::deduplicate`] for rows that can be retracted.
    ///
    /// **State.** The rows of the touched ids. **Cost.** A pass over an id's rows for each tick that touches it: meant for few
    /// copies.
    pub fn deduplicate(self) -> Self {
        self.reduce_named("Deduplicate", |_, rows, results| {
            results.extend(rows.iter().find(|(_, n)| *n > 0).map(|(row, _)| ((*row).clone(), 1)));
        })
    }
}
