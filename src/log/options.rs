//! What the caller chooses when opening a log.

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

/// How to open a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Partitions of a new log. A log keeps the number it was created with.
    pub partitions: u32,
    /// Bytes at which an active segment is full.
    pub segment_bytes_max: u64,
    /// Events of a block in a sealed segment.
    pub block_events_max: usize,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Who does the work.
    pub execution: Execution,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            partitions: 1,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            block_events_max: BLOCK_EVENTS_MAX,
            durability: Durability::Sync,
            execution: Execution::Threads,
        }
    }
}
