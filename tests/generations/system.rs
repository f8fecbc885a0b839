//! A log, both layers and the serving layer of one process over a disk of one's choice, driven step by step, and the plain
//! computation of its views.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use columnar::Columnar;
use lambdaflow::layers::{Coordinator, Cycle, CycleError, Dataflow, Handover, Node, NodeOptions, OneProcess, Started};
use lambdaflow::log::{Durability, Event, Execution, Log, LogError, LogOptions, SimClock, Tick};
use lambdaflow::operators::{Count, Events, Sum, Views};
use lambdaflow::runs::{AnswerRow, GenerationStore, Query};
use lambdaflow::serving::{Read, Serving};
use lambdaflow::storage::Disk;
use serde::{Deserialize, Serialize};

/// Money moved to an account.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Columnar)]
pub struct Transfer {
    /// Counts up: tells events apart.
    pub id: u64,
    pub account: u64,
    pub note: String,
    pub amount: i64,
}

impl Event for Transfer {
    const NAME: &'static str = "tests.Transfer";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["id: u64", "account: u64", "note: String", "amount: i64"];
}

/// Views of the operators that keep state of different kinds: sums, running counts, groups, touched keys, whole collections.
pub fn bank(transfers: Events<'_, Transfer>, views: &mut Views) {
    views.publish(
        "balances",
        transfers.clone().aggregate::<u64, (Count, Sum)>(|transfer, groups| {
            groups.add(*transfer.account, (Count::one(), Sum(*transfer.amount)));
        }),
    );
    let notes = transfers.clone().map(|transfer| String::from_utf8_lossy(transfer.note).into_owned());
    let counts = notes.clone().count();
    views.publish("notes", notes.distinct().map(|note| (note, ())));
    views.publish("top_notes", counts.map(|(note, n)| (0u64, (n as u64, note))).top_k(2, |row| row.clone()));
    let accounts = transfers.map(|transfer| *transfer.account % 4);
    let same = accounts.opaque("Same", |rows| rows);
    views.publish("classes", same.map(|class| (class, ())));
}

/// A later version of it: another amount for some, a view more, and a view less.
pub fn changed_bank(transfers: Events<'_, Transfer>, views: &mut Views) {
    views.publish(
        "balances",
        transfers.clone().aggregate::<u64, (Count, Sum)>(|transfer, groups| {
            let fee = i64::from(*transfer.account == 1);
            groups.add(*transfer.account, (Count::one(), Sum(*transfer.amount - fee)));
        }),
    );
    let notes = transfers.clone().map(|transfer| String::from_utf8_lossy(transfer.note).into_owned());
    views.publish("notes", notes.clone().distinct().map(|note| (note, ())));
    views.publish("lengths", notes.map(|note| note.len() as u64).count());
}

/// Rows `(key, value, count)` as JSON, by view.
pub type Answers = BTreeMap<String, BTreeSet<String>>;

fn row(key: impl Serialize, value: impl Serialize, count: isize) -> String {
    serde_json::json!([key, value, count]).to_string()
}

/// What [`bank`] must answer.
pub fn expected(events: &[Transfer]) -> Answers {
    let mut balances: BTreeMap<u64, (u64, i64)> = BTreeMap::new();
    let (mut notes, mut classes): (BTreeMap<&str, u64>, BTreeMap<u64, isize>) = Default::default();
    for event in events {
        let balance = balances.entry(event.account).or_default();
        *balance = (balance.0 + 1, balance.1 + event.amount);
        *notes.entry(&event.note).or_default() += 1;
        *classes.entry(event.account % 4).or_default() += 1;
    }
    let mut best: Vec<(u64, &str)> = notes.iter().map(|(note, n)| (*n, *note)).collect();
    best.sort_by(|a, b| b.cmp(a));
    let views = [
        ("balances", balances.iter().map(|(account, balance)| row(account, balance, 1)).collect()),
        ("notes", notes.keys().map(|note| row(note, (), 1)).collect()),
        ("top_notes", best.iter().take(2).map(|best| row(0, best, 1)).collect()),
        ("classes", classes.iter().map(|(class, n)| row(class, (), *n)).collect()),
        ("errors", BTreeSet::new()),
    ];
    views.into_iter().map(|(name, rows)| (name.to_owned(), rows)).collect()
}

/// Answers as they are compared.
pub fn rows(answer: Vec<AnswerRow>) -> BTreeSet<String> {
    answer.into_iter().map(|AnswerRow { key, value, count }| row(key, value, count)).collect()
}

