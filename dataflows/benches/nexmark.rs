//! How many events a second does each Nexmark query take, in the batch layer and in the speed layer?
//!
//! Each query is a dataflow of its own, on one worker unless told otherwise. The batch layer sees all events in one epoch; the
//! speed layer follows the same events from the beginning in an epoch for each 100 of them, which is 10 ms at the
//! generator's rate, as fast as it can. Both read blocks in memory. Rows are those of the view at the end.
//!
//! ```text
//! cargo bench --bench nexmark -- --events 1000000 --workers 1
//! ```

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use lambdaflow::layers::{Dataflow, Feed, Replay, SpeedWorkers, run_batch};
use lambdaflow::log::{BLOCK_EVENTS_MAX, Block, Tick};
use lambdaflow::runs::Generation;
use lambdaflow_dataflows::nexmark::generate::{GeneratorOptions, events};
use lambdaflow_dataflows::nexmark::{NexmarkEvent, nexmark, nexmark_query};

/// The allocator of the shipped program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EVENTS_PER_TICK: u64 = 100;
const QUERIES: [&str; 23] = [
    "q0", "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q12", "q13", "q14", "q15", "q16", "q17", "q18", "q19",
    "q20", "q21", "q22",
];

fn batch(dataflow: &Arc<dyn Dataflow<NexmarkEvent>>, blocks: &[Block<NexmarkEvent>], end: Tick, workers: usize) -> (Duration, usize) {
    let started = Instant::now();
    let feed = Feed::new(Replay::new(blocks.iter().cloned(), end), Some(end));
    let output = run_batch(dataflow, None, feed, end, workers, &Arc::new(AtomicBool::new(false))).expect("the batch runs");
    (started.elapsed(), output.shards.iter().map(|shard| shard.size().1).sum())
}

fn speed(dataflow: &Arc<dyn Dataflow<NexmarkEvent>>, blocks: &[Block<NexmarkEvent>], end: Tick, workers: usize) -> Duration {
    let (moved, wait) = std::sync::mpsc::sync_channel(1);
    let progress = move || {
        // Full: the reader will look anyway.
        let _ = moved.try_send(());
    };
    let base = Generation::empty(workers);
    let workers = SpeedWorkers::start(workers, Arc::new(progress)).expect("the workers start");
    let started = Instant::now();
    let feed = Feed::new(Replay::new(blocks.iter().cloned(), end), None);
    let graph = workers.install(dataflow, Arc::new(base), Tick(0), feed, 1).expect("the graph is built");
    while graph.upper() < end {
        assert_eq!(workers.panicked(), None);
        graph.history.serve(graph.upper().0);
        let _ = wait.recv_timeout(Duration::from_secs(1));
    }
    started.elapsed()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.map_or(default, |at| arguments.get(at + 1).and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{name} takes a number")))
    };
    let (count, workers) = (number("--events", 1_000_000), number("--workers", 1) as usize);

    let mut made =
        (0..count).zip(events(1, &GeneratorOptions::default())).map(|(at, event)| (Tick(at / EVENTS_PER_TICK), event)).peekable();
    let mut blocks = Vec::new();
    while made.peek().is_some() {
        blocks.push(Block::from_events(made.by_ref().take(BLOCK_EVENTS_MAX)));
    }
    let end = Tick(count.div_ceil(EVENTS_PER_TICK));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{count} events, {workers} workers; load before: {}", load.trim());
    println!("query   batch M events/s   speed M events/s   rows and state");

    let rate = |time: Duration| count as f64 / 1e6 / time.as_secs_f64();
    let report = |name: &str, dataflow: Arc<dyn Dataflow<NexmarkEvent>>| {
        let (in_batch, rows) = batch(&dataflow, &blocks, end, workers);
        let in_speed = speed(&dataflow, &blocks, end, workers);
        println!("{name:<5} {:>18.3} {:>18.3} {rows:>16}", rate(in_batch), rate(in_speed));
    };
    for query in QUERIES {
        report(query, Arc::new(nexmark_query(query)));
    }
    report("all", Arc::new(nexmark));
}
