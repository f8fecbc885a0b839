//! The test kit: checks that a dataflow keeps the layer law, and that a monoid is one.

mod law;
mod monoids;

pub use law::{Answers, Law, Random, answers_after_cuts, check_layers, check_layers_by_tick};
pub use monoids::{check_abelian, check_monoid};
