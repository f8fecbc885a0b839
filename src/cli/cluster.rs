//! One process of a cluster on the command line: meets the others, and ends when one of them is gone.

use std::io::Write;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cluster::{Cluster, ClusterError, ClusterOptions, Membership, ProgramId};
use crate::layers::hush_broken_exchange;
use crate::runtime::StartError;

use super::Failure;
use super::arguments::Processes;

/// When another process says that it was told to stop, this one has most likely been told, too, and is about to notice.
const TOLD_TOO: Duration = Duration::from_secs(1);

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        Self::new(&error, error.exit_code())
    }
}

impl Processes {
    /// Who takes part.
    pub fn membership(&self) -> Result<Membership, Failure> {
        Ok(Membership::new(self.workers, self.process, self.processes, self.hostfile.as_deref())?)
    }

    /// Meets the other processes, if there are any; only then is it found out what the program is. From then on this process
    /// ends when one of them is lost, unless `stopping`.
    pub fn join(
        &self,
        program: impl FnOnce() -> Result<ProgramId, StartError>,
        stopping: &Arc<AtomicBool>,
    ) -> Result<Option<Cluster>, Failure> {
        let membership = self.membership()?;
        if membership.processes() == 1 {
            return Ok(None);
        }
        let loopback =
            |address: &String| address.to_socket_addrs().is_ok_and(|mut all| all.all(|address| IpAddr::is_loopback(&address.ip())));
        if self.cluster_token.is_empty() && !self.insecure && !membership.addresses.iter().all(loopback) {
            return Err(Failure::usage(
                "the hostfile names addresses that other machines reach, and there is no token\n  hint: give all processes the same LAMBDAFLOW_CLUSTER_TOKEN on a private network, or say --insecure",
            ));
        }
        hush_broken_exchange();
        let options = ClusterOptions {
            membership,
            token: self.cluster_token.clone(),
            connect_timeout: self.connect_timeout,
            peer_timeout: self.peer_timeout,
        };
        let cluster = Cluster::join(&options, program()?)?;
        let (watched, stopping) = (cluster.clone(), Arc::clone(stopping));
        std::thread::Builder::new().name("cluster-loss".to_owned()).spawn(move || end_with(&watched, &stopping))?;
        Ok(Some(cluster))
    }
}

/// Ends the process when another is lost. Nothing durable is in the way: what was acknowledged is on disk, and the rest does
/// not count. Workers cannot be waited for, since they wait for the one that is lost. Who sets `stopping` first says why.
fn end_with(cluster: &Cluster, stopping: &AtomicBool) {
    let Some(lost) = cluster.wait_for_loss(Duration::MAX) else { return };
    let told = matches!(lost, ClusterError::Stopped { .. });
    let pause = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    while told && waited < TOLD_TOO && !stopping.load(Ordering::Acquire) {
        std::thread::sleep(pause);
        waited += pause;
    }
    if !stopping.swap(true, Ordering::AcqRel) {
        cluster.flush();
        let _ = writeln!(std::io::stderr(), "error: {lost}");
        std::process::exit(lost.exit_code().into());
    }
}

/// What became of a command that several processes carry out. Of one that failed because another process is lost, that loss is
/// said, and once.
pub(super) fn explain<T, E: Into<Failure>>(cluster: &Cluster, stopping: &AtomicBool, ended: Result<T, E>) -> Result<T, Failure> {
    ended.map_err(|error| {
        while stopping.swap(true, Ordering::AcqRel) {
            // It is being said already, and the process about to end.
            std::thread::park();
        }
        cluster.lost().map_or_else(|| error.into(), Failure::from)
    })
}
