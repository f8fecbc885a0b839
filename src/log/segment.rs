//! A sealed segment: large blocks, an index of them, and a footer. Never written again.
//!
//! ```text
//! blocks, one after the other (see `frame.rs`)
//! table of producers as it stood at the segment's end, or at that of the log that was copied (see `producers.rs`)
//! index, per block: position in the file 8, first offset 8, events 4, CRC32C that ends the block's header 4, first tick 8,
//!     last tick 8, offset after the last 8
//! footer, 96 bytes at the end of the file:
//!      0  4  magic "LFSF"              48  8  first tick
//!      4  2  format version            56  8  last tick
//!      6  2  zero                      64  8  bytes of all blocks: where the table starts
//!      8 16  log id                    72  4  digest: CRC32C over all block headers, in order
//!     24  4  partition                 76  4  CRC32C of the table
//!     28  4  blocks                    80  8  bytes of the table: between blocks and index
//!     32  8  first offset              88  4  CRC32C of the index
//!     40  8  offset after the last     92  4  CRC32C of bytes 0..92
//! ```
//!
//! Version 1 had no table, zero for its checksum, and in the index 8 bytes of events and no offset after the last: there, all
//! offsets had events.
//!
//! A segment is written under a temporary name and synced before it gets its own, so a file with this name is whole or
//! damaged, never torn. Opening reads footer and index only; a block is checked when it is first read, and so is the table, of
//! which a log needs that of its newest segment. The index repeats
//! what the headers say, and has their checksums: a block that was restored from an older copy of the file differs from its entry.
use super::block::{Rows, partition_point};
use super::error::{Damage, LogError};
use super::event::{Event, Types};
use super::frame::{FORMAT, Flaw, HEADER_BYTES, Header, Place, SegmentId, check_envelope, log_id_at, read_frame, u32_at, u64_at};
use super::position::{Offset, Partition, Tick};
use super::producers::Producers;
use crate::storage::{Bytes, Disk, DiskFile, Step, append_all, reach, uninterrupted};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Bytes of a sealed block, unless one group was larger.
pub(crate) const BLOCK_BYTES_MAX: usize = 4 * 1024 * 1024;

const FOOTER_BYTES: usize = HEADER_BYTES;
const FOOTER_MAGIC: &[u8; 4] = b"LFSF";
const ENTRY_BYTES: usize = 48;
const ENTRY_BYTES_V1: usize = 40;

/// What the index says of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub position: u64,
    pub first_offset: Offset,
    pub end: Offset,
    pub events: u64,
    pub first_tick: Tick,
    pub last_tick: Tick,
    /// The checksum of the block's header, which has that of the body; unknown in version 1.
    header_crc: Option<u32>,
}

impl IndexEntry {
    fn of(position: u64, header: &Header, header_crc: u32) -> Self {
        let Header { first_offset, end, events, first_tick, last_tick, .. } = *header;
        IndexEntry { position, first_offset, end, events: events.into(), first_tick, last_tick, header_crc: Some(header_crc) }
    }
}

/// Where the checksum of a header is.
const HEADER_CRC_AT: usize = 92;

/// A sealed segment without its event type: what `verify` and `info` need.
pub(crate) struct SegmentFile {
    pub id: SegmentId,
    pub path: PathBuf,
    pub bytes: Bytes,
    pub index: Vec<IndexEntry>,
    pub end: Offset,
    pub first_tick: Tick,
    pub last_tick: Tick,
    pub digest: u32,
    /// Bytes of all blocks.
    pub data_bytes: u64,
    /// Bytes of the table of producers, after the blocks.
    table_bytes: u64,
    table_crc: u32,
}

/// The name of the segment that starts at `first`.
pub(crate) fn sealed_name(first: Offset) -> String {
    format!("{:020}.seg", first.0)
}

/// The name under which the segment that starts at `first` is being appended to.
pub(crate) fn active_name(first: Offset) -> String {
    format!("{:020}.active", first.0)
}

impl SegmentFile {
    /// Checks footer and index of a file that should hold segment `id`.
    pub fn open(disk: &dyn Disk, path: &Path, id: SegmentId) -> Result<Self, LogError> {
        let bytes = uninterrupted(|| disk.map(path)).map_err(|error| LogError::storage("read", path, error))?;
        Self::read(path, id, bytes).map_err(|flaw| flawed(id.partition, path, flaw, None))
    }

