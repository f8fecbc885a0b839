//! Events in columnar layout: what the log stores, and what readers are handed.
//!
//! The body of a block, all in 8-byte words and in the byte order of the machine that wrote it:
//!
//! ```text
//! 0        n, the number of tick runs
//! 1..1+2n  per run: its tick, and the row after its last. Both ascend strictly; the last row is the event count
//! 1+2n..   the columns, as `columnar::bytes::indexed` lays them out
//! ```
//!
//! A body is looked into only after its checksum held, once; then its structure is checked, so that bytes which are
//! wrong and carry a right checksum give an error instead of wrong slices.
use super::event::Event;
use super::frame::{HEADER_BYTES, Header, SegmentId};
use super::position::{Offset, Partition, Tick};
use crate::storage::Bytes;
use crate::storage::columns::{self, Column};
use columnar::bytes::indexed;
use columnar::{BorrowedOf, Container, ContainerOf, Len, Push, bytemuck};
use std::ops::Range;
use std::sync::Arc;

/// A slice of an immutable block of events, all of one partition, ticks ascending. Cheap to clone.
pub struct Block<E: Event> {
    rows: Arc<Rows<E>>,
    range: Range<usize>,
}

/// A whole block.
pub(crate) struct Rows<E: Event> {
    pub partition: Partition,
    pub first_offset: Offset,
    /// Words of tick and end row, alternating.
    runs: Bytes,
    columns: Column<ContainerOf<E>>,
    events: usize,
}

impl<E: Event> Clone for Block<E> {
    fn clone(&self) -> Self {
        Block { rows: Arc::clone(&self.rows), range: self.range.clone() }
    }
}

impl<E: Event> std::fmt::Debug for Block<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Block")
            .field("partition", &self.partition())
            .field("first_offset", &self.first_offset())
            .field("events", &self.len())
            .field("ticks", &(self.first_tick()..=self.last_tick()))
            .finish()
    }
}

impl<E: Event> Block<E> {
    /// A block in memory, of partition 0 from offset 0, for tests and generators.
    ///
    /// # Panics
    /// When the ticks do not ascend.
    pub fn from_events(events: impl IntoIterator<Item = (Tick, E)>) -> Self {
        Self::from_events_at(Partition(0), Offset(0), events)
    }

    /// A block in memory, of some partition from some offset.
    ///
    /// # Panics
    /// When the ticks do not ascend.
    pub fn from_events_at(partition: Partition, first_offset: Offset, events: impl IntoIterator<Item = (Tick, E)>) -> Self {
        let mut columns = ContainerOf::<E>::default();
        let mut runs = Runs::default();
        for (tick, event) in events {
            columns.push(&event);
            runs.push(tick, 1);
        }
        Block::whole(Arc::new(Rows::new(partition, first_offset, runs, columns)))
    }

    pub(crate) fn whole(rows: Arc<Rows<E>>) -> Self {
        let range = 0..rows.events;
        Block { rows, range }
    }

    /// Events in the slice.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Whether the slice holds no events.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Offset of the slice's first event; the others follow without gaps.
    pub fn first_offset(&self) -> Offset {
        self.rows.first_offset.plus(self.range.start as u64)
    }

    /// Offset after the slice's last event.
    pub fn end_offset(&self) -> Offset {
        self.rows.first_offset.plus(self.range.end as u64)
    }

    /// The partition all events are of.
    pub fn partition(&self) -> Partition {
        self.rows.partition
    }

