//! The serving layer: answers from a base and the changes since, at one tick for everything in the answer.
//!
//! A reader loads one pointer and keeps what it found: base, views and frontier belong together. Nothing here runs on a
//! dataflow worker, and a read takes no lock that a worker can hold.
//!
//! **Invariants.** The frontier that answers carry never goes back, not across a handover either: one keeper moves it, and
//! a handover waits until the new graph has reached it. An answer at `as_of` holds every event at or before that tick and
//! no other.
//!
//! Deliberately absent: graphs, operators, the log.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::log::Tick;
use crate::runs::{AnswerRow, History, Query, ReadError, View, ViewInfo};

/// How long a read that names a tick waits for it, unless it says otherwise.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(10);
/// Longest wait that a read may ask for.
pub const WAIT_MAX: Duration = Duration::from_secs(600);
/// Reads that wait at a time, for a tick or for another process. Each keeps a thread of the interface; appends must find one, too.
pub const READS_WAITING_MAX: usize = 256;
/// How long the keeper sleeps when nobody wakes it; bounds how late a missed wake-up is noticed.
const KEEPER_PAUSE: Duration = Duration::from_millis(20);

/// What answers are made from: one generation and the views on it.
pub struct Served {
    generation: u64,
    base: Tick,
    views: BTreeMap<String, Arc<dyn View>>,
    history: Arc<History>,
    /// Everything below is complete in all views.
    frontier: AtomicU64,
}

impl Served {
    /// The views of one speed graph on one generation.
    pub fn new(generation: u64, base: Tick, views: BTreeMap<String, Arc<dyn View>>, history: Arc<History>) -> Self {
        Self { generation, base, views, history, frontier: AtomicU64::new(base.0) }
    }

    fn frontier(&self) -> Tick {
        Tick(self.frontier.load(Ordering::Acquire))
    }

    fn reach(&self, frontier: Tick) {
        self.frontier.store(frontier.0, Ordering::Release);
        self.history.serve(frontier.0);
    }

    fn upper(&self) -> Tick {
        self.views.values().map(|view| view.upper()).min().unwrap_or(self.base)
    }

    fn view(&self, name: &str) -> Result<&Arc<dyn View>, ServeError> {
        let known = || self.views.keys().cloned().collect::<Vec<_>>().join(", ");
        self.views.get(name).ok_or_else(|| ServeError::NoSuchView { name: name.to_owned(), known: known() })
    }

    fn read(&self, read: &Read, frontier: Tick) -> Result<Answer, ServeError> {
        let as_of = read.as_of.unwrap_or(Tick(frontier.0.saturating_sub(1)));
        let view = self.view(&read.view)?;
        if as_of >= frontier {
            return Err(ReadError::NotYet { asked: as_of, upper: frontier }.into());
        }
        let rows = view.read(as_of, &read.query)?;
        Ok(Answer { as_of, base: self.base, frontier, rows })
    }
}

/// Room for so many at a time.
#[derive(Debug)]
pub struct Room {
    max: usize,
    taken: AtomicUsize,
}

impl Room {
    /// For `max` at a time.
    pub const fn new(max: usize) -> Self {
        Self { max, taken: AtomicUsize::new(0) }
    }

    /// Takes room for one, until what is returned is dropped. Waits for nobody.
    pub fn enter(&self) -> Result<Entered<'_>, Full> {
        let more = |taken| (taken < self.max).then_some(taken + 1);
        let entered = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        entered.map(|_| Entered { room: self }).map_err(|max| Full { max })
    }
}

/// The room that one takes.
#[derive(Debug)]
pub struct Entered<'a> {
    room: &'a Room,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

/// There is no room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{max} requests like this one wait for another process already\n  hint: ask again in a moment; a numbered append can be repeated")]
pub struct Full {
    /// So many there are.
    pub max: usize,
}

/// Serves one dataflow's views.
pub struct Serving {
    current: ArcSwap<Served>,
    ready: AtomicBool,
    /// Held while the frontier or the pointer moves.
    keeper: Mutex<()>,
    /// For reads that wait.
    room: Room,
    /// Held between looking at the frontier and waiting for it.
    waiting: Mutex<()>,
    advanced: Condvar,
}

/// A read: which rows of which view, and when.
#[derive(Clone, Debug)]
pub struct Read {
    /// The view's name.
    pub view: String,
    /// Which rows.
    pub query: Query,
    /// The tick to answer at; the latest complete one if none is given.
    pub as_of: Option<Tick>,
    /// Wait until this tick is complete: with the token of an append, the answer has what was appended.
    pub at_least: Option<Tick>,
    /// How long to wait, at most.
    pub timeout: Duration,
}

impl Read {
    /// A read at the latest complete tick.
    pub fn latest(view: &str, query: Query) -> Self {
        Self { view: view.to_owned(), query, as_of: None, at_least: None, timeout: WAIT_DEFAULT }
    }
}

