//! A running dataflow, alone or as one process of a cluster: the log, both layers, the clock that closes ticks, and on process 0
//! the schedule of batch cycles.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::cluster::{Cluster, ClusterError, Handler, ProgramId};
use crate::layers::{BATCH_EVENTS_MAX, Coordinator, Crew, Cycle, CycleError, Handover, Node, NodeOptions, OneProcess, Started};
use crate::log::{Event, Log, LogError, LogOptions, Tick};
use crate::operators::Codec;
use crate::runs::{Audit, GenerationError, GenerationStore, ViewInfo};
use crate::serving::{Answer, Read, Room, ServeError, Serving};

use super::gather;
use super::joining::{end_of_start, exchange_id, open_share, program_id};
use super::lines::for_each_line;
use super::members::{APPEND_PATIENCE, NO_LIMIT, Refusal, Reply, Request, Serves, all_processes, ask, ask_in};
use super::program::{OnError, Program};
use super::service::{
    Appended, BatchStatus, ErrorKind, Format, Layers, Numbered, ProcessStatus, Progress, Rejected, Service, ServiceError, ShareStatus,
    SpeedStatus, Status,
};
use super::waiting::{APPENDS_PASSED_ON_MAX, CYCLES_WAITING_MAX, STATUS_WAITING_MAX};

/// Share of the machine's time that batch cycles and handovers may take: a cycle that took w is followed by a pause of at
/// least w * (1 - share) / share.
const BATCH_SHARE: f64 = 0.25;
/// Pause after a failed cycle; doubles with each further failure.
const BACKOFF: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// How long a request for the status waits for process 0.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// Generations that are kept on disk, unless the options say otherwise.
pub const KEEP_GENERATIONS: usize = 2;

/// How to run.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Workers of each layer.
    pub workers: usize,
    /// How often the current tick is closed, and so how fresh answers are.
    pub tick: Duration,
    /// How often a batch cycle runs, at most; none to run them on request only.
    pub batch_interval: Option<Duration>,
    /// How far back answers can be had.
    pub history: Duration,
    /// Events that a batch graph takes in at once.
    pub batch_events: u64,
    /// Generations that are kept on disk: the newest, and some to fall back to.
    pub keep_generations: usize,
    /// How rows are written that go to another process.
    pub exchange: Codec,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            workers: 1,
            tick: Duration::from_millis(10),
            batch_interval: Some(Duration::from_secs(10)),
            history: Duration::from_secs(5),
            batch_events: BATCH_EVENTS_MAX,
            keep_generations: KEEP_GENERATIONS,
            exchange: Codec::default(),
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A thread could not be started.
    #[error("cannot start: {0}")]
    Threads(String),
    /// The first generation could not be computed.
    #[error(transparent)]
    First(#[from] CycleError),
    /// The directory of generations cannot be used.
    #[error(transparent)]
    Generations(#[from] GenerationError),
    /// This process's share of the log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The other processes.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl StartError {
    /// The exit code of a process that ends with this error: that of what made the first generation fail.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::First(CycleError::Step { exit_code, .. }) => *exit_code,
            Self::Generations(error) => error.exit_code(),
            Self::Log(error) => error.exit_code(),
            Self::Cluster(error) => error.exit_code(),
            Self::Threads(_) | Self::First(_) => 1,
        }
    }
}

/// A running dataflow. Dropping it stops its threads; [`Server::close`] also closes the log cleanly.
pub struct Server<E: Event> {
    shared: Arc<Shared<E>>,
    threads: Vec<JoinHandle<()>>,
    stop: Option<Sender<()>>,
}

pub(super) struct Shared<E: Event> {
    program: Program<E>,
    log: Log<E>,
    node: Arc<Node<E>>,
    serving: Arc<Serving>,
    options: ServerOptions,
    cluster: Option<Cluster>,
    /// On process 0.
    coordinator: Option<Mutex<Coordinator>>,
    /// On process 0.
    progress: Mutex<Progress>,
    /// What makes it impossible to go on, and the exit code for it.
    fatal: OnceLock<(String, u8)>,
    started: Started,
    /// For cycles and audits that clients asked for.
    cycles: Room,
    /// For appends that another process owns.
    appends: Room,
    /// For the status of what process 0 does.
    statuses: Room,
}

