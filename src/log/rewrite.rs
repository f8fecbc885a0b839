//! Copies a log into a new one: current format, one event type, large segments; the same events, offsets and ticks.
//!
//! The new directory becomes a log with its last file, `log.json`; what an interrupted copy leaves is none, and is to be
//! removed. Blocks are read, merged and written one group at a time.
use super::block::Rows;
use super::error::LogError;
use super::event::Event;
use super::frame::{LogId, SegmentId};
use super::mark::Mark;
use super::meta::{Found, LOCK_NAME, Meta, look, partition_dir};
use super::options::LogOptions;
use super::position::{Offset, Partition, Tick};
use super::producers::Producers;
use super::recovery::{Beside, Known, plan_all, producers_of};
use super::redact::Redactions;
use super::segment::{BLOCK_BYTES_MAX, SegmentWriter, sealed_name};
use super::share::take_lock;
use crate::storage::{Disk, LockGuard, uninterrupted};
use serde::Serialize;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a copy holds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RewriteReport {
    /// The id of the new log.
    pub log_id: String,
    /// Events, in all partitions.
    pub events: u64,
    /// Segments before.
    pub segments_before: u64,
    /// Segments now.
    pub segments: u64,
    /// Bytes of the segments now.
    pub bytes: u64,
}

/// Copies the log in `source` to `target`, which is absent or empty. Nobody may have the source open; it is not changed.
///
/// The copy remembers producers and redactions as the source does. It has an id of its own, so nothing that was computed from
/// the source is taken for its own.
pub fn rewrite<E: Event>(disk: &dyn Disk, source: &Path, target: &Path, options: &LogOptions) -> Result<RewriteReport, LogError> {
    let Found::Log = look(disk, source)? else {
        return Err(LogError::NoLog { dir: source.to_path_buf() });
    };
    let _lock = take_lock(disk, source)?;
    let meta = Meta::read(disk, source)?;
    let types = Arc::new(meta.types::<E>(source)?);
    let mark = Mark::read(disk, source, &meta)?;
    let redactions = Redactions::read(disk, source)?;
    let (log, revision) = (meta.id(source)?, redactions.revision());
    let plans = plan_all(&Known { disk, dir: source, log, mark: &mark, revision, types: &types, beside: Beside::Nobody })?;
    let mut copy = NewLog::begin::<E>(disk, target, meta.partitions, options)?;
    copy.spread_producers(meta.producer_partitions());
    let mut segments_before = 0;
    for (number, plan) in plans.into_iter().enumerate() {
        let mut writer = PartitionWriter::<E>::new(&copy, Partition(number as u32));
        let segments = plan.into_segments();
        segments_before += (segments.sealed.len() + segments.open.len()) as u64;
        let mut producers = producers_of(segments.sealed.last().map(|last| &**last))?;
        let open = || segments.open.iter().flat_map(|open| &open.blocks);
        open().for_each(|rows| producers.extend(&rows.producers));
        // All segments get the last table: should the copy be damaged one day, any of them will do.
        writer.remember(producers.renumbered(types.own));
        for segment in &segments.sealed {
            segment.blocks().try_for_each(|rows| writer.push(rows?))?;
        }
        open().try_for_each(|rows| writer.push(Arc::clone(rows)))?;
        let written = writer.finish(segments.end)?;
        copy.add(written);
    }
    let report = copy.finish(mark.reserved, &redactions)?;
    Ok(RewriteReport { segments_before, ..report })
}

/// A log that is being written in a new directory.
pub(crate) struct NewLog<'a> {
    disk: &'a dyn Disk,
    dir: PathBuf,
    meta: Meta,
    log: LogId,
    options: &'a LogOptions,
    ends: Vec<Offset>,
    last_tick: Tick,
    report: RewriteReport,
    _lock: LockGuard,
}

/// What a partition of a new log holds.
pub(crate) struct Written {
    end: Offset,
    last_tick: Tick,
    events: u64,
    segments: u64,
    bytes: u64,
}

impl<'a> NewLog<'a> {
    /// Starts a log in a directory that is absent or empty.
    pub fn begin<E: Event>(disk: &'a dyn Disk, dir: &Path, partitions: u32, options: &'a LogOptions) -> Result<Self, LogError> {
        match uninterrupted(|| disk.list(dir)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            listed => {
                let listed = listed.map_err(|error| LogError::storage("list", dir, error))?;
                if let Some(entry) = listed.iter().find(|entry| entry.name != LOCK_NAME) {
                    let found = entry.name.to_string_lossy().into_owned();
                    return Err(LogError::NotEmpty { dir: dir.to_path_buf(), found });
                }
            }
        }
        let log = LogId::random();
        let meta = Meta::of::<E>(log, partitions);
        uninterrupted(|| disk.create_dir(dir)).map_err(|error| LogError::storage("create", dir, error))?;
        let lock = take_lock(disk, dir)?;
        for partition in (0..partitions).map(Partition) {
            let path = partition_dir(dir, partition);
            uninterrupted(|| disk.create_dir(&path)).map_err(|error| LogError::storage("create", &path, error))?;
        }
        let report = RewriteReport { log_id: log.to_string(), ..RewriteReport::default() };
        Ok(NewLog { disk, dir: dir.to_path_buf(), meta, log, options, ends: Vec::new(), last_tick: Tick::ZERO, report, _lock: lock })
    }

