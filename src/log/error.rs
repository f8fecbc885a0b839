//! Everything that can go wrong with a log, sorted by what the caller must do next.
use super::meta::EVENT_TYPES_MAX;
use super::options::Share;
use super::position::{Partition, Tick};
use super::producers::ProducerError;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why an operation on a log failed. Cheap to clone: one failed group commit answers many callers.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The directory is absent or empty.
    #[error("there is no log in {}\n  hint: `ingest` or `run` creates one", dir.display())]
    NoLog {
        /// The directory that was named.
        dir: PathBuf,
    },
    /// The directory holds something else.
    #[error("{} is not a log: it holds {found:?} and no log.json\n  hint: name a new or an empty directory; nothing was changed", dir.display())]
    NotALog {
        /// The directory that was named.
        dir: PathBuf,
        /// One of the names found in it.
        found: String,
    },
    /// Another process (or another handle of this one) has the log open.
    #[error("log {} is in use by process {pid}\n  hint: stop that process, or ask it instead", dir.display())]
    InUse {
        /// The log's directory.
        dir: PathBuf,
        /// The process that holds the lock, as it wrote into the lock file.
        pid: String,
    },
    /// The partition belongs to another process's share of the log.
    #[error("partition {partition} belongs to share {owner}, this process has share {} of {}\n  hint: append to it through process {owner}", share.index, share.of)]
    NotOwned {
        /// The partition.
        partition: Partition,
        /// The index of the share it belongs to.
        owner: u32,
        /// The share of this log.
        share: Share,
    },
    /// The log cannot be opened by such a share.
    #[error("share {} of {} of log {} cannot be opened: {why}", share.index, share.of, dir.display())]
    WrongShare {
        /// The log's directory.
        dir: PathBuf,
        /// The share that was asked for.
        share: Share,
        /// What is wrong with it.
        why: String,
    },
    /// The log holds events of another type, or another version of it.
    #[error("log {} holds {found}, this program reads {expected}\n  hint: name the log of this program, or run the program that wrote it", dir.display())]
    WrongEvent {
        /// The log's directory.
        dir: PathBuf,
        /// The type the log was created with.
        found: String,
        /// The type it was opened with.
        expected: String,
    },
    /// The log was written to by a newer version of the program.
    #[error("log {} holds {found} since a newer version of the program wrote to it, this program reads and writes {expected}\n  hint: use the newer version; nothing was changed", dir.display())]
    EarlierProgram {
        /// The log's directory.
        dir: PathBuf,
        /// The type events are written in now.
        found: String,
        /// The type it was opened with, of which the log has older blocks.
        expected: String,
    },
    /// Each change of the event type takes a number.
    #[error("log {} has had {EVENT_TYPES_MAX} event types\n  hint: `log rewrite` leaves one", dir.display())]
    TooManyTypes {
        /// The log's directory.
        dir: PathBuf,
    },
    /// The bytes of the blocks are laid out in another way than this program reads them.
    #[error("log {} is laid out as {found}, this program reads {expected}\n  hint: `log rewrite` with the program that wrote it", dir.display())]
    WrongLayout {
        /// The log's directory.
        dir: PathBuf,
        /// Codec and byte order of the log.
        found: String,
        /// Codec and byte order of this program.
        expected: String,
    },
    /// A newer release wrote this.
    #[error("{} was written by format version {found}, this is version {supported}\n  hint: use a newer release; nothing was changed", path.display())]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// The version it says.
        found: u64,
        /// The newest version this program reads.
        supported: u32,
    },
    /// Bytes on disk are not what was written.
    #[error("{0}")]
    Damaged(Damage),
    /// The storage refused an operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Storage {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// No space or no inodes are left.
    #[error("cannot {action} {}: no space or no inodes left\n  hint: make room and start again; what was acknowledged is safe", path.display())]
    OutOfSpace {
        /// What was tried.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
    },
    /// An earlier failure stopped the log: what is on disk is unknown until it is opened again.
    #[error("the log stopped after a failure: {cause}\n  hint: start again; what was acknowledged is safe")]
    Stopped {
        /// The first failure.
        cause: String,
    },
    /// [`Log::close`](super::Log::close) was called.
    #[error("the log is closed")]
    Closed,
    /// A batch of events is larger than one group may be.
    #[error(
        "a batch of {events} events and {bytes} bytes is over the limit of {events_max} events and {bytes_max} bytes\n  hint: append it in parts"
    )]
    TooLarge {
        /// Events in the batch.
        events: usize,
        /// Bytes of the batch in columnar layout.
        bytes: usize,
        /// The limit in events.
        events_max: usize,
        /// The limit in bytes.
        bytes_max: usize,
    },
    /// An append of a producer that may not be stored.
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// A condition that says which events are meant is not understood.
    #[error("{what}")]
    Condition {
        /// What is wrong with it.
        what: String,
    },
    /// The directory that something new is written into is not empty.
    #[error("{} holds {found:?}\n  hint: name a new or an empty directory; nothing was changed", dir.display())]
    NotEmpty {
        /// The directory that was named.
        dir: PathBuf,
        /// One of the names found in it.
        found: String,
    },
    /// A batch without events has no offset and cannot be acknowledged.
    #[error("an empty batch cannot be appended")]
    Empty,
}

/// What is damaged, where, and how it shows.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// The partition, when the file belongs to one.
    pub partition: Option<Partition>,
    /// The file.
    pub file: PathBuf,
    /// The byte in the file at which it shows.
    pub byte: u64,
    /// What was found there, and what was expected.
    pub what: String,
    /// Readers may have been given everything before this tick.
    pub intact_before: Option<Tick>,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        match self.partition {
            Some(partition) => write!(f, "segment {name} of partition {partition} is damaged at byte {}: {}", self.byte, self.what)?,
            None => write!(f, "{name} is damaged at byte {}: {}", self.byte, self.what)?,
        }
        write!(f, "\n  hint: `log verify DIR` lists all damage")?;
        match self.intact_before {
            Some(tick) => write!(f, "; nothing from tick {tick} on was read"),
            None => write!(f, "; nothing was changed"),
        }
    }
}

impl LogError {
    /// The exit code of a process that ends with this error: 2 usage, 3 data damaged, 5 storage failed or full, 6 in use.
    pub fn exit_code(&self) -> u8 {
        match self {
            LogError::NoLog { .. }
            | LogError::NotALog { .. }
            | LogError::WrongEvent { .. }
            | LogError::EarlierProgram { .. }
            | LogError::TooManyTypes { .. }
            | LogError::Producer(_)
            | LogError::Condition { .. }
            | LogError::NotEmpty { .. }
            | LogError::WrongLayout { .. }
            | LogError::NewerFormat { .. }
            | LogError::TooLarge { .. }
            | LogError::NotOwned { .. }
            | LogError::WrongShare { .. }
            | LogError::Closed
            | LogError::Empty => 2,
            LogError::Damaged(_) => 3,
            LogError::Storage { .. } | LogError::OutOfSpace { .. } | LogError::Stopped { .. } => 5,
            LogError::InUse { .. } => 6,
        }
    }

    /// An error of the operating system while doing `action` on `path`.
    pub(crate) fn storage(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => LogError::OutOfSpace { action, path },
            _ => LogError::Storage { action, path, source: Arc::new(source) },
        }
    }

    /// Damage in a file that belongs to no partition.
    pub(crate) fn damaged_file(file: &Path, byte: u64, what: impl Into<String>) -> Self {
        LogError::Damaged(Damage { partition: None, file: file.to_path_buf(), byte, what: what.into(), intact_before: None })
    }
}
