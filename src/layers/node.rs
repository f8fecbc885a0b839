//! One process's part of the handover: its batch graphs, its speed graphs, its share of the log.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::log::{Event, Log, LogError, Tick, WakerGuard};
use crate::operators::{ERRORS, panic_message};
use crate::runs::{Audited, Contents, Frozen, Generation, GenerationError, GenerationStore, LogRange, Manifest, Shard, View, differences};
use crate::serving::{Served, Serving};
use crate::storage::{Step, reach};

use super::batch::{BATCH_NICE, BatchError, run_batch};
use super::blueprint::Blueprint;
use super::control::{Command, Failure, Processes, Report};
use super::crew::Crew;
use super::feed::Feed;
use super::graph::Dataflow;
use super::speed::{SpeedGraph, SpeedWorkers};

/// A new speed graph is switched to once it is this close to the one being served; the rest of the way answers wait.
const CLOSE_TICKS: u64 = 20;
/// How long a step waits for a graph before the cycle is given up.
const PATIENCE: Duration = Duration::from_secs(600);
/// What Rust's own programs exit with after a panic.
const EXIT_CODE_PANIC: u8 = 101;
/// A batch of more steps than two to this would use numbers of graphs twice.
const BATCH_STEPS_BITS: u32 = 24;
const POLL: Duration = Duration::from_micros(500);
/// Rows of a view that are reported when a changed dataflow answers differently.
pub(super) const DIFFERENCES_SHOWN: usize = 10;
/// Events that a batch graph takes in at once, unless the options say otherwise: a longer range is computed in several steps,
/// each on the one before, so that memory does not grow with the log.
pub const BATCH_EVENTS_MAX: u64 = 1 << 24;

/// What a process needs to take part.
pub struct NodeOptions {
    /// The workers of each layer.
    pub crew: Crew,
    /// How far back answers can be had, in ticks.
    pub history: u64,
    /// Events of this process that a batch graph takes in at once.
    pub batch_events: u64,
    /// What tells versions of the dataflow apart that look the same from outside.
    pub version: String,
    /// Where generations are kept; none to keep them in memory.
    pub store: Option<Arc<GenerationStore>>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { crew: 1.into(), history: 5_000, batch_events: BATCH_EVENTS_MAX, version: String::new(), store: None }
    }
}

/// A process of the cluster, as the coordinator sees it.
pub struct Node<E: Event> {
    dataflow: Arc<dyn Dataflow<E>>,
    pub(super) blueprint: Blueprint,
    pub(super) log: Log<E>,
    pub(super) options: NodeOptions,
    speed: SpeedWorkers<E>,
    pub(super) serving: Arc<Serving>,
    /// Graphs that follow the log: the one being served, and one that catches up.
    following: Arc<ArcSwap<Vec<Arc<SpeedGraph<E>>>>>,
    stop: Arc<AtomicBool>,
    batch: Mutex<RunningBatch>,
    state: Mutex<State<E>>,
    _waker: WakerGuard,
}

pub(super) struct State<E: Event> {
    /// Read from disk, and not served yet.
    pub(super) restored: Option<Arc<Generation>>,
    /// Views of another version of the dataflow.
    pub(super) standing: Option<Standing>,
    served: Option<Arc<SpeedGraph<E>>>,
    computed: Option<Computed>,
    adopted: Option<Arc<SpeedGraph<E>>>,
    /// Not served here any more; other processes may still serve it.
    retired: Option<Arc<SpeedGraph<E>>>,
    compaction: Option<JoinHandle<()>>,
}

impl<E: Event> Default for State<E> {
    fn default() -> Self {
        Self { restored: None, standing: None, served: None, computed: None, adopted: None, retired: None, compaction: None }
    }
}

/// The batch that runs, and what was given up.
#[derive(Default)]
struct RunningBatch {
    attempt: u64,
    stop: Arc<AtomicBool>,
    /// Attempts up to this one are not wanted any more.
    cancelled: u64,
}

