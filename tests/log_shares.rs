//! One log in the hands of several processes, each with its share of the partitions.
//!
//! The processes are handles of one process here: to the log, a handle that is dropped is a process that was killed.
mod log_support;

use lambdaflow::log::{
    Ack, Claim, Clock, Log, LogError, LogOptions, LogReader, Offset, Partition, Prepared, RedactRequest, Share, ShareLock, SimClock, Tick,
    info, lock_dir, redact, rewrite, salvage, verify,
};
use lambdaflow::storage::{Disk, RealDisk, Rng, SimDisk};
use log_support::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn share(index: u32, of: u32, options: &LogOptions) -> LogOptions {
    LogOptions { share: Share { index, of }, ..options.clone() }
}

fn prepare(disk: &Arc<dyn Disk>, clock: &Arc<SimClock>, dir: &Path, options: LogOptions) -> Result<Prepared<Note>, LogError> {
    Log::prepare(Arc::clone(disk), Arc::clone(clock) as Arc<dyn Clock>, dir, options)
}

fn open_share(disk: &Arc<dyn Disk>, clock: &Arc<SimClock>, dir: &Path, options: LogOptions) -> Result<Log<Note>, LogError> {
    Log::open_share(Arc::clone(disk), Arc::clone(clock) as Arc<dyn Clock>, dir, options)
}

/// Opens a log with so many processes, one after the other, as a cluster does.
fn cluster_in(disk: &Arc<dyn Disk>, clock: &Arc<SimClock>, dir: &Path, of: u32, options: &LogOptions) -> Result<Vec<Log<Note>>, LogError> {
    let prepared = prepare(disk, clock, dir, share(0, of, options))?;
    let mut shares = vec![prepared.open(share(0, of, options))?];
    for index in 1..of {
        shares.push(open_share(disk, clock, dir, share(index, of, options))?);
    }
    Ok(shares)
}

fn cluster(disk: &SimDisk, clock: &Arc<SimClock>, of: u32, options: &LogOptions) -> Result<Vec<Log<Note>>, LogError> {
    cluster_in(&(Arc::new(disk.clone()) as Arc<dyn Disk>), clock, dir(), of, options)
}

fn read_shares(shares: &[Log<Note>]) -> Vec<Placed> {
    let mut read: Vec<Placed> = shares.iter().flat_map(read_all).collect();
    read.sort_by_key(|placed| (placed.partition, placed.offset));
    read
}

fn sorted(mut read: Vec<Placed>) -> Vec<Placed> {
    read.sort_by_key(|placed| (placed.partition, placed.offset));
    read
}

fn names(disk: &SimDisk) -> BTreeSet<String> {
    let in_dir = |path: std::path::PathBuf| (path.parent() == Some(dir())).then(|| path.file_name()?.to_str().map(str::to_owned)).flatten();
    disk.files().into_keys().filter_map(in_dir).collect()
}

/// What callers were told over all lives of a log.
#[derive(Default)]
struct Story {
    next: u64,
    acked: Vec<Placed>,
    tried: BTreeSet<u64>,
    /// The highest frontier that any process announced in the lives before, and in this one by partition.
    announced_before: Tick,
    announced: BTreeMap<u32, Tick>,
    /// Of each producer the next number, and all answers.
    producers: [u64; PRODUCERS],
    answers: BTreeMap<(usize, u64), Ack>,
    /// Appends of producers that ended a life: the next answer may be that of then.
    unanswered: BTreeSet<(usize, u64)>,
}

const PRODUCERS: usize = 5;
/// Numbers of producers' events begin here, each producer's with another million.
const PRODUCED: u64 = 1_000_000_000;

fn produced(producer: usize, sequence: u64) -> Vec<Note> {
    let first = PRODUCED + 1_000_000 * producer as u64 + 10 * sequence;
    notes(first..first + 1 + sequence % 3)
}

fn producer_name(producer: usize) -> String {
    format!("producer {producer}")
}

impl Story {
    fn told(&mut self, ack: Ack, events: Vec<Note>, seed: u64) {
        let announced = self.announced.get(&ack.partition().0).copied().unwrap_or_default().max(self.announced_before);
        assert!(ack.tick() >= announced, "LAMBDAFLOW_SEED={seed}: tick {} below the frontier {announced}", ack.tick());
        self.remember(ack, events);
    }

    fn saw_frontier(&mut self, log: &Log<Note>, frontier: Tick) {
        for partition in (0..log.partitions()).filter(|number| log.owns(Partition(*number))) {
            let announced = self.announced.entry(partition).or_default();
            assert!(frontier >= *announced);
            *announced = frontier;
        }
    }

    fn life_ends(&mut self) {
        self.announced_before = self.announced.values().copied().max().unwrap_or_default().max(self.announced_before);
        self.announced.clear();
    }

