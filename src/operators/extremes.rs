//! Extremes: the least and the greatest value, first and last by some order, and small sets.
//!
//! They only grow: when the greatest value is taken back, nothing remembers the next. So they aggregate
//! [`Events`](super::Events) only; on a flow that can retract, [`Flow::top_k_by_group`](super::Flow::top_k_by_group) keeps
//! what it needs. **Law.** Each is a function of the set of values. **State.** One value, or at most `N`. **Cost.** One
//! comparison, or `N`.

use columnar::Columnar;
use differential_dataflow::difference::{IsZero, Semigroup};
use serde::{Deserialize, Serialize};

use crate::runs::Data;

use super::monoid::Monoid;

/// The value with the least order, with its order: the first by event time, say. Of equal orders the least value.
pub type ArgMin<O, V> = Min<(O, V)>;

/// The value with the greatest order, with its order: the last by event time, say. Of equal orders the greatest value.
///
/// ```
/// # use lambdaflow::prelude::*;
/// # #[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
/// # struct Reading { at: u64, sensor: u64, celsius: i64 }
/// # impl Event for Reading { const NAME: &'static str = "Reading"; const VERSION: u32 = 1; const FIELDS: &'static [&'static str] = &[]; }
/// fn latest(readings: Events<'_, Reading>, views: &mut Views) {
///     // By event time: a reading that arrives late does not replace a newer one.
///     let last = readings.aggregate::<u64, ArgMax<u64, i64>>(|r, groups| groups.add(*r.sensor, ArgMax::of((*r.at, *r.celsius))));
///     views.publish("latest", last).key(&["sensor"]).value(&["at", "celsius"]);
/// }
/// # let events = [(5, 21), (3, 19)].map(|(at, celsius)| (Tick(7), Reading { at, sensor: 1, celsius }));
/// # let answers = lambdaflow::testing::answers_after_cuts(latest, &events, &[], 1, 1);
/// # assert_eq!(answers["latest"][0].value, serde_json::json!([5, 21]));
/// ```
pub type ArgMax<O, V> = Max<(O, V)>;

macro_rules! extreme {
    ($(#[$meta:meta])* $name:ident $better:tt) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
        #[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
        #[serde(transparent)]
        pub struct $name<T: 'static>(Option<T>);

        impl<T> $name<T> {
            /// Of one value.
            pub fn of(value: T) -> Self {
                Self(Some(value))
            }

            /// The value; none if there was none.
            pub fn get(&self) -> Option<&T> {
                self.0.as_ref()
            }

            /// The value; none if there was none.
            pub fn into_inner(self) -> Option<T> {
                self.0
            }
        }

        impl<T> Default for $name<T> {
            fn default() -> Self {
                Self(None)
            }
        }

        impl<T: Data> IsZero for $name<T> {
            fn is_zero(&self) -> bool {
                self.0.is_none()
            }
        }

        impl<T: Data> Semigroup for $name<T> {
            fn plus_equals(&mut self, other: &Self) {
                if other.0.is_some() && (self.0.is_none() || other.0 $better self.0) {
                    self.0.clone_from(&other.0);
                }
            }
        }

        impl<T: Data> Monoid for $name<T> {
            type Answer = Option<T>;
            fn answer(&self) -> Option<T> {
                self.0.clone()
            }
        }
    };
}
extreme!(
    /// The least value.
    Min <
);
extreme!(
    /// The greatest value.
    Max >
);

/// The least `N` distinct values, and whether there are more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct BoundedSet<T: 'static, const N: usize> {
    /// Ascending.
    values: Vec<T>,
    more: bool,
}

impl<T, const N: usize> BoundedSet<T, N> {
    /// The set of one value.
    pub fn of(value: T) -> Self {
        const { assert!(N > 0, "a set of at most no values holds nothing") };
        Self { values: vec![value], more: false }
    }

    /// The values, ascending.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// Whether there are distinct values beyond these.
    pub fn has_more(&self) -> bool {
        self.more
    }
}

impl<T, const N: usize> Default for BoundedSet<T, N> {
    fn default() -> Self {
        Self { values: Vec::new(), more: false }
    }
}

impl<T: Data, const N: usize> IsZero for BoundedSet<T, N> {
    fn is_zero(&self) -> bool {
        self.values.is_empty()
    }
}

impl<T: Data, const N: usize> Semigroup for BoundedSet<T, N> {
    fn plus_equals(&mut self, other: &Self) {
        for value in &other.values {
            if let Err(at) = self.values.binary_search(value) {
                self.values.insert(at, value.clone());
            }
        }
        // A part that had to leave values out had more than N, so the whole has.
        self.more |= other.more || self.values.len() > N;
        self.values.truncate(N);
    }
}

impl<T: Data, const N: usize> Monoid for BoundedSet<T, N> {
    /// The set itself: a reader sees `values` and `more`.
    type Answer = Self;
    fn answer(&self) -> Self {
        self.clone()
    }
}