    /// The columns of the *whole* underlying block; index them with [`Block::range`].
    #[inline]
    pub fn columns(&self) -> BorrowedOf<'_, E> {
        self.rows.columns.borrow()
    }

    /// The slice's rows within [`Block::columns`].
    #[inline]
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Tick and offset of the event in a row of [`Block::columns`].
    pub fn place(&self, row: usize) -> (Tick, Offset) {
        (self.rows.tick_of(row), self.rows.first_offset.plus(row as u64))
    }

    /// The slice's rows by tick, as indexes into [`Block::columns`]; ticks ascend, no range is empty.
    pub fn tick_runs(&self) -> impl Iterator<Item = (Tick, Range<usize>)> + '_ {
        let words = self.rows.run_words();
        let first = partition_point(words.len() / 2, |run| words[2 * run + 1] <= self.range.start as u64);
        let range = self.range.clone();
        words[2 * first..]
            .chunks_exact(2)
            .scan(if first == 0 { 0 } else { words[2 * first - 1] as usize }, |start, run| {
                let rows = *start..run[1] as usize;
                *start = rows.end;
                Some((Tick(run[0]), rows))
            })
            .map(move |(tick, rows)| (tick, rows.start.max(range.start)..rows.end.min(range.end)))
            .take_while(|(_, rows)| rows.start < rows.end)
    }

    /// Tick of the slice's first event; of an empty slice, [`Tick::ZERO`].
    pub fn first_tick(&self) -> Tick {
        if self.is_empty() { Tick::ZERO } else { self.rows.tick_of(self.range.start) }
    }

    /// Tick of the slice's last event; of an empty slice, [`Tick::ZERO`].
    pub fn last_tick(&self) -> Tick {
        if self.is_empty() { Tick::ZERO } else { self.rows.tick_of(self.range.end - 1) }
    }

    /// The events of this slice with ticks in `ticks`: maybe none.
    pub fn slice_ticks(&self, ticks: Range<Tick>) -> Self {
        let start = self.rows.first_row_from(ticks.start).clamp(self.range.start, self.range.end);
        let end = self.rows.first_row_from(ticks.end).clamp(start, self.range.end);
        Block { rows: Arc::clone(&self.rows), range: start..end }
    }

    /// The events of this slice at or after `offset`: maybe none.
    pub(crate) fn slice_from(&self, offset: Offset) -> Self {
        let row = offset.0.saturating_sub(self.rows.first_offset.0) as usize;
        let start = row.clamp(self.range.start, self.range.end);
        Block { rows: Arc::clone(&self.rows), range: start..self.range.end }
    }
}

/// Tick runs under construction: words of tick and end row, alternating.
#[derive(Default)]
pub(crate) struct Runs(Vec<u64>);

impl Runs {
    /// Adds `rows` rows at `tick`, which must not be below the last.
    pub fn push(&mut self, tick: Tick, rows: usize) {
        let end = self.0.last().copied().unwrap_or(0) + rows as u64;
        match self.0.as_mut_slice() {
            [.., last_tick, last_end] if *last_tick == tick.0 => *last_end = end,
            [.., last_tick, _] if *last_tick > tick.0 => {
                panic!("ticks of a block ascend: {tick} after {last_tick}")
            }
            _ => self.0.extend_from_slice(&[tick.0, end]),
        }
    }
}

impl<E: Event> Rows<E> {
    pub fn new(partition: Partition, first_offset: Offset, runs: Runs, columns: ContainerOf<E>) -> Self {
        let events = columns.len();
        Rows { partition, first_offset, runs: Bytes::copy(bytemuck::cast_slice(&runs.0)), columns: Column::Typed(columns), events }
    }

    pub fn events(&self) -> usize {
        self.events
    }

    pub fn end(&self) -> Offset {
        self.first_offset.plus(self.events as u64)
    }

    pub fn first_tick(&self) -> Tick {
        self.run_words().first().map(|tick| Tick(*tick)).unwrap_or_default()
    }

    pub fn last_tick(&self) -> Tick {
        self.run_words().chunks_exact(2).next_back().map(|run| Tick(run[0])).unwrap_or_default()
    }

    /// Bytes of the columns on disk.
    pub fn column_bytes(&self) -> usize {
        indexed::length_in_bytes(&self.columns.borrow())
    }

    fn run_words(&self) -> &[u64] {
        bytemuck::cast_slice(&self.runs)
    }

    fn tick_of(&self, row: usize) -> Tick {
        let words = self.run_words();
        Tick(words[2 * partition_point(words.len() / 2, |run| words[2 * run + 1] <= row as u64)])
    }

