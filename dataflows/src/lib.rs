//! The dataflows shipped with Lambdaflow, each a complete program that an author can copy.

pub mod bank;
pub mod graph;
pub mod nexmark;
pub mod super_web_analytics;
pub mod tpch;
pub mod web_analytics;
pub mod wordcount;
