//! What readers are promised: each event once, in order, and a frontier that never lies (row I12).
mod log_support;

use columnar::{Columnar, Index};
use lambdaflow::log::SimClock;
use lambdaflow::log::{
    APPEND_BYTES_MAX, APPEND_EVENTS_MAX, Block, Cursor, Durability, Event, Execution, Log, LogError, LogOptions, Partition,
    QUEUE_APPENDS_MAX, Tick, info, verify,
};
use lambdaflow::storage::{RealDisk, SimDisk};
use log_support::*;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// A cursor, what it handed out, and what it said was complete at each moment.
struct Reader {
    cursor: Cursor<Note>,
    from: Tick,
    read: Vec<Placed>,
    claims: Vec<(Tick, usize)>,
}

impl Reader {
    fn new(log: &Log<Note>, from: Tick) -> Self {
        Reader { cursor: log.cursor(from), from, read: Vec::new(), claims: Vec::new() }
    }

    fn step(&mut self) -> bool {
        let block = self.cursor.next().unwrap();
        self.read.extend(block.iter().flat_map(rows));
        let complete = self.cursor.complete();
        assert!(self.claims.iter().all(|(before, _)| *before <= complete), "complete went back");
        self.claims.push((complete, self.read.iter().filter(|placed| placed.tick < complete).count()));
        block.is_some()
    }

    /// Compares with everything that was ever appended, in each partition's order.
    fn check(&self, appended: &[Placed]) {
        for partition in 0..2 {
            let here = |placed: &&Placed| placed.partition.index() == partition;
            let read: Vec<&Placed> = self.read.iter().filter(here).collect();
            let due: Vec<&Placed> = appended.iter().filter(here).filter(|placed| placed.tick >= self.from).collect();
            assert!(due.starts_with(&read), "read {read:?}, appended {due:?}");
        }
        for (complete, read) in &self.claims {
            let due = appended.iter().filter(|placed| (self.from..*complete).contains(&placed.tick)).count();
            assert_eq!(*read, due, "events below {complete} when that was said to be complete");
        }
    }
}

#[derive(Clone, Debug)]
enum Action {
    Append { partition: u32, count: u64 },
    Advance,
    Clock(u64),
    Open { ticks_back: u64 },
    Step { reader: usize, times: usize },
    Restart { clean: bool },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        6 => (0u32..2, 1u64..6).prop_map(|(partition, count)| Action::Append { partition, count }),
        3 => Just(Action::Advance),
        3 => (0u64..3_000).prop_map(Action::Clock),
        2 => (0u64..100).prop_map(|ticks_back| Action::Open { ticks_back }),
        6 => (0usize..4, 1usize..4).prop_map(|(reader, times)| Action::Step { reader, times }),
        1 => any::<bool>().prop_map(|clean| Action::Restart { clean }),
    ]
}