/// A generation of another version of the dataflow.
pub(super) struct Standing {
    pub(super) manifest: Manifest,
    pub(super) views: BTreeMap<String, Arc<dyn View>>,
    /// Views that this version cannot read.
    pub(super) unread: Vec<String>,
}

/// A generation that was computed and is not served yet.
struct Computed {
    generation: Arc<Generation>,
    /// What the last step of the batch started from, and what it froze, by worker: in memory until it is written.
    last: Option<(Vec<Shard>, Vec<Frozen>)>,
    /// What the steps before froze.
    frozen: Vec<Vec<Frozen>>,
    /// Rows of all that was frozen.
    rows: usize,
    full: bool,
}

/// A step that was carried out, or how it failed.
pub(super) type Outcome = Result<Report, Failure>;

impl<E: Event> Node<E> {
    /// Starts the speed workers. Nothing is served until a coordinator hands over to a first generation.
    pub fn start(dataflow: Arc<dyn Dataflow<E>>, log: Log<E>, options: NodeOptions, serving: Arc<Serving>) -> Result<Self, String> {
        let blueprint = Blueprint::of(&dataflow, &options.version)?;
        let keeper = serving.start_keeper().map_err(|error| error.to_string())?;
        let speed = SpeedWorkers::start(options.crew.clone(), Arc::new(move || keeper.unpark()))?;
        let following: Arc<ArcSwap<Vec<Arc<SpeedGraph<E>>>>> = Arc::default();
        let followers = Arc::clone(&following);
        let waker = log.on_change(Box::new(move || followers.load().iter().for_each(|graph| graph.wake())));
        Ok(Self {
            dataflow,
            blueprint,
            log,
            options,
            speed,
            serving,
            following,
            stop: Arc::default(),
            batch: Mutex::default(),
            state: Mutex::default(),
            _waker: waker,
        })
    }

    /// What this process's answers are made from.
    pub fn serving(&self) -> Arc<Serving> {
        Arc::clone(&self.serving)
    }

    /// What stopped the speed layer, if something did, and the exit code for it.
    pub fn failure(&self) -> Option<(String, u8)> {
        self.following.load().iter().find_map(|graph| self.failure_of(graph))
    }

    /// Makes a running batch give up.
    pub fn stop_batch(&self) {
        self.stop.store(true, Ordering::Release);
        self.running_batch().stop.store(true, Ordering::Release);
    }

    /// Makes a batch give up, whether it runs already or is still to come.
    pub fn cancel_batch(&self, attempt: u64) {
        let mut batch = self.running_batch();
        batch.cancelled = batch.cancelled.max(attempt);
        if batch.attempt <= attempt {
            batch.stop.store(true, Ordering::Release);
        }
    }

