//! Keeps the answers to twelve queries of TPC-H while rows come and go.
//!
//! An event is a [`Change`]: a row of one of the eight tables is inserted or deleted ([`rows`]). `queries` has one short
//! function for each query, [`views`] the rows of the answers with their units, and the parameters. [`generate`] makes the
//! rows of `dbgen` with orders that go again. [`mod@reference`] computes the same answers from the rows that are left, with
//! plain loops, and **must not share logic with the dataflow**: it is the oracle that the dataflow is held against.
//! [`published`] holds both against the answers that others have published, and `lambdaflow oracle tpch` the dataflow
//! against the specification's SQL.

pub mod date;
pub mod generate;
mod oracle;
pub mod published;
mod queries;
pub mod reference;
pub mod rows;
pub mod views;

pub use queries::{only, tpch};
pub use rows::Change;

use lambdaflow::prelude::Program;

/// The queries that are views, by name.
pub const QUERIES: [&str; 12] = ["q1", "q3", "q4", "q5", "q6", "q10", "q12", "q13", "q14", "q15", "q18", "q21"];

/// The program: reads changes as JSON, one a line. Sample input is a population of scale factor 0.01, or of what
/// `LAMBDAFLOW_TPCH_SCALE` says, and refreshes from there on.
pub fn program() -> Program<Change> {
    let json = |change| serde_json::to_string(&change).expect("a change is representable as JSON");
    Program::new("tpch", tpch)
        .summary("twelve queries of TPC-H over rows that are inserted and deleted")
        .samples(move |seed| generate::changes(seed, generate::scale_from_environment()).map(json))
        .oracle(oracle::oracle())
}
