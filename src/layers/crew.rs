//! Who computes a graph: workers of this process, or of all processes of a cluster.

use std::cell::RefCell;
use std::net::TcpStream;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, Once, PoisonError};

use crossbeam::channel::{Receiver, bounded};
use timely::WorkerConfig;
use timely::communication::Hooks;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};
use timely::communication::{Config, WorkerGuards};
use timely::worker::Worker;

use crate::operators::Codec;
use crate::runs::Portion;

use super::wire::{Broke, End, Wire};

/// What an error of ours says that [is one](is_broken_exchange).
pub(super) const NO_LONGER_EXCHANGED: &str = "rows are no longer exchanged";

/// Makes the connections on which the workers of different processes exchange rows.
pub trait Links: Send + Sync {
    /// A stream to each process, by index, and none to this one. All processes ask for the graph of the same name and number,
    /// and get the ends of streams that nothing else uses; numbers of a name ascend. Returns when all have asked, or with the
    /// reason why that will not be: `stop` was set, or a process is gone.
    fn connect(&self, graph: &str, number: u64, stop: &AtomicBool) -> Result<Vec<Option<TcpStream>>, String>;

    /// Takes note that the connection to a process of a graph that cannot be built anew broke. It may be that the process is gone,
    /// and that nobody knows yet. Called on the threads that exchange rows, once or more often for each connection.
    fn broke(&self, _graph: &str, _process: usize, _why: &str) {}

    /// Why rows are no longer exchanged, once that is so. Connections need not show it: a process may end each in good order.
    fn ended(&self) -> Option<String> {
        None
    }
}

/// The workers of one graph, or of all graphs of a layer: as many in each process.
#[derive(Clone)]
pub struct Crew {
    workers: usize,
    process: usize,
    processes: usize,
    graph: u64,
    links: Option<Arc<dyn Links>>,
    serialized: bool,
    codec: Codec,
}

impl From<usize> for Crew {
    /// Workers of this process alone.
    fn from(workers: usize) -> Self {
        Self { workers, process: 0, processes: 1, graph: 0, links: None, serialized: false, codec: Codec::default() }
    }
}

impl Crew {
    /// `workers` in each of `processes`, of which this is number `process`.
    pub fn new(workers: usize, process: usize, processes: usize, links: Arc<dyn Links>) -> Self {
        Self { process, processes, links: Some(links), ..Self::from(workers) }
    }

    /// Workers of this process alone, which write and read every row that they exchange as if they were of several.
    pub fn serialized(workers: usize) -> Self {
        Self { serialized: true, ..Self::from(workers) }
    }

    /// The same workers, with another codec for rows that leave the process.
    pub fn codec(self, codec: Codec) -> Self {
        Self { codec, ..self }
    }

    /// The same, for the graph of this number: see [`Links::connect`].
    pub fn for_graph(&self, number: u64) -> Self {
        Self { graph: number, ..self.clone() }
    }

    /// Workers of this process.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// The number of this process.
    pub fn process(&self) -> usize {
        self.process
    }

    /// The number of processes.
    pub fn processes(&self) -> usize {
        self.processes
    }

    /// Workers of all processes.
    pub fn peers(&self) -> usize {
        self.workers * self.processes
    }

    /// The numbers of this process's workers among those of all.
    pub fn own(&self) -> Range<usize> {
        self.process * self.workers..(self.process + 1) * self.workers
    }

    /// Why rows are no longer exchanged with other processes, once that is so.
    pub(crate) fn ended(&self) -> Option<String> {
        self.links.as_ref()?.ended()
    }

    /// What a worker said when it panicked; if it was that rows [cannot be exchanged](is_broken_exchange), the reason for that.
    pub(super) fn explain(&self, message: String) -> String {
        match self.ended().filter(|_| is_broken_exchange(&message)) {
            Some(why) => format!("{NO_LONGER_EXCHANGED}: {why}"),
            None => message,
        }
    }

    /// Which of a view's shards this process has.
    pub(super) fn portion(&self) -> Portion {
        Portion { first: self.own().start, of: self.peers() }
    }

    /// The place of a worker among those of its process.
    pub(super) fn local(&self, worker: usize) -> usize {
        worker - self.process * self.workers
    }

