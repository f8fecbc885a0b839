//! `lambdaflow ingest`: a file into a log, or into a running server.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::log::Event;
use crate::runtime::service::{Numbered, Rejected};
use crate::runtime::{
    self, BatchCutter, IngestError, IngestOptions, Ingested, OVERLONG_LINE, OnError, ProducerMemory, Program, REJECTED_SHOWN_MAX,
    for_each_line,
};

use super::Failure;
use super::arguments::{Format, Ingest};
use super::client::{self, Sent};
use super::runnable::open;

/// Bytes between two updates of the progress bar.
const PROGRESS_STEP: u64 = 1 << 20;

pub(super) fn ingest<E: Event>(program: &Program<E>, arguments: &Ingest) -> Result<u8, Failure> {
    let started = Instant::now();
    let mut input = Input::open(arguments.file(), arguments.on_error)?;
    let bar = progress_bar(input.length);
    let mut rejects = arguments
        .rejects
        .as_ref()
        .map(File::create)
        .transpose()
        .map_err(|error| Failure::usage(format!("cannot write the rejects: {error}")))?
        .map(BufWriter::new);
    let rejects = rejects.as_mut().map(|file| file as &mut dyn Write);
    let mut shown = 0;
    let progress = |read: u64| {
        if read >= shown + PROGRESS_STEP || read < shown {
            shown = read;
            bar.set_position(read);
        }
    };
    let ingested = match &arguments.to {
        Some(server) => send(server, arguments, &mut input, rejects, progress),
        None => {
            let dir = arguments.log.as_ref().ok_or_else(|| Failure::usage("--log DIR or --to URL is missing"))?;
            let log = open::<E>(dir, arguments.durability)?;
            let options = IngestOptions { on_error: arguments.on_error, rejects, producer: arguments.producer.as_deref() };
            let ingested = runtime::ingest(program, &log, || input.again(), options, progress).map_err(|error| match error {
                IngestError::Log(error) => Failure::from(error),
                IngestError::Rejected { line, error } => no_event(
                    arguments.file(),
                    line,
                    &error,
                    "nothing was ingested; `--on-error skip` takes the others, `--rejects FILE` keeps what is left out",
                ),
                error => Failure::new(error, 5),
            });
            let closed = log.close();
            let ingested = ingested?;
            closed?;
            Ok(ingested)
        }
    }?;
    bar.finish_and_clear();
    report(&ingested, arguments, started.elapsed())?;
    Ok(0)
}

/// A line that is no event, where it stops everything.
fn no_event(file: &str, line: u64, error: &str, hint: &str) -> Failure {
    Failure::new(format!("{file}:{line}: {error}\n  hint: {hint}"), 1)
}

fn report(ingested: &Ingested, arguments: &Ingest, took: Duration) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    if arguments.format == Format::Json {
        writeln!(out, "{}", serde_json::to_string(ingested).map_err(std::io::Error::from)?)?;
        return Ok(());
    }
    let rate = ingested.accepted as f64 / took.as_secs_f64().max(1e-9);
    writeln!(
        out,
        "{} events in {:.2} s, {:.0} events/s; {} lines rejected",
        ingested.accepted,
        took.as_secs_f64(),
        rate,
        ingested.rejected
    )?;
    let mut notes = std::io::stderr().lock();
    for Rejected { line, error } in &ingested.first_rejected {
        writeln!(notes, "rejected {}:{line}: {error}", arguments.file())?;
    }
    if ingested.rejected > ingested.first_rejected.len() as u64 {
        writeln!(notes, "and {} more", ingested.rejected - ingested.first_rejected.len() as u64)?;
    }
    Ok(())
}

/// A file, or standard input, kept on disk if it must be read twice.
struct Input {
    file: Option<File>,
    length: Option<u64>,
}

impl Input {
    fn open(name: &str, on_error: OnError) -> Result<Self, Failure> {
        if name != "-" {
            let file = File::open(name).map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
            let length = file.metadata()?.len();
            return Ok(Self { file: Some(file), length: Some(length) });
        }
        if on_error == OnError::Skip {
            return Ok(Self { file: None, length: None });
        }
        // A pipe cannot be read twice, and `stop` promises that a bad line at the end takes nothing in.
        let mut kept = tempfile::tempfile()?;
        let length = std::io::copy(&mut std::io::stdin().lock(), &mut kept)?;
        Ok(Self { file: Some(kept), length: Some(length) })
    }

