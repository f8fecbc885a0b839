//! The processes of a cluster: who they are, how they find each other, how they talk, and how a loss is noticed.
//!
//! Each process listens on one address. Between each two there is a connection on which they talk (requests, answers, beats),
//! and one for each set of workers that exchange rows; all begin with a handshake, so that a stray connection, another
//! cluster or a process that was started differently is turned away with a reason.
//!
//! **Invariants.** A cluster lives and dies together: when one process is gone, silent for too long, can exchange no rows with
//! another, or says that it stops, all others learn it, once, with its number, and nothing that was asked of it is left waiting. No
//! connection is waited for without a deadline.
//!
//! Deliberately absent: encryption and authentication. The token tells clusters apart, it keeps nobody out who can read the
//! network: use a private one. Of dataflows and logs nothing is known here; what is asked and answered is bytes.

mod frame;
mod hello;
mod hosts;
mod mesh;
mod pace;
mod talk;

use std::time::Duration;

pub use hello::ProgramId;
pub use hosts::Membership;
pub use talk::{Answer, AskError, Asked, Cluster, Handler};

/// How long a process waits for the others at its start, unless the options say otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a process may be silent until it counts as lost, unless the options say otherwise.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a process exits with that lost another.
pub const EXIT_CODE_LOST: u8 = 4;

/// How to take part in a cluster.
#[derive(Clone)]
pub struct ClusterOptions {
    /// Who takes part, and which of them this process is.
    pub membership: Membership,
    /// What all processes must have been given alike: tells this cluster from others.
    pub token: String,
    /// How long to wait for the others.
    pub connect_timeout: Duration,
    /// How long one of the others may be silent, and how long it may stand still in addition to the pause between its ticks.
    pub peer_timeout: Duration,
}

/// Why there is no cluster, or none any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The list of hosts cannot be used.
    #[error("{0}")]
    Hosts(String),
    /// The address of this process is taken.
    #[error(
        "{address} is in use by another process\n  hint: process {process} of the cluster listens there; name free addresses with -h HOSTFILE"
    )]
    InUse {
        /// The address.
        address: String,
        /// This process.
        process: usize,
    },
    /// The address of this process is not one of this machine.
    #[error("process {process} cannot listen on {address}: {reason}\n  hint: line {} of the hostfile must be an address of this machine", .process + 1)]
    Listen {
        /// The address.
        address: String,
        /// This process.
        process: usize,
        /// What the system said.
        reason: String,
    },
    /// Others did not come.
    #[error("{missing} did not come within {} s\n  hint: start all processes with the same -n, -w and hostfile; --connect-timeout says how long to wait", .waited.as_secs_f64())]
    Absent {
        /// Which ones, and what was last heard of them.
        missing: String,
        /// How long this process waited.
        waited: Duration,
    },
    /// Another process was started differently.
    #[error("{0}\n  hint: all processes of a cluster run the same program with the same options")]
    Mismatch(String),
    /// A process said that it stops.
    #[error("process {process} ({address}) stopped: {why}\n  hint: start the cluster again; what was acknowledged is safe")]
    Stopped {
        /// Its number.
        process: usize,
        /// Its address.
        address: String,
        /// What it said.
        why: String,
    },
    /// A process is gone.
    #[error("lost process {process} ({address}): {why}\n  hint: start the cluster again; what was acknowledged is safe")]
    Lost {
        /// Its number.
        process: usize,
        /// Its address.
        address: String,
        /// How that showed.
        why: String,
    },
}

impl ClusterError {
    /// The exit code of a process that ends with this error: 2 usage, 4 peer lost, 6 in use.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Hosts(_) | Self::Listen { .. } | Self::Mismatch(_) => 2,
            Self::Absent { .. } | Self::Stopped { .. } | Self::Lost { .. } => EXIT_CODE_LOST,
            Self::InUse { .. } => 6,
        }
    }
}
