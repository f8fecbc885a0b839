//! What the workers of one graph read: a share of the log each, taken block by block.
//!
//! Workers take the next block when they are free, so the load balances itself. A worker that takes a block holds a
//! capability for all of its ticks: capabilities follow [`EventSource::complete`], which never passes an event that was not
//! handed out, and a worker moves its own only after it has sent what it took.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::log::{Block, Cursor, Event, LogError, Tick};

/// Blocks in the order of the log.
pub trait EventSource<E: Event>: Send {
    /// The next block, or none for now.
    fn next(&mut self) -> Result<Option<Block<E>>, LogError>;
    /// Every event with a smaller tick has been returned.
    fn complete(&self) -> Tick;
}

impl<E: Event> EventSource<E> for Cursor<E> {
    fn next(&mut self) -> Result<Option<Block<E>>, LogError> {
        Cursor::next(self)
    }
    fn complete(&self) -> Tick {
        Cursor::complete(self)
    }
}

/// A log of which everything before `end` is known to be there, whatever frontier it announces.
pub struct Prefix<E: Event> {
    cursor: Cursor<E>,
    end: Tick,
    complete: Tick,
}

impl<E: Event> Prefix<E> {
    /// What a cursor reads before `end`.
    pub fn new(cursor: Cursor<E>, end: Tick) -> Self {
        Self { cursor, end, complete: Tick::ZERO }
    }
}

impl<E: Event> EventSource<E> for Prefix<E> {
    fn next(&mut self) -> Result<Option<Block<E>>, LogError> {
        let block = self.cursor.next()?;
        if block.is_none() {
            self.complete = self.end;
        }
        Ok(block)
    }
    fn complete(&self) -> Tick {
        self.complete
    }
}

/// A finite source: blocks at hand, then nothing up to `end`.
pub struct Replay<E: Event> {
    blocks: std::collections::VecDeque<Block<E>>,
    end: Tick,
}

impl<E: Event> Replay<E> {
    /// Blocks in order; no event at or after `end`.
    pub fn new(blocks: impl IntoIterator<Item = Block<E>>, end: Tick) -> Self {
        Self { blocks: blocks.into_iter().filter(|block| !block.is_empty()).collect(), end }
    }
}

impl<E: Event> EventSource<E> for Replay<E> {
    fn next(&mut self) -> Result<Option<Block<E>>, LogError> {
        Ok(self.blocks.pop_front())
    }
    fn complete(&self) -> Tick {
        self.blocks.front().map_or(self.end, |block| block.first_tick())
    }
}

/// What a worker gets when it asks.
pub enum Take<E: Event> {
    /// A block, never empty.
    Block(Block<E>),
    /// Nothing more for now.
    Nothing,
    /// Nothing more ever.
    End,
    /// Nothing more ever, and not all there was: the source failed.
    Failed,
}

/// The input of one graph, shared by its workers.
pub struct Feed<E: Event> {
    source: Mutex<Box<dyn EventSource<E>>>,
    until: Option<Tick>,
    closed: AtomicBool,
    failure: Mutex<Option<LogError>>,
}

impl<E: Event> Feed<E> {
    /// All that a source has before `until`, or all it will ever have.
    pub fn new(source: impl EventSource<E> + 'static, until: Option<Tick>) -> Self {
        Self { source: Mutex::new(Box::new(source)), until, closed: AtomicBool::new(false), failure: Mutex::new(None) }
    }

    /// The next block for the caller, and the tick below which everything has been handed out by now.
    pub fn take(&self) -> (Take<E>, Tick) {
        if self.closed.load(Ordering::Acquire) {
            return (Take::End, Tick(u64::MAX));
        }
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if self.failure().is_some() {
            return (Take::Failed, source.complete());
        }
        let taken = match source.next() {
            Ok(taken) => taken,
            Err(error) => {
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return (Take::Failed, source.complete());
            }
        };
        let complete = source.complete();
        let block = taken.map(|block| match self.until {
            Some(until) if block.last_tick() >= until => block.slice_ticks(Tick(0)..until),
            _ => block,
        });
        match block.filter(|block| !block.is_empty()) {
            Some(block) => (Take::Block(block), complete),
            // A block past the end says nothing about other partitions: only the source knows when all have come so far.
            None if self.until.is_some_and(|until| complete >= until) => (Take::End, complete),
            None => (Take::Nothing, complete),
        }
    }

    /// Ends the input: workers drop their capabilities when they next ask.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// The error that cut the input short, if one did.
    pub fn failure(&self) -> Option<LogError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
