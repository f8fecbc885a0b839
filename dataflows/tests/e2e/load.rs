//! A server under load: answers are exact at their tick while events arrive and generations change beneath the readers.
//!
//! `LAMBDAFLOW_LOAD_SECONDS` and `LAMBDAFLOW_LOAD_RATE` (events a second) make it longer and harder.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lambdaflow::layers::Cycle;
use lambdaflow::log::{Log, LogOptions, SystemClock, Tick};
use lambdaflow::runs::Query;
use lambdaflow::runtime::{Server, ServerOptions};
use lambdaflow::serving::{Read, Serving};
use lambdaflow::storage::RealDisk;
use lambdaflow_dataflows::web_analytics::generate::{Generator, GeneratorOptions};
use lambdaflow_dataflows::web_analytics::{Request, program};

use super::harness::{Dir, PATIENCE};

const SECONDS: f64 = 6.0;
/// What a debug build takes with two cores and tests beside it. A release build takes 50,000.
const RATE: f64 = 1_500.0;
/// Time between two appends: batches of 20 to 500 events at the rates this is run with.
const APPEND_PAUSE: Duration = Duration::from_millis(5);
const BATCH_INTERVAL: Duration = Duration::from_millis(500);
const READERS: usize = 2;
/// Handovers in a run; it goes on until there were so many.
const HANDOVERS_MIN: u64 = 4;

fn setting(name: &str, default: f64) -> f64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text}")))
}

/// One answer: its tick, what it counted, the generation's frontier beneath it, and the frontier.
struct Seen {
    as_of: Tick,
    hits: u64,
    base: Tick,
    frontier: Tick,
    /// Ticks from it to the log's frontier.
    behind: u64,
}

/// Scans at the latest tick, once there is a later one than the last.
fn scan_hits(serving: &Serving, log: &Log<Request>, last: Option<Tick>) -> Seen {
    let read =
        Read { at_least: last.map(|last| Tick(last.0 + 1)), timeout: PATIENCE, ..Read::latest("hits", Query::Scan { limit: usize::MAX }) };
    let answer = serving.read(&read).expect("the latest tick can be read");
    let hits = answer.rows.iter().map(|row| row.value["hits"].as_u64().expect("hits")).sum();
    Seen {
        as_of: answer.as_of,
        hits,
        base: answer.base,
        frontier: answer.frontier,
        behind: log.frontier().0.saturating_sub(answer.frontier.0),
    }
}

/// Appends at a rate while it is wanted, and returns tick and size of each append.
fn generate(log: &Log<Request>, rate: f64, wanted: impl Fn() -> bool) -> Vec<(Tick, u64)> {
    let options = GeneratorOptions { paths: 300, visitors: 500, referrers: 30, ..GeneratorOptions::default() };
    let mut requests = Generator::new(3, options);
    let mut acks = Vec::new();
    let (started, mut appended) = (Instant::now(), 0u64);
    while wanted() {
        let due = (started.elapsed().as_secs_f64() * rate) as u64;
        let n = due.saturating_sub(appended);
        if n > 0 {
            let ack = log.append(requests.by_ref().take(n as usize).collect()).expect("the log takes it");
            acks.push((ack.tick(), ack.count()));
            appended += n;
        }
        // The pace of the load, not a wait for anything.
        std::thread::sleep(APPEND_PAUSE);
    }
    acks
}

