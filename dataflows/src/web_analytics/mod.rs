//! Answers questions about a web site from its access log.
//!
//! Requests arrive as lines of an access log ([`parse`]) or from a seeded [`generate::Generator`].
//! [`views`] has the typed rows of every view; [`mod@reference`] computes the same answers without any
//! dataflow, and **must not share logic with it**: it is the oracle that the dataflow is held against.

mod calendar;
mod dataflow;
pub mod generate;
pub mod parse;
pub mod reference;
mod request;
pub mod views;

pub use dataflow::{Hits, web_analytics};
pub use request::{Request, RequestContainer, RequestReference};

use generate::{Generator, GeneratorOptions, to_combined_line};
use lambdaflow::prelude::Program;

/// The program: reads access logs in the combined format, or the same fields as JSON.
pub fn program() -> Program<Request> {
    Program::new("web_analytics", web_analytics)
        .summary("hits, visitors, sessions, referrers and top paths of a web site, from its access log")
        .lines(parse::parse_any)
        .samples(|seed| Generator::new(seed, GeneratorOptions::default()).map(|request| to_combined_line(&request)))
}
