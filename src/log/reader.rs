//! Reads a log without its lock, while another process may be writing to it.
//!
//! What it shows is a prefix of each partition as of the moment it was opened: it does not follow the writer. Files can move
//! under it while it looks, because a writer seals segments; then it looks again.
use super::cursor::Cursor;
use super::error::LogError;
use super::event::Event;
use super::mark::Mark;
use super::meta::{Found, Meta, look};
use super::partition::Contents;
use super::position::{Offset, Tick};
use super::recovery::{Beside, Known, plan_all};
use super::redact::{REDACTIONS_NAME, Redactions};
use crate::storage::Disk;
use std::path::Path;
use std::sync::Arc;

/// How often a reader looks again before it believes that a file is missing or damaged.
const LOOKS_MAX: usize = 10;

/// A log opened for reading only.
pub struct LogReader<E: Event> {
    contents: Arc<Contents<E>>,
    revision: u64,
}

impl<E: Event> LogReader<E> {
    /// Opens what is in `dir` now. Takes no lock and changes nothing.
    pub fn open(disk: &dyn Disk, dir: &Path) -> Result<Self, LogError> {
        look_again(|| {
            let Found::Log = look(disk, dir)? else {
                return Err(LogError::NoLog { dir: dir.to_path_buf() });
            };
            // A program with a new event type adds it to `log.json` before the first of its blocks is written.
            let meta = Meta::read(disk, dir)?;
            let (types, log) = (Arc::new(meta.types::<E>(dir)?), meta.id(dir)?);
            // The mark first: what it promises is then on disk when the segments are listed.
            let mark = &Mark::read(disk, dir, &meta)?;
            let revision = Redactions::read(disk, dir)?.revision();
            let plans = plan_all(&Known { disk, dir, log, mark, revision, types: &types, beside: Beside::Writer })?;
            if Redactions::read(disk, dir)?.revision() != revision {
                let what = "events are being redacted".to_string();
                return Err(LogError::damaged_file(&dir.join(REDACTIONS_NAME), 0, what));
            }
            let partitions = plans.into_iter().map(|plan| plan.into_segments()).collect();
            // More may come at any tick, so nothing is said to be complete.
            Ok(LogReader { contents: Arc::new(Contents::new(partitions, Tick::ZERO)), revision })
        })
    }

    /// How often events were redacted before the reader was opened.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Reads all partitions from tick `from`, to where they ended when the reader was opened.
    pub fn cursor(&self, from: Tick) -> Cursor<E> {
        Cursor::new(Arc::clone(&self.contents), from)
    }

    /// By partition, the offset of the first event at or after `tick`.
    pub fn offsets_at(&self, tick: Tick) -> Result<Vec<Offset>, LogError> {
        self.contents.offsets_at(tick)
    }

    /// Events in all partitions.
    pub fn events_total(&self) -> u64 {
        self.contents.events_total()
    }
}

/// Repeats a look at files that a writer may have moved meanwhile.
pub(crate) fn look_again<T>(mut look: impl FnMut() -> Result<T, LogError>) -> Result<T, LogError> {
    for _ in 1..LOOKS_MAX {
        match look() {
            Err(LogError::Storage { .. } | LogError::Damaged(_)) => {}
            seen => return seen,
        }
    }
    look()
}
