//! Restarts leave small segments; they are merged when the log is opened, and a crash in the midst loses nothing (row O4).
mod log_support;

use lambdaflow::log::{Log, LogOptions, LogReader, MERGE_BYTES_MAX, SimClock, verify};
use lambdaflow::storage::{Disk, Rng, SimDisk};
use log_support::*;
use std::sync::Arc;

fn segments(disk: &SimDisk) -> usize {
    partition_files(disk, ".seg").len()
}

#[test]
fn a_thousand_restarts_leave_few_segments_and_rewrite_each_event_few_times() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let (mut number, mut most) = (0, 0);
    let (mut disk_now, mut steps) = (disk.clone(), 0);
    for restart in 0..1_000u64 {
        let log = open(&disk_now, &clock, inline()).unwrap();
        for _ in 0..1 + restart % 3 {
            log.append(notes(number..number + 1)).unwrap();
            number += 1;
        }
        if restart % 2 == 0 {
            log.close().unwrap();
        } else {
            drop(log);
        }
        most = most.max(segments(&disk_now));
        steps += disk_now.steps();
        // A fresh disk with the same files: the simulated one keeps all that ever was.
        let files = disk_now.files();
        disk_now = SimDisk::new();
        disk_now.create_dir(&dir().join("p0000")).unwrap();
        files.iter().for_each(|(path, bytes)| disk_now.plant(path, bytes));
    }
    println!("{most} segments at most, {number} events, {steps} steps");
    assert!(most <= 16, "{most} segments");
    assert!(verify(&disk_now, dir()).unwrap().is_whole());
    let log = open(&disk_now, &clock, inline()).unwrap();
    let read = read_all(&log);
    assert_eq!(numbers(&read), (0..number).collect::<Vec<_>>());
    assert!(read.iter().enumerate().all(|(offset, placed)| placed.offset.0 == offset as u64));
}

/// A log of a few small segments and an active one, all of which the next opening merges.
fn small_segments() -> (SimDisk, Vec<Placed>) {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let unmerged = LogOptions { segment_bytes_max: 1, ..inline() };
    let log = open(&disk, &clock, unmerged).unwrap();
    for number in 0..6 {
        clock.pass(1);
        log.append_as("p", number, notes(2 * number..2 * number + 2)).unwrap();
    }
    let read = read_all(&log);
    drop(log);
    let disk = disk.after_kill();
    assert_eq!((segments(&disk), partition_files(&disk, ".active").len()), (5, 1));
    (disk, read)
}

/// Opens what a power cut left: all events are there, once, and what was left of a merge is gone.
fn check(disk: &SimDisk, due: &[Placed], what: &str) {
    let reader = LogReader::<Note>::open(disk, dir()).unwrap_or_else(|error| panic!("{what}: a reader: {error}"));
    assert_eq!(reader.events_total(), due.len() as u64, "{what}");
    assert!(verify(disk, dir()).unwrap().is_whole(), "{what}");
    let log: Log<Note> = open(disk, &SimClock::at(0), inline()).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(read_all(&log), due, "{what}");
    assert_eq!(segments(disk), 1, "{what}");
    let ack = log.append_as("p", 5, notes(10..12)).unwrap();
    assert_eq!((ack.first_offset().0, log.events_total()), (10, due.len() as u64), "{what}");
}

#[test]
fn a_power_cut_at_any_step_of_a_merge_loses_nothing_and_neither_does_a_second_one() {
    let (image, due) = small_segments();
    let seeds: Vec<u64> = Rng::seed_from_env().map_or_else(|| (0..8).collect(), |seed| vec![seed]);
    let (mut cuts, mut covered) = (0, 0);
    for step in 1.. {
        let disk = image.after_kill();
        disk.cut_power_at(step);
        drop(open(&disk, &SimClock::at(0), inline()));
        if !disk.is_off() {
            break;
        }
        for seed in &seeds {
            let first = disk.after_power_cut(*seed);
            let what = format!("power cut at step {step}, LAMBDAFLOW_SEED={seed}");
            check(&first.after_kill(), &due, &what);
            cuts += 1;
            let merged = first.files().iter().any(|(path, bytes)| path.ends_with("00000000000000000000.seg") && bytes.len() > 600);
            covered += usize::from(merged && segments(&first) > 1);
            for second_step in 1.. {
                let second = first.after_kill();
                second.cut_power_at(second_step);
                drop(open(&second, &SimClock::at(0), inline()));
                if !second.is_off() {
                    break;
                }
                check(&second.after_power_cut(seed + 50), &due, &format!("{what}, again at step {second_step}"));
            }
        }
    }
    println!("{cuts} power cuts, {covered} with segments that a merge left over");
    assert!(cuts > 100 && covered > 5 || Rng::seed_from_env().is_some(), "{cuts} power cuts, {covered} left over");
}