proptest! {
    #![proptest_config(random_cases(400))]
    #[test]
    fn cursors_hand_out_each_event_once_in_order_and_complete_never_lies(
        actions in proptest::collection::vec(action(), 1..80),
        segment_bytes_max in 1u64..2_000,
        block_events_max in 1usize..12,
    ) {
        let options = LogOptions { partitions: 2, segment_bytes_max, block_events_max, ..inline() };
        let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
        let mut log = open(&disk, &clock, options.clone()).unwrap();
        let (mut appended, mut number, mut frontier) = (Vec::new(), 0, Tick::ZERO);
        let mut readers = vec![Reader::new(&log, Tick::ZERO)];
        for action in actions {
            match action {
                Action::Append { partition, count } => {
                    let batch = notes(number..number + count);
                    number += count;
                    let ack = log.append_to(Partition(partition), batch.clone()).unwrap();
                    prop_assert!(ack.tick() >= frontier);
                    appended.extend(batch.into_iter().enumerate().map(|(place, note)| Placed {
                        partition: ack.partition(), offset: ack.first_offset().plus(place as u64), tick: ack.tick(), note,
                    }));
                }
                Action::Advance => {
                    let before = frontier;
                    frontier = log.advance().unwrap();
                    prop_assert!(frontier > before);
                }
                Action::Clock(tick) => clock.set(tick),
                Action::Open { ticks_back } => readers.push(Reader::new(&log, Tick(frontier.0.saturating_sub(ticks_back)))),
                Action::Step { reader, times } => {
                    let count = readers.len();
                    for _ in 0..times {
                        readers[reader % count].step();
                    }
                }
                Action::Restart { clean } => {
                    readers.drain(..).for_each(|reader| reader.check(&appended));
                    if clean { log.close().unwrap() } else { drop(log) }
                    log = open(&disk, &clock, options.clone()).unwrap();
                    readers.push(Reader::new(&log, Tick::ZERO));
                }
            }
            prop_assert!(log.frontier() >= frontier);
            frontier = log.frontier();
        }
        for mut reader in readers {
            while reader.step() {}
            prop_assert_eq!(reader.cursor.complete(), log.frontier());
            reader.check(&appended);
            prop_assert_eq!(reader.read.len(), appended.iter().filter(|placed| placed.tick >= reader.from).count());
        }
        log.close().unwrap();
        prop_assert!(verify(&disk, dir()).unwrap().is_whole());
        let summary = info(&disk, dir()).unwrap();
        prop_assert_eq!(summary.partitions.iter().map(|partition| partition.events).sum::<u64>(), number);
    }
}

#[test]
fn readers_beside_concurrent_writers_and_sealing_see_each_event_once() {
    let disk = SimDisk::new();
    let clock = SimClock::at(0);
    let options = LogOptions { partitions: 2, segment_bytes_max: 4_000, ..LogOptions::default() };
    let log = open(&disk, &clock, options).unwrap();
    let done = AtomicBool::new(false);
    let appended = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3u64)
            .map(|writer| {
                let log = log.clone();
                scope.spawn(move || {
                    let append = |round: u64| {
                        let batch = notes(1_000_000 * writer + 2 * round..1_000_000 * writer + 2 * round + 2);
                        let ack = log.append(batch.clone()).unwrap();
                        batch.into_iter().enumerate().map(move |(place, note)| Placed {
                            partition: ack.partition(),
                            offset: ack.first_offset().plus(place as u64),
                            tick: ack.tick(),
                            note,
                        })
                    };
                    (0..300).flat_map(append).collect::<Vec<_>>()
                })
            })
            .collect();
        let ticker = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                clock.pass(1);
                log.advance().unwrap();
            }
        });
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut reader = Reader::new(&log, Tick::ZERO);
                    while !done.load(Ordering::SeqCst) {
                        reader.step();
                        std::thread::yield_now();
                    }
                    while reader.step() {}
                    reader
                })
            })
            .collect();
        let mut appended: Vec<Placed> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        done.store(true, Ordering::SeqCst);
        ticker.join().unwrap();
        appended.sort_by_key(|placed| (placed.partition, placed.offset));
        for reader in readers {
            let reader = reader.join().unwrap();
            reader.check(&appended);
            assert_eq!(reader.read.len(), appended.len());
        }
        appended
    });
    assert!(log.stats().partitions.iter().all(|partition| partition.segments_sealed > 1), "{:?}", log.stats());
    log.close().unwrap();
    let log = open(&disk, &clock, inline()).unwrap();
    let mut read = read_all(&log);
    read.sort_by_key(|placed| (placed.partition, placed.offset));
    assert_eq!(read, appended);
}

