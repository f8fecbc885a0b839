//! A sealed segment: large blocks, an index of them, and a footer. Never written again.
//!
//! ```text
//! blocks, one after the other (see `frame.rs`)
//! index, per block: position in the file 8, first offset 8, events 8, first tick 8, last tick 8
//! footer, 96 bytes at the end of the file:
//!      0  4  magic "LFSF"              48  8  first tick
//!      4  2  format version            56  8  last tick
//!      6  2  zero                      64  8  bytes of all blocks: where the index starts
//!      8 16  log id                    72  8  digest: CRC32C over all block headers, in order
//!     24  4  partition                 80  8  zero
//!     28  4  blocks                    88  4  CRC32C of the index
//!     32  8  first offset              92  4  CRC32C of bytes 0..92
//!     40  8  offset after the last
//! ```
//!
//! A segment is written under a temporary name and synced before it gets its own, so a file with this name is whole or
//! damaged, never torn. Opening reads footer and index only; a block is checked when it is first read. The index repeats
//! what the headers say: a block that was restored from an older copy of the file differs from its entry or from the digest.
use super::block::{Rows, partition_point};
use super::error::{Damage, LogError};
use super::event::Event;
use super::frame::{FORMAT, Flaw, HEADER_BYTES, Header, Place, SegmentId, check_envelope, log_id_at, read_frame, u32_at, u64_at};
use super::position::{Offset, Partition, Tick};
use crate::storage::{Bytes, Disk, Step, append_all, reach, uninterrupted};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Bytes of a sealed block, unless one group was larger.
pub(crate) const BLOCK_BYTES_MAX: usize = 4 * 1024 * 1024;

const FOOTER_BYTES: usize = HEADER_BYTES;
const FOOTER_MAGIC: &[u8; 4] = b"LFSF";
const ENTRY_BYTES: usize = 40;

/// What the index says of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub position: u64,
    pub first_offset: Offset,
    pub events: u64,
    pub first_tick: Tick,
    pub last_tick: Tick,
}

impl IndexEntry {
    pub fn end(&self) -> Offset {
        self.first_offset.plus(self.events)
    }

    fn of(position: u64, header: &Header) -> Self {
        let Header { first_offset, events, first_tick, last_tick, .. } = *header;
        IndexEntry { position, first_offset, events: events.into(), first_tick, last_tick }
    }
}

/// A sealed segment without its event type: what `verify` and `info` need.
pub(crate) struct SegmentFile {
    pub id: SegmentId,
    pub path: PathBuf,
    pub bytes: Bytes,
    pub index: Vec<IndexEntry>,
    pub end: Offset,
    pub first_tick: Tick,
    pub last_tick: Tick,
    pub digest: u64,
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

