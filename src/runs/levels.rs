//! A list of runs whose sum is one collection.
//!
//! A new generation adds one run of changes; a background pass merges runs of similar size, so that a collection of n
//! rows is kept in about log2(n) runs and each row is rewritten about log2(n) times. Replacing runs by their sum changes
//! no reader's answer, so it needs no coordination: a reader keeps the list it loaded.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwap;
use columnar::Ref;
use differential_dataflow::consolidation::consolidate;

use super::data::{Change, Data, bucket, order};
use super::file::{RunFile, RunFileWriter, types_of};
use super::manifest::GenerationError;
use super::run::{KeyProbe, KeyRange, Run};

/// A run is merged with its elder when the elder has fewer than this many times its rows.
pub(super) const SIZE_RATIO: usize = 2;

/// The runs of one collection, eldest first.
pub struct Levels<K: Data, V: Data, R: Change> {
    runs: ArcSwap<Vec<Arc<Run<K, V, R>>>>,
}

impl<K: Data, V: Data, R: Change> Default for Levels<K, V, R> {
    fn default() -> Self {
        Self::of(Vec::new())
    }
}

impl<K: Data, V: Data, R: Change> Levels<K, V, R> {
    /// Levels of the given runs, eldest first.
    pub fn of(runs: Vec<Arc<Run<K, V, R>>>) -> Self {
        Self { runs: ArcSwap::from_pointee(runs) }
    }

    /// The runs as they are now, eldest first.
    pub fn runs(&self) -> Arc<Vec<Arc<Run<K, V, R>>>> {
        self.runs.load_full()
    }

    /// These levels and one run of later changes.
    pub fn plus(&self, run: Arc<Run<K, V, R>>) -> Self {
        let mut runs = self.runs().to_vec();
        if !run.is_empty() {
            runs.push(run);
        }
        Self::of(runs)
    }

    /// Rows over all runs; a row that is changed in several counts several times.
    pub fn len(&self) -> usize {
        self.runs().iter().map(|run| run.len()).sum()
    }

    /// Whether no run has a row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Merges runs until each is at least twice as large as the next.
    pub fn compact(&self) {
        loop {
            let runs = self.runs();
            let Some(at) = (1..runs.len()).rev().find(|&i| runs[i - 1].len() < SIZE_RATIO * runs[i].len()) else {
                return;
            };
            let merged = runs[at - 1].merge(&runs[at]);
            let mut next = runs[..at - 1].to_vec();
            if !merged.is_empty() {
                next.push(Arc::new(merged));
            }
            next.extend_from_slice(&runs[at + 1..]);
            self.runs.store(Arc::new(next));
        }
    }
}

/// Looks up keys in levels. Holds the runs it started with.
pub struct Lookup<K: Data, V: Data, R: Change> {
    runs: Arc<Vec<Arc<Run<K, V, R>>>>,
    probe: KeyProbe<K>,
    rows: Vec<(V, R)>,
}

impl<K: Data, V: Data, R: Change> Lookup<K, V, R> {
    /// A look-up into the levels as they are now.
    pub fn new(levels: &Levels<K, V, R>) -> Self {
        Self { runs: levels.runs(), probe: KeyProbe::default(), rows: Vec::new() }
    }

    /// The values of a key with their changes, added up over all runs, sorted by value.
    pub fn rows(&mut self, key: &K) -> &[(V, R)] {
        self.rows.clear();
        if self.runs.is_empty() {
            return &self.rows;
        }
        let key = self.probe.set(key);
        for run in self.runs.iter() {
            if let Some(found) = run.find(key) {
                run.columns(&found).collect(found.rows, &mut self.rows);
            }
        }
        if self.runs.len() > 1 {
            consolidate(&mut self.rows);
        }
        &self.rows
    }
}

/// One end of rows in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The least rows come first.
    Least,
    /// The greatest rows come first.
    Greatest,
}

