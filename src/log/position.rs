//! Where an event stands: its log time, its partition, its place in the partition.
//!
//! Newtypes, because all three are integers and a mixed-up pair would read plausible wrong events.
use serde::{Deserialize, Serialize};
use std::fmt;

/// Log time in milliseconds: assigned when an event is appended, never going backwards.
#[derive(
    Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Tick(pub u64);

/// The number of a partition, dense from 0.
#[derive(
    Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Partition(pub u32);

/// The place of an event in its partition: dense from 0, and permanent.
#[derive(
    Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Tick {
    /// The first tick there is.
    pub const ZERO: Tick = Tick(0);
    /// Later than every event: `cursor(Tick::MAX)` reads nothing.
    pub const MAX: Tick = Tick(u64::MAX);

    /// The tick after this one; the last tick has none and stays.
    pub fn next(self) -> Tick {
        Tick(self.0.saturating_add(1))
    }

    /// This tick and `ticks` more, stopping at the last tick.
    pub fn plus(self, ticks: u64) -> Tick {
        Tick(self.0.saturating_add(ticks))
    }
}

impl Partition {
    /// The partition's number as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl Offset {
    /// The offset `events` later.
    pub fn plus(self, events: u64) -> Offset {
        Offset(self.0.saturating_add(events))
    }
}

impl fmt::Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
