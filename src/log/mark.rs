//! The high-water mark: what a restart must not fall behind.
//!
//! Readers are told a frontier, "nothing below this tick will come any more". A restart with a clock set back must keep that
//! word, so a frontier is announced only up to `reserved`, which was durable before; after a restart ticks begin there.
//! Reserving ahead makes one write serve for seconds. The mark also says up to which offset each partition is known to be on
//! disk: a log that ends before that has lost acknowledged events, and recovery says so instead of cutting.
use super::document;
use super::error::LogError;
use super::meta::Meta;
use super::position::{Offset, Tick};
use crate::storage::{Disk, Step, reach};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The mark's file.
pub(crate) const NAME: &str = "mark";
/// How far ahead of the clock ticks are reserved.
pub(crate) const RESERVE_TICKS: u64 = 5_000;
/// How far ahead of the floor ticks are reserved when the clock is behind it. Smaller, because each unclean restart jumps by this.
pub(crate) const RESERVE_BEHIND_CLOCK_TICKS: u64 = 1_000;
/// The mark is rewritten when fewer ticks than this are left, so that nobody waits for it.
pub(crate) const RESERVE_LEFT_TICKS_MIN: u64 = 500;

/// The content of the mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub log_id: String,
    /// No frontier above this was announced; ticks of the next run begin here.
    pub reserved: Tick,
    /// The log was closed: everything is synced, and nothing was appended since.
    pub clean: bool,
    /// Every group was synced before the next was written.
    pub synced: bool,
    /// Per partition, the offset before which everything is known to be on disk.
    pub ends: Vec<Offset>,
}

impl Mark {
    /// Makes the mark durable.
    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        reach(Step::MarkBeforeWrite);
        document::write(disk, dir, NAME, self)?;
        reach(Step::MarkAfterWrite);
        Ok(())
    }

    /// Reads the mark of a log.
    pub fn read(disk: &dyn Disk, dir: &Path, meta: &Meta) -> Result<Mark, LogError> {
        let mark: Mark = document::read(disk, dir, NAME)?;
        if mark.log_id != meta.log_id || mark.ends.len() != meta.partitions as usize {
            let (found, expected) = (mark.ends.len(), meta.partitions);
            let what = format!("the mark of log {} with {found} partitions, expected {} with {expected}", mark.log_id, meta.log_id);
            return Err(LogError::damaged_file(&dir.join(NAME), 0, what));
        }
        Ok(mark)
    }
}

/// The mark to reserve, given the clock and the floor.
pub(crate) fn reserve(now: Tick, floor: Tick) -> Tick {
    now.plus(RESERVE_TICKS).max(floor.plus(RESERVE_BEHIND_CLOCK_TICKS))
}