    /// As [`SegmentFile::open`], of bytes that were read already.
    pub fn read(path: &Path, id: SegmentId, bytes: Bytes) -> Result<Self, Flaw> {
        let footer_at = bytes.len().checked_sub(FOOTER_BYTES);
        let Some(footer_at) = footer_at.filter(|at| at.is_multiple_of(8)) else {
            return Err(Flaw::new(0, format!("{} bytes, which is no length of a sealed segment: cut short or extended", bytes.len())));
        };
        let footer = &bytes[footer_at..];
        let here = |flaw: Flaw| flaw.moved(footer_at as u64);
        let version = check_envelope(footer, FOOTER_MAGIC).map_err(|flaw| {
            let what =
                format!("{} where the footer should be, in a file of {} bytes: cut short, extended or overwritten", flaw.what, bytes.len());
            here(Flaw { what, ..flaw })
        })?;
        let found = SegmentId { log: log_id_at(footer, 8), partition: Partition(u32_at(footer, 24)), first: Offset(u64_at(footer, 32)) };
        if found != id {
            let what = format!(
                "segment {} of partition {} of log {}, expected segment {} of partition {} of log {}",
                found.first, found.partition, found.log, id.first, id.partition, id.log
            );
            return Err(here(Flaw::new(8, what)));
        }
        let (blocks, data_bytes) = (u32_at(footer, 28) as usize, u64_at(footer, 64));
        let (entry_bytes, table_bytes) = if version == 1 { (ENTRY_BYTES_V1, 0) } else { (ENTRY_BYTES, u64_at(footer, 80)) };
        let expected = data_bytes.saturating_add(table_bytes).saturating_add((blocks * entry_bytes + FOOTER_BYTES) as u64);
        if bytes.len() as u64 != expected || blocks == 0 {
            return Err(here(Flaw::new(64, format!("a file of {} bytes, expected {expected} with {blocks} blocks", bytes.len()))));
        }
        let index_at = data_bytes + table_bytes;
        let index_bytes = &bytes[index_at as usize..footer_at];
        let (crc, expected) = (crc32c::crc32c(index_bytes), u32_at(footer, 88));
        if crc != expected {
            return Err(Flaw::new(index_at, format!("index checksum {crc:08x}, expected {expected:08x}")));
        }
        let index: Vec<IndexEntry> = index_bytes
            .chunks_exact(entry_bytes)
            .map(|entry| IndexEntry {
                position: u64_at(entry, 0),
                first_offset: Offset(u64_at(entry, 8)),
                end: Offset(if version == 1 { u64_at(entry, 8).saturating_add(u64_at(entry, 16)) } else { u64_at(entry, 40) }),
                events: if version == 1 { u64_at(entry, 16) } else { u32_at(entry, 16).into() },
                header_crc: (version > 1).then(|| u32_at(entry, 20)),
                first_tick: Tick(u64_at(entry, 24)),
                last_tick: Tick(u64_at(entry, 32)),
            })
            .collect();
        let (first_tick, last_tick, end) = (Tick(u64_at(footer, 48)), Tick(u64_at(footer, 56)), Offset(u64_at(footer, 40)));
        let (first, last) = (&index[0], &index[blocks - 1]);
        let counts_fit = index.iter().all(|entry| entry.end > entry.first_offset && entry.events <= entry.end.0 - entry.first_offset.0);
        let chained = index.windows(2).all(|pair| {
            pair[0].end == pair[1].first_offset && pair[0].last_tick <= pair[1].first_tick && pair[0].position < pair[1].position
        });
        let fits = first.first_offset == id.first && first.position == 0 && last.end == end && last.position < data_bytes;
        if !chained || !fits || !counts_fit || first.first_tick != first_tick || last.last_tick != last_tick {
            return Err(Flaw::new(index_at, "an index that does not chain up"));
        }
        let (path, digest, table_crc) = (path.to_path_buf(), u32_at(footer, 72), u32_at(footer, 76));
        Ok(SegmentFile { id, path, index, end, first_tick, last_tick, digest, bytes, data_bytes, table_bytes, table_crc })
    }

