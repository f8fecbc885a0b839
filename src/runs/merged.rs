//! Merged rows: a base's runs plus a speed graph's changes through one tick, added up. Nothing here is specific to an
//! operator; this is all the merge code there is.

use std::cmp::Ordering;
use std::ops::ControlFlow;
use std::sync::Arc;

use differential_dataflow::consolidation::consolidate;
use differential_dataflow::trace::cursor::{Cursor, cursor_list};

use super::data::{Change, Data, order, stable_hash};
use super::run::{KeyProbe, Run};
use super::shared::Batch;

/// Two sources of rows that are added up.
pub struct Merged<'a, K: Data, V: Data, R: Change> {
    /// Runs of the base.
    pub runs: &'a [Arc<Run<K, V, R>>],
    /// Batches of changes after the base.
    pub batches: &'a [Batch<K, V, R>],
    /// Changes at later times are left out.
    pub through: u64,
}

impl<K: Data, V: Data, R: Change> Merged<'_, K, V, R> {
    /// Visits keys in order with their rows, from the first key for which `before` does not hold; `before` must hold
    /// for a prefix of the keys in order. Rows are sorted by value, none is zero.
    pub fn walk(&self, before: &dyn Fn(&K) -> bool, visit: &mut dyn FnMut(K, &[(V, R)]) -> ControlFlow<()>) {
        let mut runs: Vec<_> = self.runs.iter().map(|run| run.cursor()).collect();
        runs.iter_mut().for_each(|run| run.seek(|key| before(&K::into_owned(key))));

        let (mut cursor, storage) = cursor_list(self.batches.to_vec());
        let first = self.batches.iter().filter_map(|batch| batch.storage.keys.get(batch.storage.keys.partition_point(before))).min();
        match first {
            Some(key) => cursor.seek_key(&storage, key),
            None => {
                while cursor.key_valid(&storage) {
                    cursor.step_key(&storage)
                }
            }
        }

        let mut probe = KeyProbe::<K>::default();
        let mut rows: Vec<(V, R)> = Vec::new();
        loop {
            let least = runs.iter().filter_map(|run| run.key()).min_by(|a, b| order::<K>(*a, *b));
            let changed = cursor.get_key(&storage);
            let next = match (least, changed) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(least), Some(key)) => order::<K>(least, probe.set(key)),
            };
            rows.clear();
            let key = match (next, least, changed) {
                (Ordering::Greater, _, Some(key)) => key.clone(),
                (_, Some(least), _) => K::into_owned(least),
                _ => return,
            };
            if next != Ordering::Greater
                && let Some(least) = least
            {
                for run in runs.iter_mut().filter(|run| run.key().is_some_and(|key| order::<K>(key, least).is_eq())) {
                    run.collect(&mut rows);
                    run.step();
                }
            }
            if next != Ordering::Less {
                collect_rows(&mut cursor, &storage, self.through, &mut rows);
                cursor.step_key(&storage);
            }
            consolidate(&mut rows);
            if !rows.is_empty() && visit(key, &rows).is_break() {
                return;
            }
        }
    }

    /// The rows of one key, sorted by value.
    pub fn get(&self, key: &K) -> Vec<(V, R)> {
        let mut rows = Vec::new();
        let mut probe = KeyProbe::<K>::default();
        let wanted = probe.set(key);
        for run in self.runs {
            if let Some(found) = run.find(wanted) {
                run.columns(&found).collect(found.rows, &mut rows);
            }
        }
        let (mut cursor, storage) = cursor_list(self.batches.to_vec());
        cursor.seek_key(&storage, key);
        if cursor.get_key(&storage) == Some(key) {
            collect_rows(&mut cursor, &storage, self.through, &mut rows);
        }
        consolidate(&mut rows);
        rows
    }

    /// A commutative hash of all rows.
    pub fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        self.walk(&|_| false, &mut |key, rows| {
            for (val, change) in rows {
                digest.add(&(&key, val, change));
            }
            ControlFlow::Continue(())
        });
        digest
    }
}

/// A multiset of rows, hashed so that order does not matter.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Digest {
    /// Number of rows.
    pub rows: u64,
    /// Sum of the rows' hashes, modulo 2^64.
    pub hash: u64,
}

impl Digest {
    /// Adds a row.
    pub fn add<T: std::hash::Hash>(&mut self, row: &T) {
        self.rows += 1;
        self.hash = self.hash.wrapping_add(stable_hash(row));
    }

    /// Adds another multiset.
    pub fn plus(self, other: Self) -> Self {
        Self { rows: self.rows + other.rows, hash: self.hash.wrapping_add(other.hash) }
    }
}

/// Adds up the values of the cursor's key, through a time.
fn collect_rows<K, V, R, C>(cursor: &mut C, storage: &C::Storage, through: u64, rows: &mut Vec<(V, R)>)
where
    K: 'static,
    V: Clone + 'static,
    R: Change,
    C: for<'a> Cursor<Key<'a> = &'a K, Val<'a> = &'a V, TimeGat<'a> = &'a u64, DiffGat<'a> = &'a R>,
{
    while let Some(val) = cursor.get_val(storage) {
        let mut sum: Option<R> = None;
        cursor.map_times(storage, |time, change| {
            if *time <= through {
                match &mut sum {
                    Some(sum) => sum.plus_equals(change),
                    None => sum = Some(change.clone()),
                }
            }
        });
        if let Some(sum) = sum.filter(|sum| !sum.is_zero()) {
            rows.push((val.clone(), sum));
        }
        cursor.step_val(storage);
    }
}
