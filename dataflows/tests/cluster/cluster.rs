//! Starts the processes of a cluster, and says how they have to end.

use std::process::Command;
use std::time::{Duration, Instant};

use lambdaflow::testing::Random;
use serde_json::Value;

use super::harness::*;
use super::ports::free_addresses;

/// How long a process may be silent in tests that lose one.
pub const PEER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a process waits for the others there.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// After the loss of a process, how long the others may take to end before they count as hanging. They take as long as the
/// peer timeout, and longer on a machine that is busy.
pub const LOSS_MAX: Duration = Duration::from_secs(20);

/// Prints the seed of a random test.
pub fn seed() -> u64 {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    seed
}

/// A number that the environment may set.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// How the processes of a cluster are started.
#[derive(Clone, Debug)]
pub struct Plan {
    pub dataflow: &'static str,
    pub log: String,
    pub hostfile: String,
    pub addresses: Vec<String>,
    pub workers: usize,
    pub more: Vec<String>,
}

impl Plan {
    /// So many processes of so many workers over the log called `log`, with a batch cycle whenever there is something new.
    pub fn new(dir: &Dir, dataflow: &'static str, (processes, workers): (usize, usize)) -> Self {
        let addresses = free_addresses(processes);
        let hostfile = dir.file(&format!("hosts-{}", addresses[0]), addresses.join("\n"));
        let more = ["--batch-interval", "200ms", "--tick", "5ms"].map(str::to_owned).to_vec();
        Self { dataflow, log: dir.at("log"), hostfile, addresses, workers, more }
    }

    /// With more arguments.
    pub fn with(mut self, more: &[&str]) -> Self {
        self.more.extend(more.iter().map(|argument| (*argument).to_owned()));
        self
    }

    /// With another value of an option that it has.
    pub fn set(mut self, option: &str, value: &str) -> Self {
        let at = self.more.iter().position(|argument| argument == option).expect("it has the option");
        self.more[at + 1] = value.to_owned();
        self
    }

    /// With the timeouts of tests that lose a process.
    pub fn hasty(self) -> Self {
        let peer_timeout = format!("{}ms", PEER_TIMEOUT.as_millis());
        self.with(&["--peer-timeout", &peer_timeout, "--connect-timeout", &format!("{}s", CONNECT_TIMEOUT.as_secs())])
    }

    pub fn processes(&self) -> usize {
        self.addresses.len()
    }

    /// The arguments of a process.
    pub fn arguments(&self, process: usize) -> Vec<String> {
        let mut arguments: Vec<String> = ["run", self.dataflow, "--listen", "127.0.0.1:0", "--log", &self.log].map(str::to_owned).to_vec();
        arguments.extend(["-w".to_owned(), self.workers.to_string()]);
        if self.processes() > 1 {
            arguments.extend(["-n".to_owned(), self.processes().to_string(), "-p".to_owned(), process.to_string()]);
            arguments.extend(["-h".to_owned(), self.hostfile.clone()]);
        }
        arguments.extend(self.more.iter().cloned());
        arguments
    }

    pub fn command(&self, process: usize) -> Command {
        program(self.arguments(process))
    }

    /// Starts one process.
    pub fn launch(&self, process: usize) -> Guard {
        start(self.command(process), "")
    }

    /// Starts all processes, and waits until they serve.
    #[track_caller]
    pub fn start(&self) -> Cluster {
        let guards: Vec<Guard> = (0..self.processes()).map(|process| self.launch(process)).collect();
        Cluster { members: guards.into_iter().map(Serving::from).collect() }
    }

    /// As it is said of a process: its number and address.
    pub fn name(&self, process: usize) -> String {
        format!("process {process} ({})", self.addresses[process])
    }
}

/// Processes that serve.
pub struct Cluster {
    pub members: Vec<Serving>,
}

impl std::ops::Index<usize> for Cluster {
    type Output = Serving;
    fn index(&self, process: usize) -> &Serving {
        &self.members[process]
    }
}

impl Cluster {
    pub fn clients(&self) -> Vec<Client> {
        self.members.iter().map(|member| member.client.clone()).collect()
    }

    /// Tells all processes to stop, and asserts that they end cleanly.
    #[track_caller]
    pub fn stop(self) {
        self.members.iter().for_each(|member| signal("TERM", member.process.id()));
        for member in self.members {
            let ended = member.process.wait().exits(0);
            assert_eq!((ended.out.as_str(), ended.err.contains("panicked")), ("", false), "{}", ended.err);
        }
    }

    /// What the coordinator says of itself.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.members[0].get("/v1/status", &[]).ok()
    }

    pub fn handovers(&self) -> u64 {
        self.status()["handovers"].as_u64().expect("a number")
    }
}

/// Asserts that a process ended as one that lost one of those: exit code 4, and one line that names it.
#[track_caller]
pub fn check_lost(ended: &Ended, lost: &[String]) {
    let errors: Vec<&str> = ended.err.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!((ended.code, errors.len()), (4, 1), "{lost:?} lost, and it says: {}", ended.err);
    assert!(lost.iter().any(|lost| errors[0].contains(lost)), "{lost:?} lost, and it says: {}", ended.err);
    for panic in ["panicked at", "stack backtrace", "RUST_BACKTRACE"] {
        assert!(!ended.err.contains(panic), "{lost:?} lost, and it says: {}", ended.err);
    }
    assert_eq!(ended.out, "", "nothing is said on stdout");
}

/// Waits for the end of a process that lost one of those at `since`. Returns how long that took.
#[track_caller]
pub fn ends_without(process: Guard, lost: &[String], since: Instant) -> Duration {
    let ended = process.wait();
    let took = since.elapsed();
    check_lost(&ended, lost);
    assert!(took <= LOSS_MAX, "{lost:?} lost, and it took {took:?}: {}", ended.err);
    took
}
