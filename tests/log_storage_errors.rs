//! Lets single operations of the disk fail while the log runs (rows D1, D4, D6, D7, D9, D11).
mod log_support;

use lambdaflow::log::SimClock;
use lambdaflow::log::{Execution, LogError, LogOptions};
use lambdaflow::storage::Disk;
use lambdaflow::storage::{Effect, Fault, FaultDisk, Operation, SimDisk};
use log_support::*;
use std::sync::Arc;

const EINTR: i32 = 4;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

struct Bench {
    sim: SimDisk,
    faulty: FaultDisk,
    clock: Arc<SimClock>,
}

fn bench() -> Bench {
    let sim = SimDisk::new();
    let faulty = FaultDisk::new(Arc::new(sim.clone()));
    Bench { sim, faulty, clock: SimClock::at(100) }
}

impl Bench {
    fn fail(&self, operation: Operation, path_contains: &str, after: u64, effect: Effect) {
        self.faulty.inject(Fault { operation, path_contains: path_contains.to_string(), after, times: 1, effect });
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.faulty.clone())
    }

    /// A restart after a kill, on a disk that works again.
    fn restart(&self, acked: u64, tried: u64) {
        let log = open(&self.sim.after_kill(), &self.clock, inline_small()).unwrap();
        let found = numbers(&read_all(&log));
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
        assert!((acked..=tried).contains(&(found.len() as u64)), "{} events, {acked} acknowledged, {tried} tried", found.len());
        let next = found.len() as u64;
        assert_eq!(log.append(notes(next..next + 1)).unwrap().first_offset().0, next);
    }
}

#[test]
fn a_full_disk_at_any_write_refuses_the_append_and_keeps_what_was_acknowledged() {
    for execution in [Execution::Inline, Execution::Threads] {
        for write in 0..50 {
            let bench = bench();
            let options = LogOptions { execution, ..inline_small() };
            let log = open_on(bench.disk(), &bench.clock, options).unwrap();
            bench.fail(Operation::Append, "", write, Effect::FailBefore(ENOSPC));
            let mut acked = 0;
            let refused = loop {
                bench.clock.pass(100);
                match log.append(notes(acked..acked + 1)) {
                    Ok(_) => acked += 1,
                    Err(error) => break error,
                }
                assert!(acked < 200, "write {write} was never reached");
            };
            // A write of sealing or of the mark stops the log as well; its next caller hears of it.
            assert!(refused.to_string().contains("no space"), "{refused}");
            assert_eq!(refused.exit_code(), 5);
            assert!(matches!(log.append(notes(acked..acked + 1)), Err(LogError::Stopped { .. })));
            assert_eq!(log.events_total(), acked, "what was acknowledged can still be read");
            drop(log);
            bench.restart(acked, acked + 1);
        }
    }
}

#[test]
fn the_append_that_meets_a_full_disk_is_told_so() {
    let bench = bench();
    let log = open_on(bench.disk(), &bench.clock, inline()).unwrap();
    log.append(notes(0..1)).unwrap();
    bench.fail(Operation::Append, ".active", 0, Effect::FailBefore(ENOSPC));
    assert!(matches!(log.append(notes(1..2)), Err(LogError::OutOfSpace { .. })));
    drop(log);
    bench.restart(1, 1);
}

#[test]
fn a_short_write_is_completed() {
    let bench = bench();
    let log = open_on(bench.disk(), &bench.clock, inline()).unwrap();
    for bytes_max in [1, 7, 95, 97] {
        bench.fail(Operation::Append, ".active", 0, Effect::Short(bytes_max));
        let next = log.events_total();
        log.append(notes(next..next + 1)).unwrap();
    }
    drop(log);
    bench.restart(4, 4);
}

