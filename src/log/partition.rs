//! The segments of a partition as readers see them: durable events only, sealed ones first.
use super::block::{Block, Rows, partition_point};
use super::error::LogError;
use super::event::Event;
use super::position::{Offset, Tick};
use super::segment::Sealed;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What cursors read from: the segments of all partitions, and the frontier.
pub(crate) struct Contents<E: Event> {
    partitions: Vec<RwLock<Segments<E>>>,
    frontier: AtomicU64,
}

impl<E: Event> Contents<E> {
    pub fn new(partitions: Vec<Segments<E>>, frontier: Tick) -> Self {
        Contents { partitions: partitions.into_iter().map(RwLock::new).collect(), frontier: AtomicU64::new(frontier.0) }
    }

    /// The segments of a partition, for a look-up.
    pub fn segments(&self, partition: usize) -> RwLockReadGuard<'_, Segments<E>> {
        // A panic under the lock is a bug that was reported; each change of the list is whole or not made.
        self.partitions[partition].read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segments of a partition, for a change.
    pub fn change(&self, partition: usize) -> RwLockWriteGuard<'_, Segments<E>> {
        self.partitions[partition].write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segments of all partitions, in order.
    pub fn all(&self) -> impl Iterator<Item = RwLockReadGuard<'_, Segments<E>>> {
        (0..self.partitions.len()).map(|partition| self.segments(partition))
    }

    pub fn events_total(&self) -> u64 {
        self.all().map(|segments| segments.events).sum()
    }

    /// By partition, the offset of the first event at or after `tick`, however the blocks are cut; of none, the end.
    pub fn offsets_at(&self, tick: Tick) -> Result<Vec<Offset>, LogError> {
        let at = |partition: usize| {
            let mut offset = self.segments(partition).start(tick);
            loop {
                let segments = self.segments(partition);
                let Some(located) = segments.locate(offset) else { return Ok(segments.end) };
                drop(segments);
                let later = located.read()?.slice_ticks(tick..Tick::MAX);
                if !later.is_empty() {
                    return Ok(later.first_offset());
                }
                // Its events were redacted.
                offset = located.end();
            }
        };
        (0..self.partitions.len()).map(at).collect()
    }

    pub fn frontier(&self) -> Tick {
        Tick(self.frontier.load(Ordering::Acquire))
    }

    /// Moves the frontier up, never down; returns whether it moved.
    pub fn raise_frontier(&self, frontier: Tick) -> bool {
        self.frontier.fetch_max(frontier.0, Ordering::AcqRel) < frontier.0
    }
}

/// Segments of one partition, in order. Guarded by a lock that is held for look-ups only.
pub(crate) struct Segments<E: Event> {
    pub sealed: Vec<Arc<Sealed<E>>>,
    pub open: Vec<OpenSegment<E>>,
    /// Offset after the last readable event.
    pub end: Offset,
    /// Readable events: fewer than offsets, when some were redacted.
    pub events: u64,
}

/// A segment whose blocks are in memory until it is sealed.
pub(crate) struct OpenSegment<E: Event> {
    pub first: Offset,
    pub blocks: Vec<Arc<Rows<E>>>,
    pub bytes: u64,
}

/// Where a block is, so that it can be read after the lock is released.
pub(crate) enum Located<E: Event> {
    Sealed(Arc<Sealed<E>>, usize),
    Open(Arc<Rows<E>>),
}

impl<E: Event> Located<E> {
    /// Tick of the block's first event.
    pub fn first_tick(&self) -> Tick {
        match self {
            Located::Sealed(segment, block) => segment.file.index[*block].first_tick,
            Located::Open(rows) => rows.first_tick(),
        }
    }

    /// The offset after the block's last.
    pub fn end(&self) -> Offset {
        match self {
            Located::Sealed(segment, block) => segment.file.index[*block].end,
            Located::Open(rows) => rows.end,
        }
    }

    /// Reads the block.
    pub fn read(&self) -> Result<Block<E>, LogError> {
        match self {
            Located::Sealed(segment, block) => segment.rows(*block).map(Block::whole),
            Located::Open(rows) => Ok(Block::whole(Arc::clone(rows))),
        }
    }
}

impl<E: Event> Segments<E> {
    pub fn new(sealed: Vec<Sealed<E>>, end: Offset) -> Self {
        let events = sealed.iter().map(|segment| segment.file.events()).sum();
        Segments { sealed: sealed.into_iter().map(Arc::new).collect(), open: Vec::new(), end, events }
    }

    /// Adds a sealed segment after the last.
    pub fn push_sealed(&mut self, segment: Sealed<E>) {
        self.events += segment.file.events();
        self.sealed.push(Arc::new(segment));
    }

    /// Adds a segment that is not sealed after the last.
    pub fn push_open(&mut self, segment: OpenSegment<E>) {
        self.events += segment.blocks.iter().map(|rows| rows.events() as u64).sum::<u64>();
        self.open.push(segment);
    }

    /// Makes a durable block readable.
    pub fn publish(&mut self, first: Offset, rows: Arc<Rows<E>>, bytes: u64) {
        self.end = rows.end;
        self.events += rows.events() as u64;
        match self.open.last_mut().filter(|segment| segment.first == first) {
            Some(segment) => {
                segment.blocks.push(rows);
                segment.bytes += bytes;
            }
            None => self.open.push(OpenSegment { first, blocks: vec![rows], bytes }),
        }
    }

    /// Puts a sealed segment in the place of the oldest open one, which holds the same events.
    pub fn replace_oldest(&mut self, sealed: Sealed<E>) {
        assert_eq!(self.open.first().map(|open| open.first), Some(sealed.file.id.first), "segments are sealed in order");
        self.open.remove(0);
        self.sealed.push(Arc::new(sealed));
    }

    /// The block that holds `offset`, unless nothing is there yet.
    pub fn locate(&self, offset: Offset) -> Option<Located<E>> {
        if offset >= self.end {
            return None;
        }
        let sealed = partition_point(self.sealed.len(), |segment| self.sealed[segment].file.end <= offset);
        if let Some(segment) = self.sealed.get(sealed) {
            return Some(Located::Sealed(Arc::clone(segment), segment.block_of(offset)));
        }
        let open = self.open.iter().rev().find(|segment| segment.first <= offset)?;
        let block = partition_point(open.blocks.len(), |block| open.blocks[block].end <= offset);
        open.blocks.get(block).map(|rows| Located::Open(Arc::clone(rows)))
    }

    /// Offset of the first block with an event at or after `tick`; found from the indexes, without reading blocks.
    pub fn start(&self, tick: Tick) -> Offset {
        let sealed = partition_point(self.sealed.len(), |segment| self.sealed[segment].file.last_tick < tick);
        if let Some(segment) = self.sealed.get(sealed) {
            let index = &segment.file.index;
            return index[partition_point(index.len(), |block| index[block].last_tick < tick)].first_offset;
        }
        let blocks = self.open.iter().flat_map(|segment| &segment.blocks);
        blocks.into_iter().find(|rows| rows.last_tick() >= tick).map_or(self.end, |rows| rows.first_offset)
    }
}
