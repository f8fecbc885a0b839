//! What a running dataflow offers to clients, whatever its types.

use serde::{Deserialize, Serialize};

use crate::layers::{Cycle, CycleError, Handover};
use crate::log::{LogError, Offset, Partition, ProducerError, Tick};
use crate::runs::{Audit, ReadError, ViewInfo};
use crate::serving::{Answer, Full, Read, ServeError};

use super::program::OnError;

/// How the lines of an append are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// JSON, one event a line.
    Json,
    /// The dataflow's own format.
    Lines,
}

/// What became of an append.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// The tick of the events: a read with `at_least` of it has them. None if nothing was taken.
    pub token: Option<Tick>,
    /// Events that are on disk now.
    pub accepted: u64,
    /// Lines that are no events.
    pub rejected: Vec<Rejected>,
    /// The partition of the events, of a numbered append.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<Partition>,
    /// The offset of the first event, of a numbered append. A repeated one is answered as it was the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_offset: Option<Offset>,
}

/// How a producer numbers an append: it is stored once, however often it is repeated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Numbered {
    /// The producer's name.
    pub producer: String,
    /// From 0 on, without gaps. An append without events takes no number.
    pub sequence: u64,
}

/// A line that is no event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Its number, from 1.
    pub line: u64,
    /// Why.
    pub error: String,
}

/// What the cluster is doing, as one of its processes knows it; what that process has of it is its share.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The dataflow's name.
    pub dataflow: String,
    /// The generation that the process serves. All switch to the next one in the same handover, one after the other.
    pub generation: u64,
    /// Its frontier.
    pub base: Tick,
    /// Everything before it is complete in every view.
    pub frontier: Tick,
    /// Workers of each layer, in each process.
    pub workers: usize,
    /// The processes of the cluster; one if there is none.
    pub processes: Vec<ProcessStatus>,
    /// The layers.
    pub layers: Layers,
    /// Where the first answers came from.
    pub started: String,
    /// The last handover, with its audit.
    pub last_handover: Option<Handover>,
    /// How many handovers there have been since the start.
    pub handovers: Option<u64>,
    /// What went wrong in the last cycle, if it ended without a handover.
    pub last_error: Option<String>,
    /// Why it is not known how batch cycles go: process 0 runs them, and did not say. Then `running` of the batch layer,
    /// `last_handover`, `handovers` and `last_error` are none.
    pub cycles_unknown: Option<String>,
    /// What the process has of generation and log.
    pub share: ShareStatus,
}

/// How batch cycles go.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The cycle that is running, if one is.
    pub running: Option<Cycle>,
    /// The last handover, with its audit.
    pub last_handover: Option<Handover>,
    /// How many handovers there have been since the start.
    pub handovers: u64,
    /// What went wrong in the last cycle, if it ended without a handover.
    pub last_error: Option<String>,
}

/// What one process has of generation and log; everything, if it is the only one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShareStatus {
    /// The process.
    pub process: usize,
    /// How many processes there are.
    pub of: usize,
    /// Its runs of the generation being served.
    pub runs: usize,
    /// Rows in them.
    pub rows: usize,
    /// Its partitions of the log.
    pub log: serde_json::Value,
}

/// A process of the cluster, as the one that answers sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Its number.
    pub process: usize,
    /// Where the others reach it; empty if there are none.
    pub address: String,
    /// It is the one that answers.
    pub own: bool,
    /// How long ago something was heard of it, in milliseconds.
    pub silent_ms: u64,
}

/// What the two layers are doing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Layers {
    /// The batch layer.
    pub batch: BatchStatus,
    /// The speed layer.
    pub speed: SpeedStatus,
}

/// The batch layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BatchStatus {
    /// Everything before it is in the generation being served.
    pub frontier: Tick,
    /// The cycle that is running, if one is.
    pub running: Option<Cycle>,
}

/// The speed layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpeedStatus {
    /// Everything before it is complete.
    pub frontier: Tick,
    /// How many ticks it is behind the process's share of the log.
    pub behind: u64,
}

