//! `check_layers`: base at B plus changes after B equals the run from scratch, for random cuts, epochs and workers.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::layers::{BatchOutput, Blueprint, Dataflow};
use crate::log::{Block, Event, Offset, Partition, Tick};
use crate::runs::{AnswerRow, Audited, Generation, GenerationStore, Query, Shard};
use crate::storage::SimDisk;

use super::team::{Connected, Followed, Team};

/// A small seeded generator of numbers (splitmix64), enough for test cases; a seed is the whole recipe.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator with the given seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed of this run: `LAMBDAFLOW_SEED` if it is set, else a fresh one. Print it, so that a failure can be repeated.
    pub fn seed_from_environment() -> u64 {
        match std::env::var("LAMBDAFLOW_SEED").map(|seed| seed.parse()) {
            Ok(Ok(seed)) => seed,
            Ok(Err(_)) => panic!("LAMBDAFLOW_SEED is not a number"),
            Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64),
        }
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound.max(1)
    }
}

/// How thoroughly the law is checked.
#[derive(Clone, Debug)]
pub struct Law {
    /// Worker counts to use, in turn.
    pub workers: Vec<usize>,
    /// How many random pairs of cuts to check.
    pub cuts: usize,
    /// Seed of cuts and block sizes.
    pub seed: u64,
    /// How workers exchange rows. None: as threads, except in one round, for which the seed chooses some other way and a number
    /// of workers that goes with it.
    pub connected: Option<Connected>,
}

impl Default for Law {
    fn default() -> Self {
        Self { workers: vec![1, 2, 3], cuts: 3, seed: Random::seed_from_environment(), connected: None }
    }
}

/// All views of a dataflow at some tick, by name; `errors` among them.
pub type Answers = BTreeMap<String, Vec<AnswerRow>>;

/// Checks the layer law for a dataflow over events in order of their ticks. Returns the number of (cut, tick) pairs
/// checked and the answers after the last event.
///
/// For each pair of cuts B1 <= B2 it compares, at every tick from the cut on, the run from scratch with: a full batch to B1
/// and a speed graph on it; an incremental batch from B1 to B2 and a speed graph on that; the same, at the last few ticks,
/// after both generations were written to files, merged and given to other workers, with the ticks before coalesced; and when the
/// speed graph takes the first ticks after the cut in one epoch. It also runs the audits of both handovers. One pair of cuts is
/// checked with every row written and read, between threads or between processes: [`Law::connected`].
///
/// # Panics
/// If the law does not hold, with the cut, the tick, the view, the rows and the seed.
pub fn check_layers<E: Event>(dataflow: impl Dataflow<E>, events: &[(Tick, E)], law: &Law) -> (usize, Answers) {
    let (checks, truth) = check_layers_by_tick(dataflow, events, law);
    (checks, truth.into_iter().next_back().unwrap_or_default())
}

/// [`check_layers`] with the answers at every tick, from 0 to the last event's, for comparison with a reference.
///
/// # Panics
/// If the law does not hold, with the cut, the tick, the view, the rows and the seed.
pub fn check_layers_by_tick<E: Event>(dataflow: impl Dataflow<E>, events: &[(Tick, E)], law: &Law) -> (usize, Vec<Answers>) {
    assert!(events.is_sorted_by_key(|(tick, _)| *tick), "events must be in order of their ticks");
    let dataflow: Arc<dyn Dataflow<E>> = Arc::new(dataflow);
    let end = Tick(events.last().map_or(1, |(tick, _)| tick.0 + 1));
    let mut random = Random::new(law.seed);

    let case = Case { dataflow: &dataflow, events, end };
    let scratch = case.follow(&Team::new(Connected::Threads, 1), &Generation::empty(1), &mut random);
    let truth: Vec<Answers> = (0..end.0).map(|tick| scratch.answers(Tick(tick))).collect();
    let mut checks = 0;
    let between_processes = random.below(law.cuts as u64) as usize;
    for round in 0..law.cuts {
        let (connected, workers) = match law.connected {
            None if round == between_processes => Connected::any(&mut random),
            connected => (connected.unwrap_or(Connected::Threads), law.workers[round % law.workers.len()]),
        };
        let team = &Team::new(connected, workers);
        let first = Tick(1 + random.below(end.0));
        let second = Tick(first.0 + random.below(end.0 - first.0 + 1));
        let context = format!("seed {}, {workers} workers, {connected:?}, cuts {} and {}", law.seed, first.0, second.0);

        let full = case.generation(team, &Generation::empty(team.peers()), first, &mut random);
        let on_full = case.follow(team, &full, &mut random);
        checks += on_full.compare(&truth, &format!("full batch, {context}"));

        let incremental = case.generation(team, &full, second, &mut random);
        for from in [&full, &Generation::empty(team.peers())] {
            on_full.audit(&case.batch(team, from, second, &mut random), second, !from.is_initial(), &context);
        }
        let on_incremental = case.follow(team, &incremental, &mut random);
        checks += on_incremental.compare(&truth, &format!("incremental batch, {context}"));

        let others = law.workers[(round + 1) % law.workers.len()];
        let (other, others) = connected.others(others);
        let other_team = Team::new(other, others);
        let on_disk = case.through_files(team, &[first, second], &other_team, &mut random);
        let history = 1 + random.below(4);
        let on_merged = case.follow_from(&other_team, &on_disk, second, history, &mut random);
        let read_by = format!("merged files read by {} workers in all", other_team.peers());
        checks += on_merged.compare(&truth, &format!("{read_by}, the last {history} ticks, {context}"));

        let from = Tick(second.0 + random.below(end.0 - second.0 + 1));
        let caught_up = case.follow_from(team, &incremental, from, u64::MAX, &mut random);
        checks += caught_up.compare(&truth, &format!("caught up to {} in one epoch, {context}", from.0));
    }
    (checks, truth)
}

