//! Events in columnar layout: what the log stores, and what readers are handed.
//!
//! The body of a block, all in 8-byte words and in the byte order of the machine that wrote it:
//!
//! ```text
//! 0         n, the number of tick runs (low 32 bits); h, the number of holes (high 32 bits)
//! per run   its tick, and the row after its last. Both ascend strictly; the last row is the event count
//! per hole  the row it stands before, and how many offsets are without an event up to there. Both ascend strictly
//! columns   as `columnar::bytes::indexed` lays them out
//! producers see `producers.rs`; as many bytes as the header says
//! ```
//!
//! A hole is where events were redacted or lost: the events after it keep their offsets. Those without an event after the last
//! row follow from the header. A body is looked into only after its checksum held, once; then its structure is checked, so
//! that bytes which are wrong and carry a right checksum give an error instead of wrong slices.
use super::error::LogError;
use super::event::Event;
use super::frame::{HEADER_BYTES, Header, SegmentId};
use super::position::{Offset, Partition, Tick};
use super::producers::Producers;
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
    /// The offset after the block's last, with an event or without.
    pub end: Offset,
    /// Words of tick and end row, alternating.
    runs: Bytes,
    /// Words of row and offsets without an event before it, alternating.
    holes: Bytes,
    columns: Column<ContainerOf<E>>,
    events: usize,
    ticks: (Tick, Tick),
    /// Whose appends these events are; known of the frames of active segments only.
    pub producers: Producers,
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

    /// Offset of the slice's first event. The others follow, without gaps unless events were redacted: [`Block::place`] knows.
    pub fn first_offset(&self) -> Offset {
        if self.range.start < self.rows.events { self.rows.offset_of(self.range.start) } else { self.rows.end }
    }

    /// Offset after the slice's last event; of an empty slice, its first offset.
    pub fn end_offset(&self) -> Offset {
        if self.is_empty() { self.first_offset() } else { self.rows.offset_of(self.range.end - 1).plus(1) }
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
        (self.rows.tick_of(row), self.rows.offset_of(row))
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
        let start = self.rows.first_row_at(offset).clamp(self.range.start, self.range.end);
        Block { rows: Arc::clone(&self.rows), range: start..self.range.end }
    }
}

/// Tick runs under construction: words of tick and end row, alternating.
#[derive(Default)]
pub(crate) struct Runs(Vec<u64>);

impl Runs {
    /// The first and the last tick; of no rows, [`Tick::ZERO`].
    fn ticks(&self) -> (Tick, Tick) {
        let last = self.0.len().checked_sub(2).map_or(0, |last| self.0[last]);
        (Tick(self.0.first().copied().unwrap_or(0)), Tick(last))
    }

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
    /// Rows at successive offsets.
    pub fn new(partition: Partition, first_offset: Offset, runs: Runs, columns: ContainerOf<E>) -> Self {
        let events = columns.len();
        let ticks = runs.ticks();
        Rows {
            partition,
            first_offset,
            end: first_offset.plus(events as u64),
            runs: Bytes::copy(bytemuck::cast_slice(&runs.0)),
            holes: Bytes::copy(&[]),
            columns: Column::Typed(columns),
            events,
            ticks,
            producers: Producers::default(),
        }
    }

    pub fn events(&self) -> usize {
        self.events
    }

    /// Tick of the first event; of a block without events, of the first that there was.
    pub fn first_tick(&self) -> Tick {
        self.ticks.0
    }

    /// Tick of the last event; of a block without events, of the last that there was.
    pub fn last_tick(&self) -> Tick {
        self.ticks.1
    }

    /// Bytes of the columns on disk.
    pub fn column_bytes(&self) -> usize {
        indexed::length_in_bytes(&self.columns.borrow())
    }

