//! What does it cost that rows cross between processes, by codec?
//!
//! Batches over generated requests, on two workers: as threads that hand rows over ("none"), as threads that write and read
//! every row, and as two processes with a socket between them (played by threads: the work is the same, the memory is shared).
//! Dataflows: one that moves every row by a string, one that moves every row by integers, and the shipped `web_analytics`,
//! whose rows are mostly combined before they are moved. Codecs take turns, medians are reported, all must find as many rows.
//! Below, what writing and reading alone cost, and the bytes. A codec that writes rows of a type in another's way is shown with the
//! other's name: abomonation writes rows without pointers only.
//!
//! ```text
//! cargo bench -p lambdaflow --features abomonation --bench exchange -- --events 1000000
//! ```

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lambdaflow::layers::{BatchOutput, Crew, Dataflow, Feed, Replay, run_batch};
use lambdaflow::log::{Block, Tick};
use lambdaflow::operators::Codec;
use lambdaflow::prelude::*;
use lambdaflow::runs::{Change, Data};
use lambdaflow::testing::{CodecCost, codec_cost, loopback};
use lambdaflow_dataflows::web_analytics::generate::{Generator, GeneratorOptions};
use lambdaflow_dataflows::web_analytics::{Request, web_analytics};

/// The allocator of the shipped program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ROUNDS: usize = 5;
const BLOCK: usize = 16_384;
const WORKERS: usize = 2;
const CUT: Tick = Tick(1);

fn by_string(requests: Events<'_, Request>, views: &mut Views) {
    let paths = requests.map(|r| String::from_utf8_lossy(r.path).into_owned());
    views.publish("hits", paths.count());
}

fn by_integer(requests: Events<'_, Request>, views: &mut Views) {
    views.publish("sizes", requests.map(|r| (*r.bytes, *r.status)).count());
}

#[derive(Clone, Copy)]
enum Between {
    Threads,
    Serialized,
    Sockets,
}

fn batch(dataflow: &Arc<dyn Dataflow<Request>>, blocks: &[Block<Request>], between: Between, codec: Codec) -> (Duration, usize) {
    let stop = Arc::new(AtomicBool::new(false));
    let run = |crew: Crew, blocks: Vec<Block<Request>>| {
        let feed = Feed::new(Replay::new(blocks, CUT), Some(CUT));
        run_batch(dataflow, None, feed, CUT, crew, &stop).unwrap_or_else(|error| {
            // Or else the others would wait for this one's rows.
            stop.store(true, Ordering::Release);
            panic!("{error}")
        })
    };
    let crews: Vec<Crew> = match between {
        Between::Threads => vec![Crew::from(WORKERS)],
        Between::Serialized => vec![Crew::serialized(WORKERS).codec(codec)],
        Between::Sockets => {
            let links = loopback(WORKERS).into_iter().enumerate();
            links.map(|(process, links)| Crew::new(1, process, WORKERS, links).codec(codec)).collect()
        }
    };
    let processes = crews.len();
    let started = Instant::now();
    let outputs: Vec<BatchOutput> = std::thread::scope(|scope| {
        let share = |process| blocks.iter().skip(process).step_by(processes).cloned().collect();
        let running: Vec<_> = crews.into_iter().enumerate().map(|(process, crew)| scope.spawn(move || run(crew, share(process)))).collect();
        running.into_iter().map(|output| output.join().expect("it does not panic")).collect()
    });
    let took = started.elapsed();
    (took, outputs.iter().flat_map(|output| &output.shards).map(|shard| shard.size().1).sum())
}