    fn first_row_from(&self, tick: Tick) -> usize {
        let words = self.run_words();
        match partition_point(words.len() / 2, |run| words[2 * run] < tick.0) {
            0 => 0,
            run => words[2 * run - 1] as usize,
        }
    }

    /// Writes header and body to `frame`, replacing its content.
    pub fn encode(&self, segment: SegmentId, frame: &mut Vec<u64>) -> Header {
        let runs = self.run_words();
        frame.clear();
        frame.resize(HEADER_BYTES / 8, 0);
        frame.push(runs.len() as u64 / 2);
        frame.extend_from_slice(runs);
        indexed::encode(frame, &self.columns.borrow());
        let body: &[u8] = bytemuck::cast_slice(&frame[HEADER_BYTES / 8..]);
        let header = Header {
            segment,
            first_offset: self.first_offset,
            events: self.events as u32,
            first_tick: self.first_tick(),
            last_tick: self.last_tick(),
            body_bytes: body.len() as u64,
            body_crc: crc32c::crc32c(body),
        };
        bytemuck::cast_slice_mut(&mut frame[..HEADER_BYTES / 8]).copy_from_slice(&header.encode());
        header
    }

    /// Reads a body in place, after its checksum was found to hold.
    pub fn decode(header: &Header, body: Bytes) -> Result<Self, String> {
        let words: &[u64] = bytemuck::try_cast_slice(&body).map_err(|error| format!("body of a block: {error}"))?;
        let run_count = words.first().copied().unwrap_or(0);
        let columns_at = run_count.checked_mul(2).and_then(|runs| runs.checked_add(1)).filter(|at| *at < words.len() as u64);
        let columns_at = columns_at.ok_or_else(|| format!("{run_count} tick runs in a body of {} bytes", body.len()))? as usize;
        let runs = &words[1..columns_at];
        let ends_fit = runs.last() == Some(&u64::from(header.events)) && runs.get(1).is_some_and(|end| *end > 0);
        let ascend = runs.chunks_exact(2).zip(runs.chunks_exact(2).skip(1)).all(|(run, next)| run[0] < next[0] && run[1] < next[1]);
        let ticks_fit = runs.first() == Some(&header.first_tick.0) && runs.len() >= 2 && runs[runs.len() - 2] == header.last_tick.0;
        if !(ends_fit && ascend && ticks_fit) {
            return Err("tick runs that do not fit the header".to_string());
        }
        let part = |words: Range<usize>| body.part(8 * words.start..8 * words.end).ok_or_else(|| "a body off its boundary".to_string());
        let events = header.events as usize;
        let columns = columns::read::<ContainerOf<E>>(part(columns_at..words.len())?, events)?;
        let (partition, first_offset) = (header.segment.partition, header.first_offset);
        Ok(Rows { partition, first_offset, runs: part(1..columns_at)?, columns, events })
    }

    /// As [`Rows::merge`], for blocks from a disk. Only here are the elements of lists followed, and their bounds may be wrong.
    pub fn try_merge(parts: &[Arc<Rows<E>>]) -> Result<Arc<Rows<E>>, String> {
        let merged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Rows::merge(parts)));
        merged.map_err(|_| format!("columns from offset {} on whose lists have bounds outside their values", parts[0].first_offset))
    }

    /// One block of the rows of `parts`, which follow each other.
    pub fn merge(parts: &[Arc<Rows<E>>]) -> Arc<Rows<E>> {
        let first = match parts {
            [] => panic!("a block is merged from at least one"),
            [only] => return Arc::clone(only),
            [first, ..] => first,
        };
        let mut columns = ContainerOf::<E>::with_capacity_for(parts.iter().map(|part| part.columns.borrow()));
        let mut runs = Runs::default();
        for part in parts {
            columns.extend_from_self(part.columns.borrow(), 0..part.events);
            for (tick, rows) in Block::whole(Arc::clone(part)).tick_runs() {
                runs.push(tick, rows.len());
            }
        }
        Arc::new(Rows::new(first.partition, first.first_offset, runs, columns))
    }
}

/// The first of `0..len` for which `before` does not hold, given that it holds for a prefix.
pub(crate) fn partition_point(len: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
