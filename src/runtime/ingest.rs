//! Bulk loading: lines of input into a log that no server has open.

use std::io::{BufRead, Write};

use crate::log::{Event, Log, LogError, Tick};

use super::lines::for_each_line;
use super::program::{OnError, Program};
use super::service::Rejected;

/// Rejected lines that are kept for the report; all are counted, and written to the rejects file if there is one.
pub const REJECTED_SHOWN_MAX: usize = 20;

/// What an ingestion took and what it left.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Ingested {
    /// Events that are on disk.
    pub accepted: u64,
    /// Lines that are no events.
    pub rejected: u64,
    /// The first of them.
    pub first_rejected: Vec<Rejected>,
    /// The highest tick that an event got.
    pub last_tick: Tick,
}

/// Why an ingestion ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// The input could not be read, or the rejects not be written.
    #[error("cannot read the input or write the rejects: {0}")]
    Input(#[from] std::io::Error),
    /// The log refused.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A line is no event, and `stop` was asked for.
    #[error("line {line} is no event: {error}\n  hint: nothing was ingested; `--on-error skip` takes the others, `--rejects FILE` keeps what is left out")]
    Rejected {
        /// Its number, from 1.
        line: u64,
        /// Why.
        error: String,
    },
}

/// Appends the events of an input. With [`OnError::Stop`] the whole input is read once before the first append, so that a
/// bad line anywhere leaves the log as it was; the input must then be given twice.
pub fn ingest<E: Event>(
    program: &Program<E>,
    log: &Log<E>,
    mut input: impl FnMut() -> std::io::Result<Box<dyn BufRead>>,
    on_error: OnError,
    mut rejects: Option<&mut dyn Write>,
    mut progress: impl FnMut(u64),
) -> Result<Ingested, IngestError> {
    if on_error == OnError::Stop {
        check(program, input()?)?;
    }
    let mut done = Ingested::default();
    let mut bulk = log.bulk();
    for_each_line::<IngestError>(input()?, |line, bytes, read| {
        progress(read);
        let raw = bytes.as_ref().ok().copied();
        match bytes.and_then(|bytes| program.parse(bytes)) {
            Ok(event) => bulk.push(&event)?,
            Err(error) => {
                if let (Some(rejects), Some(raw)) = (&mut rejects, raw) {
                    rejects.write_all(raw)?;
                    rejects.write_all(b"\n")?;
                }
                done.rejected += 1;
                if done.first_rejected.len() < REJECTED_SHOWN_MAX {
                    done.first_rejected.push(Rejected { line, error });
                }
            }
        }
        Ok(())
    })?;
    let ack = bulk.finish()?;
    if let Some(rejects) = rejects {
        rejects.flush()?;
    }
    done.accepted = ack.events();
    done.last_tick = ack.last_tick();
    Ok(done)
}

/// Reads the whole input and fails at the first line that is no event.
fn check<E: Event>(program: &Program<E>, input: impl BufRead) -> Result<(), IngestError> {
    for_each_line(input, |line, bytes, _| match bytes.and_then(|bytes| program.parse(bytes)) {
        Ok(_) => Ok(()),
        Err(error) => Err(IngestError::Rejected { line, error }),
    })?;
    Ok(())
}
