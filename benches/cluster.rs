//! Events per second and delays against the number of processes and of workers, on one machine.
//!
//! For each shape, processes are started (this program again, each a server of `web_analytics` over one log), and then:
//! *all at once*: each process appends its part as fast as it is acknowledged, until all of it is in the answers;
//! *full batch*: process 0 asks for a cycle from the first event; *at a rate*: appends are due at a fixed rate, split evenly,
//! and delays are taken from the moment one was due, at each process, so that a stall shows in all that it held up.
//! `alone` is the same without a cluster: a server of one worker as `run` starts it without `-n`.
//! Lines are parsed as a client's would be. Batch cycles run on request only. What a process measures it prints as JSON, and
//! the worst process counts.
//!
//! ```text
//! cargo bench -p lambdaflow --bench cluster -- --shapes 1x1,1x2,2x1 --events 500000 --rate 20000 --seconds 10
//! ```

#[path = "../tests/cluster_support/ports.rs"]
mod ports;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::unbounded;
use hdrhistogram::Histogram;
use lambdaflow::cluster::{Cluster, ClusterOptions, Membership, PEER_TIMEOUT};
use lambdaflow::layers::{Cycle, hush_broken_exchange};
use lambdaflow::log::{Log, LogOptions, SystemClock, Tick};
use lambdaflow::operators::Codec;
use lambdaflow::runtime::service::{Format, Service};
use lambdaflow::runtime::{OnError, Server, ServerOptions};
use lambdaflow::serving::Serving;
use lambdaflow::storage::RealDisk;
use lambdaflow_dataflows::web_analytics::generate::{Generator, GeneratorOptions, to_combined_line};
use lambdaflow_dataflows::web_analytics::{Request, program};
use serde_json::{Value, json};

/// The allocator of the shipped program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const PATIENCE: Duration = Duration::from_secs(300);
/// Lines of an append.
const LINES: usize = 1_000;
/// Appends at a time, in each process.
const APPENDERS: usize = 2;
const APPENDS_PER_SECOND: u64 = 50;

/// The shape that is no cluster.
const ALONE: &str = "alone";

/// What one process is to do.
struct Part {
    /// It is not one of a cluster.
    alone: bool,
    process: usize,
    processes: usize,
    workers: usize,
    events: usize,
    rate: u64,
    seconds: u64,
    exchange: Codec,
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1).cloned());
    let number = |name: &str, default: u64| value(name).map_or(default, |n| n.replace('_', "").parse().expect("a number"));
    let (events, rate, seconds) = (number("--events", 100_000), number("--rate", 10_000), number("--seconds", 5));
    if let Some(process) = value("--process") {
        let part = Part {
            alone: arguments.iter().any(|argument| argument == "--alone"),
            process: process.parse().expect("a number"),
            processes: number("--processes", 1) as usize,
            workers: number("--workers", 1) as usize,
            events: events as usize,
            rate,
            seconds,
            exchange: value("--exchange").map_or_else(Codec::default, |name| name.parse().unwrap_or_else(|error| panic!("{error}"))),
        };
        return take_part(&part, &PathBuf::from(value("--dir").expect("a directory")));
    }
    let load = || std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned();
    println!("{events} events at once, then {rate} events/s for {seconds} s; load before: {}", load());
    println!(
        "{:<16} {:>14} {:>14} | {:>9} {:>9} | {:>9} {:>9} {:>9}",
        "processes x", "in answers", "full batch", "ack p50", "ack p99", "seen p50", "seen p99", "seen max"
    );
    println!("{:<16} {:>14} {:>14} | {:>9} {:>9} | {:>9} {:>9} {:>9}", "workers", "events/s", "events/s", "ms", "ms", "ms", "ms", "ms");
    let shapes = value("--shapes").unwrap_or_else(|| format!("{ALONE},1x1,1x2,2x1,2x2,3x1,3x2"));
    for shape in shapes.split(',') {
        let (processes, workers) = if shape == ALONE { ("1", "1") } else { shape.split_once('x').expect("a shape is PROCESSESxWORKERS") };
        let (processes, workers): (usize, usize) = (processes.parse().expect("a number"), workers.parse().expect("a number"));
        let common = [
            ("--processes", processes as u64),
            ("--workers", workers as u64),
            ("--events", events),
            ("--rate", rate),
            ("--seconds", seconds),
        ];
        let mut common: Vec<String> = common.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_string()]).collect();
        common.extend(value("--exchange").into_iter().flat_map(|codec| ["--exchange".to_owned(), codec]));
        common.extend((shape == ALONE).then(|| "--alone".to_owned()));
        let found = run(processes, &common);
        // Each process appends whole batches.
        let events = batches_at_once(events as usize, processes) * LINES * processes;
        let worst = |of: &str| found.iter().filter_map(|part| part[of].as_f64()).fold(0.0, f64::max);
        let at_once = events as f64 / worst("at_once_s");
        let batch = events as f64 / worst("batch_s");
        println!(
            "{shape:<16} {at_once:>14.0} {batch:>14.0} | {:>9.1} {:>9.1} | {:>9.1} {:>9.1} {:>9.1}",
            worst("ack_p50"),
            worst("ack_p99"),
            worst("seen_p50"),
            worst("seen_p99"),
            worst("seen_max")
        );
    }
    println!("load after: {}", load());
}

