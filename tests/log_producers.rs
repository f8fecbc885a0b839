//! Appends that producers number are stored once, however often they are repeated (promise P2, rows I1 to I4).
mod log_support;

use lambdaflow::log::{
    Ack, Execution, Log, LogError, LogOptions, Offset, PRODUCER_WINDOW, PRODUCERS_MAX, Partition, ProducerError, RedactRequest, SimClock,
    Tick, redact, verify,
};
use lambdaflow::storage::{Disk, Effect, Fault, FaultDisk, Operation, Rng, SimDisk};
use log_support::*;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

const WINDOW: u64 = PRODUCER_WINDOW as u64;

/// The events of an append: as many as its number says, so that appends differ in size too.
fn batch(producer: u64, sequence: u64) -> Vec<Note> {
    let first = 1_000_000 * producer + 10 * sequence;
    notes(first..first + 1 + sequence % 3)
}

fn name(producer: u64) -> String {
    format!("producer {producer}")
}

fn append(log: &Log<Note>, producer: u64, sequence: u64) -> Result<Ack, LogError> {
    log.append_as(&name(producer), sequence, batch(producer, sequence))
}

fn refusal(result: Result<Ack, LogError>) -> ProducerError {
    match result {
        Err(LogError::Producer(error)) => error,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_repeated_append_is_stored_once_and_answered_as_the_first_time_whatever_happened_since() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(100));
    let options = LogOptions { partitions: 3, ..inline_small() };
    let mut log = open(&disk, &clock, options.clone()).unwrap();
    let mut acks = BTreeMap::new();
    for sequence in 0..30 {
        for producer in 0..4 {
            clock.pass(1);
            acks.insert((producer, sequence), append(&log, producer, sequence).unwrap());
        }
        log.append(notes(sequence..sequence + 1)).unwrap();
    }
    let stored = log.events_total();
    let repeat_all = |log: &Log<Note>, when: &str| {
        for ((producer, sequence), ack) in &acks {
            assert_eq!(append(log, *producer, *sequence).unwrap(), *ack, "{when}");
        }
        assert_eq!(log.events_total(), stored, "{when}");
    };
    repeat_all(&log, "in the same run, sealed and not");
    for round in 0..3 {
        drop(log);
        log = open(&disk.after_kill(), &clock, options.clone()).unwrap();
        repeat_all(&log, "after a kill");
        log.close().unwrap();
        log = open(&disk, &clock, LogOptions { segment_bytes_max: 10_000 * (round + 1), ..options.clone() }).unwrap();
        repeat_all(&log, "after a clean stop and a merge");
    }
    log.close().unwrap();
    let conditions = vec!["number < 1000000".parse().unwrap()];
    let request = RedactRequest { conditions, why: "test".to_string(), options: options.clone() };
    let gone = redact::<Note>(Arc::new(disk.clone()), clock.clone(), dir(), &request).unwrap().matching_total();
    let log = open(&disk, &clock, options).unwrap();
    for ((producer, sequence), ack) in &acks {
        assert_eq!(append(&log, *producer, *sequence).unwrap(), *ack, "what was redacted does not come back");
    }
    assert_eq!(log.events_total(), stored - gone);
    assert!(append(&log, 2, 30).unwrap().tick() > acks[&(2, 29)].tick());
    log.close().unwrap();
    assert!(verify(&disk, dir()).unwrap().is_whole());
}

#[test]
fn numbers_that_cannot_be_right_are_refused_with_what_is_expected() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(100));
    let mut log = open(&disk, &clock, inline_small()).unwrap();
    assert!(matches!(refusal(append(&log, 1, 3)), ProducerError::Ahead { expected: 0, .. }));
    for sequence in 0..WINDOW + 10 {
        append(&log, 1, sequence).unwrap();
    }
    for _ in 0..2 {
        let stored = log.events_total();
        let next = WINDOW + 10;
        assert!(matches!(refusal(append(&log, 1, next + 1)), ProducerError::Ahead { expected, .. } if expected == next));
        assert!(matches!(refusal(append(&log, 1, 9)), ProducerError::TooOld { oldest: 10, expected, .. } if expected == next));
        // A second producer with the same name sends other events, or as many others.
        assert!(matches!(refusal(log.append_as(&name(1), 50, batch(2, 50))), ProducerError::Differs { .. }));
        let error = LogError::from(refusal(log.append_as(&name(1), 50, batch(1, 51))));
        assert!(error.to_string().contains("two producers share this name"), "{error}");
        assert_eq!(error.exit_code(), 2);
        assert!(matches!(refusal(log.append_as("", 0, notes(0..1))), ProducerError::Name { .. }));
        assert_eq!(log.events_total(), stored);
        append(&log, 1, 10).unwrap();
        drop(log);
        log = open(&disk, &clock, inline()).unwrap();
    }
}

