//! What the log's tests share: an event type, a simulated place, and reading everything back.
#![allow(dead_code, reason = "each test binary uses a part")]
use columnar::{Columnar, Index};
use lambdaflow::log::SimClock;
use lambdaflow::log::{Block, Clock, Event, Execution, Log, LogError, LogOptions, Offset, Partition, Tick};
use lambdaflow::storage::Disk;
use lambdaflow::storage::{Rng, SimDisk};
use proptest::test_runner::{Config, RngSeed};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Columnar, Serialize, Deserialize)]
pub struct Note {
    pub number: u64,
    pub text: String,
}

impl Event for Note {
    const NAME: &'static str = "note";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["number: u64", "text: String"];
}

pub fn note(number: u64) -> Note {
    Note { number, text: format!("note {number} {}", "x".repeat((number % 7) as usize)) }
}

pub fn notes(numbers: std::ops::Range<u64>) -> Vec<Note> {
    numbers.map(note).collect()
}

pub const DIR: &str = "/place/log";

pub fn dir() -> &'static Path {
    Path::new(DIR)
}

pub fn partition_file(name: &str) -> PathBuf {
    dir().join("p0000").join(name)
}

/// Options under which a simulation repeats: work is done by the caller, segments are a few groups long.
pub fn inline() -> LogOptions {
    LogOptions { execution: Execution::Inline, ..LogOptions::default() }
}

pub fn inline_small() -> LogOptions {
    LogOptions { segment_bytes_max: 600, ..inline() }
}

pub fn open(disk: &SimDisk, clock: &Arc<SimClock>, options: LogOptions) -> Result<Log<Note>, LogError> {
    open_on(Arc::new(disk.clone()), clock, options)
}

pub fn open_on(disk: Arc<dyn Disk>, clock: &Arc<SimClock>, options: LogOptions) -> Result<Log<Note>, LogError> {
    Log::open(disk, Arc::clone(clock) as Arc<dyn Clock>, dir(), options)
}

/// An event with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    pub partition: Partition,
    pub offset: Offset,
    pub tick: Tick,
    pub note: Note,
}

pub fn rows(block: &Block<Note>) -> Vec<Placed> {
    let columns = block.columns();
    let place = |tick, row: usize| {
        let (placed_tick, offset) = block.place(row);
        assert_eq!(tick, placed_tick);
        Placed { partition: block.partition(), offset, tick, note: Note::into_owned(columns.get(row)) }
    };
    let read: Vec<Placed> = block.tick_runs().flat_map(|(tick, rows)| rows.map(move |row| place(tick, row))).collect();
    if let (Some(first), Some(last)) = (read.first(), read.last()) {
        assert_eq!((block.first_offset(), block.end_offset()), (first.offset, last.offset.plus(1)));
    }
    read
}

/// Everything from a tick on, and the error that ended the reading, if one did.
pub fn read_until_error(log: &Log<Note>, from: Tick) -> (Vec<Placed>, Option<LogError>) {
    let (mut cursor, mut read) = (log.cursor(from), Vec::new());
    loop {
        match cursor.next() {
            Ok(Some(block)) => read.extend(rows(&block)),
            Ok(None) => return (read, None),
            Err(error) => return (read, Some(error)),
        }
    }
}

pub fn read_all(log: &Log<Note>) -> Vec<Placed> {
    let (read, error) = read_until_error(log, Tick::ZERO);
    assert!(error.is_none(), "{}", error.unwrap());
    read
}

pub fn numbers(read: &[Placed]) -> Vec<u64> {
    read.iter().map(|placed| placed.note.number).collect()
}

/// The files of the first partition whose names end so, in order.
pub fn partition_files(disk: &SimDisk, ending: &str) -> Vec<PathBuf> {
    let in_partition = |path: &PathBuf| path.starts_with(dir().join("p0000")) && path.to_string_lossy().ends_with(ending);
    disk.files().into_keys().filter(in_partition).collect()
}

/// So many random cases, from `LAMBDAFLOW_SEED` when it is set; prints the seed, which a failed test shows.
pub fn random_cases(cases: u32) -> Config {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let seed = Rng::seed_from_env().unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("LAMBDAFLOW_SEED={seed}");
    Config { cases, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() }
}