    /// As [`Links::broke`].
    pub(super) fn broke(&self, graph: &str, process: usize, why: &str) {
        self.links.iter().for_each(|links| links.broke(graph, process, why));
    }

    /// Starts the workers.
    pub(super) fn execute<T, F>(&self, graph: &str, stop: &AtomicBool, broke: Broke, logic: F) -> Result<WorkerGuards<T>, String>
    where
        T: Send + 'static,
        F: Fn(&mut Worker) -> T + Send + Sync + 'static,
    {
        let mut config = WorkerConfig::default();
        config.set(Codec::SETTING.to_owned(), self.codec.available()?);
        let Some(links) = self.links.as_ref().filter(|_| self.processes > 1) else {
            let communication = if self.serialized { Config::ProcessBinary(self.workers) } else { Config::Process(self.workers) };
            return timely::execute(timely::Config { communication, worker: config }, logic);
        };
        let streams = links.connect(graph, self.graph, stop)?.into_iter().enumerate();
        let end = |process| End { process, broke: Arc::clone(&broke) };
        let wires = streams.map(|(process, stream)| Some(Wire::new(stream?, end(process)))).collect();
        let hooks = Hooks::default();
        let local = ProcessBuilder::new_typed_vector(self.workers, hooks.refill.clone(), hooks.spill.clone());
        let (builders, guard) = initialize_networking_from_sockets(local, wires, self.process, self.workers, hooks)
            .map_err(|error| format!("the connections between processes cannot be used: {error}"))?;
        let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
        timely::execute::execute_from(builders, Box::new(guard), config, logic)
    }
}

/// Whether a panic says that rows cannot be exchanged any more, because another process is gone or a connection broke: what timely's
/// threads and workers then say. It is a consequence: [`Links::ended`], or what the connection said, is the cause.
pub fn is_broken_exchange(message: &str) -> bool {
    const SAID: [&str; 5] =
        ["timely communication error", "MergeQueue poisoned", "Send thread panic", "Recv thread panic", NO_LONGER_EXCHANGED];
    SAID.iter().any(|said| message.contains(said))
}

/// Sets a hook that lets panics of [`is_broken_exchange`] pass in silence, for programs that say in one line which process is
/// gone. All others are shown as before. Workers whose connections break stand still in that hook for ever: from then on, nobody
/// can set another.
pub fn hush_broken_exchange() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match panic.payload_as_str() {
            Some(message) if is_broken_exchange(message) => {
                tracing::debug!(message, NO_LONGER_EXCHANGED);
                stand_still(message);
            }
            _ => others(panic),
        }));
    });
}

thread_local! {
    static STANDS_STILL: RefCell<Option<Arc<Mutex<Option<String>>>>> = const { RefCell::new(None) };
}

/// Where this thread writes what it would have panicked of. It then stands still: destructors of a dataflow use the connections,
/// too, and a second panic aborts the process before anybody could say why.
pub(super) fn stand_still_when_broken(said: Arc<Mutex<Option<String>>>) {
    STANDS_STILL.set(Some(said));
}

fn stand_still(message: &str) {
    if let Some(said) = STANDS_STILL.take() {
        said.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(message.to_owned());
        loop {
            std::thread::park();
        }
    }
}

/// Waits for the workers. Threads that exchange rows panic when a process is gone, and timely passes that on to whoever waits:
/// what workers say must have reached its place before.
pub(super) fn join<T: Send + 'static>(guards: WorkerGuards<T>) -> Vec<Result<T, String>> {
    catch_unwind(AssertUnwindSafe(|| guards.join())).unwrap_or_default()
}

/// As [`join`], in a thread of its own, for whoever may learn that it would be in vain: workers of several processes end with those
/// of the others, and one that [stands still](stand_still_when_broken) never does. What such a worker holds is held until the
/// process ends, which is soon if its cluster has lost a process, and not if a single connection of a batch broke.
pub(super) fn join_beside<T: Send + 'static>(guards: WorkerGuards<T>) -> Receiver<Vec<Result<T, String>>> {
    let (done, joined) = bounded(1);
    // Without a thread for it, the guards wait where they are dropped.
    drop(std::thread::Builder::new().name("join".to_owned()).spawn(move || drop(done.send(join(guards)))));
    joined
}
