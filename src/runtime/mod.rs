//! Running a dataflow: programs, the server of one process, bulk loading.
//!
//! Deliberately absent: HTTP (that is `http`) and the command line; what decides completeness (the log's frontier does, no clock here).

mod audit;
mod build;
mod diff;
mod gather;
mod ingest;
mod joining;
mod lines;
mod members;
mod program;
mod server;
pub mod service;
mod waiting;

pub use audit::{audit_log, audit_log_in};
pub use diff::{Diff, DiffError, diff_log, diff_log_in};
pub use ingest::{
    BATCH_BYTES_MAX, BATCH_LINES_MAX, BatchCutter, IngestError, IngestOptions, Ingested, OVERLONG_LINE, ProducerMemory, REJECTED_SHOWN_MAX,
    ingest,
};
pub use joining::command_id;
pub use lines::{LINE_BYTES_MAX, for_each_line};
pub use program::{LineParser, OnError, Program, SampleLines};
pub use server::{KEEP_GENERATIONS, Server, ServerOptions, StartError};
pub use waiting::{APPENDS_PASSED_ON_MAX, CYCLES_WAITING_MAX, STATUS_WAITING_MAX};
