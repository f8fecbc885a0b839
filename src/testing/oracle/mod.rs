//! An oracle: the same views over the same events, computed by a SQL engine that shares no code with us.
//!
//! The law says that both layers agree with a run from scratch. It does not say that the run from scratch is right: a query
//! that was misunderstood is misunderstood in both layers. Hence SQL, in DuckDB, over the events as tables.

mod rows;
mod tables;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, ClusterError};
use crate::layers::{Crew, Dataflow, Feed, Replay, SpeedGraph, SpeedWorkers, run_batch};
use crate::log::{BLOCK_EVENTS_MAX, Block, Event, Offset, Partition, Tick};
use crate::operators::{Codec, ERRORS};
use crate::runs::{AnswerRow, Generation, Query};

use super::Random;
use rows::{Differences, Rows};
pub use tables::{Cell, Tables};

/// The program that loads the tables and answers the queries.
const ENGINE: &str = include_str!("engine.py");
/// Its exit code where DuckDB is missing.
const ENGINE_MISSING: i32 = 3;
/// The interpreter that runs it, if not `python3`.
pub const PYTHON_VARIABLE: &str = "LAMBDAFLOW_PYTHON";

/// Differing rows that a report shows, of each kind.
const ROWS_SHOWN_MAX: usize = 5;
/// Longest wait between two looks at how far the speed layer has come; it says when it has moved.
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Blocks of events that each process of a cluster gets, at the least, if there are so many events.
const BLOCKS_MIN: u64 = 8;

type MakeEvents<E> = dyn Fn(u64, u64) -> Box<dyn Iterator<Item = (Tick, E)>> + Send + Sync;
type Export<E> = dyn Fn(Box<dyn Iterator<Item = (Tick, E)>>, &mut Tables) -> std::io::Result<()> + Send + Sync;

/// Events, the same as tables, and the views as SQL over those tables.
///
/// A query's columns are the values of the view's key, then those of its value, both flattened: tuples, structs and lists
/// count as what is in them, in order. Integers of up to 64 bits are compared exactly, floats within 1e-9.
pub struct Oracle<E: Event> {
    events: Arc<MakeEvents<E>>,
    export: Arc<Export<E>>,
    queries: Vec<(String, String)>,
}

impl<E: Event> Clone for Oracle<E> {
    fn clone(&self) -> Self {
        Self { events: Arc::clone(&self.events), export: Arc::clone(&self.export), queries: self.queries.clone() }
    }
}

