//! The running log below its handle: failure, frontier, mark, sealing.
//!
//! Any failed write, sync or rename stops the log: what is on disk is then unknown until it is opened again, and a second
//! sync would report success for lost bytes.
use super::block::Rows;
use super::clock::Clock;
use super::commit::{Lane, SEAL_BACKLOG_MAX};
use super::error::LogError;
use super::event::{Event, EventType, Types};
use super::frame::{LogId, SegmentId};
use super::mark::{self, Mark, Marks, share_name};
use super::meta::{LOCK_NAME, Meta, partition_dir};
use super::options::{Durability, Execution, LogOptions, Share};
use super::partition::{Contents, Segments};
use super::position::{Offset, Partition, Tick};
use super::producers::Producers;
use super::recovery::{Beside, Known, plan, producers_of};
use super::redact::Redactions;
use super::segment::{Sealed, Sealing, active_name, seal};
use super::ticks::Ticks;
use crate::storage::{Disk, Step, reach, uninterrupted};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long [`Log::advance`](super::Log::advance) waits for a slow disk before it returns the frontier as it is.
pub const ADVANCE_WAIT_MS_MAX: u64 = 100;

/// What threads, cursors and handles share.
pub(crate) struct Core<E: Event> {
    pub disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    pub dir: PathBuf,
    /// The part of the log that is open here.
    pub share: Share,
    /// Which file is the lock of this log, or share.
    lock_identity: (u64, u64),
    /// The tick that ticks began at.
    began: Tick,
    pub log_id: LogId,
    pub meta: Meta,
    pub types: Arc<Types<E>>,
    /// Redactions so far: none is made while the log is open.
    pub revision: u64,
    pub segment_bytes_max: u64,
    block_events_max: usize,
    pub durability: Durability,
    pub execution: Execution,
    pub contents: Arc<Contents<E>>,
    /// Of the own partitions, in order.
    pub lanes: Vec<Mutex<Lane>>,
    state: Mutex<State>,
    /// The frontier moved, or the log stopped.
    frontier_moved: Condvar,
    /// The mark's reserve is low, a segment is full, or the log stops.
    work: Condvar,
    /// A segment was sealed, or the log stopped.
    room: Condvar,
    wakers: Mutex<BTreeMap<u64, Waker>>,
    mark_writing: Mutex<()>,
}

pub(crate) type Waker = Arc<dyn Fn() + Send + Sync>;

struct State {
    ticks: Ticks,
    /// Per partition, the offset before which everything is on stable storage; of others' partitions, what was known at the start.
    durable: Vec<Offset>,
    full: VecDeque<(Partition, Offset)>,
    failure: Option<String>,
    phase: Phase,
    waker_next: u64,
}

#[derive(Copy, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    Running,
    /// Full segments are still sealed, nothing is appended.
    Closing,
    Closed,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while one of these locks is held is a bug that has been reported already; the data is whole between statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lock_identity(disk: &dyn Disk, dir: &Path, share: Share) -> Result<(u64, u64), LogError> {
    let path = dir.join(share_name(LOCK_NAME, share.index));
    uninterrupted(|| disk.identity(&path)).map_err(|error| LogError::storage("find", &path, error))
}

