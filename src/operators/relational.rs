//! The joins and set operators of SQL, look-ups of past versions, and `having`.
//!
//! **Law.** Joins that keep unmatched rows are sums of joins: an unmatched row is *the row as if nothing matched, minus
//! that once more if its key is present on the other side*. So they are linear in each side's rows, and in the other side's
//! set of keys, which `distinct` keeps exact. The set operators follow one running sum for each row, of both multiplicities;
//! `having` is a filter.
//! **State.** Of a join: the changes of both sides, and the touched keys of each side whose presence matters. Of a set
//! operator: one table of the touched rows with both multiplicities. **Cost.** That of the join; a row that has a match is
//! made as unmatched and taken back in the same tick, two updates that cancel where they meet.
//!
//! A key or row is *present* if its multiplicities sum to more than zero.

use crate::runs::Data;

use super::aggregate::Aggregated;
use super::flow::{Diff, Flow, place};
use super::monoid::Monoid;
use super::running::running;

impl<'s, K: Data, V: Data> Flow<'s, (K, V)> {
    /// The rows whose key is among `keys`, however often it is there.
    ///
    /// State: the changes of both sides, and the touched keys. Cost: one look-up for each change; a key that appears or
    /// vanishes touches all rows that have it.
    pub fn semijoin(self, keys: Flow<'s, K>) -> Self {
        self.join_map(keys.distinct().map(|key| (key, ())), |key, val, ()| (key.clone(), val.clone()))
    }

    /// The rows whose key is not among `keys`.
    ///
    /// State and cost: [`Flow::semijoin`], and each row that is left out is made and taken back in the same tick.
    ///
    /// ```
    /// # use lambdaflow::prelude::*;
    /// # #[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
    /// # struct Order { id: u64, paid: bool }
    /// # impl Event for Order { const NAME: &'static str = "Order"; const VERSION: u32 = 1; const FIELDS: &'static [&'static str] = &[]; }
    /// fn unpaid(events: Events<'_, Order>, views: &mut Views) {
    ///     let orders = events.clone().flat_map(|e| (!e.paid).then_some((*e.id, ())));
    ///     let paid = events.flat_map(|e| e.paid.then_some(*e.id));
    ///     views.publish("unpaid", orders.antijoin(paid)).key(&["order"]);
    /// }
    /// # let events = [(1, false), (2, false), (1, true)].map(|(id, paid)| (Tick(id), Order { id, paid }));
    /// # let mut events = events.to_vec();
    /// # events.sort_by_key(|(tick, _)| *tick);
    /// # let answers = lambdaflow::testing::answers_after_cuts(unpaid, &events, &[Tick(2)], 1, 1);
    /// # assert_eq!(answers["unpaid"].len(), 1);
    /// # assert_eq!(answers["unpaid"][0].key, 2);
    /// ```
    pub fn antijoin(self, keys: Flow<'s, K>) -> Self {
        self.clone().concat(self.semijoin(keys).negate())
    }

    /// All pairs of rows with equal keys, and the rows on the left whose key is not on the right, with `None`.
    ///
    /// State: that of [`Flow::join`], and the touched keys on the right.
    ///
    /// ```
    /// # use lambdaflow::prelude::*;
    /// # #[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
    /// # struct Parcel { id: u64, place: String }
    /// # impl Event for Parcel { const NAME: &'static str = "Parcel"; const VERSION: u32 = 1; const FIELDS: &'static [&'static str] = &[]; }
    /// fn parcels(events: Events<'_, Parcel>, views: &mut Views) {
    ///     let at = |place: &'static [u8]| events.clone().flat_map(move |e| (e.place == place).then_some((*e.id, e.id % 10)));
    ///     let (sent, delivered) = (at(b"depot"), at(b"door"));
    ///     views.publish("parcels", sent.left_join(delivered)).key(&["parcel"]).value(&["sent", "delivered"]);
    /// }
    /// # let parcel = |id, place: &str| (Tick(id), Parcel { id, place: place.into() });
    /// # let events = [parcel(11, "depot"), parcel(11, "door"), parcel(12, "depot")];
    /// # let answers = lambdaflow::testing::answers_after_cuts(parcels, &events, &[Tick(12)], 1, 1);
    /// # let values: Vec<_> = answers["parcels"].iter().map(|row| row.value.clone()).collect();
    /// # assert_eq!(values, [serde_json::json!([1, 1]), serde_json::json!([2, null])]);
    /// ```
    pub fn left_join<W: Data>(self, other: Flow<'s, (K, W)>) -> Flow<'s, (K, (V, Option<W>))> {
        let unmatched = self.clone().map(|(key, val)| (key, (val, None)));
        unmatched.concat(self.join(or_none(other)))
    }

    /// All pairs of rows with equal keys, and the rows of each side whose key is not on the other, with `None`.
    ///
    /// State: that of [`Flow::join`], and the touched keys of both sides.
    pub fn full_join<W: Data>(self, other: Flow<'s, (K, W)>) -> Flow<'s, (K, (Option<V>, Option<W>))> {
        let left = self.clone().map(|(key, val)| (key, (Some(val), None)));
        let right = other.clone().map(|(key, val)| (key, (None, Some(val))));
        // Neither side is a pair of two absences, not a row.
        let pairs = or_none(self).join(or_none(other)).filter(|(_, pair)| *pair != (None, None));
        left.concat(right).concat(pairs)
    }
}

/// Rows with `Some`, and minus one `None` for each key that is present: what a row of the other side, already there as if it
/// had no match, must be joined with.
fn or_none<'s, K: Data, V: Data>(rows: Flow<'s, (K, V)>) -> Flow<'s, (K, Option<V>)> {
    let present = rows.clone().map(|(key, _)| key).distinct();
    rows.map(|(key, val)| (key, Some(val))).concat(present.map(|key| (key, None)).negate())
}