    /// Does something to the log: an error is the end of this life.
    fn act(&mut self, shares: &[Log<Note>], clock: &SimClock, rng: &mut Rng, seed: u64) -> Result<(), LogError> {
        let log = &shares[rng.below(shares.len() as u64) as usize];
        match rng.below(12) {
            0..=4 => {
                let count = 1 + rng.below(3);
                let events = notes(self.next..self.next + count);
                self.next += count;
                self.tried.extend(events.iter().map(|note| note.number));
                let ack = match rng.one_in(2) {
                    true => log.append(events.clone())?,
                    false => {
                        let own: Vec<u32> = (0..log.partitions()).filter(|number| log.owns(Partition(*number))).collect();
                        log.append_to(Partition(own[rng.below(own.len() as u64) as usize]), events.clone())?
                    }
                };
                assert!(log.owns(ack.partition()), "LAMBDAFLOW_SEED={seed}");
                self.told(ack, events, seed);
            }
            5..=8 => {
                let producer = rng.below(PRODUCERS as u64) as usize;
                let name = producer_name(producer);
                let back = if rng.one_in(3) { rng.below(4).min(self.producers[producer]) } else { 0 };
                let sequence = self.producers[producer] - back;
                let events = produced(producer, sequence);
                self.tried.extend(events.iter().map(|note| note.number));
                let owner = log.owner_of(&name) as usize;
                if log.share().index as usize != owner {
                    let refused = log.append_as(&name, sequence, events.clone());
                    assert!(matches!(refused, Err(LogError::NotOwned { owner: found, .. }) if found as usize == owner), "{refused:?}");
                }
                let appended = shares[owner].append_as(&name, sequence, events.clone());
                let ack = appended.inspect_err(|_| {
                    self.unanswered.insert((producer, sequence));
                })?;
                match self.answers.get(&(producer, sequence)) {
                    Some(first) => assert_eq!(*first, ack, "LAMBDAFLOW_SEED={seed}: the first answer of {name}, {sequence}"),
                    None => {
                        self.answers.insert((producer, sequence), ack);
                        match self.unanswered.contains(&(producer, sequence)) {
                            true => self.remember(ack, events),
                            false => self.told(ack, events, seed),
                        }
                        self.producers[producer] = sequence + 1;
                    }
                }
            }
            9 => {
                let frontier = log.advance()?;
                self.saw_frontier(log, frontier);
            }
            10 => {
                // Clocks are apart: another process is ahead.
                let (before, ahead) = (log.frontier(), clock.now().plus(rng.below(9_000)));
                log.raise(ahead);
                assert!(log.frontier() >= before);
                let frontier = log.advance()?;
                self.saw_frontier(log, frontier);
                let tick = log.append(notes(self.next..self.next + 1)).inspect(|ack| assert!(ack.tick() >= ahead));
                self.tried.insert(self.next);
                self.next += 1;
                let number = self.next - 1;
                self.told(tick?, notes(number..number + 1), seed);
            }
            _ => clock.pass(rng.below(50)),
        }
        Ok(())
    }

    fn remember(&mut self, ack: Ack, events: Vec<Note>) {
        for (place, note) in events.into_iter().enumerate() {
            let offset = ack.first_offset().plus(place as u64);
            self.acked.push(Placed { partition: ack.partition(), offset, tick: ack.tick(), note });
        }
    }

    /// Everything acknowledged is there once, where and when it was said to be; nothing is there twice.
    fn check(&self, read: &[Placed], seed: u64) {
        let mut by_number: BTreeMap<u64, &Placed> = BTreeMap::new();
        let mut ends: BTreeMap<Partition, u64> = BTreeMap::new();
        for placed in read {
            assert!(by_number.insert(placed.note.number, placed).is_none(), "LAMBDAFLOW_SEED={seed}: {placed:?} is there twice");
            assert!(self.tried.contains(&placed.note.number), "LAMBDAFLOW_SEED={seed}: {placed:?} was never appended");
            let end = ends.entry(placed.partition).or_default();
            assert_eq!(placed.offset, Offset(*end), "LAMBDAFLOW_SEED={seed}: offsets of partition {}", placed.partition);
            *end += 1;
        }
        for acked in &self.acked {
            assert_eq!(by_number.get(&acked.note.number), Some(&acked), "LAMBDAFLOW_SEED={seed}: lost or changed");
        }
        for pair in read.windows(2).filter(|pair| pair[0].partition == pair[1].partition) {
            assert!(pair[0].tick <= pair[1].tick, "LAMBDAFLOW_SEED={seed}: ticks go back: {pair:?}");
        }
    }
}