/// What other processes reach: this process's part in steps of the coordinator from the first on, the rest once it serves.
pub(super) struct Member<E: Event> {
    node: Arc<Node<E>>,
    shared: OnceLock<Arc<Shared<E>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<E: Event> Server<E> {
    /// Restores the newest generation or computes the first from the log, and then serves and follows it. After a change of
    /// the dataflow the old views are served as they stand until there are new ones.
    pub fn start(program: Program<E>, log: Log<E>, options: ServerOptions) -> Result<Self, StartError> {
        let node = Arc::new(start_node(&program, &log, &options, options.workers.into())?);
        let mut coordinator = Coordinator::new(Box::new(OneProcess(Arc::clone(&node))));
        let started = coordinator.start()?;
        Self::serve(Shared::new(program, log, node, options, started, Some(coordinator), None))
    }

    /// What the other processes of a cluster must run alike.
    pub fn program_id(program: &Program<E>, log_options: &LogOptions, options: &ServerOptions) -> Result<ProgramId, StartError> {
        // What one process acknowledges without syncing it is missing in an answer of all.
        let durability = ("--durability".to_owned(), format!("{:?}", log_options.durability).to_lowercase());
        let history = ("--history".to_owned(), format!("{} ms", options.history.as_millis()));
        program_id(program, vec![("the command".to_owned(), "run".to_owned()), durability, history, exchange_id(options.exchange)])
    }

    /// As [`Server::start`], as one of the processes of a cluster over the log in `dir`. Process 0 recovers the log; then each
    /// opens its share, and all serve when there are answers. When it fails, the other processes are told why.
    pub fn start_in(
        cluster: &Cluster,
        program: Program<E>,
        dir: &Path,
        log_options: LogOptions,
        options: ServerOptions,
    ) -> Result<Self, StartError> {
        let started = Self::try_start_in(cluster, program, dir, log_options, options);
        started.map_err(|error| end_of_start(cluster, error, "it could not start"))
    }

    fn try_start_in(
        cluster: &Cluster,
        program: Program<E>,
        dir: &Path,
        log_options: LogOptions,
        options: ServerOptions,
    ) -> Result<Self, StartError> {
        let log = open_share::<E>(cluster, dir, log_options)?;
        let node = Arc::new(start_node(&program, &log, &options, cluster.crew().codec(options.exchange))?);
        let member = Member::start(cluster, &node);
        let (started, coordinator) = match all_processes(cluster, &node)? {
            Some(all) => {
                let mut coordinator = Coordinator::new(all);
                let started = coordinator.start()?;
                cluster.tell_all(&Serves { started: started.clone() });
                (started, Some(coordinator))
            }
            None => (cluster.hear::<Serves>(0)?.started, None),
        };
        let shared = Shared::new(program, log, node, options, started, coordinator, Some(cluster.clone()));
        let _ = member.shared.set(Arc::clone(&shared));
        Self::serve(shared)
    }

    fn serve(shared: Arc<Shared<E>>) -> Result<Self, StartError> {
        tracing::info!(started = shared.started.summary(), "serving");
        let (stop, stopped) = bounded(0);
        let mut threads = vec![shared.start_ticker(stopped.clone()).map_err(|error| StartError::Threads(error.to_string()))?];
        if shared.coordinator.is_some() {
            let scheduled = Arc::clone(&shared);
            let scheduler = std::thread::Builder::new().name("batch-cycle".to_owned()).spawn(move || scheduled.schedule(&stopped));
            threads.push(scheduler.map_err(|error| StartError::Threads(error.to_string()))?);
        }
        Ok(Self { shared, threads, stop: Some(stop) })
    }

    /// What clients can ask of it.
    pub fn service(&self) -> Arc<dyn Service> {
        Arc::clone(&self.shared) as _
    }

    /// The serving layer, for reads inside the process.
    pub fn serving(&self) -> Arc<Serving> {
        Arc::clone(&self.shared.serving)
    }

    /// Where its first answers came from, in one line.
    pub fn started(&self) -> String {
        self.shared.started.summary()
    }

    /// What makes it impossible to go on, if something does, and the exit code for it.
    pub fn fatal(&self) -> Option<(String, u8)> {
        self.shared.fatal.get().cloned()
    }

    /// Stops cycles and ticks, and closes the log cleanly. In a cluster, the others are told to stop; what exchanges rows with
    /// them goes on until the process ends.
    pub fn close(mut self) -> Result<(), LogError> {
        self.halt();
        if let Some(cluster) = &self.shared.cluster {
            cluster.leave("it was told to stop");
        }
        // While the log's lock is held: merging writes files beside it.
        self.shared.node.settle();
        self.shared.log.clone().close()
    }

    fn halt(&mut self) {
        if let Some(cluster) = &self.shared.cluster {
            cluster.stop_waiting();
        }
        self.shared.node.stop_batch();
        drop(self.stop.take());
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join() {
                tracing::error!(message = crate::operators::panic_message(&*panic), "a thread of the server panicked");
            }
        }
    }
}

