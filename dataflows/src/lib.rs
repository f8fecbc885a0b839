//! The dataflows shipped with Lambdaflow, each a complete program that an author can copy.

pub mod bank;
pub mod graph;
#[cfg(feature = "benchmarks")]
pub mod nexmark;
pub mod super_web_analytics;
#[cfg(feature = "benchmarks")]
pub mod tpch;
pub mod web_analytics;
pub mod wordcount;
