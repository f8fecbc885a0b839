//! Copies what can be read of a damaged log into a new one, and says what cannot.
//!
//! A block counts when its header and checksums hold, it stands in the file of its segment, and offsets and ticks ascend. In a
//! segment with a good footer, blocks are found by the index; in one without, and in active ones, by looking for headers at
//! every multiple of 8 bytes. Offsets without a readable block become holes, so all others keep theirs, and are listed. The
//! damaged log is only read; a segment is held in memory as a whole.
//!
//! Sealed blocks do not say which producer appended them: the tables of segments do, each for all before it. Where no table that
//! can be read comes after, producers are not known, which is listed too.
use super::block::Rows;
use super::document;
use super::error::LogError;
use super::event::{Event, Types};
use super::frame::{HEADER_BYTES, Header, LogId, Place, SegmentId, read_frame};
use super::mark::Mark;
use super::meta::{Found, Meta, look, partition_dir};
use super::options::LogOptions;
use super::position::{Offset, Partition, Tick};
use super::producers::{Producers, partition_of};
use super::recovery::Listing;
use super::redact::Redactions;
use super::rewrite::{NewLog, PartitionWriter, RewriteReport};
use super::segment::SegmentFile;
use crate::storage::{Bytes, Disk, EntryKind, uninterrupted};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// The file in which a salvaged log says what it lacks.
pub(crate) const SALVAGED_NAME: &str = "salvaged.json";

/// What was salvaged, and what was not.
#[derive(Clone, Debug, Serialize)]
pub struct SalvageReport {
    /// The new log.
    pub copy: RewriteReport,
    /// Offsets whose events are lost, by partition and in order.
    pub lost: Vec<Lost>,
    /// Offsets of which nobody knows any more what producers appended there: if they repeat it, it is stored a second time.
    pub producers_lost: Vec<Lost>,
    /// What else was found wrong: it cost no offset that is known of.
    pub notes: Vec<String>,
}

impl SalvageReport {
    /// Whether nothing that was in the log is known to be lost.
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.producers_lost.is_empty()
    }
}

/// Offsets of which something is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The partition.
    pub partition: Partition,
    /// The first of them.
    pub from: Offset,
    /// The offset after the last.
    pub to: Offset,
    /// How it shows.
    pub why: String,
}

/// The content of `salvaged.json`.
#[derive(Serialize)]
struct Salvaged<'a> {
    from_log_id: String,
    lost: &'a [Lost],
    producers_lost: &'a [Lost],
    notes: &'a [String],
}