    /// The columns of all rows.
    pub fn columns(&self) -> BorrowedOf<'_, E> {
        self.columns.borrow()
    }

    fn run_words(&self) -> &[u64] {
        bytemuck::cast_slice(&self.runs)
    }

    fn hole_words(&self) -> &[u64] {
        bytemuck::cast_slice(&self.holes)
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

    fn offset_of(&self, row: usize) -> Offset {
        let words = self.hole_words();
        let missing = match partition_point(words.len() / 2, |hole| words[2 * hole] <= row as u64) {
            0 => 0,
            hole => words[2 * hole - 1],
        };
        self.first_offset.plus(row as u64 + missing)
    }

    /// The first row at or after an offset.
    fn first_row_at(&self, offset: Offset) -> usize {
        if self.holes.is_empty() {
            return (offset.0.saturating_sub(self.first_offset.0) as usize).min(self.events);
        }
        partition_point(self.events, |row| self.offset_of(row) < offset)
    }

    /// The rows between holes: successive offsets.
    fn dense_ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let starts = self.hole_words().chunks_exact(2).map(|hole| hole[0] as usize);
        let ends = starts.clone().chain([self.events]);
        [0].into_iter().chain(starts).zip(ends).map(|(start, end)| start..end).filter(|rows| !rows.is_empty())
    }

    /// Writes header and body to `frame`, replacing its content. The rows are of the type with this number.
    pub fn encode(&self, segment: SegmentId, event_type: u16, frame: &mut Vec<u64>) -> Header {
        let (runs, holes) = (self.run_words(), self.hole_words());
        frame.clear();
        frame.resize(HEADER_BYTES / 8, 0);
        frame.push((runs.len() as u64 / 2) | ((holes.len() as u64 / 2) << 32));
        frame.extend_from_slice(runs);
        frame.extend_from_slice(holes);
        indexed::encode(frame, &self.columns.borrow());
        let columns_end = frame.len();
        self.producers.encode(frame);
        let producer_bytes = 8 * (frame.len() - columns_end) as u64;
        let body: &[u8] = bytemuck::cast_slice(&frame[HEADER_BYTES / 8..]);
        let header = Header {
            segment,
            event_type,
            first_offset: self.first_offset,
            end: self.end,
            events: self.events as u32,
            first_tick: self.first_tick(),
            last_tick: self.last_tick(),
            producer_bytes,
            body_bytes: body.len() as u64,
            body_crc: crc32c::crc32c(body),
        };
        bytemuck::cast_slice_mut(&mut frame[..HEADER_BYTES / 8]).copy_from_slice(&header.encode());
        header
    }

    /// Reads a body in place, after its checksum was found to hold. The rows are of this very type.
    pub fn decode(header: &Header, body: Bytes) -> Result<Self, String> {
        let words: &[u64] = bytemuck::try_cast_slice(&body).map_err(|error| format!("body of a block: {error}"))?;
        let counts = words.first().copied().unwrap_or(0);
        let (run_count, hole_count) = (counts & u64::from(u32::MAX), counts >> 32);
        let columns_end = words.len() - (header.producer_bytes / 8) as usize;
        let (holes_at, columns_at) = (1 + 2 * run_count as usize, 1 + 2 * (run_count + hole_count) as usize);
        if columns_at >= columns_end {
            return Err(format!("{run_count} tick runs and {hole_count} holes in a body of {} bytes", body.len()));
        }
        let (runs, holes) = (&words[1..holes_at], &words[holes_at..columns_at]);
        let ascend = |words: &[u64]| words.chunks_exact(2).zip(words.chunks_exact(2).skip(1)).all(|(a, b)| a[0] < b[0] && a[1] < b[1]);
        let events = header.events as usize;
        let runs_fit = match runs {
            [] => events == 0,
            [first, end, ..] => {
                let last = &runs[runs.len() - 2..];
                (*first, last[0], last[1]) == (header.first_tick.0, header.last_tick.0, events as u64) && *end > 0
            }
            [_] => unreachable!("words come in pairs"),
        };
        if !runs_fit || !ascend(runs) {
            return Err("tick runs that do not fit the header".to_string());
        }
        let missing = header.end.0 - header.first_offset.0 - events as u64;
        let holes_fit = holes.chunks_exact(2).all(|hole| hole[0] < events as u64 && (1..=missing).contains(&hole[1]));
        if !holes_fit || !ascend(holes) {
            return Err("holes that do not fit the header".to_string());
        }
        let part = |words: Range<usize>| body.part(8 * words.start..8 * words.end).ok_or_else(|| "a body off its boundary".to_string());
        Ok(Rows {
            partition: header.segment.partition,
            first_offset: header.first_offset,
            end: header.end,
            runs: part(1..holes_at)?,
            holes: part(holes_at..columns_at)?,
            columns: columns::read::<ContainerOf<E>>(part(columns_at..columns_end)?, events)?,
            events,
            ticks: (header.first_tick, header.last_tick),
            producers: Producers::decode(&words[columns_end..])?,
        })
    }

    /// The same rows in another type.
    pub fn convert<New: Event + From<E>>(self) -> Rows<New> {
        use columnar::Index;
        let mut columns = ContainerOf::<New>::default();
        let old = self.columns.borrow();
        (0..self.events).for_each(|row| columns.push(&New::from(E::into_owned(old.get(row)))));
        let Rows { partition, first_offset, end, runs, holes, events, ticks, producers, .. } = self;
        Rows { partition, first_offset, end, runs, holes, columns: Column::Typed(columns), events, ticks, producers }
    }

    /// One block of the rows of `parts`, which follow each other. Whose appends they are is left out. An error where blocks from
    /// a disk are wrong behind right checksums: only here are the elements of lists followed.
    pub fn try_merge(parts: &[Arc<Rows<E>>]) -> Result<Arc<Rows<E>>, String> {
        Self::try_merge_from(parts[0].first_offset, parts)
    }

    /// As [`Rows::try_merge`], from an offset before; what is missing between the parts, or before the first, has no events.
    pub fn try_merge_from(first_offset: Offset, parts: &[Arc<Rows<E>>]) -> Result<Arc<Rows<E>>, String> {
        caught(parts[0].first_offset, || Self::merge_from(first_offset, parts))
    }

    fn merge_from(first_offset: Offset, parts: &[Arc<Rows<E>>]) -> Arc<Rows<E>> {
        if let [only] = parts
            && only.producers.is_empty()
            && only.first_offset == first_offset
        {
            return Arc::clone(only);
        }
        Self::copied(first_offset, parts)
    }

    fn copied(first_offset: Offset, parts: &[Arc<Rows<E>>]) -> Arc<Rows<E>> {
        let (first, last) = (&parts[0], &parts[parts.len() - 1]);
        let mut builder = RowsBuilder::new(first.partition, first_offset, parts.iter().map(|part| part.columns.borrow()));
        for part in parts {
            builder.push(part, 0..part.events);
        }
        Arc::new(builder.finish(last.end, (first.first_tick(), last.last_tick())))
    }

    /// Follows all of the columns, as copying them does.
    pub fn check_elements(self: &Arc<Self>) -> Result<(), String> {
        caught(self.first_offset, || drop(Self::copied(self.first_offset, std::slice::from_ref(self))))
    }

    /// A block without events.
    pub fn hole(partition: Partition, offsets: Range<Offset>, tick: Tick) -> Self {
        RowsBuilder::new(partition, offsets.start, std::iter::empty()).finish(offsets.end, (tick, tick))
    }

    /// The block without the events of some rows; `None` when there are none such.
    pub fn without(self: &Arc<Self>, mut gone: impl FnMut(usize) -> Result<bool, LogError>) -> Result<Option<Arc<Rows<E>>>, LogError> {
        let (mut kept, mut start) = (Vec::new(), 0);
        for row in 0..self.events {
            if gone(row)? {
                kept.push(start..row);
                start = row + 1;
            }
        }
        kept.push(start..self.events);
        if kept.len() == 1 {
            return Ok(None);
        }
        let mut builder = RowsBuilder::new(self.partition, self.first_offset, [self.columns.borrow()].into_iter());
        kept.into_iter().for_each(|rows| builder.push(self, rows));
        Ok(Some(Arc::new(builder.finish(self.end, self.ticks))))
    }
}