impl<E: Event> Core<E> {
    /// Recovers a log, or a share of one, whose lock is held: judges its partitions, then seals what was active, then reserves
    /// ticks. What concerns the whole log, a new event type and unfinished redactions, is left to who has the whole.
    pub fn recover(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, dir: &Path, options: &LogOptions, meta: Meta) -> Result<Self, LogError> {
        let log_id = meta.id(dir)?;
        let types = Arc::new(meta.types::<E>(dir)?);
        let share = options.share;
        if !share.is_whole() && meta.event != EventType::of::<E>() {
            let (found, expected) = (meta.event.to_string(), EventType::of::<E>().to_string());
            return Err(LogError::WrongEvent { dir: dir.to_path_buf(), found, expected });
        }
        let lock_identity = lock_identity(&*disk, dir, share)?;
        let marks = Marks::read(&*disk, dir, &meta)?;
        let mark = marks.combined();
        let mut redactions = Redactions::read(&*disk, dir)?;
        if !share.is_whole() && redactions.is_pending() {
            let why = "a redaction is to be finished first\n  hint: whoever opens the whole log does, as the process of share 0".to_owned();
            return Err(LogError::WrongShare { dir: dir.to_path_buf(), share, why });
        }
        let revision = redactions.revision();
        let known = Known { disk: &*disk, dir, log: log_id, mark: &mark, revision, types: &types, beside: Beside::Nobody };
        let partitions_total = meta.partitions;
        let own = || share.partitions(partitions_total);
        let plans = own().map(|partition| plan(&known, partition, mark.ends[partition.index()]));
        let mut plans = plans.collect::<Result<Vec<_>, LogError>>()?;
        plans.iter_mut().try_for_each(|plan| plan.merge(options.block_events_max))?;
        let mut ends = mark.ends.clone();
        own().zip(&plans).for_each(|(partition, plan)| ends[partition.index()] = plan.end);
        let floor = plans.iter().map(|plan| plan.last_tick).max().unwrap_or_default().max(marks.begin(share));
        let mut partitions: Vec<Segments<E>> = (0..partitions_total).map(|_| Segments::new(Vec::new(), Offset(0))).collect();
        let mut producers: Vec<Producers> = Vec::new();
        let mut meta = meta;
        if share.is_whole() {
            meta.adopt::<E>(&*disk, dir)?;
            redactions.remove_torn_tails(&*disk, dir)?;
        }
        for (partition, plan) in own().zip(plans) {
            let segments = plan.carry_out(&*disk, options)?;
            producers.push(producers_of(segments.sealed.last().map(|last| &**last))?);
            partitions[partition.index()] = segments;
        }
        if share.is_whole() {
            redactions.settle(&*disk, dir)?;
        }
        let reserved = mark::reserve(clock.now(), floor);
        let synced = options.durability == Durability::Sync;
        let began = (!share.is_whole()).then_some(floor);
        let mark = Mark { log_id: meta.log_id.clone(), reserved, clean: false, synced, ends: ends.clone(), began };
        mark.write(&*disk, dir, share.index)?;
        if share.is_whole() {
            mark::remove_others(&*disk, dir)?;
        }
        let mut ticks = Ticks::new(floor, reserved, ends.len());
        let lanes = own().zip(producers).map(|(partition, producers)| Mutex::new(Lane::new(partition, ends[partition.index()], producers)));
        let lanes = lanes.collect();
        Ok(Core {
            disk,
            clock,
            dir: dir.to_path_buf(),
            share,
            lock_identity,
            began: floor,
            log_id,
            meta,
            types,
            revision,
            segment_bytes_max: options.segment_bytes_max,
            block_events_max: options.block_events_max,
            durability: options.durability,
            execution: options.execution,
            contents: Arc::new(Contents::new(partitions, ticks.frontier())),
            lanes,
            state: Mutex::new(State { ticks, durable: ends, full: VecDeque::new(), failure: None, phase: Phase::Running, waker_next: 0 }),
            frontier_moved: Condvar::new(),
            work: Condvar::new(),
            room: Condvar::new(),
            wakers: Mutex::default(),
            mark_writing: Mutex::default(),
        })
    }

    /// Calls `waker` after each commit and each move of the frontier, until the key is taken away.
    pub fn register_waker(&self, waker: Waker) -> u64 {
        let mut state = lock(&self.state);
        state.waker_next += 1;
        let key = state.waker_next;
        drop(state);
        lock(&self.wakers).insert(key, waker);
        key
    }

    /// Stops calling a waker.
    pub fn unregister_waker(&self, key: u64) {
        lock(&self.wakers).remove(&key);
    }

    /// Enters a phase and tells all threads.
    pub fn enter(&self, phase: Phase) {
        lock(&self.state).phase = phase;
        self.notify_all();
    }

    /// Whether all work has ended.
    pub fn is_closed(&self) -> bool {
        lock(&self.state).phase == Phase::Closed
    }

    /// Whether the directory is the one whose lock is held. Files are made by their names: when the directory was moved, and
    /// another log has its name, they would be made there.
    pub fn check_place(&self) -> Result<(), LogError> {
        if lock_identity(&*self.disk, &self.dir, self.share)? == self.lock_identity {
            return Ok(());
        }
        let moved = std::io::Error::other("it is another log's by now: the directory was moved while it was in use");
        Err(LogError::storage("write to", &self.dir.join(LOCK_NAME), moved))
    }

    pub fn partition_dir(&self, partition: Partition) -> PathBuf {
        partition_dir(&self.dir, partition)
    }

    /// The write end of an own partition.
    pub fn lane(&self, partition: Partition) -> &Mutex<Lane> {
        &self.lanes[self.share.place(partition)]
    }

    pub fn frontier(&self) -> Tick {
        self.contents.frontier()
    }

    fn failure(&self, state: &State) -> Option<LogError> {
        match &state.failure {
            Some(cause) => Some(LogError::Stopped { cause: cause.clone() }),
            None if state.phase == Phase::Running => None,
            None => Some(LogError::Closed),
        }
    }

    /// An error unless the log takes appends.
    pub fn check_running(&self) -> Result<(), LogError> {
        self.failure(&lock(&self.state)).map_or(Ok(()), Err)
    }

    pub fn why_stopped(&self) -> LogError {
        self.failure(&lock(&self.state)).unwrap_or(LogError::Closed)
    }

