//! One process's part of the handover: its batch graphs, its speed graphs, its share of the log.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::log::{Event, Log, Tick, WakerGuard};
use crate::operators::ERRORS;
use crate::runs::{Audited, Generation};
use crate::serving::{Served, Serving};

use super::batch::{BatchError, BatchOutput, run_batch};
use super::control::{Command, Processes, Report};
use super::feed::Feed;
use super::graph::Dataflow;
use super::speed::{SpeedGraph, SpeedWorkers};

/// A new speed graph is switched to once it is this close to the one being served; the rest of the way answers wait.
const CLOSE_TICKS: u64 = 20;
/// How long a step waits for a graph before the cycle is given up.
const PATIENCE: Duration = Duration::from_secs(600);
/// What Rust's own programs exit with after a panic.
const EXIT_CODE_PANIC: u8 = 101;
const POLL: Duration = Duration::from_micros(500);

/// What a process needs to take part.
pub struct NodeOptions {
    /// Workers of each layer.
    pub workers: usize,
    /// How far back answers can be had, in ticks.
    pub history: u64,
}

/// A process of the cluster, as the coordinator sees it.
pub struct Node<E: Event> {
    dataflow: Arc<dyn Dataflow<E>>,
    log: Log<E>,
    options: NodeOptions,
    speed: SpeedWorkers<E>,
    serving: Arc<Serving>,
    /// Graphs that follow the log: the one being served, and one that catches up.
    following: Arc<ArcSwap<Vec<Arc<SpeedGraph<E>>>>>,
    stop: Arc<AtomicBool>,
    state: Mutex<State<E>>,
    _waker: WakerGuard,
}

struct State<E: Event> {
    served: Option<Arc<SpeedGraph<E>>>,
    computed: Option<Computed>,
    adopted: Option<Arc<SpeedGraph<E>>>,
    compaction: Option<JoinHandle<()>>,
}

/// A generation that was computed and is not served yet.
struct Computed {
    output: BatchOutput,
    generation: Arc<Generation>,
    full: bool,
}

impl<E: Event> Node<E> {
    /// Starts the speed workers. Nothing is served until a coordinator hands over to a first generation.
    pub fn start(dataflow: Arc<dyn Dataflow<E>>, log: Log<E>, options: NodeOptions, serving: Arc<Serving>) -> Result<Self, String> {
        let keeper = serving.start_keeper().map_err(|error| error.to_string())?;
        let speed = SpeedWorkers::start(options.workers, Arc::new(move || keeper.unpark()))?;
        let following: Arc<ArcSwap<Vec<Arc<SpeedGraph<E>>>>> = Arc::default();
        let followers = Arc::clone(&following);
        let waker = log.on_change(Box::new(move || followers.load().iter().for_each(|graph| graph.wake())));
        let state = Mutex::new(State { served: None, computed: None, adopted: None, compaction: None });
        Ok(Self { dataflow, log, options, speed, serving, following, stop: Arc::default(), state, _waker: waker })
    }

    /// What stopped the speed layer, if something did, and the exit code for it.
    pub fn failure(&self) -> Option<(String, u8)> {
        self.following.load().iter().find_map(|graph| self.failure_of(graph))
    }

