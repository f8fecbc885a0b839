//! A reader without the lock, beside a writer or after a crash (row N3).
mod log_support;

use lambdaflow::log::SimClock;
use lambdaflow::log::{Block, BulkAppender, Cursor, Log, LogError, LogOptions, LogReader, Tick, WakerGuard, verify};
use lambdaflow::storage::{Effect, Fault, FaultDisk, Operation, SimDisk};
use log_support::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[test]
fn a_reader_without_the_lock_sees_a_prefix_while_the_writer_appends_and_seals() {
    let disk = SimDisk::new();
    let options = LogOptions { segment_bytes_max: 1_000, ..LogOptions::default() };
    let log = open(&disk, &SimClock::at(7), options).unwrap();
    let acked = AtomicU64::new(0);
    let mut looks = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..2_000 {
                log.append(notes(number..number + 1)).unwrap();
                acked.store(number + 1, Ordering::SeqCst);
            }
        });
        while acked.load(Ordering::SeqCst) < 2_000 {
            let before = acked.load(Ordering::SeqCst);
            let reader = LogReader::<Note>::open(&disk, dir()).unwrap();
            let (mut cursor, mut found) = (reader.cursor(Tick::ZERO), Vec::new());
            while let Some(block) = cursor.next().unwrap() {
                found.extend(numbers(&rows(&block)));
            }
            assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
            assert!(found.len() as u64 >= before, "{} events, {before} were acknowledged before", found.len());
            assert_eq!(cursor.complete(), Tick::ZERO, "more may come at any tick");
            looks += 1;
        }
    });
    println!("{looks} looks");
}

#[test]
fn a_reader_without_the_lock_leaves_a_torn_tail_alone() {
    let disk = SimDisk::new();
    let log = open(&disk, &SimClock::at(7), inline()).unwrap();
    log.append(notes(0..2)).unwrap();
    log.append(notes(2..4)).unwrap();
    drop(log);
    let segment = partition_files(&disk, ".active").remove(0);
    let bytes = disk.files()[&segment].clone();
    disk.plant(&segment, &bytes[..bytes.len() - 1]);
    let before = disk.files();
    assert_eq!(LogReader::<Note>::open(&disk, dir()).unwrap().events_total(), 2);
    let report = verify(&disk, dir()).unwrap();
    assert!(report.is_whole() && report.unfinished.len() == 1);
    assert_eq!(disk.files(), before);
}

#[test]
fn logs_blocks_and_cursors_can_be_given_to_other_threads() {
    fn given<T: Send>() {}
    fn shared<T: Send + Sync>() {}
    shared::<Log<Note>>();
    shared::<LogReader<Note>>();
    shared::<Block<Note>>();
    shared::<WakerGuard>();
    given::<Cursor<Note>>();
    given::<BulkAppender<Note>>();
}

/// A program with a new event type replaces `log.json` beside a reader: what the reader had read of it stayed as it was however
/// often it looked again, so blocks of the new type were damage to it. Now it reads the document anew each time.
#[test]
fn a_reader_looks_again_at_the_document_that_says_what_the_log_is() {
    let (sim, disk) = {
        let sim = SimDisk::new();
        (sim.clone(), FaultDisk::new(Arc::new(sim)))
    };
    open(&sim, &SimClock::at(7), LogOptions::default()).unwrap().append(notes(0..3)).unwrap();
    let (operation, effect) = (Operation::Read, Effect::FailBefore(5));
    disk.inject(Fault { operation, path_contains: "log.json".to_string(), after: 0, times: 1, effect });
    assert_eq!(LogReader::<Note>::open(&disk, dir()).unwrap().events_total(), 3);
    disk.inject(Fault { operation, path_contains: "log.json".to_string(), after: 0, times: u64::MAX, effect });
    assert!(matches!(LogReader::<Note>::open(&disk, dir()), Err(LogError::Storage { .. })), "what stays is told");
}
