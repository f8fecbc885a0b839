//! What does a change cost in a group of n values?
//!
//! A batch makes a generation of n values in one group; a speed graph on it then follows changes, one a tick: the greatest
//! value is taken away again and again, so that each time the next must be found; or values come and go that are not among
//! the greatest. `max` and `top_k(10)` are measured, and for comparison a `reduce` that scans the group. One worker.
//!
//! The ticks are at hand when the graph starts, and are worked off one by one. The time of a change has a part that is not the
//! operator's; it is that of the smallest group. What counts is how the time grows with n.
//!
//! ```text
//! cargo bench --bench top_k -- --values 10000000
//! ```

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use lambdaflow::layers::{Dataflow, Feed, Replay, SpeedWorkers, run_batch};
use lambdaflow::log::{Block, Tick};
use lambdaflow::prelude::*;
use lambdaflow::runs::Generation;

/// The allocator of the shipped program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Ticks that are followed, each with one change.
const TICKS: u64 = 2_000;
const ROUNDS: usize = 5;
const BLOCK: u64 = 65_536;

#[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
struct Value {
    value: u64,
    times: i64,
}

impl Event for Value {
    const NAME: &'static str = "benches.Value";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["value: u64", "times: i64"];
}

fn values<'s>(events: Events<'s, Value>) -> Flow<'s, ((), u64)> {
    events.explode(|event| Some((((), *event.value), *event.times as Diff)))
}

fn max(events: Events<'_, Value>, views: &mut Views) {
    views.publish("max", values(events).max());
}

fn top_ten(events: Events<'_, Value>, views: &mut Views) {
    let values = values(events).map(|((), value)| value);
    views.publish("top", values.top_k(10, |value| *value).map(|value| (value, ())));
}

fn scanned_max(events: Events<'_, Value>, views: &mut Views) {
    views.publish("max", values(events).reduce(|(), values, max| max.push((*values[values.len() - 1].0, 1))));
}

/// Values 0 to n, scattered over the batch as they would be.
fn base(dataflow: &Arc<dyn Dataflow<Value>>, n: u64) -> Generation {
    let scattered = |i: u64| Value { value: (i * 0x9E37_79B1) % n, times: 1 };
    // An odd multiplier that n does not share a factor with: each value once.
    let block = |first: u64| Block::from_events((first..(first + BLOCK).min(n)).map(|i| (Tick(0), scattered(i))));
    let blocks: Vec<_> = (0..n).step_by(BLOCK as usize).map(block).collect();
    let feed = Feed::new(Replay::new(blocks, Tick(1)), Some(Tick(1)));
    let output = run_batch(dataflow, None, feed, Tick(1), 1, &Arc::new(AtomicBool::new(false))).expect("the batch runs");
    Generation { id: 1, frontier: Tick(1), shards: output.shards }
}

/// Median time of a tick with one change each, over the rounds.
fn follow(dataflow: &Arc<dyn Dataflow<Value>>, base: &Generation, change: impl Fn(u64) -> Value) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let workers = SpeedWorkers::start(1, Arc::new(|| ())).expect("a worker starts");
            let end = Tick(1 + TICKS);
            let blocks: Vec<_> = (0..TICKS).map(|i| Block::from_events([(Tick(1 + i), change(i))])).collect();
            let feed = Feed::new(Replay::new(blocks, end), None);
            let base = Arc::new(Generation { id: base.id, frontier: base.frontier, shards: base.shards.clone() });
            let started = Instant::now();
            let graph = workers.install(dataflow, base, Tick(1), feed, 1).expect("the graph is built");
            while graph.upper() < end {
                std::hint::spin_loop();
            }
            let took = started.elapsed() / TICKS as u32;
            graph.close();
            took
        })
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let most = arguments.iter().position(|a| a == "--values").map_or(10_000_000, |at| arguments[at + 1].parse().expect("a number"));
    // Prime, so that every multiplier reaches every value.
    let sizes: Vec<u64> = [10_007, 100_003, 1_000_003, 10_000_019].into_iter().filter(|n| *n <= most + most / 100 + 10).collect();
    println!("load average {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
    println!("{:<34} {}", "microseconds a change, group of", sizes.iter().map(|n| format!("{n:>12}")).collect::<String>());

    let mut growth: f64 = 0.0;
    let row = |name: &str, dataflow: Arc<dyn Dataflow<Value>>, largest: u64, greatest: bool| {
        let mut cells = Vec::new();
        for n in sizes.iter().copied().filter(|n| *n <= largest) {
            let base = base(&dataflow, n);
            let took = match greatest {
                true => follow(&dataflow, &base, |i| Value { value: n - 1 - i, times: -1 }),
                false => follow(&dataflow, &base, |i| Value { value: i * 2 % (n / 2), times: if i % 2 == 0 { 1 } else { -1 } }),
            };
            cells.push(took.as_secs_f64() * 1e6);
        }
        println!("{name:<34} {}", cells.iter().map(|cell| format!("{cell:>12.1}")).collect::<String>());
        cells.last().expect("a size") / cells[0]
    };
    for (name, dataflow) in [("max", Arc::new(max) as Arc<dyn Dataflow<Value>>), ("top_k(10)", Arc::new(top_ten))] {
        growth = growth.max(row(&format!("{name}: the greatest goes"), Arc::clone(&dataflow), u64::MAX, true));
        growth = growth.max(row(&format!("{name}: others come and go"), dataflow, u64::MAX, false));
    }
    let scanned = row("scanning reduce: the greatest goes", Arc::new(scanned_max), 150_000, true);
    let times = sizes[sizes.len() - 1] / sizes[0];
    println!("top_k: a group {times} times as large makes a change {growth:.1}x as dear; scanning, 10 times as large: {scanned:.1}x");
}