fn seeds(count: u64) -> Vec<u64> {
    let times: u64 = std::env::var("LAMBDAFLOW_SEEDS").ok().and_then(|times| times.parse().ok()).unwrap_or(1);
    Rng::seed_from_env().map_or_else(|| (0..count * times).collect(), |seed| vec![seed])
}

/// Lives of a log: as one process or several, more partitions now and then, ended by a clean stop of all or some, a kill, or a
/// power cut anywhere, in the opening too.
#[test]
fn acknowledged_events_are_there_once_whoever_opened_the_log_and_however_that_ended() {
    let (mut cuts, mut kills, mut closes, mut grown) = (0, 0, 0, 0);
    for seed in seeds(120) {
        let mut rng = Rng::new(seed);
        let clock = SimClock::at(10_000);
        let mut disk = SimDisk::new();
        disk.create_dir(dir()).unwrap();
        let mut story = Story::default();
        let mut partitions = 1;
        for life in 0..10 {
            let of = 1 + rng.below(3) as u32;
            let options = LogOptions { partitions: 1 + rng.below(4) as u32, segment_bytes_max: 300 + rng.below(2_000), ..inline() };
            if rng.one_in(4) {
                clock.set(5_000 + rng.below(20_000));
            }
            if rng.one_in(2) {
                disk.cut_power_at(disk.steps() + 1 + rng.below(80));
            }
            let mut shares = Vec::new();
            let whole = of == 1 && rng.one_in(2);
            let opened =
                if whole { open(&disk, &clock, options.clone()).map(|log| vec![log]) } else { cluster(&disk, &clock, of, &options) };
            let lived = opened.and_then(|opened| {
                shares = opened;
                for log in &shares {
                    let due = story.announced_before;
                    assert!(log.frontier() >= due, "LAMBDAFLOW_SEED={seed}, life {life}: {} is behind {due}", log.frontier());
                    assert!(log.partitions() >= partitions, "LAMBDAFLOW_SEED={seed}: partitions are gone");
                }
                grown += u64::from(life > 0 && shares[0].partitions() > partitions);
                partitions = shares[0].partitions();
                story.check(&read_shares(&shares), seed);
                (0..40).try_for_each(|_| story.act(&shares, &clock, &mut rng, seed))?;
                story.check(&read_shares(&shares), seed);
                let survivors = rng.below(shares.len() as u64 + 1) as usize;
                kills += (shares.len() - survivors) as u64;
                closes += survivors as u64;
                shares.drain(..survivors).try_for_each(Log::close)
            });
            drop(shares);
            story.life_ends();
            disk = if disk.is_off() {
                cuts += 1;
                disk.after_power_cut(rng.number())
            } else {
                lived.unwrap_or_else(|error| panic!("LAMBDAFLOW_SEED={seed}, life {life}: {error}"));
                disk.after_kill()
            };
            if names(&disk).contains("log.json") {
                let report = verify(&disk, dir()).unwrap_or_else(|error| panic!("LAMBDAFLOW_SEED={seed}, life {life}: {error}"));
                assert!(report.is_whole(), "LAMBDAFLOW_SEED={seed}, life {life}: {:?}", report.damage);
            }
        }
        let log = open(&disk, &clock, inline()).unwrap();
        story.check(&sorted(read_all(&log)), seed);
        for ((producer, sequence), ack) in &story.answers {
            let again = log.append_as(&producer_name(*producer), *sequence, produced(*producer, *sequence)).unwrap();
            assert_eq!(again, *ack, "LAMBDAFLOW_SEED={seed}: after all lives");
        }
        assert!(!names(&disk).iter().any(|name| name.starts_with("mark-")), "LAMBDAFLOW_SEED={seed}");
    }
    println!("{cuts} power cuts, {kills} kills, {closes} clean stops, {grown} times grown");
    assert!(cuts > 200 && kills > 200 && closes > 200 && grown > 50 || Rng::seed_from_env().is_some());
}

/// A log of one partition with events, some by producers; what callers were told.
fn planted() -> (SimDisk, Arc<SimClock>, Vec<Placed>, Vec<Ack>) {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    disk.create_dir(dir()).unwrap();
    let log = open(&disk, &clock, inline_small()).unwrap();
    let append = |producer| log.append_as(&producer_name(producer), 0, produced(producer, 0)).unwrap();
    let acks = (0..PRODUCERS).map(append).collect();
    log.append(notes(0..9)).unwrap();
    let read = read_all(&log);
    (disk.after_kill(), clock, read, acks)
}

