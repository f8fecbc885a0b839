//! A log is copied into a new one: all of it by `rewrite`, what can be read of it by `salvage`.
mod log_support;

use lambdaflow::log::{
    Clock, LogError, LogOptions, Lost, Offset, Partition, RedactRequest, SalvageReport, SimClock, Tick, info, redact, redactions, rewrite,
    salvage, verify,
};
use lambdaflow::storage::{Disk, Rng, SimDisk};
use log_support::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const TARGET: &str = "/place/copy";

fn target() -> &'static Path {
    Path::new(TARGET)
}

fn options() -> LogOptions {
    LogOptions { partitions: 2, block_events_max: 7, ..inline_small() }
}

/// Two partitions, many small segments, an active one each, some events redacted, a producer. Killed.
fn source() -> (SimDisk, Vec<Placed>) {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let log = open(&disk, &clock, options()).unwrap();
    for number in 0..30 {
        clock.pass(number % 3);
        log.append_to(Partition((number % 2) as u32), notes(3 * number..3 * number + 3)).unwrap();
    }
    log.close().unwrap();
    let conditions = vec!["number >= 20".parse().unwrap(), "number < 30".parse().unwrap()];
    let request = RedactRequest { conditions, why: "test".to_string(), options: options() };
    redact::<Note>(Arc::new(disk.clone()), Arc::clone(&clock) as Arc<dyn Clock>, dir(), &request).unwrap();
    let log = open(&disk, &clock, options()).unwrap();
    for sequence in 0..10 {
        clock.pass(1);
        log.append_as("p", sequence, notes(100 + sequence..101 + sequence)).unwrap();
    }
    let read = sorted(read_all(&log));
    drop(log);
    (disk.after_kill(), read)
}

fn sorted(mut read: Vec<Placed>) -> Vec<Placed> {
    read.sort_by_key(|placed| (placed.partition, placed.offset));
    read
}

fn open_copy(disk: &SimDisk) -> lambdaflow::log::Log<Note> {
    lambdaflow::log::Log::open_existing(Arc::new(disk.clone()), SimClock::at(0) as Arc<dyn Clock>, target(), options()).unwrap()
}

/// The files of a log but for the lock, which whoever opens it writes.
fn files_of(disk: &SimDisk, dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    disk.files().into_iter().filter(|(path, _)| path.starts_with(dir) && !path.ends_with("lock")).collect()
}

#[test]
fn a_rewritten_log_has_the_same_events_at_the_same_places_in_fewer_segments() {
    let (disk, due) = source();
    let before = files_of(&disk, dir());
    let report = rewrite::<Note>(&disk, dir(), target(), &inline()).unwrap();
    assert_eq!(files_of(&disk, dir()), before, "the source is only read");
    assert_eq!((report.events, report.segments), (due.len() as u64, 2));
    assert!(report.segments_before > 10, "{report:?}");
    let whole = verify(&disk, target()).unwrap();
    assert!(whole.is_whole() && whole.info.closed, "{:?}", whole.damage);
    assert_eq!(report.bytes, whole.info.partitions.iter().map(|partition| partition.bytes).sum::<u64>());
    assert_ne!(whole.info.log_id, info(&disk, dir()).unwrap().log_id);
    assert_eq!(redactions(&disk, target()).unwrap(), redactions(&disk, dir()).unwrap());

    let log = open_copy(&disk);
    assert_eq!((sorted(read_all(&log)), log.revision()), (due.clone(), 1));
    let original = open(&disk, &SimClock::at(0), options()).unwrap();
    for sequence in 0..10 {
        let again = |log: &lambdaflow::log::Log<Note>| log.append_as("p", sequence, notes(100 + sequence..101 + sequence)).unwrap();
        assert_eq!(again(&log), again(&original), "producers go on where they were");
    }
    assert_eq!(log.events_total(), due.len() as u64);
    for partition in 0..2 {
        let (one, other) =
            (log.append_to(Partition(partition), notes(0..1)).unwrap(), original.append_to(Partition(partition), notes(0..1)).unwrap());
        assert_eq!(one.first_offset(), other.first_offset());
        assert!(one.tick() >= due.iter().map(|placed| placed.tick).max().unwrap());
    }
}

