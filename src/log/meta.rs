//! `log.json`: what a log is. Written last when a log is created, and again when a program with a new event type opens it, or
//! when it gets more partitions.
use super::document;
use super::error::LogError;
use super::event::{Event, EventType, Types};
use super::frame::LogId;
use super::mark::{self, Mark, share_of_name};
use super::place;
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
    /// The type that events are written in.
    pub event: EventType,
    /// All types there are blocks of, by the number in the blocks; empty in logs that never had another than `event`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<EventType>,
    pub partitions: u32,
    /// How many partitions producers are spread over, when the log has grown since it was created: all appends of a producer stay
    /// in one partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub producer_partitions: Option<u32>,
}

/// Partitions of a log. 65,536.
pub const PARTITIONS_MAX: u32 = 1 << 16;
/// Event types of one log.
pub const EVENT_TYPES_MAX: usize = 1024;

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
    let mark = |name: &str| name == mark::NAME || share_of_name(mark::NAME, name).is_some();
    let lock = |name: &str| name == LOCK_NAME || share_of_name(LOCK_NAME, name).is_some();
    let written = |name: &str| mark(name) || name == place::NAME;
    let ours = |name: &str| lock(name) || written(name) || name.strip_suffix(".tmp").is_some_and(|name| name == META_NAME || written(name));
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
        let meta = Meta::of::<E>(LogId::random(), partitions.clamp(1, PARTITIONS_MAX));
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
            began: None,
        };
        meta.write_last(disk, dir, &mark)?;
        Ok(meta)
    }

    /// What a log of events of type `E` says of itself.
    pub fn of<E: Event>(log: LogId, partitions: u32) -> Meta {
        let (codec, endianness) = (CODEC.to_string(), ENDIANNESS.to_string());
        let (event, log_id) = (EventType::of::<E>(), log.to_string());
        Meta { log_id, codec, endianness, event, types: Vec::new(), partitions, producer_partitions: None }
    }

    /// Makes a directory with all else in place a log.
    pub fn write_last(&self, disk: &dyn Disk, dir: &Path, mark: &Mark) -> Result<(), LogError> {
        document::write(disk, dir, mark::NAME, mark)?;
        document::write(disk, dir, META_NAME, self)?;
        if let Some(parent) = dir.parent() {
            // A name without a directory is in the current one.
            let here = parent.as_os_str().is_empty();
            let parent = if here { Path::new(".") } else { parent };
            disk.sync_dir(parent).map_err(|error| LogError::storage("sync", parent, error))?;
        }
        Ok(())
    }

    /// Reads `log.json`.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Meta, LogError> {
        let meta: Meta = document::read(disk, dir, META_NAME)?;
        meta.id(dir)?;
        if meta.partitions > PARTITIONS_MAX || !(1..=meta.partitions).contains(&meta.producer_partitions()) {
            let what = format!("{} partitions, producers in {}", meta.partitions, meta.producer_partitions());
            return Err(LogError::damaged_file(&dir.join(META_NAME), 0, what));
        }
        Ok(meta)
    }

    /// How many partitions producers are spread over.
    pub fn producer_partitions(&self) -> u32 {
        self.producer_partitions.unwrap_or(self.partitions)
    }

    /// Gives a log that is whole and whose lock is held more partitions; it never loses any. The directories are on disk before
    /// `log.json` says that they are part of the log: what a crash before that leaves is empty, and is not looked at. The mark
    /// may have fewer partitions, which says that nothing was in the new ones.
    pub fn grow(&mut self, disk: &dyn Disk, dir: &Path, partitions: u32) -> Result<(), LogError> {
        let partitions = partitions.min(PARTITIONS_MAX);
        if partitions <= self.partitions {
            return Ok(());
        }
        for partition in (self.partitions..partitions).map(Partition) {
            let path = partition_dir(dir, partition);
            uninterrupted(|| disk.create_dir(&path)).map_err(|error| LogError::storage("create", &path, error))?;
            disk.sync_dir(&path).map_err(|error| LogError::storage("sync", &path, error))?;
        }
        disk.sync_dir(dir).map_err(|error| LogError::storage("sync", dir, error))?;
        let meta = Meta { partitions, producer_partitions: Some(self.producer_partitions()), ..self.clone() };
        document::write(disk, dir, META_NAME, &meta)?;
        tracing::info!(log = %dir.display(), from = self.partitions, to = partitions, "the log has more partitions from here on");
        *self = meta;
        Ok(())
    }

    /// The id of the log.
    pub fn id(&self, dir: &Path) -> Result<LogId, LogError> {
        LogId::parse(&self.log_id).ok_or_else(|| LogError::damaged_file(&dir.join(META_NAME), 0, format!("log id {:?}", self.log_id)))
    }

    /// The types of the log's blocks, by number.
    pub fn stored_types(&self) -> &[EventType] {
        if self.types.is_empty() { std::slice::from_ref(&self.event) } else { &self.types }
    }

    /// How this program reads the log as events of type `E`, if it can.
    pub fn types<E: Event>(&self, dir: &Path) -> Result<Types<E>, LogError> {
        let expected = EventType::of::<E>();
        let (found, dir_of) = (|| self.event.to_string(), || dir.to_path_buf());
        let stored = self.stored_types();
        if self.event != expected && stored.contains(&expected) {
            return Err(LogError::EarlierProgram { dir: dir_of(), found: found(), expected: expected.to_string() });
        }
        let types = Types::of(stored).map_err(|unknown| LogError::WrongEvent {
            dir: dir_of(),
            found: unknown.to_string(),
            expected: expected.to_string(),
        })?;
        if self.codec != CODEC || self.endianness != ENDIANNESS {
            let found = format!("{}, {} endian", self.codec, self.endianness);
            let expected = format!("{CODEC}, {ENDIANNESS} endian");
            return Err(LogError::WrongLayout { dir: dir_of(), found, expected });
        }
        if usize::from(types.own) >= EVENT_TYPES_MAX {
            return Err(LogError::TooManyTypes { dir: dir_of() });
        }
        Ok(types)
    }

    /// Makes `E` the type that events are written in. Before the first of its blocks is.
    pub fn adopt<E: Event>(&mut self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        let own = EventType::of::<E>();
        if self.event == own {
            return Ok(());
        }
        let mut types = self.stored_types().to_vec();
        if !types.contains(&own) {
            types.push(own.clone());
        }
        let meta = Meta { event: own, types, ..self.clone() };
        document::write(disk, dir, META_NAME, &meta)?;
        tracing::warn!(log = %dir.display(), from = %self.event, to = %meta.event, "the log's events are of a new type from here on");
        *self = meta;
        Ok(())
    }
}
