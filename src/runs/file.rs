//! A file of runs: what one worker froze, all slots in one file, so that a commit costs one sync a worker.
//!
//! ```text
//! chunks, one after the other, each on an 8-byte boundary:
//!      0 32  bytes of the four columns: keys, ends, vals, changes; multiples of 8
//!     32     the columns, as `columnar::bytes::indexed` lays them out
//! index, in 8-byte words, per slot: fingerprint of its types, chunks; and per chunk: position, bytes, keys, rows, CRC32C
//! footer, 96 bytes at the end of the file:
//!      0  4  magic "LFRF"              40  8  slots
//!      4  2  format version            48  8  rows of all slots
//!      6  2  zero                      56  8  where the index starts
//!      8 16  log id                    64 24  zero
//!     24  8  number of the file        88  4  CRC32C of the index
//!     32  8  shard                     92  4  CRC32C of bytes 0..92
//! ```
//!
//! Integers are little-endian; columns are in the machine's byte order, which `log.json` states. A file is written from
//! front to back and synced before a manifest names it, and never written again. Opening it checks every byte, so that
//! nothing damaged is served; reading it afterwards copies nothing. Log id, number and shard are under the checksum: a file
//! of another log, or one that stands in another's place, is refused.

use std::path::{Path, PathBuf};

use columnar::bytes::indexed;
use columnar::{AsBytes, bytemuck};

use super::data::{Change, Data, stable_hash};
use super::manifest::{FileInfo, GenerationError};
use super::run::{Chunk, Run, RunBuilder, merge_runs};
use crate::log::LogError;
use crate::log::frame::{FORMAT, Flaw, HEADER_BYTES, LogId, check_envelope, log_id_at, u32_at, u64_at};
use crate::storage::{Bytes, Disk, DiskFile, Step, append_all, columns, reach, uninterrupted};

const MAGIC: &[u8; 4] = b"LFRF";
const FOOTER_BYTES: usize = HEADER_BYTES;
const COLUMNS: usize = 4;
const CHUNK_HEADER_BYTES: usize = 8 * COLUMNS;
/// Words of the index for each chunk.
const ENTRY_WORDS: usize = 5;

/// What a file of runs is, apart from its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    pub log: LogId,
    pub number: u64,
    pub shard: u64,
}

#[derive(Clone, Debug)]
struct ChunkEntry {
    position: u64,
    bytes: u64,
    keys: u64,
    rows: u64,
    crc: u32,
}

#[derive(Clone, Debug, Default)]
struct SlotEntry {
    types: u64,
    chunks: Vec<ChunkEntry>,
}

/// A file of runs, mapped; every byte was checked when it was opened.
pub struct RunFile {
    number: u64,
    path: PathBuf,
    bytes: Bytes,
    slots: Vec<SlotEntry>,
    rows: u64,
    /// Of the footer, and so of all: it covers the index, which covers the chunks.
    crc: u32,
}

/// Identifies how the rows of a slot are laid out: the types, and the containers that hold them.
pub(crate) fn types_of<K: Data, V: Data, R: Change>() -> u64 {
    use std::any::type_name;
    let rows = [type_name::<K>(), type_name::<V>(), type_name::<R>()];
    let containers = [type_name::<K::Container>(), type_name::<V::Container>(), type_name::<R::Container>()];
    stable_hash(&(rows, containers))
}

impl RunFile {
    /// The number by which a manifest names it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its size on disk.
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Rows of all slots.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// What a manifest says of it.
    pub fn info(&self) -> FileInfo {
        FileInfo { number: self.number, bytes: self.bytes(), rows: self.rows, crc: self.crc }
    }

    /// Maps a file and checks every byte of it.
    pub(crate) fn open(disk: &dyn Disk, path: &Path, id: FileId) -> Result<Self, GenerationError> {
        // A sector that cannot be read is an error here; through the mapping it would be a signal that ends the process.
        uninterrupted(|| disk.read_through(path)).map_err(|error| LogError::storage("read", path, error))?;
        let bytes = uninterrupted(|| disk.map(path)).map_err(|error| LogError::storage("read", path, error))?;
        Self::read(path, id, bytes).map_err(|flaw| GenerationError::flawed(path, flaw))
    }