/// How a system is run.
#[derive(Clone)]
pub struct Settings {
    pub workers: usize,
    pub batch_events: u64,
    pub version: String,
    pub dataflow: Arc<dyn Dataflow<Transfer>>,
    pub keep: usize,
    pub durability: Durability,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: 1,
            batch_events: u64::MAX,
            version: "1".to_owned(),
            dataflow: Arc::new(bank),
            keep: 2,
            durability: Durability::Sync,
        }
    }
}

/// One life of a process.
pub struct System {
    pub log: Log<Transfer>,
    pub serving: Arc<Serving>,
    pub started: Started,
    node: Arc<Node<Transfer>>,
    coordinator: Coordinator,
}

/// Where the log is.
pub fn dir() -> PathBuf {
    Path::new("/log").to_path_buf()
}

/// Why a life did not begin.
#[derive(Debug)]
#[expect(dead_code, reason = "shown when a test fails")]
pub enum NoStart {
    Log(LogError),
    Generations(String),
    Cycle(CycleError),
}

pub fn open_log(disk: &Arc<dyn Disk>, clock: &Arc<SimClock>) -> Result<Log<Transfer>, LogError> {
    open_log_with(disk, clock, Durability::Sync)
}

fn open_log_with(disk: &Arc<dyn Disk>, clock: &Arc<SimClock>, durability: Durability) -> Result<Log<Transfer>, LogError> {
    Log::open(Arc::clone(disk), Arc::clone(clock) as _, &dir(), log_options(durability))
}

pub fn log_options(durability: Durability) -> LogOptions {
    let execution = Execution::Inline;
    LogOptions { partitions: 2, segment_bytes_max: 2_000, durability, execution, ..LogOptions::default() }
}

pub fn store(disk: &Arc<dyn Disk>, log: &Log<Transfer>, keep: usize) -> GenerationStore {
    GenerationStore::open(Arc::clone(disk), &dir(), log.id(), "bank", keep).expect("the disk can be read")
}

impl System {
    pub fn start(disk: &Arc<dyn Disk>, clock: &Arc<SimClock>, settings: &Settings) -> Result<Self, NoStart> {
        let log = open_log_with(disk, clock, settings.durability).map_err(NoStart::Log)?;
        let store = GenerationStore::open(Arc::clone(disk), &dir(), log.id(), "bank", settings.keep);
        let store = store.map_err(|error| NoStart::Generations(error.to_string()))?;
        let options = NodeOptions {
            crew: settings.workers.into(),
            history: u64::MAX,
            batch_events: settings.batch_events,
            version: settings.version.clone(),
            store: Some(Arc::new(store)),
        };
        let serving = Arc::new(Serving::default());
        let node = Node::start(Arc::clone(&settings.dataflow), log.clone(), options, Arc::clone(&serving));
        let node = Arc::new(node.map_err(NoStart::Generations)?);
        let mut coordinator = Coordinator::new(Box::new(OneProcess(Arc::clone(&node))));
        let started = coordinator.start().map_err(NoStart::Cycle)?;
        node.settle();
        Ok(Self { log, serving, started, node, coordinator })
    }

    pub fn cycle(&mut self, cycle: Cycle) -> Result<Handover, CycleError> {
        let handover = self.coordinator.cycle(cycle);
        // So that a seed repeats a run.
        assert!(self.node.settle(), "merging panicked");
        handover
    }

    /// All events of the log, in the order of their numbers.
    pub fn events(&self) -> Vec<Transfer> {
        self.events_before(Tick::MAX)
    }

    pub fn events_before(&self, end: Tick) -> Vec<Transfer> {
        let mut cursor = self.log.cursor(Tick::ZERO);
        let mut events = Vec::new();
        while let Some(block) = cursor.next().expect("the log can be read") {
            let block = block.slice_ticks(Tick::ZERO..end);
            events.extend(block.range().map(|row| Transfer::into_owned(columnar::Index::get(&block.columns(), row))));
        }
        events.sort();
        events
    }

    /// All answers once everything in the log is in.
    pub fn answers(&self) -> Answers {
        let frontier = self.log.advance().expect("the tick is closed");
        let last = Tick(frontier.0 - 1);
        self.serving.wait(last, Duration::from_secs(60)).expect("the speed layer follows");
        self.answers_at(Some(last))
    }

    pub fn answers_at(&self, as_of: Option<Tick>) -> Answers {
        let view = |name: String| {
            let read = Read { as_of, ..Read::latest(&name, Query::Scan { limit: usize::MAX }) };
            let answer = self.serving.read(&read).unwrap_or_else(|error| panic!("view {name}: {error}"));
            (name, rows(answer.rows))
        };
        self.serving.views().into_iter().map(|info| view(info.name)).collect()
    }
}
