//! What the processes of a cluster say to each other about cuts, commits and switches. Process 0 asks, all answer.
//!
//! The messages hold no pointer and no type of the dataflow, so that they can cross a socket; one process answers itself
//! by a call.

use serde::{Deserialize, Serialize};

use crate::log::Tick;
use crate::runs::Audit;

/// What a generation is, as it is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Counts up with each commit.
    pub id: u64,
    /// Every event with a smaller tick is in.
    pub frontier: Tick,
    /// Fingerprint of the dataflow that computed it.
    pub fingerprint: u64,
    /// Whether it was computed from the first event, not from the generation before.
    pub full: bool,
}

/// A step of a handover.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
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
    /// Make the generation the newest.
    Commit {
        /// What it is.
        manifest: Manifest,
    },
    /// Build a speed graph on it and catch up.
    Adopt,
    /// Serve it.
    Switch,
    /// Forget what was computed and not switched to.
    Discard,
}

/// The answer to a [`Command`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Report {
    /// To `Propose`.
    Proposed {
        /// The log's frontier.
        frontier: Tick,
    },
    /// To `Batch`.
    Frozen {
        /// Fingerprint of the dataflow that computed it.
        fingerprint: u64,
        /// Rows in the runs that were frozen.
        rows: usize,
    },
    /// To `Audit`: one for each view.
    Audited {
        /// What was compared.
        audits: Vec<Audit>,
    },
    /// To the others.
    Done,
    /// The step failed; nothing of it remains.
    Failed {
        /// What happened.
        reason: String,
        /// By which exit code a program would report it.
        exit_code: u8,
    },
}

/// All processes of a cluster, process 0 included.
pub trait Processes: Send {
    /// Sends a command to each process and gathers the answers, by process index.
    fn ask(&mut self, command: &Command) -> Vec<Report>;
}
