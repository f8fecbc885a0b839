//! The dataflows shipped with Lambdaflow, each a complete program that an author can copy.

pub mod nexmark;
pub mod web_analytics;
