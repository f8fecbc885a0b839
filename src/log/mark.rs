//! The high-water mark: what a restart must not fall behind.
//!
//! Readers are told a frontier, "nothing below this tick will come any more". A restart with a clock set back must keep that
//! word, so a frontier is announced only up to `reserved`, which was durable before; after a restart ticks begin there.
//! Reserving ahead makes one write serve for seconds. The mark also says up to which offset each partition is known to be on
//! disk: a log that ends before that has lost acknowledged events, and recovery says so instead of cutting.
//!
//! Of several processes that have shares of a log open, each writes a mark of its own: `mark`, `mark-0001`, and so on. What all
//! of them say together holds of the log. Whoever opens the whole log next writes that into `mark` and removes the others.
use super::document;
use super::error::LogError;
use super::meta::Meta;
use super::options::Share;
use super::position::{Offset, Tick};
use crate::storage::{Disk, Step, reach, uninterrupted};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The mark's file, in a log that one process has open; otherwise that of the first.
pub(crate) const NAME: &str = "mark";
/// How far ahead of the clock ticks are reserved.
pub(crate) const RESERVE_TICKS: u64 = 5_000;
/// How far ahead of the floor ticks are reserved when the clock is behind it. Smaller, because each unclean restart jumps by this.
pub(crate) const RESERVE_BEHIND_CLOCK_TICKS: u64 = 1_000;
/// The mark is rewritten when fewer ticks than this are left, so that nobody waits for it.
pub(crate) const RESERVE_LEFT_TICKS_MIN: u64 = 500;

/// The content of the mark.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub log_id: String,
    /// No frontier above this was announced; ticks of the next run begin here.
    pub reserved: Tick,
    /// The log was closed: everything is synced, and nothing was appended since.
    pub clean: bool,
    /// Every group was synced before the next was written.
    pub synced: bool,
    /// Per partition, the offset before which everything is known to be on disk.
    pub ends: Vec<Offset>,
    /// In the mark of a share that is open: the tick it began at. Nobody announced a frontier above this before, so another share
    /// that opens beside it can begin there too, and not seconds ahead at what this one reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Tick>,
}

/// The name of the file of a share: `NAME` or, for all but the first, `NAME-0001`.
pub(crate) fn share_name(name: &str, index: u32) -> String {
    if index == 0 { name.to_owned() } else { format!("{name}-{index:04}") }
}

/// The index in the name of a file of a share other than the first.
pub(crate) fn share_of_name(name: &str, file: &str) -> Option<u32> {
    let digits = file.strip_prefix(name)?.strip_prefix('-')?;
    let index: u32 = (digits.len() >= 4 && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())??;
    // One name per share: not `mark-00001` beside `mark-0001`.
    (index > 0 && share_name(name, index) == file).then_some(index)
}

/// Names in a directory.
pub(crate) fn names(disk: &dyn Disk, dir: &Path) -> Result<Vec<String>, LogError> {
    let entries = uninterrupted(|| disk.list(dir)).map_err(|error| LogError::storage("list", dir, error))?;
    Ok(entries.into_iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect())
}

impl Mark {
    /// Makes the mark of the share with this index durable.
    pub fn write(&self, disk: &dyn Disk, dir: &Path, index: u32) -> Result<(), LogError> {
        reach(Step::MarkBeforeWrite);
        document::write(disk, dir, &share_name(NAME, index), self)?;
        reach(Step::MarkAfterWrite);
        Ok(())
    }

    /// What all marks of a log say together.
    pub fn read(disk: &dyn Disk, dir: &Path, meta: &Meta) -> Result<Mark, LogError> {
        Ok(Marks::read(disk, dir, meta)?.combined())
    }

    fn read_one(disk: &dyn Disk, dir: &Path, name: &str, meta: &Meta) -> Result<Mark, LogError> {
        let mut mark: Mark = document::read(disk, dir, name)?;
        let (found, expected) = (mark.ends.len(), meta.partitions as usize);
        if mark.log_id != meta.log_id || found > expected {
            let what = format!("the mark of log {} with {found} partitions, expected {} with {expected}", mark.log_id, meta.log_id);
            return Err(LogError::damaged_file(&dir.join(name), 0, what));
        }
        // The log has grown since: nothing of the new partitions is known to be on disk.
        mark.ends.resize(expected, Offset(0));
        Ok(mark)
    }
}

/// The marks of all shares of a log.
#[derive(Debug)]
pub(crate) struct Marks {
    first: Mark,
    /// By the index of their share.
    others: Vec<(u32, Mark)>,
}

