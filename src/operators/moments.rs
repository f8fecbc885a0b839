//! Mean and variance of integers.
//!
//! Sums of floating-point numbers depend on their order, which differs between the layers: so values are integers (fixed
//! point, if need be), the sums are exact, and the only division is in the answer.

use columnar::Columnar;
use differential_dataflow::difference::{IsZero, Semigroup};
use serde::{Deserialize, Serialize};

use super::monoid::{Abelian, Monoid};

/// A finite number, or none where there is nothing to divide by. Ordered, with none first, so that it can be part of rows
/// and answers. JSON shows a number or null.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
#[serde(from = "Option<f64>", into = "Option<f64>")]
pub struct Real(
    /// The bits of the number, such that they order as the numbers do; 0 for none, which no finite number maps to.
    u64,
);

impl Real {
    /// No number.
    pub const NONE: Self = Self(0);

    /// A number; none if it is not finite. Both zeros are one.
    pub fn new(value: f64) -> Self {
        // The order of IEEE 754: positive numbers order as their bits, negative ones the other way round.
        let bits = (value + 0.0).to_bits();
        match value.is_finite() {
            true if bits >> 63 == 1 => Self(!bits),
            true => Self(bits | 1 << 63),
            false => Self::NONE,
        }
    }

    /// The quotient; none if `divisor` is zero.
    pub fn ratio(dividend: f64, divisor: f64) -> Self {
        Self::new(dividend / divisor)
    }

    /// The number.
    pub fn get(self) -> Option<f64> {
        let bits = if self.0 >> 63 == 1 { self.0 & !(1 << 63) } else { !self.0 };
        (self != Self::NONE).then(|| f64::from_bits(bits))
    }
}

impl From<Option<f64>> for Real {
    fn from(value: Option<f64>) -> Self {
        value.map_or(Self::NONE, Self::new)
    }
}

impl From<Real> for Option<f64> {
    fn from(value: Real) -> Self {
        value.get()
    }
}

impl std::fmt::Debug for Real {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

/// The mean of integers. Exact until the sum leaves `i128`.
///
/// **Law.** Count and sum are sums of integers. **State.** 24 bytes. **Cost.** Two additions.
///
/// ```
/// use lambdaflow::operators::{Mean, Monoid, Real};
/// use lambdaflow::differential_dataflow::difference::Semigroup;
///
/// let mut cents = Mean::of(250);
/// cents.plus_equals(&Mean::of(275));
/// assert_eq!(cents.answer(), Real::new(262.5));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Mean {
    count: i64,
    sum: i128,
}

impl Mean {
    /// The mean of one value.
    pub fn of(value: impl Into<i128>) -> Self {
        Self { count: 1, sum: value.into() }
    }

    /// How many values there are.
    pub fn count(&self) -> i64 {
        self.count
    }

    /// Their sum.
    pub fn sum(&self) -> i128 {
        self.sum
    }
}

impl IsZero for Mean {
    fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl Semigroup for Mean {
    fn plus_equals(&mut self, other: &Self) {
        self.count = self.count.wrapping_add(other.count);
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

impl Monoid for Mean {
    type Answer = Real;
    fn answer(&self) -> Real {
        Real::ratio(self.sum as f64, self.count as f64)
    }
}

impl Abelian for Mean {
    fn times(&self, n: isize) -> Self {
        Self { count: self.count.wrapping_mul(n as i64), sum: self.sum.wrapping_mul(n as i128) }
    }
}

/// Mean and variance of integers. Exact while the sum of squares is below 2^127, as 2^63 values up to 2^32 are.
///
/// **Law.** Count, sum and sum of squares are sums of integers. **State.** 40 bytes. **Cost.** Three additions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Variance {
    count: i64,
    sum: i128,
    squares: i128,
}

/// What a reader sees of [`Variance`]; `null` where there are too few values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Moments {
    /// Number of values.
    pub count: i64,
    /// Their mean.
    pub mean: Real,
    /// Mean squared distance from the mean: the variance of these values as a whole population.
    pub variance: Real,
    /// The estimate of the variance of what these values are a sample of: squared distances over count - 1.
    pub sample_variance: Real,
}

impl Variance {
    /// The variance of one value.
    pub fn of(value: impl Into<i64>) -> Self {
        let value = i128::from(value.into());
        Self { count: 1, sum: value, squares: value * value }
    }

