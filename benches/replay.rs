//! How fast is a full batch, beside a hand-written loop and beside plain differential?
//!
//! The question is hits per path over a log of generated requests, 100,000 paths, skewed. Three programs read the same
//! sealed, mapped blocks: (a) a single-threaded loop that counts in a hash map by borrowed path; (b) the batch layer, from
//! cursor to frozen run; (c) plain differential, `map` to an owned path and `count`. Rounds are interleaved, medians
//! reported, all programs must find the same answer.
//!
//! ```text
//! cargo bench --bench replay -- --events 10000000
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use columnar::Index;
use lambdaflow::differential_dataflow::AsCollection;
use lambdaflow::layers::{Dataflow, Feed, run_batch};
use lambdaflow::log::{Block, Durability, Log, LogOptions, SystemClock, Tick};
use lambdaflow::operators::Views;
use lambdaflow::prelude::*;
use lambdaflow::storage::RealDisk;
use lambdaflow_dataflows::web_analytics::Request;
use lambdaflow_dataflows::web_analytics::generate::{Generator, GeneratorOptions};

/// The allocator of the shipped program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ROUNDS: usize = 5;

fn hits_per_path(requests: Events<'_, Request>, views: &mut Views) {
    let hits = requests.aggregate_columns::<String, Count>(|requests, row, groups| groups.add(requests.path.get(row), Count::one()));
    views.publish("hits", hits);
}

fn hits_per_path_by_row(requests: Events<'_, Request>, views: &mut Views) {
    views.publish("hits", requests.aggregate::<String, Count>(|r, groups| groups.add(r.path, Count::one())));
}

fn plain_differential(requests: Events<'_, Request>, _views: &mut Views) {
    let paths = requests.map(|r| String::from_utf8_lossy(r.path).into_owned()).changes();
    let seen = std::cell::Cell::new(0u64);
    paths.count().inner.as_collection().inspect(move |_| seen.set(seen.get() + 1));
}

fn by_hand(blocks: &[Block<Request>]) -> hashbrown::HashMap<&[u8], u64, foldhash::fast::FixedState> {
    let mut hits = hashbrown::HashMap::with_hasher(foldhash::fast::FixedState::default());
    for block in blocks {
        let paths = block.columns().path;
        for row in block.range() {
            *hits.entry(paths.get(row)).or_default() += 1;
        }
    }
    hits
}

fn batch(log: &Log<Request>, dataflow: impl Dataflow<Request>, workers: usize, cut: Tick) -> (Duration, usize) {
    let dataflow: Arc<dyn Dataflow<Request>> = Arc::new(dataflow);
    let started = Instant::now();
    let feed = Feed::new(log.cursor(Tick(0)), Some(cut));
    let output = run_batch(&dataflow, None, feed, cut, workers, &Arc::new(AtomicBool::new(false))).expect("the batch runs");
    (started.elapsed(), output.shards.iter().map(|shard| shard.size().1).sum())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let events = arguments
        .iter()
        .position(|argument| argument == "--events")
        .map_or(1_000_000, |at| arguments.get(at + 1).and_then(|n| n.replace('_', "").parse().ok()).expect("--events takes a number"));
    let dir = tempfile::tempdir().expect("a directory for the log");
    let options = LogOptions { durability: Durability::Os, ..LogOptions::default() };
    let open = || Log::<Request>::open(Arc::new(RealDisk), Arc::new(SystemClock), &dir.path().join("log"), options.clone()).expect("a log");

    let started = Instant::now();
    let log = open();
    let mut bulk = log.bulk();
    let generator = Generator::new(7, GeneratorOptions { paths: 100_000, ..GeneratorOptions::default() });
    for request in generator.take(events) {
        bulk.push(&request).expect("the log takes it");
    }
    bulk.finish().expect("the log takes it");
    log.close().expect("the log closes");
    println!("{events} events generated and appended in {:.1} s", started.elapsed().as_secs_f64());

    // Opened anew, so that every block is sealed and mapped.
    let log = open();
    let cut = log.advance().expect("the tick can be closed");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("log {:.0} MB, load before: {}", log.stats().partitions.iter().map(|p| p.bytes).sum::<u64>() as f64 / 1e6, load.trim());

    let mut times: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let mut cursor = log.cursor(Tick(0));
        let mut blocks = Vec::new();
        while let Some(block) = cursor.next().expect("the log reads") {
            blocks.push(block);
        }
        let hits = by_hand(&blocks);
        let groups = hits.len();
        assert_eq!(hits.values().sum::<u64>(), events as u64);
        times.entry("loop").or_default().push(started.elapsed());

        for (name, workers) in [("batch, 1 worker", 1), ("batch, 2 workers", 2)] {
            let (time, rows) = batch(&log, hits_per_path, workers, cut);
            assert_eq!(rows, groups, "{name} found other paths than the loop");
            times.entry(name).or_default().push(time);
        }
        let (time, rows) = batch(&log, hits_per_path_by_row, 1, cut);
        assert_eq!(rows, groups);
        times.entry("batch by row, 1 worker").or_default().push(time);
        let (time, _) = batch(&log, plain_differential, 1, cut);
        times.entry("plain differential, 1 worker").or_default().push(time);
    }

    println!("{:<30} {:>10} {:>16} {:>22}", "hits per path", "median s", "M events/s", "M events/s a worker");
    let mut medians = BTreeMap::new();
    for (name, times) in &mut times {
        let time = median(times).as_secs_f64();
        let rate = events as f64 / time / 1e6;
        let workers = if name.contains("2 workers") { 2.0 } else { 1.0 };
        println!("{name:<30} {time:>10.3} {rate:>16.1} {:>22.1}", rate / workers);
        medians.insert(*name, time);
    }
    println!(
        "replay: {:.2}x the hand-written loop, {:.1}x plain differential",
        medians["batch, 1 worker"] / medians["loop"],
        medians["plain differential, 1 worker"] / medians["batch, 1 worker"]
    );
}
