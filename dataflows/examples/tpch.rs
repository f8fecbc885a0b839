//! How long each layer takes over TPC-H tables, in how much memory; at scale factor 1 also whether the answers are those
//! that TPC has published.
//!
//! ```text
//! cargo run --release -p lambdaflow-dataflows --example tpch -- 1 2        scale factor 1, two workers
//! cargo run --release -p lambdaflow-dataflows --example tpch -- 0.1 1 q5   one query
//! ```
//!
//! Nine tenths of the changes are a full batch; the rest is followed by the speed layer in ticks of 500 changes, as fast as it
//! can. Memory is resident memory, with the events, which are made before and kept.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use lambdaflow::layers::{Dataflow, Feed, Replay, SpeedWorkers, run_batch};
use lambdaflow::log::{BLOCK_EVENTS_MAX, Block, Offset, Partition, Tick};
use lambdaflow::runs::{Generation, Query};
use lambdaflow_dataflows::tpch::generate::Population;
use lambdaflow_dataflows::tpch::{Change, QUERIES, only, published};
use serde_json::json;
use tpchgen::q_and_a::answers_sf1;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const CHANGES_PER_TICK: u64 = 500;
const PROGRESS_PAUSE: Duration = Duration::from_millis(1);

/// Resident memory of this process in MB, and its greatest so far, where the system says.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes / 1024)
    };
    match (of("VmRSS:"), of("VmHWM:")) {
        (Some(now), Some(most)) => format!("{now} MB, at most {most} MB"),
        _ => "memory unknown".to_owned(),
    }
}

fn say(what: &str, events: u64, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    println!("{what:<8} {events:>10} changes  {seconds:>7.2} s  {:>9.0}/s  {}", events as f64 / seconds, memory());
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let scale: Option<f64> = arguments.next().map_or(Some(0.1), |text| text.parse().ok());
    let workers: Option<usize> = arguments.next().map_or(Some(2), |text| text.parse().ok());
    let queries: Vec<String> = arguments.collect();
    let known = queries.iter().all(|query| QUERIES.contains(&query.as_str()));
    let (Some(scale), Some(workers), true) = (scale, workers, known) else {
        eprintln!("usage: tpch [SCALE [WORKERS [QUERY..]]], with queries among {QUERIES:?}");
        return ExitCode::from(2);
    };
    let queries = if queries.is_empty() { QUERIES.map(str::to_owned).to_vec() } else { queries };

    let started = Instant::now();
    let mut events = (0..).zip(Population::new(1, scale)).map(|(i, change)| (Tick(i / CHANGES_PER_TICK), change)).peekable();
    let (mut blocks, mut count) = (Vec::new(), 0);
    while events.peek().is_some() {
        let block: Block<Change> = Block::from_events_at(Partition(0), Offset(count), events.by_ref().take(BLOCK_EVENTS_MAX));
        count += block.len() as u64;
        blocks.push(block);
    }
    say("events", count, started);
    let end = Tick(count.div_ceil(CHANGES_PER_TICK));
    let cut = Tick(end.0 * 9 / 10);
    let between = |from: Tick, to: Tick| Replay::new(blocks.iter().map(|block| block.slice_ticks(from..to)), to);
    let in_batch = (cut.0 * CHANGES_PER_TICK).min(count);

    let dataflow: Arc<dyn Dataflow<Change>> = Arc::new(only(queries.clone()));
    let started = Instant::now();
    let none = Generation::empty(workers);
    let feed = Feed::new(between(Tick(0), cut), Some(cut));
    let base = match run_batch(&dataflow, Some(&none), feed, cut, workers, &Arc::new(AtomicBool::new(false))) {
        Ok(output) => Generation { id: 1, frontier: cut, shards: output.shards },
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    say("batch", in_batch, started);

    let started = Instant::now();
    let speed = SpeedWorkers::start(workers, Arc::new(|| ())).expect("workers start");
    let graph = speed.install(&dataflow, Arc::new(base), cut, Feed::new(between(cut, end), None), 1).expect("the graph is built");
    while graph.upper() < end {
        if let Some(message) = speed.panicked() {
            eprintln!("error: {message}");
            return ExitCode::FAILURE;
        }
        // As the serving layer does: history is counted from what is served.
        graph.history.serve(graph.upper().0);
        std::thread::sleep(PROGRESS_PAUSE);
    }
    say("speed", count - in_batch, started);

    let mut same = true;
    for query in &queries {
        let rows = graph.views[query].read(Tick(end.0 - 1), &Query::Scan { limit: usize::MAX }).expect("the last tick is readable");
        let rows: Vec<_> = rows.iter().map(|row| json!({"key": row.key, "value": row.value})).collect();
        let number = query[1..].parse().expect("a number");
        let verdict = match answers_sf1::answer(number) {
            Some(answer) if scale == 1.0 => published::compare(query, &rows, answer).map_or_else(
                |why| {
                    same = false;
                    why
                },
                |rows| format!("{rows} rows, as published"),
            ),
            _ => format!("{} rows", rows.len()),
        };
        println!("{query:<8} {verdict}");
    }
    ExitCode::from(u8::from(!same))
}
