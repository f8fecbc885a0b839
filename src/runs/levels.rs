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

use super::data::{Change, Data, order};
use super::run::{KeyProbe, KeyRange, Run};

/// A run is merged with its elder when the elder has fewer than this many times its rows.
const SIZE_RATIO: usize = 2;

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

/// Levels of some types, as a generation keeps them.
pub trait AnyLevels: Send + Sync {
    /// These levels and a run, which must be an `Arc<Run>` of the same types.
    ///
    /// # Panics
    /// If the types differ: the caller mixed up two slots.
    fn plus_any(&self, run: &dyn Any) -> Arc<dyn AnyLevels>;
    /// Merges runs of similar size.
    fn compact(&self);
    /// Number of runs and of rows in them.
    fn size(&self) -> (usize, usize);
    /// For the downcast to the typed levels.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

impl<K: Data, V: Data, R: Change> AnyLevels for Levels<K, V, R> {
    fn plus_any(&self, run: &dyn Any) -> Arc<dyn AnyLevels> {
        let run = run.downcast_ref::<Arc<Run<K, V, R>>>().expect("a slot's run has the slot's types");
        Arc::new(self.plus(Arc::clone(run)))
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
}