/// The answers after the last event, when the batch layer computed everything before the last of `cuts` (the first cut from
/// scratch, each later one on the generation before) and the speed layer the rest.
pub fn answers_after_cuts<E: Event>(dataflow: impl Dataflow<E>, events: &[(Tick, E)], cuts: &[Tick], workers: usize, seed: u64) -> Answers {
    let dataflow: Arc<dyn Dataflow<E>> = Arc::new(dataflow);
    let end = Tick(events.last().map_or(1, |(tick, _)| tick.0 + 1));
    let mut random = Random::new(seed);
    let case = Case { dataflow: &dataflow, events, end };
    let team = Team::new(Connected::Threads, workers);
    let mut base = Generation::empty(workers);
    for cut in cuts {
        base = case.generation(&team, &base, *cut, &mut random);
    }
    case.follow(&team, &base, &mut random).answers(Tick(end.0 - 1))
}

/// Cuts the events with ticks in `from..to` into blocks of random sizes, each with the offsets it has in the log.
fn blocks<E: Event>(events: &[(Tick, E)], ticks: Range<Tick>, random: &mut Random) -> Vec<Block<E>> {
    let first = events.partition_point(|(tick, _)| *tick < ticks.start);
    let end = events.partition_point(|(tick, _)| *tick < ticks.end).max(first);
    let mut left = &events[first..end];
    let mut blocks = Vec::new();
    while !left.is_empty() {
        let offset = Offset((end - left.len()) as u64);
        let (block, rest) = left.split_at(1 + random.below(left.len().min(40) as u64) as usize);
        blocks.push(Block::from_events_at(Partition(0), offset, block.iter().cloned()));
        left = rest;
    }
    blocks
}

/// A dataflow over events before a tick.
struct Case<'a, E: Event> {
    dataflow: &'a Arc<dyn Dataflow<E>>,
    events: &'a [(Tick, E)],
    end: Tick,
}

