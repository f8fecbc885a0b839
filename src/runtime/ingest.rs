//! Bulk loading: lines of input into a log that no server has open.
//!
//! A producer's input is cut into batches by its lines alone, and the batches are numbered: the same input makes the same
//! batches, so what an ingestion that was killed got in is recognised by the next one.

use std::collections::VecDeque;
use std::io::{BufRead, Write};

use columnar::{ContainerOf, Len, Push};
use crossbeam::channel::Receiver;

use crate::log::{Ack, BULK_FRAMES_IN_FLIGHT_MAX, BulkAppender, Event, Log, LogError, Offset, ProducerError, Tick};

use super::lines::for_each_line;
use super::program::{OnError, Program};
use super::service::Rejected;

/// Rejected lines that are kept for the report; all are counted, and written to the rejects file if there is one.
pub const REJECTED_SHOWN_MAX: usize = 20;

/// Lines of a batch. Where batches end is part of what makes a repeated ingestion recognisable, so this never changes.
pub const BATCH_LINES_MAX: usize = 50_000;
/// Bytes of a batch's lines, with their ends, at which it is full. As [`BATCH_LINES_MAX`], it never changes. 4 MiB.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// Says where batches end.
#[derive(Clone, Debug, Default)]
pub struct BatchCutter {
    lines: usize,
    bytes: usize,
}

impl BatchCutter {
    /// Counts a line of so many bytes without its end; whether the batch ends with it.
    pub fn ends_with(&mut self, line_bytes: usize) -> bool {
        self.lines += 1;
        self.bytes += line_bytes + 1;
        let full = self.lines >= BATCH_LINES_MAX || self.bytes >= BATCH_BYTES_MAX;
        if full {
            *self = Self::default();
        }
        full
    }
}

/// What stands for a line over the limit.
pub const OVERLONG_LINE: &[u8] = b"(a line over the limit)";

/// How an input is taken in.
#[derive(Default)]
pub struct IngestOptions<'a> {
    /// What happens to lines that are no events.
    pub on_error: OnError,
    /// Where they go, if they are kept.
    pub rejects: Option<&'a mut dyn Write>,
    /// The name under which the input's batches are numbered: of an input that is given again under the same name, nothing is
    /// stored twice. Batches that are too old to be compared are taken to be the same, if those after them are.
    pub producer: Option<&'a str>,
}

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
    #[error(
        "line {line} is no event: {error}\n  hint: nothing was ingested; `--on-error skip` takes the others, `--rejects FILE` keeps what is left out"
    )]
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
    options: IngestOptions<'_>,
    mut progress: impl FnMut(u64),
) -> Result<Ingested, IngestError> {
    let IngestOptions { on_error, mut rejects, producer } = options;
    if on_error == OnError::Stop {
        check(program, input()?)?;
    }
    let mut done = Ingested::default();
    let mut sink = match producer {
        Some(producer) => Sink::Numbered(NumberedBatches::new(log, producer)),
        None => Sink::Bulk(log.bulk()),
    };
    let mut cutter = BatchCutter::default();
    for_each_line::<IngestError>(input()?, |line, bytes, read| {
        progress(read);
        let raw = bytes.as_ref().ok().copied();
        let ends = cutter.ends_with(raw.unwrap_or(OVERLONG_LINE).len());
        match bytes.and_then(|bytes| program.parse(bytes)) {
            Ok(event) => sink.push(&event)?,
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
        if ends { Ok(sink.end_batch()?) } else { Ok(()) }
    })?;
    (done.accepted, done.last_tick) = sink.finish()?;
    if let Some(rejects) = rejects {
        rejects.flush()?;
    }
    Ok(done)
}

/// Where events go.
enum Sink<'a, E: Event> {
    /// Into the log's own frames.
    Bulk(BulkAppender<E>),
    /// Into the producer's batches.
    Numbered(NumberedBatches<'a, E>),
}

impl<E: Event> Sink<'_, E> {
    fn push(&mut self, event: &E) -> Result<(), LogError> {
        match self {
            Sink::Bulk(bulk) => bulk.push(event),
            Sink::Numbered(batches) => {
                batches.columns.push(event);
                Ok(())
            }
        }
    }

    fn end_batch(&mut self) -> Result<(), LogError> {
        match self {
            Sink::Bulk(_) => Ok(()),
            Sink::Numbered(batches) => batches.end(),
        }
    }

    /// Events that are in the log, and the last tick of them that is known.
    fn finish(self) -> Result<(u64, Tick), LogError> {
        match self {
            Sink::Bulk(bulk) => bulk.finish().map(|ack| (ack.events(), ack.last_tick())),
            Sink::Numbered(batches) => batches.finish(),
        }
    }
}