/// What is left of a key's rows, by run: rows are taken from one end, without looking at the others.
#[derive(Clone, Debug)]
pub struct KeyRows {
    left: Vec<(usize, KeyRange)>,
    end: End,
}

impl KeyRows {
    /// Whether all rows were taken.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }
}

impl<K: Data, V: Data, R: Change> Lookup<K, V, R> {
    /// All rows of a key, to be taken from one end. Costs one search in each run.
    pub fn open(&mut self, key: &K, end: End) -> KeyRows {
        let mut left = Vec::new();
        if !self.runs.is_empty() {
            let key = self.probe.set(key);
            for (at, run) in self.runs.iter().enumerate() {
                left.extend(run.find(key).map(|found| (at, found)));
            }
        }
        KeyRows { left, end }
    }

    /// The value that [`Lookup::take`] would take.
    pub fn first(&self, rows: &KeyRows) -> Option<V> {
        let mut first: Option<Ref<'_, V>> = None;
        for (run, range) in &rows.left {
            let val = self.runs[*run].columns(range).val(outermost(&range.rows, rows.end));
            let before = first.is_none_or(|first| {
                let order = order::<V>(val, first);
                if rows.end == End::Least { order.is_lt() } else { order.is_gt() }
            });
            if before {
                first = Some(val);
            }
        }
        first.map(V::into_owned)
    }

    /// Takes the outermost value with its changes, added up over all runs: none if they cancel.
    pub fn take(&self, rows: &mut KeyRows) -> Option<(V, Option<R>)> {
        let first = self.first(rows)?;
        let mut probe = KeyProbe::default();
        let mut sum: Option<R> = None;
        let end = rows.end;
        rows.left.retain_mut(|(run, range)| {
            let reader = self.runs[*run].columns(range);
            let row = outermost(&range.rows, end);
            if order::<V>(reader.val(row), probe.set(&first)).is_eq() {
                match &mut sum {
                    Some(sum) => sum.plus_equals(&reader.change(row)),
                    None => sum = Some(reader.change(row)),
                }
                match end {
                    End::Least => range.rows.start += 1,
                    End::Greatest => range.rows.end -= 1,
                }
            }
            !range.rows.is_empty()
        });
        Some((first, sum.filter(|sum| !sum.is_zero())))
    }
}

fn outermost(range: &Range<usize>, end: End) -> usize {
    match end {
        End::Least => range.start,
        End::Greatest => range.end - 1,
    }
}

/// Levels of some types, as a generation keeps them. A run that is passed as `dyn Any` is an `Arc<Run>`; each method panics if
/// it is of other types than the levels: the caller mixed up two slots.
pub trait AnyLevels: Send + Sync {
    /// These levels and a run.
    fn plus_any(&self, run: &dyn Any) -> Arc<dyn AnyLevels>;
    /// Merges runs of similar size, in memory.
    fn compact(&self);
    /// Number of runs and of rows in them.
    fn size(&self) -> (usize, usize);
    /// For the downcast to the typed levels.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    /// Identifies the types, and how they are laid out.
    fn types(&self) -> u64;
    /// Number of rows in a run.
    fn rows_of(&self, run: &dyn Any) -> usize;
    /// Writes a run into a file.
    fn write(&self, run: &dyn Any, file: &mut RunFileWriter) -> Result<(), GenerationError>;
    /// Reads a slot of a file as a run of these types.
    fn read(&self, file: &RunFile, slot: usize) -> Result<Box<dyn Any + Send + Sync>, GenerationError>;
    /// Levels of these types: a slot of some files, eldest first.
    fn open(&self, files: &[Arc<RunFile>], slot: usize) -> Result<Arc<dyn AnyLevels>, GenerationError>;
    /// Writes the sum of the runs of two files into another.
    fn merge(&self, pair: [u64; 2], file: &mut RunFileWriter) -> Result<(), GenerationError>;
    /// Puts a run in the place of those of two files, whose sum it is.
    fn replace(&self, pair: [u64; 2], run: &dyn Any);
    /// Writes the rows of all `parts`, levels of these types, whose keys a worker owns.
    fn write_share(
        &self,
        parts: &[Arc<dyn AnyLevels>],
        worker: usize,
        workers: usize,
        file: &mut RunFileWriter,
    ) -> Result<(), GenerationError>;
}

