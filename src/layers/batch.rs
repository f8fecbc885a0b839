//! The batch graph: computes `[base, cut)` in one large epoch on its own workers, freezes, and is gone.
//!
//! A batch that panics is caught: its workers are told to stop, the error is returned, and serving goes on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crossbeam::channel::RecvTimeoutError;

use crate::log::{Event, LogError, Tick};
use crate::operators::{Layer, Purpose, ViewExport, panic_message};
use crate::runs::{Frozen, Generation, Shard, SlotInfo};

use super::crew::{Crew, NO_LONGER_EXCHANGED, join_beside, stand_still_when_broken};
use super::feed::Feed;
use super::graph::{Dataflow, build};

/// Added to the nice value of batch threads: under contention the speed layer gets about nine times the share
/// (each step of nice is a factor of 1.25 in weight).
pub(super) const BATCH_NICE: i32 = 10;

/// How often it is looked whether workers have given up.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// What one batch computed, on all workers of this process.
pub struct BatchOutput {
    /// The shards that it started from, by worker.
    pub bases: Vec<Shard>,
    /// The runs that were added to them, by worker and slot.
    pub frozen: Vec<Frozen>,
    /// The shards of the new generation, by worker, with the added runs in memory.
    pub shards: Vec<Arc<Shard>>,
    /// The views, as the first worker built them.
    pub views: Vec<ViewExport>,
    /// The collections that are kept.
    pub outline: Vec<SlotInfo>,
}

/// Why a batch failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The log could not be read.
    #[error("the batch layer could not read the log: {0}")]
    Log(#[from] LogError),
    /// A worker panicked.
    #[error("batch worker {worker} panicked: {message}")]
    Panicked {
        /// The worker's index.
        worker: usize,
        /// What it said.
        message: String,
    },
    /// Workers of other processes cannot be reached any more, or have given up.
    #[error("{NO_LONGER_EXCHANGED}: {0}")]
    Broken(String),
    /// The workers could not be started.
    #[error("the batch workers could not be started: {0}")]
    Start(String),
    /// It was asked to stop.
    #[error("the batch was stopped")]
    Stopped,
}

