//! The program `lambdaflow`: the command line over the shipped dataflows.

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    lambdaflow::main_of(vec![Box::new(lambdaflow_dataflows::web_analytics::program()), Box::new(lambdaflow_dataflows::nexmark::program())])
}