#[test]
fn the_frontier_moves_under_a_clock_that_stands_still_or_goes_back_and_follows_a_jump() {
    for execution in [Execution::Inline, Execution::Threads] {
        let clock = SimClock::at(1_000_000);
        let log = open(&SimDisk::new(), &clock, LogOptions { execution, ..inline() }).unwrap();
        let mut frontier = log.advance().unwrap();
        let mut append_and_advance = |times: u64| {
            for _ in 0..times {
                let tick = log.append(notes(0..1)).unwrap().tick();
                assert!(tick >= frontier);
                let next = log.advance().unwrap();
                assert!(next > tick && next > frontier, "frontier {next} after tick {tick} and frontier {frontier}");
                frontier = next;
            }
            frontier
        };
        append_and_advance(1_500); // stands still for more ticks than one mark reserves
        clock.set(1_000); // goes back
        append_and_advance(1_500);
        let ten_years = 10 * 365 * 86_400_000;
        clock.set(ten_years);
        assert!(append_and_advance(1) > Tick(ten_years));
        clock.set(1_000_000);
        assert!(append_and_advance(100) > Tick(ten_years), "after a jump and back, ticks go on from the jump");
    }
}

#[test]
fn ticks_after_a_restart_with_the_clock_set_back_are_not_below_what_was_announced() {
    for clean in [false, true] {
        let (disk, clock) = (SimDisk::new(), SimClock::at(50_000));
        let log = open(&disk, &clock, inline()).unwrap();
        log.append(notes(0..1)).unwrap();
        let frontier = log.advance().unwrap();
        assert_eq!(frontier, Tick(50_001));
        if clean {
            log.close().unwrap()
        } else {
            drop(log)
        }
        clock.set(3);
        let log = open(&disk, &clock, inline()).unwrap();
        assert!(log.frontier() >= frontier);
        assert!(log.append(notes(1..2)).unwrap().tick() >= frontier);
        if clean {
            assert_eq!(log.frontier(), frontier, "a clean stop skips no ticks");
        }
    }
}

#[test]
fn a_waker_is_called_after_commits_and_frontier_moves_until_its_guard_is_dropped() {
    let log = open(&SimDisk::new(), &SimClock::at(1), LogOptions::default()).unwrap();
    let (sender, woken) = mpsc::channel();
    let guard = log.on_change(Box::new(move || {
        let _ = sender.send(());
    }));
    let wait = || woken.recv_timeout(Duration::from_secs(10)).expect("a wake");
    log.append(notes(0..1)).unwrap();
    wait();
    while woken.try_recv().is_ok() {}
    log.advance().unwrap();
    wait();
    drop(guard);
    while woken.try_recv().is_ok() {}
    log.append(notes(1..2)).unwrap();
    assert!(woken.recv().is_err(), "the function is gone, and its channel with it");
}

#[test]
fn concurrent_appends_share_a_sync() {
    use lambdaflow::storage::{FaultDisk, Operation};
    let disk = FaultDisk::new(Arc::new(SimDisk::new()));
    let log = open_on(Arc::new(disk.clone()), &SimClock::at(1), LogOptions::default()).unwrap();
    // The first group's waker holds the writer until all others are queued.
    let (others, first) = (AtomicU64::new(0), AtomicBool::new(true));
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let guard = log.on_change(Box::new(move || {
        if first.swap(false, Ordering::SeqCst) {
            let _ = held.lock().unwrap().recv();
        }
    }));
    std::thread::scope(|scope| {
        log.append(notes(0..1)).unwrap();
        for number in 1..64 {
            let (log, others) = (&log, &others);
            scope.spawn(move || {
                others.fetch_add(1, Ordering::SeqCst);
                log.append(notes(number..number + 1)).unwrap()
            });
        }
        while others.load(Ordering::SeqCst) < 63 {
            std::thread::yield_now();
        }
        release.send(()).unwrap();
    });
    drop(guard);
    let syncs = disk.count(Operation::Sync, ".active");
    assert!(syncs < 64, "{syncs} syncs for 64 appends");
    assert_eq!(log.events_total(), 64);
}

#[test]
fn limits_are_refused_before_anything_is_written() {
    let disk = SimDisk::new();
    let log = open(&disk, &SimClock::at(1), inline()).unwrap();
    let before = disk.files();
    assert!(matches!(log.append(vec![]), Err(LogError::Empty)));
    let many = vec![Note { number: 0, text: String::new() }; APPEND_EVENTS_MAX + 1];
    assert!(matches!(log.append(many), Err(LogError::TooLarge { .. })));
    assert_eq!(disk.files(), before);
    let most = vec![Note { number: 0, text: String::new() }; APPEND_EVENTS_MAX];
    assert_eq!(log.append(most).unwrap().count() as usize, APPEND_EVENTS_MAX);
}

