//! `lambdaflow launch`: all processes of a cluster on this machine, started again when one of them dies.
//!
//! A cluster lives and dies together: when one process is gone, the others end by themselves. What is left to do here is to make
//! sure that they do, to say what happened, and to start all of them anew.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use crossbeam::channel::{Receiver, RecvTimeoutError, unbounded};
use rustix::process::Signal;

use crate::cluster::EXIT_CODE_LOST;
use crate::log::frame::LogId;

use super::arguments::{Arguments, Command, Launch};
use super::children::{Children, End};
use super::{Failure, Runnable, find};

/// In the environment of what `launch` starts: its own process id.
const LAUNCHER: &str = "LAMBDAFLOW_LAUNCHER";
const TOKEN: &str = "LAMBDAFLOW_CLUSTER_TOKEN";

/// How often to look whether a process has ended.
const POLL: Duration = Duration::from_millis(20);
/// How much longer than `--peer-timeout` processes may take to end when one of them is gone.
const MARGIN: Duration = Duration::from_secs(2);
/// Pause before a cluster is started again; doubles with each further failure.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A cluster that has served for so long counts as healthy: restarts are counted anew.
const HEALTHY: Duration = Duration::from_secs(60);
/// Usage, damage, storage, in use: it would be the same again.
const FINAL_CODES: [u8; 4] = [2, 3, 5, IN_USE];
const IN_USE: u8 = 6;

/// Makes this process end with its launcher, if it has one. A launcher that is killed takes all along.
pub(super) fn end_with_launcher() -> Result<(), Failure> {
    let Some(launcher) = std::env::var(LAUNCHER).ok().and_then(|id| id.parse::<i32>().ok()) else { return Ok(()) };
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(std::io::Error::from)?;
    // It may have died before the kernel was asked to watch it.
    match rustix::process::getppid() {
        Some(parent) if parent.as_raw_nonzero().get() == launcher => Ok(()),
        _ => Err(Failure::new(format!("process {launcher}, which launched this one, is gone"), EXIT_CODE_LOST)),
    }
}

pub(super) fn launch(arguments: &Launch, programs: &[Box<dyn Runnable>]) -> Result<u8, Failure> {
    let plan = match Plan::of(arguments, programs) {
        Ok(plan) => plan,
        Err(Refused::Said(error)) => {
            let _ = error.print();
            return Ok(if error.use_stderr() { 2 } else { 0 });
        }
        Err(Refused::Failed(failure)) => return Err(failure),
    };
    let stops = stop_requests()?;
    let mut restarts = 0;
    loop {
        let life = plan.live(&stops)?;
        if life.healthy {
            restarts = 0;
        }
        let code = life.exit_code(plan.serves);
        if code == 0 {
            return Ok(0);
        }
        let what = life.what_happened();
        if life.stopped || !plan.serves || life.is_final() || restarts == arguments.restarts {
            let each: Vec<String> = life.ends.iter().map(|ended| format!("process {} {}", ended.process, ended.end)).collect();
            let limit = match restarts {
                0 => String::new(),
                n => format!("\n  hint: the cluster was started again {n} times in vain; --restarts says how often it may be"),
            };
            return Err(Failure::new(format!("{what}: {}{limit}", each.join(", ")), code));
        }
        let pause = backoff(restarts);
        restarts += 1;
        let seconds = pause.as_secs_f64();
        say(&format!("{what}; starting the cluster again in {seconds:.1} s ({restarts} of {})", arguments.restarts));
        if stops.recv_timeout(pause).is_ok() {
            return Ok(0);
        }
    }
}

