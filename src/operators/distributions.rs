//! Distributions of integers: histograms with the author's buckets, and quantiles within 1 %.
//!
//! Both count values by bucket, so they are linear: a value taken back leaves no trace. (The quantile sketches of the
//! `datasketches` crate, KLL, REQ and t-digest, compact by chance or by the order of insertion, and cannot take values back.)
//! **Law.** Counters are sums of integers. **State.** 16 bytes for each bucket that is not empty. **Cost.** One binary
//! search in them.

use columnar::Columnar;
use serde::{Deserialize, Serialize};

use super::cells::{Cells, cells_group};
use super::monoid::Monoid;

/// How many values fall in each of an author's buckets. Add only histograms made with the same width or bounds.
///
/// ```
/// use lambdaflow::operators::{Bucket, Histogram, Monoid};
/// use lambdaflow::differential_dataflow::difference::Semigroup;
///
/// let mut sizes = Histogram::of_width(130, 100);
/// sizes.plus_equals(&Histogram::of_width(199, 100));
/// assert_eq!(sizes.answer(), [Bucket { from: 100, count: 2 }]);
///
/// // Below 10, from 10 to 99, from 100 on.
/// assert_eq!(Histogram::of_bounds(7, &[10, 100]).answer(), [Bucket { from: i64::MIN, count: 1 }]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Histogram(Cells);
cells_group!(Histogram, 1);

/// One bucket of a [`Histogram`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Bucket {
    /// The least value that falls in it.
    pub from: i64,
    /// How many did.
    pub count: i64,
}

impl Histogram {
    /// One value in buckets of equal width: those from the multiples of `width`. The lowest bucket begins at `i64::MIN`.
    ///
    /// # Panics
    /// If `width` is not positive.
    pub fn of_width(value: i64, width: i64) -> Self {
        assert!(width > 0, "buckets of width {width}");
        Self(Cells::one(value.saturating_sub(value.rem_euclid(width)), &[1]))
    }

    /// One value in buckets between `bounds`, ascending; each begins at its bound. Below the first, the bucket begins at
    /// `i64::MIN`.
    pub fn of_bounds(value: i64, bounds: &[i64]) -> Self {
        let below = bounds.partition_point(|bound| *bound <= value);
        Self(Cells::one(if below == 0 { i64::MIN } else { bounds[below - 1] }, &[1]))
    }
}

impl Monoid for Histogram {
    /// The buckets that are not empty, ascending.
    type Answer = Vec<Bucket>;
    fn answer(&self) -> Vec<Bucket> {
        self.0.iter::<1>().map(|(from, [count])| Bucket { from, count: *count }).collect()
    }
}

/// Bits of a value, after its first, that choose its bucket.
const MANTISSA_BITS: u32 = 6;

/// Quantiles of integers, each within 1/128 (0.8 %) of the true one; values up to 127 are exact.
///
/// A value's bucket is its highest bit and the six after it, computed with shifts so that it is the same on every machine.
/// (That is the linear approximation of the logarithm that Charles Masson, Jee E. Rim and Homin K. Lee describe in "DDSketch: A
/// Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees", 2019, section 4.) At most 7,424 buckets are ever
/// in use; values within a factor of 1,000 fill some 640.
///
/// ```
/// use lambdaflow::operators::Quantiles;
/// use lambdaflow::differential_dataflow::difference::Semigroup;
///
/// let mut millis = Quantiles::default();
/// (1..=1_000).for_each(|i| millis.plus_equals(&Quantiles::of(i)));
/// let p99 = millis.quantile(0.99).unwrap();
/// assert!((982..=998).contains(&p99));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Quantiles(Cells);
cells_group!(Quantiles, 1);

/// What a reader sees of [`Quantiles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Summary {
    /// Number of values.
    pub count: i64,
    /// Least value.
    pub min: i64,
    /// Median.
    pub p50: i64,
    /// Nine of ten values are at most this.
    pub p90: i64,
    /// 99 of 100 values are at most this.
    pub p99: i64,
    /// Greatest value.
    pub max: i64,
}

impl Quantiles {
    /// The distribution of one value. Values beyond `i64` saturate.
    pub fn of(value: impl TryInto<i64>) -> Self {
        Self(Cells::one(bucket_of(value.try_into().unwrap_or(i64::MAX)), &[1]))
    }