    /// The appends of producers that were known at the segment's end. Checks the table.
    pub fn producers(&self) -> Result<Producers, LogError> {
        let damaged = |what: String| flawed(self.id.partition, &self.path, Flaw::new(self.data_bytes, what), None);
        let table = self.data_bytes as usize..(self.data_bytes + self.table_bytes) as usize;
        let table = self.bytes.part(table).ok_or_else(|| damaged("a table of producers off its boundary".to_string()))?;
        let (crc, expected) = (crc32c::crc32c(&table), self.table_crc);
        if crc != expected {
            return Err(damaged(format!("checksum {crc:08x} of the table of producers, expected {expected:08x}")));
        }
        let words = columnar::bytemuck::try_cast_slice(&table).map_err(|error| damaged(format!("table of producers: {error}")))?;
        Producers::decode(words).map_err(damaged)
    }

    /// Reads one block, checking its checksums and its entry in the index.
    pub fn frame(&self, block: usize) -> Result<(Header, Bytes), Flaw> {
        let entry = &self.index[block];
        let next = self.index.get(block + 1).map_or(self.data_bytes, |next| next.position);
        let base = entry.position;
        let place = Place { segment: self.id, next: entry.first_offset, tick: entry.first_tick };
        let frame = self.bytes.get(base as usize..next as usize).ok_or_else(|| Flaw::new(base, "a block beyond the end"))?;
        let header = read_frame(frame, place).map_err(|flaw| flaw.moved(base))?;
        let found = IndexEntry::of(base, &header, u32_at(frame, HEADER_CRC_AT));
        let found = IndexEntry { header_crc: entry.header_crc.and(found.header_crc), ..found };
        if found != *entry || header.frame_bytes() != next - base {
            return Err(Flaw::new(base, "a block that differs from its entry in the index"));
        }
        let body = base as usize + HEADER_BYTES..next as usize;
        let body = self.bytes.part(body).ok_or_else(|| Flaw::new(base, "a block off its 8-byte boundary"))?;
        Ok((header, body))
    }

    /// Reads every byte; returns all flaws.
    pub fn check_all(&self) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        let mut digest = 0;
        for block in 0..self.index.len() {
            match self.frame(block) {
                Ok(_) => {
                    let at = self.index[block].position as usize;
                    digest = crc32c::crc32c_append(digest, &self.bytes[at..at + HEADER_BYTES]);
                }
                Err(flaw) => flaws.push(flaw),
            }
        }
        if flaws.is_empty() && digest != self.digest {
            flaws.push(Flaw::new(self.bytes.len() as u64 - 24, format!("digest {:08x}, expected {digest:08x}", self.digest)));
        }
        if let Err(LogError::Damaged(damage)) = self.producers() {
            flaws.push(Flaw::new(damage.byte, damage.what));
        }
        flaws
    }

    pub fn events(&self) -> u64 {
        self.index.iter().map(|entry| entry.events).sum()
    }
}

/// The error for a flaw in a segment.
pub(crate) fn flawed(partition: Partition, path: &Path, flaw: Flaw, intact_before: Option<Tick>) -> LogError {
    match flaw.newer {
        Some(found) => LogError::NewerFormat { path: path.to_path_buf(), found, supported: FORMAT },
        None => LogError::Damaged(Damage {
            partition: Some(partition),
            file: path.to_path_buf(),
            byte: flaw.at,
            what: flaw.what,
            intact_before,
        }),
    }
}

/// A sealed segment whose blocks can be read as events.
pub(crate) struct Sealed<E: Event> {
    pub file: SegmentFile,
    types: Arc<Types<E>>,
    /// Blocks that were read, and so need no second check. Only those that are read in place: converted ones would pile up.
    read: Vec<OnceLock<Arc<Rows<E>>>>,
}

impl<E: Event> Sealed<E> {
    pub fn new(file: SegmentFile, types: &Arc<Types<E>>) -> Self {
        let read = (0..file.index.len()).map(|_| OnceLock::new()).collect();
        Sealed { file, types: Arc::clone(types), read }
    }

    /// The block that holds `offset`.
    pub fn block_of(&self, offset: Offset) -> usize {
        partition_point(self.file.index.len(), |block| self.file.index[block].end <= offset)
    }

