//! Starts a cluster again as a whole whenever one of its processes is gone, as who launches one does.

use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use super::cluster::Plan;
use super::harness::*;

/// Where the processes can be asked; none while they are not there.
#[derive(Default)]
pub struct Addresses(RwLock<Vec<Client>>);

impl Addresses {
    pub fn set(&self, clients: Vec<Client>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = clients;
    }

    pub fn get(&self, process: usize) -> Option<Client> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(process).cloned()
    }
}

/// Starts all processes, and waits until they serve. Of a start that fails, all processes end.
#[track_caller]
pub fn start_all(plan: &Plan) -> Vec<Serving> {
    (0..plan.processes()).map(|process| plan.launch(process)).collect::<Vec<_>>().into_iter().map(Serving::from).collect()
}

/// Waits until each process answers a read.
#[track_caller]
pub fn all_answer(members: &[Serving], view: &str) -> Instant {
    for member in members {
        eventually("it answers", || member.try_get(&format!("/v1/views/{view}/scan"), &[("limit", "1")]).ok().filter(|r| r.status == 200));
    }
    Instant::now()
}
