//! `audit` of a log that no server has open: both layers compute it, and are compared.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::cluster::Cluster;
use crate::layers::{Coordinator, Crew, Cycle, Node, NodeOptions, OneProcess, Processes};
use crate::log::{Event, Log, LogOptions, Share, Tick};
use crate::operators::Codec;
use crate::runs::Audit;
use crate::storage::RealDisk;

use super::joining::{end_of_start, open_share};
use super::members::{AllProcesses, Ready};
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
    let membership = cluster.membership();
    let (process, processes) = (membership.process, membership.processes());
    crate::log::id(&RealDisk, dir)?;
    let share = Share { index: process as u32, of: processes as u32 };
    let log = open_share::<E>(cluster, dir, LogOptions { share, ..LogOptions::default() })?;
    let crew = Crew::new(membership.workers, process, processes, Arc::new(cluster.clone())).codec(exchange);
    let node = Arc::new(start_audit(program, &log, crew)?);
    // As in a server: its workers cannot be waited for alone.
    std::mem::forget(Arc::clone(&node));
    cluster.handle(Arc::new(Member { node: Arc::clone(&node), shared: OnceLock::new() }));
    let mut audited = None;
    if process == 0 {
        cluster.others().try_for_each(|other| cluster.hear::<Ready>(other).map(drop))?;
        audited = Some(audit_all(Box::new(AllProcesses { node, cluster: cluster.clone(), over: None }), &log)?);
    } else {
        cluster.tell(0, &Ready);
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
