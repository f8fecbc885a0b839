//! How long until an appended event is in the answers, while batch cycles and handovers go on?
//!
//! Open loop: requests to append are due at a fixed rate, whether or not the earlier ones were answered, and every latency is
//! taken from the moment a request was due, so that a stall shows in all requests that it held up. `web_analytics` on two
//! workers per layer, acknowledged when on disk. Three clients append; one waits for each token in turn (freshness); one gets a key and
//! one scans `hits` at fixed rates. Each scan checks that the sum of hits is the number of events at or before its tick.
//! The clients and the generator take their share of the same machine.
//!
//! ```text
//! cargo bench --bench freshness -- --rate 50000 --seconds 20
//! ```

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded, unbounded};
use hdrhistogram::Histogram;
use lambdaflow::log::{Log, LogOptions, SystemClock, Tick};
use lambdaflow::runs::Query;
use lambdaflow::runtime::{Server, ServerOptions};
use lambdaflow::serving::{Read, Serving};
use lambdaflow::storage::RealDisk;
use lambdaflow_dataflows::web_analytics::generate::{Generator, GeneratorOptions};
use lambdaflow_dataflows::web_analytics::{Request, program};
use serde_json::{Value, json};

/// The allocator of the shipped program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const WORKERS: usize = 2;
const BATCH_INTERVAL: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(10);
const APPENDERS: usize = 3;
const APPENDS_PER_SECOND: u64 = 100;
const GETS_PER_SECOND: u64 = 100;
const SCANS_PER_SECOND: u64 = 4;
/// Batches of events made ahead of time.
const BATCHES_AHEAD: usize = 32;
/// Longest wait for one event to be in the answers.
const PATIENCE: Duration = Duration::from_secs(120);

/// Events to append, and when that is due.
struct Due {
    at: Instant,
    events: Vec<Request>,
}

/// An append that was acknowledged.
struct Acked {
    due: Instant,
    tick: Tick,
    count: u64,
}

/// Latencies in microseconds.
struct Latencies(Histogram<u64>);

impl Latencies {
    fn new() -> Self {
        Self(Histogram::new_with_max(PATIENCE.as_micros() as u64, 3).expect("three digits are possible"))
    }

    fn since(&mut self, due: Instant) {
        self.0.saturating_record(due.elapsed().as_micros() as u64);
    }

    fn print(&self, what: &str) {
        let ms = |quantile| self.0.value_at_quantile(quantile) as f64 / 1e3;
        println!("{what:<22} {:>9} {:>9.2} {:>9.2} {:>9.2}", self.0.len(), ms(0.5), ms(0.99), ms(1.0));
    }
}

fn sleep_until(due: Instant) {
    std::thread::sleep(due.saturating_duration_since(Instant::now()));
}

/// Moments at a fixed rate until the end.
fn schedule(started: Instant, per_second: u64, end: Instant) -> impl Iterator<Item = Instant> {
    (0..).map(move |n| started + Duration::from_nanos(n * 1_000_000_000 / per_second)).take_while(move |due| *due < end)
}

fn append(log: &Log<Request>, batches: &Receiver<Due>, acked: &Sender<Acked>) -> Latencies {
    let mut latencies = Latencies::new();
    for Due { at, events } in batches {
        sleep_until(at);
        let ack = log.append(events).expect("the log takes it");
        latencies.since(at);
        acked.send(Acked { due: at, tick: ack.tick(), count: ack.count() }).expect("somebody waits for it");
    }
    latencies
}

/// Waits for each token in turn. Tokens become readable in their order, so none is held up by the one before.
fn follow(serving: &Serving, acked: &Receiver<Acked>, key: &Value) -> (Latencies, Vec<(Tick, u64)>) {
    let (mut latencies, mut events) = (Latencies::new(), Vec::new());
    for Acked { due, tick, count } in acked {
        let read = Read { at_least: Some(tick), timeout: PATIENCE, ..Read::latest("hits", Query::Get(vec![key.clone()])) };
        serving.read(&read).expect("the token becomes readable");
        latencies.since(due);
        events.push((tick, count));
    }
    (latencies, events)
}

/// What one scan answered.
struct Scan {
    as_of: Tick,
    base: Tick,
    frontier: Tick,
    hits: u64,
}

fn scan(serving: &Serving, started: Instant, end: Instant, stop: &AtomicBool) -> (Latencies, Vec<Scan>) {
    let (mut latencies, mut scans) = (Latencies::new(), Vec::new());
    for due in schedule(started, SCANS_PER_SECOND, end).take_while(|_| !stop.load(Ordering::Acquire)) {
        sleep_until(due);
        let answer = serving.read(&Read::latest("hits", Query::Scan { limit: usize::MAX })).expect("the latest tick is readable");
        latencies.since(due);
        let hits = answer.rows.iter().filter_map(|row| row.value["hits"].as_u64()).sum();
        scans.push(Scan { as_of: answer.as_of, base: answer.base, frontier: answer.frontier, hits });
    }
    (latencies, scans)
}

fn get(serving: &Serving, started: Instant, end: Instant, key: &Value) -> Latencies {
    let mut latencies = Latencies::new();
    for due in schedule(started, GETS_PER_SECOND, end) {
        sleep_until(due);
        serving.read(&Read::latest("hits", Query::Get(vec![key.clone()]))).expect("the latest tick is readable");
        latencies.since(due);
    }
    latencies
}

