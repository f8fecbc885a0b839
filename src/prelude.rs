//! What a dataflow's author needs: `use lambdaflow::prelude::*;`.

pub use crate::log::{Event, Tick};
pub use crate::operators::{Abelian, Aggregated, Count, Diff, Events, Flow, Groups, HyperLogLog, Monoid, Sum, Views};
pub use crate::runtime::Program;
pub use columnar::Columnar;
pub use serde::{Deserialize, Serialize};
