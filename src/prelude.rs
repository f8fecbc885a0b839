//! What a dataflow's author needs: `use lambdaflow::prelude::*;`.

pub use crate::log::{Event, Tick};
pub use crate::operators::{
    Abelian, Aggregated, ArgMax, ArgMin, BoundedSet, Count, CountMin, Diff, Events, Flow, Groups, HeavyHitters, Histogram, HyperLogLog,
    Keyed, Max, Mean, Min, Monoid, Quantiles, Real, RowChange, Sum, Variance, Views, Window,
};
pub use crate::runtime::Program;
pub use columnar::Columnar;
pub use serde::{Deserialize, Serialize};