impl Marks {
    /// Reads the marks of a log.
    pub fn read(disk: &dyn Disk, dir: &Path, meta: &Meta) -> Result<Marks, LogError> {
        let names = names(disk, dir)?;
        let indexes = names.iter().filter_map(|name| share_of_name(NAME, name));
        // `mark` last: whoever removes one of the others has put what it said into `mark` before.
        let others = indexes.map(|index| Ok((index, Mark::read_one(disk, dir, &share_name(NAME, index), meta)?)));
        let others = others.collect::<Result<_, LogError>>()?;
        Ok(Marks { first: Mark::read_one(disk, dir, NAME, meta)?, others })
    }

    fn all(&self) -> impl Iterator<Item = (u32, &Mark)> {
        std::iter::once((0, &self.first)).chain(self.others.iter().map(|(index, mark)| (*index, mark)))
    }

    /// What all of them say of the log.
    pub fn combined(&self) -> Mark {
        let mut combined = Mark { began: None, ..self.first.clone() };
        for (_, mark) in &self.others {
            combined.reserved = combined.reserved.max(mark.reserved);
            combined.clean &= mark.clean;
            combined.synced &= mark.synced;
            combined.ends.iter_mut().zip(&mark.ends).for_each(|(end, other)| *end = (*end).max(*other));
        }
        combined
    }

    /// The tick that a share must not begin before: no frontier above it was announced of its partitions. What the shares that
    /// are open beside it reserved since, they reserved for theirs.
    pub fn begin(&self, share: Share) -> Tick {
        let beside = |index: u32| !share.is_whole() && index != share.index;
        let begin = self.all().map(|(index, mark)| mark.began.filter(|_| beside(index)).unwrap_or(mark.reserved));
        begin.max().unwrap_or_default()
    }
}

/// Removes the marks of all shares but the first, after `mark` was written with what they say together.
///
/// A crash before this leaves both, which together say what `mark` says: it has the greatest reserve and ends, was not closed,
/// and nothing was appended since that a missing sync could have lost. The same holds of any part of the others. They are gone
/// for good before the first append: one that came back could say that groups were not synced which were, and a damaged block
/// would be taken for a torn tail.
pub(crate) fn remove_others(disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
    let is_other = |name: &str| share_of_name(NAME, name.strip_suffix(".tmp").unwrap_or(name)).is_some();
    let others: Vec<String> = names(disk, dir)?.into_iter().filter(|name| is_other(name)).collect();
    for name in &others {
        let path = dir.join(name);
        uninterrupted(|| disk.remove(&path)).map_err(|error| LogError::storage("remove", &path, error))?;
    }
    if others.is_empty() {
        return Ok(());
    }
    disk.sync_dir(dir).map_err(|error| LogError::storage("sync", dir, error))
}

/// The mark to reserve, given the clock and the floor.
pub(crate) fn reserve(now: Tick, floor: Tick) -> Tick {
    now.plus(RESERVE_TICKS).max(floor.plus(RESERVE_BEHIND_CLOCK_TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(reserved: u64, clean: bool, synced: bool, ends: [u64; 3]) -> Mark {
        let ends = ends.map(Offset).to_vec();
        Mark { log_id: "log".to_owned(), reserved: Tick(reserved), clean, synced, ends, began: Some(Tick(3)) }
    }

    #[test]
    fn marks_say_together_what_no_one_of_them_may_be_held_to_alone() {
        let combined = |others: Vec<(u32, Mark)>| Marks { first: mark(7, true, true, [4, 1, 0]), others }.combined();
        let whole = |mark: Mark| Mark { began: None, ..mark };
        assert_eq!(combined(vec![]), whole(mark(7, true, true, [4, 1, 0])));
        assert_eq!(combined(vec![(1, mark(9, true, true, [2, 8, 0]))]), whole(mark(9, true, true, [4, 8, 0])));
        assert_eq!(combined(vec![(2, mark(5, false, true, [0, 0, 1]))]), whole(mark(7, false, true, [4, 1, 1])));
        assert_eq!(combined(vec![(2, mark(5, true, false, [0, 0, 1]))]), whole(mark(7, true, false, [4, 1, 1])));
    }

    #[test]
    fn a_share_begins_at_what_it_reserved_and_where_the_others_began() {
        let marks = Marks { first: mark(20, false, true, [0; 3]), others: vec![(1, mark(10, false, true, [0; 3]))] };
        let begin = |index, of| marks.begin(Share { index, of }).0;
        assert_eq!([begin(0, 1), begin(0, 3), begin(1, 3), begin(2, 3)], [20, 20, 10, 3]);
    }

    #[test]
    fn each_share_has_one_name() {
        for (index, name) in [(1, "mark-0001"), (37, "mark-0037"), (12_345, "mark-12345")] {
            assert_eq!((share_name(NAME, index).as_str(), share_of_name(NAME, name)), (name, Some(index)));
        }
        for name in ["mark", "mark-", "mark-1", "mark-0000", "mark-00001", "mark-000a", "mark-0001.tmp", "lock-0001", "mark-99999999999"] {
            assert_eq!(share_of_name(NAME, name), None, "{name}");
        }
    }
}