/// A request that could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The log refused.
    #[error(transparent)]
    Log(#[from] LogError),
    /// There is no answer.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The cycle ended without a handover.
    #[error(transparent)]
    Cycle(#[from] CycleError),
    /// As many cycles as may wait do.
    #[error(
        "{} cycles wait already\n  hint: ask again when one has ended; GET /v1/status says what runs",
        super::waiting::CYCLES_WAITING_MAX
    )]
    TooManyCycles,
    /// As many requests as may wait for another process do. Of an append it is open whether it is stored; it can be repeated.
    #[error(transparent)]
    Full(#[from] Full),
    /// The dataflow reads JSON only.
    #[error("`{0}` has no line format of its own\n  hint: send JSON, one event a line")]
    NoLineFormat(String),
    /// Another process of the cluster refused, or did not answer. Of an append that did not answer it is open whether it is
    /// stored; a numbered one can be repeated.
    #[error("{message}")]
    Elsewhere {
        /// What it said.
        message: String,
        /// What kind of error it is there.
        kind: ErrorKind,
    },
}

/// What an error means to whoever asked, on whichever process it occurred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ErrorKind {
    /// The request is not understood, or can never be carried out.
    Invalid,
    /// There is no such view.
    NoSuchView,
    /// The dataflow reads no such format.
    Format,
    /// The request is too large: send it in parts.
    TooLarge,
    /// The request does not fit what is there: other numbers of a producer, a tick that is not complete, layers that differ.
    Conflict,
    /// The tick is no longer readable.
    Gone,
    /// What it waited for did not come in time.
    TimedOut,
    /// There is no room on the disk.
    OutOfSpace,
    /// Not now: ask again.
    Unavailable,
    /// It failed, and nobody knows that it would not again.
    Failed,
}

impl ServiceError {
    /// What kind of error it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Log(LogError::Producer(ProducerError::Name { .. })) => ErrorKind::Invalid,
            Self::Log(LogError::Producer(_)) => ErrorKind::Conflict,
            Self::Log(LogError::TooLarge { .. }) => ErrorKind::TooLarge,
            Self::Log(LogError::OutOfSpace { .. }) => ErrorKind::OutOfSpace,
            Self::Log(_) | Self::TooManyCycles | Self::Full(_) => ErrorKind::Unavailable,
            Self::NoLineFormat(_) => ErrorKind::Format,
            Self::Serve(error) => match error {
                ServeError::NoSuchView { .. } => ErrorKind::NoSuchView,
                ServeError::NotReady | ServeError::TooManyWaiting | ServeError::Unreachable { .. } => ErrorKind::Unavailable,
                ServeError::TimedOut { .. } => ErrorKind::TimedOut,
                ServeError::Read(ReadError::NotAKey { .. }) => ErrorKind::Invalid,
                ServeError::Read(ReadError::TooOld { .. }) => ErrorKind::Gone,
                ServeError::Read(ReadError::NotYet { .. }) => ErrorKind::Conflict,
            },
            Self::Cycle(CycleError::Differs { .. }) => ErrorKind::Conflict,
            Self::Cycle(CycleError::Step { .. }) => ErrorKind::Failed,
            Self::Elsewhere { kind, .. } => *kind,
        }
    }
}

/// A running dataflow.
pub trait Service: Send + Sync {
    /// Appends the events of some lines, all or none unless `on_error` says to skip. Returns when they are on disk.
    fn append(&self, lines: &[u8], format: Format, on_error: OnError) -> Result<Appended, ServiceError>;
    /// As [`Service::append`], of a producer that numbers its appends: see [`Log::append_as`](crate::log::Log::append_as).
    fn append_as(&self, numbered: &Numbered, lines: &[u8], format: Format, on_error: OnError) -> Result<Appended, ServiceError>;
    /// Answers a read.
    fn read(&self, read: &Read) -> Result<Answer, ServiceError>;
    /// Names and columns of the views.
    fn views(&self) -> Vec<ViewInfo>;
    /// What the cluster is doing, as this process knows it.
    fn status(&self) -> Status;
    /// Runs a batch cycle now and returns when it has been switched to.
    fn cycle(&self, cycle: Cycle) -> Result<Handover, ServiceError>;
    /// Recomputes the answers in the batch layer and compares; nothing is switched.
    fn audit(&self) -> Result<Vec<Audit>, ServiceError>;
}