impl<'s, K: Data, V: Data> Flow<'s, (K, (u64, V))> {
    /// Joins facts `(key, (at, value))` with a table that changes slowly, `(key, (valid_from, value))`: each fact gets the
    /// version that was valid at its own event time, the one with the greatest `valid_from <= at`, or `None` if there was none
    /// yet. Of versions with the same `valid_from` the greatest value counts.
    ///
    /// Late facts find the version of their time. A late or retracted version corrects the facts it applies to. To see each
    /// fact with the table's *current* row instead, [`Flow::join`] it with the table: then a change of the table rewrites
    /// all facts of the key. Use this one for what held at the time (prices, addresses on invoices), the plain join for what
    /// holds now (names, categories).
    ///
    /// **Law.** Versions are reduced to spans of time, which are joined; both keep the law. **State.** The changes of facts
    /// and of spans; the versions of touched keys. **Cost.** A fact: its key's versions. A version: its key's versions, and all
    /// facts of the key, of which those in at most three spans change.
    ///
    /// ```
    /// # use lambdaflow::prelude::*;
    /// # #[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
    /// # struct Trade { at: u64, item: u64, price: Option<u64>, sold: u64 }
    /// # impl Event for Trade { const NAME: &'static str = "Trade"; const VERSION: u32 = 1; const FIELDS: &'static [&'static str] = &[]; }
    /// fn takings(trades: Events<'_, Trade>, views: &mut Views) {
    ///     let prices = trades.clone().flat_map(|t| t.price.map(|price| (*t.item, (*t.at, *price))));
    ///     let sales = trades.flat_map(|t| (*t.sold > 0).then_some((*t.item, (*t.at, *t.sold))));
    ///     // Each sale at the price that held when it was made, also where the price is only known later.
    ///     let priced = sales.lookup_as_of(prices).map(|(item, (_at, sold, price))| (item, sold * price.unwrap_or(0)));
    ///     views.publish("takings", priced.aggregate(|amount| Sum::of(*amount))).key(&["item"]).value(&["takings"]);
    /// }
    /// # let trade = |tick, at, price, sold| (Tick(tick), Trade { at, item: 7, price, sold });
    /// # let events = [trade(1, 10, Some(5), 0), trade(2, 15, None, 2), trade(3, 25, None, 1), trade(4, 20, Some(6), 0)];
    /// # let answers = lambdaflow::testing::answers_after_cuts(takings, &events, &[Tick(3)], 1, 1);
    /// # assert_eq!(answers["takings"][0].value, 16);
    /// ```
    pub fn lookup_as_of<W: Data>(self, versions: Flow<'s, (K, (u64, W))>) -> Flow<'s, (K, (u64, V, Option<W>))> {
        let spans = versions.reduce_named("Versions", |_, versions, spans| spans_of(versions, spans));
        let unmatched = self.clone().map(|(key, (at, val))| (key, (at, val, None)));
        let matched = self.join_map(spans, |key, (at, val), (first, last, version)| {
            (first..=last).contains(&at).then(|| (key.clone(), (*at, val.clone(), version.clone())))
        });
        unmatched.concat(matched.flat_map(|row| row))
    }
}

/// Spans `(first, last, version)` of one key's versions; and minus one `None` from the first version on, against the facts that
/// are there as if there was no version.
fn spans_of<W: Clone>(versions: &[(&(u64, W), Diff)], spans: &mut Vec<((u64, u64, Option<W>), Diff)>) {
    let mut next: Option<u64> = None;
    for ((from, version), _) in versions.iter().rev().filter(|(_, n)| *n > 0) {
        if next != Some(*from) {
            spans.push(((*from, next.map_or(u64::MAX, |next| next - 1), Some(version.clone())), 1));
            next = Some(*from);
        }
    }
    spans.extend(next.map(|first| ((first, u64::MAX, None), -1)));
}

impl<'s, D: Data> Flow<'s, D> {
    /// Each row that is present in either flow, once: SQL's `union`. (`union all` is [`Flow::concat`].)
    pub fn union(self, other: Self) -> Self {
        self.two_sided(other, "Union", |left, right| Diff::from(left > 0 || right > 0))
    }

