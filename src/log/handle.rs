//! The log as callers hold it: opened, appended to, advanced, closed.
//!
//! Threads: one writer per partition (see `commit.rs`), one that keeps the mark ahead of the ticks, one that seals full
//! segments. Nothing durable happens when a handle is dropped; to the log that is a kill.
use super::clock::Clock;
use super::commit::{APPEND_BYTES_MAX, APPEND_EVENTS_MAX, Ack, Job, Message, QUEUE_APPENDS_MAX};
use super::core::{Core, Phase, lock};
use super::cursor::Cursor;
use super::error::LogError;
use super::event::{Event, EventType};
use super::meta::{Found, Meta, look};
use super::options::{Durability, Execution, LogOptions, Share};
use super::position::{Offset, Partition, Tick};
use super::producers::{self, Claim};
use super::segment::Sealed;
use super::share::take_lock;
use crate::storage::{Disk, LockGuard, uninterrupted};
use columnar::{Borrow, Columnar, ContainerOf, Len, bytes::indexed};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Numbers of a running log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LogStats {
    /// The tick before which everything is complete.
    pub frontier: Tick,
    /// Of the own partitions, in order.
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
        Log { handle: Arc::clone(&self.handle) }
    }
}

/// Owns threads and lock; the last clone's drop ends both. Queues are in the order of the own partitions.
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

impl<E: Event> Log<E> {
    /// Opens the log in `dir`, creating it when the directory is absent or empty. Takes the log's lock and recovers from
    /// whatever stopped the log before.
    pub fn open(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, dir: &Path, options: LogOptions) -> Result<Self, LogError> {
        look(&*disk, dir)?; // a directory of something else is left as it is
        uninterrupted(|| disk.create_dir(dir)).map_err(|error| LogError::storage("create", dir, error))?;
        let guard = take_lock(&*disk, dir)?;
        let meta = match look(&*disk, dir)? {
            Found::Log => Meta::read(&*disk, dir)?,
            Found::Nothing => Meta::create::<E>(&*disk, dir, options.partitions)?,
        };
        Self::start(disk, clock, dir, options.whole(), meta, guard)
    }

    /// Opens the log in `dir`; an error when there is none.
    pub fn open_existing(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, dir: &Path, options: LogOptions) -> Result<Self, LogError> {
        let Found::Log = look(&*disk, dir)? else {
            return Err(LogError::NoLog { dir: dir.to_path_buf() });
        };
        let guard = take_lock(&*disk, dir)?;
        let meta = Meta::read(&*disk, dir)?;
        Self::start(disk, clock, dir, options.whole(), meta, guard)
    }

    /// Recovers the share that the options name, whose lock is held, and starts its threads.
    pub(crate) fn start(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        options: LogOptions,
        meta: Meta,
        guard: LockGuard,
    ) -> Result<Self, LogError> {
        let core = Arc::new(Core::recover(disk, clock, dir, &options, meta)?);
        let mut threads = Threads { writers: Vec::new(), keepers: Vec::new(), lock: Some(guard) };
        let mut queues = Vec::new();
        if options.execution == Execution::Threads {
            queues = threads.spawn(&core).inspect_err(|_| core.enter(Phase::Closed))?;
        }
        Ok(Log { handle: Arc::new(Handle { core, queues, threads: Mutex::new(threads), next_partition: AtomicUsize::new(0) }) })
    }

    /// Appends a batch, all or nothing, with one tick, to an own partition of the log's choice. Returns when it is as durable as
    /// the options ask; concurrent calls share a sync. An error leaves open whether the events are in the log.
    pub fn append(&self, events: Vec<E>) -> Result<Ack, LogError> {
        let partition = self.handle.next_partition();
        self.append_to(partition, events)
    }

    /// Appends a batch to one partition; otherwise as [`Log::append`]. [`LogError::NotOwned`] when it is another share's.
    ///
    /// # Panics
    /// When the log has no such partition.
    pub fn append_to(&self, partition: Partition, events: Vec<E>) -> Result<Ack, LogError> {
        let answer = self.submit(partition, <E as Columnar>::as_columns(events.iter()), None)?;
        answer.recv().unwrap_or_else(|_| Err(self.handle.core.why_stopped()))
    }

