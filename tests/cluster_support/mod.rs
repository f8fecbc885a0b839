//! A cluster whose processes are threads of the test.

mod ports;

use std::time::Duration;

use lambdaflow::cluster::{Cluster, ClusterOptions, Membership, ProgramId};
use lambdaflow::layers::hush_broken_exchange;
use ports::free_addresses;

const PATIENCE: Duration = Duration::from_secs(60);

/// What each process of a cluster makes of it, by number.
pub fn together<T: Send>(processes: usize, workers: usize, body: impl Fn(&Cluster) -> T + Sync) -> Vec<T> {
    hush_broken_exchange();
    let addresses = free_addresses(processes);
    let text = || "the same".to_owned();
    let program = ProgramId { dataflow: text(), version: text(), fingerprint: text(), event: text(), options: Vec::new() };
    let run = |process| {
        let membership = Membership { process, workers, addresses: addresses.clone() };
        let options = ClusterOptions { membership, token: text(), connect_timeout: PATIENCE, peer_timeout: PATIENCE };
        let cluster = Cluster::join(&options, program.clone()).unwrap_or_else(|error| panic!("{error}"));
        let made = body(&cluster);
        (cluster, made)
    };
    let ended: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..processes)
            .map(|process| {
                let run = &run;
                scope.spawn(move || run(process))
            })
            .collect();
        running.into_iter().map(|process| process.join().expect("no process panics")).collect()
    });
    ended.iter().for_each(|(cluster, _)| cluster.hang_up());
    ended.into_iter().map(|(_, made)| made).collect()
}
