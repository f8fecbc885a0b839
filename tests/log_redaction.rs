//! Events are removed for good, all of a redaction or none, and the others stay where they were.
mod log_support;

use lambdaflow::log::{
    Clock, Execution, LogError, LogOptions, LogReader, Offset, Partition, RedactReport, RedactRequest, Redaction, SimClock, Tick, info,
    redact, redact_dry_run, redactions, verify,
};
use lambdaflow::storage::{Rng, SimDisk};
use log_support::*;
use proptest::prelude::*;
use std::sync::Arc;

const SECRET: &[u8] = b"Waldeinsamkeit";

/// A note that is to be removed: its text has the secret.
fn secret(number: u64) -> Note {
    Note { number, text: format!("secret {} {number}", String::from_utf8_lossy(SECRET)) }
}

fn request(conditions: &[&str]) -> RedactRequest {
    RedactRequest {
        conditions: conditions.iter().map(|text| text.parse().unwrap()).collect(),
        why: "asked for by letter".to_string(),
        options: inline_small(),
    }
}

fn clock() -> Arc<SimClock> {
    SimClock::at(5_000)
}

fn run(disk: &SimDisk, conditions: &[&str]) -> Result<RedactReport, LogError> {
    redact::<Note>(Arc::new(disk.clone()), clock(), dir(), &request(conditions))
}

/// Two partitions of several segments each that are too large to be merged; every fifth note is secret. Killed, with an active segment.
fn secret_log() -> (SimDisk, Vec<Placed>) {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let log = open(&disk, &clock, two_partitions()).unwrap();
    let mut appended = Vec::new();
    for number in 0..40 {
        clock.pass(number % 2);
        let batch: Vec<Note> = (3 * number..3 * number + 3).map(|n| if n % 5 == 0 { secret(n) } else { note(n) }).collect();
        let ack = log.append_to(Partition((number % 2) as u32), batch.clone()).unwrap();
        appended.extend(batch.into_iter().enumerate().map(|(place, note)| Placed {
            partition: ack.partition(),
            offset: ack.first_offset().plus(place as u64),
            tick: ack.tick(),
            note,
        }));
    }
    drop(log);
    appended.sort_by_key(|placed| (placed.partition, placed.offset));
    (disk.after_kill(), appended)
}

fn two_partitions() -> LogOptions {
    LogOptions { partitions: 2, block_events_max: 7, ..inline_small() }
}

fn read_sorted(disk: &SimDisk) -> Vec<Placed> {
    let log = open(disk, &clock(), inline_small()).unwrap();
    let mut read = read_all(&log);
    read.sort_by_key(|placed| (placed.partition, placed.offset));
    read
}

fn is_secret(placed: &Placed) -> bool {
    placed.note.number.is_multiple_of(5)
}

/// The files of the log's directory that hold the secret.
fn files_with_secret(disk: &SimDisk) -> Vec<String> {
    let files = disk.files().into_iter().filter(|(_, bytes)| bytes.windows(SECRET.len()).any(|window| window == SECRET));
    files.map(|(path, _)| path.display().to_string()).collect()
}

#[test]
fn redacted_events_are_in_no_file_and_the_others_keep_offset_and_tick() {
    let (disk, appended) = secret_log();
    assert!(files_with_secret(&disk).len() > 2);
    let report = run(&disk, &["text ^= \"secret\""]).unwrap();
    let due: Vec<Placed> = appended.iter().filter(|placed| !is_secret(placed)).cloned().collect();
    let matching =
        |partition| appended.iter().filter(|placed| is_secret(placed) && placed.partition == Partition(partition)).count() as u64;
    assert_eq!((report.id, report.matching.clone(), report.matching_total()), (Some(1), vec![matching(0), matching(1)], 24));
    assert_eq!(report.events.iter().sum::<u64>(), 120);
    assert!(report.segments > 2);
    assert_eq!(files_with_secret(&disk), [""; 0]);
    assert_eq!(read_sorted(&disk), due);
    let survey = verify(&disk, dir()).unwrap();
    assert!(survey.is_whole(), "{:?}", survey.damage);
    let partitions = &survey.info.partitions;
    assert_eq!(partitions.iter().map(|partition| (partition.events, partition.missing)).collect::<Vec<_>>(), [(48, 12), (48, 12)]);

    let log = open(&disk, &clock(), inline_small()).unwrap();
    assert_eq!((log.revision(), log.events_total()), (1, 96));
    let reader = LogReader::<Note>::open(&disk, dir()).unwrap();
    assert_eq!((reader.revision(), reader.events_total()), (1, 96));
    // From any tick on, as a reader that starts in the midst of it.
    for tick in appended.iter().map(|placed| placed.tick) {
        let (mut read, _) = read_until_error(&log, tick);
        read.sort_by_key(|placed| (placed.partition, placed.offset));
        assert_eq!(read, due.iter().filter(|placed| placed.tick >= tick).cloned().collect::<Vec<_>>());
    }
    let ack = log.append_to(Partition(0), notes(7..8)).unwrap();
    assert_eq!(ack.first_offset(), Offset(60), "offsets go on where they were");
}

