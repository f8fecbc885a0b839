//! What can be said of a log without knowing its event type: a summary, and a check of every byte.
//!
//! Neither takes the lock or changes anything. Beside a running writer `verify` may see its last group half written, which
//! it lists as unfinished and not as damage. A segment that the writer seals during the look can read as a gap: look twice.
use super::cursor::Cursor;
use super::error::{Damage, LogError};
use super::event::{Event, EventType};
use super::frame::{LogId, SegmentId, scan};
use super::mark::Mark;
use super::meta::{Found, Meta, look, partition_dir};
use super::position::{Offset, Partition, Tick};
use super::reader::look_again;
use super::recovery::{Listing, is_left_of_merge};
use super::redact::Redactions;
use super::segment::SegmentFile;
use crate::storage::{Disk, uninterrupted};
use columnar::Index;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A summary of a log.
#[derive(Clone, Debug, Serialize)]
pub struct LogInfo {
    /// 128 random bits in hexadecimal.
    pub log_id: String,
    /// The type that events are written in.
    pub event: EventType,
    /// The types of older blocks, which are converted when they are read.
    pub earlier: Vec<EventType>,
    /// How often events were redacted.
    pub revision: u64,
    /// Layout of the columns.
    pub codec: String,
    /// Byte order of the columns.
    pub endianness: String,
    /// Whether the log was closed and not opened since.
    pub closed: bool,
    /// No frontier above this was announced.
    pub reserved: Tick,
    /// Per partition, in order.
    pub partitions: Vec<PartitionInfo>,
}

/// A summary of one partition.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PartitionInfo {
    /// The partition.
    pub partition: Partition,
    /// Sealed segments.
    pub segments_sealed: u64,
    /// Segments that are not sealed.
    pub segments_active: u64,
    /// Blocks in all segments.
    pub blocks: u64,
    /// Bytes of all segments.
    pub bytes: u64,
    /// Events.
    pub events: u64,
    /// Offsets whose events were redacted, or lost before the log was salvaged.
    pub missing: u64,
    /// Tick of the first event.
    pub first_tick: Option<Tick>,
    /// Tick of the last event.
    pub last_tick: Option<Tick>,
}

/// The result of [`verify`].
#[derive(Clone, Debug, Serialize)]
pub struct VerifyReport {
    /// The summary of what is whole.
    pub info: LogInfo,
    /// All damage, in the order of partitions and offsets.
    pub damage: Vec<Damage>,
    /// Ends of active segments that a crash, or a writer that is at work, left unfinished. Opening the log sets them aside.
    pub unfinished: Vec<Damage>,
}

impl VerifyReport {
    /// Whether no damage was found.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Summarises the log in `dir`, reading footers of sealed segments and the frames of active ones.
pub fn info(disk: &dyn Disk, dir: &Path) -> Result<LogInfo, LogError> {
    look_again(|| {
        let survey = Survey::run(disk, dir, Depth::Footers)?;
        match survey.damage.into_iter().next() {
            Some(damage) => Err(LogError::Damaged(damage)),
            None => Ok(survey.info),
        }
    })
}

/// Checks every byte of every segment: headers, bodies, indexes, footers, and that offsets and ticks chain up.
///
/// Returns an error only when `dir` is no log, or storage fails; damage is listed in the report.
pub fn verify(disk: &dyn Disk, dir: &Path) -> Result<VerifyReport, LogError> {
    let survey = look_again(|| Survey::run(disk, dir, Depth::EveryByte))?;
    Ok(VerifyReport { info: survey.info, damage: survey.damage, unfinished: survey.unfinished })
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Depth {
    Footers,
    EveryByte,
}

struct Survey<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    depth: Depth,
    log: LogId,
    mark: Mark,
    /// Segments that redactions up to this one rewrote take the place of the old ones.
    rewritten: u64,
    info: LogInfo,
    damage: Vec<Damage>,
    unfinished: Vec<Damage>,
}

impl<'a> Survey<'a> {
    fn start(disk: &'a dyn Disk, dir: &'a Path, depth: Depth) -> Result<Self, LogError> {
        let Found::Log = look(disk, dir)? else {
            return Err(LogError::NoLog { dir: dir.to_path_buf() });
        };
        let meta = Meta::read(disk, dir)?;
        let (log, mark) = (meta.id(dir)?, Mark::read(disk, dir, &meta)?);
        let (revision, rewritten, damage) = match Redactions::read(disk, dir).map(|redactions| redactions.revision()) {
            Ok(revision) => (revision, revision, Vec::new()),
            // Which of the rewritten segments count is not known; each holds as much of the log as the one it is to replace.
            Err(LogError::Damaged(damage)) => (0, u64::MAX, vec![damage]),
            Err(error) => return Err(error),
        };
        let earlier = meta.stored_types().iter().filter(|event| **event != meta.event).cloned().collect();
        let partitions = (0..meta.partitions).map(|number| PartitionInfo { partition: Partition(number), ..PartitionInfo::default() });
        let info = LogInfo {
            log_id: meta.log_id,
            event: meta.event,
            earlier,
            revision,
            codec: meta.codec,
            endianness: meta.endianness,
            closed: mark.clean,
            reserved: mark.reserved,
            partitions: partitions.collect(),
        };
        Ok(Survey { disk, dir, depth, log, mark, rewritten, info, damage, unfinished: Vec::new() })
    }

