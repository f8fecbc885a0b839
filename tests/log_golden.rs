//! A log written by format version 1 stays readable (row L23).
//!
//! `tests/log_golden/v1` is never rewritten. A new format gets a new directory beside it, made by running this test with
//! `LAMBDAFLOW_WRITE_GOLDEN=<directory>`.
#![cfg(target_endian = "little")]
mod log_support;

use lambdaflow::log::SimClock;
use lambdaflow::log::{Tick, info, verify};
use lambdaflow::storage::Disk;
use lambdaflow::storage::SimDisk;
use log_support::*;
use std::path::{Path, PathBuf};

/// Ten events in a sealed segment, five in an active one.
fn write() -> SimDisk {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_700_000_000_000));
    for (first, last) in [(0, 10), (10, 15)] {
        let log = open(&disk, &clock, inline()).unwrap();
        for number in first..last {
            clock.pass(number % 2);
            log.append(notes(number..number + 1)).unwrap();
        }
        log.close().unwrap();
    }
    disk
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/log_golden/v1")
}

const FILES: [&str; 4] = ["log.json", "mark", "p0000/00000000000000000000.seg", "p0000/00000000000000000010.active"];

#[test]
fn a_log_of_format_version_1_is_read_as_it_was_written() {
    if let Some(target) = std::env::var_os("LAMBDAFLOW_WRITE_GOLDEN") {
        for (path, content) in write().files() {
            let target = Path::new(&target).join(path.strip_prefix(dir()).unwrap());
            std::fs::create_dir_all(target.parent().unwrap()).unwrap();
            std::fs::write(target, content).unwrap();
        }
    }
    let disk = SimDisk::new();
    disk.create_dir(&dir().join("p0000")).unwrap();
    for name in FILES {
        disk.plant(&dir().join(name), &std::fs::read(golden().join(name)).unwrap());
    }
    assert!(verify(&disk, dir()).unwrap().is_whole());
    assert_eq!(info(&disk, dir()).unwrap().partitions[0].events, 15);
    let log = open(&disk, &SimClock::at(0), inline()).unwrap();
    let read = read_all(&log);
    assert_eq!(read.iter().map(|placed| placed.note.clone()).collect::<Vec<_>>(), notes(0..15));
    assert_eq!(read[14].tick, Tick(1_700_000_000_007));
    assert_eq!(log.append(notes(15..16)).unwrap().tick(), Tick(1_700_000_000_007));
}