#[test]
fn a_partition_remembers_so_many_producers_and_refuses_the_next() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(100));
    let mut log = open(&disk, &clock, inline()).unwrap();
    for producer in 0..PRODUCERS_MAX as u64 {
        append(&log, producer, 0).unwrap();
    }
    for _ in 0..2 {
        assert!(matches!(refusal(append(&log, PRODUCERS_MAX as u64, 0)), ProducerError::TooMany { .. }));
        log.append(notes(0..1)).expect("appends without a producer go on");
        drop(log);
        log = open(&disk, &clock, inline()).unwrap();
    }
    append(&log, 5, 1).expect("and so do the producers that are known");
}

/// Where the table of producers of a sealed segment starts: after its blocks.
fn table_at(segment: &[u8]) -> usize {
    let at = segment.len() - 96 + 64;
    u64::from_le_bytes(segment[at..at + 8].try_into().unwrap()) as usize
}

#[test]
fn opening_reads_one_table_and_not_the_log() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(100));
    let log = open(&disk, &clock, inline_small()).unwrap();
    for sequence in 0..300 {
        append(&log, 0, sequence).unwrap();
    }
    log.close().unwrap();
    // All blocks are damaged, and all tables but that of the newest segment, which nobody notices who does not read them.
    let segments = partition_files(&disk, ".seg");
    assert!(segments.len() > 20);
    let (newest, older) = segments.split_last().unwrap();
    for segment in &segments {
        let mut bytes = disk.files()[segment].clone();
        bytes[100] ^= 1;
        let table = table_at(&bytes);
        bytes[table + 20] ^= u8::from(segment != newest);
        disk.plant(segment, &bytes);
    }
    let found = verify(&disk, dir()).unwrap().damage;
    assert_eq!(found.iter().filter(|damage| damage.what.contains("of the table of producers")).count(), older.len());
    let in_newest = disk.after_kill();
    let mut bytes = in_newest.files()[newest].clone();
    let table = table_at(&bytes);
    bytes[table + 20] ^= 1;
    in_newest.plant(newest, &bytes);
    let refused = open(&in_newest, &clock, LogOptions { segment_bytes_max: 1, ..inline() }).err().unwrap();
    assert!(matches!(&refused, LogError::Damaged(damage) if damage.byte == table as u64), "{refused}");
    let log = open(&disk, &clock, LogOptions { segment_bytes_max: 1, ..inline() }).unwrap();
    let ack = append(&log, 0, 250).unwrap();
    assert!(ack.first_offset() < Offset(600) && ack.count() == 2);
    assert_eq!(append(&log, 0, 300).unwrap().count(), 1);
}

#[test]
fn an_append_that_happened_and_was_told_as_failed_is_not_stored_again_when_it_is_repeated() {
    for execution in [Execution::Inline, Execution::Threads] {
        for (effect, after) in [Effect::FailAfter(5), Effect::FailBefore(5)].into_iter().flat_map(|effect| (0..6).map(move |n| (effect, n)))
        {
            let (sim, clock) = (SimDisk::new(), SimClock::at(100));
            let faulty = FaultDisk::new(Arc::new(sim.clone()));
            let options = LogOptions { execution, ..inline_small() };
            let log = open_on(Arc::new(faulty.clone()), &clock, options.clone()).unwrap();
            faulty.inject(Fault { operation: Operation::Sync, path_contains: ".active".to_string(), after, times: 1, effect });
            let failed = (0..).find(|sequence| append(&log, 7, *sequence).is_err()).unwrap();
            assert_eq!(failed, after);
            assert!(matches!(append(&log, 7, failed), Err(LogError::Stopped { .. })), "a stopped log judges nothing");
            drop(log);
            // The power may go as well, or not.
            for disk in [sim.after_kill(), sim.after_power_cut(after), sim.after_power_cut(after + 100)] {
                let log = open(&disk, &clock, options.clone()).unwrap();
                let there = log.events_total();
                let first = append(&log, 7, failed).unwrap();
                assert_eq!(append(&log, 7, failed).unwrap(), first);
                append(&log, 7, failed + 1).unwrap();
                let due: Vec<u64> = (0..failed + 2).flat_map(|sequence| batch(7, sequence)).map(|note| note.number).collect();
                assert_eq!(numbers(&read_all(&log)), due, "{effect:?} {after}, {there} events were there");
            }
        }
    }
}