#[test]
fn sums_equal_the_events_at_their_tick_across_handovers_and_a_rebuild() {
    let (seconds, rate) = (setting("LAMBDAFLOW_LOAD_SECONDS", SECONDS), setting("LAMBDAFLOW_LOAD_RATE", RATE));
    let dir = Dir::new();
    let log = Log::open(Arc::new(RealDisk), Arc::new(SystemClock), &dir.path("log"), LogOptions::default()).expect("a log");
    let options = ServerOptions {
        workers: 2,
        tick: Duration::from_millis(10),
        batch_interval: Some(BATCH_INTERVAL),
        history: Duration::from_secs(5),
        ..ServerOptions::default()
    };
    let server = Server::start(program(), log.clone(), options).expect("the server starts");
    let service = server.service();

    let started = Instant::now();
    let (half, until) = (started + Duration::from_secs_f64(seconds / 2.0), started + Duration::from_secs_f64(seconds));
    let stop = AtomicBool::new(false);
    let wanted = || {
        let now = Instant::now();
        now < until || (now < until + PATIENCE && service.status().handovers < Some(HANDOVERS_MIN))
    };
    let (acks, took, seen, rebuilt) = std::thread::scope(|scope| {
        let generator = scope.spawn(|| (generate(&log, rate, wanted), started.elapsed()));
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let serving = server.serving();
                let (stop, log) = (&stop, &log);
                scope.spawn(move || {
                    let mut seen: Vec<Seen> = Vec::new();
                    while !stop.load(Ordering::Acquire) {
                        let last = seen.last().map(|answer| answer.as_of);
                        seen.push(scan_hits(&serving, log, last));
                    }
                    seen
                })
            })
            .collect();
        let rebuild = scope.spawn(|| {
            // In the middle of the load, whatever else goes on then.
            std::thread::sleep(half.saturating_duration_since(Instant::now()));
            service.cycle(Cycle::Full)
        });
        let (acks, took) = generator.join().expect("the generator ends");
        let rebuilt = rebuild.join().expect("the rebuild ends").expect("the rebuild is switched to");
        stop.store(true, Ordering::Release);
        let seen: Vec<Vec<Seen>> = readers.into_iter().map(|reader| reader.join().expect("a reader ends")).collect();
        (acks, took, seen, rebuilt)
    });

    let mut totals = acks.clone();
    totals.sort();
    let mut events = 0;
    for (_, count) in &mut totals {
        events += *count;
        *count = events;
    }
    // Events at or before a tick.
    let through = |tick: Tick| match totals.partition_point(|(at, _)| *at <= tick) {
        0 => 0,
        n => totals[n - 1].1,
    };
    let mut bases = BTreeSet::new();
    for seen in &seen {
        for answer in seen {
            assert_eq!(answer.hits, through(answer.as_of), "sum of hits at tick {} on base {}", answer.as_of, answer.base);
            assert!(answer.as_of < answer.frontier && answer.base <= answer.frontier);
            bases.insert(answer.base);
        }
        assert!(seen.is_sorted_by_key(|answer| answer.frontier), "the frontier went back");
        assert!(seen.is_sorted_by_key(|answer| answer.as_of), "answers went back");
    }
    let behind = seen.iter().flatten().map(|answer| answer.behind).max().unwrap_or_default();
    let status = service.status();
    let handovers = status.handovers.expect("process 0 knows");
    let reads: usize = seen.iter().map(Vec::len).sum();
    println!(
        "{events} events in {:.1} s ({:.0}/s, {rate:.0}/s asked), {} handovers, {} bases seen, {reads} reads checked, at most {behind} ms behind the log",
        took.as_secs_f64(),
        events as f64 / took.as_secs_f64(),
        handovers,
        bases.len(),
    );
    assert_eq!(rebuilt.agreed, Some(true));
    assert_eq!(status.last_error, None, "a cycle failed");
    assert_eq!(status.last_handover.expect("a handover").agreed, Some(true));
    assert!(handovers >= HANDOVERS_MIN, "{handovers} handovers");
    assert!(bases.len() >= 3, "readers saw {} generations", bases.len());
    assert!(reads > 20, "{reads} reads");

    let last = totals.last().expect("appends").0;
    let read = Read { at_least: Some(last), ..Read::latest("hits", Query::Scan { limit: usize::MAX }) };
    let answer = server.serving().read(&read).expect("the last tick becomes complete");
    assert_eq!(answer.rows.iter().filter_map(|row| row.value["hits"].as_u64()).sum::<u64>(), events);
    drop(log);
    server.close().expect("the log closes");
}
