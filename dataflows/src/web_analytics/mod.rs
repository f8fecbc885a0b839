//! Answers questions about a web site from its access log.
//!
//! Requests arrive as lines of an access log ([`parse`]) or from a seeded [`generate::Generator`].
//! [`views`] has the typed rows of every view; [`reference`] computes the same answers without any
//! dataflow, and **must not share logic with it**: it is the oracle that the dataflow is held against.

mod calendar;
pub mod generate;
pub mod parse;
pub mod reference;
mod request;
pub mod views;

pub use request::{Request, RequestContainer, RequestReference};