/// Runs a dataflow over `[base frontier, cut)`, and freezes it. The feed must cover that range; in a cluster, the feeds of all
/// processes together. What is returned are the shards of this process.
///
/// When it fails in one process of a cluster, those of the others wait for its rows until `stop` is set there, or the links
/// [have ended](super::Links::ended).
pub fn run_batch<E: Event>(
    dataflow: &Arc<dyn Dataflow<E>>,
    base: Option<&Generation>,
    feed: Feed<E>,
    cut: Tick,
    crew: impl Into<Crew>,
    stop: &Arc<AtomicBool>,
) -> Result<BatchOutput, BatchError> {
    let crew = crew.into();
    let base: Option<Vec<Arc<Shard>>> = base.filter(|base| !base.is_initial()).map(|base| base.shards.clone());
    let feed = Arc::new(feed);
    let halted = Arc::new(AtomicBool::new(false));
    let results: Arc<Mutex<Vec<Option<Part>>>> = Arc::new(Mutex::new((0..crew.workers()).map(|_| None).collect()));
    let failed: Arc<Mutex<Option<BatchError>>> = Arc::default();
    let broken: Arc<Mutex<Option<String>>> = Arc::default();
    // A batch can be tried again: that it lost a connection is no reason to end more than it.
    let cause: Arc<Mutex<Option<String>>> = Arc::default();
    let working = Arc::new(AtomicUsize::new(crew.workers()));

    let guards = {
        let (said, working) = (Arc::clone(&broken), Arc::clone(&working));
        let (dataflow, feed, halted, results, failed, stop) =
            (Arc::clone(dataflow), Arc::clone(&feed), Arc::clone(&halted), Arc::clone(&results), Arc::clone(&failed), Arc::clone(stop));
        let (places, given_up) = (crew.clone(), Arc::clone(&stop));
        let cause = Arc::clone(&cause);
        let broke = Arc::new(move |process, why: &str| {
            let why = format!("the connection for rows to process {process} broke: {why}");
            cause.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        });
        crew.execute("batch", &given_up, broke, move |worker| {
            stand_still_when_broken(Arc::clone(&said));
            if let Err(error) = rustix::process::nice(BATCH_NICE) {
                tracing::debug!(%error, "the batch layer runs at normal priority");
            }
            let index = places.local(worker.index());
            let entry = Tick(cut.0.saturating_sub(1));
            let computed = catch_unwind(AssertUnwindSafe(|| {
                let layer = Layer::new(base.as_ref().map(|shards| Arc::clone(&shards[index])), entry, Purpose::Batch);
                build(worker, "Batch", &*dataflow, &layer, Arc::clone(&feed));
                while worker.has_dataflows() {
                    if halted.load(Ordering::Acquire) || stop.load(Ordering::Acquire) {
                        return None;
                    }
                    worker.step_or_park(Some(Duration::from_millis(10)));
                }
                Some(Part { frozen: layer.freeze(), base: layer.base(), views: layer.views(), outline: layer.outline() })
            }));
            match computed {
                Ok(part) => results.lock().unwrap_or_else(PoisonError::into_inner)[index] = part,
                Err(panic) => {
                    let error = BatchError::Panicked { worker: index, message: panic_message(&*panic) };
                    failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    halted.store(true, Ordering::Release);
                }
            }
            // Left-over dataflows would keep the thread: after a panic, or when told to stop.
            let _ = catch_unwind(AssertUnwindSafe(|| worker.installed_dataflows().into_iter().for_each(|id| worker.drop_dataflow(id))));
            working.fetch_sub(1, Ordering::Release);
        })
        .map_err(|reason| if given_up.load(Ordering::Acquire) { BatchError::Stopped } else { BatchError::Start(reason) })?
    };
    let fail = |error| {
        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        halted.store(true, Ordering::Release);
    };
    let joining = join_beside(guards);
    let joined = loop {
        match joining.recv_timeout(LOOK_PAUSE) {
            Ok(joined) => break joined,
            Err(RecvTimeoutError::Disconnected) => break Vec::new(),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(message) = broken.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // The thread that used the connection may be about to say why.
            std::thread::sleep(LOOK_PAUSE);
            let cause = || cause.lock().unwrap_or_else(PoisonError::into_inner).take();
            fail(BatchError::Broken(crew.ended().or_else(cause).unwrap_or(message)));
            // The worker that stands still keeps them.
            results.lock().unwrap_or_else(PoisonError::into_inner).fill_with(|| None);
            break Vec::new();
        }
        if let Some(why) = crew.ended().filter(|_| !stop.load(Ordering::Acquire)) {
            fail(BatchError::Broken(why));
        }
        let given_up = halted.load(Ordering::Acquire) || stop.load(Ordering::Acquire) || feed.failure().is_some();
        // The others learn only when this returns that they are to give up, too.
        if given_up && crew.processes() > 1 && working.load(Ordering::Acquire) == 0 {
            break Vec::new();
        }
    };

    if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return Err(error);
    }
    if let Some(error) = feed.failure() {
        return Err(error.into());
    }
    for (worker, ended) in joined.into_iter().enumerate() {
        ended.map_err(|message| BatchError::Panicked { worker, message })?;
    }
    let parts: Option<Vec<Part>> = results.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
    let mut output = BatchOutput { bases: Vec::new(), frozen: Vec::new(), shards: Vec::new(), views: Vec::new(), outline: Vec::new() };
    for part in parts.ok_or(BatchError::Stopped)? {
        output.shards.push(Arc::new(part.base.plus(&part.frozen)));
        output.bases.push(part.base);
        output.frozen.push(part.frozen);
        if output.views.is_empty() {
            (output.views, output.outline) = (part.views, part.outline);
        }
    }
    Ok(output)
}

/// What one worker computed.
struct Part {
    base: Shard,
    frozen: Frozen,
    views: Vec<ViewExport>,
    outline: Vec<SlotInfo>,
}