#[test]
fn a_bulk_load_is_acknowledged_as_a_whole_and_survives_a_power_cut() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(9));
    let options = LogOptions { partitions: 2, segment_bytes_max: 3_000_000, ..LogOptions::default() };
    let log = open(&disk, &clock, options).unwrap();
    let mut bulk = log.bulk();
    let count = 4 * 65_536 + 17;
    for number in 0..count {
        bulk.push(&note(number)).unwrap();
    }
    let ack = bulk.finish().unwrap();
    assert_eq!((ack.events(), ack.last_tick()), (count, Tick(9)));
    drop(log);
    let log = open(&disk.after_power_cut(3), &clock, inline()).unwrap();
    let mut found = numbers(&read_all(&log));
    found.sort_unstable();
    assert_eq!(found, (0..count).collect::<Vec<_>>());
}

/// A bulk load of wide events was refused: a frame was measured every 4,096 events only, and had grown past what an append
/// may have.
#[test]
fn wide_events_are_loaded_in_frames_that_an_append_may_have() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { durability: Durability::Memory, ..LogOptions::default() };
    let log = Log::<Note>::open(Arc::new(RealDisk), SimClock::at(9) as _, dir.path(), options).unwrap();
    let mut wide = Note { number: 0, text: "w".repeat(1 << 20) };
    let count = (APPEND_BYTES_MAX / wide.text.len()) as u64 + 8;
    let mut bulk = log.bulk();
    for number in 0..count {
        wide.number = number;
        bulk.push(&wide).unwrap();
    }
    assert_eq!(bulk.finish().unwrap().events(), count);
    assert_eq!(log.events_total(), count);
}

#[test]
fn more_appends_than_the_queue_holds_all_arrive() {
    let log = open(&SimDisk::new(), &SimClock::at(9), LogOptions { durability: Durability::Memory, ..LogOptions::default() }).unwrap();
    let per_thread = QUEUE_APPENDS_MAX as u64;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for number in 0..per_thread {
                    log.append(notes(number..number + 1)).unwrap();
                }
            });
        }
    });
    assert_eq!(read_all(&log).len() as u64, 4 * per_thread);
}

#[test]
fn a_closed_log_refuses_appends_and_opens_again() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(9));
    let log = open(&disk, &clock, LogOptions::default()).unwrap();
    let other = log.clone();
    log.append(notes(0..2)).unwrap();
    log.close().unwrap();
    assert!(matches!(other.append(notes(2..3)), Err(LogError::Closed)));
    assert!(matches!(other.clone().close(), Err(LogError::Closed)));
    assert_eq!(numbers(&read_all(&other)), [0, 1], "what is there can still be read");
    assert_eq!(numbers(&read_all(&open(&disk, &clock, LogOptions::default()).unwrap())), [0, 1]);
}

/// Columns of every shape: the check at first read must not refuse what was rightly written.
#[derive(Clone, Debug, PartialEq, Columnar, Serialize, Deserialize)]
struct Shapes {
    flag: bool,
    small: u8,
    ratio: f64,
    maybe: Option<String>,
    list: Vec<u32>,
    pair: (i64, String),
    nested: Vec<Option<String>>,
    wide: u128,
    letter: char,
    time: Duration,
}

impl Event for Shapes {
    const NAME: &'static str = "shapes";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["flag: bool", "small: u8", "..."];
}

