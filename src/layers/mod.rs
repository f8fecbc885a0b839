//! The two layers and the handover between them.
//!
//! **Invariants.** A graph's outputs are changes relative to its base. A batch graph leaves a generation or nothing. What
//! is served moves from one generation to the next in one step, and only if both layers agree at the cut.
//!
//! Deliberately absent: HTTP, the command line, and any merge code (that is `runs::merged`).

mod batch;
mod blueprint;
mod control;
mod coordinator;
mod crew;
mod feed;
mod graph;
mod node;
mod restore;
mod speed;
mod wire;

pub use batch::{BatchError, BatchOutput, run_batch};
pub use blueprint::Blueprint;
pub use control::{Command, Failure, Processes, Report, Restored};
pub use coordinator::{Coordinator, Cycle, CycleError, Handover, Started, TAIL_EVENTS_MAX};
pub use crew::{Crew, Links, hush_broken_exchange, is_broken_exchange};
pub use feed::{EventSource, Feed, Prefix, Replay, Take};
pub use graph::Dataflow;
pub use node::{BATCH_EVENTS_MAX, Node, NodeOptions, OneProcess};
pub use speed::{Progress, SpeedGraph, SpeedWorkers};
