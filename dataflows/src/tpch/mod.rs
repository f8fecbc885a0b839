//! Keeps the answers to twelve queries of TPC-H while rows come and go.
//!
//! An event is a [`Change`]: a row of one of the eight tables is inserted or deleted ([`rows`]). [`queries`] has one short
//! function for each query, [`views`] the rows of the answers with their units, and the parameters. [`generate`] makes the
//! rows of `dbgen` with orders that go again. [`mod@reference`] computes the same answers from the rows that are left, with
//! plain loops, and **must not share logic with the dataflow**: it is the oracle that the dataflow is held against.
//! [`published`] holds both against the answers that others have published.

pub mod date;
pub mod generate;
pub mod published;
pub mod queries;
pub mod reference;
pub mod rows;
pub mod views;

pub use queries::tpch;
pub use rows::Change;

use lambdaflow::prelude::Program;

/// The program: reads changes as JSON, one a line. Sample input is a population of scale factor 0.01, or of what
/// `LAMBDAFLOW_TPCH_SCALE` says, and refreshes from there on.
pub fn program() -> Program<Change> {
    Program::new("tpch", tpch).summary("twelve queries of TPC-H over rows that are inserted and deleted").samples(|seed| {
        generate::changes(seed, generate::scale_from_environment())
            .map(|change| serde_json::to_string(&change).expect("a change is representable as JSON"))
    })
}