    /// How many values there are.
    pub fn count(&self) -> i64 {
        self.present().map(|(_, count)| count).sum()
    }

    /// The least value that at least a share `q` of all values do not exceed, within 1/128 of it; none of no values.
    ///
    /// # Panics
    /// If `q` is not between 0 and 1.
    pub fn quantile(&self, q: f64) -> Option<i64> {
        assert!((0.0..=1.0).contains(&q), "there is no quantile {q}");
        let mut left = ((q * self.count() as f64).ceil() as i64).max(1);
        // Rounding of a large count may ask for more than there are.
        let last = self.present().next_back()?;
        let found = self.present().find(|(_, count)| {
            left -= count;
            left <= 0
        });
        Some(value_of(found.unwrap_or(last).0))
    }

    /// Buckets with their counts. A bucket from which more was taken than was there is none.
    fn present(&self) -> impl DoubleEndedIterator<Item = (i64, i64)> {
        self.0.iter::<1>().map(|(bucket, [count])| (bucket, *count)).filter(|(_, count)| *count > 0)
    }
}

impl Monoid for Quantiles {
    type Answer = Option<Summary>;
    fn answer(&self) -> Option<Summary> {
        Some(Summary {
            count: self.count(),
            min: self.quantile(0.0)?,
            p50: self.quantile(0.5)?,
            p90: self.quantile(0.9)?,
            p99: self.quantile(0.99)?,
            max: self.quantile(1.0)?,
        })
    }
}

/// The number of a value's bucket; in the order of the values.
fn bucket_of(value: i64) -> i64 {
    let magnitude = value.unsigned_abs();
    let shift = (63 - (magnitude | 1).leading_zeros()).saturating_sub(MANTISSA_BITS);
    ((i64::from(shift) << MANTISSA_BITS) + (magnitude >> shift) as i64) * value.signum()
}

/// The middle of a bucket.
fn value_of(bucket: i64) -> i64 {
    let magnitude = bucket.unsigned_abs();
    let shift = (magnitude >> MANTISSA_BITS).saturating_sub(1);
    let least = (magnitude - (shift << MANTISSA_BITS)) << shift;
    let middle = least + (1 << shift) / 2;
    i64::try_from(middle).unwrap_or(i64::MAX) * bucket.signum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_within_the_promised_error_of_each_of_its_values() {
        let around = |power: u32| [-2, -1, 0, 1, 2].map(|i: i64| (1i64 << power).wrapping_add(i));
        let values = (0..100_000).chain((0..63).flat_map(around)).chain([i64::MAX, i64::MIN]);
        for value in values.flat_map(|value| [value, value.wrapping_neg()]) {
            let answer = value_of(bucket_of(value));
            let error = (i128::from(answer) - i128::from(value)).unsigned_abs();
            assert!(error * 128 <= u128::from(value.unsigned_abs()), "{value} is answered as {answer}");
            assert!(value.unsigned_abs() >= 128 || answer == value, "{value} is answered as {answer}");
        }
    }

    #[test]
    fn buckets_are_in_the_order_of_their_values() {
        let values: Vec<i64> = (-1 << 20..1 << 20).collect();
        assert!(values.is_sorted_by_key(|value| bucket_of(*value)));
        assert_eq!(bucket_of(i64::MIN), -(57 * 64 + 64));
        assert_eq!(bucket_of(1_000_000) - bucket_of(1_000), 637);
    }

    #[test]
    fn widths_and_bounds_cut_where_they_say() {
        let bucket = |histogram: Histogram| histogram.answer()[0].from;
        assert_eq!([-11, -10, -1, 0, 9, 10].map(|value| bucket(Histogram::of_width(value, 10))), [-20, -10, -10, 0, 0, 10]);
        assert_eq!(bucket(Histogram::of_width(i64::MIN, 10)), i64::MIN);
        assert_eq!([-1, 0, 4, 5, 6].map(|value| bucket(Histogram::of_bounds(value, &[0, 5]))), [i64::MIN, 0, 0, 5, 5]);
        assert_eq!(bucket(Histogram::of_bounds(1, &[])), i64::MIN);
    }
}