    /// Each row that is present in both flows, once: SQL's `intersect`.
    pub fn intersect(self, other: Self) -> Self {
        self.two_sided(other, "Intersect", |left, right| Diff::from(left > 0 && right > 0))
    }

    /// Each row that is present here and not in `other`, once: SQL's `except`.
    pub fn except(self, other: Self) -> Self {
        self.two_sided(other, "Except", |left, right| Diff::from(left > 0 && right <= 0))
    }

    /// Each row as often as it is in both flows: SQL's `intersect all`.
    pub fn intersect_all(self, other: Self) -> Self {
        self.two_sided(other, "IntersectAll", |left, right| left.min(right).max(0))
    }

    /// Each row as often as it is here more than in `other`: SQL's `except all`. Never below zero; for the plain difference
    /// [`Flow::negate`] and [`Flow::concat`].
    pub fn except_all(self, other: Self) -> Self {
        self.two_sided(other, "ExceptAll", |left, right| (left.max(0) - right.max(0)).max(0))
    }

    /// Each row as often as a function of both multiplicities says. One running sum follows both.
    fn two_sided(self, other: Self, name: &str, logic: fn(Diff, Diff) -> Diff) -> Self {
        let left = self.changes.explode(|row| Some(((row, ()), (1 as Diff, 0 as Diff))));
        let right = other.changes.explode(|row| Some(((row, ()), (0 as Diff, 1 as Diff))));
        running(self.graph, name, place(left.concat(right).inner), move |row, before: Option<&(Diff, Diff)>, after, made| {
            let apply = |sides: Option<&(Diff, Diff)>| sides.map_or(0, |(left, right)| logic(*left, *right));
            let change = apply(after) - apply(before);
            if change != 0 {
                made.push((row.clone(), change));
            }
        })
    }
}

impl<'s, K: Data, M: Monoid + Data> Aggregated<'s, K, M> {
    /// A row `(key, sum)` for each group for which `keep` holds: SQL's `having`.
    ///
    /// State and cost: those of [`Aggregated::rows`].
    ///
    /// ```
    /// # use lambdaflow::prelude::*;
    /// # #[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
    /// # struct Login { user: u64, failed: bool }
    /// # impl Event for Login { const NAME: &'static str = "Login"; const VERSION: u32 = 1; const FIELDS: &'static [&'static str] = &[]; }
    /// fn suspects(logins: Events<'_, Login>, views: &mut Views) {
    ///     let failures = logins.aggregate::<u64, Count>(|l, groups| groups.add(*l.user, Count(isize::from(l.failed))));
    ///     views.publish("suspects", failures.having(|_user, failures| failures.answer() >= 3)).key(&["user"]).value(&["failures"]);
    /// }
    /// # let events: Vec<_> = (0..9).map(|i| (Tick(i), Login { user: i % 2, failed: i % 4 != 1 })).collect();
    /// # let answers = lambdaflow::testing::answers_after_cuts(suspects, &events, &[Tick(4)], 1, 1);
    /// # assert_eq!(answers["suspects"].len(), 1);
    /// # assert_eq!((&answers["suspects"][0].key, &answers["suspects"][0].value), (&0.into(), &5.into()));
    /// ```
    pub fn having(self, mut keep: impl FnMut(&K, &M) -> bool + 'static) -> Flow<'s, (K, M)> {
        self.rows().filter(move |(key, sum)| keep(key, sum))
    }
}