#[test]
fn a_power_cut_while_a_log_grows_leaves_it_grown_or_not_and_producers_where_they_are() {
    let (disk, clock, read, acks) = planted();
    let options = LogOptions { partitions: 3, ..inline_small() };
    let (mut checked, mut seen) = (0, BTreeSet::new());
    for step in 1.. {
        let disk = disk.after_kill();
        disk.cut_power_at(step);
        let prepared = prepare(&(Arc::new(disk.clone()) as Arc<dyn Disk>), &clock, dir(), options.clone());
        if !disk.is_off() {
            assert_eq!(prepared.unwrap().partitions(), 3);
            break;
        }
        drop(prepared);
        for seed in seeds(25) {
            let disk = disk.after_power_cut(seed);
            assert!(verify(&disk, dir()).unwrap().is_whole(), "step {step}, LAMBDAFLOW_SEED={seed}");
            let log = open(&disk, &clock, inline_small()).unwrap();
            seen.insert(log.partitions());
            assert_eq!(read_all(&log), read, "step {step}, LAMBDAFLOW_SEED={seed}");
            log.close().unwrap();
            let shares = cluster(&disk, &clock, 3, &inline_small()).unwrap();
            assert_eq!(shares[0].partitions(), 3);
            for (producer, ack) in acks.iter().enumerate() {
                let owner = shares[0].owner_of(&producer_name(producer));
                assert_eq!(owner, 0, "all are in the partition that was the only one");
                let again = shares[0].append_as(&producer_name(producer), 0, produced(producer, 0)).unwrap();
                assert_eq!(again, *ack, "step {step}, LAMBDAFLOW_SEED={seed}");
            }
            for (index, log) in shares.iter().enumerate() {
                let ack = log.append(notes(100..101)).unwrap();
                assert_eq!(ack.partition(), Partition(index as u32));
            }
            assert_eq!(read_shares(&shares).len(), read.len() + 3);
            checked += 1;
        }
    }
    assert_eq!(seen, BTreeSet::from([1, 3]), "{checked} power cuts");
}

/// The marks of a killed cluster become one: whatever the moment of a power cut, the word of each process is kept.
#[test]
fn a_power_cut_while_marks_become_one_forgets_nothing() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    disk.create_dir(dir()).unwrap();
    let shares = cluster(&disk, &clock, 3, &inline_small()).unwrap();
    shares.iter().for_each(|log| {
        log.append(notes(0..5)).unwrap();
    });
    // The last one's clock is far ahead.
    shares[2].raise(Tick(90_000));
    let announced = shares[2].advance().unwrap();
    assert!(announced >= Tick(90_000));
    shares.iter().for_each(|log| {
        log.append(notes(5..7)).unwrap();
    });
    let read = read_shares(&shares);
    drop(shares);
    let disk = disk.after_kill();
    assert!(["mark", "mark-0001", "mark-0002"].iter().all(|name| names(&disk).contains(*name)));
    let mut checked = 0;
    for step in 1.. {
        let disk = disk.after_kill();
        disk.cut_power_at(step);
        drop(open(&disk, &clock, inline_small()));
        if !disk.is_off() {
            assert!(!names(&disk).iter().any(|name| name.starts_with("mark-")));
            break;
        }
        for seed in seeds(15) {
            let disk = disk.after_power_cut(seed);
            assert!(verify(&disk, dir()).unwrap().is_whole(), "step {step}, LAMBDAFLOW_SEED={seed}");
            assert!(info(&disk, dir()).unwrap().reserved >= announced, "step {step}, LAMBDAFLOW_SEED={seed}");
            let reader = LogReader::<Note>::open(&disk, dir()).unwrap();
            assert_eq!(reader.events_total(), read.len() as u64);
            let log = open(&disk, &clock, inline_small()).unwrap();
            assert!(log.frontier() >= announced, "step {step}, LAMBDAFLOW_SEED={seed}: {} is behind {announced}", log.frontier());
            assert_eq!(sorted(read_all(&log)), read, "step {step}, LAMBDAFLOW_SEED={seed}");
            checked += 1;
        }
    }
    assert!(checked > 100 || Rng::seed_from_env().is_some(), "{checked} power cuts");
}

#[test]
fn what_the_mark_of_any_share_promised_is_missed_when_it_is_gone() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let shares = cluster(&disk, &clock, 2, &inline()).unwrap();
    shares[1].append(notes(0..5)).unwrap();
    // The mark is rewritten, and says how far the disk has come.
    shares[1].raise(Tick(50_000));
    shares[1].append(notes(5..7)).unwrap();
    drop(shares);
    let disk = disk.after_kill();
    let segment = dir().join("p0001").join(format!("{:020}.active", 0));
    let bytes = disk.files()[&segment].clone();
    // The group after the mark may be torn; one before it may not.
    disk.plant(&segment, &bytes[..bytes.len() - 1]);
    assert!(verify(&disk, dir()).unwrap().is_whole());
    assert_eq!(open(&disk.after_kill(), &clock, inline()).unwrap().events_total(), 5);
    disk.plant(&segment, &bytes[..100]);
    assert!(!verify(&disk, dir()).unwrap().is_whole());
    assert_eq!(open(&disk.after_kill(), &clock, inline()).err().unwrap().exit_code(), 3);
    disk.plant(&segment, &bytes);
    let mark = dir().join("mark-0001");
    let mut damaged = disk.files()[&mark].clone();
    damaged[20] ^= 1;
    disk.plant(&mark, &damaged);
    assert_eq!(open(&disk.after_kill(), &clock, inline()).err().unwrap().exit_code(), 3);
}