impl<E: Event> Drop for Server<E> {
    fn drop(&mut self) {
        self.halt();
    }
}

fn start_node<E: Event>(program: &Program<E>, log: &Log<E>, options: &ServerOptions, crew: Crew) -> Result<Node<E>, StartError> {
    let (processes, keep) = ((crew.process(), crew.processes()), options.keep_generations);
    let store = GenerationStore::open_for(log.disk(), log.dir(), log.id(), &program.name, keep, processes)?;
    let node_options = NodeOptions {
        batch_events: (options.batch_events / crew.processes() as u64).max(1),
        crew,
        history: options.history.as_millis() as u64,
        version: program.identity(),
        store: Some(Arc::new(store)),
    };
    let serving = Arc::new(Serving::default());
    Node::start(Arc::clone(&program.dataflow), log.clone(), node_options, serving).map_err(StartError::Threads)
}

impl<E: Event> Member<E> {
    /// Lets other processes reach a node. It is never dropped: its workers cannot be waited for without those of the other
    /// processes. The process ends instead.
    pub fn start(cluster: &Cluster, node: &Arc<Node<E>>) -> Arc<Self> {
        std::mem::forget(Arc::clone(node));
        let member = Arc::new(Self { node: Arc::clone(node), shared: OnceLock::new() });
        cluster.handle(Arc::clone(&member) as _);
        member
    }
}

impl<E: Event> Handler for Member<E> {
    fn answer(&self, _from: usize, request: &[u8], body: &[u8]) -> Vec<u8> {
        let answer = |request| match (request, self.shared.get()) {
            (Request::Command(command), _) => Reply::Report(Box::new(self.node.obey(&command))),
            (Request::GiveUp { attempt }, _) => {
                self.node.cancel_batch(attempt);
                Reply::Done
            }
            (_, None) => Reply::Refused(Refusal::Serve(ServeError::NotReady)),
            (Request::Append { numbered, format, on_error }, Some(shared)) => shared.append_as(&numbered, body, format, on_error).into(),
            (Request::Read { view, queries, as_of, timeout_ms }, Some(shared)) => {
                gather::read_part(&shared.serving, &view, queries, as_of, Duration::from_millis(timeout_ms)).into()
            }
            (Request::Cycle(cycle), Some(shared)) => Service::cycle(&**shared, cycle).into(),
            (Request::Audit, Some(shared)) => Service::audit(&**shared).into(),
            (Request::Progress, Some(shared)) => shared.progress().into(),
            (Request::Events, Some(shared)) => Reply::Events(shared.log.events_total()),
        };
        let failed = |message: String, kind| Reply::Refused(Refusal::Other { message, kind });
        let reply = match serde_json::from_slice(request) {
            Ok(request) => catch_unwind(AssertUnwindSafe(|| answer(request)))
                .unwrap_or_else(|panic| failed(format!("panicked: {}", crate::operators::panic_message(&*panic)), ErrorKind::Failed)),
            Err(error) => failed(format!("the question is not understood: {error}"), ErrorKind::Invalid),
        };
        serde_json::to_vec(&reply).expect("answers can be written as JSON")
    }
}