/// A first power cut kept the merge and brought the active segment back; a second one kept the removal of the sealed segment
/// that had taken its place and not that of the active one: the log was then refused, though nothing was lost.
#[test]
fn an_active_segment_that_a_power_cut_brought_back_is_removed_before_the_sealed_one_that_took_its_place() {
    let (image, due) = small_segments();
    let open_with = |disk: &SimDisk, options| drop(open(disk, &SimClock::at(0), options).unwrap());
    let (merged, unmerged) = (image.after_kill(), image.after_kill());
    open_with(&merged, inline());
    open_with(&unmerged, LogOptions { segment_bytes_max: 1, ..inline() });
    let first = unmerged.after_kill();
    let (into, active) = (partition_files(&image, ".seg").remove(0), partition_files(&image, ".active").remove(0));
    first.plant(&into, &merged.files()[&into]);
    first.plant(&active, &image.files()[&active]);
    assert_eq!((segments(&first), partition_files(&first, ".active").len()), (6, 1));
    check(&first.after_kill(), &due, "after the first power cut");
    let seeds: Vec<u64> = Rng::seed_from_env().map_or_else(|| (0..100).collect(), |seed| vec![seed]);
    let mut cuts = 0;
    for step in 1.. {
        let second = first.after_kill();
        second.cut_power_at(step);
        drop(open(&second, &SimClock::at(0), inline()));
        if !second.is_off() {
            break;
        }
        for seed in &seeds {
            check(&second.after_power_cut(*seed), &due, &format!("power cut at step {step}, LAMBDAFLOW_SEED={seed}"));
            cuts += 1;
        }
    }
    assert!(cuts >= 8 * seeds.len(), "{cuts} power cuts");
}

#[test]
fn a_segment_that_is_damaged_is_not_merged_and_holds_up_nothing() {
    let (image, due) = small_segments();
    let damaged = partition_files(&image, ".seg").remove(3);
    let mut bytes = image.files()[&damaged].clone();
    bytes[130] ^= 1;
    image.plant(&damaged, &bytes);
    let log = open(&image, &SimClock::at(0), inline()).unwrap();
    let (read, error) = read_until_error(&log, due[0].tick);
    assert_eq!(read, due[..6]);
    assert!(error.unwrap().to_string().contains("is damaged at byte"));
    assert_eq!(image.files()[&damaged], bytes);
    assert!(image.files().into_keys().all(|path| !path.to_string_lossy().ends_with(".tmp")), "nothing of the attempt is left");
}

#[test]
fn a_reader_beside_a_restart_that_merges_sees_all_events() {
    let (image, due) = small_segments();
    for _ in 0..30 {
        let disk = image.after_kill();
        std::thread::scope(|scope| {
            let readers = [(); 2].map(|()| {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let reader = LogReader::<Note>::open(&disk, dir()).unwrap();
                        let (mut cursor, mut found) = (reader.cursor(due[0].tick), Vec::new());
                        while let Some(block) = cursor.next().unwrap() {
                            found.extend(rows(&block));
                        }
                        assert_eq!(found, due);
                    }
                })
            });
            drop(open(&disk, &SimClock::at(0), inline()).unwrap());
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        });
    }
}

/// The table of producers, which every segment has, counted as if it were events: a large one made each small segment too large
/// to be merged, and every restart left one more.
#[test]
fn a_large_table_of_producers_keeps_no_small_segments_apart() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let options = LogOptions { segment_bytes_max: 60_000, ..inline() };
    let log = open(&disk, &clock, options.clone()).unwrap();
    for sequence in 0..100 {
        for producer in 0..20 {
            log.append_as(&format!("p{producer}"), sequence, notes(0..1)).unwrap();
        }
    }
    log.close().unwrap();
    drop(open(&disk, &clock, options.clone()).unwrap());
    let table = disk.files()[partition_files(&disk, ".seg").last().unwrap()].len();
    assert!(table > 60_000, "{table} bytes");
    let before = segments(&disk);
    for restart in 0..30 {
        let log = open(&disk, &clock, options.clone()).unwrap();
        log.append_as("p7", 100 + restart, notes(0..1)).unwrap();
        log.close().unwrap();
    }
    assert!(segments(&disk) <= before + 6, "{before} segments, then {}", segments(&disk));
    let log = open(&disk, &clock, options).unwrap();
    assert_eq!(log.append_as("p7", 129, notes(0..1)).unwrap().first_offset().0, 2_029);
    assert_eq!(log.events_total(), 2_030);
}

#[test]
fn what_is_large_enough_is_left_alone() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let large = Note { number: 0, text: "x".repeat(MERGE_BYTES_MAX as usize / 2 + 1) };
    for _ in 0..3 {
        let log = open(&disk, &clock, inline()).unwrap();
        log.append(vec![large.clone()]).unwrap();
        log.close().unwrap();
    }
    drop(open(&Arc::new(disk.clone()), &clock, inline()).unwrap());
    assert_eq!(segments(&disk), 3);
}
