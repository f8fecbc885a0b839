//! Windows of event time: tumbling, hopping, sliding, sessions.
//!
//! Event time is ordinary data of the author's, in the author's unit. No window ever closes: a late row changes the windows it
//! belongs to, and their answers, whenever it comes.
//!
//! **Law.** Tumbling and hopping windows are linear: a row's windows follow from the row alone. Sliding windows and sessions
//! are reductions of the rows of a key, or of a stretch of time of it. **State** and **Cost** stand at each; the linear ones have none.

use std::hash::{Hash, Hasher};

use columnar::{Columnar, Ref};
use serde::{Deserialize, Serialize};

use crate::runs::Data;

use super::aggregate::KeyRef;
use super::flow::{Diff, Flow};

/// A stretch of event time, from `start` up to and without `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Window {
    /// The first time in it.
    pub start: u64,
    /// The first time after it.
    pub end: u64,
}

impl Window {
    /// The window of `width` that a time falls in; windows start at the multiples of `width`.
    ///
    /// A window can be part of a key in a borrowed aggregate:
    ///
    /// ```
    /// # use lambdaflow::prelude::*;
    /// # #[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
    /// # struct Request { at: u64, path: String }
    /// # impl Event for Request { const NAME: &'static str = "Request"; const VERSION: u32 = 1; const FIELDS: &'static [&'static str] = &[]; }
    /// fn hits(requests: Events<'_, Request>, views: &mut Views) {
    ///     let hits = requests.aggregate::<(String, Window), Count>(|r, groups| {
    ///         groups.add((r.path, Window::tumbling(*r.at, 3_600)), Count::one())
    ///     });
    ///     views.publish("hits", hits).key(&["path", "hour"]).value(&["hits"]);
    /// }
    /// # let events = [(Tick(1), Request { at: 7_201, path: "/".into() })];
    /// # let answers = lambdaflow::testing::answers_after_cuts(hits, &events, &[], 1, 1);
    /// # assert_eq!(answers["hits"][0].key, serde_json::json!(["/", {"start": 7_200, "end": 10_800}]));
    /// ```
    ///
    /// # Panics
    /// If `width` is zero.
    pub fn tumbling(at: u64, width: u64) -> Self {
        Self::starting(at - at % width, width)
    }

    /// The windows of `width` that a time falls in, latest first; one starts at each multiple of `step`. With a `step` above
    /// `width` there are times between the windows, which fall in none.
    ///
    /// # Panics
    /// If `step` is zero.
    pub fn hopping(at: u64, width: u64, step: u64) -> impl Iterator<Item = Self> {
        let last = at - at % step;
        let starts = std::iter::successors(Some(last), move |start| start.checked_sub(step));
        starts.take_while(move |start| at - start < width).map(move |start| Self::starting(start, width))
    }

    /// Whether a time falls in it.
    pub fn contains(&self, at: u64) -> bool {
        (self.start..self.end).contains(&at)
    }

    fn starting(start: u64, width: u64) -> Self {
        Self { start, end: start.saturating_add(width) }
    }
}

impl KeyRef<Window> for Window {
    fn feed<H: Hasher>(&self, hasher: &mut H) {
        self.hash(hasher);
    }
    fn is(&self, stored: Ref<'_, Window>) -> bool {
        *self == Window::into_owned(stored)
    }
    fn store(self, column: &mut <Window as Columnar>::Container) {
        columnar::Push::<&Window>::push(column, &self);
    }
}

