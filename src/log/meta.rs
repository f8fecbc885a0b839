//! `log.json`: what a log is. Written last when a log is created, never changed.
use super::document;
use super::error::LogError;
use super::event::{Event, EventType};
use super::frame::LogId;
use super::mark::{self, Mark};
use super::position::{Partition, Tick};
use crate::storage::{Disk, EntryKind, uninterrupted};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The file that makes a directory a log.
pub(crate) const META_NAME: &str = "log.json";
/// The file whose lock says that a process has the log open.
pub(crate) const LOCK_NAME: &str = "lock";
/// `columnar`'s layout carries no stability promise: it may change with each 0.x release.
const CODEC: &str = "columnar-0.13";
const ENDIANNESS: &str = if cfg!(target_endian = "little") { "little" } else { "big" };

/// The content of `log.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Meta {
    pub log_id: String,
    pub codec: String,
    pub endianness: String,
    pub event: EventType,
    pub partitions: u32,
}

/// What stands in a directory.
pub(crate) enum Found {
    /// Nothing, or what a creation left that was interrupted before the log existed.
    Nothing,
    /// A log.
    Log,
}

/// The directory of a partition.
pub(crate) fn partition_dir(dir: &Path, partition: Partition) -> PathBuf {
    dir.join(format!("p{:04}", partition.0))
}

/// Looks into a directory without touching it. A directory of something else is an error.
pub(crate) fn look(disk: &dyn Disk, dir: &Path) -> Result<Found, LogError> {
    let entries = match uninterrupted(|| disk.list(dir)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        listed => listed.map_err(|error| LogError::storage("list", dir, error))?,
    };
    if entries.iter().any(|entry| entry.name == META_NAME) {
        return Ok(Found::Log);
    }
    // Creation writes these names, and `log.json` after all of them.
    let ours = |name: &str| {
        name == LOCK_NAME || name == mark::NAME || name.strip_suffix(".tmp").is_some_and(|name| name == META_NAME || name == mark::NAME)
    };
    for entry in entries {
        let name = entry.name.to_string_lossy().into_owned();
        let partition = name.strip_prefix('p').is_some_and(|number| number.len() >= 4 && number.bytes().all(|byte| byte.is_ascii_digit()));
        let empty_partition = entry.kind == EntryKind::Directory
            && partition
            && uninterrupted(|| disk.list(&dir.join(&entry.name))).map_err(|error| LogError::storage("list", dir, error))?.is_empty();
        if !(empty_partition || entry.kind == EntryKind::File && ours(&name)) {
            return Err(LogError::NotALog { dir: dir.to_path_buf(), found: name });
        }
    }
    Ok(Found::Nothing)
}

impl Meta {
    /// Creates a log in a directory whose lock is held. `log.json` comes last: before it there is no log.
    pub fn create<E: Event>(disk: &dyn Disk, dir: &Path, partitions: u32) -> Result<Meta, LogError> {
        let meta = Meta {
            log_id: LogId::random().to_string(),
            codec: CODEC.to_string(),
            endianness: ENDIANNESS.to_string(),
            event: EventType::of::<E>(),
            partitions: partitions.max(1),
        };
        for partition in (0..meta.partitions).map(Partition) {
            let path = partition_dir(dir, partition);
            uninterrupted(|| disk.create_dir(&path)).map_err(|error| LogError::storage("create", &path, error))?;
        }
        let mark = Mark {
            log_id: meta.log_id.clone(),
            reserved: Tick::ZERO,
            clean: true,
            synced: true,
            ends: vec![Default::default(); meta.partitions as usize],
        };
        document::write(disk, dir, mark::NAME, &mark)?;
        document::write(disk, dir, META_NAME, &meta)?;
        if let Some(parent) = dir.parent() {
            // A name without a directory is in the current one.
            let here = parent.as_os_str().is_empty();
            let parent = if here { Path::new(".") } else { parent };
            disk.sync_dir(parent).map_err(|error| LogError::storage("sync", parent, error))?;
        }
        Ok(meta)
    }

    /// Reads `log.json`.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Meta, LogError> {
        let meta: Meta = document::read(disk, dir, META_NAME)?;
        meta.id(dir)?;
        Ok(meta)
    }

    /// The id of the log.
    pub fn id(&self, dir: &Path) -> Result<LogId, LogError> {
        LogId::parse(&self.log_id).ok_or_else(|| LogError::damaged_file(&dir.join(META_NAME), 0, format!("log id {:?}", self.log_id)))
    }

    /// Whether this program can read the log as events of type `E`.
    pub fn check<E: Event>(&self, dir: &Path) -> Result<(), LogError> {
        let expected = EventType::of::<E>();
        if self.event != expected {
            return Err(LogError::WrongEvent { dir: dir.to_path_buf(), found: self.event.to_string(), expected: expected.to_string() });
        }
        if self.codec != CODEC || self.endianness != ENDIANNESS {
            let found = format!("{}, {} endian", self.codec, self.endianness);
            let expected = format!("{CODEC}, {ENDIANNESS} endian");
            return Err(LogError::WrongLayout { dir: dir.to_path_buf(), found, expected });
        }
        Ok(())
    }
}
