//! Files, as a log and its generations use them: the one seam to a file system, and disks that fail on purpose.
//!
//! ```text
//! Disk      what is used of a file system; RealDisk is the machine's
//! SimDisk   keeps what was written apart from what is on stable storage, and loses power at any step
//! FaultDisk lets chosen operations fail, lie, or write short
//! Step      the durable steps, at each of which a test can kill the process
//! ```
//!
//! Deliberately absent: what the files mean, and any retry of a sync: after one failed, nobody knows what is on the disk.
pub(crate) mod columns;
mod disk;
mod failpoint;
mod fault;
mod map;
mod sim;

pub use disk::{Disk, DiskFile, Entry, EntryKind, LockGuard, RealDisk};
pub(crate) use disk::{append_all, uninterrupted};
pub use failpoint::Step;
pub(crate) use failpoint::reach;
pub use fault::{Effect, Fault, FaultDisk, Operation};
pub use map::Bytes;
pub use sim::{Rng, SimDisk};
