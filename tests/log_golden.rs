//! A log written by each format version stays readable, can be gone on with, and is then refused by older releases (rows L23, O6).
//!
//! The directories in `tests/log_golden` are never rewritten. A new format gets a new one beside them, made by running
//! `the_newest_golden_log_is_what_this_release_writes` with `LAMBDAFLOW_WRITE_GOLDEN=<directory>`.
#![cfg(target_endian = "little")]
mod log_support;

use columnar::{Columnar, Index};
use lambdaflow::log::{
    Clock, Earlier, Event, Log, LogError, LogOptions, LogReader, Offset, RedactRequest, SimClock, Tick, info, redact, redactions, salvage,
    verify,
};
use lambdaflow::storage::{Disk, SimDisk};
use log_support::*;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const START: u64 = 1_700_000_000_000;

/// The type that took the place of [`Note`].
#[derive(Clone, Debug, PartialEq, Columnar, Serialize, Deserialize)]
struct Remark {
    number: u64,
    text: String,
    tags: Vec<String>,
}

impl From<Note> for Remark {
    fn from(old: Note) -> Self {
        Remark { number: old.number, text: old.text, tags: vec![] }
    }
}

impl Event for Remark {
    const NAME: &'static str = "note";
    const VERSION: u32 = 2;
    const FIELDS: &'static [&'static str] = &["number: u64", "text: String", "tags: Vec<String>"];
    fn earlier() -> Earlier<Self> {
        Earlier::of::<Note>()
    }
}

fn remark(number: u64) -> Remark {
    Remark { tags: vec!["new".to_string(); number as usize % 3], ..note(number).into() }
}

fn golden(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/log_golden").join(version)
}

/// The golden log of a version, on a disk of its own.
fn planted(version: &str) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir(&dir().join("p0000")).unwrap();
    for part in ["", "p0000"] {
        for entry in std::fs::read_dir(golden(version).join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                disk.plant(&dir().join(part).join(path.file_name().unwrap()), &std::fs::read(&path).unwrap());
            }
        }
    }
    disk
}

fn open_as<E: Event>(disk: &SimDisk, options: LogOptions) -> Result<Log<E>, LogError> {
    Log::open(Arc::new(disk.clone()), SimClock::at(0) as Arc<dyn Clock>, dir(), options)
}

#[test]
fn a_log_of_format_version_1_is_read_as_it_was_written() {
    let disk = planted("v1");
    assert!(verify(&disk, dir()).unwrap().is_whole());
    assert_eq!(info(&disk, dir()).unwrap().partitions[0].events, 15);
    assert_eq!(LogReader::<Note>::open(&disk, dir()).unwrap().events_total(), 15);
    assert!(salvage::<Note>(&disk.after_kill(), dir(), Path::new("/place/copy"), &inline()).unwrap().lost.is_empty());
    // Whether the old segments stay or are merged into one of the current format.
    for options in [LogOptions { segment_bytes_max: 1, ..inline() }, inline()] {
        let disk = disk.after_kill();
        let log = open(&disk, &SimClock::at(0), options.clone()).unwrap();
        let read = read_all(&log);
        assert_eq!(read.iter().map(|placed| placed.note.clone()).collect::<Vec<_>>(), notes(0..15));
        assert_eq!(read[14].tick, Tick(START + 7));
        assert_eq!(log.append(notes(15..16)).unwrap().tick(), Tick(START + 7));
        assert_eq!(log.append_as("p", 0, notes(16..17)).unwrap().first_offset(), Offset(16));
        log.close().unwrap();
        // A release of format 1 reads this first, and says by which version it was written.
        let mark = String::from_utf8(disk.files()[&dir().join("mark")].clone()).unwrap();
        assert!(mark.contains("\"format\":2"), "{mark}");
        let log = open(&disk, &SimClock::at(0), options).unwrap();
        assert_eq!(numbers(&read_all(&log)), (0..17).collect::<Vec<_>>());
        assert_eq!(log.append_as("p", 0, notes(16..17)).unwrap().first_offset(), Offset(16));
        log.close().unwrap();
        assert!(verify(&disk, dir()).unwrap().is_whole());
    }
    let conditions = vec!["number < 3".parse().unwrap()];
    let request = RedactRequest { conditions, why: "test".to_string(), options: LogOptions { segment_bytes_max: 1, ..inline() } };
    assert_eq!(redact::<Note>(Arc::new(disk.clone()), SimClock::at(0) as Arc<dyn Clock>, dir(), &request).unwrap().matching_total(), 3);
    assert_eq!(numbers(&read_all(&open(&disk, &SimClock::at(0), inline()).unwrap())), (3..15).collect::<Vec<_>>());
}