impl<'s, K: Data, V: Data> Flow<'s, (K, (u64, V))> {
    /// Each row in its window of `width`, [`Window::tumbling`]. Linear: no state.
    ///
    /// # Panics
    /// If `width` is zero.
    pub fn tumbling(self, width: u64) -> Flow<'s, ((K, Window), V)> {
        assert!(width > 0, "windows of no width");
        self.map(move |(key, (at, val))| ((key, Window::tumbling(at, width)), val))
    }

    /// Each row in each of its windows of `width` that start every `step`, [`Window::hopping`]. Linear: no state. Cost: `width /
    /// step` rows for each.
    ///
    /// # Panics
    /// If `width` or `step` is zero.
    pub fn hopping(self, width: u64, step: u64) -> Flow<'s, ((K, Window), V)> {
        assert!(width > 0 && step > 0, "windows of no width or step");
        self.flat_map(move |(key, (at, val))| {
            Window::hopping(at, width, step).map(move |window| ((key.clone(), window), val.clone())).collect::<Vec<_>>()
        })
    }

    /// For each row `(at, value)` what `logic` makes of the rows of its key in `(at - width, at]`, itself and others of the
    /// same time among them: a row `(key, (at, value, result))`. `logic` gets the key, the row, and the rows of the window in
    /// ascending order with their multiplicities (never zero); it must be a function.
    ///
    /// **State.** The rows of the touched stretches of time, twice. **Cost.** Time is cut in stretches of `width`. A change
    /// touches its own and the next, however long the key's history: in each, `logic` is called once for each row, with its
    /// window.
    ///
    /// ```
    /// # use lambdaflow::prelude::*;
    /// # #[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
    /// # struct Payment { at: u64, card: u64, cents: i64 }
    /// # impl Event for Payment { const NAME: &'static str = "Payment"; const VERSION: u32 = 1; const FIELDS: &'static [&'static str] = &[]; }
    /// fn bursts(payments: Events<'_, Payment>, views: &mut Views) {
    ///     let by_card = payments.map(|p| (*p.card, (*p.at, *p.cents)));
    ///     // Payments by the same card in the minute up to each payment.
    ///     let recent = by_card.sliding(60, |_card, _payment, recent| recent.iter().map(|(_, n)| *n as u64).sum::<u64>());
    ///     let bursts = recent.filter(|(_, (_, _, payments))| *payments > 2);
    ///     views.publish("bursts", bursts).key(&["card"]).value(&["at", "cents", "payments"]);
    /// }
    /// # let events = [0, 50, 59, 61].map(|at| (Tick(at), Payment { at, card: 7, cents: 100 }));
    /// # let answers = lambdaflow::testing::answers_after_cuts(bursts, &events, &[Tick(55)], 1, 1);
    /// # let values: Vec<_> = answers["bursts"].iter().map(|row| row.value.clone()).collect();
    /// # assert_eq!(values, [serde_json::json!([59, 100, 3]), serde_json::json!([61, 100, 3])]);
    /// ```
    ///
    /// # Panics
    /// If `width` is zero.
    pub fn sliding<W: Data>(
        self,
        width: u64,
        mut logic: impl FnMut(&K, &(u64, V), &[(&(u64, V), Diff)]) -> W + 'static,
    ) -> Flow<'s, (K, (u64, V, W))> {
        assert!(width > 0, "windows of no width");
        let stretches = self.flat_map(move |(key, (at, val))| {
            let own = at / width;
            let next = own.checked_add(1).map(|next| ((key.clone(), next), (at, val.clone())));
            next.into_iter().chain([((key, own), (at, val))])
        });
        let evaluated = stretches.reduce_named("Sliding", move |(key, stretch), rows, results| {
            let own = rows.partition_point(|((at, _), _)| at / width < *stretch);
            let (mut first, mut end) = (0, own);
            for (row, n) in &rows[own..] {
                while row.0 - rows[first].0.0 >= width {
                    first += 1;
                }
                while rows.get(end).is_some_and(|(other, _)| other.0 <= row.0) {
                    end += 1;
                }
                results.push(((row.0, row.1.clone(), logic(key, row, &rows[first..end])), *n));
            }
        });
        evaluated.map(|((key, _), row)| (key, row))
    }

    /// Each row in the session it belongs to. A session is the rows of a key of which none is more than `gap` after the one
    /// before; its window is from its first row to just after its last. Rows that are missing (below zero) are in none.
    ///
    /// A late row may join two sessions that were apart, and one that is retracted split one: all rows of them change
    /// their window. Aggregate the result by `(key, window)` for a row for each session.
    ///
    /// **State.** The rows of the touched keys. **Cost.** A pass over all rows of the key for each tick that touches it, as
    /// every [`Flow::reduce`]; and a change of each row whose session changes, which is all of a session whose end moves. For
    /// keys with a long history, make a day or the like part of the key, and sessions end there.
    ///
    /// ```
    /// # use lambdaflow::prelude::*;
    /// # #[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
    /// # struct Click { at: u64, user: u64 }
    /// # impl Event for Click { const NAME: &'static str = "Click"; const VERSION: u32 = 1; const FIELDS: &'static [&'static str] = &[]; }
    /// fn sessions(clicks: Events<'_, Click>, views: &mut Views) {
    ///     let clicks = clicks.map(|c| (*c.user, (*c.at, ())));
    ///     let per_session = clicks.sessions(1_800).aggregate(|()| Count::one());
    ///     views.publish("sessions", per_session).key(&["user", "session"]).value(&["clicks"]);
    /// }
    /// # let events = [0, 1_000, 5_000].map(|at| (Tick(at), Click { at, user: 7 }));
    /// # let answers = lambdaflow::testing::answers_after_cuts(sessions, &events, &[Tick(500)], 1, 1);
    /// # assert_eq!(answers["sessions"].len(), 2);
    /// # assert_eq!(answers["sessions"][0].key, serde_json::json!([7, {"start": 0, "end": 1_001}]));
    /// ```
    pub fn sessions(self, gap: u64) -> Flow<'s, ((K, Window), V)> {
        let labelled = self.reduce_named("Sessions", move |_, rows, results| {
            let rows: Vec<_> = rows.iter().filter(|(_, n)| *n > 0).collect();
            for session in rows.chunk_by(|(before, _), (after, _)| after.0 - before.0 <= gap) {
                let (first, last) = (session[0].0.0, session[session.len() - 1].0.0);
                let window = Window { start: first, end: last.saturating_add(1) };
                results.extend(session.iter().map(|((_, val), n)| ((window, val.clone()), *n)));
            }
        });
        labelled.map(|(key, (window, val))| ((key, window), val))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_hold_the_times_they_are_of() {
        for (width, step) in [(1, 1), (10, 10), (10, 3), (3, 10), (u64::MAX, 1 << 60)] {
            for at in (0..40).chain([u64::MAX - 1]) {
                let tumbling = Window::tumbling(at, width);
                assert!(tumbling.contains(at) && tumbling.start.is_multiple_of(width));
                let hopping: Vec<Window> = Window::hopping(at, width, step).collect();
                assert!(hopping.iter().all(|window| window.contains(at) && window.start.is_multiple_of(step)));
                let first = at.saturating_sub(width - 1).div_ceil(step);
                assert_eq!(hopping.len() as u64, (at / step + 1).saturating_sub(first), "{at} in windows of {width} every {step}");
            }
        }
        assert_eq!(Window::tumbling(u64::MAX, 10), Window { start: u64::MAX - 5, end: u64::MAX });
    }
}
