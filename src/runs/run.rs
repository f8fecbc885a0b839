//! One run: immutable, sorted, columnar rows `key -> values with changes`, in memory or in a mapped file.
//!
//! A run is a list of chunks, so that it can be written, merged and read in bounded memory. A chunk is four columns: `keys`
//! (strictly ascending), `ends` (where each key's values end), `vals` (strictly ascending within a key), `changes` (one for
//! each value, never zero). The rows of a key are in one chunk, however many they are. Columns are `columnar` containers, or
//! their bytes in a file, read in place.

use std::cmp::Ordering;
use std::convert::Infallible;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use columnar::bytes::indexed;
use columnar::{Borrow, BorrowedOf, Clear, Columnar, Container, Index, Len, Push, Ref};
use differential_dataflow::consolidation::{consolidate, consolidate_updates};

use super::data::{Change, Data, order};
use crate::log::partition_point;
use crate::storage::columns::Column;

/// Rows at which a chunk is full, unless its last key has more.
pub const CHUNK_ROWS: usize = 16 * 1024;
/// Bytes at which a chunk is full, unless its last key has more.
pub const CHUNK_BYTES: usize = 256 * 1024;
/// How often the bytes of a chunk under construction are measured, in rows.
const MEASURE_ROWS: usize = 64;

/// A row of a run, owned.
pub type Row<K, V, R> = (K, V, R);

/// Immutable sorted rows.
pub struct Run<K: Data, V: Data, R: Change> {
    chunks: Vec<Chunk<K, V, R>>,
    /// The first key of each chunk.
    firsts: K::Container,
    rows: usize,
    file: Option<u64>,
}

/// Some keys of a run with all of their rows; never empty.
pub(crate) struct Chunk<K: Data, V: Data, R: Change> {
    pub keys: Column<K::Container>,
    pub ends: Column<Vec<u64>>,
    pub vals: Column<V::Container>,
    pub changes: Column<R::Container>,
}

/// A place among a run's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    chunk: usize,
    key: usize,
}

impl<K: Data, V: Data, R: Change> Default for Run<K, V, R> {
    fn default() -> Self {
        Self { chunks: Vec::new(), firsts: Default::default(), rows: 0, file: None }
    }
}

impl<K: Data, V: Data, R: Change> Run<K, V, R> {
    /// A run of chunks in order; `file` is the number of the file they are in.
    pub(crate) fn of_chunks(chunks: Vec<Chunk<K, V, R>>, file: Option<u64>) -> Self {
        let mut firsts = K::Container::default();
        chunks.iter().for_each(|chunk| firsts.push(chunk.reader().key(0)));
        Self { rows: chunks.iter().map(|chunk| chunk.reader().len()).sum(), chunks, firsts, file }
    }

    /// Sorts rows in any order, adds up those of equal key and value, drops those that come to nothing.
    pub fn from_rows(rows: impl IntoIterator<Item = Row<K, V, R>>) -> Self {
        let mut rows: Vec<((K, V), (), R)> = rows.into_iter().map(|(k, v, r)| ((k, v), (), r)).collect();
        consolidate_updates(&mut rows);
        let mut chunks = Vec::new();
        let mut out = RunBuilder::new(in_memory(&mut chunks));
        let mut rows = &rows[..];
        while let Some(((key, _), (), _)) = rows.first() {
            let of_key = rows.partition_point(|((other, _), (), _)| other == key);
            for ((_, val), (), change) in &rows[..of_key] {
                out.push(val, change);
            }
            let Ok(()) = out.end_owned(key);
            rows = &rows[of_key..];
        }
        let Ok(()) = out.finish();
        let run = Self::of_chunks(chunks, None);
        debug_assert!(run.is_sorted(), "owned and columnar order differ for {}", std::any::type_name::<(K, V)>());
        run
    }

    fn is_sorted(&self) -> bool {
        let mut cursor = self.cursor();
        let mut before: Option<Ref<'_, K>> = None;
        while let Some(key) = cursor.key() {
            let (reader, rows) = cursor.rows();
            if before.is_some_and(|before| order::<K>(before, key).is_ge())
                || !rows.skip(1).all(|row| reader.val(row - 1) < reader.val(row))
            {
                return false;
            }
            before = Some(key);
            cursor.step();
        }
        true
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether no row is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of the file that it is in, if it is in one.
    pub fn file(&self) -> Option<u64> {
        self.file
    }

    pub(crate) fn chunks(&self) -> &[Chunk<K, V, R>] {
        &self.chunks
    }

    /// Reads keys from the first.
    pub fn cursor(&self) -> RunCursor<'_, K, V, R> {
        self.cursor_at(Place::default())
    }

