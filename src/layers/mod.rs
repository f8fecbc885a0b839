//! The two layers and the handover between them.
//!
//! **Invariants.** A graph's outputs are changes relative to its base. A batch graph leaves a generation or nothing. What
//! is served moves from one generation to the next in one step, and only if both layers agree at the cut.
//!
//! Deliberately absent: HTTP, the command line, and any merge code (that is `runs::merged`).

mod batch;
mod control;
mod coordinator;
mod feed;
mod graph;
mod node;
mod speed;

pub use batch::{BatchError, BatchOutput, run_batch};
pub use control::{Command, Manifest, Processes, Report};
pub use coordinator::{Coordinator, Cycle, CycleError, Handover};
pub use feed::{EventSource, Feed, Replay, Take};
pub use graph::Dataflow;
pub use node::{Node, NodeOptions, OneProcess};
pub use speed::{Progress, SpeedGraph, SpeedWorkers};
