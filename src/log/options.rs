//! What the caller chooses when opening a log.
use super::position::Partition;

/// Bytes at which an active segment is full and gets sealed, unless the options say otherwise.
pub const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Events of a block in a sealed segment: large enough that the cost per block vanishes, small enough that a slice of ticks
/// skips most.
pub const BLOCK_EVENTS_MAX: usize = 64 * 1024;

/// What an acknowledgement promises.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// On stable storage: survives a power cut.
    #[default]
    Sync,
    /// Handed to the operating system: survives the end of the process, not a power cut.
    Os,
    /// In memory: survives nothing. The bytes reach the operating system soon after.
    Memory,
}

/// Who does the work of writers, mark and sealing.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Execution {
    /// Threads of the log.
    #[default]
    Threads,
    /// The calling thread, in a fixed order: for simulations that must repeat from a seed. Calls then do not share groups.
    Inline,
}

/// Which of a log's partitions a process has, when several have one log open: those whose number leaves `index` when it is
/// divided by `of`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// The number of the share, from 0.
    pub index: u32,
    /// How many shares there are, at least 1.
    pub of: u32,
}

impl Default for Share {
    /// The whole log.
    fn default() -> Self {
        Share { index: 0, of: 1 }
    }
}

impl Share {
    /// The index of the share that has a partition.
    pub fn owner(self, partition: Partition) -> u32 {
        partition.0 % self.of.max(1)
    }

    /// Whether a partition belongs to this share.
    pub fn owns(self, partition: Partition) -> bool {
        self.owner(partition) == self.index
    }

    /// Whether there is no other share.
    pub fn is_whole(self) -> bool {
        self.index == 0 && self.of <= 1
    }

    /// The partitions of this share, of so many, in order.
    pub(crate) fn partitions(self, partitions: u32) -> impl Iterator<Item = Partition> {
        (0..partitions).map(Partition).filter(move |partition| self.owns(*partition))
    }

    /// The place of an own partition among the own ones.
    pub(crate) fn place(self, partition: Partition) -> usize {
        (partition.0 / self.of.max(1)) as usize
    }
}

/// How to open a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Partitions of a new log, at most [`PARTITIONS_MAX`](super::PARTITIONS_MAX). A log keeps the number it was created with, unless [`Log::prepare`](super::Log::prepare) lets
    /// it grow.
    pub partitions: u32,
    /// Bytes at which an active segment is full.
    pub segment_bytes_max: u64,
    /// Events of a block in a sealed segment.
    pub block_events_max: usize,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Who does the work.
    pub execution: Execution,
    /// Which partitions to open, when several processes have the log open: see [`Log::prepare`](super::Log::prepare). Whatever
    /// opens a whole log does not look at it.
    pub share: Share,
}

impl LogOptions {
    /// The same for the whole log.
    pub(crate) fn whole(self) -> Self {
        LogOptions { share: Share::default(), ..self }
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            partitions: 1,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            block_events_max: BLOCK_EVENTS_MAX,
            durability: Durability::Sync,
            execution: Execution::Threads,
            share: Share::default(),
        }
    }
}