/// A share begins where the log was, not where the shares before it reserved ticks in advance: five seconds per process would
/// be given away at each start.
#[test]
fn shares_that_open_one_after_the_other_begin_at_the_same_tick() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    for life in 0..3 {
        let shares = cluster(&disk, &clock, 3, &inline()).unwrap();
        for log in &shares {
            let ack = log.append(notes(0..1)).unwrap();
            assert_eq!(ack.tick(), Tick(1_000), "life {life}");
        }
        // One that comes back alone keeps its own word, which is what it reserved.
        shares.into_iter().for_each(|log| log.close().unwrap());
    }
}

#[test]
fn a_share_that_comes_back_alone_keeps_its_word() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let on = Arc::new(disk.clone()) as Arc<dyn Disk>;
    let mut shares = cluster(&disk, &clock, 2, &inline()).unwrap();
    let second = shares.pop().unwrap();
    second.append_as(&second_producer(&second), 0, notes(0..3)).unwrap();
    clock.pass(3_000);
    let announced = second.advance().unwrap();
    let read = read_all(&second);
    drop(second);
    shares[0].append(notes(3..4)).unwrap();
    clock.set(0);
    let second = open_share(&on, &clock, dir(), share(1, 2, &inline())).unwrap();
    assert!(second.frontier() >= announced);
    assert_eq!(read_all(&second), read);
    assert_eq!(second.append_as(&second_producer(&second), 0, notes(0..3)).unwrap().first_offset(), Offset(0));
    shares[0].append(notes(4..5)).unwrap();
    assert_eq!(read_all(&shares[0]).len(), 2);
}

/// The name of a producer whose batches the log's own share takes.
fn second_producer(log: &Log<Note>) -> String {
    (0..).map(producer_name).find(|name| log.owner_of(name) == log.share().index).unwrap()
}

#[test]
fn a_share_has_its_partitions_and_refuses_the_others() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let shares = cluster(&disk, &clock, 2, &LogOptions { partitions: 5, ..inline() }).unwrap();
    let log = &shares[1];
    assert_eq!((log.share(), log.partitions()), (Share { index: 1, of: 2 }, 5));
    for partition in (0..5).map(Partition) {
        let appended = log.append_to(partition, notes(0..2));
        assert_eq!(log.owns(partition), partition.0 % 2 == 1);
        match appended {
            Ok(ack) => assert!(log.owns(partition) && ack.partition() == partition),
            Err(LogError::NotOwned { partition: found, owner: 0, .. }) => assert!(found == partition && !log.owns(partition)),
            other => panic!("{other:?}"),
        }
    }
    let taken: BTreeSet<u32> = (0..4).map(|number| log.append(notes(number..number + 1)).unwrap().partition().0).collect();
    assert_eq!(taken, BTreeSet::from([1, 3]));
    let mut bulk = log.bulk();
    notes(10..20).iter().for_each(|note| bulk.push(note).unwrap());
    assert_eq!(bulk.finish().unwrap().events(), 10);
    shares[0].append_to(Partition(4), notes(0..7)).unwrap();
    assert_eq!((log.events_total(), shares[0].events_total()), (4 + 4 + 10, 7));
    assert_eq!(log.stats().partitions.iter().map(|stats| stats.partition.0).collect::<Vec<_>>(), [1, 3]);
    let ends = log.offsets_at(Tick::MAX).unwrap();
    assert_eq!((ends.len(), ends[0], ends[2], ends[4]), (5, Offset(0), Offset(0), Offset(0)));
    assert_eq!(shares[0].offsets_at(Tick::MAX).unwrap()[4], Offset(7));
    assert!(read_all(log).iter().all(|placed| placed.partition.0 % 2 == 1));
    let owners: BTreeSet<u32> = (0..50).map(|producer| log.owner_of(&producer_name(producer))).collect();
    assert_eq!(owners, BTreeSet::from([0, 1]));
    assert!((0..50).all(|producer| log.owner_of(&producer_name(producer)) == shares[0].owner_of(&producer_name(producer))));
    assert_eq!(shares[0].id(), log.id());
}

