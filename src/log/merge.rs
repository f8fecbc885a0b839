//! Merges the small segments that restarts leave behind, so that a thousand restarts do not leave a thousand segments.
//!
//! Each restart seals what was active. Neighbours at the end of the log are merged when the log is opened, the newer ones into
//! the first of them: written whole under a temporary name, synced, renamed over the first; then the others are removed. A
//! crash before the rename leaves them as they were, one after it leaves segments whose offsets are all in the first, which
//! recovery removes; the sync of the directory that stands between the two also keeps an active segment from coming back without
//! the sealed one that took its place. A segment takes part only when those after it are together at least half its size: so each event is
//! rewritten a number of times that grows with the logarithm of the bytes, and as many segments stay.
use super::error::LogError;
use super::event::{Event, Types};
use super::recovery::remove;
use super::segment::{Sealed, Sealing, seal, sealed_name};
use crate::storage::{Step, reach};
use std::sync::Arc;

/// Bytes of a segment that small ones are merged into: what opening a log may have to rewrite.
pub const MERGE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Merges segments at the end of a partition, all of which are sealed. No reader has them yet.
pub(crate) fn merge_small<E: Event>(
    sealing: Sealing<'_>,
    types: &Arc<Types<E>>,
    sealed: &mut Vec<Sealed<E>>,
    segment_bytes_max: u64,
) -> Result<(), LogError> {
    let bytes_max = segment_bytes_max.min(MERGE_BYTES_MAX);
    let (mut start, mut bytes) = (sealed.len(), 0);
    while let Some(segment) = start.checked_sub(1).map(|place| &sealed[place]) {
        // Without the table of producers, which each has and the merged one has once: it may be larger than the blocks.
        let more = segment.file.data_bytes;
        let fits = bytes == 0 || more <= 2 * bytes && more + bytes <= bytes_max;
        if !fits {
            break;
        }
        (start, bytes) = (start - 1, bytes + more);
    }
    let small = &sealed[start..];
    let [first, .., last] = small else { return Ok(()) };
    let id = first.file.id;
    let merged = seal(sealing, id, small.iter().flat_map(Sealed::blocks), &last.file.producers()?);
    let merged = match merged {
        // Readers are told of the damage when they get there; what is whole is not held up by it.
        Err(error @ LogError::Damaged(_)) => {
            tracing::warn!(%error, "small segments are left as they are");
            return remove(sealing.disk, &sealing.dir.join(format!("{}.tmp", sealed_name(id.first))));
        }
        merged => merged?,
    };
    reach(Step::SealBeforeRemove);
    for segment in &small[1..] {
        remove(sealing.disk, &segment.file.path)?;
    }
    reach(Step::SealAfterRemove);
    sealed.truncate(start);
    sealed.push(Sealed::new(merged, types));
    Ok(())
}