/// An answer, exact at `as_of`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Holds every event with this tick or an earlier one, and no other.
    pub as_of: Tick,
    /// The frontier of the generation beneath: ticks before it were computed by the batch layer.
    pub base: Tick,
    /// Everything before it is complete.
    pub frontier: Tick,
    /// The rows asked for.
    pub rows: Vec<AnswerRow>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ServeError {
    /// No generation is being served yet.
    #[error("no view is complete yet: the first generation is being computed")]
    NotReady,
    /// There is no such view.
    #[error("there is no view `{name}`\n  hint: the views are {known}")]
    NoSuchView {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// As many as may wait for a tick, or for another process, do.
    #[error(
        "{READS_WAITING_MAX} reads wait already, for a tick or for another process\n  hint: ask again in a moment; a read that need not wait is answered"
    )]
    TooManyWaiting,
    /// The tick did not become complete in time.
    #[error("tick {} was not complete after {waited_ms} ms, everything before {} is", .tick.0, .frontier.0)]
    TimedOut {
        /// The tick waited for.
        tick: Tick,
        /// The first tick that is not complete.
        frontier: Tick,
        /// How long the read waited.
        waited_ms: u64,
    },
    /// A process of the cluster does not answer for its shards.
    #[error("the shards of {process} cannot be read: {why}\n  hint: ask again in a moment; keys on other processes can be read")]
    Unreachable {
        /// Its number and address.
        process: String,
        /// What happened.
        why: String,
    },
    /// The view cannot answer that.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Default for Serving {
    fn default() -> Self {
        Self {
            current: ArcSwap::from_pointee(Served::new(0, Tick(0), BTreeMap::new(), Arc::new(History::new(0, 0)))),
            ready: AtomicBool::new(false),
            keeper: Mutex::new(()),
            room: Room::new(READS_WAITING_MAX),
            waiting: Mutex::new(()),
            advanced: Condvar::new(),
        }
    }
}

impl Serving {
    /// Starts the thread that moves the frontier when it is unparked. It ends with the last other handle.
    pub fn start_keeper(self: &Arc<Self>) -> std::io::Result<Thread> {
        let serving = Arc::downgrade(self);
        let keeper = std::thread::Builder::new().name("frontier".to_owned()).spawn(move || {
            while let Some(serving) = serving.upgrade() {
                serving.advance();
                drop(serving);
                std::thread::park_timeout(KEEPER_PAUSE);
            }
        })?;
        Ok(keeper.thread().clone())
    }

    /// Moves the frontier to where the views are.
    pub fn advance(&self) {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let served = self.current.load();
        let upper = served.upper();
        if upper > served.frontier() {
            served.reach(upper);
            drop(keeper);
            self.tell_waiting();
        }
    }

    /// Serves from now on what `next` holds. Waits until it has come as far as the answers given so far; `false` if that was
    /// `given_up`, and then nothing changed.
    pub fn switch(&self, next: Served, given_up: impl Fn() -> bool) -> bool {
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = self.current.load().frontier();
        while next.upper() < reached {
            if given_up() {
                return false;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        next.reach(next.upper());
        self.current.store(Arc::new(next));
        self.ready.store(true, Ordering::Release);
        drop(keeper);
        self.tell_waiting();
        true
    }

    fn tell_waiting(&self) {
        // Taken so that a waiter between its check and its wait is not missed.
        drop(self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        self.advanced.notify_all();
    }

    /// Everything before it is complete in every view.
    pub fn frontier(&self) -> Tick {
        self.current.load().frontier()
    }

    /// Generation and base frontier being served.
    pub fn generation(&self) -> (u64, Tick) {
        let served = self.current.load();
        (served.generation, served.base)
    }

    /// Names and columns of the views.
    pub fn views(&self) -> Vec<ViewInfo> {
        self.current.load().views.values().map(|view| view.info().clone()).collect()
    }

    /// A view of the generation being served.
    pub fn view(&self, name: &str) -> Result<Arc<dyn View>, ServeError> {
        self.current.load().view(name).cloned()
    }

    /// What a read takes that waits for something else than a tick.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Waits until a tick is complete.
    pub fn wait(&self, tick: Tick, timeout: Duration) -> Result<(), ServeError> {
        let started = Instant::now();
        let deadline = started + timeout.min(WAIT_MAX);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entered = None;
        loop {
            let frontier = self.frontier();
            if self.ready.load(Ordering::Acquire) && tick < frontier {
                return Ok(());
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(ServeError::TimedOut { tick, frontier, waited_ms: started.elapsed().as_millis() as u64 });
            }
            if entered.is_none() {
                entered = Some(self.room.enter().map_err(|_| ServeError::TooManyWaiting)?);
            }
            waiting = self.advanced.wait_timeout(waiting, deadline - now).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Answers a read.
    pub fn read(&self, read: &Read) -> Result<Answer, ServeError> {
        let deadline = Instant::now() + read.timeout.min(WAIT_MAX);
        if let Some(tick) = read.at_least {
            self.wait(tick, read.timeout)?;
        }
        if !self.ready.load(Ordering::Acquire) {
            return Err(ServeError::NotReady);
        }
        loop {
            let served = self.current.load_full();
            let frontier = served.frontier();
            match served.read(read, frontier) {
                // The views went on since the frontier was loaded, so there is a later one, or will be at once: the reader
                // asked for the latest, whatever its tick.
                Err(ServeError::Read(ReadError::TooOld { .. })) if read.as_of.is_none() && Instant::now() < deadline => {
                    self.wait(frontier, deadline.saturating_duration_since(Instant::now()))?;
                }
                answered => return answered,
            }
        }
    }
}
