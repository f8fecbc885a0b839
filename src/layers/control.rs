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
    Restore {
        /// Generations that another process cannot use.
        passed_over: Vec<u64>,
    },
    /// Serve the views of another version of the dataflow as they stand, until there are new ones.
    Stand,
    /// Say how far the log is complete, and keep that tick readable until the audit.
    Propose,
    /// Say where to cut a range of the log, so that no part takes in too many of this process's events.
    Divide {
        /// Where the range begins.
        from: Tick,
        /// Where it ends.
        to: Tick,
    },
    /// Compute the generation through the last cut, on the one being served or from scratch.
    Batch {
        /// Counts up with each batch that was asked for.
        attempt: u64,
        /// Where each step of it ends.
        cuts: Vec<Tick>,
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
    /// Say how far answers have come.
    Reach,
    /// Build a speed graph on it, or on the restored one, and catch up.
    Adopt {
        /// Nobody will ask for a tick before the one before this: it is what all processes have answered so far.
        reached: Tick,
    },
    /// Serve it. The old graph goes on, for processes that have not switched yet.
    Switch,
    /// All have switched: shut the old graph down.
    Retire,
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
    /// To `Divide`: ends of the parts, ascending; the last is the range's.
    Divided {
        /// The ends.
        cuts: Vec<Tick>,
    },
    /// To `Reach`.
    Reached {
        /// Every answer so far was for an earlier tick.
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

impl Restored {
    /// What was found, with what another process found of the same generation.
    pub(super) fn and(self, other: Self) -> Self {
        let new = other.passed_over.into_iter().filter(|reason| !self.passed_over.contains(reason)).collect::<Vec<_>>();
        Self {
            newest: self.newest.or(other.newest),
            tail: self.tail + other.tail,
            outdated: self.outdated.or(other.outdated),
            last_id: self.last_id.max(other.last_id),
            passed_over: [self.passed_over, new].concat(),
            resharded_from: self.resharded_from.or(other.resharded_from),
        }
    }
}

/// All processes of a cluster, process 0 included.
pub trait Processes: Send {
    /// Sends a command to each process and gathers the answers, by process index. When a batch fails on one, the others give
    /// it up.
    fn ask(&mut self, command: &Command) -> Vec<Report>;
    /// The processes serve different graphs, and some cannot follow the others. They must not go on together: nothing is
    /// carried out from here on.
    fn diverged(&mut self, _reason: &str) {}
}