    /// Makes a running batch give up.
    pub fn stop_batch(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Size of the generation being served: runs and rows.
    pub fn generation_size(&self) -> (usize, usize) {
        self.state().served.as_ref().map_or((0, 0), |graph| graph.base.size())
    }

    fn state(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn served(&self) -> Option<Arc<SpeedGraph<E>>> {
        self.state().served.clone()
    }

    /// Carries out a step.
    pub fn obey(&self, command: &Command) -> Report {
        match command {
            Command::Propose => self.propose(),
            Command::Batch { cut, full } => self.batch(*cut, *full),
            Command::Audit => self.audit(),
            Command::Commit { manifest } => {
                let mut state = self.state();
                let Some(computed) = &mut state.computed else { return nothing_computed() };
                let generation = Generation { id: manifest.id, ..Generation::clone(&computed.generation) };
                computed.generation = Arc::new(generation);
                Report::Done
            }
            Command::Adopt => self.adopt(),
            Command::Switch => self.switch(),
            Command::Discard => {
                self.discard();
                Report::Done
            }
        }
    }

    fn propose(&self) -> Report {
        // Held before the cut is known: the log goes on, and a graph that keeps little history would be past it at once.
        let served = self.served();
        if let Some(served) = &served {
            served.history.hold(self.log.frontier().0.saturating_sub(1));
        }
        // Closed now, so that everything acknowledged by now is before the cut.
        match self.log.advance() {
            Ok(frontier) => Report::Proposed { frontier },
            Err(error) => {
                if let Some(served) = &served {
                    served.history.release();
                }
                failed(&error, error.exit_code())
            }
        }
    }

    fn batch(&self, cut: Tick, full: bool) -> Report {
        let compaction = self.state().compaction.take();
        if compaction.is_some_and(|merging| merging.join().is_err()) {
            return failed("merging the runs of the last generation panicked", 1);
        }
        let base = match self.served() {
            Some(served) if !full => Generation::clone(&served.base),
            _ => Generation::empty(self.options.workers),
        };
        let feed = Feed::new(self.log.cursor(base.frontier), Some(cut));
        match run_batch(&self.dataflow, Some(&base), feed, cut, self.options.workers, &self.stop) {
            Ok(output) => {
                let rows = output.shards.iter().map(|shard| shard.size().1).sum::<usize>() - base.size().1;
                let fingerprint = fingerprint(&output.outline);
                // An empty generation that holds nothing is served as such: the graph on it need look nowhere.
                let generation = Arc::new(Generation { id: base.id + 1, frontier: cut, shards: output.shards.clone() });
                self.state().computed = Some(Computed { output, generation, full: full || base.is_initial() });
                Report::Frozen { fingerprint, rows }
            }
            Err(BatchError::Log(error)) => failed(error.to_string(), error.exit_code()),
            Err(error) => failed(error, 1),
        }
    }

    fn audit(&self) -> Report {
        let Some(served) = self.served() else { return Report::Audited { audits: Vec::new() } };
        let cut = match &self.state().computed {
            Some(computed) => computed.generation.frontier,
            None => return nothing_computed(),
        };
        if cut.0 == 0 {
            return Report::Audited { audits: Vec::new() };
        }
        if let Err(report) = self.wait_until(&served, || served.upper() >= cut) {
            return report;
        }
        let state = self.state();
        let Some(computed) = &state.computed else { return nothing_computed() };
        let mut audits = Vec::new();
        for view in &computed.output.views {
            let runs = computed.output.frozen.iter().map(|frozen| &*frozen[view.slot]).collect();
            let audited = if computed.full { Audited::Whole(runs) } else { Audited::Changes(runs) };
            match served.views[&view.info.name].audit(Tick(cut.0 - 1), &audited) {
                Ok(audit) => audits.push(audit),
                Err(error) => return failed(format!("view `{}` could not be compared: {error}", view.info.name), 1),
            }
        }
        Report::Audited { audits }
    }

    fn adopt(&self) -> Report {
        let generation = match &self.state().computed {
            Some(computed) => Arc::clone(&computed.generation),
            None => return nothing_computed(),
        };
        let feed = Feed::new(self.log.cursor(generation.frontier), None);
        // Nobody will ask the new graph for a tick before those that have been answered.
        let from = generation.frontier.max(Tick(self.serving.frontier().0.saturating_sub(1)));
        let graph = match self.speed.install(&self.dataflow, generation, from, feed, self.options.history) {
            Ok(graph) => Arc::new(graph),
            Err(reason) => return failed(reason, EXIT_CODE_PANIC),
        };
        if graph.views.keys().all(|name| name == ERRORS) {
            graph.close();
            return failed("the dataflow publishes no view", 2);
        }
        let served = self.served();
        self.following.store(Arc::new(served.iter().cloned().chain([Arc::clone(&graph)]).collect()));
        graph.wake();
        self.state().adopted = Some(Arc::clone(&graph));
        if let Err(report) = self.wait_until(&graph, || graph.upper().0 + CLOSE_TICKS >= self.serving.frontier().0) {
            return report;
        }
        Report::Done
    }

    fn switch(&self) -> Report {
        let Some(graph) = self.state().adopted.clone() else { return nothing_computed() };
        let served = Served::new(graph.base.id, graph.base.frontier, graph.views.clone(), Arc::clone(&graph.history));
        if !self.serving.switch(served, PATIENCE) {
            return failed("the new speed graph did not catch up", 1);
        }
        let mut state = self.state();
        state.adopted = None;
        state.computed = None;
        self.following.store(Arc::new(vec![Arc::clone(&graph)]));
        let old = state.served.replace(Arc::clone(&graph));
        let merging = std::thread::Builder::new().name("merge".to_owned()).spawn(move || {
            let _ = rustix::process::nice(super::batch::BATCH_NICE);
            graph.base.shards.iter().for_each(|shard| shard.compact());
        });
        state.compaction = merging.ok();
        drop(state);
        if let Some(old) = old {
            old.close();
        }
        Report::Done
    }

    /// Waits for a graph, as long as it can still come there.
    fn wait_until(&self, graph: &SpeedGraph<E>, reached: impl Fn() -> bool) -> Result<(), Report> {
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
        let mut state = self.state();
        state.computed = None;
        if let Some(adopted) = state.adopted.take() {
            adopted.close();
        }
        if let Some(served) = &state.served {
            served.history.release();
            self.following.store(Arc::new(vec![Arc::clone(served)]));
        }
    }
}

/// A cluster of one process.
pub struct OneProcess<E: Event>(pub Arc<Node<E>>);

impl<E: Event> Processes for OneProcess<E> {
    fn ask(&mut self, command: &Command) -> Vec<Report> {
        vec![self.0.obey(command)]
    }
}

fn failed(reason: impl ToString, exit_code: u8) -> Report {
    Report::Failed { reason: reason.to_string(), exit_code }
}

fn nothing_computed() -> Report {
    failed("no generation was computed", 1)
}

/// Identifies what a dataflow keeps: equal outlines can use each other's runs.
fn fingerprint(outline: &[String]) -> u64 {
    crate::runs::data::stable_hash(outline)
}