    /// Stops the log for good: the first failure is the one that later callers are told.
    pub fn stop(&self, error: &LogError) {
        if !matches!(error, LogError::Closed | LogError::Stopped { .. }) {
            self.stop_because(error.to_string());
        }
    }

    /// As [`Core::stop`], for a cause that is no error of the log's own.
    pub fn stop_because(&self, cause: String) {
        let mut state = lock(&self.state);
        if state.failure.is_none() {
            tracing::error!(log = %self.dir.display(), cause, "the log stopped");
            state.failure = Some(cause);
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
        self.contents.change(partition.index()).publish(first, rows, bytes);
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
        let moved = self.contents.raise_frontier(state.ticks.frontier());
        if moved {
            self.frontier_moved.notify_all();
        }
        if state.ticks.reserve_is_low() {
            self.work.notify_all();
        }
        moved
    }

    /// Lets no later group have a smaller tick. The frontier follows when a tick is closed, or a group lands.
    pub fn raise(&self, tick: Tick) {
        let mut state = lock(&self.state);
        state.ticks.raise(tick);
        let low = state.ticks.reserve_is_low();
        drop(state);
        if low && self.execution == Execution::Inline {
            self.work_off();
        } else if low {
            self.work.notify_all();
        }
    }

    pub fn advance(&self) -> Result<Tick, LogError> {
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
            (state, _) = self.frontier_moved.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
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
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// A segment is full: nothing will be appended to it.
    pub fn queue_for_sealing(&self, partition: Partition, first: Offset) {
        lock(&self.state).full.push_back((partition, first));
        self.work.notify_all();
    }

    /// Body of the thread that keeps the mark ahead of the ticks.
    pub fn keep_mark(&self) {
        let mut state = lock(&self.state);
        loop {
            if state.phase != Phase::Running || state.failure.is_some() {
                return;
            }
            if !state.ticks.reserve_is_low() {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            self.write_mark();
            state = lock(&self.state);
        }
    }

    /// Body of the thread that seals full segments.
    pub fn keep_sealing(&self) {
        let mut state = lock(&self.state);
        loop {
            if state.phase == Phase::Closed || state.failure.is_some() {
                return;
            }
            let Some((partition, first)) = state.full.front().copied() else {
                if state.phase == Phase::Closing {
                    return;
                }
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            self.seal(partition, first);
            state = lock(&self.state);
        }
    }

    /// What the threads would do, done by the caller.
    pub fn work_off(&self) {
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
        let dir = self.partition_dir(partition);
        self.check_place()?;
        let segments = self.contents.segments(partition.index());
        let blocks = segments.open.first().map(|open| open.blocks.clone()).unwrap_or_default();
        let before = segments.sealed.last().cloned();
        drop(segments);
        let mut producers = producers_of(before.as_deref())?;
        blocks.iter().for_each(|rows| producers.extend(&rows.producers));
        let sealing = Sealing { disk: &*self.disk, dir: &dir, event_type: self.types.own, block_events_max: self.block_events_max };
        let id = SegmentId { log: self.log_id, partition, first };
        let sealed = seal(sealing, id, blocks.into_iter().map(Ok), &producers)?;
        let end = sealed.end;
        self.contents.change(partition.index()).replace_oldest(Sealed::new(sealed, &self.types));
        reach(Step::SealBeforeRemove);
        let active = dir.join(active_name(first));
        uninterrupted(|| self.disk.remove(&active)).map_err(|error| LogError::storage("remove", &active, error))?;
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
        let reserved = state.ticks.to_reserve(now);
        let mark = self.mark(reserved, &state);
        drop(state);
        match self.check_place().and_then(|()| mark.write(&*self.disk, &self.dir, self.share.index)) {
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
        let began = (!self.share.is_whole()).then_some(self.began);
        Mark { log_id: self.meta.log_id.clone(), reserved, clean: false, synced, ends: state.durable.clone(), began }
    }

    /// The last step of a clean stop, after all threads have ended.
    pub fn write_clean_mark(&self) -> Result<(), LogError> {
        let mut ends = lock(&self.state).durable.clone();
        for (partition, lane) in self.share.partitions(self.meta.partitions).zip(&self.lanes) {
            let mut lane = lock(lane);
            if let Some(cause) = lock(&self.state).failure.clone() {
                return Err(LogError::Stopped { cause });
            }
            lane.sync(self.durability)?;
            ends[partition.index()] = lane.end();
        }
        let mut state = lock(&self.state);
        // Nothing is given out any more, so the floor itself is the smallest tick a restart may use.
        let reserved = state.ticks.floor().max(state.ticks.frontier());
        let mark = Mark { clean: true, ends, ..self.mark(reserved, &state) };
        drop(state);
        self.check_place()?;
        mark.write(&*self.disk, &self.dir, self.share.index)
    }
}
