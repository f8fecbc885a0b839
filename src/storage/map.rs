//! Maps files that are never written again into memory, so that reading copies nothing. The one module with `unsafe`.
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Immutable bytes that start on an 8-byte boundary: a part of a mapped file, or of words in memory.
///
/// Cheap to clone; the mapping lives as long as any part of it.
#[derive(Clone)]
pub struct Bytes {
    owner: Owner,
    range: Range<usize>,
}

#[derive(Clone)]
enum Owner {
    Map(Arc<memmap2::Mmap>),
    Words(Arc<[u64]>),
}

impl Bytes {
    /// Maps a whole file. Nobody may write to it any more: it is a sealed segment, or a file of runs.
    pub fn map(file: &File) -> io::Result<Bytes> {
        let len = usize::try_from(file.metadata()?.len()).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
        if len == 0 {
            return Ok(Bytes::copy(&[])); // a mapping of no bytes is an error to the system
        }
        // SAFETY: the bytes behind a shared reference must not change while it lives. Sealed segments and files of runs are written once
        // under a temporary name, synced, renamed, and never opened for writing again; they are only ever deleted, which
        // keeps a mapping intact; and the log's lock keeps other processes of ours out. Whoever edits or truncates the file
        // behind our back can crash this process (SIGBUS) as with every mapped file; README says so. No reference to
        // a type with invalid bit patterns is made from these bytes: only `u8` and, through checked casts, integers.
        let map = unsafe { memmap2::Mmap::map(file)? };
        Ok(Bytes { owner: Owner::Map(Arc::new(map)), range: 0..len })
    }

    /// A copy of `bytes` on an 8-byte boundary.
    pub fn copy(bytes: &[u8]) -> Bytes {
        let words: Arc<[u64]> = bytes
            .chunks(8)
            .map(|chunk| {
                let mut word = [0u8; 8];
                word[..chunk.len()].copy_from_slice(chunk);
                u64::from_ne_bytes(word)
            })
            .collect();
        Bytes { owner: Owner::Words(words), range: 0..bytes.len() }
    }

    /// A part of these bytes, sharing them. `None` when the part is not inside, or does not start on an 8-byte boundary.
    pub fn part(&self, range: Range<usize>) -> Option<Bytes> {
        let inside = range.start <= range.end && range.end <= self.range.len() && range.start.is_multiple_of(8);
        let start = self.range.start;
        inside.then(|| Bytes { owner: self.owner.clone(), range: start + range.start..start + range.end })
    }
}

impl Deref for Bytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.owner {
            Owner::Map(map) => &map[self.range.clone()],
            Owner::Words(words) => &columnar::bytemuck::cast_slice::<u64, u8>(words)[self.range.clone()],
        }
    }
}
