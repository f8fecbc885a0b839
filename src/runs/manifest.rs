//! What is committed when a generation is: which files it is made of, and which part of which log it covers.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::merged::Digest;
use super::view::ViewInfo;
use crate::log::frame::{FORMAT, Flaw};
use crate::log::{LogError, Offset, Tick};

/// A generation as it is committed. Names everything that must be the same for its runs to be used again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Counts up with each commit of the dataflow.
    pub id: u64,
    /// Every event with a smaller tick is in, no other.
    pub frontier: Tick,
    /// Whether it was computed from the first event, not from the generation before.
    pub full: bool,
    /// What it is made of.
    pub contents: Contents,
    /// What both layers agreed on before the commit, by view: of the whole view if it is full, else of the changes since the
    /// generation before. Empty if there was nothing to compare with.
    pub agreed: Vec<(String, Digest)>,
}

/// What the files of a generation hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Fingerprint of the dataflow that computed it.
    #[serde(with = "hexadecimal")]
    pub fingerprint: u64,
    /// The part of the log that it covers.
    pub log: LogRange,
    /// The collections that are kept, in the order in which the dataflow asks for them.
    pub slots: Vec<SlotInfo>,
    /// The views, and the slots they are in.
    pub views: Vec<(ViewInfo, usize)>,
    /// The files of each shard, eldest first.
    pub shards: Vec<Vec<FileInfo>>,
}

/// The part of a log that a generation covers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRange {
    /// The log's id.
    pub id: String,
    /// How often facts were removed from the log before.
    pub revision: u64,
    /// By partition, the offset before which all events are in.
    pub ends: Vec<Offset>,
    /// Whether all of them were on stable storage: if not, the log may have lost some since.
    pub synced: bool,
}

impl LogRange {
    /// `ends` in a log of so many partitions: it may have grown since, and nothing was in its new ones. `None` when it has fewer.
    pub(crate) fn ends_in(&self, partitions: usize) -> Option<Vec<Offset>> {
        let new = partitions.checked_sub(self.ends.len())?;
        Some(self.ends.iter().copied().chain(std::iter::repeat_n(Offset(0), new)).collect())
    }
}

/// A collection that a dataflow keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotInfo {
    /// The operator, and the types as their author wrote them.
    pub name: String,
    /// Fingerprint of the types and of their layout.
    #[serde(with = "hexadecimal")]
    pub types: u64,
}

/// A file of runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Names the file.
    pub number: u64,
    /// Its size.
    pub bytes: u64,
    /// Rows in all of its runs.
    pub rows: u64,
    /// Checksum of its footer, which covers all of it: another file of the same number is not taken for this one.
    pub crc: u32,
}

impl Contents {
    /// Joined with the part of the next process.
    pub fn and(mut self, next: Self) -> Self {
        self.shards.extend(next.shards);
        // Each process names the ends of its own partitions.
        self.log.ends = self.log.ends.iter().zip(&next.log.ends).map(|(a, b)| *a.max(b)).collect();
        self.log.synced &= next.log.synced;
        self
    }
}

impl Manifest {
    /// Rows in all files.
    pub fn rows(&self) -> u64 {
        self.files().fold(0, |rows, file| rows.saturating_add(file.rows))
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files().fold(0, |bytes, file| bytes.saturating_add(file.bytes))
    }

    /// What cannot be, whatever was computed.
    pub(super) fn flaw(&self) -> Option<String> {
        let slots = self.contents.slots.len();
        let outside = self.contents.views.iter().find(|(_, slot)| *slot >= slots);
        match outside {
            Some((view, slot)) => Some(format!("view `{}` in slot {slot} of {slots}", view.name)),
            None => self.contents.shards.is_empty().then(|| "no shards".to_owned()),
        }
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &FileInfo> {
        self.contents.shards.iter().flatten()
    }
}

/// Why a generation cannot be written, read or used.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GenerationError {
    /// Storage failed, or a manifest is damaged.
    #[error(transparent)]
    Storage(#[from] LogError),
    /// A file of runs is not what was written.
    #[error("{} is damaged at byte {byte}: {what}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where it shows.
        byte: u64,
        /// What was found there, and what was expected.
        what: String,
    },
    /// It belongs to something else: another log, program, or revision of the log.
    #[error("generation {id} {why}")]
    Unusable {
        /// Its number.
        id: u64,
        /// Why it cannot be used here.
        why: String,
    },
    /// It was given up because the process ends.
    #[error("stopped")]
    Stopped,
    /// A dataflow's name cannot be a directory's.
    #[error("{0:?} cannot name a dataflow\n  hint: letters, digits, `_` and `-`: it names a directory")]
    Name(String),
    /// It covers events that the log does not have: an older copy of the log was put back, or the log lost its end.
    #[error(
        "generation {id} is ahead of the log: everything before tick {frontier} ended at offsets {covers}, in the log it ends at {has}\n  hint: put back the newer log; or give up what is missing with `lambdaflow generations rollback`"
    )]
    Ahead {
        /// Its number.
        id: u64,
        /// Its frontier.
        frontier: Tick,
        /// By partition, where the part that it covers ended.
        covers: String,
        /// By partition, where that part of the log ends now.
        has: String,
    },
}

impl GenerationError {
    pub(super) fn flawed(file: &Path, flaw: Flaw) -> Self {
        match flaw.newer {
            Some(found) => LogError::NewerFormat { path: file.to_path_buf(), found, supported: FORMAT }.into(),
            None => Self::Damaged { file: file.to_path_buf(), byte: flaw.at, what: flaw.what },
        }
    }

    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Storage(error) => error.exit_code(),
            Self::Damaged { .. } | Self::Ahead { .. } => 3,
            Self::Unusable { .. } | Self::Name(_) => 2,
            Self::Stopped => 1,
        }
    }
}

/// 64 bits as 16 digits: JSON's numbers lose the last of them in many readers.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{value:016x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let digits = String::deserialize(deserializer)?;
        u64::from_str_radix(&digits, 16).map_err(D::Error::custom)
    }
}
