//! A copy of a log's directory that is made while it is written to (rows O1, O2).
//!
//! The procedure: copy `mark` first, then `log.json`, `redactions.json` and the partitions; then `log verify` the copy, and
//! begin again if it is not whole, or if segments came or went meanwhile: the last one could have been missed. A copy that opens
//! has all that was acknowledged before it was begun.
mod log_support;

use lambdaflow::log::{Log, LogError, LogOptions, SystemClock, Tick, verify};
use lambdaflow::storage::RealDisk;
use log_support::{Note, note, numbers, read_all, read_until_error};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

fn open(dir: &Path, segment_bytes_max: u64) -> Result<Log<Note>, LogError> {
    let options = LogOptions { segment_bytes_max, ..LogOptions::default() };
    Log::open(Arc::new(RealDisk), Arc::new(SystemClock), dir, options)
}

/// Names of the files of the partition.
fn listed(dir: &Path) -> BTreeSet<String> {
    let listed = std::fs::read_dir(dir.join("p0000")).unwrap();
    listed.map(|entry| format!("p0000/{}", entry.unwrap().file_name().to_str().unwrap())).collect()
}

/// Copies files as `cp -r` does; those that vanish meanwhile are left out. Whether the same files were there before and after.
fn copy(from: &Path, to: &Path) -> bool {
    std::fs::create_dir_all(to.join("p0000")).unwrap();
    let mut names = vec!["mark".to_string(), "log.json".to_string()];
    let before = listed(from);
    names.extend(before.iter().cloned());
    for name in names {
        match std::fs::copy(from.join(&name), to.join(&name)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            copied => assert!(copied.is_ok(), "{name}: {copied:?}"),
        }
    }
    listed(from) == before
}

fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Copies that must be made of a whole log.
const COPIES: u64 = 100;
/// Events that may be written while a copy is made.
const WRITTEN_PER_COPY: u64 = 20;

/// Sets it in the end, also when an assertion has failed.
struct Sets<'a>(&'a AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_copy_of_a_live_directory_opens_with_all_that_was_acknowledged_or_says_why_it_does_not() {
    let place = temporary();
    let live = place.path().join("log");
    let log = open(&live, 20_000).unwrap();
    let (acked, allowed, done) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let (mut opened, mut refused, mut again) = (0, 0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let number = acked.load(Ordering::SeqCst);
                if number == allowed.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_micros(100));
                    continue;
                }
                log.append(vec![note(number)]).unwrap();
                acked.store(number + 1, Ordering::SeqCst);
                log.advance().unwrap();
            }
        });
        let _done = Sets(&done);
        for round in 0..1000 {
            let to = place.path().join(format!("copy {round}"));
            let before = acked.load(Ordering::SeqCst);
            // A writer that never rested could be faster than any copy.
            allowed.fetch_add(WRITTEN_PER_COPY, Ordering::SeqCst);
            if !copy(&live, &to) {
                again += 1;
                std::fs::remove_dir_all(&to).unwrap();
                continue;
            }
            let is_whole = verify(&RealDisk, &to).is_ok_and(|report| report.is_whole());
            match open(&to, 20_000) {
                Ok(copy) => {
                    assert!(is_whole, "what opens was said to be whole");
                    let found = numbers(&read_all(&copy));
                    assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
                    assert!(found.len() as u64 >= before, "{} events, {before} were acknowledged before", found.len());
                    copy.append(vec![note(7)]).unwrap();
                    opened += 1;
                }
                Err(error) => {
                    assert!(matches!(error, LogError::Damaged(_)), "{error}");
                    refused += 1;
                }
            }
            std::fs::remove_dir_all(&to).unwrap();
            if opened >= COPIES {
                break;
            }
        }
    });
    println!("{opened} copies opened, {refused} were refused, {again} had to be made again");
    assert!(opened >= COPIES, "{opened} copies opened, {refused} were refused");
}

#[test]
fn a_log_with_a_newer_mark_than_its_segments_is_refused() {
    let place = temporary();
    let (dir, backup) = (place.path().join("log"), place.path().join("backup"));
    let log = open(&dir, 20_000).unwrap();
    log.append(vec![note(0)]).unwrap();
    log.close().unwrap();
    copy(&dir, &backup);
    let log = open(&dir, 20_000).unwrap();
    log.append(vec![note(1)]).unwrap();
    log.close().unwrap();
    // The partitions of the backup with the mark of today: acknowledged events are missing.
    std::fs::remove_dir_all(dir.join("p0000")).unwrap();
    std::fs::create_dir(dir.join("p0000")).unwrap();
    for entry in std::fs::read_dir(backup.join("p0000")).unwrap() {
        let name = entry.unwrap().file_name();
        std::fs::copy(backup.join("p0000").join(&name), dir.join("p0000").join(&name)).unwrap();
    }
    match open(&dir, 20_000) {
        Err(error @ LogError::Damaged(_)) => assert!(error.to_string().contains("the log ends"), "{error}"),
        other => panic!("{:?}", other.map(|log| read_until_error(&log, Tick::ZERO).0.len())),
    }
    // Restored as a whole, it is a log of its time.
    assert_eq!(numbers(&read_all(&open(&backup, 20_000).unwrap())), [0]);
}