    fn run(disk: &'a dyn Disk, dir: &'a Path, depth: Depth) -> Result<Self, LogError> {
        let mut survey = Survey::start(disk, dir, depth)?;
        for number in 0..survey.info.partitions.len() {
            survey.partition(number)?;
        }
        Ok(survey)
    }

    /// Keeps damage for the report; other errors end the survey.
    fn note<T>(&mut self, result: Result<T, LogError>) -> Result<Option<T>, LogError> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(LogError::Damaged(damage)) => {
                self.damage.push(damage);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn partition(&mut self, number: usize) -> Result<(), LogError> {
        let partition = Partition(number as u32);
        let dir = partition_dir(self.dir, partition);
        let Some(listing) = self.note(Listing::of(self.disk, &dir, partition, self.rewritten))? else {
            return Ok(());
        };
        let mut segments: BTreeMap<Offset, (PathBuf, bool)> =
            listing.active.into_iter().map(|(first, path)| (first, (path, false))).collect();
        segments.extend(listing.sealed.into_iter().map(|(first, path)| (first, (path, true))));
        let newest = segments.keys().next_back().copied();
        // `None` after a segment whose end is unknown.
        let (mut end, mut last_tick) = (Some(Offset(0)), Tick::ZERO);
        for (first, (path, sealed)) in segments {
            let report = |byte, what| Damage { partition: Some(partition), file: path.clone(), byte, what, intact_before: None };
            let id = SegmentId { log: self.log, partition, first };
            if sealed && end.is_some_and(|end| first < end && is_left_of_merge(self.disk, &path, id, end).unwrap_or(false)) {
                continue;
            }
            if end.is_some_and(|end| end != first) {
                self.damage.push(report(
                    0,
                    format!("it starts at offset {first}, expected {}: a segment is missing, or there twice", end.unwrap_or_default()),
                ));
            }
            let before = last_tick;
            if sealed {
                let opened = self.note(SegmentFile::open(self.disk, &path, id))?;
                end = opened.as_ref().map(|segment| segment.end);
                let Some(segment) = opened else { continue };
                if self.depth == Depth::EveryByte {
                    self.damage.extend(segment.check_all().into_iter().map(|flaw| report(flaw.at, flaw.what)));
                }
                if segment.first_tick < before {
                    self.damage.push(report(0, format!("tick {} after tick {before}", segment.first_tick)));
                }
                last_tick = segment.last_tick;
                let info = &mut self.info.partitions[number];
                info.segments_sealed += 1;
                info.missing += segment.end.0 - first.0 - segment.events();
                info.add(segment.index.len(), segment.bytes.len() as u64, segment.events(), (segment.first_tick, segment.last_tick));
            } else {
                let bytes = uninterrupted(|| self.disk.read(&path)).map_err(|error| LogError::storage("read", &path, error))?;
                let scan = scan(&bytes, id, before);
                end = Some(scan.end);
                if let Some(flaw) = scan.flaw {
                    let torn = newest == Some(first)
                        && !self.mark.clean
                        && scan.end >= self.mark.ends[number]
                        && !(scan.later_frame && self.mark.synced);
                    if torn { &mut self.unfinished } else { &mut self.damage }.push(report(flaw.at, flaw.what));
                    end = None;
                }
                self.info.partitions[number].segments_active += 1;
                if let (Some((_, head)), Some((_, tail))) = (scan.frames.first(), scan.frames.last()) {
                    last_tick = tail.last_tick;
                    let events = scan.frames.iter().map(|(_, header)| u64::from(header.events)).sum();
                    self.info.partitions[number].add(scan.frames.len(), scan.valid_bytes as u64, events, (head.first_tick, tail.last_tick));
                }
            }
        }
        if let Some(end) = end.filter(|end| *end < self.mark.ends[number]) {
            let what =
                format!("the log ends at offset {end}, the mark says that everything before offset {} was on disk", self.mark.ends[number]);
            self.damage.push(Damage { partition: Some(partition), file: dir, byte: 0, what, intact_before: None });
        }
        Ok(())
    }
}

impl PartitionInfo {
    fn add(&mut self, blocks: usize, bytes: u64, events: u64, (first_tick, last_tick): (Tick, Tick)) {
        self.blocks += blocks as u64;
        self.bytes += bytes;
        self.events += events;
        self.first_tick.get_or_insert(first_tick);
        self.last_tick = Some(last_tick);
    }
}

/// A line of [`Cursor::cat`].
#[derive(Serialize)]
struct Line<'a, E> {
    partition: Partition,
    offset: Offset,
    tick: Tick,
    event: &'a E,
}

impl<E: Event> Cursor<E> {
    /// Writes the events that are left, `limit` at most, as JSON lines: `{"partition":0,"offset":0,"tick":0,"event":{...}}`.
    /// Returns how many.
    pub fn cat(mut self, out: &mut impl Write, limit: u64) -> Result<u64, LogError> {
        let written = |error: std::io::Error| LogError::storage("write", Path::new("output"), error);
        let mut count = 0;
        while let Some(block) = self.next()? {
            let (columns, partition) = (block.columns(), block.partition());
            for (_, rows) in block.tick_runs() {
                for row in rows {
                    if count == limit {
                        return Ok(count);
                    }
                    let (tick, offset) = block.place(row);
                    let event = &E::into_owned(columns.get(row));
                    serde_json::to_writer(&mut *out, &Line { partition, offset, tick, event }).map_err(|error| written(error.into()))?;
                    out.write_all(b"\n").map_err(written)?;
                    count += 1;
                }
            }
        }
        Ok(count)
    }
}