fn median<T: PartialOrd + Copy>(times: &mut [T]) -> T {
    times.sort_by(|a, b| a.partial_cmp(b).expect("times are ordered"));
    times[times.len() / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let events = arguments
        .iter()
        .position(|argument| argument == "--events")
        .map_or(200_000, |at| arguments.get(at + 1).and_then(|n| n.replace('_', "").parse().ok()).expect("--events takes a number"));
    let mut requests = Generator::new(7, GeneratorOptions { paths: 100_000, ..GeneratorOptions::default() }).take(events).peekable();
    let mut blocks = Vec::new();
    while requests.peek().is_some() {
        blocks.push(Block::from_events(requests.by_ref().take(BLOCK).map(|request| (Tick(0), request))));
    }
    println!("{events} events, {WORKERS} workers, load before: {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());

    let (codecs, missing): (Vec<_>, Vec<_>) = Codec::ALL.into_iter().partition(|codec| codec.available().is_ok());
    for codec in missing {
        println!("{codec}: {}", codec.available().expect_err("it is missing"));
    }
    println!("{:<40} {:<27} {:>10} {:>18} {:>10}", "dataflow, workers as", "codec", "median ms", "events/s, millions", "of none");
    let dataflows: [(&str, Arc<dyn Dataflow<Request>>); 3] =
        [("by string", Arc::new(by_string)), ("by integers", Arc::new(by_integer)), ("web_analytics", Arc::new(web_analytics))];
    let string_rows = [((String::new(), ()), 0u64, 1isize)];
    let integer_rows = [(((0u64, 0u16), ()), 0u64, 1isize)];
    for (name, dataflow) in &dataflows {
        let mut ways = vec![(format!("{name}, threads"), Between::Threads, None)];
        for (between, way) in [("two serialized threads", Between::Serialized), ("two processes", Between::Sockets)] {
            ways.extend(codecs.iter().map(|codec| (format!("{name}, {between}"), way, Some(*codec))));
        }
        let mut times = vec![Vec::new(); ways.len()];
        let mut rows = None;
        for _ in 0..ROUNDS {
            for ((_, between, codec), times) in ways.iter().zip(&mut times) {
                let (took, found) = batch(dataflow, black_box(&blocks), *between, codec.unwrap_or_default());
                assert_eq!(*rows.get_or_insert(found), found, "all ways find the same");
                times.push(took.as_secs_f64());
            }
        }
        let mut none = None;
        for ((way, _, codec), times) in ways.iter().zip(&mut times) {
            let time = median(times);
            let none = *none.get_or_insert(time);
            let codec = codec.map_or("none".to_owned(), |codec| match *name {
                "by string" => really(codec, codec_cost(codec, &string_rows).codec),
                "by integers" => really(codec, codec_cost(codec, &integer_rows).codec),
                // Keyed by strings, most of them.
                _ => really(codec, codec_cost(codec, &string_rows).codec).replace("all", "most"),
            });
            println!("{way:<40} {codec:<27} {:>10.0} {:>18.2} {:>9.2}x", time * 1e3, events as f64 / time / 1e6, none / time);
        }
    }

    println!("{:<40} {:<27} {:>10} {:>18} {:>10}", "rows alone", "codec", "bytes", "write, ns a row", "read, ns");
    let generated = || Generator::new(7, GeneratorOptions { paths: 100_000, ..GeneratorOptions::default() }).take(events.min(100_000));
    let strings: Vec<_> = generated().map(|r| ((r.path, ()), 0u64, 1isize)).collect();
    let integers: Vec<_> = generated().map(|r| (((r.bytes, r.status), ()), 0u64, 1isize)).collect();
    let sums: Vec<_> = generated().map(|r| (((r.path, r.at / 3_600), ()), 0u64, (1isize, (Count(1), Sum::of(r.bytes))))).collect();
    alone("((path, ()), tick, times)", &codecs, &strings);
    alone("(((bytes, status), ()), tick, times)", &codecs, &integers);
    alone("(((path, hour), ()), tick, sums)", &codecs, &sums);
}

/// The codec that was asked for, and the one that it wrote rows by if that was another.
fn really(asked: Codec, used: Codec) -> String {
    if asked == used { asked.to_string() } else { format!("{asked}: all {used}") }
}

fn alone<K: Data, V: Data, R: Change>(name: &str, codecs: &[Codec], rows: &[((K, V), u64, R)]) {
    let rounds: Vec<Vec<CodecCost>> = (0..ROUNDS).map(|_| codecs.iter().map(|codec| codec_cost(*codec, rows)).collect()).collect();
    for (nth, codec) in codecs.iter().enumerate() {
        let each =
            |of: fn(&CodecCost) -> f64| median(&mut rounds.iter().map(|round| of(&round[nth])).collect::<Vec<_>>()) / rows.len() as f64;
        let (written, read) = (each(|cost| cost.written.as_secs_f64() * 1e9), each(|cost| cost.read.as_secs_f64() * 1e9));
        let codec = really(*codec, rounds[0][nth].codec);
        println!("{name:<40} {codec:<27} {:>10.1} {written:>18.1} {read:>10.1}", each(|cost| cost.bytes as f64));
    }
}