impl<E: Event> Oracle<E> {
    /// `events` makes a number of events from a seed, in order of their ticks, the same ones each time. `export` writes them
    /// as tables; facts that are taken back by later events are its business.
    pub fn new<I: Iterator<Item = (Tick, E)> + 'static>(
        events: impl Fn(u64, u64) -> I + Send + Sync + 'static,
        export: impl Fn(Box<dyn Iterator<Item = (Tick, E)>>, &mut Tables) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { events: Arc::new(move |seed, count| Box::new(events(seed, count))), export: Arc::new(export), queries: Vec::new() }
    }

    /// Says what a view is in SQL. Views without a query are not compared, and reported as such; `errors` must be empty then.
    pub fn query(mut self, view: &str, sql: &str) -> Self {
        self.queries.push((view.to_owned(), sql.to_owned()));
        self
    }

    /// Computes the views in both layers and by SQL, and compares them. `dir` must be an empty directory; tables and answers
    /// are left in it.
    ///
    /// A third of the ticks, more or less, is a full batch, a third an incremental one, and the rest is the speed layer's,
    /// in an epoch for each tick. The seed decides where it is cut.
    pub fn check(&self, dataflow: &Arc<dyn Dataflow<E>>, scale: Scale, dir: &Path) -> Result<Report, OracleError> {
        let outcomes = self.ask(scale, dir)?;
        let (layers, made) = self.run(dataflow, scale, &Crew::from(scale.workers))?;
        self.compare(&layers, made, outcomes, dir, |_, rows| Ok(rows))
    }

    /// As [`Oracle::check`], as one of the processes of a cluster, all of which must be given the same scale. The events are divided between them; process 0 asks the SQL engine, and the report is its own.
    pub fn check_in(
        &self,
        cluster: &Cluster,
        dataflow: &Arc<dyn Dataflow<E>>,
        scale: Scale,
        exchange: Codec,
        dir: &Path,
    ) -> Result<Option<Report>, OracleError> {
        let checked = self
            .try_check_in(cluster, dataflow, scale, &cluster.crew().codec(exchange), dir)
            .map_err(|error| cluster.broken_by(&error.to_string()).map_or(error, OracleError::Cluster));
        checked.inspect_err(|error| cluster.leave(&format!("it could not compare: {error}")))
    }

    fn try_check_in(
        &self,
        cluster: &Cluster,
        dataflow: &Arc<dyn Dataflow<E>>,
        scale: Scale,
        crew: &Crew,
        dir: &Path,
    ) -> Result<Option<Report>, OracleError> {
        let outcomes = (crew.process() == 0).then(|| self.ask(scale, dir)).transpose()?;
        let (layers, made) = self.run(dataflow, scale, crew)?;
        // Its workers cannot be waited for without those of the other processes.
        std::mem::forget(Arc::clone(&layers.workers));
        let mut report = None;
        if let Some(outcomes) = outcomes {
            // In the order in which the others tell them: that of the names.
            let mut others = std::collections::BTreeMap::new();
            for view in layers.graph.views.keys() {
                let mut rows = Vec::new();
                for process in cluster.others() {
                    rows.extend(cluster.hear::<Vec<AnswerRow>>(process)?);
                }
                others.insert(view.clone(), rows);
            }
            let all = |view: &str, mut rows: Vec<AnswerRow>| {
                rows.extend(others.remove(view).unwrap_or_default());
                Ok(rows)
            };
            report = Some(self.compare(&layers, made, outcomes, dir, all)?);
        } else {
            for view in layers.graph.views.keys() {
                cluster.tell(0, &layers.rows(view)?);
            }
        }
        cluster.part()?;
        Ok(report)
    }

    /// Has the engine answer all queries; the answers are in files of `dir`.
    fn ask(&self, scale: Scale, dir: &Path) -> Result<Vec<Outcome>, OracleError> {
        // First, since it is known soonest whether there is an oracle at all.
        let mut tables = Tables::new(dir);
        (self.export)((self.events)(scale.seed, scale.events), &mut tables).map_err(|error| storage(dir, error))?;
        let tables = tables.finish().map_err(|error| storage(dir, error))?;
        let queries = self.queries.iter().enumerate();
        let queries: Vec<_> =
            queries.map(|(at, (view, sql))| serde_json::json!({"view": view, "sql": sql, "file": answer_file(dir, at)})).collect();
        answer(&serde_json::json!({"tables": tables, "queries": queries}))
    }

    /// Runs both layers over the crew's share of the events.
    fn run(&self, dataflow: &Arc<dyn Dataflow<E>>, scale: Scale, crew: &Crew) -> Result<(Layers<E>, Made), OracleError> {
        let started = Instant::now();
        let blocks = Blocks::new((self.events)(scale.seed, scale.events), scale.events, crew);
        let made = Made { scale, events: blocks.events, processes: crew.processes(), ms: elapsed_ms(started) };
        Ok((Layers::run(dataflow, &blocks, &scale, crew)?, made))
    }

    /// Compares the views with the answers. `all` makes all rows of a view from those that are here.
    fn compare(
        &self,
        layers: &Layers<E>,
        made: Made,
        outcomes: Vec<Outcome>,
        dir: &Path,
        mut all: impl FnMut(&str, Vec<AnswerRow>) -> Result<Vec<AnswerRow>, OracleError>,
    ) -> Result<Report, OracleError> {
        let mut ours = |view: &str| layers.rows(view).and_then(|rows| all(view, rows));
        let mut views = Vec::new();
        for (number, ((view, _), outcome)) in self.queries.iter().zip(outcomes).enumerate() {
            let failed = |error| OracleError::Query { view: view.clone(), error };
            if let Some(error) = outcome.error {
                return Err(failed(error));
            }
            let answers = BufReader::new(std::fs::File::open(answer_file(dir, number)).map_err(|error| storage(dir, error))?);
            let compared = compare(view, ours(view)?, answers).map_err(|error| failed(error.to_string()))?;
            views.push(Compared { oracle_ms: outcome.ms, ..compared });
        }
        // No event of an oracle is to be one that the dataflow cannot take.
        let mut others: Vec<String> = layers.graph.views.keys().cloned().collect();
        others.retain(|view| self.queries.iter().all(|(queried, _)| queried != view));
        if others.iter().any(|view| view == ERRORS) {
            others.retain(|view| view != ERRORS);
            views.push(compare(ERRORS, ours(ERRORS)?, std::io::empty()).map_err(|error| storage(dir, error))?);
        }
        Ok(Report {
            views,
            not_compared: others,
            events: made.events,
            seed: made.scale.seed,
            workers: made.scale.workers,
            processes: made.processes,
            cuts: layers.cuts,
            last_tick: layers.last,
            events_ms: made.ms,
            batch_ms: layers.batch_ms,
            speed_ms: layers.speed_ms,
        })
    }
}

