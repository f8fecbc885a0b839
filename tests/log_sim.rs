//! Cuts the power at every step of a workload, and checks what a restart finds (rows L2, L3, C3, C4, C15).
//!
//! One run of the workload per step, many power cuts per run. A failure prints step and seed; `LAMBDAFLOW_SEED` repeats one
//! seed. The last tests break the disk on purpose and expect the explorer to notice.
mod log_support;

use lambdaflow::log::SimClock;
use lambdaflow::log::{Durability, Execution, Log, LogError, LogOptions, Tick};
use lambdaflow::storage::Disk;
use lambdaflow::storage::{Effect, Fault, FaultDisk, Operation, Rng, SimDisk};
use log_support::*;
use std::collections::BTreeSet;
use std::sync::Arc;

const PARTITIONS: usize = 2;

/// What the callers of the log were told.
#[derive(Default)]
struct History {
    /// Per partition, the events handed to the log, in order.
    tried: [Vec<u64>; PARTITIONS],
    acked: Vec<Placed>,
    /// The highest frontier announced, and the events acknowledged before that.
    frontier: Tick,
    before_frontier: BTreeSet<u64>,
}

impl History {
    fn saw_frontier(&mut self, frontier: Tick) {
        assert!(frontier >= self.frontier, "the frontier went back from {} to {frontier}", self.frontier);
        self.frontier = frontier;
        self.before_frontier = self.acked.iter().map(|placed| placed.note.number).collect();
    }
}

/// Appends, advances, clock jumps in both directions, full segments, a clean restart and a kill.
fn workload(disk: Arc<dyn Disk>, options: &LogOptions, history: &mut History) -> Result<(), LogError> {
    let clock = SimClock::at(1_000);
    let mut rng = Rng::new(7);
    let mut number = 0;
    let mut log: Log<Note> = open_on(Arc::clone(&disk), &clock, options.clone())?;
    history.saw_frontier(log.frontier());
    for round in 0..14u64 {
        if round == 4 || round == 9 {
            if round == 4 {
                log.close()?;
            } else {
                drop(log);
            }
            log = open_on(Arc::clone(&disk), &clock, options.clone())?;
            history.saw_frontier(log.frontier());
        }
        match round {
            2 => clock.pass(7_000),
            6 => clock.set(500),
            _ => clock.pass(rng.below(3)),
        }
        for _ in 0..2 {
            let count = 1 + rng.below(3);
            let batch = notes(number..number + count);
            number += count;
            let partition = rng.below(PARTITIONS as u64);
            history.tried[partition as usize].extend(batch.iter().map(|note| note.number));
            let ack = log.append_to(lambdaflow::log::Partition(partition as u32), batch.clone())?;
            assert_eq!(ack.count(), count);
            for (place, note) in batch.into_iter().enumerate() {
                history.acked.push(Placed {
                    partition: ack.partition(),
                    offset: ack.first_offset().plus(place as u64),
                    tick: ack.tick(),
                    note,
                });
            }
            assert!(ack.tick() >= history.frontier, "tick {} below the frontier {}", ack.tick(), history.frontier);
        }
        history.saw_frontier(log.advance()?);
    }
    log.close()
}

fn options() -> LogOptions {
    LogOptions { partitions: PARTITIONS as u32, ..inline_small() }
}