    /// Reads keys from a place that a cursor was at.
    pub fn cursor_at(&self, place: Place) -> RunCursor<'_, K, V, R> {
        RunCursor { run: self, place, reader: self.chunks.get(place.chunk).map(Chunk::reader) }
    }

    /// The rows of a key, if the run has it.
    pub fn find(&self, key: Ref<'_, K>) -> Option<KeyRange> {
        let firsts = self.firsts.borrow();
        let chunk = partition_point(self.chunks.len(), |chunk| order::<K>(firsts.get(chunk), key).is_le()).checked_sub(1)?;
        let reader = self.chunks[chunk].reader();
        let index = reader.partition_point(|known| order::<K>(known, key).is_lt());
        let found = index < reader.key_count() && order::<K>(reader.key(index), key).is_eq();
        found.then(|| KeyRange { chunk, rows: reader.rows(index) })
    }

    /// The columns in which a key was found.
    pub fn columns(&self, range: &KeyRange) -> ChunkReader<'_, K, V, R> {
        self.chunks[range.chunk].reader()
    }

    /// The sum of two runs, row by row, in memory. Costs one pass over both.
    pub fn merge(&self, other: &Self) -> Self {
        let mut chunks = Vec::new();
        let mut out = RunBuilder::new(in_memory(&mut chunks));
        let Ok(()) = merge_runs(&[self, other], |_| true, &mut out);
        let Ok(()) = out.finish();
        Self::of_chunks(chunks, None)
    }
}

/// Where the rows of a key are in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    chunk: usize,
    /// Rows of the chunk.
    pub rows: Range<usize>,
}

/// The sum of runs, row by row, of the keys for which `keep` holds. Costs one pass over all.
pub(crate) fn merge_runs<K: Data, V: Data, R: Change, E>(
    runs: &[&Run<K, V, R>],
    keep: impl Fn(Ref<'_, K>) -> bool,
    out: &mut RunBuilder<K, V, R, impl FnMut(Chunk<K, V, R>) -> Result<(), E>>,
) -> Result<(), E> {
    let mut cursors: Vec<_> = runs.iter().map(|run| run.cursor()).collect();
    let mut least: Vec<usize> = Vec::with_capacity(runs.len());
    loop {
        least.clear();
        let mut key: Option<Ref<'_, K>> = None;
        for (at, cursor) in cursors.iter().enumerate() {
            let Some(other) = cursor.key() else { continue };
            match key.map_or(Ordering::Less, |key| order::<K>(other, key)) {
                Ordering::Less => {
                    least.clear();
                    least.push(at);
                    key = Some(other);
                }
                Ordering::Equal => least.push(at),
                Ordering::Greater => {}
            }
        }
        let Some(key) = key else { return Ok(()) };
        if keep(key) {
            match least[..] {
                [only] => {
                    let (reader, rows) = cursors[only].rows();
                    out.copy(reader, rows);
                }
                [a, b] => out.add(cursors[a].rows(), cursors[b].rows()),
                _ => {
                    let mut rows = Vec::new();
                    least.iter().for_each(|at| cursors[*at].collect(&mut rows));
                    consolidate(&mut rows);
                    rows.iter().for_each(|(val, change)| out.push(val, change));
                }
            }
            out.end(key)?;
        }
        least.iter().for_each(|at| cursors[*at].step());
    }
}

fn in_memory<K: Data, V: Data, R: Change>(chunks: &mut Vec<Chunk<K, V, R>>) -> impl FnMut(Chunk<K, V, R>) -> Result<(), Infallible> + '_ {
    |chunk| {
        chunks.push(chunk);
        Ok(())
    }
}

/// Builds a run chunk by chunk: the rows of a key in order, then the key. What takes the chunks may fail.
pub(crate) struct RunBuilder<K: Data, V: Data, R: Change, F> {
    keys: K::Container,
    ends: Vec<u64>,
    vals: V::Container,
    changes: R::Container,
    measured: usize,
    full: F,
}

impl<K: Data, V: Data, R: Change, E, F: FnMut(Chunk<K, V, R>) -> Result<(), E>> RunBuilder<K, V, R, F> {
    /// A builder that gives away each chunk when it is full.
    pub fn new(full: F) -> Self {
        let (keys, vals, changes) = Default::default();
        Self { keys, ends: Vec::new(), vals, changes, measured: 0, full }
    }

