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
}

impl Manifest {
    /// Rows in all files.
    pub fn rows(&self) -> u64 {
        self.files().map(|file| file.rows).sum()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files().map(|file| file.bytes).sum()
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
    /// A dataflow's name cannot be a directory's.
    #[error("{0:?} cannot name a dataflow\n  hint: letters, digits, `_` and `-`: it names a directory")]
    Name(String),
    /// It covers events that the log does not have: an older copy of the log was put back, or the log lost its end.
    #[error(
        "generation {id} is ahead of the log: it covers {covers} and the log has {has}\n  hint: put back the newer log; or give up what is missing with `lambdaflow generations rollback`"
    )]
    Ahead {
        /// Its number.
        id: u64,
        /// What it covers.
        covers: String,
        /// What the log has.
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
