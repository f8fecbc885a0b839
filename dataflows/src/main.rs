//! The program `lambdaflow`: the command line over the shipped dataflows.

use std::process::ExitCode;

fn main() -> ExitCode {
    lambdaflow::main_of(vec![Box::new(lambdaflow_dataflows::web_analytics::program())])
}
