//! One run: immutable, sorted, columnar rows `key -> values with changes`.
//!
//! Layout, by column: `keys` (strictly ascending), `ends` (where each key's values end), `vals` (strictly ascending
//! within a key), `changes` (one for each value, never zero). All but `ends` are `columnar` containers, so that a run can
//! be written and mapped without being decoded.

use std::cmp::Ordering;
use std::ops::Range;

use columnar::{Borrow, BorrowedOf, Clear, Container, Index, Len, Push, Ref};
use differential_dataflow::consolidation::consolidate_updates;

use super::data::{Change, Data, order};

/// A row of a run, owned.
pub type Row<K, V, R> = (K, V, R);

/// An immutable sorted file of rows, in memory.
pub struct Run<K: Data, V: Data, R: Change> {
    keys: K::Container,
    ends: Vec<u64>,
    vals: V::Container,
    changes: R::Container,
}

impl<K: Data, V: Data, R: Change> Default for Run<K, V, R> {
    fn default() -> Self {
        Self { keys: Default::default(), ends: Vec::new(), vals: Default::default(), changes: Default::default() }
    }
}

impl<K: Data, V: Data, R: Change> Run<K, V, R> {
    /// Sorts rows in any order, adds up those of equal key and value, drops those that come to nothing.
    pub fn from_rows(rows: impl IntoIterator<Item = Row<K, V, R>>) -> Self {
        let mut rows: Vec<((K, V), (), R)> = rows.into_iter().map(|(k, v, r)| ((k, v), (), r)).collect();
        consolidate_updates(&mut rows);
        let mut run = Self::default();
        let mut newest = None;
        for ((key, val), (), change) in &rows {
            if newest != Some(key) {
                Push::<&K>::push(&mut run.keys, key);
                run.ends.push(run.vals.len() as u64);
                newest = Some(key);
            }
            Push::<&V>::push(&mut run.vals, val);
            Push::<&R>::push(&mut run.changes, change);
            *run.ends.last_mut().expect("a key was pushed") = run.vals.len() as u64;
        }
        debug_assert!(run.is_sorted(), "owned and columnar order differ for {}", std::any::type_name::<(K, V)>());
        run
    }

    fn is_sorted(&self) -> bool {
        let reader = self.reader();
        (1..reader.key_count()).all(|i| reader.key(i - 1) < reader.key(i))
            && (0..reader.key_count()).all(|i| reader.rows(i).skip(1).all(|row| reader.val(row - 1) < reader.val(row)))
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.vals.len()
    }

    /// Whether no row is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A view for reading: resolves the columns once.
    pub fn reader(&self) -> RunReader<'_, K, V, R> {
        RunReader { keys: self.keys.borrow(), ends: &self.ends, vals: self.vals.borrow(), changes: self.changes.borrow() }
    }

    /// The sum of two runs, row by row. Costs one pass over both.
    pub fn merge(&self, other: &Self) -> Self {
        let (a, b) = (self.reader(), other.reader());
        let mut out = Self::default();
        let (mut i, mut j) = (0, 0);
        while i < a.key_count() || j < b.key_count() {
            let next = match (i < a.key_count(), j < b.key_count()) {
                (true, true) => order::<K>(a.key(i), b.key(j)),
                (true, false) => Ordering::Less,
                _ => Ordering::Greater,
            };
            let rows_before = out.vals.len();
            match next {
                Ordering::Less => out.copy(&a, a.rows(i)),
                Ordering::Greater => out.copy(&b, b.rows(j)),
                Ordering::Equal => out.add(&a, a.rows(i), &b, b.rows(j)),
            }
            if out.vals.len() > rows_before {
                match next {
                    Ordering::Greater => out.keys.push(b.key(j)),
                    _ => out.keys.push(a.key(i)),
                }
                out.ends.push(out.vals.len() as u64);
            }
            i += usize::from(next != Ordering::Greater);
            j += usize::from(next != Ordering::Less);
        }
        out
    }

    fn copy(&mut self, from: &RunReader<'_, K, V, R>, rows: Range<usize>) {
        self.vals.extend_from_self(from.vals, rows.clone());
        self.changes.extend_from_self(from.changes, rows);
    }

    fn add(&mut self, a: &RunReader<'_, K, V, R>, a_rows: Range<usize>, b: &RunReader<'_, K, V, R>, b_rows: Range<usize>) {
        let (mut i, mut j) = (a_rows.start, b_rows.start);
        while i < a_rows.end && j < b_rows.end {
            match order::<V>(a.val(i), b.val(j)) {
                Ordering::Less => {
                    self.copy(a, i..i + 1);
                    i += 1;
                }
                Ordering::Greater => {
                    self.copy(b, j..j + 1);
                    j += 1;
                }
                Ordering::Equal => {
                    let mut change = a.change(i);
                    change.plus_equals(&b.change(j));
                    if !change.is_zero() {
                        self.vals.push(a.val(i));
                        Push::<&R>::push(&mut self.changes, &change);
                    }
                    i += 1;
                    j += 1;
                }
            }
        }
        self.copy(a, i..a_rows.end);
        self.copy(b, j..b_rows.end);
    }
}