    fn read(path: &Path, id: FileId, bytes: Bytes) -> Result<Self, Flaw> {
        let footer_at = bytes.len().checked_sub(FOOTER_BYTES).filter(|at| at.is_multiple_of(8));
        let footer_at = footer_at.ok_or_else(|| Flaw::new(0, format!("{} bytes, which is no length of a file of runs", bytes.len())))?;
        let footer = &bytes[footer_at..];
        let here = |flaw: Flaw| flaw.moved(footer_at as u64);
        check_envelope(footer, MAGIC).map_err(|flaw| {
            let what = format!("{} where the footer should be, in a file of {} bytes", flaw.what, bytes.len());
            here(Flaw { what, ..flaw })
        })?;
        let found = FileId { log: log_id_at(footer, 8), number: u64_at(footer, 24), shard: u64_at(footer, 32) };
        if found != id {
            let what = format!(
                "file {} of shard {} of log {}, expected file {} of shard {} of log {}",
                found.number, found.shard, found.log, id.number, id.shard, id.log
            );
            return Err(here(Flaw::new(8, what)));
        }
        let (slots, rows, index_at) = (u64_at(footer, 40), u64_at(footer, 48), u64_at(footer, 56));
        let index_bytes = usize::try_from(index_at).ok().filter(|at| at.is_multiple_of(8)).and_then(|at| bytes.get(at..footer_at));
        let index_bytes = index_bytes.ok_or_else(|| here(Flaw::new(56, format!("an index at byte {index_at}"))))?;
        let (crc, expected) = (crc32c::crc32c(index_bytes), u32_at(footer, 88));
        if crc != expected {
            return Err(Flaw::new(index_at, format!("index checksum {crc:08x}, expected {expected:08x}")));
        }
        let slots = read_index(index_bytes, slots, index_at).ok_or_else(|| Flaw::new(index_at, "an index that does not chain up"))?;
        let crc = u32_at(footer, 92);
        let file = Self { number: id.number, path: path.to_path_buf(), slots, rows, crc, bytes };
        file.check_chunks()?;
        Ok(file)
    }

    /// Checks the checksum of every chunk.
    fn check_chunks(&self) -> Result<(), Flaw> {
        let mut rows = 0;
        for chunk in self.slots.iter().flat_map(|slot| &slot.chunks) {
            let crc = crc32c::crc32c(&self.bytes[chunk.position as usize..][..chunk.bytes as usize]);
            if crc != chunk.crc {
                return Err(Flaw::new(chunk.position, format!("chunk checksum {crc:08x}, expected {:08x}", chunk.crc)));
            }
            rows = chunk.rows.saturating_add(rows);
        }
        if rows != self.rows {
            return Err(Flaw::new(self.bytes.len() as u64 - 48, format!("{rows} rows in all chunks, the footer says {}", self.rows)));
        }
        Ok(())
    }

    /// The run of a slot, read in place.
    pub(crate) fn run<K: Data, V: Data, R: Change>(&self, slot: usize) -> Result<Run<K, V, R>, GenerationError> {
        self.try_run(slot).map_err(|flaw| GenerationError::flawed(&self.path, flaw))
    }

    fn try_run<K: Data, V: Data, R: Change>(&self, slot: usize) -> Result<Run<K, V, R>, Flaw> {
        let index_at = self.slots.iter().flat_map(|slot| &slot.chunks).map(|chunk| chunk.position + chunk.bytes).max().unwrap_or(0);
        let entry = self.slots.get(slot).ok_or_else(|| Flaw::new(index_at, format!("{} slots, expected slot {slot}", self.slots.len())))?;
        let expected = types_of::<K, V, R>();
        if entry.types != expected {
            return Err(Flaw::new(index_at, format!("types {:016x} in slot {slot}, expected {expected:016x}", entry.types)));
        }
        let chunks = entry.chunks.iter().map(|chunk| self.chunk(chunk)).collect::<Result<Vec<_>, Flaw>>()?;
        Ok(Run::of_chunks(chunks, Some(self.number)))
    }

