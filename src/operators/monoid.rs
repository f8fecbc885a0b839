//! What can be aggregated: monoids, and which of them can take a fact back. `testing::check_monoid` checks one of your own.
//!
//! An aggregate is exact in both layers because it is linear in its monoid: the aggregate of base and changes is the sum of
//! both. A retraction adds the opposite, so it needs an inverse; [`Abelian`] says that there is one. A monoid without it
//! (HyperLogLog) can only be used on [`Events`](super::Events), which are never retracted: the compiler refuses the rest.

use columnar::Columnar;
use differential_dataflow::difference::{IsZero, Semigroup};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::runs::Change;

/// Values that can be added in any order and grouping, with the same sum, bit for bit. Zero is "nothing was added", and no other
/// value is: sums that are zero are dropped. [`crate::testing::check_monoid`] checks an author's own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no monoid: an aggregate cannot add it up",
    label = "not a `Monoid`",
    note = "add up `Count`, `Sum`, `Mean`, `Max<T>`, `HyperLogLog`, ..., a tuple of at most four monoids, or a struct made by `lambdaflow::monoid_struct!`",
    note = "a plain number is `Sum::of(n)` to be added up, `Max::of(n)` to keep the greatest"
)]
pub trait Monoid: Change {
    /// What a reader sees; on a cluster, what crosses from one process to another.
    type Answer: Serialize + DeserializeOwned + Ord;
    /// The answer that this sum stands for.
    fn answer(&self) -> Self::Answer;
}

/// A monoid in which every value has an opposite: what was added can be taken back and leaves no trace.
/// [`crate::testing::check_abelian`] checks an author's own.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot take values back, so it cannot aggregate a flow, whose rows may be retracted",
    label = "not `Abelian`",
    note = "aggregate it from `Events`, which are never retracted: `events.aggregate(..)` in place of `events.map(..).aggregate(..)`",
    note = "a plain number is `Sum::of(n)`",
    note = "or use what can be taken back: `distinct` and `count` for `HyperLogLog`, `top_k_by_group(1, ..)` for `Min`, `Max`, `ArgMin` and `ArgMax`, `distinct` and `top_k_by_group(n, ..)` for `BoundedSet`"
)]
pub trait Abelian: Monoid {
    /// The value added `n` times; below zero, taken back.
    fn times(&self, n: isize) -> Self;
}

/// A sum with the number of records in it: a group exists while it has records, even if its sum is zero.
pub type Fold<M> = (isize, M);

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
#[serde(transparent)]
pub struct Count(pub isize);

impl Count {
    /// One record.
    pub fn one() -> Self {
        Self(1)
    }
}

/// A sum of integers, modulo 2^64: sums must form a group, so that a retraction undoes an addition whatever came between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
#[serde(transparent)]
pub struct Sum(pub i64);

impl Sum {
    /// The sum of one value. Values beyond `i64` saturate.
    pub fn of(value: impl TryInto<i64>) -> Self {
        Self(value.try_into().unwrap_or(i64::MAX))
    }
}

macro_rules! integer_monoid {
    ($name:ident, $integer:ty) => {
        impl IsZero for $name {
            fn is_zero(&self) -> bool {
                self.0 == 0
            }
        }
        impl Semigroup for $name {
            fn plus_equals(&mut self, other: &Self) {
                self.0 = self.0.wrapping_add(other.0);
            }
        }
        impl Monoid for $name {
            type Answer = $integer;
            fn answer(&self) -> $integer {
                self.0
            }
        }
        impl Abelian for $name {
            fn times(&self, n: isize) -> Self {
                Self(self.0.wrapping_mul(n as $integer))
            }
        }
    };
}
integer_monoid!(Count, isize);
integer_monoid!(Sum, i64);

macro_rules! tuple_monoid {
    ($($name:ident $index:tt),+) => {
        impl<$($name: Monoid),+> Monoid for ($($name,)+) {
            type Answer = ($($name::Answer,)+);
            fn answer(&self) -> Self::Answer {
                ($(self.$index.answer(),)+)
            }
        }
        impl<$($name: Abelian),+> Abelian for ($($name,)+) {
            fn times(&self, n: isize) -> Self {
                ($(self.$index.times(n),)+)
            }
        }
    };
}
tuple_monoid!(A 0, B 1);
tuple_monoid!(A 0, B 1, C 2);
tuple_monoid!(A 0, B 1, C 2, D 3);

/// Makes a struct of [`Abelian`] fields a monoid, field by field. Its answer is the struct itself, so that a reader sees
/// the field names.
///
/// ```
/// use lambdaflow::operators::{Abelian, Count, Sum};
///
/// lambdaflow::monoid_struct! {
///     /// Requests and the bytes they were answered with.
///     pub struct Traffic { pub hits: Count, pub bytes: Sum }
/// }
/// let twice = Traffic { hits: Count::one(), bytes: Sum::of(512) }.times(2);
/// assert_eq!(serde_json::to_string(&twice).unwrap(), r#"{"hits":2,"bytes":1024}"#);
/// ```
#[macro_export]
macro_rules! monoid_struct {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[derive($crate::export::serde::Serialize, $crate::export::serde::Deserialize, $crate::export::columnar::Columnar)]
        #[serde(crate = "lambdaflow::export::serde")]
        #[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $type),+ }

        impl $crate::export::IsZero for $name {
            fn is_zero(&self) -> bool {
                $($crate::export::IsZero::is_zero(&self.$field))&&+
            }
        }
        impl $crate::export::Semigroup for $name {
            fn plus_equals(&mut self, other: &Self) {
                $($crate::export::Semigroup::plus_equals(&mut self.$field, &other.$field);)+
            }
        }
        impl $crate::operators::Monoid for $name {
            type Answer = Self;
            fn answer(&self) -> Self {
                self.clone()
            }
        }
        impl $crate::operators::Abelian for $name {
            fn times(&self, n: isize) -> Self {
                Self { $($field: $crate::operators::Abelian::times(&self.$field, n)),+ }
            }
        }
    };
}