fn shapes(number: u64) -> Shapes {
    let text = (!number.is_multiple_of(3)).then(|| format!("text {number}"));
    Shapes {
        flag: number.is_multiple_of(2),
        small: number as u8,
        ratio: number as f64 / 3.0,
        maybe: text.clone(),
        list: (0..number as u32 % 5).collect(),
        pair: (-(number as i64), "ü".repeat(number as usize % 4)),
        nested: vec![text, None],
        wide: u128::from(number) << 70,
        letter: if number.is_multiple_of(2) { 'a' } else { '☃' },
        time: Duration::new(number, 7),
    }
}

#[test]
fn columns_of_every_shape_survive_sealing_and_mapping() {
    let (disk, clock) = (Arc::new(SimDisk::new()), SimClock::at(9));
    let open = || Log::<Shapes>::open(disk.clone(), clock.clone(), dir(), inline_small()).unwrap();
    let log = open();
    for number in 0..300 {
        log.append(vec![shapes(number)]).unwrap();
    }
    drop(log);
    let log = open();
    assert_eq!(log.stats().partitions[0].segments, log.stats().partitions[0].segments_sealed);
    let (mut cursor, mut read) = (log.cursor(Tick::ZERO), Vec::new());
    while let Some(block) = cursor.next().unwrap() {
        read.extend(block.range().map(|row| Shapes::into_owned(block.columns().get(row))));
    }
    assert_eq!(read, (0..300).map(shapes).collect::<Vec<_>>());
}

#[test]
fn a_log_of_another_type_is_refused() {
    let (disk, clock) = (Arc::new(SimDisk::new()), SimClock::at(9));
    Log::<Shapes>::open(disk.clone(), clock.clone(), dir(), inline()).unwrap().close().unwrap();
    let Err(error) = Log::<Note>::open(disk.clone(), clock.clone(), dir(), inline()) else { panic!("opened") };
    assert_eq!(error.exit_code(), 2);
    let message = "log /place/log holds shapes v1 (flag: bool, small: u8, ...), this program reads note v1 (number: u64, text: String)";
    assert!(error.to_string().starts_with(message), "{error}");
}

#[test]
fn slices_of_a_block_keep_ticks_rows_and_offsets_together() {
    let ticks = [3, 3, 5, 8, 8, 8, 9].map(Tick);
    let block = Block::from_events(ticks.into_iter().zip(notes(0..7)));
    let mut by_tick: BTreeMap<Tick, Vec<u64>> = BTreeMap::new();
    ticks.iter().zip(0..).for_each(|(tick, number)| by_tick.entry(*tick).or_default().push(number));
    for (start, end) in (0..11).flat_map(|start| (0..11).map(move |end| (Tick(start), Tick(end)))) {
        for outer in [block.clone(), block.slice_ticks(Tick(4)..Tick(9))] {
            let outer_ticks: Vec<Tick> = outer.tick_runs().map(|(tick, _)| tick).collect();
            let slice = outer.slice_ticks(start..end);
            let expected: Vec<(Tick, Vec<u64>)> =
                by_tick.clone().into_iter().filter(|(tick, _)| outer_ticks.contains(tick) && start <= *tick && *tick < end).collect();
            let found: Vec<(Tick, Vec<u64>)> =
                slice.tick_runs().map(|(tick, rows)| (tick, rows.map(|row| slice.columns().get(row).number).copied().collect())).collect();
            assert_eq!(found, expected);
            assert_eq!(slice.len(), expected.iter().map(|(_, rows)| rows.len()).sum::<usize>());
            if let (Some((first, rows)), Some((last, _))) = (expected.first(), expected.last()) {
                assert_eq!((slice.first_tick(), slice.last_tick(), slice.first_offset().0), (*first, *last, rows[0]));
            }
        }
    }
}

#[test]
fn cat_writes_one_json_line_per_event() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(9));
    let log = open(&disk, &clock, inline()).unwrap();
    log.append(notes(0..2)).unwrap();
    let mut out = Vec::new();
    assert_eq!(log.cursor(Tick::ZERO).cat(&mut out, u64::MAX).unwrap(), 2);
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().nth(1).unwrap(), r#"{"partition":0,"offset":1,"tick":9,"event":{"number":1,"text":"note 1 x"}}"#);
}