    /// The variance of the values as a whole population.
    pub fn population(&self) -> Real {
        Real::ratio(self.squared_distances(), self.count as f64)
    }

    /// The estimate of the variance of what the values are a sample of.
    pub fn sample(&self) -> Real {
        Real::ratio(self.squared_distances(), self.count.saturating_sub(1) as f64)
    }

    /// The sum of squared distances from the mean. Squares minus squared mean would cancel badly in floating point: distances
    /// are taken from the whole number below the mean, exactly, and the remainder is corrected.
    fn squared_distances(&self) -> f64 {
        if self.count <= 0 {
            return f64::NAN;
        }
        let n = i128::from(self.count);
        let (whole, rest) = (self.sum.div_euclid(n), self.sum.rem_euclid(n));
        // Sum of (x - whole)^2. The true value fits, so wrapping on the way to it does no harm.
        let around_whole = self.squares.wrapping_sub(whole.wrapping_mul(self.sum.wrapping_add(rest)));
        match around_whole.checked_mul(n) {
            Some(exact) => (exact - rest * rest) as f64 / n as f64,
            // More than 2^127 / n, beside which the correction of less than n is small.
            None => around_whole as f64 - (rest as f64) * (rest as f64 / n as f64),
        }
    }
}

impl IsZero for Variance {
    fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl Semigroup for Variance {
    fn plus_equals(&mut self, other: &Self) {
        self.count = self.count.wrapping_add(other.count);
        self.sum = self.sum.wrapping_add(other.sum);
        self.squares = self.squares.wrapping_add(other.squares);
    }
}

impl Monoid for Variance {
    type Answer = Moments;
    fn answer(&self) -> Moments {
        Moments {
            count: self.count,
            mean: Real::ratio(self.sum as f64, self.count as f64),
            variance: self.population(),
            sample_variance: self.sample(),
        }
    }
}

impl Abelian for Variance {
    fn times(&self, n: isize) -> Self {
        Self {
            count: self.count.wrapping_mul(n as i64),
            sum: self.sum.wrapping_mul(n as i128),
            squares: self.squares.wrapping_mul(n as i128),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reals_order_as_numbers_do_and_read_back() {
        let numbers = [f64::MIN, -1.5, -f64::MIN_POSITIVE, 0.0, f64::MIN_POSITIVE, 1.0, f64::MAX];
        let reals = numbers.map(Real::new);
        assert!(reals.is_sorted() && Real::NONE < reals[0]);
        assert_eq!(reals.map(|real| real.get().unwrap()), numbers);
        assert_eq!(Real::new(-0.0), Real::new(0.0));
        for none in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Real::new(none), Real::NONE);
        }
        assert_eq!(serde_json::to_string(&[Real::new(0.25), Real::NONE]).unwrap(), "[0.25,null]");
        assert_eq!(serde_json::from_str::<[Real; 2]>("[0.25,null]").unwrap(), [Real::new(0.25), Real::NONE]);
    }

    fn variance(values: impl IntoIterator<Item = i64>) -> Variance {
        let mut all = Variance::default();
        values.into_iter().for_each(|value| all.plus_equals(&Variance::of(value)));
        all
    }

    #[test]
    fn variance_keeps_its_digits_far_from_zero() {
        // In f64, 10^18 squared leaves no digit for a variance of 2/3.
        let far = variance([1, 2, 3].map(|i| 1_000_000_000_000_000_000 + i));
        assert_eq!(far.population(), Real::new(2.0 / 3.0));
        assert_eq!(far.sample(), Real::new(1.0));
        assert_eq!(variance([i64::MIN, i64::MAX]).population().get().unwrap(), 2f64.powi(126));
        assert_eq!(variance([-3, -3, -3, -3]).population(), Real::new(0.0));
        // So many values that the exact product overflows: half of them -2^31, half 2^31.
        let many = variance([-(1 << 31), 1 << 31]).times(1 << 61);
        assert_eq!(many.population(), Real::new(2f64.powi(62)));
        assert_eq!(variance([7]).sample(), Real::NONE);
        assert_eq!(variance([]).population(), Real::NONE);
    }
}
