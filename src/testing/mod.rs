//! The test kit: checks that a dataflow keeps the layer law.

mod law;

pub use law::{Answers, Law, Random, answers_after_cuts, check_layers, check_layers_by_tick};