/// What was compared, beside what was found.
struct Made {
    scale: Scale,
    events: u64,
    processes: usize,
    ms: u64,
}

fn answer_file(dir: &Path, at: usize) -> PathBuf {
    dir.join(format!("answer-{at}.json"))
}

fn storage(dir: &Path, source: std::io::Error) -> OracleError {
    OracleError::Storage { dir: dir.to_owned(), source }
}

/// Compares a view's rows with the lines of an answer.
fn compare(view: &str, ours: Vec<AnswerRow>, oracle: impl BufRead) -> std::io::Result<Compared> {
    let (our_rows, mut oracle_rows) = (ours.iter().map(|row| row.count).sum(), 0);
    let mut rows = Rows::default();
    ours.into_iter().for_each(|row| rows.add_ours(row));
    for line in oracle.lines() {
        rows.take_oracle(&line?)?;
        oracle_rows += 1;
    }
    let Differences { missing: mut missing_shown, extra: mut extra_shown } = rows.differences();
    let (missing, extra) = (missing_shown.len(), extra_shown.len());
    missing_shown.truncate(ROWS_SHOWN_MAX);
    extra_shown.truncate(ROWS_SHOWN_MAX);
    Ok(Compared { view: view.to_owned(), rows: our_rows, oracle_rows, missing, extra, missing_shown, extra_shown, oracle_ms: 0 })
}

/// How much is compared.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// How many events.
    pub events: u64,
    /// What they, and the cuts, are made from.
    pub seed: u64,
    /// Workers of each layer, in each process.
    pub workers: usize,
}

/// What a comparison found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The views that have a query.
    pub views: Vec<Compared>,
    /// The views that have none.
    pub not_compared: Vec<String>,
    /// Events in all.
    pub events: u64,
    /// The seed.
    pub seed: u64,
    /// Workers of each layer, in each process.
    pub workers: usize,
    /// Processes.
    pub processes: usize,
    /// The full batch ends before the first cut, the incremental one before the second; the speed layer has the rest.
    pub cuts: [Tick; 2],
    /// The tick at which the views were read.
    pub last_tick: Tick,
    /// Milliseconds for making the events.
    pub events_ms: u64,
    /// Milliseconds of each of the two batches.
    pub batch_ms: [u64; 2],
    /// Milliseconds of the speed layer.
    pub speed_ms: u64,
}

