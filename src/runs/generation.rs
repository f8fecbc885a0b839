//! A generation: every collection that a dataflow keeps, complete through one frontier.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::file::{RunFile, RunFileWriter};
use super::levels::{AnyLevels, SIZE_RATIO};
use super::manifest::{FileInfo, GenerationError};
use super::store::GenerationStore;
use crate::log::Tick;

/// One worker's part of a generation: the levels of each slot, in the order in which the dataflow asked for slots.
#[derive(Default)]
pub struct Shard {
    slots: Vec<Arc<dyn AnyLevels>>,
    /// The files that the runs are in, eldest first; none if they are in memory.
    files: Mutex<Vec<Arc<RunFile>>>,
}

/// Runs of one worker, by slot; each is an `Arc<Run>`.
pub type Frozen = Vec<Box<dyn Any + Send + Sync>>;

impl Shard {
    /// A shard of the given slots, in memory.
    pub fn new(slots: Vec<Arc<dyn AnyLevels>>) -> Self {
        Self { slots, files: Mutex::default() }
    }

    /// A shard of files, eldest first; `slots` are levels of the right types.
    pub(crate) fn open(slots: &[Arc<dyn AnyLevels>], files: Vec<Arc<RunFile>>) -> Result<Self, GenerationError> {
        let slots = slots.iter().enumerate().map(|(at, slot)| slot.open(&files, at)).collect::<Result<_, _>>()?;
        Ok(Self { slots, files: Mutex::new(files) })
    }

    /// This shard's slots of some types in place of those it has none of: what a graph without a base stands on.
    pub(crate) fn with_slots(&self, slots: Vec<Arc<dyn AnyLevels>>) -> Self {
        Self { slots, files: Mutex::new(self.files()) }
    }

    /// The levels of each slot.
    pub fn slots(&self) -> &[Arc<dyn AnyLevels>] {
        &self.slots
    }

    /// The levels of a slot, if they are of type `L`.
    pub fn slot<L: Any + Send + Sync>(&self, index: usize) -> Option<Arc<L>> {
        Arc::clone(self.slots.get(index)?).into_any().downcast().ok()
    }

    /// This shard and a run for each slot.
    pub fn plus(&self, runs: &Frozen) -> Self {
        self.with_slots(self.slots.iter().zip(runs).map(|(slot, run)| slot.plus_any(&**run)).collect())
    }

    /// This shard and a run for each slot, written to a file and mapped. The runs are replaced by the mapped ones.
    pub(crate) fn plus_written(&self, runs: &mut Frozen, store: &GenerationStore, worker: usize) -> Result<Self, GenerationError> {
        if self.rows_of(runs) == 0 {
            return Ok(self.plus(runs));
        }
        let file = store.write(worker, |file| self.slots.iter().zip(&*runs).try_for_each(|(slot, run)| slot.write(&**run, file)))?;
        for (at, (slot, run)) in self.slots.iter().zip(&mut *runs).enumerate() {
            *run = slot.read(&file, at)?;
        }
        let next = self.plus(runs);
        next.lock().push(file);
        Ok(next)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<RunFile>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files that its runs are in, eldest first.
    pub fn files(&self) -> Vec<Arc<RunFile>> {
        self.lock().clone()
    }

    /// What a manifest says of its files.
    pub fn file_infos(&self) -> Vec<FileInfo> {
        self.files().iter().map(|file| file.info()).collect()
    }

    /// Merges runs of similar size in every slot, in memory.
    pub fn compact(&self) {
        self.slots.iter().for_each(|slot| slot.compact());
    }

    /// Merges files until each has at least twice as many rows as the next. Readers keep what they have loaded; the files
    /// that were merged stay until no manifest names them. Gives up when told to stop.
    pub(crate) fn compact_files(&self, store: &GenerationStore, worker: usize, stop: &AtomicBool) -> Result<(), GenerationError> {
        loop {
            let files = self.files();
            let similar = |at: &usize| files[at - 1].rows() < SIZE_RATIO as u64 * files[*at].rows();
            let Some(at) = (1..files.len()).rev().find(similar) else { return Ok(()) };
            let pair = [files[at - 1].number(), files[at].number()];
            let merge = |slot: &Arc<dyn AnyLevels>, file: &mut RunFileWriter| match stop.load(Ordering::Acquire) {
                true => Err(GenerationError::Stopped),
                false => slot.merge(pair, file),
            };
            let merged = match store.write(worker, |file| self.slots.iter().try_for_each(|slot| merge(slot, file))) {
                Err(GenerationError::Stopped) => return Ok(()),
                merged => merged?,
            };
            // All are read before one is replaced: a slot that kept the pair would be left out of the next merge.
            let runs = self.slots.iter().enumerate().map(|(at, slot)| slot.read(&merged, at)).collect::<Result<Frozen, _>>()?;
            self.slots.iter().zip(&runs).for_each(|(slot, run)| slot.replace(pair, &**run));
            self.lock().splice(at - 1..=at, [merged]);
        }
    }

    /// Rows of a run for each slot.
    pub(crate) fn rows_of(&self, runs: &Frozen) -> usize {
        self.slots.iter().zip(runs).map(|(slot, run)| slot.rows_of(&**run)).sum()
    }

    /// Number of runs and of rows over all slots.
    pub fn size(&self) -> (usize, usize) {
        self.slots.iter().map(|slot| slot.size()).fold((0, 0), |(runs, rows), (r, n)| (runs + r, rows + n))
    }
}

/// All runs of a dataflow, complete through `frontier`.
#[derive(Clone, Default)]
pub struct Generation {
    /// Counts up with each commit; 0 is the empty generation.
    pub id: u64,
    /// Every event with a smaller tick is in, no other.
    pub frontier: Tick,
    /// One shard for each worker, by index.
    pub shards: Vec<Arc<Shard>>,
}

impl Generation {
    /// The generation before the first event.
    pub fn empty(workers: usize) -> Self {
        Self { id: 0, frontier: Tick(0), shards: (0..workers).map(|_| Arc::default()).collect() }
    }

    /// Whether it holds nothing because nothing was computed yet.
    pub fn is_initial(&self) -> bool {
        self.id == 0
    }

    /// Number of runs and of rows over all shards.
    pub fn size(&self) -> (usize, usize) {
        self.shards.iter().map(|shard| shard.size()).fold((0, 0), |(runs, rows), (r, n)| (runs + r, rows + n))
    }
}