    /// Adds a row.
    pub fn push(&mut self, val: &V, change: &R) {
        Push::<&V>::push(&mut self.vals, val);
        Push::<&R>::push(&mut self.changes, change);
    }

    fn copy(&mut self, from: &ChunkReader<'_, K, V, R>, rows: Range<usize>) {
        self.vals.extend_from_self(from.vals, rows.clone());
        self.changes.extend_from_self(from.changes, rows);
    }

    /// The rows added since the last key are this key's; without any, the key is left out.
    pub fn end(&mut self, key: Ref<'_, K>) -> Result<(), E> {
        if self.has_rows() {
            self.keys.push(key);
            return self.end_rows();
        }
        Ok(())
    }

    fn end_owned(&mut self, key: &K) -> Result<(), E> {
        Push::<&K>::push(&mut self.keys, key);
        self.end_rows()
    }

    fn has_rows(&self) -> bool {
        self.vals.len() as u64 > self.ends.as_slice().last().copied().unwrap_or(0)
    }

    fn end_rows(&mut self) -> Result<(), E> {
        let rows = self.vals.len();
        self.ends.push(rows as u64);
        let mut full = rows >= CHUNK_ROWS;
        if !full && rows >= self.measured + MEASURE_ROWS {
            self.measured = rows;
            let (keys, vals, changes) = (self.keys.borrow(), self.vals.borrow(), self.changes.borrow());
            let bytes = indexed::length_in_bytes(&keys) + indexed::length_in_bytes(&vals) + indexed::length_in_bytes(&changes);
            full = bytes + 8 * self.ends.len() >= CHUNK_BYTES;
        }
        if full { self.give_away() } else { Ok(()) }
    }

    fn give_away(&mut self) -> Result<(), E> {
        self.measured = 0;
        let (keys, vals, changes) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.vals), std::mem::take(&mut self.changes));
        let ends = std::mem::take(&mut self.ends);
        (self.full)(Chunk {
            keys: Column::Typed(keys),
            ends: Column::Typed(ends),
            vals: Column::Typed(vals),
            changes: Column::Typed(changes),
        })
    }

    /// Gives away what is left.
    pub fn finish(mut self) -> Result<(), E> {
        if self.ends.is_empty() { Ok(()) } else { self.give_away() }
    }

    fn add(&mut self, (a, a_rows): KeyColumns<'_, '_, K, V, R>, (b, b_rows): KeyColumns<'_, '_, K, V, R>) {
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

/// Some rows of a chunk.
type KeyColumns<'r, 'a, K, V, R> = (&'r ChunkReader<'a, K, V, R>, Range<usize>);

impl<K: Data, V: Data, R: Change> Chunk<K, V, R> {
    /// Checks what readers rely on, of a chunk from a file: bounds of lists and strings inside rows lie in their values, text is
    /// UTF-8, keys and the values of a key ascend, no change is zero. Of lists of lists in a *change*, which has no order,
    /// those inside are found out only by copying.
    ///
    /// Checksums hold when this is asked, so what fails here was written wrong, or by somebody who mended them.
    pub fn check(&self) -> Result<(), &'static str> {
        // `columnar` trusts bounds, and ends in a panic where they lead elsewhere.
        let checked = catch_unwind(AssertUnwindSafe(|| self.check_rows()));
        checked.unwrap_or(Err("columns whose bounds lie outside their values, or text that is not UTF-8"))
    }

    fn check_rows(&self) -> Result<(), &'static str> {
        let reader = self.reader();
        // Copies of columns, as merges make them, look at lengths that look-ups do not, and take nothing for what is not there.
        K::Container::default().extend_from_self(reader.keys, 0..reader.key_count());
        V::Container::default().extend_from_self(reader.vals, 0..reader.len());
        R::Container::default().extend_from_self(reader.changes, 0..reader.len());
        let (mut key_copy, mut val_copy, mut change_copy) = (Copied::<K>(None), Copied::<V>(None), Copied::<R>(None));
        let mut before: Option<Ref<'_, K>> = None;
        for index in 0..reader.key_count() {
            let key = reader.key(index);
            // In this order: a comparison follows every element and allocates nothing, a copy does.
            let ascends = order::<K>(key, key).is_eq() && before.is_none_or(|before| order::<K>(before, key).is_lt());
            if !ascends {
                return Err("keys that do not ascend");
            }
            key_copy.set(key);
            before = Some(key);
            let rows = reader.rows(index);
            for row in rows.clone() {
                let val = reader.val(row);
                let ascends = order::<V>(val, val).is_eq() && (row == rows.start || order::<V>(reader.val(row - 1), val).is_lt());
                if !ascends {
                    return Err("values that do not ascend");
                }
                val_copy.set(val);
            }
        }
        for row in 0..reader.len() {
            if change_copy.set(reader.changes.get(row)).is_zero() {
                return Err("a change of zero");
            }
        }
        Ok(())
    }

    /// The columns, borrowed: resolves them once.
    pub fn reader(&self) -> ChunkReader<'_, K, V, R> {
        ChunkReader { keys: self.keys.borrow(), ends: self.ends.borrow(), vals: self.vals.borrow(), changes: self.changes.borrow() }
    }
}