#[test]
fn an_interrupted_write_is_retried_without_duplicate_bytes() {
    let bench = bench();
    bench.fail(Operation::Create, "", 0, Effect::FailBefore(EINTR));
    bench.fail(Operation::Rename, "", 0, Effect::FailBefore(EINTR));
    let log = open_on(bench.disk(), &bench.clock, inline()).unwrap();
    bench.fail(Operation::Append, ".active", 1, Effect::FailBefore(EINTR));
    for number in 0..3 {
        log.append(notes(number..number + 1)).unwrap();
    }
    drop(log);
    assert_eq!(bench.faulty.count(Operation::Append, ".active"), 4);
    bench.restart(3, 3);
}

#[test]
fn a_write_error_stops_the_log() {
    let bench = bench();
    let log = open_on(bench.disk(), &bench.clock, inline()).unwrap();
    log.append(notes(0..2)).unwrap();
    bench.fail(Operation::Append, ".active", 0, Effect::FailAfter(EIO));
    let refused = log.append(notes(2..3)).unwrap_err();
    assert!(matches!(refused, LogError::Storage { .. }) && refused.exit_code() == 5, "{refused}");
    assert!(matches!(log.append(notes(2..3)), Err(LogError::Stopped { .. })));
    assert!(matches!(log.advance(), Err(LogError::Stopped { .. })));
    drop(log);
    bench.restart(2, 3);
}

#[test]
fn a_failed_sync_is_not_acknowledged_and_never_retried() {
    for execution in [Execution::Inline, Execution::Threads] {
        let bench = bench();
        let log = open_on(bench.disk(), &bench.clock, LogOptions { execution, ..inline() }).unwrap();
        log.append(notes(0..2)).unwrap();
        let frontier = log.frontier();
        bench.fail(Operation::Sync, ".active", 0, Effect::FailBefore(EIO));
        assert!(matches!(log.append(notes(2..3)), Err(LogError::Storage { action: "sync", .. })));
        let syncs = bench.faulty.count(Operation::Sync, "");
        assert!(matches!(log.append(notes(2..3)), Err(LogError::Stopped { .. })));
        assert_eq!(log.events_total(), 2, "the lost group is not shown to readers");
        assert_eq!(log.frontier(), frontier, "the frontier does not pass a group of unknown fate");
        assert!(matches!(log.close(), Err(LogError::Stopped { .. })), "a stopped log is not closed cleanly");
        assert_eq!(bench.faulty.count(Operation::Sync, ""), syncs, "no sync after the failed one");
        bench.restart(2, 3);
    }
}

#[test]
fn a_segment_whose_directory_does_not_sync_is_not_used() {
    let bench = bench();
    let log = open_on(bench.disk(), &bench.clock, inline()).unwrap();
    bench.fail(Operation::SyncDir, "p0000", 0, Effect::FailBefore(EIO));
    assert!(matches!(log.append(notes(0..1)), Err(LogError::Storage { action: "sync", .. })));
    assert!(matches!(log.append(notes(0..1)), Err(LogError::Stopped { .. })));
    assert_eq!(bench.faulty.count(Operation::Append, ".active"), 0);
    drop(log);
    bench.restart(0, 0);
}

#[test]
fn any_single_failure_while_opening_leaves_a_log_that_opens_later() {
    let operations = [
        Operation::Create,
        Operation::Append,
        Operation::Sync,
        Operation::Rename,
        Operation::Remove,
        Operation::SyncDir,
        Operation::Read,
        Operation::Map,
        Operation::List,
    ];
    for operation in operations {
        for after in 0.. {
            let bench = bench();
            let log = open(&bench.sim, &bench.clock, inline_small()).unwrap();
            for number in 0..8 {
                log.append(notes(number..number + 1)).unwrap();
            }
            drop(log);
            bench.fail(operation, "", after, Effect::FailBefore(EIO));
            let opened = open_on(bench.disk(), &bench.clock, inline_small());
            let reached = opened.is_err();
            if let Err(error) = opened {
                assert_eq!(error.exit_code(), 5, "{operation:?} {after}: {error}");
            }
            bench.restart(8, 8);
            if !reached {
                break;
            }
        }
    }
}