/// Opens what a power cut left; `Err` says which promise is broken.
fn check(disk: &SimDisk, history: &History, options: &LogOptions) -> Result<(), String> {
    let clock = SimClock::at(0);
    let log = open(disk, &clock, options.clone()).map_err(|error| format!("does not open: {error}"))?;
    let (read, error) = read_until_error(&log, Tick::ZERO);
    if let Some(error) = error {
        return Err(format!("does not read: {error}"));
    }
    for (partition, tried) in history.tried.iter().enumerate() {
        let here: Vec<&Placed> = read.iter().filter(|placed| placed.partition.index() == partition).collect();
        let found: Vec<u64> = here.iter().map(|placed| placed.note.number).collect();
        if !tried.starts_with(&found) {
            return Err(format!("partition {partition} holds {found:?}, no prefix of {tried:?}"));
        }
        if !here.iter().enumerate().all(|(offset, placed)| placed.offset.0 == offset as u64) {
            return Err(format!("offsets of partition {partition} are not dense"));
        }
        if !here.windows(2).all(|pair| pair[0].tick <= pair[1].tick) {
            return Err(format!("ticks of partition {partition} go back"));
        }
    }
    for acked in &history.acked {
        if !read.contains(acked) {
            return Err(format!("acknowledged {acked:?} is lost or changed"));
        }
    }
    if let Some(late) = read.iter().find(|placed| placed.tick < history.frontier && !history.before_frontier.contains(&placed.note.number))
    {
        return Err(format!("{late:?} appeared below the announced frontier {}", history.frontier));
    }
    if log.frontier() < history.frontier {
        return Err(format!("the frontier went back from {} to {}", history.frontier, log.frontier()));
    }
    let total = log.events_total();
    let files = disk.after_kill();
    drop(log);
    let again = open(&files, &clock, options.clone()).map_err(|error| format!("the second recovery fails: {error}"))?;
    if read_all(&again) != read {
        return Err("a second recovery reads other events than the first".to_string());
    }
    let ack = again.append(notes(1_000_000..1_000_001)).map_err(|error| format!("does not append: {error}"))?;
    if ack.tick() < history.frontier || again.events_total() != total + 1 {
        return Err(format!("an append after recovery got tick {}, the frontier was {}", ack.tick(), history.frontier));
    }
    Ok(())
}

/// So many seeds, times `LAMBDAFLOW_SEEDS` for a longer run; or the one in `LAMBDAFLOW_SEED`.
fn seeds(count: u64) -> Vec<u64> {
    let times: u64 = std::env::var("LAMBDAFLOW_SEEDS").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    let count = count * times;
    Rng::seed_from_env().map_or_else(|| (0..count).collect(), |seed| vec![seed])
}

fn steps_of(options: &LogOptions) -> u64 {
    let disk = SimDisk::new();
    disk.create_dir(dir()).unwrap();
    workload(Arc::new(disk.clone()), options, &mut History::default()).expect("a workload without faults succeeds");
    disk.steps()
}

/// Runs the workload once per step with the power cut there; returns power cuts checked and promises broken.
fn explore(options: &LogOptions, seeds: &[u64], stride: usize, break_disk: impl Fn(&FaultDisk)) -> (u64, Vec<String>) {
    let (mut checked, mut broken) = (0, Vec::new());
    for step in (1..=steps_of(options) + 1).step_by(stride) {
        let disk = SimDisk::new();
        disk.create_dir(dir()).unwrap();
        disk.cut_power_at(step);
        let faulty = FaultDisk::new(Arc::new(disk.clone()));
        break_disk(&faulty);
        let mut history = History::default();
        let _ = workload(Arc::new(faulty), options, &mut history);
        for seed in seeds {
            checked += 1;
            if let Err(why) = check(&disk.after_power_cut(*seed), &history, options) {
                broken.push(format!("power cut at step {step}, LAMBDAFLOW_SEED={seed}: {why}"));
            }
        }
    }
    (checked, broken)
}

#[test]
fn acknowledged_events_survive_a_power_cut_at_any_step() {
    let (checked, broken) = explore(&options(), &seeds(60), 1, |_| {});
    println!("{checked} power cuts");
    assert!(checked > 500 || Rng::seed_from_env().is_some());
    assert!(broken.is_empty(), "{} of {checked} power cuts broke a promise; the first:\n{}", broken.len(), broken[0]);
}

#[test]
fn acknowledged_events_survive_a_power_cut_while_threads_write_the_mark_and_seal() {
    let options = LogOptions { execution: Execution::Threads, ..options() };
    let (checked, broken) = explore(&options, &seeds(6), 2, |_| {});
    assert!(broken.is_empty(), "{} of {checked} power cuts broke a promise; the first:\n{}", broken.len(), broken[0]);
}

#[test]
fn a_power_cut_without_syncs_loses_events_and_nothing_else() {
    let options = LogOptions { durability: Durability::Os, ..options() };
    let (_, broken) = explore(&options, &seeds(12), 1, |_| {});
    assert!(broken.iter().any(|why| why.contains("is lost")), "durability was traded for nothing");
    let worse: Vec<&String> = broken.iter().filter(|why| !why.contains("is lost")).collect();
    assert!(worse.is_empty(), "{} power cuts, the first:\n{}", worse.len(), worse[0]);
}