#[test]
fn what_cannot_be_opened_as_a_share_is_refused_and_left_as_it_is() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let on = Arc::new(disk.clone()) as Arc<dyn Disk>;
    let open_it = |index, of| open_share(&on, &clock, dir(), share(index, of, &inline()));
    assert!(matches!(open_it(1, 2), Err(LogError::NoLog { .. })));
    open(&disk, &clock, inline()).unwrap().close().unwrap();
    let before = disk.files();
    for (index, of) in [(0, 2), (1, 1), (2, 2), (1, 0), (1, 2)] {
        let refused = open_it(index, of).err().unwrap();
        assert!(matches!(refused, LogError::WrongShare { .. }) && refused.exit_code() == 2, "share {index} of {of}: {refused}");
    }
    assert_eq!(disk.files(), before);
    for (index, of) in [(1, 2), (0, 0), (0, 2)] {
        let prepared = prepare(&on, &clock, dir(), inline()).unwrap();
        assert!(matches!(prepared.open(share(index, of, &inline())), Err(LogError::WrongShare { .. })), "share {index} of {of}");
    }
    drop(prepare(&on, &clock, dir(), share(0, 2, &inline())).unwrap());
    let before = disk.files();
    let other = Log::<Other>::open_share(Arc::clone(&on), Arc::clone(&clock) as Arc<dyn Clock>, dir(), share(1, 2, &inline()));
    assert!(matches!(other, Err(LogError::WrongEvent { .. })));
    assert_eq!(disk.files(), before);
    open_it(1, 2).unwrap();
}

/// The next version of [`Note`], which a share alone does not bring into the log.
#[derive(Clone, Debug, PartialEq, columnar::Columnar, serde::Serialize, serde::Deserialize)]
struct Other {
    number: u64,
}

impl From<Note> for Other {
    fn from(note: Note) -> Self {
        Other { number: note.number }
    }
}

impl lambdaflow::log::Event for Other {
    const NAME: &'static str = "note";
    const VERSION: u32 = 2;
    const FIELDS: &'static [&'static str] = &["number: u64"];
    fn earlier() -> lambdaflow::log::Earlier<Self> {
        lambdaflow::log::Earlier::of::<Note>()
    }
}

/// A cluster whose process 0 died can have processes that still append.
#[test]
fn whoever_wants_the_whole_log_is_refused_while_any_share_is_open() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("log");
    let on = Arc::new(RealDisk) as Arc<dyn Disk>;
    let clock = SimClock::at(1_000);
    let mut shares = cluster_in(&on, &clock, &dir, 3, &inline()).unwrap();
    shares.iter().for_each(|log| {
        log.append(notes(0..2)).unwrap();
    });
    let straggler = shares.pop().unwrap();
    drop(shares);
    let open_whole = || Log::<Note>::open(Arc::clone(&on), Arc::clone(&clock) as Arc<dyn Clock>, &dir, inline());
    let target = place.path().join("copy");
    let conditions = vec!["number = 0".parse().unwrap()];
    let request = RedactRequest { conditions, why: "test".to_string(), options: inline() };
    let refusals = [
        open_whole().err(),
        Log::<Note>::open_existing(Arc::clone(&on), Arc::clone(&clock) as Arc<dyn Clock>, &dir, inline()).err(),
        prepare(&on, &clock, &dir, share(0, 3, &inline())).err(),
        open_share(&on, &clock, &dir, share(2, 3, &inline())).err(),
        lock_dir(&RealDisk, &dir).err(),
        rewrite::<Note>(&RealDisk, &dir, &target, &inline()).err(),
        redact::<Note>(Arc::clone(&on), Arc::clone(&clock) as Arc<dyn Clock>, &dir, &request).err(),
    ];
    for (number, refusal) in refusals.into_iter().enumerate() {
        let refusal = refusal.unwrap_or_else(|| panic!("{number} was not refused"));
        assert_eq!(refusal.exit_code(), 6, "{number}: {refusal}");
        assert!(refusal.to_string().contains(&format!("process {}", std::process::id())), "{number}: {refusal}");
    }
    // Nothing was taken away from it.
    straggler.append(notes(2..4)).unwrap();
    assert!(verify(&RealDisk, &dir).unwrap().is_whole());
    drop(straggler);
    let log = open_whole().unwrap();
    assert_eq!(log.events_total(), 3 * 2 + 2);
    // The other way round: a process that starts late gets no share of a log that one process has.
    let late = open_share(&on, &clock, &dir, share(1, 3, &inline()));
    assert_eq!(late.err().unwrap().exit_code(), 6);
    log.close().unwrap();
    let report = redact::<Note>(Arc::clone(&on), Arc::clone(&clock) as Arc<dyn Clock>, &dir, &request).unwrap();
    assert_eq!(report.matching_total(), 3);
    assert_eq!(cluster_in(&on, &clock, &dir, 2, &inline()).unwrap().len(), 2);
}

