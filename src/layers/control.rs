//! What the processes of a cluster say to each other about cuts, commits and switches. Process 0 asks, all answer.
//!
//! The messages hold no pointer and no type of the dataflow, so that they can cross a socket; one process answers itself
//! by a call.

use serde::{Deserialize, Serialize};

use crate::log::Tick;
use crate::runs::{Audit, Contents, Difference, Manifest};

/// A step of a start or of a handover.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Read the newest generation on disk that can be gone on with.
    Restore,
    /// Serve the views of another version of the dataflow as they stand, until there are new ones.
    Stand,
    /// Say how far the log is complete, and keep that tick readable until the audit.
    Propose,
    /// Compute the generation through `cut`, on the one being served or from scratch.
    Batch {
        /// Where the generation ends.
        cut: Tick,
        /// From the first event.
        full: bool,
    },
    /// Compare what was computed with what the speed graph has at the cut.
    Audit,
    /// Compare what was computed with the views that stand.
    Compare,
    /// Make what was computed durable, without naming it.
    Write,
    /// Make the generation the newest.
    Commit {
        /// What it is.
        manifest: Manifest,
    },
    /// Compute the next generation on the committed one, before any is served.
    Proceed,
    /// Build a speed graph on it, or on the restored one, and catch up.
    Adopt,
    /// Serve it.
    Switch,
    /// Forget what was computed and not switched to.
    Discard,
}

/// The answer to a [`Command`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Report {
    /// To `Restore`.
    Restored(Box<Restored>),
    /// To `Propose`.
    Proposed {
        /// The log's frontier.
        frontier: Tick,
    },
    /// To `Batch`.
    Frozen {
        /// Rows in the runs that were frozen.
        rows: usize,
        /// Events of the log after the cut.
        tail: u64,
    },
    /// To `Audit`: one for each view.
    Audited {
        /// What was compared.
        audits: Vec<Audit>,
    },
    /// To `Compare`: one for each view.
    Compared {
        /// New minus old.
        differences: Vec<Difference>,
    },
    /// To `Write`.
    Written {
        /// This process's part of the generation.
        contents: Contents,
    },
    /// To the others.
    Done,
    /// The step failed; nothing of it remains.
    Failed(Failure),
}

/// How a step failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What happened.
    pub reason: String,
    /// By which exit code a program would report it.
    pub exit_code: u8,
}

/// What was found on disk at a start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Restored {
    /// The newest generation of this dataflow that is whole.
    pub newest: Option<Manifest>,
    /// Events of the log that it does not cover.
    pub tail: u64,
    /// The newest whole generation of another version of the dataflow, if there is none of this one.
    pub outdated: Option<Manifest>,
    /// The greatest number that a generation has, whole or not.
    pub last_id: u64,
    /// Why newer generations were not used.
    pub passed_over: Vec<String>,
    /// The number of workers that wrote the generation, if its runs were written anew for another number.
    pub resharded_from: Option<usize>,
}

/// All processes of a cluster, process 0 included.
pub trait Processes: Send {
    /// Sends a command to each process and gathers the answers, by process index.
    fn ask(&mut self, command: &Command) -> Vec<Report>;
}
