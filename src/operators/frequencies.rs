//! How often values occur, in bounded space: count-min, and heavy hitters that can be taken back.
//!
//! Both are arrays of counters that values are hashed to, so they are linear. (Of the `datasketches` crate, `CountMinSketch` adds
//! up absolute weights, so that a value taken back leaves a trace, and `FrequentItemsSketch` drops values depending on their
//! order: neither is the same in both layers.) **Law.** Counters are sums of integers, and counters of zero are not kept.

use std::collections::BTreeSet;
use std::hash::Hash;

use columnar::Columnar;
use serde::{Deserialize, Serialize};

use crate::runs::data::stable_hash;

use super::cells::{Cells, cells_group};
use super::monoid::Monoid;

/// The cell of a value in one row of a sketch.
fn cell<T: Hash + ?Sized>(row: i64, columns: i64, value: &T) -> i64 {
    row * columns + (stable_hash(&(row, value)) % columns as u64) as i64
}

/// An estimate of how often any value occurs: never too low, and too high by more than 0.27 % of all values' count in at most
/// 2 of 100 cases. (G. Cormode and S. Muthukrishnan, "An Improved Data Stream Summary: The Count-Min Sketch and its
/// Applications", 2005: e / 1,024 and e^-4.) Never too low holds where values are only taken back after they were added.
///
/// **State.** At most 64 KiB, 64 bytes for each distinct value while there are few. **Cost.** Four binary searches.
///
/// ```
/// use lambdaflow::operators::{Abelian, CountMin};
/// use lambdaflow::differential_dataflow::difference::Semigroup;
///
/// let mut words = CountMin::of("to").times(2);
/// words.plus_equals(&CountMin::of("be"));
/// assert_eq!((words.estimate("to"), words.estimate("be"), words.total()), (2, 1, 3));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct CountMin(Cells);
cells_group!(CountMin, 1);

impl CountMin {
    const ROWS: i64 = 4;
    const COLUMNS: i64 = 1024;

    /// The sketch of one value.
    pub fn of<T: Hash + ?Sized>(value: &T) -> Self {
        Self(Cells::each((0..Self::ROWS).map(|row| cell(row, Self::COLUMNS, value)).collect(), &[1]))
    }

    /// How often a value was added.
    pub fn estimate<T: Hash + ?Sized>(&self, value: &T) -> i64 {
        let counts = (0..Self::ROWS).map(|row| self.0.get::<1>(cell(row, Self::COLUMNS, value)).map_or(0, |[count]| *count));
        counts.min().expect("there are rows")
    }

    /// How many values were added.
    pub fn total(&self) -> i64 {
        self.0.iter::<1>().take_while(|(cell, _)| *cell < Self::COLUMNS).map(|(_, [count])| count).sum()
    }
}

impl Monoid for CountMin {
    /// The number of values; a dataflow asks for single values with [`CountMin::estimate`].
    type Answer = i64;
    fn answer(&self) -> i64 {
        self.total()
    }
}

/// Counters of a cell of [`HeavyHitters`]: all ids, and those with each bit set.
const COUNTERS: usize = 65;

/// The ids that make up a large share of all, by combinatorial group testing (G. Cormode and S. Muthukrishnan, "What's Hot and
/// What's Not: Tracking Most Frequent Items Dynamically", 2003): ids are hashed to cells, and each cell counts its ids by each
/// of their bits, so that an id with more than half of a cell can be read off.
///
/// An id with a share of 2 % of the total is missed in less than 1 of 100 cases, whatever the others are: it is in three
/// cells of 256 in a row, and is lost if in each of them the rest outweighs it. Counts are not too low, where ids are only taken back
/// after they were added. Names are counted by a hash of theirs, with the name looked up elsewhere.
///
/// **State.** At most 400 KiB, 1.6 KiB for each distinct id while there are few. **Cost.** 195 additions; as an answer or row, a
/// pass over all of it. Meant for few groups of many ids; for many groups of few, [`Flow::count`](super::Flow::count) and
/// [`Flow::top_k_by_group`](super::Flow::top_k_by_group) are exact.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct HeavyHitters(Cells);
cells_group!(HeavyHitters, COUNTERS);

/// One of the [`HeavyHitters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Heavy {
    /// The id.
    pub id: u64,
    /// How often it was added, about.
    pub count: i64,
}

impl HeavyHitters {
    const ROWS: i64 = 3;
    const COLUMNS: i64 = 256;
    /// The share of the total that an id must have to be in the answer.
    pub const SHARE: f64 = 0.02;

    /// The sketch of one id.
    pub fn of(id: u64) -> Self {
        let mut counters = [1; COUNTERS];
        for (bit, counter) in counters[1..].iter_mut().enumerate() {
            *counter = (id >> bit & 1) as i64;
        }
        Self(Cells::each((0..Self::ROWS).map(|row| cell(row, Self::COLUMNS, &id)).collect(), &counters))
    }

    /// How many ids were added.
    pub fn total(&self) -> i64 {
        self.0.iter::<COUNTERS>().take_while(|(cell, _)| *cell < Self::COLUMNS).map(|(_, counters)| counters[0]).sum()
    }

    /// How often an id was added: the least of its cells' counters that count it.
    pub fn estimate(&self, id: u64) -> i64 {
        let in_row = |row| {
            let Some(counters) = self.0.get::<COUNTERS>(cell(row, Self::COLUMNS, &id)) else { return 0 };
            // Ids that differ in a bit are on the other side of that bit's counter.
            let same = |bit: usize| if id >> bit & 1 == 1 { counters[1 + bit] } else { counters[0] - counters[1 + bit] };
            (0..64).map(same).min().expect("64 bits")
        };
        (0..Self::ROWS).map(in_row).min().expect("there are rows")
    }

    /// The ids with at least a share of the total, most frequent first; shares below [`HeavyHitters::SHARE`] may be incomplete.
    pub fn over(&self, share: f64) -> Vec<Heavy> {
        let enough = (share * self.total() as f64).max(1.0);
        let mut candidates = BTreeSet::new();
        for (_, counters) in self.0.iter::<COUNTERS>().filter(|(_, counters)| counters[0] as f64 >= enough) {
            let majority = |bit: usize| counters[1 + bit] > counters[0] - counters[1 + bit];
            candidates.insert((0..64).filter(|bit| majority(*bit)).fold(0u64, |id, bit| id | 1 << bit));
        }
        let mut heavy: Vec<Heavy> = candidates.into_iter().map(|id| Heavy { id, count: self.estimate(id) }).collect();
        heavy.retain(|heavy| heavy.count as f64 >= enough);
        heavy.sort_by_key(|heavy| (std::cmp::Reverse(heavy.count), heavy.id));
        heavy
    }
}

impl Monoid for HeavyHitters {
    /// The ids with at least [`HeavyHitters::SHARE`] of the total, most frequent first.
    type Answer = Vec<Heavy>;
    fn answer(&self) -> Vec<Heavy> {
        self.over(Self::SHARE)
    }
}
