//! The program `lambdaflow`: the command line over the shipped dataflows.

use std::process::ExitCode;

use lambdaflow_dataflows::{bank, graph, super_web_analytics, web_analytics, wordcount};
#[cfg(feature = "benchmarks")]
use lambdaflow_dataflows::{nexmark, tpch};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    lambdaflow::main_of(vec![
        Box::new(web_analytics::program()),
        Box::new(wordcount::program()),
        Box::new(bank::program()),
        #[cfg(feature = "benchmarks")]
        Box::new(nexmark::program()),
        #[cfg(feature = "benchmarks")]
        Box::new(tpch::program()),
        Box::new(super_web_analytics::program()),
        Box::new(graph::program()),
    ])
}