/// As a cluster opens a log: the locks first. A process that is so late that its cluster is gone when it gets its lock keeps
/// others out until it ends, and has not opened anything.
#[test]
fn shares_are_locked_before_the_log_is_touched() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("log");
    let on = Arc::new(RealDisk) as Arc<dyn Disk>;
    let clock = SimClock::at(1_000);
    let of_two = |index| Share { index, of: 2 };
    let claim = || Claim::take(Arc::clone(&on), Arc::clone(&clock) as Arc<dyn Clock>, &dir);
    let open_whole = || Log::<Note>::open(Arc::clone(&on), Arc::clone(&clock) as Arc<dyn Clock>, &dir, inline());

    drop(claim().unwrap());
    let late = ShareLock::take(&RealDisk, &dir, of_two(1)).unwrap();
    assert_eq!(open_whole().err().unwrap().exit_code(), 6);
    // Nor does it open its share for a cluster of other numbers.
    let of_three = claim().unwrap();
    assert_eq!(ShareLock::take(&RealDisk, &dir, Share { index: 1, of: 3 }).err().unwrap().exit_code(), 6);
    drop((of_three, late));

    let claimed = claim().unwrap();
    assert_eq!(open_whole().err().unwrap().exit_code(), 6);
    let lock = ShareLock::take(&RealDisk, &dir, of_two(1)).unwrap();
    let prepared = claimed.prepare::<Note>(share(0, 2, &inline())).unwrap();
    let first = prepared.open(share(0, 2, &inline())).unwrap();
    let second =
        Log::<Note>::open_locked_share(Arc::clone(&on), Arc::clone(&clock) as Arc<dyn Clock>, &dir, share(1, 2, &inline()), lock).unwrap();
    first.append(notes(0..1)).unwrap();
    second.append(notes(1..2)).unwrap();
    drop(first);
    assert_eq!(open_whole().err().unwrap().exit_code(), 6);
    drop(second);
    let log = open_whole().unwrap();
    assert_eq!(log.events_total(), 2);
    // Who has the whole log has every share that ever was.
    assert_eq!(ShareLock::take(&RealDisk, &dir, of_two(1)).err().unwrap().exit_code(), 6);
}

#[test]
fn raised_ticks_never_go_back_and_the_mark_stays_ahead_of_the_frontier() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let log = open(&disk, &clock, inline()).unwrap();
    let mut rng = Rng::new(Rng::seed_from_env().unwrap_or(11));
    let (mut floor, mut frontier) = (Tick::ZERO, log.frontier());
    for round in 0..400 {
        let asked = Tick(rng.below(40_000));
        log.raise(asked);
        floor = floor.max(asked);
        assert!(log.frontier() >= frontier, "round {round}");
        if rng.one_in(3) {
            let ack = log.append(notes(round..round + 1)).unwrap();
            assert!(ack.tick() >= floor, "round {round}: tick {} after {floor}", ack.tick());
            floor = ack.tick();
        }
        if rng.one_in(3) {
            let now = log.advance().unwrap();
            assert!(now > frontier && now >= floor, "round {round}: {now} after {frontier}, the floor is {floor}");
            (floor, frontier) = (now, now);
            assert!(info(&disk, dir()).unwrap().reserved >= frontier, "round {round}: announced beyond the mark");
        }
    }
    // The mark follows as if the clock were there: it is not written anew for every few ticks.
    log.raise(Tick(100_000));
    let reserved = info(&disk, dir()).unwrap().reserved;
    assert!(reserved >= Tick(105_000), "{reserved}");
    drop(log);
    clock.set(0);
    assert!(open(&disk.after_kill(), &clock, inline()).unwrap().frontier() >= frontier);
}

