//! `audit` of a log that no server has open: both layers compute it, and are compared.

use std::path::Path;
use std::sync::Arc;

use crate::cluster::Cluster;
use crate::layers::{Coordinator, Crew, Cycle, Node, NodeOptions, OneProcess, Processes};
use crate::log::{Event, Log, LogOptions, Tick};
use crate::operators::Codec;
use crate::runs::Audit;
use crate::storage::RealDisk;

use super::joining::{end_of_start, open_share};
use super::members::all_processes;
use super::program::Program;
use super::server::{Member, StartError};

/// Recomputes a whole log in both layers, independently, and compares them at its end.
pub fn audit_log<E: Event>(program: &Program<E>, log: &Log<E>, workers: usize) -> Result<(Tick, Vec<Audit>), StartError> {
    let node = Arc::new(start_audit(program, log, workers.into())?);
    audit_all(Box::new(OneProcess(node)), log)
}

/// As [`audit_log`], as one of the processes of a cluster over the log in `dir`, which must be there. The result is process 0's.
pub fn audit_log_in<E: Event>(
    cluster: &Cluster,
    program: &Program<E>,
    dir: &Path,
    exchange: Codec,
) -> Result<Option<(Tick, Vec<Audit>)>, StartError> {
    let audited = try_audit_log_in(cluster, program, dir, exchange);
    audited.map_err(|error| end_of_start(cluster, error, "it could not audit"))
}

fn try_audit_log_in<E: Event>(
    cluster: &Cluster,
    program: &Program<E>,
    dir: &Path,
    exchange: Codec,
) -> Result<Option<(Tick, Vec<Audit>)>, StartError> {
    crate::log::id(&RealDisk, dir)?;
    let log = open_share::<E>(cluster, dir, LogOptions::default())?;
    let node = Arc::new(start_audit(program, &log, cluster.crew().codec(exchange))?);
    Member::start(cluster, &node);
    let audited = all_processes(cluster, &node)?.map(|all| audit_all(all, &log)).transpose()?;
    if audited.is_none() {
        cluster.wait_until_done(0)?;
    }
    log.close()?;
    cluster.part()?;
    Ok(audited)
}

fn start_audit<E: Event>(program: &Program<E>, log: &Log<E>, crew: Crew) -> Result<Node<E>, StartError> {
    let options = NodeOptions { crew, history: u64::MAX, ..NodeOptions::default() };
    Node::start(Arc::clone(&program.dataflow), log.clone(), options, Arc::default()).map_err(StartError::Threads)
}

fn audit_all<E: Event>(processes: Box<dyn Processes>, log: &Log<E>) -> Result<(Tick, Vec<Audit>), StartError> {
    let mut coordinator = Coordinator::new(processes);
    // The speed layer starts from nothing and follows the log from its first event, tick by tick.
    coordinator.start_empty()?;
    Ok((log.frontier(), coordinator.audit(Cycle::Full)?))
}