    fn chunk<K: Data, V: Data, R: Change>(&self, entry: &ChunkEntry) -> Result<Chunk<K, V, R>, Flaw> {
        let at = entry.position as usize;
        let flaw = |what: String| Flaw::new(entry.position, what);
        let header = &self.bytes[at..at + CHUNK_HEADER_BYTES];
        let mut start = at + CHUNK_HEADER_BYTES;
        let mut parts = Vec::with_capacity(COLUMNS);
        for column in 0..COLUMNS {
            let end = usize::try_from(u64_at(header, 8 * column)).ok().and_then(|bytes| start.checked_add(bytes));
            let part = end.filter(|end| *end <= at + entry.bytes as usize).and_then(|end| self.bytes.part(start..end));
            parts.push(part.ok_or_else(|| flaw(format!("column {column} lies outside its chunk")))?);
            start = end.unwrap_or(start);
        }
        let [keys, ends, vals, changes] = <[Bytes; COLUMNS]>::try_from(parts).map_err(|_| flaw("columns".to_owned()))?;
        let (key_count, row_count) = (entry.keys as usize, entry.rows as usize);
        let ends = columns::read::<Vec<u64>>(ends, key_count).map_err(&flaw)?;
        let bounds: &[u64] = ends.borrow();
        let fits = bounds.first().is_some_and(|end| *end > 0) && bounds.last() == Some(&entry.rows);
        if !fits || !bounds.is_sorted_by(|a, b| a < b) {
            return Err(flaw("ends of keys that do not fit the rows".to_owned()));
        }
        let chunk = Chunk {
            keys: columns::read(keys, key_count).map_err(&flaw)?,
            vals: columns::read(vals, row_count).map_err(&flaw)?,
            changes: columns::read(changes, row_count).map_err(&flaw)?,
            ends,
        };
        chunk.check().map_err(|what| flaw(what.to_owned()))?;
        Ok(chunk)
    }
}

/// The index, if it is one: chunks follow each other from the first byte to where the index starts.
fn read_index(bytes: &[u8], slots: u64, index_at: u64) -> Option<Vec<SlotEntry>> {
    let mut words = bytes.chunks_exact(8).map(|word| u64_at(word, 0));
    let mut position = 0u64;
    let mut read = Vec::new();
    for _ in 0..slots {
        let (types, chunks) = (words.next()?, words.next()?);
        let mut slot = SlotEntry { types, chunks: Vec::new() };
        for _ in 0..chunks {
            let entry = [words.next()?, words.next()?, words.next()?, words.next()?, words.next()?];
            let chunk =
                ChunkEntry { position: entry[0], bytes: entry[1], keys: entry[2], rows: entry[3], crc: u32::try_from(entry[4]).ok()? };
            let fits = chunk.position == position && chunk.bytes.is_multiple_of(8) && chunk.bytes >= CHUNK_HEADER_BYTES as u64;
            if !fits || chunk.keys == 0 || chunk.rows < chunk.keys {
                return None;
            }
            position = position.checked_add(chunk.bytes).filter(|end| *end <= index_at)?;
            slot.chunks.push(chunk);
        }
        read.push(slot);
    }
    (words.next().is_none() && position == index_at).then_some(read)
}

/// Writes a file of runs from front to back, slot by slot, chunk by chunk.
pub struct RunFileWriter {
    id: FileId,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    position: u64,
    slots: Vec<SlotEntry>,
    words: Vec<u64>,
}

impl RunFileWriter {
    pub(crate) fn create(disk: &dyn Disk, path: &Path, id: FileId) -> Result<Self, GenerationError> {
        let file = uninterrupted(|| disk.create(path)).map_err(|error| LogError::storage("create", path, error))?;
        Ok(Self { id, path: path.to_path_buf(), file, position: 0, slots: Vec::new(), words: Vec::new() })
    }

