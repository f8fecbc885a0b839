//! `check_monoid` and `check_abelian`: the laws that an aggregate's exactness rests on, for an author's own monoid.
//!
//! Both layers add the same values in different orders and groups, keep sums as columns, and drop sums of zero. Equal means
//! equal here, bit for bit: an audit compares hashes.

use columnar::{Borrow, Index, Len, Push};

use crate::operators::{Abelian, Monoid};

/// The greatest multiple that [`check_abelian`] compares with a sum.
const TIMES_MAX: isize = 5;

/// Checks that sums do not depend on order and grouping, that `default()` is zero, the only one, and adds nothing, and that
/// values survive being columns. The samples should be few and unlike each other, with large
/// ones among them: the work grows with the cube of their number.
///
/// ```
/// use lambdaflow::operators::{Count, Max, Sum};
///
/// lambdaflow::testing::check_monoid(&[Max::of(3), Max::of(-3), Max::of(0)]);
/// lambdaflow::testing::check_monoid(&[(Count::one(), Sum::of(5)), (Count(0), Sum::of(-5))]);
/// ```
///
/// # Panics
/// If a law is broken, with the values that break it.
pub fn check_monoid<M: Monoid + Default>(samples: &[M]) {
    let zero = M::default();
    assert!(zero.is_zero(), "the default {zero:?} is not zero");
    check_columns(samples);
    for a in samples {
        assert_eq!(plus(a, &zero), *a, "adding {zero:?} on the right changes {a:?}");
        assert_eq!(plus(&zero, a), *a, "adding {zero:?} on the left changes {a:?}");
        assert!(!a.is_zero() || *a == zero, "{a:?} says it is zero, but so is {zero:?}: sums of zero are dropped");
        for b in samples {
            let sum = plus(a, b);
            assert_eq!(sum, plus(b, a), "{a:?} + {b:?} depends on the order");
            assert!(!sum.is_zero() || sum == zero, "{a:?} + {b:?} = {sum:?} says it is zero, but so is {zero:?}: sums of zero are dropped");
            for c in samples {
                assert_eq!(plus(&sum, c), plus(a, &plus(b, c)), "({a:?} + {b:?}) + {c:?} depends on the grouping");
            }
        }
    }
    // Sums are kept as columns too.
    check_columns(&samples.iter().flat_map(|a| samples.iter().map(move |b| plus(a, b))).collect::<Vec<_>>());
}

/// [`check_monoid`], and that every value can be taken back: `times(-1)` is its opposite, `times(n)` the sum of `n` of it,
/// and multiples distribute over sums.
///
/// # Panics
/// If a law is broken, with the values that break it.
pub fn check_abelian<M: Abelian + Default>(samples: &[M]) {
    check_monoid(samples);
    for a in samples {
        let back = plus(a, &a.times(-1));
        assert!(back.is_zero(), "{a:?} and its opposite {:?} leave {back:?}", a.times(-1));
        assert_eq!(back, M::default(), "{a:?} and its opposite {:?} leave a zero that is not the default", a.times(-1));
        let mut sum = M::default();
        for n in 0..=TIMES_MAX {
            assert_eq!(a.times(n), sum, "{n} times {a:?} is not the sum of {n}");
            assert_eq!(plus(&a.times(-n), &sum), M::default(), "{} times {a:?} does not take back {n}", -n);
            sum.plus_equals(a);
        }
        for b in samples {
            for n in [-2, -1, 3] {
                assert_eq!(plus(a, b).times(n), plus(&a.times(n), &b.times(n)), "{n} times {a:?} + {b:?} is not the sum of the multiples");
            }
        }
    }
    check_columns(&samples.iter().map(|a| a.times(-1)).collect::<Vec<_>>());
}

fn plus<M: Monoid>(a: &M, b: &M) -> M {
    let mut sum = a.clone();
    sum.plus_equals(b);
    sum
}

/// Values must come back from columns as they went in, whatever stands before them.
fn check_columns<M: Monoid>(values: &[M]) {
    let mut columns = M::Container::default();
    values.iter().for_each(|value| columns.push(value));
    let columns = columns.borrow();
    assert_eq!(columns.len(), values.len(), "columns hold another number of values than were put in");
    for (at, value) in values.iter().enumerate() {
        let back = M::into_owned(columns.get(at));
        assert_eq!(back, *value, "{value:?} came back from columns as {back:?}");
        let mut other = values[0].clone();
        other.copy_from(columns.get(at));
        assert_eq!(other, *value, "{value:?} was copied from columns as {other:?}");
    }
}