fn say(line: &str) {
    let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

fn backoff(restarts: u32) -> Duration {
    BACKOFF.saturating_mul(2_u32.saturating_pow(restarts)).min(BACKOFF_MAX)
}

/// Why nothing is started.
enum Refused {
    /// Help, or a mistake in the command's own arguments.
    Said(clap::Error),
    Failed(Failure),
}

/// What to start.
struct Plan {
    executable: PathBuf,
    command: Vec<OsString>,
    processes: usize,
    workers: Option<usize>,
    /// It is to serve until it is told to stop.
    serves: bool,
    peer_timeout: Duration,
    stop_timeout: Duration,
}

impl Plan {
    /// Looks at the command as its processes will, so that a mistake is said once.
    fn of(arguments: &Launch, programs: &[Box<dyn Runnable>]) -> Result<Self, Refused> {
        let usage = |message: String| Refused::Failed(Failure::usage(message));
        let mut plan = Self {
            executable: std::env::current_exe().map_err(|error| Refused::Failed(error.into()))?,
            command: arguments.command.clone(),
            processes: arguments.processes,
            workers: arguments.workers,
            serves: false,
            peer_timeout: Duration::ZERO,
            stop_timeout: arguments.stop_timeout,
        };
        let first = plan.command[0].to_string_lossy();
        if first.starts_with('-') {
            return Err(usage(format!(
                "`launch` has no option {first}\n  hint: each process gets its -p and -h from `launch`; options of the command stand after it"
            )));
        }
        let line = std::iter::once(OsString::from("lambdaflow")).chain(plan.arguments(0, Path::new("hosts")));
        let parsed = Arguments::try_parse_from(line).map_err(Refused::Said)?;
        let (dataflow, processes) = match &parsed.command {
            Command::Run(run) => {
                plan.serves = true;
                (&run.dataflow, &run.processes)
            }
            Command::Audit(audit) if audit.log.is_some() => (&audit.dataflow, &audit.processes),
            Command::Oracle(oracle) => (&oracle.dataflow, &oracle.processes),
            Command::Diff(diff) => (&diff.dataflow, &diff.processes),
            Command::Audit(_) => {
                return Err(usage("--log DIR is missing\n  hint: a running server is audited without `launch`".to_owned()));
            }
            _ => return Err(usage(format!("`{first}` cannot be carried out by several processes\n  hint: `launch` starts {COMMANDS}"))),
        };
        plan.peer_timeout = processes.peer_timeout;
        find(programs, dataflow.as_deref()).map_err(Refused::Failed)?;
        Ok(plan)
    }

    /// The arguments of a process. What is said of it stands before the command's own arguments, which may end with operands.
    fn arguments(&self, process: usize, hostfile: &Path) -> Vec<OsString> {
        let (name, own) = self.command.split_first().expect("a command");
        let mut arguments = vec![name.clone()];
        let mut option = |name: &str, value: &OsStr| arguments.extend([OsString::from(name), value.to_owned()]);
        option("-n", OsStr::new(&self.processes.to_string()));
        if let Some(workers) = self.workers {
            option("-w", OsStr::new(&workers.to_string()));
        }
        option("-p", OsStr::new(&process.to_string()));
        if self.processes > 1 {
            option("-h", hostfile.as_os_str());
        }
        arguments.extend_from_slice(own);
        arguments
    }

    fn commands(&self, dir: &Path) -> std::io::Result<Vec<std::process::Command>> {
        let hostfile = dir.join("hosts");
        let addresses: String = free_ports(self.processes)?.iter().map(|port| format!("127.0.0.1:{port}\n")).collect();
        std::fs::write(&hostfile, addresses)?;
        // Another one at each start: what is left of an earlier one is turned away.
        let token = LogId::random().to_string();
        let command = |process| {
            let mut command = std::process::Command::new(&self.executable);
            command.args(self.arguments(process, &hostfile)).env(TOKEN, &token).env(LAUNCHER, std::process::id().to_string());
            if !self.serves {
                // What it leaves behind when it is told to stop goes with this directory.
                command.env("TMPDIR", dir);
            }
            command
        };
        Ok((0..self.processes).map(command).collect())
    }

    /// Starts the cluster and sees it to its end.
    fn live(&self, stops: &Receiver<()>) -> Result<Life, Failure> {
        let dir = tempfile::tempdir()?;
        let mut children = Children::start(self.commands(dir.path())?)?;
        let mut life = Life::default();
        let mut addresses = vec![None; self.processes];
        let mut serving_since: Option<Instant> = None;
        // When those that run are told to stop, and when they are killed.
        let (mut term_at, mut kill_at) = (None, None);
        while children.running().next().is_some() {
            for (process, address) in children.serving() {
                addresses[process] = Some(address);
            }
            if serving_since.is_none() && addresses.iter().all(Option::is_some) {
                serving_since = Some(Instant::now());
                say(&format!("serving on {}", in_one_line(addresses.iter().flatten())));
            }
            let now = Instant::now();
            for (process, end) in children.ended()? {
                let ended = Ended { process, end, killed: life.killed, told: life.told };
                if !life.stopped && kill_at.is_none() && (end != End::Code(0) || self.serves) {
                    kill_at = now.checked_add(self.peer_timeout.saturating_add(MARGIN));
                    // Those that serve notice the loss and say so. Those that still look for the others do not.
                    term_at = serving_since.is_none().then(|| now + MARGIN);
                }
                life.ends.push(ended);
            }
            if term_at.is_some_and(|at| at <= now) {
                (life.told, term_at) = (true, None);
                children.signal(Signal::TERM);
            }
            if kill_at.is_some_and(|at| at <= now) {
                (life.killed, kill_at) = (true, None);
                children.signal(Signal::KILL);
            }
            match stops.recv_timeout(POLL) {
                Ok(()) if life.stopped => kill_at = Some(Instant::now()),
                Ok(()) => {
                    (life.stopped, life.told, term_at) = (true, true, None);
                    kill_at = Instant::now().checked_add(self.stop_timeout);
                    children.signal(Signal::TERM);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(POLL),
            }
        }
        life.healthy = serving_since.is_some_and(|since| since.elapsed() >= HEALTHY);
        life.address_taken = children.finish();
        Ok(life)
    }
}

/// What `launch` starts.
const COMMANDS: &str = "run, audit --log, oracle and diff";

/// A process that has ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    process: usize,
    end: End,
    /// After all were killed.
    killed: bool,
    /// After all were told to stop.
    told: bool,
}

impl Ended {
    /// It ended because it was made to.
    fn was_made_to(&self) -> bool {
        self.killed && self.end == End::Signal(Signal::KILL.as_raw()) || self.told && self.end.is_termination()
    }
}

/// What became of a cluster.
#[derive(Default)]
struct Life {
    /// In the order in which it was seen.
    ends: Vec<Ended>,
    /// Somebody told `launch` to stop.
    stopped: bool,
    told: bool,
    killed: bool,
    healthy: bool,
    /// A process found the port that it was given for the others in use. Each start is given others.
    address_taken: bool,
}

impl Life {
    /// The process with which it began: the first that failed, but not because it lost another.
    fn first(&self) -> &Ended {
        let of_itself = |ended: &&Ended| !ended.was_made_to();
        let by_itself = self.ends.iter().filter(of_itself).find(|ended| !matches!(ended.end, End::Code(0 | EXIT_CODE_LOST)));
        let hung = || self.ends.iter().find(|ended| ended.killed && ended.was_made_to());
        let failed = || self.ends.iter().filter(of_itself).find(|ended| ended.end != End::Code(0));
        by_itself.or_else(hung).or_else(failed).unwrap_or(&self.ends[0])
    }

    fn what_happened(&self) -> String {
        match self.first() {
            first if first.was_made_to() && first.killed => format!("process {} did not end and was killed", first.process),
            first => format!("process {} {}", first.process, first.end),
        }
    }

    /// A process ended in a way that would be the same again.
    fn is_final(&self) -> bool {
        let same = |code| FINAL_CODES.contains(&code) && !(code == IN_USE && self.address_taken);
        self.ends.iter().any(|ended| matches!(ended.end, End::Code(code) if same(code)))
    }

    /// 0 if all did what they were to, or else that of the process that failed first.
    fn exit_code(&self, serves: bool) -> u8 {
        // Told to stop, one whose neighbour went first has lost it, and a server that did not serve yet ends by the signal.
        let as_told = |end: End| self.stopped && (end == End::Code(EXIT_CODE_LOST) || serves && end.is_termination());
        let mut failed = self.ends.iter().filter(|ended| ended.end != End::Code(0) && !as_told(ended.end));
        let final_code = failed.clone().find(|ended| matches!(ended.end, End::Code(code) if FINAL_CODES.contains(&code)));
        let first = self.ends.iter().find(|ended| ended.process == self.first().process && ended.end != End::Code(0));
        let first = first.filter(|first| !first.was_made_to() && !as_told(first.end));
        final_code.or(first).or_else(|| failed.next()).map_or(0, |ended| ended.end.exit_code())
    }
}

/// `http://127.0.0.1:7070, :7071`: what differs is the port.
fn in_one_line<'a>(addresses: impl Iterator<Item = &'a String>) -> String {
    let mut host = None;
    let mut line = Vec::new();
    for address in addresses {
        let split = address.rsplit_once(':');
        match split {
            Some((same, port)) if host == Some(same) => line.push(format!(":{port}")),
            _ => line.push(address.clone()),
        }
        host = split.map(|(host, _)| host);
    }
    line.join(", ")
}

