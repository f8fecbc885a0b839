//! The test kit: checks that a dataflow keeps the layer law.

mod law;

pub use law::{Law, Random, check_layers};