/// Notes in sealed segments, remarks of a producer after them, two notes redacted; the newest segment is active.
fn write_newest() -> SimDisk {
    let (disk, clock) = (SimDisk::new(), SimClock::at(START));
    let log = open(&disk, &clock, small()).unwrap();
    for number in 0..12 {
        clock.pass(number % 2);
        log.append(notes(number..number + 1)).unwrap();
    }
    log.close().unwrap();
    open(&disk, &clock, small()).unwrap().close().unwrap();
    let options = LogOptions { segment_bytes_max: 1, ..small() };
    let conditions = vec!["number >= 3".parse().unwrap(), "number <= 4".parse().unwrap()];
    let request = RedactRequest { conditions, why: "the golden log has a hole".to_string(), options };
    redact::<Note>(Arc::new(disk.clone()), Arc::clone(&clock) as Arc<dyn Clock>, dir(), &request).unwrap();
    for round in 0..2 {
        let log = Log::<Remark>::open(Arc::new(disk.clone()), Arc::clone(&clock) as Arc<dyn Clock>, dir(), small()).unwrap();
        for sequence in 3 * round..3 * round + 3 {
            clock.pass(1);
            log.append_as("golden", sequence, vec![remark(12 + sequence)]).unwrap();
        }
        log.close().unwrap();
    }
    disk
}

fn small() -> LogOptions {
    LogOptions { segment_bytes_max: 1_000, block_events_max: 4, ..inline() }
}

#[test]
fn the_newest_golden_log_is_what_this_release_writes() {
    let written = write_newest();
    if let Some(target) = std::env::var_os("LAMBDAFLOW_WRITE_GOLDEN") {
        for (path, content) in written.files() {
            let target = Path::new(&target).join(path.strip_prefix(dir()).unwrap());
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::write(target, content).unwrap();
        }
    }
    // All but the log's id, and the checksums that cover it.
    let shape = |disk: &SimDisk| disk.files().into_iter().map(|(path, bytes)| (path, bytes.len())).collect::<Vec<_>>();
    assert_eq!(shape(&written), shape(&planted("v2")));
}

#[test]
fn a_log_of_format_version_2_is_read_as_it_was_written() {
    let disk = planted("v2");
    assert!(verify(&disk, dir()).unwrap().is_whole());
    let summary = info(&disk, dir()).unwrap();
    assert_eq!((summary.event.version, summary.earlier.len(), summary.revision), (2, 1, 1));
    assert_eq!((summary.partitions[0].events, summary.partitions[0].missing), (16, 2));
    let history = redactions(&disk, dir()).unwrap();
    assert_eq!((history.len(), history[0].events, history[0].at), (1, 2, START + 6));
    assert!(matches!(open_as::<Note>(&disk, inline()), Err(LogError::EarlierProgram { .. })));
    for options in [LogOptions { segment_bytes_max: 1, ..inline() }, inline()] {
        let disk = disk.after_kill();
        let log = open_as::<Remark>(&disk, options).unwrap();
        let (mut cursor, mut read) = (log.cursor(Tick::ZERO), Vec::new());
        while let Some(block) = cursor.next().unwrap() {
            read.extend(block.range().map(|row| (block.place(row), Remark::into_owned(block.columns().get(row)))));
        }
        let tick = |number: u64| Tick(START + if number < 12 { number.div_ceil(2) } else { number - 5 });
        let due = (0..18).filter(|number| !(3..=4).contains(number));
        let due = due.map(|number| ((tick(number), Offset(number)), if number < 12 { note(number).into() } else { remark(number) }));
        assert_eq!(read, due.collect::<Vec<_>>());
        for sequence in 0..6 {
            let again = log.append_as("golden", sequence, vec![remark(12 + sequence)]).unwrap();
            assert_eq!((again.first_offset(), again.tick()), (Offset(12 + sequence), tick(12 + sequence)));
        }
        assert_eq!(log.append_as("golden", 6, vec![remark(18)]).unwrap().first_offset(), Offset(18));
        log.close().unwrap();
        assert!(verify(&disk, dir()).unwrap().is_whole());
    }
}