impl<E: Event> Shared<E> {
    fn new(
        program: Program<E>,
        log: Log<E>,
        node: Arc<Node<E>>,
        options: ServerOptions,
        started: Started,
        coordinator: Option<Coordinator>,
        cluster: Option<Cluster>,
    ) -> Arc<Self> {
        Arc::new(Self {
            program,
            log,
            serving: node.serving(),
            node,
            coordinator: coordinator.map(Mutex::new),
            cluster,
            progress: Mutex::new(Progress {
                last_handover: started.handover.clone(),
                handovers: u64::from(started.handover.is_some()),
                ..Progress::default()
            }),
            fatal: OnceLock::new(),
            options,
            started,
            cycles: Room::new(CYCLES_WAITING_MAX),
            appends: Room::new(APPENDS_PASSED_ON_MAX),
            statuses: Room::new(STATUS_WAITING_MAX),
        })
    }

    /// Closes the current tick again and again: that is what makes answers fresh, also when nothing is appended.
    fn start_ticker(self: &Arc<Self>, stopped: Receiver<()>) -> std::io::Result<JoinHandle<()>> {
        let shared = Arc::clone(self);
        std::thread::Builder::new().name("ticks".to_owned()).spawn(move || {
            loop {
                if let Some(cluster) = &shared.cluster {
                    // A process whose clock is behind would hold up all answers.
                    shared.log.raise(Tick(cluster.tick()));
                }
                let advanced = shared.log.advance();
                if let (Some(cluster), Ok(frontier)) = (&shared.cluster, &advanced) {
                    cluster.set_tick(frontier.0, shared.options.tick);
                }
                let failure = advanced.err().map(|error| (error.to_string(), error.exit_code()));
                if let Some((error, exit_code)) = failure.or_else(|| shared.node.failure().map(|failure| shared.reason_of(failure))) {
                    match shared.has_lost_a_process() {
                        // Whoever ends the process says so.
                        true => tracing::debug!(%error, "this process cannot go on without another"),
                        false => tracing::error!(%error, "this process cannot go on; answers stay where they are"),
                    }
                    let _ = shared.fatal.set((error, exit_code));
                    return;
                }
                if stopped.recv_timeout(shared.options.tick) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        })
    }

    /// Runs batch cycles until told to stop: at once if what is served is outdated, else when there are new events.
    fn schedule(&self, stopped: &Receiver<()>) {
        let tail = if self.started.handover.is_none() { self.started.found.tail } else { 0 };
        // An offset may be a hole that a redaction left.
        let mut seen = self.events_total().saturating_sub(tail);
        let mut outdated = self.started.outdated;
        let mut pause = if outdated { Duration::ZERO } else { self.options.batch_interval.unwrap_or(Duration::MAX) };
        let mut backoff = BACKOFF;
        loop {
            let ended = if pause == Duration::MAX { stopped.recv().map_err(RecvTimeoutError::from) } else { stopped.recv_timeout(pause) };
            if ended != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let interval = self.options.batch_interval.unwrap_or(Duration::MAX);
            let total = self.events_total();
            if total == seen && !outdated {
                pause = interval;
                continue;
            }
            let started = Instant::now();
            match self.cycle(Cycle::Incremental) {
                Ok(_) => {
                    (seen, outdated, backoff) = (total, false, BACKOFF);
                    pause = interval.max(started.elapsed().mul_f64((1.0 - BATCH_SHARE) / BATCH_SHARE));
                }
                Err(_) => {
                    pause = if outdated { backoff } else { interval.max(backoff) };
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Why the speed layer failed: when the connection to a process breaks, all workers that exchange rows with it panic.
    fn reason_of(&self, (message, exit_code): (String, u8)) -> (String, u8) {
        let lost = self.cluster.as_ref().and_then(|cluster| cluster.broken_by(&message));
        lost.map_or((message, exit_code), |lost| (lost.to_string(), lost.exit_code()))
    }

    fn has_lost_a_process(&self) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.lost().is_some())
    }

    fn processes(&self) -> Vec<ProcessStatus> {
        let Some(cluster) = &self.cluster else {
            return vec![ProcessStatus { process: 0, address: String::new(), own: true, silent_ms: 0 }];
        };
        let membership = cluster.membership();
        let status = |(process, address): (usize, &String)| ProcessStatus {
            process,
            address: address.clone(),
            own: process == membership.process,
            silent_ms: cluster.silence(process).as_millis() as u64,
        };
        membership.addresses.iter().enumerate().map(status).collect()
    }

    /// Events in the log, on all processes that answer.
    fn events_total(&self) -> u64 {
        let of = |cluster: &Cluster, process| match ask(cluster, process, &Request::Events, &[], APPEND_PATIENCE) {
            Ok(Reply::Events(events)) => events,
            _ => 0,
        };
        let others = self.cluster.iter().flat_map(|cluster| cluster.others().map(move |process| of(cluster, process)));
        self.log.events_total() + others.sum::<u64>()
    }

    /// The cluster, on a process that runs no cycles: process 0 does.
    fn led(&self) -> Option<&Cluster> {
        self.cluster.as_ref().filter(|_| self.coordinator.is_none())
    }

    /// Has a cycle or an audit that a client asked for run by process 0, or runs it here if this is process 0.
    fn asked<T>(
        &self,
        request: &Request,
        read: impl FnOnce(Reply) -> Result<T, Reply>,
        run: impl FnOnce() -> Result<T, CycleError>,
    ) -> Result<T, ServiceError> {
        let _room = self.cycles.enter().map_err(|_| ServiceError::TooManyCycles)?;
        match self.led() {
            Some(cluster) => read(ask(cluster, 0, request, &[], NO_LIMIT)?).map_err(|other| unexpected(&other)),
            None => Ok(run()?),
        }
    }

    /// How cycles go, on process 0.
    fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }

    /// How cycles go, as process 0 says.
    fn progress_of_all(&self) -> Result<Progress, ServiceError> {
        let Some(cluster) = self.led() else { return Ok(self.progress()) };
        match ask_in(&self.statuses, cluster, 0, &Request::Progress, &[], STATUS_PATIENCE)? {
            Reply::Progress(progress) => Ok(*progress),
            other => Err(unexpected(&other)),
        }
    }

    fn run_cycle<T>(&self, cycle: Cycle, run: impl FnOnce(&mut Coordinator) -> Result<T, CycleError>) -> Result<T, CycleError> {
        let coordinator = self.coordinator.as_ref().expect("cycles run on process 0");
        let mut coordinator = lock(coordinator);
        lock(&self.progress).running = Some(cycle);
        let ended = catch_unwind(AssertUnwindSafe(|| run(&mut coordinator)));
        lock(&self.progress).running = None;
        let ended = ended.unwrap_or_else(|panic| {
            let reason = format!("panicked: {}", crate::operators::panic_message(&*panic));
            Err(CycleError::Step { step: "the cycle".to_owned(), process: 0, reason, exit_code: 1 })
        });
        if let Err(error) = &ended {
            match self.has_lost_a_process() {
                true => tracing::debug!(%error, "a batch cycle ended with the cluster"),
                false => tracing::error!(%error, "a batch cycle ended without a handover"),
            }
            lock(&self.progress).last_error = Some(error.to_string());
        }
        ended
    }

    fn cycle(&self, cycle: Cycle) -> Result<Handover, CycleError> {
        let handover = self.run_cycle(cycle, |coordinator| coordinator.cycle(cycle))?;
        tracing::info!(
            generation = handover.generation,
            cut = handover.cut.0,
            rows = handover.rows,
            batch_ms = handover.batch_ms,
            audit_ms = handover.audit_ms,
            handover_ms = handover.handover_ms,
            "handed over"
        );
        for difference in &handover.differences {
            tracing::warn!(
                view = difference.view,
                rows = difference.rows.len() as u64 + difference.more,
                "the changed dataflow answers differently"
            );
        }
        let mut progress = lock(&self.progress);
        progress.handovers += 1;
        progress.last_handover = Some(handover.clone());
        progress.last_error = None;
        Ok(handover)
    }
}

impl<E: Event> Shared<E> {
    /// The events of some lines, and those that are none. No events at all, if they are not to be taken.
    fn parse(&self, lines: &[u8], format: Format, on_error: OnError) -> Result<(Vec<E>, Vec<Rejected>), ServiceError> {
        if format == Format::Lines && self.program.lines.is_none() {
            return Err(ServiceError::NoLineFormat(self.program.name.clone()));
        }
        let mut events = Vec::new();
        let mut rejected = Vec::new();
        for_each_line::<std::io::Error>(lines, |line, bytes, _| {
            let parsed = bytes.and_then(|bytes| match format {
                Format::Json if bytes.iter().all(u8::is_ascii_whitespace) => Err("empty line".to_owned()),
                Format::Json => self.program.parse_json(bytes),
                Format::Lines => self.program.parse(bytes),
            });
            match parsed {
                Ok(event) => events.push(event),
                Err(error) => rejected.push(Rejected { line, error }),
            }
            Ok(())
        })
        .expect("memory can be read");
        if on_error == OnError::Stop && !rejected.is_empty() {
            events.clear();
        }
        Ok((events, rejected))
    }
}

impl<E: Event> Service for Shared<E> {
    fn append(&self, lines: &[u8], format: Format, on_error: OnError) -> Result<Appended, ServiceError> {
        let (events, rejected) = self.parse(lines, format, on_error)?;
        if events.is_empty() {
            return Ok(Appended { rejected, ..Appended::default() });
        }
        let ack = self.log.append(events)?;
        Ok(Appended { token: Some(ack.tick()), accepted: ack.count(), rejected, ..Appended::default() })
    }

    fn append_as(&self, numbered: &Numbered, lines: &[u8], format: Format, on_error: OnError) -> Result<Appended, ServiceError> {
        let owner = self.log.owner_of(&numbered.producer) as usize;
        if let Some(cluster) = self.cluster.as_ref().filter(|cluster| cluster.membership().process != owner) {
            let request = Request::Append { numbered: numbered.clone(), format, on_error };
            return match ask_in(&self.appends, cluster, owner, &request, lines, APPEND_PATIENCE)? {
                Reply::Appended(appended) => Ok(appended),
                other => Err(unexpected(&other)),
            };
        }
        let (events, rejected) = self.parse(lines, format, on_error)?;
        if events.is_empty() {
            return Ok(Appended { rejected, ..Appended::default() });
        }
        let ack = self.log.append_as(&numbered.producer, numbered.sequence, events)?;
        let (partition, first_offset) = (Some(ack.partition()), Some(ack.first_offset()));
        Ok(Appended { token: Some(ack.tick()), accepted: ack.count(), rejected, partition, first_offset })
    }

    fn read(&self, read: &Read) -> Result<Answer, ServiceError> {
        match &self.cluster {
            Some(cluster) => gather::read(&self.serving, cluster, read),
            None => Ok(self.serving.read(read)?),
        }
    }

    fn views(&self) -> Vec<ViewInfo> {
        self.serving.views()
    }

    fn status(&self) -> Status {
        let (generation, base) = self.serving.generation();
        let frontier = self.serving.frontier();
        let stats = self.log.stats();
        let (runs, rows) = self.node.generation_size();
        let processes = self.processes();
        let (progress, cycles_unknown) = match self.progress_of_all() {
            Ok(progress) => (Some(progress), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let handovers = progress.as_ref().map(|progress| progress.handovers);
        let Progress { running, last_handover, last_error, .. } = progress.unwrap_or_default();
        Status {
            dataflow: self.program.name.clone(),
            generation,
            base,
            frontier,
            workers: self.options.workers,
            layers: Layers {
                batch: BatchStatus { frontier: base, running },
                speed: SpeedStatus { frontier, behind: stats.frontier.0.saturating_sub(frontier.0) },
            },
            started: self.started.summary(),
            last_handover,
            handovers,
            last_error,
            cycles_unknown,
            share: ShareStatus {
                process: self.cluster.as_ref().map_or(0, |cluster| cluster.membership().process),
                of: processes.len(),
                runs,
                rows,
                log: serde_json::to_value(&stats).unwrap_or_default(),
            },
            processes,
        }
    }

    fn cycle(&self, cycle: Cycle) -> Result<Handover, ServiceError> {
        let read = |reply| match reply {
            Reply::HandedOver(handover) => Ok(*handover),
            other => Err(other),
        };
        self.asked(&Request::Cycle(cycle), read, || Shared::cycle(self, cycle))
    }

    fn audit(&self) -> Result<Vec<Audit>, ServiceError> {
        let read = |reply| match reply {
            Reply::Audited(audits) => Ok(audits),
            other => Err(other),
        };
        self.asked(&Request::Audit, read, || self.run_cycle(Cycle::Full, |coordinator| coordinator.audit(Cycle::Full)))
    }
}

fn unexpected(reply: &Reply) -> ServiceError {
    ServiceError::Elsewhere { message: format!("an answer to something else: {reply:?}"), kind: ErrorKind::Failed }
}