/// A row's part, owned: each copy takes over the memory of the one before.
struct Copied<D: Columnar>(Option<D>);

impl<D: Columnar> Copied<D> {
    fn set(&mut self, part: Ref<'_, D>) -> &D {
        match &mut self.0 {
            Some(copy) => copy.copy_from(part),
            None => self.0 = Some(D::into_owned(part)),
        }
        self.0.as_ref().expect("it was just set")
    }
}

/// Reads a run key by key.
pub struct RunCursor<'a, K: Data, V: Data, R: Change> {
    run: &'a Run<K, V, R>,
    place: Place,
    /// Of the chunk at the place; none after the last.
    reader: Option<ChunkReader<'a, K, V, R>>,
}

impl<'a, K: Data, V: Data, R: Change> RunCursor<'a, K, V, R> {
    /// The key here; none after the last.
    pub fn key(&self) -> Option<Ref<'a, K>> {
        self.reader.as_ref().map(|reader| reader.key(self.place.key))
    }

    /// Where it is.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The columns of the key here, and its rows in them.
    ///
    /// # Panics
    /// After the last key.
    pub fn rows(&self) -> (&ChunkReader<'a, K, V, R>, Range<usize>) {
        let reader = self.reader.as_ref().expect("a cursor stands on a key");
        (reader, reader.rows(self.place.key))
    }

    /// Adds the rows of the key here, owned.
    ///
    /// # Panics
    /// After the last key.
    pub fn collect(&self, into: &mut Vec<(V, R)>) {
        let (reader, rows) = self.rows();
        reader.collect(rows, into);
    }

    /// Goes to the next key.
    pub fn step(&mut self) {
        let Some(reader) = &self.reader else { return };
        self.place.key += 1;
        if self.place.key == reader.key_count() {
            self.place = Place { chunk: self.place.chunk + 1, key: 0 };
            self.reader = self.run.chunks.get(self.place.chunk).map(Chunk::reader);
        }
    }

    /// Goes to the first key for which `before` does not hold; it must hold for a prefix of the keys.
    pub fn seek(&mut self, before: impl Fn(Ref<'a, K>) -> bool) {
        let firsts = self.run.firsts.borrow();
        let chunk = partition_point(self.run.chunks.len(), |chunk| before(firsts.get(chunk))).saturating_sub(1);
        *self = self.run.cursor_at(Place { chunk, key: 0 });
        if let Some(reader) = &self.reader {
            self.place.key = reader.partition_point(before);
            if self.place.key == reader.key_count() {
                *self = self.run.cursor_at(Place { chunk: chunk + 1, key: 0 });
            }
        }
    }
}

/// A chunk's columns, borrowed.
pub struct ChunkReader<'a, K: Data, V: Data, R: Change> {
    keys: BorrowedOf<'a, K>,
    ends: &'a [u64],
    vals: BorrowedOf<'a, V>,
    changes: BorrowedOf<'a, R>,
}

impl<'a, K: Data, V: Data, R: Change> ChunkReader<'a, K, V, R> {
    fn len(&self) -> usize {
        self.vals.len()
    }

    fn key_count(&self) -> usize {
        self.ends.len()
    }

    fn key(&self, index: usize) -> Ref<'a, K> {
        self.keys.get(index)
    }

    fn rows(&self, index: usize) -> Range<usize> {
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

    /// Adds rows, owned.
    pub fn collect(&self, rows: Range<usize>, into: &mut Vec<(V, R)>) {
        Extend::extend(into, rows.map(|row| (V::into_owned(self.val(row)), self.change(row))));
    }

    fn partition_point(&self, before: impl Fn(Ref<'a, K>) -> bool) -> usize {
        partition_point(self.key_count(), |index| before(self.key(index)))
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