/// Copies what can be read of the log in `source` to `target`, which is absent or empty. Takes no lock of the source and
/// changes nothing there, so no process may be writing to it.
///
/// Appends of producers whose events are lost stay known as long as a table of producers after them can be read, so their
/// repetition is answered and not stored: send those events anew under a new name. Where none can be read, `producers_lost` says
/// which offsets producers may append a second time.
pub fn salvage<E: Event>(disk: &dyn Disk, source: &Path, target: &Path, options: &LogOptions) -> Result<SalvageReport, LogError> {
    let mut notes = Vec::new();
    let Identified { meta, log, types, guessed } = identify::<E>(disk, source, &mut notes)?;
    let (redactions, revision) = match Redactions::read(disk, source) {
        Err(LogError::Damaged(damage)) => {
            notes.push(format!("{damage}\n  every rewritten segment that is found is taken to count, so that no removed event comes back"));
            (Redactions::default(), u64::MAX)
        }
        read => read.map(|redactions| {
            let revision = redactions.revision();
            (redactions, revision)
        })?,
    };
    let mark = match Mark::read(disk, source, &meta) {
        Err(LogError::Damaged(damage)) => {
            notes.push(format!("{damage}"));
            None
        }
        mark => Some(mark?),
    };
    let mut copy = NewLog::begin::<E>(disk, target, meta.partitions, options)?;
    let (mut lost, mut producers_lost, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for partition in (0..meta.partitions).map(Partition) {
        let writer = PartitionWriter::<E>::new(&copy, partition);
        let mut walk = Walk {
            disk,
            types: &types,
            partition,
            writer,
            next: Offset(0),
            tick: Tick::ZERO,
            producers: Producers::default(),
            why: None,
            unknown: None,
            lost: &mut lost,
            notes: &mut notes,
        };
        walk.partition(&partition_dir(source, partition), log, revision)?;
        let end = mark.as_ref().map_or(Offset(0), |mark| mark.ends[partition.index()]);
        walk.skip_to(end, "the log ends before what the mark says was on disk");
        let to = walk.next;
        producers_lost.extend(walk.unknown.filter(|(from, _)| *from < to).map(|(from, why)| Lost { partition, from, to, why }));
        names.extend(walk.producers.names().map(|name| (partition, Arc::clone(name))));
        copy.add(walk.writer.finish(to)?);
    }
    // A log that has grown spreads producers over fewer partitions. Any number will do that finds those that are remembered.
    let fits = |spread: &u32| names.iter().all(|(partition, name)| partition_of(name, *spread) == *partition);
    let spread = if guessed { (1..=meta.partitions).rev().find(fits) } else { Some(meta.producer_partitions()) };
    copy.spread_producers(spread.unwrap_or(meta.partitions));
    let salvaged = Salvaged { from_log_id: log.to_string(), lost: &lost, producers_lost: &producers_lost, notes: &notes };
    document::write(disk, target, SALVAGED_NAME, &salvaged)?;
    let reserved = mark.map_or(Tick::ZERO, |mark| mark.reserved);
    Ok(SalvageReport { copy: copy.finish(reserved, &redactions)?, lost, producers_lost, notes })
}

/// What a log is, and how its events are read.
struct Identified<E: Event> {
    meta: Meta,
    log: LogId,
    types: Types<E>,
    /// `log.json` could not be read.
    guessed: bool,
}

/// What the log is, and how its events are read. When `log.json` is damaged, from the names of the partitions and the headers
/// that hold.
fn identify<E: Event>(disk: &dyn Disk, source: &Path, notes: &mut Vec<String>) -> Result<Identified<E>, LogError> {
    let read = match look(disk, source) {
        Ok(Found::Log) => Meta::read(disk, source),
        Ok(Found::Nothing) => return Err(LogError::NoLog { dir: source.to_path_buf() }),
        // A log that lost its `log.json` looks like something else.
        Err(error) => Err(error),
    };
    let error = match read {
        Ok(meta) => {
            let (log, types) = (meta.id(source)?, meta.types::<E>(source)?);
            return Ok(Identified { meta, log, types, guessed: false });
        }
        Err(error @ (LogError::Damaged(_) | LogError::NotALog { .. })) => error,
        Err(error) => return Err(error),
    };
    let mut found = None;
    let mut highest = 0;
    let mut partitions = 0;
    let is_partition = |dir: &Path| {
        let (name, parent) = (dir.file_name()?, dir.parent()?);
        let entries = uninterrupted(|| disk.list(parent)).ok()?;
        entries.iter().find(|entry| entry.name == name && entry.kind == EntryKind::Directory).map(|_| ())
    };
    while is_partition(&partition_dir(source, Partition(partitions))).is_some() {
        let dir = partition_dir(source, Partition(partitions));
        if let Ok(listing) = Listing::of(disk, &dir, Partition(partitions), 0) {
            for path in listing.sealed.values().chain(listing.active.values()) {
                for header in uninterrupted(|| disk.read(path)).iter().flat_map(|bytes| headers(bytes)) {
                    let log = *found.get_or_insert(header.segment.log);
                    highest = highest.max(if header.segment.log == log { header.event_type } else { 0 });
                }
            }
        }
        partitions += 1;
    }
    let log = found.ok_or_else(|| error.clone())?;
    let (types, all) = Types::<E>::guess(highest);
    let earlier = match (highest, all) {
        (0, _) => String::new(),
        (_, true) => format!(", and of the {highest} before it"),
        (_, false) => format!("; those of the {highest} types before it cannot be told apart, and are not read"),
    };
    notes.push(format!("{error}\n  the segments are of log {log}, taken to hold events of this program's type{earlier}"));
    Ok(Identified { meta: Meta::of::<E>(log, partitions), log, types, guessed: true })
}

/// The headers of blocks among bytes.
fn headers(bytes: &[u8]) -> impl Iterator<Item = Header> {
    let mut position = 0;
    std::iter::from_fn(move || {
        while position < bytes.len() {
            match Header::decode(&bytes[position..]) {
                Ok(header) => {
                    position = position.saturating_add(header.frame_bytes() as usize);
                    return Some(header);
                }
                Err(_) => position += 8,
            }
        }
        None
    })
}

/// Goes through the segments of a partition.
struct Walk<'a, E: Event> {
    disk: &'a dyn Disk,
    types: &'a Types<E>,
    partition: Partition,
    writer: PartitionWriter<'a, E>,
    /// The offset after the last event that was found or is known to be lost.
    next: Offset,
    tick: Tick,
    producers: Producers,
    /// What was last found wrong, which explains the next gap.
    why: Option<String>,
    /// From where on producers are not known, and why.
    unknown: Option<(Offset, String)>,
    lost: &'a mut Vec<Lost>,
    notes: &'a mut Vec<String>,
}