#[test]
fn the_list_of_redactions_says_what_happened_and_not_to_what() {
    let (disk, _) = secret_log();
    assert_eq!(redactions(&disk, dir()).unwrap(), []);
    run(&disk, &["text ^= secret", "number < 60"]).unwrap();
    run(&disk, &["text ^= secret"]).unwrap();
    let list: Vec<Redaction> = redactions(&disk, dir()).unwrap();
    let summary: Vec<_> = list.iter().map(|entry| (entry.id, entry.at, entry.events, entry.conditions.clone())).collect();
    let conditions = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<Vec<_>>();
    assert_eq!(summary, [(1, 5_000, 12, conditions(&["text ^= secret", "number < 60"])), (2, 5_000, 12, conditions(&["text ^= secret"]))]);
    assert_eq!(list[0].why, "asked for by letter");
    for entry in &list {
        assert_eq!(entry.segments.iter().map(|segment| segment.events).sum::<u64>(), entry.events);
        assert!(
            entry.segments.iter().all(|segment| segment.crc32c_before != segment.crc32c_after && segment.end_offset > segment.first_offset)
        );
    }
    let last = &list[1].segments[0];
    let segment = disk.files()[&dir().join(format!("p{:04}/{:020}.seg", last.partition.0, last.first_offset.0))].clone();
    assert_eq!(last.crc32c_after, format!("{:08x}", crc32c::crc32c(&segment)));
}

#[test]
fn all_events_of_a_log_can_go_and_it_goes_on() {
    let (disk, _) = secret_log();
    assert_eq!(run(&disk, &["number >= 0"]).unwrap().matching_total(), 120);
    assert_eq!(read_sorted(&disk), []);
    assert!(verify(&disk, dir()).unwrap().is_whole());
    let log = open(&disk, &clock(), inline_small()).unwrap();
    assert_eq!(log.append_to(Partition(1), notes(0..1)).unwrap().first_offset(), Offset(60));
    log.close().unwrap();
    assert_eq!(numbers(&read_sorted(&disk)), [0]);
    assert!(matches!(info(&disk, dir()).unwrap().partitions[1], ref partition if partition.events == 1 && partition.missing == 60));
}

#[test]
fn torn_tails_go_with_the_events_because_they_may_hold_some() {
    let (disk, _) = secret_log();
    let torn = partition_file("00000000000000000057.active.torn-1");
    disk.plant(&torn, SECRET);
    let found = redact_dry_run::<Note>(Arc::new(disk.clone()), clock(), dir(), &request(&["number = 5"])).unwrap();
    assert_eq!((found.torn_tails, found.matching_total(), found.id), (1, 1, None));
    assert!(disk.files().contains_key(&torn), "a dry run removes nothing");
    run(&disk, &["text ^= secret"]).unwrap();
    assert_eq!(files_with_secret(&disk), [""; 0]);
    assert_eq!(redactions(&disk, dir()).unwrap()[0].torn_tails.len(), 1);
}

#[test]
fn a_dry_run_counts_and_changes_no_event() {
    let (disk, appended) = secret_log();
    let found = redact_dry_run::<Note>(Arc::new(disk.clone()), clock(), dir(), &request(&["text ^= secret"])).unwrap();
    assert_eq!((found.matching_total(), found.id), (24, None));
    assert_eq!(read_sorted(&disk), appended);
    assert_eq!(LogReader::<Note>::open(&disk, dir()).unwrap().revision(), 0);
}

