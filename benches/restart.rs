//! How long from a start to the first exact answer, from generations on disk, beside computing everything from the log?
//!
//! The program is `web_analytics` with all of its views, over a log of generated requests. A start opens the log, finds the
//! newest generation, checks every byte of its files, replays what the log has after it, and answers a read. `evicted` starts
//! with the files out of the page cache, as after a reboot. `with a tail` has events after the generation, each of which looks
//! up what it touches. Medians; the share of computing everything is of one run, and fails above 5 % without a tail.
//!
//! ```text
//! cargo bench --bench restart -- --events 10000000
//! ```

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lambdaflow::layers::Cycle;
use lambdaflow::log::{Durability, Log, LogOptions, SystemClock};
use lambdaflow::runs::Query;
use lambdaflow::runtime::{Server, ServerOptions};
use lambdaflow::serving::Read;
use lambdaflow::storage::RealDisk;
use lambdaflow_dataflows::web_analytics::generate::{Generator, GeneratorOptions};
use lambdaflow_dataflows::web_analytics::{Request, program};

/// The allocator of the shipped program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const WORKERS: usize = 2;
const ROUNDS: usize = 5;
/// Events after the newest generation, replayed by the speed layer.
const TAIL_EVENTS: usize = 100_000;
/// A restart takes no longer than this share of computing everything.
const SHARE_MAX: f64 = 0.05;

fn argument(name: &str, default: usize) -> usize {
    let mut arguments = std::env::args();
    match arguments.find(|argument| argument == name) {
        Some(_) => arguments.next().and_then(|n| n.replace('_', "").parse().ok()).unwrap_or_else(|| panic!("{name} takes a number")),
        None => default,
    }
}

fn open(dir: &Path) -> Log<Request> {
    let options = LogOptions { durability: Durability::Os, ..LogOptions::default() };
    Log::open(Arc::new(RealDisk), Arc::new(SystemClock), dir, options).expect("a log")
}

fn append(log: &Log<Request>, seed: u64, events: usize) {
    let mut bulk = log.bulk();
    for request in Generator::new(seed, GeneratorOptions::default()).take(events) {
        bulk.push(&request).expect("the log takes it");
    }
    bulk.finish().expect("the log takes it");
}

/// Time to the first answer, what the server says of its start, and the server.
fn start(dir: &Path) -> (Duration, String, Server<Request>) {
    let started = Instant::now();
    let options = ServerOptions { workers: WORKERS, batch_interval: None, ..ServerOptions::default() };
    let server = Server::start(program(), open(dir), options).expect("the server starts");
    let answer = server.serving().read(&Read::latest("hits", Query::Top(10))).expect("an answer");
    assert_eq!(answer.rows.len(), 10);
    (started.elapsed(), server.service().status().started, server)
}

/// Puts the files out of the page cache.
fn evict(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            evict(&entry);
        } else {
            let file = std::fs::File::open(&entry).expect("a file");
            file.sync_all().expect("it is synced");
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("advice is taken");
        }
    }
}

fn main() -> ExitCode {
    let events = argument("--events", 1_000_000);
    let temporary = tempfile::tempdir().expect("a directory for the log");
    let dir = temporary.path().join("log");
    let log = open(&dir);
    append(&log, 7, events);
    log.close().expect("the log closes");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{events} events, {WORKERS} workers per layer, load before: {}", load.trim());

    let (full, how, server) = start(&dir);
    println!("{:<44} {:>8.3} s   {how}", "from the log", full.as_secs_f64());
    server.close().expect("it closes");

    let mut worst: f64 = 0.0;
    for (case, tail, cold) in [("from the generation", 0, false), ("evicted", 0, true), ("with a tail", TAIL_EVENTS, false)] {
        if tail > 0 {
            let log = open(&dir);
            append(&log, 8, tail);
            log.close().expect("the log closes");
        }
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            if cold {
                evict(&dir);
            }
            let (time, how, server) = start(&dir);
            assert!(how.contains(&format!("restored, {tail} events replayed")), "{how}");
            server.close().expect("it closes");
            times.push(time);
        }
        times.sort();
        let median = times[ROUNDS / 2];
        let share = median.as_secs_f64() / full.as_secs_f64();
        if tail == 0 {
            worst = worst.max(share);
        }
        println!(
            "{:<44} {:>8.3} s   {:.1} % of computing it",
            format!("{case}, {tail} events after it"),
            median.as_secs_f64(),
            100.0 * share
        );
    }
    let bytes: u64 = std::fs::read_dir(dir.join("generations/web_analytics"))
        .expect("a directory")
        .map(|entry| entry.and_then(|entry| entry.metadata()).expect("an entry").len())
        .sum();
    println!("generations: {:.0} MB", bytes as f64 / 1e6);
    let (_, _, server) = start(&dir);
    let handover = server.service().cycle(Cycle::Full).expect("it hands over");
    assert_eq!(handover.agreed, Some(true), "what was restored and followed is what the log says");
    server.close().expect("it closes");
    if worst > SHARE_MAX { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