#[test]
fn concurrent_appends_of_producers_share_syncs_and_are_stored_once_each() {
    let disk = FaultDisk::new(Arc::new(SimDisk::new()));
    let log = open_on(Arc::new(disk.clone()), &SimClock::at(1), LogOptions::default()).unwrap();
    // A slow disk: while one sync is on its way, all others come to wait.
    let release = log.on_change(Box::new(|| std::thread::sleep(std::time::Duration::from_millis(1))));
    let (producers, count) = (16, 20);
    std::thread::scope(|scope| {
        for producer in 0..producers {
            let log = &log;
            scope.spawn(move || {
                for sequence in 0..count {
                    // An impatient producer sends everything twice at once.
                    let acks = std::thread::scope(|scope| {
                        let twice = [(); 2].map(|()| scope.spawn(move || append(log, producer, sequence).unwrap()));
                        twice.map(|sent| sent.join().unwrap())
                    });
                    assert_eq!(acks[0], acks[1]);
                }
            });
        }
    });
    drop(release);
    let syncs = disk.count(Operation::Sync, ".active") as u64;
    assert!(syncs < producers * count / 2, "{syncs} syncs for {} appends", producers * count);
    let mut found: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for number in numbers(&read_all(&log)) {
        found.entry(number / 1_000_000).or_default().push(number);
    }
    assert_eq!(found.len(), producers as usize, "of each producer something was stored");
    for (producer, found) in found {
        let due: Vec<u64> = (0..count).flat_map(|sequence| batch(producer, sequence)).map(|note| note.number).collect();
        assert_eq!(found, due, "of producer {producer}");
    }
}

/// Producers with a few appends each that they repeat until they are acknowledged, over power cuts, kills and clean stops.
#[test]
fn over_power_cuts_each_append_is_in_the_log_once_and_in_the_producers_order() {
    const PRODUCERS: u64 = 3;
    const COUNT: u64 = 12;
    let seeds: Vec<u64> = Rng::seed_from_env().map_or_else(|| (0..150).collect(), |seed| vec![seed]);
    let (mut cuts, mut repeats) = (0, 0);
    for seed in seeds {
        let mut rng = Rng::new(seed);
        let options = LogOptions { partitions: 2, segment_bytes_max: 300 + rng.below(2_000), ..inline() };
        let clock = SimClock::at(1_000);
        let mut disk = SimDisk::new();
        disk.create_dir(dir()).unwrap();
        let mut next = [0; PRODUCERS as usize];
        let mut acks: BTreeMap<(u64, u64), Ack> = BTreeMap::new();
        let mut rounds = 0;
        while next.iter().any(|next| *next < COUNT) {
            rounds += 1;
            assert!(rounds < 500, "LAMBDAFLOW_SEED={seed}: no progress");
            disk.cut_power_at(disk.steps() + 4 + rng.below(60));
            let run = |acks: &mut BTreeMap<(u64, u64), Ack>, next: &mut [u64], rng: &mut Rng, repeats: &mut u64| -> Result<(), LogError> {
                let log = open(&disk, &clock, options.clone())?;
                for _ in 0..20 {
                    clock.pass(rng.below(2));
                    let producer = rng.below(PRODUCERS);
                    let place = producer as usize;
                    // What was acknowledged is repeated now and then, too: the answer was lost on its way.
                    let back = if rng.one_in(3) { rng.below(4).min(next[place]) } else { 0 };
                    let sequence = next[place] - back;
                    if sequence >= COUNT {
                        continue;
                    }
                    let ack = append(&log, producer, sequence)?;
                    let first = acks.entry((producer, sequence)).or_insert(ack);
                    assert_eq!(*first, ack, "LAMBDAFLOW_SEED={seed}: the first answer");
                    *repeats += u64::from(back > 0);
                    next[place] = next[place].max(sequence + 1);
                }
                if rng.one_in(2) { log.close() } else { Ok(()) }
            };
            let ended = run(&mut acks, &mut next, &mut rng, &mut repeats);
            disk = if disk.is_off() {
                cuts += 1;
                disk.after_power_cut(rng.number())
            } else {
                ended.unwrap_or_else(|error| panic!("LAMBDAFLOW_SEED={seed}: {error}"));
                disk.after_kill()
            };
        }
        let log = open(&disk, &clock, options).unwrap();
        let read = read_all(&log);
        let mut found: BTreeMap<u64, VecDeque<&Placed>> = BTreeMap::new();
        read.iter().for_each(|placed| found.entry(placed.note.number / 1_000_000).or_default().push_back(placed));
        for producer in 0..PRODUCERS {
            let found = found.get_mut(&producer).unwrap();
            for sequence in 0..COUNT {
                let ack = acks[&(producer, sequence)];
                for (place, note) in batch(producer, sequence).into_iter().enumerate() {
                    let due = Placed { partition: ack.partition(), offset: ack.first_offset().plus(place as u64), tick: ack.tick(), note };
                    assert_eq!(found.pop_front(), Some(&due), "LAMBDAFLOW_SEED={seed}");
                }
            }
            assert!(found.is_empty(), "LAMBDAFLOW_SEED={seed}: {found:?} is there twice");
        }
        assert!(read.iter().all(|placed| placed.partition < Partition(2) && placed.tick > Tick::ZERO));
    }
    println!("{cuts} power cuts, {repeats} repeats");
    assert!(cuts > 300 && repeats > 300 || Rng::seed_from_env().is_some(), "{cuts} power cuts, {repeats} repeats");
}