    /// Reads a block, checking it the first time.
    pub fn rows(&self, block: usize) -> Result<Arc<Rows<E>>, LogError> {
        if let Some(rows) = self.read[block].get() {
            return Ok(Arc::clone(rows));
        }
        let entry = &self.file.index[block];
        let damaged = |flaw| flawed(self.file.id.partition, &self.file.path, flaw, Some(entry.first_tick));
        let (header, body) = self.file.frame(block).map_err(damaged)?;
        let rows = self.types.rows(&header, body).map_err(|what| damaged(Flaw::new(entry.position + HEADER_BYTES as u64, what)))?;
        let rows = Arc::new(rows);
        if header.event_type != self.types.own {
            return Ok(rows);
        }
        Ok(Arc::clone(self.read[block].get_or_init(|| rows)))
    }

    /// Reads all blocks, one after the other.
    pub fn blocks(&self) -> impl Iterator<Item = Result<Arc<Rows<E>>, LogError>> {
        (0..self.file.index.len()).map(|block| self.rows(block))
    }
}

/// Writes a sealed segment under a name that is not its own, block by block.
pub(crate) struct SegmentWriter {
    id: SegmentId,
    event_type: u16,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    index: Vec<IndexEntry>,
    position: u64,
    digest: u32,
    frame: Vec<u64>,
}

impl SegmentWriter {
    /// Starts the file, replacing what an interrupted writer left of it.
    pub fn create(disk: &dyn Disk, path: PathBuf, id: SegmentId, event_type: u16) -> Result<Self, LogError> {
        match uninterrupted(|| disk.remove(&path)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(LogError::storage("remove", &path, error)),
            _ => {}
        }
        let file = uninterrupted(|| disk.create(&path)).map_err(|error| LogError::storage("create", &path, error))?;
        Ok(SegmentWriter { id, event_type, path, file, index: Vec::new(), position: 0, digest: 0, frame: Vec::new() })
    }

    /// Bytes of the blocks so far.
    pub fn bytes(&self) -> u64 {
        self.position
    }

    /// Adds a block, which starts where the last one ended.
    pub fn push<E: Event>(&mut self, rows: &Rows<E>) -> Result<(), LogError> {
        let header = rows.encode(self.id, self.event_type, &mut self.frame);
        let bytes: &[u8] = columnar::bytemuck::cast_slice(&self.frame);
        append_all(&mut *self.file, bytes).map_err(|error| LogError::storage("write", &self.path, error))?;
        self.index.push(IndexEntry::of(self.position, &header, u32_at(bytes, HEADER_CRC_AT)));
        self.position += header.frame_bytes();
        self.digest = crc32c::crc32c_append(self.digest, &bytes[..HEADER_BYTES]);
        Ok(())
    }

    /// Adds table, index and footer, and syncs. There is at least one block. Returns the bytes of the file.
    pub fn finish(mut self, producers: &Producers) -> Result<u64, LogError> {
        reach(Step::SealBeforeFooter);
        let tail = self.tail(producers);
        append_all(&mut *self.file, &tail).map_err(|error| LogError::storage("write", &self.path, error))?;
        reach(Step::SealAfterFooter);
        self.file.sync().map_err(|error| LogError::storage("sync", &self.path, error))?;
        Ok(self.position + tail.len() as u64)
    }

