//! The speed layer: workers that live as long as the process, and on them one graph for each generation being served.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use timely::communication::WorkerGuards;
use timely::scheduling::SyncActivator;

use crate::log::{Event, Tick};
use crate::operators::{Layer, Purpose, ViewExport, panic_message};
use crate::runs::{Generation, History, View};

use super::crew::{Crew, join, stand_still_when_broken};
use super::feed::Feed;
use super::graph::{Dataflow, build};

/// How often someone who waits for workers looks whether they still work.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Called on a worker whenever it may have published something.
pub type Progress = Arc<dyn Fn() + Send + Sync>;

/// A graph to build on every worker.
struct Install<E: Event> {
    name: String,
    dataflow: Arc<dyn Dataflow<E>>,
    base: Arc<Generation>,
    from: Tick,
    feed: Arc<Feed<E>>,
    history: Arc<History>,
    installed: Sender<(usize, Vec<ViewExport>, SyncActivator)>,
}

/// The workers of the speed layer.
pub struct SpeedWorkers<E: Event> {
    crew: Crew,
    queues: Vec<(Sender<Arc<Install<E>>>, Thread)>,
    stop: Arc<AtomicBool>,
    guards: Mutex<Option<WorkerGuards<()>>>,
    panicked: Arc<Mutex<Option<String>>>,
}

/// One speed graph: a base, and views that follow the log from it.
pub struct SpeedGraph<E: Event> {
    /// The generation it stands on.
    pub base: Arc<Generation>,
    /// Its views by name.
    pub views: BTreeMap<String, Arc<dyn View>>,
    /// How far back its views stay readable.
    pub history: Arc<History>,
    feed: Arc<Feed<E>>,
    wakers: Mutex<Vec<SyncActivator>>,
}

