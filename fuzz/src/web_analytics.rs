//! How requests are read and written, as the crate of the dataflows has it.
#![allow(dead_code, missing_docs, reason = "the targets use a part")]

#[path = "../../dataflows/src/web_analytics/calendar.rs"]
mod calendar;
#[path = "../../dataflows/src/web_analytics/generate.rs"]
pub mod generate;
#[path = "../../dataflows/src/web_analytics/parse.rs"]
pub mod parse;
#[path = "../../dataflows/src/web_analytics/request.rs"]
mod request;

pub use request::Request;