    fn read(path: &Path, id: SegmentId, bytes: Bytes) -> Result<Self, Flaw> {
        let footer_at = bytes.len().checked_sub(FOOTER_BYTES);
        let Some(footer_at) = footer_at.filter(|at| at.is_multiple_of(8)) else {
            return Err(Flaw::new(0, format!("{} bytes, which is no length of a sealed segment: cut short or extended", bytes.len())));
        };
        let footer = &bytes[footer_at..];
        let here = |flaw: Flaw| flaw.moved(footer_at as u64);
        check_envelope(footer, FOOTER_MAGIC).map_err(|flaw| {
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
        let expected = data_bytes.saturating_add((blocks * ENTRY_BYTES + FOOTER_BYTES) as u64);
        if bytes.len() as u64 != expected || blocks == 0 {
            return Err(here(Flaw::new(64, format!("a file of {} bytes, expected {expected} with {blocks} blocks", bytes.len()))));
        }
        let index_bytes = &bytes[data_bytes as usize..footer_at];
        let (crc, expected) = (crc32c::crc32c(index_bytes), u32_at(footer, 88));
        if crc != expected {
            return Err(Flaw::new(data_bytes, format!("index checksum {crc:08x}, expected {expected:08x}")));
        }
        let index: Vec<IndexEntry> = index_bytes
            .chunks_exact(ENTRY_BYTES)
            .map(|entry| IndexEntry {
                position: u64_at(entry, 0),
                first_offset: Offset(u64_at(entry, 8)),
                events: u64_at(entry, 16),
                first_tick: Tick(u64_at(entry, 24)),
                last_tick: Tick(u64_at(entry, 32)),
            })
            .collect();
        let (first_tick, last_tick, end) = (Tick(u64_at(footer, 48)), Tick(u64_at(footer, 56)), Offset(u64_at(footer, 40)));
        let (first, last) = (&index[0], &index[blocks - 1]);
        let chained = index.windows(2).all(|pair| {
            pair[0].end() == pair[1].first_offset && pair[0].last_tick <= pair[1].first_tick && pair[0].position < pair[1].position
        });
        let fits = first.first_offset == id.first && first.position == 0 && last.end() == end && last.position < data_bytes;
        if !chained || !fits || first.first_tick != first_tick || last.last_tick != last_tick {
            return Err(Flaw::new(data_bytes, "an index that does not chain up"));
        }
        Ok(SegmentFile { id, path: path.to_path_buf(), index, end, first_tick, last_tick, digest: u64_at(footer, 72), bytes })
    }

    /// Reads one block, checking its checksums and its entry in the index.
    pub fn frame(&self, block: usize) -> Result<(Header, Bytes), Flaw> {
        let entry = &self.index[block];
        let next = self.index.get(block + 1).map_or(self.data_bytes(), |next| next.position);
        let base = entry.position;
        let place = Place { segment: self.id, next: entry.first_offset, tick: entry.first_tick };
        let frame = self.bytes.get(base as usize..next as usize).ok_or_else(|| Flaw::new(base, "a block beyond the end"))?;
        let header = read_frame(frame, place).map_err(|flaw| flaw.moved(base))?;
        if IndexEntry::of(base, &header) != *entry || header.frame_bytes() != next - base {
            return Err(Flaw::new(base, "a block that differs from its entry in the index"));
        }
        let body = base as usize + HEADER_BYTES..next as usize;
        let body = self.bytes.part(body).ok_or_else(|| Flaw::new(base, "a block off its 8-byte boundary"))?;
        Ok((header, body))
    }

    /// Bytes of all blocks.
    pub fn data_bytes(&self) -> u64 {
        (self.bytes.len() - FOOTER_BYTES - self.index.len() * ENTRY_BYTES) as u64
    }

    /// Reads every byte; returns all flaws.
    pub fn check_all(&self) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        let mut digest = 0;
        for block in 0..self.index.len() {
            match self.frame(block) {
                Ok((header, _)) => digest = crc32c::crc32c_append(digest, &header.encode()),
                Err(flaw) => flaws.push(flaw),
            }
        }
        if flaws.is_empty() && u64::from(digest) != self.digest {
            flaws.push(Flaw::new(self.bytes.len() as u64 - 24, format!("digest {:016x}, expected {digest:016x}", self.digest)));
        }
        flaws
    }

    pub fn events(&self) -> u64 {
        self.end.0 - self.id.first.0
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
    /// Blocks that were read, and so need no second check.
    read: Vec<OnceLock<Arc<Rows<E>>>>,
}

impl<E: Event> Sealed<E> {
    pub fn new(file: SegmentFile) -> Self {
        let read = (0..file.index.len()).map(|_| OnceLock::new()).collect();
        Sealed { file, read }
    }

    /// The block that holds `offset`.
    pub fn block_of(&self, offset: Offset) -> usize {
        partition_point(self.file.index.len(), |block| self.file.index[block].end() <= offset)
    }

    /// Reads a block, checking it the first time.
    pub fn rows(&self, block: usize) -> Result<Arc<Rows<E>>, LogError> {
        if let Some(rows) = self.read[block].get() {
            return Ok(Arc::clone(rows));
        }
        let entry = &self.file.index[block];
        let damaged = |flaw| flawed(self.file.id.partition, &self.file.path, flaw, Some(entry.first_tick));
        let (header, body) = self.file.frame(block).map_err(damaged)?;
        let rows = Rows::decode(&header, body).map_err(|what| damaged(Flaw::new(entry.position + HEADER_BYTES as u64, what)))?;
        Ok(Arc::clone(self.read[block].get_or_init(|| Arc::new(rows))))
    }
}

/// Rewrites the blocks of an active segment into a sealed one and makes it durable under its own name.
///
/// The active segment is left in place: until the caller removes it, both hold the same events.
pub(crate) fn seal<E: Event>(
    disk: &dyn Disk,
    dir: &Path,
    id: SegmentId,
    blocks: &[Arc<Rows<E>>],
    block_events_max: usize,
) -> Result<SegmentFile, LogError> {
    let path = dir.join(sealed_name(id.first));
    let temporary = dir.join(format!("{}.tmp", sealed_name(id.first)));
    match uninterrupted(|| disk.remove(&temporary)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(LogError::storage("remove", &temporary, error));
        }
        _ => {}
    }
    let mut file = uninterrupted(|| disk.create(&temporary)).map_err(|error| LogError::storage("create", &temporary, error))?;
    let mut write = |bytes: &[u8]| append_all(&mut *file, bytes).map_err(|error| LogError::storage("write", &temporary, error));
    let (mut index, mut position, mut digest, mut frame) = (Vec::new(), 0, 0, Vec::new());
    for group in groups(blocks, block_events_max) {
        let header = Rows::merge(group).encode(id, &mut frame);
        write(columnar::bytemuck::cast_slice(&frame))?;
        index.push(IndexEntry::of(position, &header));
        position += header.frame_bytes();
        digest = crc32c::crc32c_append(digest, &header.encode());
    }
    reach(Step::SealBeforeFooter);
    write(&tail(id, &index, position, digest))?;
    reach(Step::SealAfterFooter);
    file.sync().map_err(|error| LogError::storage("sync", &temporary, error))?;
    drop(file);
    reach(Step::SealBeforeRename);
    uninterrupted(|| disk.rename(&temporary, &path)).map_err(|error| LogError::storage("rename", &temporary, error))?;
    reach(Step::SealBeforeDirSync);
    disk.sync_dir(dir).map_err(|error| LogError::storage("sync", dir, error))?;
    SegmentFile::open(disk, &path, id)
}

/// Index and footer.
fn tail(id: SegmentId, index: &[IndexEntry], data_bytes: u64, digest: u32) -> Vec<u8> {
    let (first, last) = (&index[0], &index[index.len() - 1]);
    let mut bytes = Vec::with_capacity(index.len() * ENTRY_BYTES + FOOTER_BYTES);
    for entry in index {
        for word in [entry.position, entry.first_offset.0, entry.events, entry.first_tick.0, entry.last_tick.0] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    let mut footer = [0; FOOTER_BYTES];
    footer[..4].copy_from_slice(FOOTER_MAGIC);
    footer[4..6].copy_from_slice(&(FORMAT as u16).to_le_bytes());
    footer[8..24].copy_from_slice(&id.log.0);
    footer[24..28].copy_from_slice(&id.partition.0.to_le_bytes());
    footer[28..32].copy_from_slice(&(index.len() as u32).to_le_bytes());
    footer[32..40].copy_from_slice(&id.first.0.to_le_bytes());
    footer[40..48].copy_from_slice(&last.end().0.to_le_bytes());
    footer[48..56].copy_from_slice(&first.first_tick.0.to_le_bytes());
    footer[56..64].copy_from_slice(&last.last_tick.0.to_le_bytes());
    footer[64..72].copy_from_slice(&data_bytes.to_le_bytes());
    footer[72..80].copy_from_slice(&u64::from(digest).to_le_bytes());
    footer[88..92].copy_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let crc = crc32c::crc32c(&footer[..92]);
    footer[92..].copy_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&footer);
    bytes
}

/// Cuts a list of blocks into groups that each become one large block.
pub(crate) fn groups<E: Event>(blocks: &[Arc<Rows<E>>], block_events_max: usize) -> impl Iterator<Item = &[Arc<Rows<E>>]> {
    let mut rest = blocks;
    std::iter::from_fn(move || {
        let (mut events, mut bytes) = (0, 0);
        let fits = rest.iter().take_while(|rows| {
            events += rows.events();
            bytes += rows.column_bytes();
            events <= block_events_max && bytes <= BLOCK_BYTES_MAX
        });
        let count = fits.count().max(1).min(rest.len());
        let (group, tail) = rest.split_at(count);
        rest = tail;
        (!group.is_empty()).then_some(group)
    })
}