    fn running_batch(&self) -> MutexGuard<'_, RunningBatch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Size of the generation being served: runs and rows.
    pub fn generation_size(&self) -> (usize, usize) {
        self.state().served.as_ref().map_or((0, 0), |graph| graph.base.size())
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn served(&self) -> Option<Arc<SpeedGraph<E>>> {
        self.state().served.clone()
    }

    /// Carries out a step. One that panics has failed.
    pub fn obey(&self, command: &Command) -> Report {
        let carried_out = catch_unwind(AssertUnwindSafe(|| self.carry_out(command)));
        let outcome = carried_out.unwrap_or_else(|panic| Err(failed(format!("panicked: {}", panic_message(&*panic)), 1)));
        outcome.unwrap_or_else(Report::Failed)
    }

    fn carry_out(&self, command: &Command) -> Outcome {
        match command {
            Command::Restore { passed_over } => self.restore(passed_over),
            Command::Stand => self.stand(),
            Command::Propose => self.propose(),
            Command::Divide { from, to } => self.divide(*from, *to),
            Command::Batch { attempt, cuts, full } => self.batch(*attempt, cuts, *full),
            Command::Audit => self.audit(),
            Command::Compare => self.compare(),
            Command::Write => self.write(),
            Command::Commit { manifest } => self.commit(manifest),
            Command::Proceed => self.proceed(),
            Command::Reach => Ok(Report::Reached { frontier: self.reached() }),
            Command::Adopt { reached } => self.adopt(*reached),
            Command::Switch => self.switch(),
            Command::Retire => {
                self.retire();
                Ok(Report::Done)
            }
            Command::Discard => {
                self.discard();
                Ok(Report::Done)
            }
        }
    }

    pub(super) fn range(&self, frontier: Tick) -> Result<LogRange, LogError> {
        Ok(LogRange {
            id: self.log.id().to_owned(),
            revision: self.log.revision(),
            ends: self.log.offsets_at(frontier)?,
            synced: self.log.is_synced(),
        })
    }

    fn propose(&self) -> Outcome {
        // Held before the cut is known: the log goes on, and a graph that keeps little history would be past it at once. The cut
        // is the least frontier of all processes' logs, and no answer is ahead of that.
        let served = self.served();
        if let Some(served) = &served {
            served.history.hold(self.serving.frontier().0.saturating_sub(1));
        }
        // Closed now, so that everything acknowledged by now is before the cut.
        match self.log.advance() {
            Ok(frontier) => Ok(Report::Proposed { frontier }),
            Err(error) => {
                if let Some(served) = &served {
                    served.history.release();
                }
                Err(failed(&error, error.exit_code()))
            }
        }
    }

    fn batch(&self, attempt: u64, cuts: &[Tick], full: bool) -> Outcome {
        let stop = {
            let mut batch = self.running_batch();
            let unwanted = batch.cancelled >= attempt || self.stop.load(Ordering::Acquire);
            (batch.attempt, batch.stop) = (attempt, Arc::new(AtomicBool::new(unwanted)));
            Arc::clone(&batch.stop)
        };
        if !self.settle() {
            return Err(failed("merging the runs of the last generation panicked", 1));
        }
        let base = match (self.served(), self.state().restored.clone()) {
            (Some(served), _) if !full => Generation::clone(&served.base),
            (None, Some(restored)) if !full => Generation::clone(&restored),
            _ => Generation::empty(self.options.crew.workers()),
        };
        let cut = cuts.last().copied().unwrap_or_default();
        let computed = self.compute(base, attempt, cuts, full, &stop)?;
        let rows = computed.rows;
        self.state().computed = Some(computed);
        let offsets = |tick: Tick| Ok::<u64, LogError>(self.log.offsets_at(tick)?.iter().map(|offset| offset.0).sum());
        let tail = offsets(Tick::MAX).and_then(|end| Ok(end - offsets(cut)?)).map_err(|error| failed_by(error.into()))?;
        Ok(Report::Frozen { rows, tail })
    }

    /// Computes a generation through `cut`, in several steps if it takes in many events.
    fn compute(&self, base: Generation, attempt: u64, cuts: &[Tick], full: bool, stop: &Arc<AtomicBool>) -> Result<Computed, Failure> {
        let full = full || base.is_initial();
        let mut computed = Computed { generation: Arc::new(base), last: None, frozen: Vec::new(), rows: 0, full };
        for (step, cut) in cuts.iter().copied().enumerate() {
            if computed.last.is_some() {
                self.write_last(&mut computed).map_err(failed_by)?;
                self.compact(&computed.generation, stop).map_err(failed_by)?;
            }
            let base = Arc::clone(&computed.generation);
            let feed = Feed::new(self.log.cursor(base.frontier), Some(cut));
            let crew = self.options.crew.for_graph(attempt << BATCH_STEPS_BITS | step as u64);
            let output = run_batch(&self.dataflow, Some(&base), feed, cut, crew, stop).map_err(|error| match error {
                BatchError::Log(error) => failed(&error, error.exit_code()),
                error => failed(error, 1),
            })?;
            computed.rows += output.bases.iter().zip(&output.frozen).map(|(base, frozen)| base.rows_of(frozen)).sum::<usize>();
            computed.generation = Arc::new(Generation { id: base.id + 1, frontier: cut, shards: output.shards });
            computed.last = Some((output.bases, output.frozen));
        }
        Ok(computed)
    }

    fn divide(&self, from: Tick, to: Tick) -> Outcome {
        let cuts = self.cuts(from, to).map_err(|error| failed(&error, error.exit_code()))?;
        Ok(Report::Divided { cuts })
    }

    /// Where to cut `[from, to)`, so that each part has no more than the events that a batch takes in, or one tick.
    fn cuts(&self, from: Tick, to: Tick) -> Result<Vec<Tick>, LogError> {
        let events_before = |tick: Tick| Ok::<u64, LogError>(self.log.offsets_at(tick)?.iter().map(|offset| offset.0).sum());
        let (end, mut cuts) = (events_before(to)?, Vec::new());
        let (mut at, mut taken) = (from, events_before(from)?);
        while end - taken > self.options.batch_events {
            // The last tick up to which the part is not too large, or else the next.
            let (mut low, mut high) = (at.next(), to);
            while low.next() < high {
                let middle = Tick(low.0 + (high.0 - low.0) / 2);
                if events_before(middle)? - taken <= self.options.batch_events { low = middle } else { high = middle }
            }
            if low >= to {
                break;
            }
            (at, taken) = (low, events_before(low)?);
            cuts.push(at);
        }
        cuts.push(to);
        Ok(cuts)
    }

    /// Writes what the last step of a batch froze, and puts the files in the place of memory.
    fn write_last(&self, computed: &mut Computed) -> Result<(), GenerationError> {
        let Some((bases, mut frozen)) = computed.last.take() else { return Ok(()) };
        if let Some(store) = &self.options.store {
            let shards = bases.iter().zip(&mut frozen).enumerate();
            let shards =
                shards.map(|(worker, (base, frozen))| base.plus_written(frozen, store, self.first_worker() + worker).map(Arc::new));
            let shards = shards.collect::<Result<Vec<_>, _>>()?;
            computed.generation = Arc::new(Generation { shards, ..Generation::clone(&computed.generation) });
        }
        computed.frozen.push(frozen);
        Ok(())
    }

    /// Waits until the runs of the last generation are merged. `false` if that panicked.
    pub fn settle(&self) -> bool {
        let compaction = self.state().compaction.take();
        compaction.is_none_or(|merging| merging.join().is_ok())
    }

    /// Works on what was computed. It is out of the state meanwhile, so that nobody waits for its lock.
    fn with_computed<T>(&self, work: impl FnOnce(&mut Computed) -> Result<T, Failure>) -> Result<T, Failure> {
        let mut computed = self.state().computed.take().ok_or_else(nothing_computed)?;
        let done = work(&mut computed);
        self.state().computed = Some(computed);
        done
    }

    fn audit(&self) -> Outcome {
        let served = self.served().ok_or_else(|| failed("nothing is served that could be compared", 1))?;
        self.with_computed(|computed| {
            let cut = computed.generation.frontier;
            if cut.0 == 0 {
                return Ok(Report::Audited { audits: Vec::new() });
            }
            self.wait_until(&served, || served.upper() >= cut)?;
            let steps: Vec<&Vec<Frozen>> = computed.frozen.iter().chain(computed.last.iter().map(|(_, frozen)| frozen)).collect();
            let mut audits = Vec::new();
            for (info, slot) in self.blueprint.views() {
                let of_worker = |worker: usize| steps.iter().map(|frozen| &*frozen[worker][slot]).collect();
                let runs = (0..self.options.crew.workers()).map(of_worker).collect();
                let audited = if computed.full { Audited::Whole(runs) } else { Audited::Changes(runs) };
                match served.views[&info.name].audit(Tick(cut.0 - 1), &audited) {
                    Ok(audit) => audits.push(audit),
                    Err(error) => return Err(failed(format!("view `{}` could not be compared: {error}", info.name), 1)),
                }
            }
            Ok(Report::Audited { audits })
        })
    }

    /// The new answers minus those that stand.
    fn compare(&self) -> Outcome {
        let state = self.state();
        let (Some(computed), Some(standing)) = (&state.computed, &state.standing) else { return Err(nothing_computed()) };
        let (generation, old, unread) = (Arc::clone(&computed.generation), standing.views.clone(), standing.unread.clone());
        drop(state);
        let new = self.blueprint.standing_on(&generation.shards, generation.frontier, &self.options.crew);
        let compared = differences(&new, &old, &unread, generation.frontier, DIFFERENCES_SHOWN);
        Ok(Report::Compared { differences: compared.map_err(|error| failed(error, 1))? })
    }

    fn write(&self) -> Outcome {
        self.with_computed(|computed| {
            self.write_last(computed).map_err(failed_by)?;
            let generation = &computed.generation;
            let contents = Contents {
                fingerprint: self.blueprint.fingerprint(),
                log: self.range(generation.frontier).map_err(|error| failed_by(error.into()))?,
                slots: self.blueprint.outline().to_vec(),
                views: self.blueprint.views(),
                shards: generation.shards.iter().map(|shard| shard.file_infos()).collect(),
            };
            Ok(Report::Written { contents })
        })
    }

    fn commit(&self, manifest: &Manifest) -> Outcome {
        self.with_computed(|computed| {
            computed.generation = Arc::new(Generation { id: manifest.id, ..Generation::clone(&computed.generation) });
            match &self.options.store {
                Some(store) if self.options.crew.process() == 0 => store.commit(manifest).map_err(failed_by)?,
                Some(store) => store.tidy(),
                None => {}
            }
            Ok(Report::Done)
        })
    }

    /// Goes on from what was committed, as if it had been restored.
    fn proceed(&self) -> Outcome {
        let mut state = self.state();
        let computed = state.computed.take().ok_or_else(nothing_computed)?;
        state.restored = Some(computed.generation);
        Ok(Report::Done)
    }

    /// Every answer so far was for an earlier tick; before the first, what the log has.
    fn reached(&self) -> Tick {
        if self.served().is_some() { self.serving.frontier() } else { self.log.frontier() }
    }

    fn adopt(&self, reached: Tick) -> Outcome {
        reach(Step::HandoverBeforeAdopt);
        let generation = {
            let state = self.state();
            let computed = state.computed.as_ref().map(|computed| &computed.generation);
            computed.or(state.restored.as_ref()).cloned().ok_or_else(nothing_computed)?
        };
        let feed = Feed::new(self.log.cursor(generation.frontier), None);
        let served = self.served();
        let from = generation.frontier.max(Tick(reached.0.saturating_sub(1)));
        let graph = match self.speed.install(&self.dataflow, generation, from, feed, self.options.history) {
            Ok(graph) => Arc::new(graph),
            Err(reason) => return Err(failed(reason, EXIT_CODE_PANIC)),
        };
        if graph.views.keys().all(|name| name == ERRORS) {
            graph.close();
            return Err(failed("the dataflow publishes no view", 2));
        }
        self.following.store(Arc::new(served.iter().cloned().chain([Arc::clone(&graph)]).collect()));
        graph.wake();
        self.state().adopted = Some(Arc::clone(&graph));
        let close = if served.is_some() { CLOSE_TICKS } else { 0 };
        self.wait_until(&graph, || graph.upper().0 + close >= reached.max(self.serving.frontier()).0)?;
        Ok(Report::Done)
    }

    fn switch(&self) -> Outcome {
        reach(Step::HandoverBeforeSwitch);
        let Some(graph) = self.state().adopted.clone() else { return Err(nothing_computed()) };
        let served = Served::new(graph.base.id, graph.base.frontier, graph.views.clone(), Arc::clone(&graph.history));
        // It cannot catch up when another process stops, which happens in this very moment, too.
        let deadline = Instant::now() + PATIENCE;
        let given_up = || Instant::now() > deadline || self.stop.load(Ordering::Acquire) || self.failure_of(&graph).is_some();
        if !self.serving.switch(served, given_up) {
            let (reason, exit_code) = self.failure_of(&graph).unwrap_or_else(|| ("the new speed graph did not catch up".to_owned(), 1));
            return Err(failed(reason, exit_code));
        }
        reach(Step::HandoverAfterSwitch);
        let mut state = self.state();
        let retired = state.served.replace(graph);
        *state = State { served: state.served.take(), retired, ..State::default() };
        Ok(Report::Done)
    }

    /// Shuts the graph down that was served before, and merges runs of the one that is.
    fn retire(&self) {
        let mut state = self.state();
        let (Some(graph), retired) = (state.served.clone(), state.retired.take()) else { return };
        self.following.store(Arc::new(vec![Arc::clone(&graph)]));
        let (store, stop, first_worker) = (self.options.store.clone(), Arc::clone(&self.stop), self.first_worker());
        let merging = std::thread::Builder::new().name("merge".to_owned()).spawn(move || {
            let _ = rustix::process::nice(BATCH_NICE);
            if let Err(error) = compact(&graph.base, store.as_deref(), first_worker, &stop) {
                // Reads touch more files than they need to; the next handover tries again.
                tracing::error!(%error, "runs could not be merged");
            }
        });
        state.compaction = merging.ok();
        drop(state);
        if let Some(old) = retired {
            old.close();
        }
    }

    /// The number of this process's first worker among those of all processes.
    fn first_worker(&self) -> usize {
        self.options.crew.own().start
    }

    fn compact(&self, generation: &Generation, stop: &AtomicBool) -> Result<(), GenerationError> {
        compact(generation, self.options.store.as_deref(), self.first_worker(), stop)
    }

    /// Waits for a graph, as long as it can still come there.
    fn wait_until(&self, graph: &SpeedGraph<E>, reached: impl Fn() -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while !reached() {
            if let Some((reason, exit_code)) = self.failure_of(graph) {
                return Err(failed(reason, exit_code));
            }
            if Instant::now() > deadline || self.stop.load(Ordering::Acquire) {
                return Err(failed(format!("the speed graph on generation {} stands at tick {}", graph.base.id, graph.upper().0), 1));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// What stopped a graph, if something did, and the exit code for it.
    fn failure_of(&self, graph: &SpeedGraph<E>) -> Option<(String, u8)> {
        let unread = graph.failure().map(|error| (error.to_string(), error.exit_code()));
        unread.or_else(|| Some((self.speed.panicked()?, EXIT_CODE_PANIC)))
    }

    fn discard(&self) {
        let computed = self.state().computed.take();
        drop(computed);
        if let Some(store) = &self.options.store {
            store.tidy();
        }
        let mut state = self.state();
        if let Some(adopted) = state.adopted.take() {
            adopted.close();
        }
        if let Some(served) = &state.served {
            served.history.release();
            self.following.store(Arc::new(vec![Arc::clone(served)]));
        }
    }
}

impl<E: Event> Drop for Node<E> {
    fn drop(&mut self) {
        // Whoever opens the log next may write files of the same numbers.
        self.settle();
    }
}

/// A cluster of one process.
pub struct OneProcess<E: Event>(pub Arc<Node<E>>);

impl<E: Event> Processes for OneProcess<E> {
    fn ask(&mut self, command: &Command) -> Vec<Report> {
        vec![self.0.obey(command)]
    }
}

pub(super) fn failed(reason: impl ToString, exit_code: u8) -> Failure {
    Failure { reason: reason.to_string(), exit_code }
}

fn nothing_computed() -> Failure {
    failed("no generation was computed", 1)
}

pub(super) fn failed_by(error: GenerationError) -> Failure {
    failed(&error, error.exit_code())
}

/// Merges runs of similar size: in files where there is a store for them.
fn compact(
    generation: &Generation,
    store: Option<&GenerationStore>,
    first_worker: usize,
    stop: &AtomicBool,
) -> Result<(), GenerationError> {
    generation.shards.iter().enumerate().try_for_each(|(worker, shard)| match store {
        Some(store) => shard.compact_files(store, first_worker + worker, stop),
        None => {
            shard.compact();
            Ok(())
        }
    })
}