/// A run's columns, borrowed.
pub struct RunReader<'a, K: Data, V: Data, R: Change> {
    keys: BorrowedOf<'a, K>,
    ends: &'a [u64],
    vals: BorrowedOf<'a, V>,
    changes: BorrowedOf<'a, R>,
}

impl<'a, K: Data, V: Data, R: Change> RunReader<'a, K, V, R> {
    /// Number of distinct keys.
    pub fn key_count(&self) -> usize {
        self.ends.len()
    }

    /// The `index`-th key in order.
    pub fn key(&self, index: usize) -> Ref<'a, K> {
        self.keys.get(index)
    }

    /// The rows of the `index`-th key.
    pub fn rows(&self, index: usize) -> Range<usize> {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        start as usize..self.ends[index] as usize
    }

    /// The value of a row.
    pub fn val(&self, row: usize) -> Ref<'a, V> {
        self.vals.get(row)
    }

    /// The change of a row.
    pub fn change(&self, row: usize) -> R {
        R::into_owned(self.changes.get(row))
    }

    /// Index of the first key that is not less than `key`.
    pub fn lower_bound(&self, key: Ref<'_, K>) -> usize {
        self.partition_point(|known| order::<K>(known, key).is_lt())
    }

    /// Index of the first key for which `before` does not hold; it must hold for a prefix of the keys.
    pub fn partition_point(&self, before: impl Fn(Ref<'a, K>) -> bool) -> usize {
        let (mut low, mut high) = (0, self.key_count());
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.key(middle)) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Adds the rows of the `index`-th key, owned.
    pub fn collect(&self, index: usize, into: &mut Vec<(V, R)>) {
        Extend::extend(into, self.rows(index).map(|row| (V::into_owned(self.val(row)), self.change(row))));
    }

    /// Index of `key`, if the run has it.
    pub fn find(&self, key: Ref<'_, K>) -> Option<usize> {
        let index = self.lower_bound(key);
        (index < self.key_count() && order::<K>(self.keys.get(index), key).is_eq()).then_some(index)
    }
}

/// A key in columnar form, so that owned keys can be compared with a run's.
pub struct KeyProbe<K: Data>(K::Container);

impl<K: Data> Default for KeyProbe<K> {
    fn default() -> Self {
        Self(Default::default())
    }
}

impl<K: Data> KeyProbe<K> {
    /// The borrowed form of an owned key.
    pub fn set(&mut self, key: &K) -> Ref<'_, K> {
        self.0.clear();
        Push::<&K>::push(&mut self.0, key);
        self.0.borrow().get(0)
    }
}
