//! The log as a running thing: opened, appended to, advanced, closed.
//!
//! Threads: one writer per partition (see `commit.rs`), one that keeps the mark ahead of the ticks, one that seals full
//! segments. Any failed write, sync or rename stops the log: what is on disk is then unknown until it is opened again, and a
//! second sync would report success for lost bytes. Nothing durable happens when a handle is dropped; that is a kill.
use super::block::Rows;
use super::clock::Clock;
use super::commit::{
    APPEND_BYTES_MAX, APPEND_EVENTS_MAX, Ack, Job, Lane, Message, QUEUE_APPENDS_MAX,
    SEAL_BACKLOG_MAX,
};
use super::cursor::Cursor;
use super::disk::{Disk, LockGuard, uninterrupted};
use super::error::LogError;
use super::event::{Event, EventType};
use super::failpoint::{Step, reach};
use super::frame::{LogId, SegmentId};
use super::mark::{self, Mark};
use super::meta::{Found, LOCK_NAME, Meta, look, partition_dir};
use super::partition::Segments;
use super::position::{Offset, Partition, Tick};
use super::recovery::{Known, plan};
use super::segment::{Sealed, active_name, seal};
use super::ticks::Ticks;
use columnar::{Borrow, Columnar, ContainerOf, Len, bytes::indexed};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes at which an active segment is full and gets sealed, unless the options say otherwise.
pub const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How long [`Log::advance`] waits for a slow disk before it returns the frontier as it is.
pub const ADVANCE_WAIT_MS_MAX: u64 = 100;

/// What an acknowledgement promises.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// On stable storage: survives a power cut.
    #[default]
    Sync,
    /// Handed to the operating system: survives the end of the process, not a power cut.
    Os,
    /// In memory: survives nothing. The bytes reach the operating system soon after.
    Memory,
}

/// Who does the work of writers, mark and sealing.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Execution {
    /// Threads of the log.
    #[default]
    Threads,
    /// The calling thread, in a fixed order: for simulations that must repeat from a seed. Calls then do not share groups.
    Inline,
}

/// How to open a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Partitions of a new log. A log keeps the number it was created with.
    pub partitions: u32,
    /// Bytes at which an active segment is full.
    pub segment_bytes_max: u64,
    /// What an acknowledgement promises.
    pub durability: Durability,
    /// Who does the work.
    pub execution: Execution,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            partitions: 1,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            durability: Durability::Sync,
            execution: Execution::Threads,
        }
    }
}

/// Numbers of a running log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LogStats {
    /// The tick before which everything is complete.
    pub frontier: Tick,
    /// Per partition, in order.
    pub partitions: Vec<PartitionStats>,
}

/// Numbers of one partition.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PartitionStats {
    /// The partition.
    pub partition: Partition,
    /// Segments, sealed and not.
    pub segments: u64,
    /// Segments that are rewritten into large blocks.
    pub segments_sealed: u64,
    /// Bytes of all segments on disk.
    pub bytes: u64,
    /// Events.
    pub events: u64,
    /// Tick of the first event.
    pub first_tick: Option<Tick>,
    /// Tick of the last event.
    pub last_tick: Option<Tick>,
}

/// The master dataset: an append-only, partitioned log of events. Clones share it.
pub struct Log<E: Event> {
    handle: Arc<Handle<E>>,
}

impl<E: Event> Clone for Log<E> {
    fn clone(&self) -> Self {
        Log {
            handle: Arc::clone(&self.handle),
        }
    }
}

/// Owns threads and lock; the last clone's drop ends both.
struct Handle<E: Event> {
    core: Arc<Core<E>>,
    queues: Vec<Sender<Message<E>>>,
    threads: Mutex<Threads>,
    next_partition: AtomicUsize,
}

struct Threads {
    writers: Vec<JoinHandle<()>>,
    keepers: Vec<JoinHandle<()>>,
    lock: Option<LockGuard>,
}