impl<E: Event> Walk<'_, E> {
    fn partition(&mut self, dir: &Path, log: LogId, revision: u64) -> Result<(), LogError> {
        let listing = match Listing::of(self.disk, dir, self.partition, revision) {
            Ok(listing) => listing,
            Err(error) => {
                self.why = Some(error.to_string());
                return Ok(());
            }
        };
        let mut firsts: Vec<Offset> = listing.sealed.keys().chain(listing.active.keys()).copied().collect();
        firsts.sort_unstable();
        firsts.dedup();
        for first in firsts {
            let id = SegmentId { log, partition: self.partition, first };
            // Where both are, the sealed one holds all that the active one does; if it can be read.
            for path in listing.sealed.get(&first).into_iter().chain(listing.active.get(&first)) {
                self.segment(path, id)?;
            }
            self.writer.remember(self.producers.clone().renumbered(self.types.own));
        }
        // An unfinished group at the end may never have been acknowledged.
        self.notes.extend(self.why.take());
        Ok(())
    }

    fn segment(&mut self, path: &Path, id: SegmentId) -> Result<(), LogError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let at = |what: String| format!("segment {name} of partition {}: {what}", id.partition);
        let bytes = match uninterrupted(|| self.disk.read(path)) {
            Ok(bytes) => Bytes::copy(&bytes),
            Err(error) => {
                let what = at(format!("cannot be read: {error}"));
                self.forget_producers(id.first, &what);
                self.why = Some(what);
                return Ok(());
            }
        };
        let sealed = path.extension().is_none_or(|kind| kind != "active");
        let segment = match SegmentFile::read(path, id, bytes.clone()) {
            Ok(segment) => segment,
            Err(flaw) => {
                if let Some(found) = flaw.newer {
                    return Err(LogError::NewerFormat { path: path.to_path_buf(), found, supported: super::frame::FORMAT });
                }
                if sealed {
                    let what = at(format!("byte {}: {}", flaw.at, flaw.what));
                    self.forget_producers(id.first, &what);
                    self.why = Some(what);
                }
                return self.search(&bytes, id, &at);
            }
        };
        for block in 0..segment.index.len() {
            let rows = segment.frame(block).map_err(|flaw| format!("byte {}: {}", flaw.at, flaw.what));
            match rows.and_then(|(header, body)| self.types.rows(&header, body)) {
                Ok(rows) => drop(self.take(rows)?),
                Err(what) => self.why = Some(at(what)),
            }
        }
        self.skip_to(segment.end, "no readable block");
        match segment.producers() {
            Ok(producers) => (self.producers, self.unknown) = (producers, None),
            Err(error) => self.forget_producers(id.first, &error.to_string()),
        }
        Ok(())
    }

    /// Takes the whole frames among bytes.
    fn search(&mut self, bytes: &Bytes, id: SegmentId, at: &dyn Fn(String) -> String) -> Result<(), LogError> {
        let mut position = 0;
        let mut bad = None;
        while position < bytes.len() {
            let rest = &bytes[position..];
            let header =
                Header::decode(rest).and_then(|header| read_frame(rest, Place { segment: id, next: header.first_offset, tick: self.tick }));
            let read = header.map_err(|flaw| flaw.what).and_then(|header| {
                let body = bytes.part(position + HEADER_BYTES..position + header.frame_bytes() as usize);
                let rows = self.types.rows(&header, body.ok_or("a block off its boundary")?)?;
                Ok((header.frame_bytes() as usize, rows))
            });
            match read {
                Ok((length, rows)) => {
                    if let Some(what) = bad.take() {
                        self.why = Some(what);
                    }
                    let producers = rows.producers.clone();
                    if self.take(rows)? {
                        self.producers.extend(&producers);
                    }
                    position += length;
                }
                Err(what) => {
                    bad.get_or_insert_with(|| at(format!("byte {position}: {what}")));
                    position += 8;
                }
            }
        }
        if bad.is_some() {
            self.why = bad;
        }
        Ok(())
    }

    /// Takes a block, unless its events are there already; whether it did.
    fn take(&mut self, rows: Rows<E>) -> Result<bool, LogError> {
        if rows.first_offset < self.next || rows.first_tick() < self.tick {
            return Ok(false);
        }
        let rows = Arc::new(rows);
        if let Err(what) = rows.check_elements() {
            self.why = Some(what);
            return Ok(false);
        }
        self.skip_to(rows.first_offset, "a segment is missing");
        self.next = rows.end;
        self.tick = rows.last_tick();
        self.writer.push(rows)?;
        Ok(true)
    }

    /// What producers appended from `offset` on is not known, unless a table that can be read follows.
    fn forget_producers(&mut self, offset: Offset, why: &str) {
        self.unknown.get_or_insert_with(|| (offset, why.to_string()));
    }

    /// Everything up to `offset` that was not found is lost.
    fn skip_to(&mut self, offset: Offset, otherwise: &str) {
        if self.next < offset {
            let why = self.why.take().unwrap_or_else(|| otherwise.to_string());
            self.forget_producers(self.next, &why);
            self.lost.push(Lost { partition: self.partition, from: self.next, to: offset, why });
            self.next = offset;
        }
    }
}