#[test]
fn what_would_remove_nothing_or_more_than_meant_is_refused() {
    let (disk, appended) = secret_log();
    let refused = |request: RedactRequest, what: &str| {
        let error = redact::<Note>(Arc::new(disk.clone()), clock(), dir(), &request).unwrap_err();
        assert!(matches!(error, LogError::Condition { .. }) && error.to_string().contains(what), "{error}");
        assert_eq!(error.exit_code(), 2);
    };
    refused(request(&[]), "without a condition");
    refused(request(&["nummer = 3"]), "no event has that field");
    refused(RedactRequest { why: String::new(), ..request(&["number = 3"]) }, "needs a reason");
    assert_eq!(run(&disk, &["number = 1000"]).unwrap().id, None);
    assert_eq!(read_sorted(&disk), appended);
    let held = open(&disk, &clock(), inline()).unwrap();
    assert!(matches!(run(&disk, &["number = 3"]), Err(LogError::InUse { .. })));
    drop(held);
}

/// Opens what a power cut left: all or nothing.
fn check_all_or_nothing(disk: &SimDisk, appended: &[Placed], what: &str) -> bool {
    // A reader without the lock sees one or the other, too.
    let reader = LogReader::<Note>::open(disk, dir()).unwrap_or_else(|error| panic!("{what}: {error}"));
    let log = open(disk, &clock(), inline_small()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!((reader.revision(), reader.events_total()), (log.revision(), log.events_total()), "{what}");
    let mut read = read_all(&log);
    read.sort_by_key(|placed| (placed.partition, placed.offset));
    let redacted = match log.revision() {
        0 => false,
        1 => true,
        more => panic!("{what}: revision {more}"),
    };
    let due: Vec<Placed> = appended.iter().filter(|placed| !(redacted && is_secret(placed))).cloned().collect();
    assert_eq!(read, due, "{what}");
    if redacted {
        assert_eq!(files_with_secret(disk), [""; 0], "{what}");
    }
    let strange: Vec<_> = disk.files().into_keys().filter(|path| path.to_string_lossy().contains("redacted-")).collect();
    assert!(strange.is_empty(), "{what}: {strange:?}");
    log.close().unwrap();
    assert!(verify(disk, dir()).unwrap().is_whole(), "{what}");
    redacted
}

#[test]
fn a_power_cut_at_any_step_leaves_all_of_a_redaction_or_nothing_and_so_does_a_second_one() {
    let (image, appended) = secret_log();
    image.plant(&partition_file("00000000000000000057.active.torn-1"), SECRET);
    let seeds: Vec<u64> = Rng::seed_from_env().map_or_else(|| (0..4).collect(), |seed| vec![seed]);
    let (mut undone, mut done, mut nested) = (0, 0, 0);
    for step in 1.. {
        let disk = image.after_kill();
        disk.cut_power_at(step);
        let report = run(&disk, &["text ^= secret"]);
        if !disk.is_off() {
            assert_eq!(report.unwrap().id, Some(1));
            break;
        }
        for seed in &seeds {
            let first = disk.after_power_cut(*seed);
            let what = format!("power cut at step {step}, LAMBDAFLOW_SEED={seed}");
            let redacted = check_all_or_nothing(&first.after_kill(), &appended, &what);
            *(if redacted { &mut done } else { &mut undone }) += 1;
            // The second cut, during the recovery from the first: what counts, counts for ever.
            for second_step in (1..).step_by(3) {
                let second = first.after_kill();
                second.cut_power_at(second_step);
                drop(open(&second, &clock(), inline_small()));
                if !second.is_off() {
                    break;
                }
                nested += 1;
                let what = format!("{what}, again at step {second_step} of recovery");
                let still = check_all_or_nothing(&second.after_power_cut(seed + 100), &appended, &what);
                assert_eq!(still, redacted, "{what}");
            }
        }
    }
    println!("{undone} undone, {done} done, {nested} cut twice");
    assert!(undone > 20 && done > 20 && nested > 100 || Rng::seed_from_env().is_some());
}

#[test]
fn a_redaction_that_meets_a_full_disk_leaves_the_log_as_it_was_or_done() {
    use lambdaflow::storage::{Effect, Fault, FaultDisk, Operation};
    let (image, appended) = secret_log();
    for operation in [Operation::Create, Operation::Append, Operation::Sync, Operation::Rename, Operation::SyncDir, Operation::Remove] {
        for after in 0.. {
            let disk = image.after_kill();
            let faulty = FaultDisk::new(Arc::new(disk.clone()));
            let effect = Effect::FailBefore(28);
            faulty.inject(Fault { operation, path_contains: String::new(), after, times: 1, effect });
            let ended = redact::<Note>(Arc::new(faulty), clock() as Arc<dyn Clock>, dir(), &request(&["text ^= secret"]));
            check_all_or_nothing(&disk.after_kill(), &appended, &format!("{operation:?} {after}"));
            match ended {
                Ok(_) => break,
                Err(error) => assert_eq!(error.exit_code(), 5, "{error}"),
            }
        }
    }
}

#[test]
fn what_a_failed_redaction_wrote_never_comes_back_with_the_next_one() {
    use lambdaflow::storage::{Effect, Fault, FaultDisk, Operation};
    let (image, appended) = secret_log();
    let faulty = FaultDisk::new(Arc::new(image.clone()));
    let effect = Effect::FailBefore(28);
    faulty.inject(Fault { operation: Operation::Rename, path_contains: "redactions.json".to_string(), after: 0, times: 1, effect });
    redact::<Note>(Arc::new(faulty), clock() as Arc<dyn Clock>, dir(), &request(&["text ^= secret"])).expect_err("the disk is full");
    let image = image.after_kill();
    let left = |disk: &SimDisk| disk.files().into_keys().filter(|path| path.to_string_lossy().contains("redacted-1")).count();
    assert!(left(&image) > 2, "segments without the events stand beside those with them");
    // The next one has the same number, and removes something else.
    let (mut undone, mut done) = (0, 0);
    for step in 1.. {
        let disk = image.after_kill();
        disk.cut_power_at(step);
        let ended = run(&disk, &["number = 1"]);
        if !disk.is_off() {
            assert_eq!(ended.unwrap().id, Some(1));
            break;
        }
        for seed in Rng::seed_from_env().map_or_else(|| (0..8).collect(), |seed| vec![seed]) {
            let disk = disk.after_power_cut(seed);
            let log = open(&disk, &clock(), inline_small()).unwrap();
            let revision = log.revision();
            drop(log);
            let due: Vec<Placed> = appended.iter().filter(|placed| revision == 0 || placed.note.number != 1).cloned().collect();
            assert_eq!(read_sorted(&disk), due, "power cut at step {step}, LAMBDAFLOW_SEED={seed}");
            *(if revision == 0 { &mut undone } else { &mut done }) += 1;
        }
    }
    assert!(undone > 20 && done > 20 || Rng::seed_from_env().is_some(), "{undone} undone, {done} done");
}

proptest! {
    #![proptest_config(random_cases(120))]
    #[test]
    fn what_is_left_after_random_redactions_is_what_was_not_meant(
        batches in proptest::collection::vec(1u64..6, 1..40),
        bounds in proptest::collection::vec((0u64..120, 0u64..120), 1..4),
        segment_bytes_max in 1u64..3_000,
        block_events_max in 1usize..12,
    ) {
        let options = LogOptions { segment_bytes_max, block_events_max, ..inline() };
        let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
        let log = open(&disk, &clock, options.clone()).unwrap();
        let mut number = 0;
        for count in batches {
            clock.pass(number % 3);
            log.append(notes(number..number + count)).unwrap();
            number += count;
        }
        let mut due = read_all(&log);
        log.close().unwrap();
        for (from, to) in bounds {
            run(&disk, &[&format!("number >= {from}"), &format!("number < {to}")]).unwrap();
            due.retain(|placed| !(from..to).contains(&placed.note.number));
            let log = open(&disk, &clock, options.clone()).unwrap();
            prop_assert_eq!(&read_all(&log), &due);
            prop_assert_eq!(log.events_total(), due.len() as u64);
            prop_assert_eq!(log.append(notes(1_000..1_001)).unwrap().first_offset().0, number);
            due.extend(read_until_error(&log, Tick::ZERO).0.pop());
            number += 1;
            log.close().unwrap();
        }
        prop_assert!(verify(&disk, dir()).unwrap().is_whole());
    }
}

#[test]
fn redacting_takes_the_options_of_no_running_log() {
    // A log that threads wrote is redacted by one.
    let (disk, clock) = (SimDisk::new(), SimClock::at(9));
    let log = open(&disk, &clock, LogOptions { execution: Execution::Threads, ..inline_small() }).unwrap();
    for number in 0..30 {
        log.append(vec![secret(number)]).unwrap();
    }
    log.close().unwrap();
    assert_eq!(run(&disk, &["number < 29"]).unwrap().matching_total(), 29);
    assert_eq!(numbers(&read_sorted(&disk)), [29]);
}
