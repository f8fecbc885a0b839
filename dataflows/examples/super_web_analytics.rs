//! How long each layer of `super_web_analytics` takes, in how much memory.
//!
//! ```text
//! cargo run --release -p lambdaflow-dataflows --example super_web_analytics -- 1000000 50000 2
//! ```
//!
//! A full batch over so many generated facts, of which 5 % are equivalences; then the speed layer follows so many more in
//! ticks of 500, as fast as it can. It starts on the batch's generation, which is timed apart, with a tick of one fact. Memory is
//! resident memory, with the facts, which are made before and kept.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use lambdaflow::layers::{Dataflow, Feed, Replay, SpeedWorkers, run_batch};
use lambdaflow::log::{BLOCK_EVENTS_MAX, Block, Offset, Partition, Tick};
use lambdaflow::runs::{Generation, Query};
use lambdaflow_dataflows::super_web_analytics::{Fact, Generator, GeneratorOptions, super_web_analytics};

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const FACTS_PER_TICK: u64 = 500;
const PROGRESS_PAUSE: Duration = Duration::from_millis(1);
/// The tick of the batch; the first of the speed layer's follow it.
const BATCH: u64 = 0;
const START: u64 = 1;

/// Resident memory of this process, where the system says.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map_or_else(|| "memory unknown".to_owned(), |kilobytes| format!("{} MB", kilobytes / 1024))
}

fn say(what: &str, facts: u64, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    println!("{what:<8} {facts:>10} facts  {seconds:>7.2} s  {:>9.0}/s  {}", facts as f64 / seconds, memory());
}

fn main() -> ExitCode {
    let arguments: Result<Vec<u64>, _> = std::env::args().skip(1).map(|argument| argument.parse()).collect();
    let arguments = match arguments {
        Ok(arguments) if arguments.len() <= 3 && !arguments.contains(&0) => arguments,
        _ => {
            eprintln!("usage: super_web_analytics [BATCH_FACTS [SPEED_FACTS [WORKERS]]], all above zero");
            return ExitCode::from(2);
        }
    };
    let argument = |at: usize, default| arguments.get(at).copied().unwrap_or(default);
    let (in_batch, in_speed, workers) = (argument(0, 1_000_000), argument(1, 50_000), argument(2, 2) as usize);

    let started = Instant::now();
    let tick = |i: u64| match i.checked_sub(in_batch) {
        None => BATCH,
        Some(0) => START,
        Some(i) => START + 1 + (i - 1) / FACTS_PER_TICK,
    };
    let count = in_batch + 1 + in_speed;
    let mut facts = (0..count).zip(Generator::new(1, GeneratorOptions::default())).map(|(i, fact)| (Tick(tick(i)), fact)).peekable();
    let (mut blocks, mut made) = (Vec::new(), 0);
    while facts.peek().is_some() {
        let block: Block<Fact> = Block::from_events_at(Partition(0), Offset(made), facts.by_ref().take(BLOCK_EVENTS_MAX));
        made += block.len() as u64;
        blocks.push(block);
    }
    say("facts", made, started);
    let (cut, end) = (Tick(START), Tick(tick(count - 1) + 1));
    let between = |from: Tick, to: Tick| Replay::new(blocks.iter().map(|block| block.slice_ticks(from..to)), to);

    let dataflow: Arc<dyn Dataflow<Fact>> = Arc::new(super_web_analytics);
    let started = Instant::now();
    let feed = Feed::new(between(Tick(0), cut), Some(cut));
    let none = Generation::empty(workers);
    let base = match run_batch(&dataflow, Some(&none), feed, cut, workers, &Arc::new(AtomicBool::new(false))) {
        Ok(output) => Generation { id: 1, frontier: cut, shards: output.shards },
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    say("batch", in_batch, started);

    let mut started = Instant::now();
    let speed = SpeedWorkers::start(workers, Arc::new(|| ())).expect("workers start");
    let graph = speed.install(&dataflow, Arc::new(base), cut, Feed::new(between(cut, end), None), 1).expect("the graph is built");
    let mut starting = true;
    while graph.upper() < end {
        if let Some(message) = speed.panicked() {
            eprintln!("error: {message}");
            return ExitCode::FAILURE;
        }
        if starting && graph.upper() > cut {
            say("start", 1, started);
            (started, starting) = (Instant::now(), false);
        }
        // As the serving layer does: history is counted from what is served.
        graph.history.serve(graph.upper().0);
        std::thread::sleep(PROGRESS_PAUSE);
    }
    say("speed", in_speed, started);
    for (name, view) in &graph.views {
        let rows = view.read(Tick(end.0 - 1), &Query::Scan { limit: usize::MAX }).expect("the last tick is readable");
        println!("{name:<12} {:>10} rows", rows.len());
    }
    ExitCode::SUCCESS
}