    /// Spreads producers over so many partitions, as the log does that is copied.
    pub fn spread_producers(&mut self, partitions: u32) {
        self.meta.producer_partitions = (partitions != self.meta.partitions).then_some(partitions);
    }

    /// Takes in the next partition.
    pub fn add(&mut self, written: Written) {
        self.ends.push(written.end);
        self.last_tick = self.last_tick.max(written.last_tick);
        self.report.events += written.events;
        self.report.segments += written.segments;
        self.report.bytes += written.bytes;
    }

    /// Makes the directory a log, whose ticks go on at `reserved`.
    pub fn finish(self, reserved: Tick, redactions: &Redactions) -> Result<RewriteReport, LogError> {
        for partition in (0..self.meta.partitions).map(Partition) {
            let path = partition_dir(&self.dir, partition);
            self.disk.sync_dir(&path).map_err(|error| LogError::storage("sync", &path, error))?;
        }
        if redactions.revision() > 0 {
            redactions.carried_out().write(self.disk, &self.dir)?;
        }
        let reserved = reserved.max(self.last_tick);
        let mark = Mark { log_id: self.meta.log_id.clone(), reserved, clean: true, synced: true, ends: self.ends, began: None };
        self.meta.write_last(self.disk, &self.dir, &mark)?;
        Ok(self.report)
    }
}

/// Writes the blocks of one partition of a new log.
pub(crate) struct PartitionWriter<'a, E: Event> {
    new: &'a NewLog<'a>,
    partition: Partition,
    /// The offset after the last block that was written.
    next: Offset,
    /// Blocks that become one; how many events and columnar bytes they have together.
    group: Vec<Arc<Rows<E>>>,
    group_events: usize,
    group_bytes: usize,
    segment: Option<SegmentWriter>,
    /// The table that segments get.
    producers: Producers,
    written: Written,
}

impl<'a, E: Event> PartitionWriter<'a, E> {
    /// Starts at offset 0.
    pub fn new(new: &'a NewLog<'a>, partition: Partition) -> Self {
        let written = Written { end: Offset(0), last_tick: Tick::ZERO, events: 0, segments: 0, bytes: 0 };
        PartitionWriter {
            new,
            partition,
            next: Offset(0),
            group: Vec::new(),
            group_events: 0,
            group_bytes: 0,
            segment: None,
            producers: Producers::default(),
            written,
        }
    }

    /// Segments that are finished from now on get these producers.
    pub fn remember(&mut self, producers: Producers) {
        self.producers = producers;
    }

    /// Adds a block; offsets between it and the one before have no events.
    pub fn push(&mut self, rows: Arc<Rows<E>>) -> Result<(), LogError> {
        let (events, bytes) = (rows.events(), rows.column_bytes());
        let full = self.group_events + events > self.new.options.block_events_max || self.group_bytes + bytes > BLOCK_BYTES_MAX;
        if full {
            self.write_group()?;
        }
        self.group.push(rows);
        self.group_events += events;
        self.group_bytes += bytes;
        Ok(())
    }

    fn write_group(&mut self) -> Result<(), LogError> {
        if self.group.is_empty() {
            return Ok(());
        }
        let damaged = |what| LogError::damaged_file(&partition_dir(&self.new.dir, self.partition), 0, what);
        let rows = Rows::try_merge_from(self.next, &self.group).map_err(damaged)?;
        self.group.clear();
        (self.group_events, self.group_bytes) = (0, 0);
        self.write(&rows)
    }

    fn write(&mut self, rows: &Rows<E>) -> Result<(), LogError> {
        let full = self.segment.take_if(|segment| segment.bytes() >= self.new.options.segment_bytes_max);
        if let Some(full) = full {
            self.written.bytes += full.finish(&self.producers)?;
        }
        let segment = match &mut self.segment {
            Some(segment) => segment,
            none => {
                let id = SegmentId { log: self.new.log, partition: self.partition, first: self.next };
                let path = partition_dir(&self.new.dir, self.partition).join(sealed_name(id.first));
                self.written.segments += 1;
                none.insert(SegmentWriter::create(self.new.disk, path, id, 0)?)
            }
        };
        segment.push(rows)?;
        self.next = rows.end;
        self.written.last_tick = rows.last_tick();
        self.written.events += rows.events() as u64;
        Ok(())
    }

    /// Ends the partition at `end`.
    pub fn finish(mut self, end: Offset) -> Result<Written, LogError> {
        self.write_group()?;
        if self.next < end {
            let tick = self.written.last_tick;
            self.write(&Rows::hole(self.partition, self.next..end, tick))?;
        }
        if let Some(last) = self.segment.take() {
            self.written.bytes += last.finish(&self.producers)?;
        }
        Ok(Written { end: self.next, ..self.written })
    }
}