impl<K: Data, V: Data, R: Change> Levels<K, V, R> {
    fn typed(run: &dyn Any) -> &Arc<Run<K, V, R>> {
        run.downcast_ref().expect("a slot's run has the slot's types")
    }
}

impl<K: Data, V: Data, R: Change> AnyLevels for Levels<K, V, R> {
    fn plus_any(&self, run: &dyn Any) -> Arc<dyn AnyLevels> {
        Arc::new(self.plus(Arc::clone(Self::typed(run))))
    }

    fn compact(&self) {
        Levels::compact(self);
    }

    fn size(&self) -> (usize, usize) {
        (self.runs().len(), self.len())
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn types(&self) -> u64 {
        types_of::<K, V, R>()
    }

    fn rows_of(&self, run: &dyn Any) -> usize {
        Self::typed(run).len()
    }

    fn write(&self, run: &dyn Any, file: &mut RunFileWriter) -> Result<(), GenerationError> {
        file.slot_of(Self::typed(run))
    }

    fn read(&self, file: &RunFile, slot: usize) -> Result<Box<dyn Any + Send + Sync>, GenerationError> {
        Ok(Box::new(Arc::new(file.run::<K, V, R>(slot)?)))
    }

    fn open(&self, files: &[Arc<RunFile>], slot: usize) -> Result<Arc<dyn AnyLevels>, GenerationError> {
        let runs = files.iter().map(|file| file.run::<K, V, R>(slot));
        let runs = runs.filter(|run| run.as_ref().map_or(true, |run| !run.is_empty())).map(|run| run.map(Arc::new));
        Ok(Arc::new(Self::of(runs.collect::<Result<_, _>>()?)))
    }

    fn merge(&self, pair: [u64; 2], file: &mut RunFileWriter) -> Result<(), GenerationError> {
        let runs = self.runs();
        let of_pair: Vec<&Run<K, V, R>> = runs.iter().filter(|run| is_in(run, pair)).map(|run| &**run).collect();
        file.slot(&of_pair, |_| true)
    }

    fn replace(&self, pair: [u64; 2], run: &dyn Any) {
        let merged = Self::typed(run);
        let mut runs = self.runs().to_vec();
        // A pair is adjacent in each slot, too: runs are in the order of their files.
        let at = runs.iter().position(|run| is_in(run, pair));
        runs.retain(|run| !is_in(run, pair));
        if let Some(at) = at.filter(|_| !merged.is_empty()) {
            runs.insert(at, Arc::clone(merged));
        }
        self.runs.store(Arc::new(runs));
    }

    fn write_share(
        &self,
        parts: &[Arc<dyn AnyLevels>],
        worker: usize,
        workers: usize,
        file: &mut RunFileWriter,
    ) -> Result<(), GenerationError> {
        let parts = parts.iter().map(|part| Arc::clone(part).into_any().downcast::<Self>().expect("parts of one slot have its types"));
        let runs: Vec<Arc<Run<K, V, R>>> = parts.flat_map(|part| part.runs().to_vec()).collect();
        let runs: Vec<&Run<K, V, R>> = runs.iter().map(|run| &**run).collect();
        file.slot(&runs, |key| bucket(&K::into_owned(key)) as usize % workers == worker)
    }
}

fn is_in<K: Data, V: Data, R: Change>(run: &Run<K, V, R>, pair: [u64; 2]) -> bool {
    run.file().is_some_and(|file| pair.contains(&file))
}
