//! Lets single operations of the disk fail while the log runs (rows D1, D2, D4, D6, D7, D9-D11, D15).
mod log_support;

use lambdaflow::log::SimClock;
use lambdaflow::log::{
    BULK_FRAMES_IN_FLIGHT_MAX, Execution, GROUP_EVENTS_MAX, LogError, LogOptions, LogReader, SEAL_BACKLOG_MAX, Tick, info, verify,
};
use lambdaflow::storage::{Bytes, Disk, DiskFile, Effect, Entry, Fault, FaultDisk, LockGuard, Operation, SimDisk};
use log_support::*;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

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

#[test]
fn a_full_disk_at_any_step_of_any_kind_keeps_what_was_acknowledged_readable() {
    for operation in [Operation::Create, Operation::Sync, Operation::Rename, Operation::Remove, Operation::SyncDir] {
        for after in 0..30 {
            let bench = bench();
            let log = open_on(bench.disk(), &bench.clock, inline_small()).unwrap();
            bench.fail(operation, "", after, Effect::FailBefore(ENOSPC));
            let mut acked = 0;
            // The clock passes, so that the mark is rewritten too.
            let refused = (0..200).find_map(|_| {
                bench.clock.pass(400);
                let appended = log.append(notes(acked..acked + 1));
                acked += u64::from(appended.is_ok());
                appended.err()
            });
            let refused = refused.unwrap_or_else(|| panic!("{operation:?} {after} was never reached"));
            assert!(refused.to_string().contains("no space or no inodes"), "{operation:?} {after}: {refused}");
            assert_eq!(numbers(&read_all(&log)), (0..acked).collect::<Vec<_>>(), "{operation:?} {after}");
            drop(log);
            bench.restart(acked, acked + 1);
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_an_error_and_never_the_end_of_the_log() {
    for (operation, times) in [(Operation::Read, u64::MAX), (Operation::Map, u64::MAX), (Operation::List, u64::MAX)] {
        let bench = bench();
        let log = open(&bench.sim, &bench.clock, inline_small()).unwrap();
        for number in 0..12 {
            log.append(notes(number..number + 1)).unwrap();
        }
        drop(log);
        let part = if operation == Operation::List { "p0000" } else { "p0000/" };
        bench.faulty.inject(Fault { operation, path_contains: part.to_string(), after: 0, times, effect: Effect::FailBefore(EIO) });
        let disk = bench.disk();
        let errors = [
            LogReader::<Note>::open(&*disk, dir()).err(),
            info(&*disk, dir()).err(),
            verify(&*disk, dir()).err(),
            open_on(Arc::clone(&disk), &bench.clock, inline_small()).err(),
        ];
        for (error, what) in errors.into_iter().zip(["a reader", "info", "verify", "opening"]) {
            let error = error.unwrap_or_else(|| panic!("{operation:?}: {what} saw the end of the log where a file could not be read"));
            assert!(matches!(error, LogError::Storage { .. }) && error.exit_code() == 5, "{operation:?}: {what}: {error}");
        }
        bench.restart(12, 12);
    }
}

#[test]
fn interrupted_reads_are_retried() {
    let bench = bench();
    let log = open(&bench.sim, &bench.clock, inline_small()).unwrap();
    (0..9).for_each(|number| assert_eq!(log.append(notes(number..number + 1)).unwrap().count(), 1));
    drop(log);
    for operation in [Operation::Read, Operation::Map, Operation::List, Operation::Remove, Operation::Lock, Operation::CreateDir] {
        bench.fail(operation, "", 0, Effect::FailBefore(EINTR));
    }
    let log = open_on(bench.disk(), &bench.clock, inline_small()).unwrap();
    assert_eq!(numbers(&read_all(&log)), (0..9).collect::<Vec<_>>());
}

/// A disk whose syncs wait at a gate: those of files with this in their names.
struct Stalled {
    inner: SimDisk,
    gate: Arc<Gate>,
    stalls: &'static str,
}

#[derive(Default)]
struct Gate {
    /// Whether it is closed, and how many wait at it.
    state: Mutex<(bool, u64)>,
    changed: Condvar,
}

impl Gate {
    fn set_closed(&self, closed: bool) {
        self.state.lock().unwrap().0 = closed;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |(closed, _)| *closed).unwrap();
        state.1 -= 1;
    }

    fn wait_for_someone(&self) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |(_, waiting)| *waiting == 0).unwrap());
    }
}

struct StalledFile(Box<dyn DiskFile>, Arc<Gate>);

impl DiskFile for StalledFile {
    fn append(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.append(bytes)
    }

    fn sync(&mut self) -> std::io::Result<()> {
        self.1.pass();
        self.0.sync()
    }
}