impl<E: Event> SpeedWorkers<E> {
    /// Starts the workers. `progress` is called by them after each turn.
    pub fn start(crew: impl Into<Crew>, progress: Progress) -> Result<Self, String> {
        let crew = crew.into();
        let workers = crew.workers();
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded()).unzip();
        let receivers: Arc<Mutex<Vec<Option<Receiver<Arc<Install<E>>>>>>> = Arc::new(Mutex::new(receivers.into_iter().map(Some).collect()));
        let stop = Arc::new(AtomicBool::new(false));
        let (started, threads) = unbounded();
        let panicked: Arc<Mutex<Option<String>>> = Arc::default();
        let (stopped, panic_of) = (Arc::clone(&stop), Arc::clone(&panicked));
        let (places, links) = (crew.clone(), crew.clone());
        let broke = Arc::new(move |process, why: &str| links.broke("speed", process, why));
        let guards = crew.execute("speed", &stop, broke, move |worker| {
            let index = places.local(worker.index());
            let queue = receivers.lock().expect("no worker panics here")[index].take().expect("each worker starts once");
            started.send((index, std::thread::current())).expect("the starter waits");
            stand_still_when_broken(Arc::clone(&panic_of));
            let followed = catch_unwind(AssertUnwindSafe(|| {
                while !stopped.load(Ordering::Acquire) {
                    for install in queue.try_iter() {
                        let base = (!install.base.is_initial()).then(|| Arc::clone(&install.base.shards[index]));
                        let layer = Layer::new(base, install.from, Purpose::Speed { history: Arc::clone(&install.history) });
                        let waker = build(worker, &install.name, &*install.dataflow, &layer, Arc::clone(&install.feed));
                        // A starter that is gone no longer wants the graph; its feed is closed.
                        let _ = install.installed.send((index, layer.views(), waker));
                    }
                    worker.step_or_park(None);
                    progress();
                }
            }));
            if let Err(panic) = followed {
                // The other workers would wait for this one for ever: all of them end, and the process learns why.
                let message = format!("speed worker {index} panicked: {}", panic_message(&*panic));
                panic_of.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message);
                stopped.store(true, Ordering::Release);
            }
            let _ = catch_unwind(AssertUnwindSafe(|| worker.installed_dataflows().into_iter().for_each(|id| worker.drop_dataflow(id))));
        })?;
        let mut threads: Vec<(usize, Thread)> = threads.iter().take(workers).collect();
        threads.sort_by_key(|(index, _)| *index);
        let queues = senders.into_iter().zip(threads).map(|(queue, (_, thread))| (queue, thread)).collect();
        Ok(Self { crew, queues, stop, guards: Mutex::new(Some(guards)), panicked })
    }

    /// What a worker said when it panicked, if one did. No graph goes on then.
    pub fn panicked(&self) -> Option<String> {
        let said = self.panicked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        said.map(|said| self.crew.explain(said))
    }

    /// Builds a graph of the dataflow on a base, fed from the base's frontier on. Events before `from`, which is the base's
    /// frontier or later, are seen in one epoch at `from`, so that the graph catches up at the pace of a batch; its answers
    /// are exact from there on. Fails if a worker has panicked.
    pub fn install(
        &self,
        dataflow: &Arc<dyn Dataflow<E>>,
        base: Arc<Generation>,
        from: Tick,
        feed: Feed<E>,
        history: u64,
    ) -> Result<SpeedGraph<E>, String> {
        let (installed, parts) = unbounded();
        // On the base alone, the tick before its frontier can be read; once later ticks were joined, only the last of them.
        let first = if from > base.frontier { from.0 } else { from.0.saturating_sub(1) };
        let (feed, history) = (Arc::new(feed), Arc::new(History::new(first, history)));
        let install = Arc::new(Install {
            name: format!("Speed on generation {}", base.id),
            dataflow: Arc::clone(dataflow),
            base: Arc::clone(&base),
            from,
            feed: Arc::clone(&feed),
            history: Arc::clone(&history),
            installed,
        });
        for (queue, thread) in &self.queues {
            // A worker that is gone is missed below.
            let _ = queue.send(Arc::clone(&install));
            thread.unpark();
        }
        drop(install);

        let installing = parts;
        let mut parts = Vec::new();
        while parts.len() < self.queues.len() {
            match installing.recv_timeout(LOOK_PAUSE) {
                Ok(part) => parts.push(part),
                // A worker that stands still keeps what it was to install.
                Err(RecvTimeoutError::Timeout) if self.panicked().is_none() => {}
                Err(_) => break,
            }
        }
        if parts.len() < self.queues.len() {
            return Err(self.panicked().unwrap_or_else(|| "the speed workers have stopped".to_owned()));
        }
        parts.sort_by_key(|(index, ..)| *index);
        let mut views = BTreeMap::new();
        for (at, view) in parts[0].1.iter().enumerate() {
            let shards = parts.iter().map(|(_, exports, _)| Arc::clone(&exports[at].shard)).collect();
            views.insert(view.info.name.clone(), (view.assemble)(view.info.clone(), shards, self.crew.portion()));
        }
        let wakers = Mutex::new(parts.into_iter().map(|(_, _, waker)| waker).collect());
        Ok(SpeedGraph { base, views, history, feed, wakers })
    }

    /// Stops the workers and waits for them.
    pub fn stop(self) {
        self.halt();
    }

    fn halt(&self) {
        self.stop.store(true, Ordering::Release);
        self.queues.iter().for_each(|(_, thread)| thread.unpark());
        if let Some(guards) = self.guards.lock().expect("joining does not panic while the lock is held").take() {
            drop(join(guards));
        }
    }
}

impl<E: Event> Drop for SpeedWorkers<E> {
    fn drop(&mut self) {
        self.halt();
    }
}

impl<E: Event> SpeedGraph<E> {
    /// Tells the workers that the feed has more.
    pub fn wake(&self) {
        for waker in self.wakers.lock().expect("activation does not panic").iter() {
            // The worker may have dropped the graph already.
            let _ = waker.activate();
        }
    }

    /// Everything below is complete in every view.
    pub fn upper(&self) -> Tick {
        self.views.values().map(|view| view.upper()).min().unwrap_or(self.base.frontier)
    }

    /// The error that ended its input, if one did.
    pub fn failure(&self) -> Option<crate::log::LogError> {
        self.feed.failure()
    }

    /// Shuts the graph down by closing its sources. Readers keep what was published.
    pub fn close(&self) {
        self.feed.close();
        self.wake();
    }
}
