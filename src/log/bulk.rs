//! Loads many events: straight into column containers, large frames, the next built while the last is written.
use super::commit::{Ack, GROUP_BYTES_MAX, GROUP_EVENTS_MAX};
use super::error::LogError;
use super::event::Event;
use super::handle::Log;
use super::position::Tick;
use columnar::{Borrow, ContainerOf, Len, Push, Ref, bytes::indexed};
use crossbeam::channel::Receiver;
use std::collections::VecDeque;

/// Frames that wait for the disk; the next push waits for the oldest.
pub const BULK_FRAMES_IN_FLIGHT_MAX: usize = 4;
/// How often the size of a frame under construction is measured: lines may have 1 MiB.
const MEASURE_EVENTS: usize = 64;

/// Appends events in large frames, over all own partitions in turn. Nothing is acknowledged before [`BulkAppender::finish`];
/// after an error some frames may be in the log.
pub struct BulkAppender<E: Event> {
    log: Log<E>,
    columns: ContainerOf<E>,
    waiting: VecDeque<Receiver<Result<Ack, LogError>>>,
    frames: u64,
    done: BulkAck,
}

/// What a bulk load added.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct BulkAck {
    events: u64,
    last_tick: Tick,
}

impl BulkAck {
    /// How many events were appended.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The highest tick any of them got.
    pub fn last_tick(&self) -> Tick {
        self.last_tick
    }
}

impl<E: Event> Log<E> {
    /// Starts a bulk load.
    pub fn bulk(&self) -> BulkAppender<E> {
        BulkAppender { log: self.clone(), columns: Default::default(), waiting: VecDeque::new(), frames: 0, done: BulkAck::default() }
    }
}

impl<E: Event> BulkAppender<E> {
    /// Adds an event. Waits when the disk is behind.
    pub fn push(&mut self, event: &E) -> Result<(), LogError> {
        self.columns.push(event);
        self.send_when_full()
    }

    /// Adds an event given by its borrowed parts, which saves building an `E`.
    pub fn push_ref(&mut self, event: Ref<'_, E>) -> Result<(), LogError> {
        self.columns.push(event);
        self.send_when_full()
    }

    fn send_when_full(&mut self) -> Result<(), LogError> {
        let events = self.columns.len();
        let large = || indexed::length_in_bytes(&self.columns.borrow()) >= GROUP_BYTES_MAX;
        if events >= GROUP_EVENTS_MAX || events.is_multiple_of(MEASURE_EVENTS) && large() { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), LogError> {
        if self.waiting.len() >= BULK_FRAMES_IN_FLIGHT_MAX {
            self.wait_for_oldest()?;
        }
        let partition = self.log.own_partition(self.frames as usize);
        let columns = std::mem::take(&mut self.columns);
        self.waiting.push_back(self.log.submit(partition, columns, None)?);
        self.frames += 1;
        Ok(())
    }

    fn wait_for_oldest(&mut self) -> Result<(), LogError> {
        if let Some(answer) = self.waiting.pop_front() {
            let ack = answer.recv().unwrap_or(Err(LogError::Closed))?;
            self.done.events += ack.count();
            self.done.last_tick = self.done.last_tick.max(ack.tick());
        }
        Ok(())
    }

    /// Returns when all events are as durable as the log's options ask.
    pub fn finish(mut self) -> Result<BulkAck, LogError> {
        if !self.columns.is_empty() {
            self.send()?;
        }
        while !self.waiting.is_empty() {
            self.wait_for_oldest()?;
        }
        Ok(self.done)
    }
}