#[test]
fn large_segments_and_blocks_are_cut_as_the_options_say() {
    let (disk, due) = source();
    let report = rewrite::<Note>(&disk, dir(), target(), &LogOptions { block_events_max: 10, segment_bytes_max: 900, ..inline() }).unwrap();
    assert!((5..20).contains(&report.segments), "{report:?}");
    let log = open_copy(&disk);
    assert_eq!(sorted(read_all(&log)), due);
    assert_eq!(log.append_as("p", 3, notes(103..104)).unwrap().count(), 1);
    assert_eq!(log.events_total(), due.len() as u64);
}

#[test]
fn a_copy_goes_into_an_empty_directory_only_and_never_from_a_log_in_use() {
    let (disk, _) = source();
    disk.create_dir(target()).unwrap();
    disk.plant(&target().join("photo.jpg"), b"mine");
    for copied in [rewrite::<Note>(&disk, dir(), target(), &inline()).err(), salvage::<Note>(&disk, dir(), target(), &inline()).err()] {
        let error = copied.expect("refused");
        assert!(matches!(error, LogError::NotEmpty { .. }) && error.to_string().contains("photo.jpg"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
    assert!(matches!(rewrite::<Note>(&disk, dir(), dir(), &inline()), Err(LogError::InUse { .. } | LogError::NotEmpty { .. })));
    disk.uproot(&target().join("photo.jpg"));
    let held = open(&disk, &SimClock::at(0), inline()).unwrap();
    assert!(matches!(rewrite::<Note>(&disk, dir(), target(), &inline()), Err(LogError::InUse { .. })));
    drop(held);
    assert!(matches!(rewrite::<Note>(&disk, Path::new("/place/none"), target(), &inline()), Err(LogError::NoLog { .. })));
    assert_eq!(files_of(&disk, target()), BTreeMap::new());
}

#[test]
fn a_power_cut_while_copying_leaves_no_log_or_a_whole_one_and_the_source_as_it_was() {
    let (image, due) = source();
    let (mut none, mut whole) = (0, 0);
    for step in 1.. {
        let disk = image.after_kill();
        disk.cut_power_at(step);
        let ended = rewrite::<Note>(&disk, dir(), target(), &LogOptions { segment_bytes_max: 900, ..inline() });
        if !disk.is_off() {
            ended.unwrap();
            break;
        }
        for seed in 0..4 {
            let disk = disk.after_power_cut(seed);
            if disk.files().contains_key(&target().join("log.json")) {
                assert_eq!(sorted(read_all(&open_copy(&disk))), due, "step {step}, seed {seed}");
                whole += 1;
            } else {
                none += 1;
            }
            assert_eq!(sorted(read_all(&open(&disk, &SimClock::at(0), options()).unwrap())), due, "step {step}, seed {seed}");
        }
    }
    assert!(none > 20 && whole > 0, "{none} without a log, {whole} with");
}

/// Salvages, and checks what holds whatever was damaged: events are as they were, and what is not there is listed.
fn check_salvage(disk: &SimDisk, due: &[Placed], ends: &[u64]) -> SalvageReport {
    let before = disk.files();
    let report = salvage::<Note>(disk, dir(), target(), &inline()).unwrap();
    let after: BTreeMap<_, _> = disk.files().into_iter().filter(|(path, _)| !path.starts_with(target())).collect();
    assert_eq!(after, before, "the damaged log is not touched");
    let survey = verify(disk, target()).unwrap();
    assert!(survey.is_whole(), "{:?}", survey.damage);
    let log = open_copy(disk);
    let read = sorted(read_all(&log));
    assert!(read.iter().all(|placed| due.contains(placed)), "an event that was never there, or not there");
    let is_lost = |placed: &Placed| {
        let holds = |lost: &Lost| lost.partition == placed.partition && (lost.from..lost.to).contains(&placed.offset);
        report.lost.iter().any(holds)
    };
    let left: Vec<Placed> = due.iter().filter(|placed| !is_lost(placed)).cloned().collect();
    assert_eq!(read, left, "what is not listed as lost is there, what is there is not listed: {:?}", report.lost);
    for (partition, end) in ends.iter().enumerate() {
        let lost = report.lost.iter().filter(|lost| lost.partition.index() == partition);
        assert!(lost.clone().all(|lost| lost.from < lost.to && lost.to.0 <= *end && !lost.why.is_empty()));
        assert!(lost.clone().zip(lost.skip(1)).all(|(one, next)| one.to <= next.from));
    }
    report
}

/// A closed log of three segments in its one partition; offsets 0, 20, 40, to 60.
fn closed_log() -> (SimDisk, Vec<Placed>, Vec<PathBuf>) {
    let (disk, clock) = (SimDisk::new(), SimClock::at(100));
    let options = LogOptions { block_events_max: 5, segment_bytes_max: 2_000, ..inline() };
    for segment in 0..3 {
        let log = open(&disk, &clock, options.clone()).unwrap();
        for group in 0..4 {
            clock.pass(1);
            let first = 20 * segment + 5 * group;
            log.append(notes(first..first + 5)).unwrap();
        }
        log.close().unwrap();
    }
    let log = open(&disk, &clock, options).unwrap();
    let read = read_all(&log);
    log.close().unwrap();
    let segments = partition_files(&disk, ".seg");
    assert_eq!(segments.len(), 3);
    (disk, read, segments)
}

#[test]
fn a_whole_log_is_salvaged_whole() {
    let (disk, due) = source();
    let report = check_salvage(&disk, &due, &[]);
    assert_eq!((report.lost, report.notes), (vec![], vec![""; 0].into_iter().map(String::from).collect::<Vec<_>>()));
    let log = open_copy(&disk);
    assert_eq!(log.append_as("p", 9, notes(109..110)).unwrap().count(), 1);
    assert_eq!(log.events_total(), due.len() as u64, "producers are known in the copy");
}

#[test]
fn what_cannot_be_read_is_listed_offset_by_offset_and_the_rest_is_copied() {
    let (image, due, segments) = closed_log();
    let files = image.files();
    let flip = |path: &Path, at: usize| {
        let mut bytes = files[path].clone();
        bytes[at] ^= 4;
        bytes
    };
    let second = &segments[1];
    let length = files[second].len();
    let ranges = |lost: &[Lost]| lost.iter().map(|lost| (lost.from.0, lost.to.0)).collect::<Vec<_>>();
    let cases: [(&str, &dyn Fn(&SimDisk), Vec<(u64, u64)>); 9] = [
        ("a block", &|disk| disk.plant(second, &flip(second, 130)), vec![(20, 25)]),
        ("the footer", &|disk| disk.plant(second, &flip(second, length - 50)), vec![]),
        ("the index", &|disk| disk.plant(second, &flip(second, length - 120)), vec![]),
        ("the end, cut off", &|disk| disk.plant(second, &files[second][..length / 2]), vec![(30, 40)]),
        ("a segment, gone", &|disk| disk.uproot(second), vec![(20, 40)]),
        ("the first segment, gone", &|disk| disk.uproot(&segments[0]), vec![(0, 20)]),
        ("the last segment, gone", &|disk| disk.uproot(&segments[2]), vec![(40, 60)]),
        ("log.json", &|disk| disk.plant(&dir().join("log.json"), b"{}"), vec![]),
        (
            "mark, and the last segment",
            &|disk| {
                disk.plant(&dir().join("mark"), b"");
                disk.uproot(&segments[2]);
            },
            vec![],
        ),
    ];
    for (what, damage, lost) in cases {
        let disk = image.after_kill();
        damage(&disk);
        let due: Vec<Placed> = if what.starts_with("mark") { due[..40].to_vec() } else { due.clone() };
        let report = check_salvage(&disk, &due, &[60]);
        assert_eq!(ranges(&report.lost), lost, "{what}: {report:?}");
        let log = open_copy(&disk);
        let end = if what.starts_with("mark") { 40 } else { 60 };
        assert_eq!(log.append(notes(0..1)).unwrap().first_offset(), Offset(end), "{what}: offsets go on after what there was");
        assert!(log.frontier() > Tick::ZERO);
    }
}

#[test]
fn a_log_without_its_log_json_is_salvaged_by_what_its_segments_say() {
    let (disk, due, _) = closed_log();
    disk.uproot(&dir().join("log.json"));
    let report = check_salvage(&disk, &due, &[60]);
    assert!(report.lost.is_empty() && report.notes.iter().any(|note| note.contains("the segments are of log")), "{report:?}");
}

/// Six appends of a producer in a segment each, which nothing merges; closed.
fn numbered_segments() -> SimDisk {
    let (disk, clock) = (SimDisk::new(), SimClock::at(100));
    let options = LogOptions { segment_bytes_max: 1, ..inline() };
    let log = open(&disk, &clock, options.clone()).unwrap();
    for sequence in 0..6 {
        log.append_as("p", sequence, notes(sequence..sequence + 1)).unwrap();
    }
    log.close().unwrap();
    open(&disk, &clock, options).unwrap().close().unwrap();
    assert_eq!(partition_files(&disk, ".seg").len(), 6);
    disk
}

/// Repeats so many of the appends in a copy, each of which it is to know; returns the copy.
fn repeat_in_copy(disk: &SimDisk, target: &Path, count: u64) -> lambdaflow::log::Log<Note> {
    let options = inline();
    let log = lambdaflow::log::Log::open_existing(Arc::new(disk.clone()), SimClock::at(0) as Arc<dyn Clock>, target, options).unwrap();
    let before = log.events_total();
    for sequence in 0..count {
        assert_eq!(log.append_as("p", sequence, notes(sequence..sequence + 1)).unwrap().first_offset(), Offset(sequence));
    }
    assert_eq!(log.events_total(), before, "nothing was stored a second time");
    log
}

/// With the newest segment's footer gone, salvage went back to an older table of producers, or to none in a rewritten log, and
/// said nothing: what a producer repeated then was stored twice. Now a rewritten log has the last table in all segments, and
/// what is not known is a loss.
#[test]
fn salvage_lists_what_is_not_known_of_producers_and_a_rewritten_log_has_their_table_in_every_segment() {
    let image = numbered_segments();
    let small = LogOptions { segment_bytes_max: 1, block_events_max: 1, ..inline() };
    let rewritten = Path::new("/place/rewritten");
    assert_eq!(rewrite::<Note>(&image, dir(), rewritten, &small).unwrap().segments, 6);
    for (source, damaged, unknown, known) in [(dir(), 5, true, 5), (dir(), 3, false, 6), (rewritten, 5, true, 6)] {
        let disk = image.after_kill();
        let is_segment = |path: &PathBuf| path.starts_with(source) && path.extension().is_some_and(|kind| kind == "seg");
        let path = disk.files().into_keys().filter(is_segment).nth(damaged).unwrap();
        let mut bytes = disk.files()[&path].clone();
        let footer = bytes.len() - 20;
        bytes[footer] ^= 1;
        disk.plant(&path, &bytes);
        let report = salvage::<Note>(&disk, source, target(), &small).unwrap();
        assert_eq!((&report.lost[..], report.copy.events), (&[][..], 6));
        let ranges: Vec<(u64, u64)> = report.producers_lost.iter().map(|lost| (lost.from.0, lost.to.0)).collect();
        assert_eq!(ranges, if unknown { vec![(5, 6)] } else { vec![] }, "{source:?} {damaged}");
        assert_eq!(report.is_whole(), !unknown);
        let salvaged = String::from_utf8(disk.files()[&target().join("salvaged.json")].clone()).unwrap();
        assert_eq!(salvaged.contains("\"producers_lost\":[]"), !unknown, "{salvaged}");
        let log = repeat_in_copy(&disk, target(), known);
        if known < 6 {
            log.append_as("p", 5, notes(5..6)).unwrap();
            assert_eq!(log.events_total(), 7, "it is listed because this happens");
        }
    }
}

/// A segment that a crash left active and sealed was read twice: its producers' appends, which its table had already, emptied the
/// window, so all retries but the last were refused.
#[test]
fn salvage_of_a_segment_that_is_there_sealed_and_active_knows_the_whole_window_of_its_producers() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(100));
    let options = LogOptions { segment_bytes_max: 1, ..inline() };
    let log = open(&disk, &clock, inline()).unwrap();
    for sequence in 0..4 {
        log.append_as("p", sequence, notes(sequence..sequence + 1)).unwrap();
    }
    log.close().unwrap();
    open(&disk, &clock, options.clone()).unwrap().append_as("p", 4, notes(4..5)).unwrap();
    let disk = disk.after_kill();
    let active = partition_files(&disk, ".active").remove(0);
    let content = disk.files()[&active].clone();
    drop(open(&disk, &clock, options).unwrap());
    let disk = disk.after_kill();
    disk.plant(&active, &content);
    assert_eq!(partition_files(&disk, ".seg").len(), 2);
    assert!(salvage::<Note>(&disk, dir(), target(), &inline()).unwrap().is_whole());
    repeat_in_copy(&disk, target(), 5);
}

/// With `redactions.json` damaged a log could be neither opened nor salvaged, and `verify` gave up. Opening still refuses; salvage
/// takes each rewritten segment for the one that counts, so that nothing removed comes back, and `verify` lists the damage.
#[test]
fn a_log_with_a_damaged_list_of_redactions_is_salvaged_without_what_was_removed() {
    let (disk, due, segments) = closed_log();
    let before = disk.files();
    let options = LogOptions { segment_bytes_max: 2_000, ..inline() };
    let request = RedactRequest { conditions: vec!["number = 23".parse().unwrap()], why: "test".to_string(), options };
    assert_eq!(redact::<Note>(Arc::new(disk.clone()), SimClock::at(100), dir(), &request).unwrap().matching_total(), 1);
    let list = dir().join("redactions.json");
    let mut bytes = disk.files()[&list].clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // Carried out, and counting already with its segment not in its place yet.
    let rewritten = PathBuf::from(format!("{}.redacted-1", segments[1].display()));
    let (done, pending) = (disk.after_kill(), disk.after_kill());
    pending.plant(&rewritten, &disk.files()[&segments[1]]);
    pending.plant(&segments[1], &before[&segments[1]]);
    let left: Vec<Placed> = due.into_iter().filter(|placed| placed.note.number != 23).collect();
    for disk in [done, pending] {
        disk.plant(&list, &bytes);
        let survey = verify(&disk, dir()).unwrap();
        assert_eq!(survey.damage.iter().map(|damage| &damage.file).collect::<Vec<_>>(), [&list]);
        assert!(matches!(open(&disk, &SimClock::at(0), inline()), Err(LogError::Damaged(damage)) if damage.file == list));
        let report = check_salvage(&disk, &left, &[60]);
        assert!(report.is_whole() && report.notes.iter().any(|note| note.contains("redactions.json")), "{report:?}");
    }
}

proptest! {
    #![proptest_config(random_cases(120))]
    #[test]
    fn random_damage_costs_what_is_listed_and_never_makes_up_an_event(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), proptest::collection::vec(any::<u8>(), 1..30)), 1..5),
        gone in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let (disk, due) = source();
        let segments: Vec<PathBuf> = disk.files().into_keys().filter(|path| path.extension().is_some_and(|kind| kind == "seg" || kind == "active")).collect();
        for (file, at, garbage) in edits {
            let path = &segments[file.index(segments.len())];
            let mut bytes = disk.files()[path].clone();
            if bytes.is_empty() {
                continue;
            }
            let at = at.index(bytes.len());
            let end = bytes.len().min(at + garbage.len());
            bytes[at..end].copy_from_slice(&garbage[..end - at]);
            disk.plant(path, &bytes);
        }
        if let Some(gone) = gone {
            disk.uproot(&segments[gone.index(segments.len())]);
        }
        // The unacknowledged end is not known to be lost: the mark says less than what was there.
        let before = disk.files();
        let report = salvage::<Note>(&disk, dir(), target(), &inline()).unwrap();
        prop_assert!(before.iter().all(|(path, bytes)| disk.files()[path] == *bytes));
        prop_assert!(verify(&disk, target()).unwrap().is_whole());
        let read = sorted(read_all(&open_copy(&disk)));
        prop_assert!(read.iter().all(|placed| due.contains(placed)));
        for placed in &due {
            let lost = report.lost.iter().any(|lost| lost.partition == placed.partition && (lost.from..lost.to).contains(&placed.offset));
            let end = read.iter().filter(|other| other.partition == placed.partition).map(|other| other.offset).max();
            let after_end = end.is_none_or(|end| placed.offset > end);
            prop_assert!(read.contains(placed) != lost || after_end, "{placed:?} is neither there nor listed: {:?}", report.lost);
        }
    }
}

#[test]
fn salvage_after_a_power_cut_finds_all_that_was_acknowledged() {
    let mut rng = Rng::new(3);
    for _ in 0..40 {
        let (disk, clock) = (SimDisk::new(), SimClock::at(100));
        disk.create_dir(dir()).unwrap();
        let log = open(&disk, &clock, inline_small()).unwrap();
        disk.cut_power_at(disk.steps() + 10 + rng.below(40));
        let acked = (0..).find(|number| log.append(notes(*number..*number + 1)).is_err()).unwrap();
        drop(log);
        let disk = disk.after_power_cut(rng.number());
        let report = salvage::<Note>(&disk, dir(), target(), &inline()).unwrap();
        assert_eq!(report.lost, []);
        assert!(report.copy.events >= acked, "{} of {acked} acknowledged", report.copy.events);
        assert_eq!(numbers(&read_all(&open_copy(&disk)))[..acked as usize], (0..acked).collect::<Vec<_>>());
    }
}