    /// The input from its beginning.
    fn again(&mut self) -> std::io::Result<Box<dyn BufRead>> {
        match &mut self.file {
            Some(file) => {
                file.seek(SeekFrom::Start(0))?;
                Ok(Box::new(BufReader::with_capacity(1 << 20, file.try_clone()?)))
            }
            None => Ok(Box::new(BufReader::with_capacity(1 << 20, std::io::stdin()))),
        }
    }
}

fn progress_bar(length: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

/// Sends lines to a server in requests, each of which is all or nothing.
fn send(
    server: &str,
    arguments: &Ingest,
    input: &mut Input,
    mut rejects: Option<&mut dyn Write>,
    mut progress: impl FnMut(u64),
) -> Result<Ingested, Failure> {
    let on_error = arguments.on_error;
    let mut done = Ingested::default();
    let (mut body, mut lines, mut sent) = (Vec::new(), 0u64, 0u64);
    let (mut next, mut memory) = (0u64, ProducerMemory::default());
    let mut flush = |body: &mut Vec<u8>, lines: &mut u64| -> Result<(), Failure> {
        if *lines == 0 {
            return Ok(());
        }
        let numbered = arguments.producer.clone().map(|producer| Numbered { producer, sequence: next });
        if numbered.is_some() && memory.has_forgotten(next) {
            (next, sent, done.accepted) = (next + 1, sent + *lines, done.accepted + *lines);
            (*lines, _) = (0, body.clear());
            return Ok(());
        }
        let answer = match client::append(server, body, on_error, numbered.as_ref())? {
            Sent::Taken(answer) => answer,
            Sent::TooOld(refusal) if next == 0 => {
                memory.learn(refusal).map_err(|error| Failure::new(error, 2))?;
                (next, sent, done.accepted) = (next + 1, sent + *lines, done.accepted + *lines);
                (*lines, _) = (0, body.clear());
                return Ok(());
            }
            Sent::TooOld(refusal) => return Err(Failure::new(refusal, 2)),
        };
        // A batch without events takes no number.
        next += u64::from(answer.token.is_some());
        done.accepted += answer.accepted;
        done.rejected += answer.rejected.len() as u64;
        done.last_tick = done.last_tick.max(answer.token.unwrap_or_default());
        let text: Vec<&[u8]> = body.split(|byte| *byte == b'\n').collect();
        for Rejected { line, error } in answer.rejected {
            if on_error == OnError::Stop {
                let hint = format!("the lines before line {} are in, none from there on; `--on-error skip` takes the others", sent + 1);
                return Err(no_event(arguments.file(), sent + line, &error, &hint));
            }
            if let (Some(rejects), Some(raw)) = (&mut rejects, text.get(line as usize - 1)) {
                rejects.write_all(raw)?;
                rejects.write_all(b"\n")?;
            }
            if done.first_rejected.len() < REJECTED_SHOWN_MAX {
                done.first_rejected.push(Rejected { line: sent + line, error });
            }
        }
        sent += *lines;
        *lines = 0;
        body.clear();
        Ok(())
    };
    let mut cutter = BatchCutter::default();
    for_each_line::<SendError>(input.again()?.take(u64::MAX), |_, line, read| {
        progress(read);
        // A line over the limit is sent cut: the server rejects it for what it is.
        let line = line.unwrap_or(OVERLONG_LINE);
        body.extend_from_slice(line);
        body.push(b'\n');
        lines += 1;
        if cutter.ends_with(line.len()) {
            flush(&mut body, &mut lines)?;
        }
        Ok(())
    })
    .map_err(|error| error.0)?;
    flush(&mut body, &mut lines)?;
    memory.check_reached(next).map_err(|error| Failure::new(error, 2))?;
    if let Some(rejects) = rejects {
        rejects.flush()?;
    }
    Ok(done)
}

struct SendError(Failure);
impl From<std::io::Error> for SendError {
    fn from(error: std::io::Error) -> Self {
        Self(error.into())
    }
}
impl From<Failure> for SendError {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}