    /// Appends a batch that `producer` numbered `sequence`, from 0 on without gaps; stored once, however often it is repeated,
    /// over restarts too. A repeated one is answered as the first was.
    ///
    /// All of a producer's batches go to one partition, which its name decides. Its last
    /// [`PRODUCER_WINDOW`](super::PRODUCER_WINDOW) numbers are remembered; each partition remembers
    /// [`PRODUCERS_MAX`](super::PRODUCERS_MAX) producers. What is beyond is refused with [`LogError::Producer`], and so is a number
    /// that is ahead, or was used for other events. [`LogError::NotOwned`] when the partition is another share's: it is
    /// [`Log::owner_of`] the producer that takes its batches.
    pub fn append_as(&self, producer: &str, sequence: u64, events: Vec<E>) -> Result<Ack, LogError> {
        let answer = self.submit_as(producer, sequence, <E as Columnar>::as_columns(events.iter()))?;
        answer.recv().unwrap_or_else(|_| Err(self.handle.core.why_stopped()))
    }

    /// Hands a producer's rows to the writer of its partition.
    pub(crate) fn submit_as(
        &self,
        producer: &str,
        sequence: u64,
        columns: ContainerOf<E>,
    ) -> Result<Receiver<Result<Ack, LogError>>, LogError> {
        producers::check_name(producer)?;
        let mut words = Vec::new();
        indexed::encode(&mut words, &columns.borrow());
        let claim = Claim { producer: Arc::from(producer), sequence, digest: producers::digest(&words) };
        self.submit(self.partition_of(producer), columns, Some(claim))
    }