impl Report {
    /// Whether all rows of all views match.
    pub fn agrees(&self) -> bool {
        self.views.iter().all(Compared::agrees)
    }
}

/// A view beside its query.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    /// The view's name.
    pub view: String,
    /// Rows of the view, by multiplicity.
    pub rows: isize,
    /// Rows of the query.
    pub oracle_rows: isize,
    /// Rows of the query that the view has not.
    pub missing: usize,
    /// Rows of the view that the query has not.
    pub extra: usize,
    /// The first of the missing rows, as flat JSON arrays.
    pub missing_shown: Vec<String>,
    /// The first of the extra rows.
    pub extra_shown: Vec<String>,
    /// Milliseconds that the oracle took.
    pub oracle_ms: u64,
}

impl Compared {
    /// Whether all rows match.
    pub fn agrees(&self) -> bool {
        self.missing == 0 && self.extra == 0
    }
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OracleError {
    /// There is no Python or no DuckDB.
    #[error("{0} is missing\n  hint: `pip install duckdb`; {PYTHON_VARIABLE} names another interpreter than python3")]
    Missing(String),
    /// The engine failed as a whole.
    #[error("the SQL engine failed: {0}")]
    Engine(String),
    /// A query failed.
    #[error("the query of view `{view}` failed: {error}")]
    Query {
        /// The view.
        view: String,
        /// What the engine said.
        error: String,
    },
    /// A query is for a view that the dataflow does not publish.
    #[error("there is a query for `{view}` and no such view")]
    NoView {
        /// Its name.
        view: String,
    },
    /// A table could not be written, or an answer not be read.
    #[error("cannot write or read in {}: {source}", .dir.display())]
    Storage {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Our own layers failed.
    #[error("{0}")]
    Layers(String),
    /// Another process is gone.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

/// What the engine says of a query.
#[derive(Deserialize)]
struct Outcome {
    #[serde(default)]
    ms: u64,
    error: Option<String>,
}

/// Has the engine carry out a plan.
fn answer(plan: &serde_json::Value) -> Result<Vec<Outcome>, OracleError> {
    let python = std::env::var(PYTHON_VARIABLE).unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(&python);
    command.args(["-c", ENGINE]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| OracleError::Missing(format!("`{python}` ({error})")))?;
    let mut stdin = child.stdin.take().expect("it is piped");
    // An engine that has ended says why below.
    let _ = stdin.write_all(plan.to_string().as_bytes());
    drop(stdin);
    let ended = child.wait_with_output().map_err(|error| OracleError::Engine(error.to_string()))?;
    match ended.status.code() {
        Some(0) => {}
        Some(ENGINE_MISSING) => return Err(OracleError::Missing(format!("the module `duckdb` of `{python}`"))),
        _ => return Err(OracleError::Engine(format!("{}: {}", ended.status, String::from_utf8_lossy(&ended.stderr).trim()))),
    }
    let lines = ended.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(|error| OracleError::Engine(error.to_string()))).collect()
}

/// The events as the log would hand them out: of all, those of this process.
struct Blocks<E: Event> {
    blocks: Vec<Block<E>>,
    events: u64,
    first: Tick,
    /// After the last tick.
    end: Tick,
}

impl<E: Event> Blocks<E> {
    /// Of the blocks of all events, `count` of them at the most, a process takes each whose number is its own.
    fn new(events: impl Iterator<Item = (Tick, E)>, count: u64, crew: &Crew) -> Self {
        let mut events = events.peekable();
        let mut made = Self { blocks: Vec::new(), events: 0, first: events.peek().map_or(Tick(0), |(tick, _)| *tick), end: Tick(1) };
        let processes = crew.processes();
        let block_events = match processes {
            1 => BLOCK_EVENTS_MAX,
            n => usize::try_from(count / (BLOCKS_MIN * n as u64)).map_or(BLOCK_EVENTS_MAX, |events| events.clamp(1, BLOCK_EVENTS_MAX)),
        };
        for number in 0.. {
            if events.peek().is_none() {
                break;
            }
            let block = Block::from_events_at(Partition(0), Offset(made.events), events.by_ref().take(block_events));
            made.events += block.len() as u64;
            made.end = Tick(block.last_tick().0 + 1);
            if number % processes == crew.process() {
                made.blocks.push(block);
            }
        }
        made
    }

    /// A tick at about the given share of the way, in thousandths.
    fn cut(&self, thousandths: u64) -> Tick {
        Tick(self.first.0 + ((self.end.0 - self.first.0) as u128 * thousandths as u128 / 1_000) as u64)
    }

    fn between(&self, from: Tick, to: Tick) -> Replay<E> {
        Replay::new(self.blocks.iter().map(|block| block.slice_ticks(from..to)), to)
    }
}

/// Two batches, and a speed graph on them that has followed all events.
struct Layers<E: Event> {
    graph: SpeedGraph<E>,
    cuts: [Tick; 2],
    batch_ms: [u64; 2],
    speed_ms: u64,
    /// The last tick, at which views are read.
    last: Tick,
    workers: Arc<SpeedWorkers<E>>,
}

impl<E: Event> Layers<E> {
    fn run(dataflow: &Arc<dyn Dataflow<E>>, blocks: &Blocks<E>, scale: &Scale, crew: &Crew) -> Result<Self, OracleError> {
        let mut random = Random::new(scale.seed);
        let cuts = [blocks.cut(250 + random.below(200)), blocks.cut(550 + random.below(200))];
        let mut base = Generation::empty(scale.workers);
        let mut batch_ms = [0; 2];
        for (number, (cut, ms)) in (0..).zip(cuts.into_iter().zip(&mut batch_ms)) {
            let started = Instant::now();
            let feed = Feed::new(blocks.between(base.frontier, cut), Some(cut));
            let output = run_batch(dataflow, Some(&base), feed, cut, crew.for_graph(number), &Arc::new(AtomicBool::new(false)));
            let shards = output.map_err(|error| OracleError::Layers(error.to_string()))?.shards;
            base = Generation { id: base.id + 1, frontier: cut, shards };
            *ms = elapsed_ms(started);
        }

        let started = Instant::now();
        let (moved, wait) = crossbeam::channel::bounded(1);
        let progress = move || {
            // Full: the reader will look anyway.
            let _ = moved.try_send(());
        };
        let workers = Arc::new(SpeedWorkers::start(crew.clone(), Arc::new(progress)).map_err(OracleError::Layers)?);
        let feed = Feed::new(blocks.between(base.frontier, blocks.end), None);
        let from = base.frontier;
        // One tick of history: only the last is read.
        let graph = workers.install(dataflow, Arc::new(base), from, feed, 1).map_err(OracleError::Layers)?;
        while graph.upper() < blocks.end {
            if let Some(message) = workers.panicked().or_else(|| crew.ended()) {
                return Err(OracleError::Layers(message));
            }
            // As the serving layer does: history is counted from what is served.
            graph.history.serve(graph.upper().0);
            let _ = wait.recv_timeout(LOOK_PAUSE_MAX);
        }
        Ok(Self { graph, cuts, batch_ms, speed_ms: elapsed_ms(started), last: Tick(blocks.end.0 - 1), workers })
    }

    /// The rows of a view, of those that are here.
    fn rows(&self, view: &str) -> Result<Vec<AnswerRow>, OracleError> {
        let Some(found) = self.graph.views.get(view) else { return Err(OracleError::NoView { view: view.to_owned() }) };
        found.read(self.last, &Query::Scan { limit: usize::MAX }).map_err(|error| OracleError::Layers(error.to_string()))
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}
