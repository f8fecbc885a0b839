//! Reads a log from a tick on, while it grows.
//!
//! A position is an offset per partition, not a place in a file: when small blocks are rewritten into large ones under a
//! reader, it neither loses nor repeats events.
use super::block::Block;
use super::error::LogError;
use super::event::Event;
use super::partition::{Contents, Located};
use super::position::{Offset, Partition, Tick};
use std::sync::Arc;

/// Hands out the events of all partitions from a tick on, block by block. Each event comes once; those of a partition come
/// in order; of several partitions the one with the oldest block goes first.
pub struct Cursor<E: Event> {
    contents: Arc<Contents<E>>,
    from: Tick,
    next: Vec<Offset>,
    complete: Tick,
}

impl<E: Event> Cursor<E> {
    pub(crate) fn new(contents: Arc<Contents<E>>, from: Tick) -> Self {
        let next = contents.all().map(|segments| segments.start(from)).collect();
        Cursor { contents, from, next, complete: Tick::ZERO }
    }

    /// The next block, cut to what was asked for. `None` means nothing more right now: call again after a wake.
    #[expect(clippy::should_implement_trait, reason = "a cursor goes on after `None` and can fail")]
    pub fn next(&mut self) -> Result<Option<Block<E>>, LogError> {
        loop {
            // The frontier is read before the partitions: whatever is below it is already there to be found.
            let frontier = self.contents.frontier();
            let mut oldest: Option<(usize, Located<E>, Tick)> = None;
            let mut others = Tick::MAX;
            for (partition, offset) in self.next.iter().enumerate() {
                let located = self.contents.segments(partition).locate(*offset);
                let Some(located) = located else { continue };
                let tick = located.first_tick();
                match &oldest {
                    Some((.., first)) if *first <= tick => others = others.min(tick),
                    _ => others = oldest.replace((partition, located, tick)).map_or(others, |(.., tick)| others.min(tick)),
                }
            }
            let Some((partition, located, _)) = oldest else {
                self.complete = self.complete.max(frontier);
                return Ok(None);
            };
            let block = located.read()?.slice_from(self.next[partition]).slice_ticks(self.from..Tick::MAX);
            self.next[partition] = located.end();
            if block.is_empty() {
                continue;
            }
            // More events of the block's last tick may follow in its own partition.
            self.complete = self.complete.max(frontier.min(others).min(block.last_tick()));
            return Ok(Some(block));
        }
    }

    /// Every event from the start up to this tick, exclusive, has been returned by [`Cursor::next`].
    pub fn complete(&self) -> Tick {
        self.complete
    }

    /// The next offset in each partition.
    pub fn position(&self) -> impl Iterator<Item = (Partition, Offset)> + '_ {
        self.next.iter().enumerate().map(|(number, offset)| (Partition(number as u32), *offset))
    }
}