fn load_average() -> String {
    std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}

fn argument(name: &str, default: u64) -> u64 {
    let mut arguments = std::env::args();
    match arguments.find(|argument| argument == name) {
        Some(_) => arguments.next().and_then(|n| n.replace('_', "").parse().ok()).unwrap_or_else(|| panic!("{name} takes a number")),
        None => default,
    }
}

fn main() -> ExitCode {
    let (rate, seconds) = (argument("--rate", 50_000), argument("--seconds", 20));
    let dir = tempfile::tempdir().expect("a directory for the log");
    let log = Log::open(Arc::new(RealDisk), Arc::new(SystemClock), &dir.path().join("log"), LogOptions::default()).expect("a log");
    let options = ServerOptions { workers: WORKERS, tick: TICK, batch_interval: Some(BATCH_INTERVAL), ..ServerOptions::default() };
    let server = Server::start(program(), log.clone(), options).expect("the server starts");
    let (serving, service) = (server.serving(), server.service());
    println!(
        "{rate} events/s for {seconds} s, {WORKERS} workers per layer, batch interval {BATCH_INTERVAL:?}, load before: {}",
        load_average()
    );

    let generator = Generator::new(7, GeneratorOptions { events_per_second: rate, ..GeneratorOptions::default() });
    let mut events = generator.clone();
    let key = events.next().map(|first| json!([first.path, first.at / 3600 * 3600])).expect("the generator has no end");
    let stop = AtomicBool::new(false);
    let (batches, to_append) = bounded(BATCHES_AHEAD);
    let (acks, acked) = unbounded();
    // Late enough for the first batches to be ready.
    let started = Instant::now() + Duration::from_millis(200);
    let end = started + Duration::from_secs(seconds);
    let (appended, (fresh, mut totals), (scanned, scans), got, took) = std::thread::scope(|scope| {
        let batches: Sender<Due> = batches;
        scope.spawn(move || {
            let mut events = generator;
            for at in schedule(started, APPENDS_PER_SECOND, end) {
                let batch = events.by_ref().take((rate / APPENDS_PER_SECOND) as usize).collect();
                batches.send(Due { at, events: batch }).expect("somebody appends it");
            }
        });
        let appenders: Vec<_> = (0..APPENDERS)
            .map(|_| {
                let (log, to_append, acks) = (&log, to_append.clone(), acks.clone());
                scope.spawn(move || append(log, &to_append, &acks))
            })
            .collect();
        drop((acks, to_append));
        let follower = scope.spawn(|| follow(&serving, &acked, &key));
        let scanner = scope.spawn(|| scan(&serving, started, end, &stop));
        let getter = scope.spawn(|| get(&serving, started, end, &key));
        let mut appended = Latencies::new();
        for appender in appenders {
            appended.0.add(appender.join().expect("an appender ends").0).expect("histograms of one kind");
        }
        let took = started.elapsed();
        let fresh = follower.join().expect("all tokens were readable");
        stop.store(true, Ordering::Release);
        (appended, fresh, scanner.join().expect("the scanner ends"), getter.join().expect("the getter ends"), took)
    });

    totals.sort();
    let mut total = 0;
    for (_, count) in &mut totals {
        total += *count;
        *count = total;
    }
    let through = |tick: Tick| totals.partition_point(|(at, _)| *at <= tick).checked_sub(1).map_or(0, |last| totals[last].1);
    let unequal = scans.iter().filter(|scan| scan.hits != through(scan.as_of)).count();
    let backwards = scans.windows(2).filter(|pair| pair[1].frontier < pair[0].frontier || pair[1].as_of < pair[0].as_of).count();
    let bases: BTreeSet<Tick> = scans.iter().map(|scan| scan.base).collect();
    let status = service.status();
    let failed = status.last_error.is_some() || status.last_handover.as_ref().is_some_and(|last| last.agreed == Some(false));

    println!("{total} events appended in {:.1} s: {:.0}/s", took.as_secs_f64(), total as f64 / took.as_secs_f64());
    println!("{:<22} {:>9} {:>9} {:>9} {:>9}", "from the due moment", "n", "p50 ms", "p99 ms", "max ms");
    appended.print("append acknowledged");
    fresh.print("append in the answers");
    got.print("get of one key");
    scanned.print("scan of `hits`");
    if let Some(last) = &status.last_handover {
        println!(
            "last cycle: batch {} ms, audit {} ms, handover {} ms, {} rows",
            last.batch_ms, last.audit_ms, last.handover_ms, last.rows
        );
    }
    let (handovers, bases, checks) = (status.handovers.unwrap_or_default(), bases.len(), scans.len());
    println!("{handovers} handovers, {bases} bases seen by scans; load after: {}", load_average());
    if let Some(error) = &status.last_error {
        println!("a cycle failed: {error}");
    }
    println!("freshness: {checks} invariant checks, {} violations", unequal + backwards + usize::from(failed));
    drop(log);
    server.close().expect("the log closes");
    ExitCode::from(u8::from(unequal + backwards > 0 || failed))
}