    fn tail(&self, producers: &Producers) -> Vec<u8> {
        let (first, last) = (&self.index[0], &self.index[self.index.len() - 1]);
        let mut table = Vec::new();
        producers.encode(&mut table);
        let mut bytes: Vec<u8> = columnar::bytemuck::cast_slice(&table).to_vec();
        let (table_bytes, table_crc) = (bytes.len(), crc32c::crc32c(&bytes));
        for entry in &self.index {
            let IndexEntry { position, first_offset, end, events, first_tick, last_tick, header_crc } = entry;
            let events_and_crc = events | u64::from(header_crc.unwrap_or(0)) << 32;
            for word in [*position, first_offset.0, events_and_crc, first_tick.0, last_tick.0, end.0] {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        let mut footer = [0; FOOTER_BYTES];
        footer[..4].copy_from_slice(FOOTER_MAGIC);
        footer[4..6].copy_from_slice(&(FORMAT as u16).to_le_bytes());
        footer[8..24].copy_from_slice(&self.id.log.0);
        footer[24..28].copy_from_slice(&self.id.partition.0.to_le_bytes());
        footer[28..32].copy_from_slice(&(self.index.len() as u32).to_le_bytes());
        footer[32..40].copy_from_slice(&self.id.first.0.to_le_bytes());
        footer[40..48].copy_from_slice(&last.end.0.to_le_bytes());
        footer[48..56].copy_from_slice(&first.first_tick.0.to_le_bytes());
        footer[56..64].copy_from_slice(&last.last_tick.0.to_le_bytes());
        footer[64..72].copy_from_slice(&self.position.to_le_bytes());
        footer[72..76].copy_from_slice(&self.digest.to_le_bytes());
        footer[76..80].copy_from_slice(&table_crc.to_le_bytes());
        footer[80..88].copy_from_slice(&(table_bytes as u64).to_le_bytes());
        footer[88..92].copy_from_slice(&crc32c::crc32c(&bytes[table_bytes..]).to_le_bytes());
        let crc = crc32c::crc32c(&footer[..92]);
        footer[92..].copy_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&footer);
        bytes
    }
}

/// Where a sealed segment goes, and how its blocks are cut.
#[derive(Copy, Clone)]
pub(crate) struct Sealing<'a> {
    pub disk: &'a dyn Disk,
    pub dir: &'a Path,
    pub event_type: u16,
    pub block_events_max: usize,
}

/// Rewrites the blocks of an active segment into a sealed one and makes it durable under its own name. `producers` is the
/// table as it stands after these blocks.
///
/// The active segment is left in place: until the caller removes it, both hold the same events.
pub(crate) fn seal<E: Event>(
    sealing: Sealing<'_>,
    id: SegmentId,
    blocks: impl Iterator<Item = Result<Arc<Rows<E>>, LogError>>,
    producers: &Producers,
) -> Result<SegmentFile, LogError> {
    let Sealing { disk, dir, event_type, block_events_max } = sealing;
    let path = dir.join(sealed_name(id.first));
    let temporary = dir.join(format!("{}.tmp", sealed_name(id.first)));
    let mut writer = SegmentWriter::create(disk, temporary.clone(), id, event_type)?;
    for group in Groups::of(blocks, block_events_max) {
        let merged = Rows::try_merge(&group?).map_err(|what| flawed(id.partition, &path, Flaw::new(0, what), None));
        writer.push(&*merged?)?;
    }
    writer.finish(producers)?;
    reach(Step::SealBeforeRename);
    uninterrupted(|| disk.rename(&temporary, &path)).map_err(|error| LogError::storage("rename", &temporary, error))?;
    reach(Step::SealBeforeDirSync);
    disk.sync_dir(dir).map_err(|error| LogError::storage("sync", dir, error))?;
    SegmentFile::open(disk, &path, id)
}

/// Cuts a sequence of blocks into groups that each become one large block. Holds one group at a time.
pub(crate) struct Groups<E: Event, Blocks: Iterator<Item = Result<Arc<Rows<E>>, LogError>>> {
    blocks: std::iter::Peekable<Blocks>,
    events_max: usize,
}

impl<E: Event, Blocks: Iterator<Item = Result<Arc<Rows<E>>, LogError>>> Groups<E, Blocks> {
    pub fn of(blocks: Blocks, events_max: usize) -> Self {
        Groups { blocks: blocks.peekable(), events_max }
    }
}

impl<E: Event, Blocks: Iterator<Item = Result<Arc<Rows<E>>, LogError>>> Iterator for Groups<E, Blocks> {
    type Item = Result<Vec<Arc<Rows<E>>>, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = match self.blocks.next()? {
            Ok(first) => first,
            Err(error) => return Some(Err(error)),
        };
        let (mut events, mut bytes) = (first.events(), first.column_bytes());
        let mut group = vec![first];
        let mut fits = |rows: &Arc<Rows<E>>| {
            events += rows.events();
            bytes += rows.column_bytes();
            events <= self.events_max && bytes <= BLOCK_BYTES_MAX
        };
        while let Some(next) = self.blocks.next_if(|next| next.as_ref().map_or(true, &mut fits)) {
            match next {
                Ok(rows) => group.push(rows),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(group))
    }
}