/// Copies columns whose bounds may be wrong.
fn caught<T>(first_offset: Offset, copy: impl FnOnce() -> T) -> Result<T, String> {
    let copied = std::panic::catch_unwind(std::panic::AssertUnwindSafe(copy));
    copied.map_err(|_| format!("columns from offset {first_offset} on whose lists have bounds outside their values"))
}

/// A block under construction, from rows of others in ascending order.
pub(crate) struct RowsBuilder<E: Event> {
    partition: Partition,
    first_offset: Offset,
    /// The offset after the last event.
    next: Offset,
    runs: Runs,
    holes: Vec<u64>,
    columns: ContainerOf<E>,
}

impl<E: Event> RowsBuilder<E> {
    /// Starts a block with room for such columns.
    pub fn new<'a>(partition: Partition, first_offset: Offset, room: impl Iterator<Item = BorrowedOf<'a, E>> + Clone) -> Self {
        let columns = ContainerOf::<E>::with_capacity_for(room);
        RowsBuilder { partition, first_offset, next: first_offset, runs: Runs::default(), holes: Vec::new(), columns }
    }

    /// Adds rows of a block; offsets that are left out become a hole.
    pub fn push(&mut self, part: &Arc<Rows<E>>, rows: Range<usize>) {
        for dense in part.dense_ranges() {
            let dense = dense.start.max(rows.start)..dense.end.min(rows.end);
            if dense.is_empty() {
                continue;
            }
            let first = part.offset_of(dense.start);
            let row = self.columns.len() as u64;
            let missing = first.0 - self.first_offset.0 - row;
            if first != self.next {
                self.holes.extend_from_slice(&[row, missing]);
            }
            self.next = first.plus(dense.len() as u64);
            self.columns.extend_from_self(part.columns.borrow(), dense.clone());
            for (tick, rows) in (Block { rows: Arc::clone(part), range: dense }).tick_runs() {
                self.runs.push(tick, rows.len());
            }
        }
    }

    /// The block, up to `end`. The ticks are those of a block that is left without events.
    pub fn finish(self, end: Offset, ticks: (Tick, Tick)) -> Rows<E> {
        let rows = Rows::new(self.partition, self.first_offset, self.runs, self.columns);
        let ticks = if rows.events == 0 { ticks } else { rows.ticks };
        Rows { end, holes: Bytes::copy(bytemuck::cast_slice(&self.holes)), ticks, ..rows }
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
