//! How a process takes part in a command that several carry out: what all must run alike, and its share of the log.

use std::path::Path;
use std::sync::Arc;

use crate::cluster::{Cluster, ClusterError, ProgramId};
use crate::layers::Blueprint;
use crate::log::{Claim, Event, EventType, Log, LogOptions, Share, ShareLock, SystemClock, place};
use crate::operators::Codec;
use crate::storage::RealDisk;

use super::build::build_id;
use super::members::{Locked, Opening, Place};
use super::program::Program;
use super::server::StartError;

/// Tells the others why this process ends. When one of them was lost before, whatever failed here failed for that.
pub(super) fn end_of_start(cluster: &Cluster, error: StartError, what: &str) -> StartError {
    let lost = cluster.broken_by(&error.to_string()).or_else(|| cluster.lost());
    cluster.leave(&format!("{what}: {error}"));
    lost.map_or(error, StartError::Cluster)
}

/// What the processes that carry out a command together must run alike.
pub(super) fn program_id<E: Event>(program: &Program<E>, options: Vec<(String, String)>) -> Result<ProgramId, StartError> {
    let blueprint = Blueprint::of(&program.dataflow, &program.identity()).map_err(StartError::Threads)?;
    Ok(ProgramId {
        dataflow: program.name.clone(),
        version: program.identity(),
        fingerprint: format!("{:016x}", blueprint.fingerprint()),
        event: EventType::of::<E>().to_string(),
        options,
    })
}

/// What processes that exchange rows by a codec must have alike.
pub(super) fn exchange_id(codec: Codec) -> (String, String) {
    let same = match codec {
        // Rows as they are in memory are understood by the same executable only.
        Codec::Abomonation => format!("{codec} of {}", build_id()),
        codec => codec.to_string(),
    };
    ("--exchange".to_owned(), same)
}

/// Opens this process's share of a log that all processes reach. Every process locks its share before anything is read.
pub(super) fn open_share<E: Event>(cluster: &Cluster, dir: &Path, options: LogOptions) -> Result<Log<E>, StartError> {
    let (disk, clock) = (Arc::new(RealDisk), Arc::new(SystemClock));
    let (process, processes) = (cluster.membership().process, cluster.membership().processes());
    let options = LogOptions { share: Share { index: process as u32, of: processes as u32 }, ..options };
    if process == 0 {
        let claim = Claim::take(disk.clone(), clock, dir)?;
        cluster.tell_all(&Place { mark: place::mark(&*disk, dir)?, dir: dir.display().to_string() });
        cluster.others().try_for_each(|other| cluster.hear::<Locked>(other).map(drop))?;
        let prepared = claim.prepare(options.clone())?;
        cluster.tell_all(&Opening);
        return Ok(prepared.open(options)?);
    }
    let theirs: Place = cluster.hear(0)?;
    if !place::is_marked(&*disk, dir, &theirs.mark) {
        let (own, theirs) = (dir.display(), &theirs.dir);
        return Err(ClusterError::Mismatch(format!("--log {own} of process {process} is not the directory {theirs} of process 0")).into());
    }
    let lock = ShareLock::take(&*disk, dir, options.share)?;
    cluster.tell(0, &Locked);
    cluster.hear::<Opening>(0)?;
    Ok(Log::open_locked_share(disk, clock, dir, options, lock)?)
}

/// What processes that carry out a command together, once, must run alike: `alike` are options with their values.
pub fn command_id<E: Event>(
    program: &Program<E>,
    command: &str,
    exchange: Codec,
    alike: Vec<(String, String)>,
) -> Result<ProgramId, StartError> {
    let command = [("the command".to_owned(), command.to_owned()), exchange_id(exchange)];
    program_id(program, command.into_iter().chain(alike).collect())
}