/// Appends batches under a producer's name: one at a time while they are in the log already, so that nothing is stored after one
/// that differs; some at a time from the first new one on.
struct NumberedBatches<'a, E: Event> {
    log: &'a Log<E>,
    producer: &'a str,
    columns: ContainerOf<E>,
    /// The number of the batch that is being made.
    next: u64,
    memory: ProducerMemory,
    /// Where the producer's partition ended at the start: what gets a later offset is new.
    end: Offset,
    /// A batch was new, so all that follow are.
    anew: bool,
    waiting: VecDeque<Receiver<Result<Ack, LogError>>>,
    events: u64,
    last_tick: Tick,
}

impl<'a, E: Event> NumberedBatches<'a, E> {
    fn new(log: &'a Log<E>, producer: &'a str) -> Self {
        let (columns, memory, waiting) = Default::default();
        let end = log.end_for(producer);
        NumberedBatches { log, producer, columns, next: 0, memory, end, anew: false, waiting, events: 0, last_tick: Tick::ZERO }
    }

    fn end(&mut self) -> Result<(), LogError> {
        let columns = std::mem::take(&mut self.columns);
        let events = columns.len() as u64;
        if events == 0 {
            return Ok(());
        }
        let sequence = self.next;
        self.next += 1;
        if self.memory.has_forgotten(sequence) {
            self.events += events;
            return Ok(());
        }
        self.waiting.push_back(self.log.submit_as(self.producer, sequence, columns)?);
        if sequence == 0 {
            // Its answer says where to go on.
            return match self.wait_for_oldest() {
                Err(LogError::Producer(error)) => {
                    self.events += events;
                    self.memory.learn(error).map_err(LogError::from)
                }
                waited => waited,
            };
        }
        if !self.anew || self.waiting.len() >= BULK_FRAMES_IN_FLIGHT_MAX { self.wait_for_oldest() } else { Ok(()) }
    }

    fn wait_for_oldest(&mut self) -> Result<(), LogError> {
        if let Some(answer) = self.waiting.pop_front() {
            let ack = answer.recv().unwrap_or(Err(LogError::Closed))?;
            self.anew |= ack.first_offset() >= self.end;
            self.events += ack.count();
            self.last_tick = self.last_tick.max(ack.tick());
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(u64, Tick), LogError> {
        self.end()?;
        while !self.waiting.is_empty() {
            self.wait_for_oldest()?;
        }
        self.memory.check_reached(self.next)?;
        Ok((self.events, self.last_tick))
    }
}

/// What a log still knows of the batches of a producer, as far as it has said.
#[derive(Clone, Debug, Default)]
pub struct ProducerMemory {
    refusal: Option<ProducerError>,
}

impl ProducerMemory {
    /// Takes in that a number was too old; any other refusal is one.
    pub fn learn(&mut self, error: ProducerError) -> Result<(), ProducerError> {
        match error {
            ProducerError::TooOld { .. } => {
                self.refusal = Some(error);
                Ok(())
            }
            error => Err(error),
        }
    }

    /// Whether a batch is in the log and too old to be compared.
    pub fn has_forgotten(&self, sequence: u64) -> bool {
        matches!(self.refusal, Some(ProducerError::TooOld { oldest, .. }) if sequence < oldest)
    }

    /// An error if all of `count` batches were too old to be compared: then this may be another input.
    pub fn check_reached(&self, count: u64) -> Result<(), ProducerError> {
        match &self.refusal {
            Some(refusal) if count > 0 && self.has_forgotten(count - 1) => Err(refusal.clone()),
            _ => Ok(()),
        }
    }
}

/// Reads the whole input and fails at the first line that is no event.
fn check<E: Event>(program: &Program<E>, input: impl BufRead) -> Result<(), IngestError> {
    for_each_line(input, |line, bytes, _| match bytes.and_then(|bytes| program.parse(bytes)) {
        Ok(_) => Ok(()),
        Err(error) => Err(IngestError::Rejected { line, error }),
    })?;
    Ok(())
}