#[test]
fn the_workload_reaches_what_it_is_for() {
    let options = options();
    let (mut sealed, mut torn, mut both, mut unfinished) = (0, 0, 0, 0);
    for step in 1..=steps_of(&options) {
        let disk = SimDisk::new();
        disk.create_dir(dir()).unwrap();
        disk.cut_power_at(step);
        let _ = workload(Arc::new(disk.clone()), &options, &mut History::default());
        for seed in 0..6 {
            let disk = disk.after_power_cut(seed);
            let names: Vec<String> = disk.files().into_keys().map(|path| path.to_string_lossy().into_owned()).collect();
            let count = |ending: &str| names.iter().filter(|name| name.ends_with(ending)).count();
            let twice = |name: &&String| names.contains(&name.replace(".seg", ".active")) && name.ends_with(".seg");
            sealed += usize::from(count(".seg") > 3);
            both += names.iter().filter(twice).count();
            unfinished += count(".seg.tmp");
            drop(open(&disk, &SimClock::at(0), options.clone()));
            torn += disk.files().into_keys().filter(|path| path.to_string_lossy().contains(".torn-")).count();
        }
    }
    let reached = [sealed, torn, both, unfinished];
    assert!(reached.iter().all(|count| *count > 0), "[sealed, torn, both, unfinished] = {reached:?}");
}

#[test]
fn a_power_cut_during_recovery_from_a_power_cut_loses_nothing() {
    let options = options();
    let mut checked = 0;
    for step in (1..=steps_of(&options)).step_by(17) {
        let disk = SimDisk::new();
        disk.create_dir(dir()).unwrap();
        disk.cut_power_at(step);
        let mut history = History::default();
        let _ = workload(Arc::new(disk.clone()), &options, &mut history);
        for seed in seeds(3) {
            let first = disk.after_power_cut(seed);
            for recovery_step in 1.. {
                let second = first.after_kill();
                second.cut_power_at(recovery_step);
                let opened = open(&second, &SimClock::at(0), options.clone());
                if !second.is_off() {
                    break;
                }
                drop(opened);
                checked += 1;
                let third = second.after_power_cut(seed + 1_000);
                if let Err(why) = check(&third, &history, &options) {
                    panic!("power cuts at step {step} and at step {recovery_step} of recovery, LAMBDAFLOW_SEED={seed}: {why}");
                }
            }
        }
    }
    assert!(checked > 100, "{checked} recoveries were cut");
}

fn lie_about(operation: Operation, path_contains: &'static str) -> impl Fn(&FaultDisk) {
    let fault = Fault { operation, path_contains: path_contains.to_string(), after: 0, times: u64::MAX, effect: Effect::Lie };
    move |disk| disk.inject(fault.clone())
}

#[test]
fn the_explorer_notices_a_sync_that_does_nothing() {
    let (checked, broken) = explore(&options(), &seeds(6), 5, lie_about(Operation::Sync, ".active"));
    assert!(!broken.is_empty(), "none of {checked} power cuts broke a promise");
}

#[test]
fn the_explorer_notices_a_segment_that_is_not_synced_before_its_rename() {
    let (checked, broken) = explore(&options(), &seeds(6), 5, lie_about(Operation::Sync, ".seg.tmp"));
    assert!(!broken.is_empty(), "none of {checked} power cuts broke a promise");
}

#[test]
fn the_explorer_notices_directories_that_are_not_synced() {
    let (checked, broken) = explore(&options(), &seeds(6), 5, lie_about(Operation::SyncDir, "p000"));
    assert!(!broken.is_empty(), "none of {checked} power cuts broke a promise");
}

#[test]
fn the_explorer_notices_a_mark_that_is_not_synced() {
    let (checked, broken) = explore(&options(), &seeds(6), 5, lie_about(Operation::Sync, "mark.tmp"));
    assert!(!broken.is_empty(), "none of {checked} power cuts broke a promise");
}
