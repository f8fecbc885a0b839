//! How many requests of clients may wait, each on a thread, for another process or for their turn. Whoever needs nobody finds a
//! thread then, however many wait for a process that is silent.

use std::time::Duration;

use serde::Serialize;

use crate::cluster::{Asked, Cluster};
use crate::serving::{Entered, Full, Room};

/// Cycles and audits that clients have asked for and that wait, or run, at a time.
pub const CYCLES_WAITING_MAX: usize = 16;
/// Appends that wait at a time for the process that owns their producer's partition.
pub const APPENDS_PASSED_ON_MAX: usize = 128;
/// Requests for the status that wait at a time for what only process 0 knows.
pub const STATUS_WAITING_MAX: usize = 16;

/// How long a process may let others wait before they take room. Five beats: who was not heard of for so long does not answer now.
const MOMENT: Duration = Duration::from_millis(250);

/// A request that needs other processes. It takes room as soon as one of them lets it wait.
pub(super) struct Waiting<'a> {
    cluster: &'a Cluster,
    room: &'a Room,
    entered: Option<Entered<'a>>,
}

impl<'a> Waiting<'a> {
    pub fn new(cluster: &'a Cluster, room: &'a Room) -> Self {
        Self { cluster, room, entered: None }
    }

    /// Asks a process. Of one that is silent nothing more is asked than there is room for: even to send it may have to wait.
    pub fn begin(&mut self, process: usize, request: &impl Serialize, body: &[u8]) -> Result<Asked, Full> {
        if self.cluster.silence(process) > MOMENT {
            self.enter()?;
        }
        Ok(self.cluster.begin(process, request, body))
    }

    /// Returns when an answer is there, or when there is room to wait for it longer.
    pub fn go_on(&mut self, asked: &Asked) -> Result<(), Full> {
        if asked.is_answered_within(MOMENT) { Ok(()) } else { self.enter() }
    }

    fn enter(&mut self) -> Result<(), Full> {
        if self.entered.is_none() {
            self.entered = Some(self.room.enter()?);
        }
        Ok(())
    }
}