/// A message for each request to stop: Ctrl-C, or a polite one.
fn stop_requests() -> std::io::Result<Receiver<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    // Before anything is started, so that nothing is left behind.
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let (told, stops) = unbounded();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                if told.send(()).is_err() {
                    return;
                }
            }
        });
    })?;
    Ok(stops)
}

/// Where the ports begin that the system gives to outgoing connections, if it does not say.
const OUTGOING_PORTS: u16 = 32_768;
/// The least port that is chosen.
const PORT_MIN: u16 = 10_000;

/// Ports of this machine that nobody listens on. Not from the range of outgoing connections: a process that is looked for could
/// find its port taken by one that looks for it.
fn free_ports(n: usize) -> std::io::Result<Vec<u16>> {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end = range.split_whitespace().next().and_then(|low| low.parse().ok()).unwrap_or(OUTGOING_PORTS);
    // All are held until all are found, so that none is found twice.
    let mut held = Vec::new();
    let mut tries = 0;
    while held.len() < n {
        tries += 1;
        let candidate = match end.checked_sub(PORT_MIN) {
            Some(span) if usize::from(span) > 4 * n && tries < 100 * n => {
                PORT_MIN + (RandomState::new().build_hasher().finish() % u64::from(span)) as u16
            }
            // Almost all ports are outgoing ones, or taken: the system finds one.
            _ => 0,
        };
        match TcpListener::bind((Ipv4Addr::LOCALHOST, candidate)) {
            Ok(listener) => held.push(listener),
            Err(error) if candidate == 0 => return Err(error),
            Err(_) => {}
        }
    }
    held.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: End = End::Signal(9);
    const TOLD: End = End::Signal(15);

    fn life(ends: &[(usize, End)]) -> Life {
        let ended = |(process, end): &(usize, End)| Ended { process: *process, end: *end, killed: false, told: false };
        Life { ends: ends.iter().map(ended).collect(), ..Life::default() }
    }

    #[test]
    fn what_began_it_is_named_and_its_code_taken() {
        for (ends, what, code, is_final) in [
            (vec![(1, KILLED), (0, End::Code(4))], "process 1 ended by signal 9", 137, false),
            // Seen in another order than it happened.
            (vec![(0, End::Code(4)), (1, KILLED)], "process 1 ended by signal 9", 137, false),
            (vec![(1, End::Code(101)), (0, End::Code(4))], "process 1 ended with exit code 101", 101, false),
            (vec![(0, End::Code(4)), (1, End::Code(4))], "process 0 ended with exit code 4", 4, false),
            // Somebody told one process alone to stop.
            (vec![(1, End::Code(0)), (0, End::Code(4))], "process 0 ended with exit code 4", 4, false),
            (vec![(0, End::Code(4)), (1, End::Code(5))], "process 1 ended with exit code 5", 5, true),
            (vec![(0, KILLED), (1, End::Code(3))], "process 0 ended by signal 9", 3, true),
            (vec![(0, End::Code(0)), (1, End::Code(0))], "process 0 ended with exit code 0", 0, false),
        ] {
            let life = life(&ends);
            assert_eq!((life.what_happened().as_str(), life.exit_code(true), life.is_final()), (what, code, is_final), "{ends:?}");
        }
    }

    #[test]
    fn a_log_in_use_ends_it_and_a_port_that_was_taken_meanwhile_does_not() {
        let mut life = life(&[(1, End::Code(IN_USE)), (0, TOLD)]);
        assert!(life.is_final());
        life.address_taken = true;
        assert!(!life.is_final());
        life.ends.push(Ended { process: 2, end: End::Code(3), killed: false, told: false });
        assert!(life.is_final(), "damage stays damage");
    }

    #[test]
    fn a_process_that_had_to_be_killed_is_named() {
        let mut life = life(&[(0, End::Code(4)), (1, KILLED)]);
        life.ends[1].killed = true;
        assert_eq!(life.what_happened(), "process 1 did not end and was killed");
        assert_eq!(life.exit_code(true), 4);
    }

    #[test]
    fn those_that_were_told_to_stop_did_not_fail() {
        let mut life = life(&[(0, End::Code(6)), (1, TOLD)]);
        life.ends[1].told = true;
        assert_eq!((life.what_happened().as_str(), life.exit_code(true)), ("process 0 ended with exit code 6", 6));

        let ends = [(0, TOLD), (1, End::Code(0)), (2, End::Code(4))];
        for (serves, code) in [(true, 0), (false, 143)] {
            let mut life = self::life(&ends);
            (life.stopped, life.told) = (true, true);
            life.ends.iter_mut().for_each(|ended| ended.told = true);
            assert_eq!(life.exit_code(serves), code);
        }
        let mut life = self::life(&[(0, End::Code(0)), (1, KILLED)]);
        (life.stopped, life.ends[1].killed) = (true, true);
        assert_eq!(life.exit_code(true), 137);
    }

    #[test]
    fn pauses_double_up_to_half_a_minute() {
        let pauses: Vec<u64> = [0, 1, 2, 4, 5, 40].into_iter().map(|restarts| backoff(restarts).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 16, 30, 30]);
    }

    #[test]
    fn ports_are_free_and_unlike() {
        let mut ports = free_ports(20).expect("there are ports");
        let held: Vec<_> = ports.iter().map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port))).collect();
        assert!(held.iter().filter(|held| held.is_ok()).count() > 15, "{held:?}");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }

    #[test]
    fn addresses_share_their_host() {
        let addresses = ["http://127.0.0.1:7070", "http://127.0.0.1:7071", "http://127.0.0.2:7070"].map(str::to_owned);
        assert_eq!(in_one_line(addresses.iter()), "http://127.0.0.1:7070, :7071, http://127.0.0.2:7070");
    }
}