/// A process, as the one that started it sees it.
struct Started {
    child: Child,
    say: ChildStdin,
    hear: BufReader<ChildStdout>,
}

impl Drop for Started {
    /// If this process panics, those that it started go with it.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Started {
    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.hear.read_line(&mut line).expect("the process writes text");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("a process ended or wrote {line:?}: {error}"))
    }

    fn say(&mut self) {
        self.say.write_all(b"go on\n").and_then(|()| self.say.flush()).expect("the process reads");
    }
}

/// Runs all processes of a shape through all steps, and returns what each found.
fn run(processes: usize, common: &[String]) -> Vec<Value> {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("hosts"), ports::free_addresses(processes).join("\n")).expect("the directory can be written to");
    let own = std::env::current_exe().expect("this program has a path");
    let start = |process: usize| {
        let mut command = Command::new(&own);
        command.args(["--process", &process.to_string(), "--dir"]).arg(dir.path()).args(common);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let (say, hear) = (child.stdin.take().expect("a pipe"), BufReader::new(child.stdout.take().expect("a pipe")));
        Started { child, say, hear }
    };
    let mut started: Vec<Started> = (0..processes).map(start).collect();
    let mut found = vec![json!({}); processes];
    // Ready, all at once, batch, at a rate; nobody begins a step before all have ended the one before.
    for _ in 0..4 {
        for (process, found) in started.iter_mut().zip(&mut found) {
            for (name, value) in process.hear().as_object().expect("an object") {
                found[name] = value.clone();
            }
        }
        started.iter_mut().for_each(Started::say);
    }
    for process in &mut started {
        assert!(process.child.wait().expect("a child of this program").success());
    }
    found
}

/// Batches that each process appends at once.
fn batches_at_once(events: usize, processes: usize) -> usize {
    (events / processes / LINES).max(1)
}

/// Waits until all have ended a step. Ends this process if the one that started it is gone.
fn step(found: &Value) {
    println!("{found}");
    if std::io::stdin().read_line(&mut String::new()).expect("the one that started this process says when to go on") == 0 {
        std::process::exit(4);
    }
}

fn take_part(part: &Part, dir: &Path) {
    hush_broken_exchange();
    let server_options = ServerOptions { workers: part.workers, batch_interval: None, exchange: part.exchange, ..ServerOptions::default() };
    if part.alone {
        let log = Log::open(Arc::new(RealDisk), Arc::new(SystemClock), &dir.join("log"), LogOptions::default());
        let server = Server::start(program(), log.unwrap_or_else(|error| panic!("{error}")), server_options);
        let server = server.unwrap_or_else(|error| panic!("{error}"));
        measure(part, &server);
        return server.close().expect("the log closes");
    }
    // One process, too, is started as one of a cluster would be, so that all shapes do the same.
    let membership = Membership::new(part.workers, part.process, part.processes, Some(&dir.join("hosts"))).expect("a good list");
    let options = ClusterOptions { membership, token: String::new(), connect_timeout: PATIENCE, peer_timeout: PEER_TIMEOUT };
    let id = Server::program_id(&program(), &LogOptions::default(), &server_options).expect("a good dataflow");
    let cluster = Cluster::join(&options, id).unwrap_or_else(|error| panic!("{error}"));
    let server = Server::start_in(&cluster, program(), &dir.join("log"), LogOptions::default(), server_options);
    let server = server.unwrap_or_else(|error| panic!("{error}"));
    measure(part, &server);
    cluster.part().unwrap_or_else(|error| panic!("{error}"));
    server.close().expect("the log closes");
}