impl Disk for Stalled {
    fn create_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.inner.create_dir(dir)
    }
    fn list(&self, dir: &Path) -> std::io::Result<Vec<Entry>> {
        self.inner.list(dir)
    }
    fn create(&self, file: &Path) -> std::io::Result<Box<dyn DiskFile>> {
        let created = self.inner.create(file)?;
        if !file.to_string_lossy().contains(self.stalls) {
            return Ok(created);
        }
        Ok(Box::new(StalledFile(created, Arc::clone(&self.gate))))
    }
    fn read(&self, file: &Path) -> std::io::Result<Vec<u8>> {
        self.inner.read(file)
    }
    fn map(&self, file: &Path) -> std::io::Result<Bytes> {
        self.inner.map(file)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, file: &Path) -> std::io::Result<()> {
        self.inner.remove(file)
    }
    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.inner.sync_dir(dir)
    }
    fn lock(&self, file: &Path) -> std::io::Result<LockGuard> {
        self.inner.lock(file)
    }
}

#[test]
fn a_disk_that_stalls_holds_producers_back_and_readers_go_on() {
    let gate = Arc::new(Gate::default());
    let disk = Arc::new(Stalled { inner: SimDisk::new(), gate: Arc::clone(&gate), stalls: "" });
    let clock = SimClock::at(100);
    let log = open_on(disk, &clock, LogOptions::default()).unwrap();
    log.append(notes(0..5)).unwrap();
    let frontier = log.advance().unwrap();
    gate.set_closed(true);
    let (pushed, total) = (AtomicU64::new(0), 12 * GROUP_EVENTS_MAX as u64);
    std::thread::scope(|scope| {
        let loading = scope.spawn(|| {
            let mut bulk = log.bulk();
            for number in 0..total {
                bulk.push(&Note { number, text: String::new() }).unwrap();
                pushed.store(number + 1, Ordering::SeqCst);
            }
            bulk.finish().unwrap()
        });
        gate.wait_for_someone();
        // Answers come from what is durable, and the frontier does not pass what is not.
        for _ in 0..5 {
            clock.pass(10);
            assert_eq!(numbers(&read_all(&log)), [0, 1, 2, 3, 4]);
            let now = log.advance().unwrap();
            assert!(now >= frontier && log.cursor(now).next().unwrap().is_none());
            // Frames in flight, the one under construction, and the one that waits for room.
            let held = (BULK_FRAMES_IN_FLIGHT_MAX as u64 + 2) * GROUP_EVENTS_MAX as u64;
            assert!(pushed.load(Ordering::SeqCst) <= held, "{} events were taken in", pushed.load(Ordering::SeqCst));
        }
        gate.set_closed(false);
        assert_eq!(loading.join().unwrap().events(), total);
    });
    assert_eq!(log.events_total(), total + 5);
    assert_eq!(log.cursor(Tick::ZERO).next().unwrap().unwrap().len(), 5);
    log.close().unwrap();
}

#[test]
fn segments_that_cannot_be_sealed_hold_appends_back() {
    let (gate, sim) = (Arc::new(Gate::default()), SimDisk::new());
    let disk = Arc::new(Stalled { inner: sim.clone(), gate: Arc::clone(&gate), stalls: ".seg" });
    let clock = SimClock::at(100);
    let log = open_on(disk, &clock, LogOptions { segment_bytes_max: 2_000, ..LogOptions::default() }).unwrap();
    gate.set_closed(true);
    let (appended, total) = (AtomicU64::new(0), 600);
    let active = || sim.files().keys().filter(|path| path.extension().is_some_and(|kind| kind == "active")).count();
    std::thread::scope(|scope| {
        let appending = scope.spawn(|| {
            for number in 0..total {
                log.append(notes(number..number + 1)).unwrap();
                appended.store(number + 1, Ordering::SeqCst);
            }
        });
        gate.wait_for_someone();
        // Those that wait, the one being sealed, the one being written to.
        let most = SEAL_BACKLOG_MAX + 2;
        while active() < SEAL_BACKLOG_MAX + 1 {
            std::thread::yield_now();
        }
        for _ in 0..20 {
            clock.pass(10);
            log.advance().unwrap();
            assert!(active() <= most, "{} segments are not sealed", active());
        }
        let held = appended.load(Ordering::SeqCst);
        assert!(held < total / 2, "{held} events were taken in");
        assert_eq!(read_all(&log).len() as u64, log.events_total(), "readers go on");
        gate.set_closed(false);
        appending.join().unwrap();
    });
    assert_eq!(numbers(&read_all(&log)), (0..total).collect::<Vec<_>>());
    log.close().unwrap();
}

#[test]
fn nothing_is_acknowledged_while_the_disk_stalls() {
    let gate = Arc::new(Gate::default());
    let disk = Arc::new(Stalled { inner: SimDisk::new(), gate: Arc::clone(&gate), stalls: "" });
    let log = open_on(disk, &SimClock::at(100), LogOptions::default()).unwrap();
    log.append(notes(0..1)).unwrap();
    gate.set_closed(true);
    let (answered, callers) = (AtomicU64::new(0), 64);
    std::thread::scope(|scope| {
        for number in 0..callers {
            let (log, answered) = (&log, &answered);
            scope.spawn(move || {
                log.append(notes(number..number + 1)).unwrap();
                answered.fetch_add(1, Ordering::SeqCst);
            });
        }
        gate.wait_for_someone();
        assert_eq!(answered.load(Ordering::SeqCst), 0, "nothing is acknowledged before its sync");
        assert_eq!(log.events_total(), 1);
        gate.set_closed(false);
    });
    assert_eq!(log.events_total(), 1 + callers);
}