    /// Writes the next slot: the sum of these runs, of the keys for which `keep` holds.
    pub(crate) fn slot<K: Data, V: Data, R: Change>(
        &mut self,
        runs: &[&Run<K, V, R>],
        keep: impl Fn(columnar::Ref<'_, K>) -> bool,
    ) -> Result<(), GenerationError> {
        self.slots.push(SlotEntry { types: types_of::<K, V, R>(), chunks: Vec::new() });
        let mut out = RunBuilder::new(|chunk: Chunk<K, V, R>| self.chunk(&chunk));
        merge_runs(runs, keep, &mut out)?;
        out.finish()
    }

    /// Writes the next slot: a run as it is.
    pub(crate) fn slot_of<K: Data, V: Data, R: Change>(&mut self, run: &Run<K, V, R>) -> Result<(), GenerationError> {
        self.slots.push(SlotEntry { types: types_of::<K, V, R>(), chunks: Vec::new() });
        run.chunks().iter().try_for_each(|chunk| self.chunk(chunk))
    }

    fn chunk<K: Data, V: Data, R: Change>(&mut self, chunk: &Chunk<K, V, R>) -> Result<(), GenerationError> {
        let (ends, keys, vals, changes) = (chunk.ends.borrow(), chunk.keys.borrow(), chunk.vals.borrow(), chunk.changes.borrow());
        let words = &mut self.words;
        words.clear();
        words.resize(COLUMNS, 0);
        column(words, 0, &keys);
        column(words, 1, &ends);
        column(words, 2, &vals);
        column(words, 3, &changes);
        let bytes: &[u8] = bytemuck::cast_slice(words);
        append_all(&mut *self.file, bytes).map_err(|error| LogError::storage("write", &self.path, error))?;
        let (keys, rows) = (ends.len() as u64, ends.last().copied().unwrap_or(0));
        let entry = ChunkEntry { position: self.position, bytes: bytes.len() as u64, keys, rows, crc: crc32c::crc32c(bytes) };
        self.position += entry.bytes;
        self.slots.last_mut().expect("a slot was begun").chunks.push(entry);
        Ok(())
    }

    /// Writes index and footer, makes the content durable, and opens the file. Its name is durable once its directory is
    /// synced.
    pub(crate) fn finish(mut self, disk: &dyn Disk) -> Result<RunFile, GenerationError> {
        let mut index = Vec::new();
        for slot in &self.slots {
            index.extend([slot.types, slot.chunks.len() as u64]);
            for chunk in &slot.chunks {
                let entry: [u64; ENTRY_WORDS] = [chunk.position, chunk.bytes, chunk.keys, chunk.rows, chunk.crc.into()];
                index.extend(entry);
            }
        }
        let mut tail: Vec<u8> = index.into_iter().flat_map(u64::to_le_bytes).collect();
        let rows: u64 = self.slots.iter().flat_map(|slot| &slot.chunks).map(|chunk| chunk.rows).sum();
        let mut footer = [0; FOOTER_BYTES];
        footer[..4].copy_from_slice(MAGIC);
        footer[4..6].copy_from_slice(&(FORMAT as u16).to_le_bytes());
        footer[8..24].copy_from_slice(&self.id.log.0);
        let words = [self.id.number, self.id.shard, self.slots.len() as u64, rows, self.position];
        for (at, word) in (24..).step_by(8).zip(words) {
            footer[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        footer[88..92].copy_from_slice(&crc32c::crc32c(&tail).to_le_bytes());
        let crc = crc32c::crc32c(&footer[..92]);
        footer[92..].copy_from_slice(&crc.to_le_bytes());
        tail.extend_from_slice(&footer);
        reach(Step::RunsBeforeFooter);
        append_all(&mut *self.file, &tail).map_err(|error| LogError::storage("write", &self.path, error))?;
        reach(Step::RunsBeforeSync);
        self.file.sync().map_err(|error| LogError::storage("sync", &self.path, error))?;
        reach(Step::RunsAfterSync);
        drop(self.file);
        RunFile::open(disk, &self.path, self.id)
    }
}

/// Appends a column and notes its bytes in the chunk's header.
fn column<'a>(words: &mut Vec<u64>, at: usize, column: &impl AsBytes<'a>) {
    let before = words.len();
    indexed::encode(words, column);
    words[at] = (8 * (words.len() - before) as u64).to_le();
}