#[test]
fn shares_append_at_the_same_time_while_a_reader_without_a_lock_looks() {
    let disk = SimDisk::new();
    let clock = SimClock::at(7);
    let options = LogOptions { segment_bytes_max: 2_000, ..LogOptions::default() };
    let mut counts = Vec::new();
    for of in 1..=3 {
        let shares = cluster(&disk, &clock, of, &options).unwrap();
        let before = LogReader::<Note>::open(&disk, dir()).unwrap().events_total();
        let (acked, count) = (AtomicU64::new(before), 300);
        std::thread::scope(|scope| {
            let acked = &acked;
            let append = |(index, log): (usize, &Log<Note>)| {
                let log = log.clone();
                scope.spawn(move || {
                    for number in 0..count {
                        let first = 1_000_000 * u64::from(of) + 10_000 * index as u64 + number;
                        log.append(notes(first..first + 1)).unwrap();
                        acked.fetch_add(1, Ordering::SeqCst);
                    }
                    log.advance().unwrap();
                })
            };
            let appending: Vec<_> = shares.iter().enumerate().map(append).collect();
            while appending.iter().any(|thread| !thread.is_finished()) {
                let acked = acked.load(Ordering::SeqCst);
                let found = LogReader::<Note>::open(&disk, dir()).unwrap().events_total();
                assert!(found >= acked, "{found} events, {acked} were acknowledged before");
            }
        });
        counts.push(LogReader::<Note>::open(&disk, dir()).unwrap().events_total());
        let report = verify(&disk, dir()).unwrap();
        assert!(report.is_whole(), "{:?}", report.damage);
        // The first ends cleanly, the others do not.
        let mut shares = shares.into_iter();
        shares.next().unwrap().close().unwrap();
        drop(shares);
        assert_eq!(info(&disk, dir()).unwrap().closed, of == 1, "{of} processes");
    }
    assert_eq!(counts, [300, 900, 1_800]);
    let log = open(&disk.after_kill(), &clock, options).unwrap();
    let found: BTreeSet<u64> = numbers(&read_all(&log)).into_iter().collect();
    assert_eq!((found.len(), log.events_total()), (1_800, 1_800));
}

#[test]
fn a_log_that_a_cluster_left_is_copied_salvaged_and_redacted_as_any_other() {
    let (disk, clock, ..) = planted();
    let shares = cluster(&disk, &clock, 3, &inline_small()).unwrap();
    shares.iter().for_each(|log| {
        log.append(notes(20..30)).unwrap();
    });
    let all = numbers(&read_shares(&shares));
    drop(shares);
    let disk = disk.after_kill();
    let repeat = |log: &Log<Note>| {
        let before = log.events_total();
        for producer in 0..PRODUCERS {
            log.append_as(&producer_name(producer), 0, produced(producer, 0)).unwrap();
        }
        assert_eq!(log.events_total(), before, "all were there");
    };
    let copied = |name: &str| {
        let path = Path::new("/place").join(name);
        let opened = Log::<Note>::open_existing(Arc::new(disk.clone()), Arc::clone(&clock) as Arc<dyn Clock>, &path, inline());
        let log = opened.unwrap();
        assert_eq!(numbers(&sorted(read_all(&log))), all, "{name}");
        repeat(&log);
    };
    rewrite::<Note>(&disk, dir(), Path::new("/place/rewritten"), &inline()).unwrap();
    copied("rewritten");
    assert!(salvage::<Note>(&disk, dir(), Path::new("/place/salvaged"), &inline()).unwrap().is_whole());
    copied("salvaged");
    // Without `log.json`, what spreads producers is told by where they are.
    let meta = dir().join("log.json");
    let content = disk.files()[&meta].clone();
    disk.plant(&meta, b"{}");
    assert!(salvage::<Note>(&disk, dir(), Path::new("/place/guessed"), &inline()).unwrap().is_whole());
    copied("guessed");
    disk.plant(&meta, &content);
    let request = RedactRequest { conditions: vec!["number = 25".parse().unwrap()], why: "test".to_string(), options: inline() };
    let gone = redact::<Note>(Arc::new(disk.clone()), Arc::clone(&clock) as Arc<dyn Clock>, dir(), &request).unwrap();
    assert_eq!(gone.matching_total(), 3);
    let shares = cluster(&disk, &clock, 2, &inline()).unwrap();
    assert_eq!(read_shares(&shares).len(), all.len() - 3);
    assert!(shares.iter().all(|log| log.revision() == 1));
}

/// One process leaves what it always did: an older release can go on with it.
#[test]
fn a_log_that_never_had_shares_says_nothing_of_them() {
    let contents = |prepared: bool| {
        let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
        let options = LogOptions { partitions: 2, ..inline() };
        let log = match prepared {
            true => cluster(&disk, &clock, 1, &options).unwrap().remove(0),
            false => open(&disk, &clock, options).unwrap(),
        };
        assert!(log.share().is_whole());
        log.append(notes(0..3)).unwrap();
        log.close().unwrap();
        disk.files().into_iter().filter(|(path, _)| path.extension().is_none() || path.ends_with("log.json")).collect::<Vec<_>>()
    };
    for prepared in [false, true] {
        let files = contents(prepared);
        assert_eq!(files.len(), 2, "log.json and mark: {files:?}");
        for (path, bytes) in files {
            let text = String::from_utf8(bytes).unwrap();
            assert!(!text.contains("producer_partitions") && !text.contains("began"), "{}: {text}", path.display());
        }
    }
}