/// All steps of a process.
fn measure(part: &Part, server: &Server<Request>) {
    let (service, serving) = (server.service(), server.serving());
    let seed = part.process as u64;
    let generator = Generator::new(seed, GeneratorOptions { events_per_second: part.rate, ..GeneratorOptions::default() });
    let mut lines = generator.map(|request| to_combined_line(&request));
    let mut batch = |count: usize| lines.by_ref().take(count).collect::<Vec<_>>().join("\n").into_bytes();
    let at_once: Vec<Vec<u8>> = (0..batches_at_once(part.events, part.processes)).map(|_| batch(LINES)).collect();
    let per_append = (part.rate / part.processes as u64 / APPENDS_PER_SECOND).max(1) as usize;
    let at_rate: Vec<Vec<u8>> = (0..part.seconds * APPENDS_PER_SECOND).map(|_| batch(per_append)).collect();
    step(&json!({}));

    let started = Instant::now();
    append_all(&*service, &serving, &at_once);
    step(&json!({"at_once_s": started.elapsed().as_secs_f64()}));

    let mut found = json!({});
    if part.process == 0 {
        let handover = service.cycle(Cycle::Full).unwrap_or_else(|error| panic!("{error}"));
        found = json!({"batch_s": handover.batch_ms as f64 / 1e3});
    }
    step(&found);

    let (acked, seen) = append_at_rate(&*service, &serving, &at_rate);
    let ms = |latencies: &Histogram<u64>, quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1e3;
    step(&json!({
        "ack_p50": ms(&acked, 0.5), "ack_p99": ms(&acked, 0.99),
        "seen_p50": ms(&seen, 0.5), "seen_p99": ms(&seen, 0.99), "seen_max": ms(&seen, 1.0),
    }));
}

fn append(service: &dyn Service, lines: &[u8]) -> Tick {
    let appended = service.append(lines, Format::Lines, OnError::Stop).unwrap_or_else(|error| panic!("{error}"));
    appended.token.expect("all lines are events")
}

/// Appends as fast as it is acknowledged, and waits until all of it is in the answers.
fn append_all(service: &dyn Service, serving: &Serving, batches: &[Vec<u8>]) {
    let last = std::thread::scope(|scope| {
        let share =
            |first: usize| scope.spawn(move || batches.iter().skip(first).step_by(APPENDERS).map(|lines| append(service, lines)).max());
        let appending: Vec<_> = (0..APPENDERS).map(share).collect();
        appending.into_iter().filter_map(|appended| appended.join().expect("appending does not panic")).max()
    });
    serving.wait(last.unwrap_or_default(), PATIENCE).unwrap_or_else(|error| panic!("{error}"));
}

/// Appends when it is due. Microseconds from then until the acknowledgement, and until it is in the answers.
fn append_at_rate(service: &dyn Service, serving: &Serving, batches: &[Vec<u8>]) -> (Histogram<u64>, Histogram<u64>) {
    let new = || Histogram::<u64>::new_with_max(PATIENCE.as_micros() as u64, 3).expect("three digits are possible");
    let (mut acked, mut seen) = (new(), new());
    let (acks, tokens) = unbounded::<(Instant, Tick)>();
    let since = |due: Instant| due.elapsed().as_micros() as u64;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for (due, tick) in tokens {
                serving.wait(tick, PATIENCE).unwrap_or_else(|error| panic!("{error}"));
                seen.saturating_record(since(due));
            }
        });
        let started = Instant::now();
        for (number, lines) in batches.iter().enumerate() {
            let due = started + Duration::from_nanos(number as u64 * 1_000_000_000 / APPENDS_PER_SECOND);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let tick = append(service, lines);
            acked.saturating_record(since(due));
            acks.send((due, tick)).expect("somebody waits for it");
        }
        drop(acks);
    });
    (acked, seen)
}