/// What threads, cursors and handles share.
pub(crate) struct Core<E: Event> {
    pub disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dir: PathBuf,
    pub log_id: LogId,
    meta: Meta,
    pub segment_bytes_max: u64,
    pub durability: Durability,
    execution: Execution,
    pub partitions: Vec<RwLock<Segments<E>>>,
    lanes: Vec<Mutex<Lane>>,
    state: Mutex<State>,
    /// The frontier moved, or the log stopped.
    frontier_moved: Condvar,
    /// The mark's reserve is low, a segment is full, or the log stops.
    work: Condvar,
    /// A segment was sealed, or the log stopped.
    room: Condvar,
    frontier: AtomicU64,
    wakers: Mutex<BTreeMap<u64, Waker>>,
    mark_writing: Mutex<()>,
}

type Waker = Arc<dyn Fn() + Send + Sync>;

struct State {
    ticks: Ticks,
    /// Per partition, the offset before which everything is on stable storage.
    durable: Vec<Offset>,
    full: VecDeque<(Partition, Offset)>,
    failure: Option<String>,
    phase: Phase,
    waker_next: u64,
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Phase {
    Running,
    /// Full segments are still sealed, nothing is appended.
    Closing,
    Closed,
}

/// Keeps a function registered with [`Log::on_change`] until dropped.
#[must_use = "the function is called only while its guard lives"]
pub struct WakerGuard {
    unregister: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Drop for WakerGuard {
    fn drop(&mut self) {
        if let Some(unregister) = self.unregister.take() {
            unregister();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while one of these locks is held is a bug that has been reported already; the data is whole between statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<E: Event> Log<E> {
    /// Opens the log in `dir`, creating it when the directory is absent or empty. Takes the log's lock and recovers from
    /// whatever stopped the log before.
    pub fn open(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        options: LogOptions,
    ) -> Result<Self, LogError> {
        look(&*disk, dir)?; // a directory of something else is left as it is
        uninterrupted(|| disk.create_dir(dir))
            .map_err(|error| LogError::storage("create", dir, error))?;
        let guard = take_lock(&*disk, dir)?;
        let meta = match look(&*disk, dir)? {
            Found::Log => Meta::read(&*disk, dir)?,
            Found::Nothing => Meta::create::<E>(&*disk, dir, options.partitions)?,
        };
        Self::start(disk, clock, dir, options, meta, guard)
    }

    /// Opens the log in `dir`; an error when there is none.
    pub fn open_existing(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        options: LogOptions,
    ) -> Result<Self, LogError> {
        let Found::Log = look(&*disk, dir)? else {
            return Err(LogError::NoLog {
                dir: dir.to_path_buf(),
            });
        };
        let guard = take_lock(&*disk, dir)?;
        let meta = Meta::read(&*disk, dir)?;
        Self::start(disk, clock, dir, options, meta, guard)
    }

    fn start(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        options: LogOptions,
        meta: Meta,
        guard: LockGuard,
    ) -> Result<Self, LogError> {
        meta.check::<E>(dir)?;
        let log_id = meta.id(dir)?;
        let mark = Mark::read(&*disk, dir, &meta.log_id)?;
        if mark.ends.len() != meta.partitions as usize {
            let what = format!(
                "{} partitions, expected {}",
                mark.ends.len(),
                meta.partitions
            );
            return Err(LogError::damaged_file(&dir.join(mark::NAME), 0, what));
        }
        let known = Known {
            disk: &*disk,
            log: log_id,
            clean_stop: mark.clean,
            synced: mark.synced,
        };
        let plans = mark.ends.iter().enumerate().map(|(number, end)| {
            let partition = Partition(number as u32);
            plan::<E>(known, &partition_dir(dir, partition), partition, *end)
        });
        let plans = plans.collect::<Result<Vec<_>, LogError>>()?;
        let ends: Vec<Offset> = plans.iter().map(|plan| plan.end).collect();
        let floor = plans
            .iter()
            .map(|plan| plan.last_tick)
            .max()
            .unwrap_or_default()
            .max(mark.reserved);
        let partitions = plans.into_iter().map(|plan| {
            let end = plan.end;
            Ok(RwLock::new(Segments::new(plan.carry_out(&*disk)?, end)))
        });
        let partitions = partitions.collect::<Result<Vec<_>, LogError>>()?;
        let reserved = mark::reserve(clock.now(), floor);
        let synced = options.durability == Durability::Sync;
        let mark = Mark {
            log_id: meta.log_id.clone(),
            reserved,
            clean: false,
            synced,
            ends: ends.clone(),
        };
        mark.write(&*disk, dir)?;
        let mut ticks = Ticks::new(floor, reserved, ends.len());
        let core = Arc::new(Core {
            disk,
            clock,
            dir: dir.to_path_buf(),
            log_id,
            meta,
            segment_bytes_max: options.segment_bytes_max,
            durability: options.durability,
            execution: options.execution,
            partitions,
            lanes: ends
                .iter()
                .enumerate()
                .map(|(number, end)| Mutex::new(Lane::new(Partition(number as u32), *end)))
                .collect(),
            frontier: AtomicU64::new(ticks.frontier().0),
            state: Mutex::new(State {
                ticks,
                durable: ends,
                full: VecDeque::new(),
                failure: None,
                phase: Phase::Running,
                waker_next: 0,
            }),
            frontier_moved: Condvar::new(),
            work: Condvar::new(),
            room: Condvar::new(),
            wakers: Mutex::default(),
            mark_writing: Mutex::default(),
        });
        let mut threads = Threads {
            writers: Vec::new(),
            keepers: Vec::new(),
            lock: Some(guard),
        };
        let mut queues = Vec::new();
        if options.execution == Execution::Threads {
            queues = threads.spawn(&core)?;
        }
        Ok(Log {
            handle: Arc::new(Handle {
                core,
                queues,
                threads: Mutex::new(threads),
                next_partition: AtomicUsize::new(0),
            }),
        })
    }

    /// Appends a batch, all or nothing, with one tick, to a partition of the log's choice. Returns when it is as durable as
    /// the options ask; concurrent calls share a sync. An error leaves open whether the events are in the log.
    pub fn append(&self, events: Vec<E>) -> Result<Ack, LogError> {
        let partition = self.handle.next_partition();
        self.append_to(partition, events)
    }

    /// Appends a batch to one partition; otherwise as [`Log::append`].
    ///
    /// # Panics
    /// When the log has no such partition.
    pub fn append_to(&self, partition: Partition, events: Vec<E>) -> Result<Ack, LogError> {
        let answer = self.submit(partition, <E as Columnar>::as_columns(events.iter()))?;
        answer
            .recv()
            .unwrap_or_else(|_| Err(self.handle.core.why_stopped()))
    }

    /// Hands rows to the partition's writer; waits when its queue is full.
    pub(crate) fn submit(
        &self,
        partition: Partition,
        columns: ContainerOf<E>,
    ) -> Result<Receiver<Result<Ack, LogError>>, LogError> {
        let (events, bytes) = (columns.len(), indexed::length_in_bytes(&columns.borrow()));
        if events == 0 {
            return Err(LogError::Empty);
        }
        if events > APPEND_EVENTS_MAX || bytes > APPEND_BYTES_MAX {
            return Err(LogError::TooLarge {
                events,
                bytes,
                events_max: APPEND_EVENTS_MAX,
                bytes_max: APPEND_BYTES_MAX,
            });
        }
        let core = &self.handle.core;
        let (reply, answer) = bounded(1);
        let job = Job {
            columns,
            bytes,
            reply,
        };
        match core.execution {
            Execution::Inline => {
                lock(&core.lanes[partition.index()]).commit(core, vec![job]);
                core.work_off();
            }
            Execution::Threads => {
                core.check_running()?;
                self.handle.queues[partition.index()]
                    .send(Message::Append(job))
                    .map_err(|_| core.why_stopped())?;
            }
        }
        Ok(answer)
    }

    /// Every event with a smaller tick is durable and readable; no later append gets a smaller tick. Never goes back, not even
    /// over restarts.
    pub fn frontier(&self) -> Tick {
        self.handle.core.frontier()
    }

    /// Closes the current tick and returns the frontier, at least one tick on, once what was being written is durable.
    ///
    /// Waits no longer than [`ADVANCE_WAIT_MS_MAX`] for the disk; then the frontier may be where it was.
    pub fn advance(&self) -> Result<Tick, LogError> {
        self.handle.core.advance()
    }

    /// Calls `waker` after each commit and each move of the frontier, from threads of the log, while the guard lives.
    pub fn on_change(&self, waker: Box<dyn Fn() + Send + Sync>) -> WakerGuard {
        let core = &self.handle.core;
        let key = {
            let mut state = lock(&core.state);
            state.waker_next += 1;
            state.waker_next
        };
        lock(&core.wakers).insert(key, Arc::from(waker));
        let core = Arc::downgrade(core);
        let unregister = move || {
            if let Some(core) = core.upgrade() {
                lock(&core.wakers).remove(&key);
            }
        };
        WakerGuard {
            unregister: Some(Box::new(unregister)),
        }
    }

    /// Reads all partitions from tick `from`.
    pub fn cursor(&self, from: Tick) -> Cursor<E> {
        Cursor::new(Arc::clone(&self.handle.core), from)
    }

    /// The number of partitions.
    pub fn partitions(&self) -> u32 {
        self.handle.core.meta.partitions
    }

    /// The type of the log's events, as the log describes it.
    pub fn event_type(&self) -> &EventType {
        &self.handle.core.meta.event
    }

    /// 128 random bits in hexadecimal that no other log has.
    pub fn id(&self) -> &str {
        &self.handle.core.meta.log_id
    }

    /// The directory of the log.
    pub fn dir(&self) -> &Path {
        &self.handle.core.dir
    }

    /// Readable events in all partitions.
    pub fn events_total(&self) -> u64 {
        self.handle
            .core
            .partitions
            .iter()
            .map(|segments| read(segments).end.0)
            .sum()
    }

    /// Counts of segments, bytes and events.
    pub fn stats(&self) -> LogStats {
        let partitions =
            self.handle
                .core
                .partitions
                .iter()
                .enumerate()
                .map(|(number, segments)| {
                    let segments = read(segments);
                    let ticks = segments
                        .sealed
                        .iter()
                        .map(|sealed| (sealed.file.first_tick, sealed.file.last_tick));
                    let open_ticks = segments
                        .open
                        .iter()
                        .flat_map(|open| &open.blocks)
                        .map(|rows| (rows.first_tick(), rows.last_tick()));
                    let bytes = segments
                        .sealed
                        .iter()
                        .map(|sealed| sealed.file.bytes.len() as u64)
                        .sum::<u64>();
                    PartitionStats {
                        partition: Partition(number as u32),
                        segments: (segments.sealed.len() + segments.open.len()) as u64,
                        segments_sealed: segments.sealed.len() as u64,
                        bytes: bytes + segments.open.iter().map(|open| open.bytes).sum::<u64>(),
                        events: segments.end.0,
                        first_tick: ticks
                            .clone()
                            .chain(open_ticks.clone())
                            .next()
                            .map(|(first, _)| first),
                        last_tick: ticks.chain(open_ticks).last().map(|(_, last)| last),
                    }
                });
        LogStats {
            partitions: partitions.collect(),
            frontier: self.frontier(),
        }
    }

    /// Stops cleanly: writes what is queued, syncs, and notes that nothing is missing. Other clones then get
    /// [`LogError::Closed`]; cursors can still read.
    pub fn close(self) -> Result<(), LogError> {
        self.handle.close()
    }
}

fn read<T>(segments: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    segments.read().unwrap_or_else(PoisonError::into_inner)
}

fn take_lock(disk: &dyn Disk, dir: &Path) -> Result<LockGuard, LogError> {
    let path = dir.join(LOCK_NAME);
    uninterrupted(|| disk.lock(&path)).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => LogError::InUse {
            dir: dir.to_path_buf(),
            pid: error.to_string(),
        },
        _ => LogError::storage("lock", &path, error),
    })
}

impl Threads {
    fn spawn<E: Event>(
        &mut self,
        core: &Arc<Core<E>>,
    ) -> Result<Vec<Sender<Message<E>>>, LogError> {
        let spawn = |name: String, body: Box<dyn FnOnce(&Core<E>) + Send>| {
            let thread_core = Arc::clone(core);
            let builder = std::thread::Builder::new().name(name);
            builder
                .spawn(move || body(&thread_core))
                .map_err(|error| LogError::storage("start a thread for", &core.dir, error))
        };
        let mut queues = Vec::new();
        for number in 0..core.lanes.len() {
            let (sender, receiver) = bounded(QUEUE_APPENDS_MAX);
            queues.push(sender);
            let serve = move |core: &Core<E>| lock(&core.lanes[number]).serve(core, &receiver);
            self.writers
                .push(spawn(format!("log-writer-{number}"), Box::new(serve))?);
        }
        self.keepers
            .push(spawn("log-mark".to_string(), Box::new(Core::keep_mark))?);
        self.keepers
            .push(spawn("log-seal".to_string(), Box::new(Core::keep_sealing))?);
        Ok(queues)
    }
}

impl<E: Event> Handle<E> {
    fn next_partition(&self) -> Partition {
        Partition(
            (self.next_partition.fetch_add(1, Ordering::Relaxed) % self.core.lanes.len()) as u32,
        )
    }

    /// Ends the threads. Writers first finish what is queued.
    fn end_threads(&self, threads: &mut Threads, phase: Phase) {
        for (queue, writer) in self.queues.iter().zip(threads.writers.drain(..)) {
            let _ = queue.send(Message::Stop);
            let _ = writer.join();
        }
        lock(&self.core.state).phase = phase;
        self.core.notify_all();
        for keeper in threads.keepers.drain(..) {
            let _ = keeper.join();
        }
        lock(&self.core.state).phase = Phase::Closed;
    }

    fn close(&self) -> Result<(), LogError> {
        let mut threads = lock(&self.threads);
        if lock(&self.core.state).phase == Phase::Closed {
            return Err(LogError::Closed);
        }
        self.end_threads(&mut threads, Phase::Closing);
        let closed = self.core.write_clean_mark();
        threads.lock = None;
        closed
    }
}

impl<E: Event> Drop for Handle<E> {
    fn drop(&mut self) {
        let mut threads = std::mem::replace(
            &mut *lock(&self.threads),
            Threads {
                writers: Vec::new(),
                keepers: Vec::new(),
                lock: None,
            },
        );
        self.end_threads(&mut threads, Phase::Closed);
    }
}

impl<E: Event> Core<E> {
    pub fn partition_dir(&self, partition: Partition) -> PathBuf {
        partition_dir(&self.dir, partition)
    }

    pub fn frontier(&self) -> Tick {
        Tick(self.frontier.load(Ordering::Acquire))
    }

    fn failure(&self, state: &State) -> Option<LogError> {
        match &state.failure {
            Some(cause) => Some(LogError::Stopped {
                cause: cause.clone(),
            }),
            None if state.phase == Phase::Running => None,
            None => Some(LogError::Closed),
        }
    }

    /// An error unless the log takes appends.
    pub fn check_running(&self) -> Result<(), LogError> {
        self.failure(&lock(&self.state)).map_or(Ok(()), Err)
    }

    fn why_stopped(&self) -> LogError {
        self.failure(&lock(&self.state)).unwrap_or(LogError::Closed)
    }

    /// Stops the log for good: the first failure is the one that later callers are told.
    pub fn stop(&self, error: &LogError) {
        if matches!(error, LogError::Closed | LogError::Stopped { .. }) {
            return;
        }
        let mut state = lock(&self.state);
        if state.failure.is_none() {
            tracing::error!(log = %self.dir.display(), %error, "the log stopped");
            state.failure = Some(error.to_string());
        }
        drop(state);
        self.notify_all();
        self.wake();
    }

    fn notify_all(&self) {
        self.frontier_moved.notify_all();
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Calls the functions registered with [`Log::on_change`].
    pub fn wake(&self) {
        let wakers: Vec<Waker> = lock(&self.wakers).values().cloned().collect();
        wakers.iter().for_each(|waker| waker());
    }

    /// Gives a group its tick.
    pub fn take_off(&self, partition: Partition) -> Tick {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        let tick = state.ticks.take_off(partition.index(), now);
        self.announce(&mut state);
        tick
    }

    /// Makes a group readable.
    pub fn publish(&self, partition: Partition, first: Offset, rows: Arc<Rows<E>>, bytes: u64) {
        let mut segments = self.partitions[partition.index()]
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        segments.publish(first, rows, bytes);
    }

    /// A published group is written; the frontier may pass it.
    pub fn land(&self, partition: Partition, end: Offset) {
        let mut state = lock(&self.state);
        state.ticks.land(partition.index());
        if self.durability == Durability::Sync {
            state.durable[partition.index()] = end;
        }
        self.announce(&mut state);
    }

    /// Publishes the frontier; returns whether it moved.
    fn announce(&self, state: &mut State) -> bool {
        let frontier = state.ticks.frontier().0;
        let moved = self.frontier.fetch_max(frontier, Ordering::AcqRel) < frontier;
        if moved {
            self.frontier_moved.notify_all();
        }
        if state.ticks.reserve_is_low() {
            self.work.notify_all();
        }
        moved
    }

    fn advance(&self) -> Result<Tick, LogError> {
        let now = self.clock.now();
        let mut state = lock(&self.state);
        if let Some(error) = self.failure(&state) {
            return Err(error);
        }
        let target = state.ticks.close(now);
        let before = self.frontier();
        self.announce(&mut state);
        if self.execution == Execution::Inline {
            drop(state);
            self.work_off();
            state = lock(&self.state);
        }
        let deadline = Instant::now() + Duration::from_millis(ADVANCE_WAIT_MS_MAX);
        while self.frontier() < target && self.execution == Execution::Threads {
            if let Some(error) = self.failure(&state) {
                return Err(error);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (state, _) = self
                .frontier_moved
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let failure = self.failure(&state);
        drop(state);
        let frontier = self.frontier();
        if frontier > before {
            self.wake();
        }
        failure.map_or(Ok(frontier), Err)
    }

    /// Waits until another full segment may wait for sealing.
    pub fn wait_for_sealing(&self) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        while self.execution == Execution::Threads && state.full.len() >= SEAL_BACKLOG_MAX {
            if let Some(error) = self.failure(&state) {
                return Err(error);
            }
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// A segment is full: nothing will be appended to it.
    pub fn queue_for_sealing(&self, partition: Partition, first: Offset) {
        lock(&self.state).full.push_back((partition, first));
        self.work.notify_all();
    }

    /// Body of the thread that keeps the mark ahead of the ticks.
    fn keep_mark(&self) {
        let mut state = lock(&self.state);
        loop {
            if state.phase != Phase::Running || state.failure.is_some() {
                return;
            }
            if !state.ticks.reserve_is_low() {
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            self.write_mark();
            state = lock(&self.state);
        }
    }

    /// Body of the thread that seals full segments.
    fn keep_sealing(&self) {
        let mut state = lock(&self.state);
        loop {
            if state.phase == Phase::Closed || state.failure.is_some() {
                return;
            }
            let Some((partition, first)) = state.full.front().copied() else {
                if state.phase == Phase::Closing {
                    return;
                }
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            self.seal(partition, first);
            state = lock(&self.state);
        }
    }

    /// What the threads would do, done by the caller.
    fn work_off(&self) {
        loop {
            let state = lock(&self.state);
            if self.failure(&state).is_some() {
                return;
            }
            let (full, low) = (state.full.front().copied(), state.ticks.reserve_is_low());
            drop(state);
            match full {
                Some((partition, first)) => self.seal(partition, first),
                None if low => self.write_mark(),
                None => return,
            }
        }
    }

    /// Rewrites the oldest full segment, shows readers the new one, and removes the old.
    fn seal(&self, partition: Partition, first: Offset) {
        if let Err(error) = self.try_seal(partition, first) {
            self.stop(&error);
        }
    }

    fn try_seal(&self, partition: Partition, first: Offset) -> Result<(), LogError> {
        let segments = &self.partitions[partition.index()];
        let dir = self.partition_dir(partition);
        let blocks = read(segments)
            .open
            .first()
            .map(|open| open.blocks.clone())
            .unwrap_or_default();
        let sealed = seal(
            &*self.disk,
            &dir,
            SegmentId {
                log: self.log_id,
                partition,
                first,
            },
            &blocks,
        )?;
        let end = sealed.end;
        segments
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .replace_oldest(Sealed::new(sealed));
        reach(Step::SealBeforeRemove);
        let active = dir.join(active_name(first));
        uninterrupted(|| self.disk.remove(&active))
            .map_err(|error| LogError::storage("remove", &active, error))?;
        reach(Step::SealAfterRemove);
        let mut state = lock(&self.state);
        state.full.pop_front();
        let durable = &mut state.durable[partition.index()];
        *durable = (*durable).max(end);
        drop(state);
        self.room.notify_all();
        Ok(())
    }

    /// Reserves more ticks.
    fn write_mark(&self) {
        let _one_at_a_time = lock(&self.mark_writing);
        let now = self.clock.now();
        let state = lock(&self.state);
        let reserved = mark::reserve(now, state.ticks.floor());
        let mark = self.mark(reserved, &state);
        drop(state);
        match mark.write(&*self.disk, &self.dir) {
            Ok(()) => {
                let mut state = lock(&self.state);
                state.ticks.reserve(reserved);
                let moved = self.announce(&mut state);
                drop(state);
                if moved {
                    self.wake();
                }
            }
            Err(error) => self.stop(&error),
        }
    }

    fn mark(&self, reserved: Tick, state: &State) -> Mark {
        let synced = self.durability == Durability::Sync;
        Mark {
            log_id: self.meta.log_id.clone(),
            reserved,
            clean: false,
            synced,
            ends: state.durable.clone(),
        }
    }

    /// The last step of a clean stop, after all threads have ended.
    fn write_clean_mark(&self) -> Result<(), LogError> {
        let mut ends = Vec::new();
        for lane in &self.lanes {
            let mut lane = lock(lane);
            if let Some(cause) = lock(&self.state).failure.clone() {
                return Err(LogError::Stopped { cause });
            }
            lane.sync(self.durability)?;
            ends.push(lane.end());
        }
        let mut state = lock(&self.state);
        // Nothing is given out any more, so the floor itself is the smallest tick a restart may use.
        let reserved = state.ticks.floor().max(state.ticks.frontier());
        let mark = Mark {
            clean: true,
            ends,
            ..self.mark(reserved, &state)
        };
        drop(state);
        mark.write(&*self.disk, &self.dir)
    }
}