    /// Hands rows to the partition's writer; waits when its queue is full.
    pub(crate) fn submit(
        &self,
        partition: Partition,
        columns: ContainerOf<E>,
        claim: Option<Claim>,
    ) -> Result<Receiver<Result<Ack, LogError>>, LogError> {
        let core = &self.handle.core;
        assert!(partition.0 < self.partitions(), "a log of {} partitions has no partition {partition}", self.partitions());
        if !self.owns(partition) {
            return Err(LogError::NotOwned { partition, owner: core.share.owner(partition), share: core.share });
        }
        let (events, bytes) = (columns.len(), indexed::length_in_bytes(&columns.borrow()));
        if events == 0 {
            return Err(LogError::Empty);
        }
        if events > APPEND_EVENTS_MAX || bytes > APPEND_BYTES_MAX {
            return Err(LogError::TooLarge { events, bytes, events_max: APPEND_EVENTS_MAX, bytes_max: APPEND_BYTES_MAX });
        }
        let (reply, answer) = bounded(1);
        let job = Job { columns, bytes, claim, reply };
        match core.execution {
            Execution::Inline => {
                lock(core.lane(partition)).commit(core, vec![job]);
                core.work_off();
            }
            Execution::Threads => {
                core.check_running()?;
                self.handle.queues[core.share.place(partition)].send(Message::Append(job)).map_err(|_| core.why_stopped())?;
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
    /// Waits no longer than [`ADVANCE_WAIT_MS_MAX`](super::ADVANCE_WAIT_MS_MAX) for the disk; then the frontier may be where it was.
    pub fn advance(&self) -> Result<Tick, LogError> {
        self.handle.core.advance()
    }

    /// Lets no later append have a smaller tick than this: the log follows a clock that is ahead of its own, so that of several
    /// processes all follow the fastest. A tick that has passed changes nothing. The frontier comes after with the next
    /// [`Log::advance`], and the mark is kept ahead as if the clock were there.
    pub fn raise(&self, tick: Tick) {
        self.handle.core.raise(tick);
    }

    /// Calls `waker` after each commit and each move of the frontier, while the guard lives.
    ///
    /// The caller is a thread of the log, which commits nothing meanwhile: be short, and do not append from there.
    pub fn on_change(&self, waker: Box<dyn Fn() + Send + Sync>) -> WakerGuard {
        let core = &self.handle.core;
        let key = core.register_waker(Arc::from(waker));
        let core = Arc::downgrade(core);
        let unregister = move || {
            if let Some(core) = core.upgrade() {
                core.unregister_waker(key);
            }
        };
        WakerGuard { unregister: Some(Box::new(unregister)) }
    }

    /// Reads all own partitions from tick `from`.
    pub fn cursor(&self, from: Tick) -> Cursor<E> {
        Cursor::new(Arc::clone(&self.handle.core.contents), from)
    }

    /// By partition, the offset of the first event at or after `tick`: before it is everything with a smaller tick. 0 for the
    /// partitions of other shares.
    pub fn offsets_at(&self, tick: Tick) -> Result<Vec<Offset>, LogError> {
        self.handle.core.contents.offsets_at(tick)
    }

    /// The number of partitions, of all shares.
    pub fn partitions(&self) -> u32 {
        self.handle.core.meta.partitions
    }

    /// The share of the log that is open here.
    pub fn share(&self) -> Share {
        self.handle.core.share
    }

    /// Whether a partition belongs to the share that is open here: only to such one can be appended, and only such are read.
    pub fn owns(&self, partition: Partition) -> bool {
        self.handle.core.share.owns(partition)
    }

    /// The index of the share that takes a producer's batches.
    pub fn owner_of(&self, producer: &str) -> u32 {
        self.handle.core.share.owner(self.partition_of(producer))
    }

    fn partition_of(&self, producer: &str) -> Partition {
        producers::partition_of(producer, self.handle.core.meta.producer_partitions())
    }

    /// An own partition, another for each number until all had their turn.
    pub(crate) fn own_partition(&self, number: usize) -> Partition {
        self.handle.own_partition(number)
    }

    /// The type of the log's events, as the log describes it.
    pub fn event_type(&self) -> &EventType {
        &self.handle.core.meta.event
    }

    /// 128 random bits in hexadecimal that no other log has.
    pub fn id(&self) -> &str {
        &self.handle.core.meta.log_id
    }

    /// How often events were redacted. What was computed from an earlier revision may hold what is gone since.
    pub fn revision(&self) -> u64 {
        self.handle.core.revision
    }

    pub(crate) fn event_type_number(&self) -> u16 {
        self.handle.core.types.own
    }

    /// The offset after the last event that a producer's batches can stand before: what it appends anew gets this or a later one.
    /// 0 when another share takes them.
    pub(crate) fn end_for(&self, producer: &str) -> Offset {
        self.handle.core.contents.segments(self.partition_of(producer).index()).end
    }

    /// The sealed segments of each partition.
    pub(crate) fn sealed_segments(&self) -> Vec<Vec<Arc<Sealed<E>>>> {
        self.handle.core.contents.all().map(|segments| segments.sealed.clone()).collect()
    }

    /// The directory of the log.
    pub fn dir(&self) -> &Path {
        &self.handle.core.dir
    }

    /// Whether everything readable is on stable storage: under [`Durability::Sync`](super::Durability::Sync).
    pub fn is_synced(&self) -> bool {
        self.handle.core.durability == Durability::Sync
    }

    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.handle.core.disk)
    }

    /// Readable events in all own partitions.
    pub fn events_total(&self) -> u64 {
        self.handle.core.contents.events_total()
    }

    /// Counts of segments, bytes and events, of the own partitions.
    pub fn stats(&self) -> LogStats {
        let core = &self.handle.core;
        let partitions = core.share.partitions(core.meta.partitions).map(|partition| {
            let segments = core.contents.segments(partition.index());
            let ticks = segments.sealed.iter().map(|sealed| (sealed.file.first_tick, sealed.file.last_tick));
            let open_ticks = segments.open.iter().flat_map(|open| &open.blocks).map(|rows| (rows.first_tick(), rows.last_tick()));
            let bytes = segments.sealed.iter().map(|sealed| sealed.file.bytes.len() as u64).sum::<u64>();
            PartitionStats {
                partition,
                segments: (segments.sealed.len() + segments.open.len()) as u64,
                segments_sealed: segments.sealed.len() as u64,
                bytes: bytes + segments.open.iter().map(|open| open.bytes).sum::<u64>(),
                events: segments.events,
                first_tick: ticks.clone().chain(open_ticks.clone()).next().map(|(first, _)| first),
                last_tick: ticks.chain(open_ticks).last().map(|(_, last)| last),
            }
        });
        LogStats { partitions: partitions.collect(), frontier: self.frontier() }
    }

    /// Stops cleanly: writes what is queued, syncs, and notes that nothing is missing. Other clones then get
    /// [`LogError::Closed`]; cursors can still read.
    pub fn close(self) -> Result<(), LogError> {
        self.handle.close()
    }
}

/// The id of the log in `dir`.
pub fn id(disk: &dyn Disk, dir: &Path) -> Result<String, LogError> {
    match look(disk, dir)? {
        Found::Log => Ok(Meta::read(disk, dir)?.log_id),
        Found::Nothing => Err(LogError::NoLog { dir: dir.to_path_buf() }),
    }
}

/// What a thread of the log does.
type Body<E> = Box<dyn FnOnce(&Core<E>) + Send>;

impl Threads {
    /// Starts a writer for each own partition, in order, and the others.
    fn spawn<E: Event>(&mut self, core: &Arc<Core<E>>) -> Result<Vec<Sender<Message<E>>>, LogError> {
        let spawn = |name: String, body: Body<E>| {
            let thread_core = Arc::clone(core);
            let builder = std::thread::Builder::new().name(name);
            builder
                .spawn(move || {
                    // A panic is a bug of ours; whoever waits for this thread must hear of it.
                    let run = std::panic::AssertUnwindSafe(|| body(&thread_core));
                    if std::panic::catch_unwind(run).is_err() {
                        thread_core.stop_because("a thread of the log panicked".to_string());
                    }
                })
                .map_err(|error| LogError::storage("start a thread for", &core.dir, error))
        };
        let mut queues = Vec::new();
        for (lane, partition) in core.share.partitions(core.meta.partitions).enumerate() {
            let (sender, receiver) = bounded(QUEUE_APPENDS_MAX);
            queues.push(sender);
            let serve = move |core: &Core<E>| lock(&core.lanes[lane]).serve(core, &receiver);
            self.writers.push(spawn(format!("log-writer-{partition}"), Box::new(serve))?);
        }
        self.keepers.push(spawn("log-mark".to_string(), Box::new(Core::keep_mark))?);
        self.keepers.push(spawn("log-seal".to_string(), Box::new(Core::keep_sealing))?);
        Ok(queues)
    }
}

impl<E: Event> Handle<E> {
    fn next_partition(&self) -> Partition {
        self.own_partition(self.next_partition.fetch_add(1, Ordering::Relaxed))
    }

    fn own_partition(&self, number: usize) -> Partition {
        let share = self.core.share;
        Partition(share.index + share.of * (number % self.core.lanes.len()) as u32)
    }

    /// Ends the threads. Writers first finish what is queued.
    fn end_threads(&self, threads: &mut Threads, phase: Phase) {
        for (queue, writer) in self.queues.iter().zip(threads.writers.drain(..)) {
            let _ = queue.send(Message::Stop);
            let _ = writer.join();
        }
        self.core.enter(phase);
        for keeper in threads.keepers.drain(..) {
            let _ = keeper.join();
        }
        self.core.enter(Phase::Closed);
    }

    fn close(&self) -> Result<(), LogError> {
        let mut threads = lock(&self.threads);
        if self.core.is_closed() {
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
        let mut threads = std::mem::replace(&mut *lock(&self.threads), Threads { writers: Vec::new(), keepers: Vec::new(), lock: None });
        self.end_threads(&mut threads, Phase::Closed);
    }
}