impl<E: Event> Case<'_, E> {
    /// What a batch from a generation to a cut makes.
    fn batch(&self, team: &Team, base: &Generation, cut: Tick, random: &mut Random) -> BatchOutput {
        let blocks = blocks(self.events, base.frontier..cut, random);
        team.batch(self.dataflow, base, blocks, cut, random)
    }

    /// The generation at a cut.
    fn generation(&self, team: &Team, base: &Generation, cut: Tick, random: &mut Random) -> Generation {
        Generation { id: base.id + 1, frontier: cut, shards: self.batch(team, base, cut, random).shards }
    }

    /// A speed graph that has followed all events since its base, tick by tick.
    fn follow(&self, team: &Team, base: &Generation, random: &mut Random) -> Speed<E> {
        self.follow_from(team, base, base.frontier, u64::MAX, random)
    }

    /// Sees the ticks before `from` in one epoch, keeps the last `history` ticks readable and coalesces those before.
    fn follow_from(&self, team: &Team, base: &Generation, from: Tick, history: u64, random: &mut Random) -> Speed<E> {
        let blocks = blocks(self.events, base.frontier..self.end, random);
        let followed = team.follow(self.dataflow, base, from, history, (blocks, self.end), random);
        let first = if from > base.frontier { from } else { Tick(from.0.saturating_sub(1)) };
        Speed { followed, first: first.max(Tick(self.end.0.saturating_sub(history))), end: self.end }
    }

    /// The generation after some cuts, each written to files; these are merged, and given to other workers.
    fn through_files(&self, team: &Team, cuts: &[Tick], others: &Team, random: &mut Random) -> Generation {
        let blueprint = Blueprint::of(self.dataflow, "law").unwrap_or_else(|reason| panic!("{reason}"));
        let (disk, log_id) = (SimDisk::new(), "0123456789abcdef0123456789abcdef");
        let store = GenerationStore::open(Arc::new(disk), Path::new("/law"), log_id, "law", 1).expect("the disk is empty");
        let mut base = Generation::empty(team.peers());
        for cut in cuts {
            let mut output = self.batch(team, &base, *cut, random);
            let parts = output.bases.iter().zip(&mut output.frozen).enumerate();
            let shards = parts.map(|(worker, (base, frozen))| Arc::new(base.plus_written(frozen, &store, worker).expect("it is written")));
            base = Generation { id: base.id + 1, frontier: *cut, shards: shards.collect() };
        }
        let merge =
            |(worker, shard): (usize, &Arc<Shard>)| shard.compact_files(&store, worker, &AtomicBool::new(false)).expect("they are merged");
        base.shards.iter().enumerate().for_each(merge);
        let files = base.shards.iter().map(|shard| shard.files()).collect();
        Generation { shards: blueprint.restore(&store, files, team.peers(), &others.peers().into()).expect("they are read"), ..base }
    }
}

/// A speed graph that has followed all events.
struct Speed<E: Event> {
    followed: Followed<E>,
    /// The earliest tick at which it is exact.
    first: Tick,
    end: Tick,
}

impl<E: Event> Speed<E> {
    /// In each process, its rows at a cut, or their changes since its base, must be those of a batch to there.
    fn audit(&self, batch: &BatchOutput, cut: Tick, changes: bool, context: &str) {
        for view in &batch.views {
            let mut frozen = batch.frozen.iter();
            for graph in &self.followed.graphs {
                let own = frozen.by_ref().take(graph.base.shards.len());
                let runs: Vec<_> = own.map(|frozen| vec![&*frozen[view.slot]]).collect();
                let audited = if changes { Audited::Changes(runs) } else { Audited::Whole(runs) };
                let audit = graph.views[&view.info.name].audit(Tick(cut.0 - 1), &audited).expect("the cut is readable");
                assert!(audit.agrees(), "the audit at {} differs, {context}: {audit:#?}", cut.0);
            }
        }
    }

    /// The rows of all processes, those of the first before those of the next.
    fn answers(&self, at: Tick) -> Answers {
        let mut answers = Answers::new();
        for (name, view) in self.followed.graphs.iter().flat_map(|graph| &graph.views) {
            let rows = view.read(at, &Query::Scan { limit: usize::MAX }).expect("the tick is readable");
            answers.entry(name.clone()).or_default().extend(rows);
        }
        answers
    }

    fn compare(&self, truth: &[Answers], context: &str) -> usize {
        let from = self.first.0;
        let processes = self.followed.graphs.len();
        for tick in from..self.end.0 {
            for (want, got) in truth[tick as usize].iter().zip(self.answers(Tick(tick))) {
                let same = *want.1 == got.1 || processes > 1 && in_any_order(want.1) == in_any_order(&got.1);
                let message = format!("the law does not hold for view `{}` at tick {tick}; {context}", want.0);
                assert!(same, "{message}\n  from scratch: {:#?}\n  from both layers: {:#?}", want.1, got.1);
            }
        }
        (self.end.0 - from) as usize
    }
}

/// Rows in an order of their own, for when each process has some of them.
fn in_any_order(rows: &[AnswerRow]) -> Vec<(String, String, isize)> {
    let mut rows: Vec<_> = rows.iter().map(|row| (row.key.to_string(), row.value.to_string(), row.count)).collect();
    rows.sort_unstable();
    rows
}
