//! The speed layer: workers that live as long as the process, and on them one graph for each generation being served.

use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::Thread;

use crossbeam::channel::{Receiver, Sender, unbounded};
use timely::WorkerConfig;
use timely::communication::WorkerGuards;
use timely::scheduling::SyncActivator;
use timely::worker::Worker;

use crate::log::{Event, Tick};
use crate::operators::{Layer, Purpose, ViewExport};
use crate::runs::{Generation, History, View};

use super::batch::panic_message;
use super::feed::Feed;
use super::graph::{Dataflow, build};

/// Updates that idle arrangements merge in one activation, so that reads touch few batches when nothing happens.
const IDLE_MERGE_EFFORT: isize = 1000;

/// Exit code of a process whose speed layer panicked; the one that Rust gives a main thread that panics.
const PANICKED: i32 = 101;

/// Called on a worker whenever it may have published something.
pub type Progress = Arc<dyn Fn() + Send + Sync>;

/// A graph to build on every worker.
struct Install<E: Event> {
    name: String,
    dataflow: Arc<dyn Dataflow<E>>,
    base: Arc<Generation>,
    feed: Arc<Feed<E>>,
    history: Arc<History>,
    installed: Sender<(usize, Vec<ViewExport>, SyncActivator, Vec<String>)>,
}

/// The workers of the speed layer.
pub struct SpeedWorkers<E: Event> {
    queues: Vec<(Sender<Arc<Install<E>>>, Thread)>,
    stop: Arc<AtomicBool>,
    guards: Mutex<Option<WorkerGuards<()>>>,
}

/// One speed graph: a base, and views that follow the log from it.
pub struct SpeedGraph<E: Event> {
    /// The generation it stands on.
    pub base: Arc<Generation>,
    /// Its views by name.
    pub views: BTreeMap<String, Arc<dyn View>>,
    /// The operators that keep state.
    pub outline: Vec<String>,
    /// How far back its views stay readable.
    pub history: Arc<History>,
    feed: Arc<Feed<E>>,
    wakers: Mutex<Vec<SyncActivator>>,
}

impl<E: Event> SpeedWorkers<E> {
    /// Starts the workers. `progress` is called by them after each turn.
    pub fn start(workers: usize, progress: Progress) -> Result<Self, String> {
        let mut config = WorkerConfig::default();
        differential_dataflow::configure(&mut config, &differential_dataflow::Config::default().idle_merge_effort(Some(IDLE_MERGE_EFFORT)));
        let communication = timely::Config::process(workers).communication;
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..workers).map(|_| unbounded()).unzip();
        let receivers: Arc<Mutex<Vec<Option<Receiver<Arc<Install<E>>>>>>> = Arc::new(Mutex::new(receivers.into_iter().map(Some).collect()));
        let stop = Arc::new(AtomicBool::new(false));
        let (started, threads) = unbounded();
        let stopped = Arc::clone(&stop);
        let guards = timely::execute(timely::Config { communication, worker: config }, move |worker| {
            let index = worker.index();
            let queue = receivers.lock().expect("no worker panics here")[index].take().expect("each worker starts once");
            started.send((index, std::thread::current())).expect("the starter waits");
            // Timely's other workers would wait for ever for one that panicked, and answers would stand still unexplained.
            let followed = catch_unwind(AssertUnwindSafe(|| follow(worker, &queue, &stopped, &progress)));
            if let Err(panic) = followed {
                // The log is whole at any instant; nothing else outlives the process.
                let _ =
                    writeln!(std::io::stderr(), "the speed layer panicked on worker {index}: {}; the process ends", panic_message(&*panic));
                std::process::exit(PANICKED);
            }
        })?;
        let mut threads: Vec<(usize, Thread)> = threads.iter().take(workers).collect();
        threads.sort_by_key(|(index, _)| *index);
        let queues = senders.into_iter().zip(threads).map(|(queue, (_, thread))| (queue, thread)).collect();
        Ok(Self { queues, stop, guards: Mutex::new(Some(guards)) })
    }

    /// Builds a graph of the dataflow on a base, fed from the base's frontier on.
    pub fn install(&self, dataflow: &Arc<dyn Dataflow<E>>, base: Arc<Generation>, feed: Feed<E>, history: History) -> SpeedGraph<E> {
        let (installed, parts) = unbounded();
        let (feed, history) = (Arc::new(feed), Arc::new(history));
        let install = Arc::new(Install {
            name: format!("Speed on generation {}", base.id),
            dataflow: Arc::clone(dataflow),
            base: Arc::clone(&base),
            feed: Arc::clone(&feed),
            history: Arc::clone(&history),
            installed,
        });
        for (queue, thread) in &self.queues {
            queue.send(Arc::clone(&install)).expect("speed workers outlive their handle");
            thread.unpark();
        }
        drop(install);

        let mut parts: Vec<_> = parts.iter().take(self.queues.len()).collect();
        parts.sort_by_key(|(index, ..)| *index);
        let mut views = BTreeMap::new();
        for (at, view) in parts[0].1.iter().enumerate() {
            let shards = parts.iter().map(|(_, exports, ..)| Arc::clone(&exports[at].shard)).collect();
            views.insert(view.info.name.clone(), (view.assemble)(view.info.clone(), shards));
        }
        let outline = parts[0].3.clone();
        let wakers = Mutex::new(parts.into_iter().map(|(_, _, waker, _)| waker).collect());
        SpeedGraph { base, views, outline, history, feed, wakers }
    }

    /// Stops the workers and waits for them.
    pub fn stop(self) {
        self.halt();
    }

    fn halt(&self) {
        self.stop.store(true, Ordering::Release);
        self.queues.iter().for_each(|(_, thread)| thread.unpark());
        if let Some(guards) = self.guards.lock().expect("joining does not panic while the lock is held").take() {
            drop(guards.join());
        }
    }
}

/// A worker's life: builds graphs, takes turns, and drops what is left when told to stop.
fn follow<E: Event>(worker: &mut Worker, queue: &Receiver<Arc<Install<E>>>, stopped: &AtomicBool, progress: &Progress) {
    while !stopped.load(Ordering::Acquire) {
        for install in queue.try_iter() {
            let base = (!install.base.is_initial()).then(|| Arc::clone(&install.base.shards[worker.index()]));
            let layer = Layer::new(base, install.base.frontier, Purpose::Speed { history: Arc::clone(&install.history) });
            let waker = build(worker, &install.name, &*install.dataflow, &layer, Arc::clone(&install.feed));
            // A starter that is gone no longer wants the graph; its feed is closed.
            let _ = install.installed.send((worker.index(), layer.views(), waker, layer.outline()));
        }
        worker.step_or_park(None);
        progress();
    }
    worker.installed_dataflows().into_iter().for_each(|id| worker.drop_dataflow(id));
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
