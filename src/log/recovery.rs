//! Finds the end of the log after any stop.
//!
//! Only the tail of the newest active segment may be torn, because one group is one checksummed frame and one sync is in
//! flight. Damage anywhere else is reported, never repaired: cutting there would discard acknowledged events. A torn tail is
//! copied aside before it is cut.
//!
//! Recovery plans before it acts, so that a damaged log is left as it was. Then what survives of active segments is
//! rewritten into sealed ones and synced, before anything is read or acknowledged: after a failed sync the page cache shows
//! bytes that are not on the disk, and a view must not be built on them.
//!
//! Two changes of sealed segments can be found half done. A merge of small ones (`merge.rs`) replaces the first of them, then
//! removes the others: one that lies within another is what was left to remove. A redaction (`redact.rs`) counts once
//! `redactions.json` names it: its rewritten segments then take the place of the old ones; those of a redaction that is not
//! named are removed.
use super::block::Rows;
use super::document::replace;
use super::error::{Damage, LogError};
use super::event::{Event, Types};
use super::frame::{Flaw, HEADER_BYTES, LogId, Scan, SegmentId, scan};
use super::mark::Mark;
use super::merge::merge_small;
use super::meta::partition_dir;
use super::options::LogOptions;
use super::partition::{OpenSegment, Segments};
use super::position::{Offset, Partition, Tick};
use super::producers::Producers;
use super::segment::{Groups, Sealed, Sealing, SegmentFile, active_name, flawed, seal, sealed_name};
use crate::storage::{Bytes, Disk, EntryKind, Step, reach, uninterrupted};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a segment's footer says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Footer {
    /// The segment is active: it has none.
    None,
    /// The segment is named as sealed, and the footer holds.
    Valid,
    /// The segment is named as sealed, and the footer does not hold.
    Invalid,
}

/// What is known of a segment when its fate is decided.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Evidence {
    pub footer: Footer,
    /// No segment follows it.
    pub newest: bool,
    /// The log was closed and not appended to since.
    pub clean_stop: bool,
    /// Every group was synced before the next was written.
    pub synced: bool,
    /// A frame is bad.
    pub bad_frame: bool,
    /// A whole frame of this segment stands after the bad one.
    pub later_frame: bool,
    /// The first bad frame, or the end, is below the offset that was known to be on disk.
    pub below_mark: bool,
}

/// What is done with a segment.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Accept,
    /// Set the tail aside, then cut it.
    CutTail,
    /// Report; the text says why it cannot be a torn tail.
    Damaged(&'static str),
}

/// A row of the table; `None` matches either.
#[derive(Debug)]
pub(crate) struct Case {
    pub name: char,
    footer: Footer,
    newest: Option<bool>,
    clean_stop: Option<bool>,
    synced: Option<bool>,
    bad_frame: Option<bool>,
    later_frame: Option<bool>,
    below_mark: Option<bool>,
    pub decision: Decision,
}

const fn case(name: char, footer: Footer, columns: [Option<bool>; 6], decision: Decision) -> Case {
    let [newest, clean_stop, synced, bad_frame, later_frame, below_mark] = columns;
    Case { name, footer, newest, clean_stop, synced, bad_frame, later_frame, below_mark, decision }
}

const Y: Option<bool> = Some(true);
const N: Option<bool> = Some(false);
const X: Option<bool> = None;

/// The whole of recovery's judgement. Exactly one row matches any evidence.
#[rustfmt::skip]
pub(crate) const TABLE: [Case; 12] = [
    //    footer           newest clean synced bad later below
    case('A', Footer::Valid,   [X, X, X, N, X, X], Decision::Accept),
    case('B', Footer::Valid,   [X, X, X, Y, X, X], Decision::Damaged("its footer promised these bytes")),
    case('S', Footer::Invalid, [X, X, X, X, X, X], Decision::Damaged("a segment gets this name only when it is whole")),
    case('C', Footer::None,    [N, X, X, N, X, X], Decision::Accept), // a crash while sealing; the next segment must follow at its end
    case('D', Footer::None,    [N, X, X, Y, X, X], Decision::Damaged("a newer segment follows, so all of it was on disk")),
    case('E', Footer::None,    [Y, Y, X, Y, X, X], Decision::Damaged("the log was closed, so all of it was on disk")),
    case('F', Footer::None,    [Y, N, Y, Y, Y, N], Decision::Damaged("a whole block follows, so it was on disk")),
    case('G', Footer::None,    [Y, N, X, Y, X, Y], Decision::Damaged("the mark says that it was on disk")),
    case('H', Footer::None,    [Y, N, X, Y, N, N], Decision::CutTail),
    case('K', Footer::None,    [Y, N, N, Y, Y, N], Decision::CutTail), // durability was traded away: any unsynced frame may be missing
    case('I', Footer::None,    [Y, X, X, N, X, Y], Decision::Damaged("the log ends before what the mark says was on disk")),
    case('J', Footer::None,    [Y, X, X, N, X, N], Decision::Accept),
];

impl Case {
    fn matches(&self, evidence: Evidence) -> bool {
        let fits = |column: Option<bool>, value: bool| column.is_none_or(|wanted| wanted == value);
        self.footer == evidence.footer
            && fits(self.newest, evidence.newest)
            && fits(self.clean_stop, evidence.clean_stop)
            && fits(self.synced, evidence.synced)
            && fits(self.bad_frame, evidence.bad_frame)
            && fits(self.later_frame, evidence.later_frame)
            && fits(self.below_mark, evidence.below_mark)
    }
}

/// The row for a segment.
pub(crate) fn decide(evidence: Evidence) -> &'static Case {
    TABLE.iter().find(|case| case.matches(evidence)).expect("the table covers all evidence: tested over every combination")
}

/// What recovery knows of the log apart from the partitions' files.
pub(crate) struct Known<'a, E: Event> {
    pub disk: &'a dyn Disk,
    pub dir: &'a Path,
    pub log: LogId,
    pub mark: &'a Mark,
    /// Redactions that count.
    pub revision: u64,
    pub types: &'a Arc<Types<E>>,
    pub beside: Beside,
}

/// Who else may be at work on the files.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// The lock of the log, or of the share that the partition belongs to, is held.
    Nobody,
    /// The lock is not held: the end of the newest active segment may be a group that is being written.
    Writer,
}

/// Judges all partitions of a log. Changes nothing.
pub(crate) fn plan_all<E: Event>(known: &Known<'_, E>) -> Result<Vec<Plan<E>>, LogError> {
    let plan = |(number, end): (usize, &Offset)| plan(known, Partition(number as u32), *end);
    known.mark.ends.iter().enumerate().map(plan).collect()
}

/// A partition's files, judged; nothing is changed yet.
pub(crate) struct Plan<E: Event> {
    dir: PathBuf,
    segments: Vec<Planned<E>>,
    /// Files whose content stands elsewhere, or that never became part of the log.
    remove: Vec<PathBuf>,
    types: Arc<Types<E>>,
    pub end: Offset,
    pub last_tick: Tick,
}

enum Planned<E: Event> {
    Sealed(SegmentFile),
    /// `producers` are those of its blocks, which lose theirs when they are merged.
    Active {
        id: SegmentId,
        path: PathBuf,
        blocks: Vec<Arc<Rows<E>>>,
        producers: Producers,
        torn: Option<Vec<u8>>,
    },
}

/// What follows `NNN.` in the name of a segment that redaction `n` rewrote, before `n`.
const REWRITTEN: &str = "seg.redacted-";

/// The name of a segment that a redaction rewrote, until it takes the place of the old one.
pub(crate) fn rewritten_name(first: Offset, redaction: u64) -> String {
    format!("{:020}.{REWRITTEN}{redaction}", first.0)
}

/// The files that make up a partition, by first offset.
#[derive(Default)]
pub(crate) struct Listing {
    pub sealed: BTreeMap<Offset, PathBuf>,
    pub active: BTreeMap<Offset, PathBuf>,
    /// Files that never became part of the log.
    pub unfinished: Vec<PathBuf>,
    /// Tails that crashes tore.
    pub torn: Vec<PathBuf>,
}

impl Listing {
    /// Sorts the files of a partition's directory, after so many redactions. Strange names are left alone, with a warning.
    pub fn of(disk: &dyn Disk, dir: &Path, partition: Partition, revision: u64) -> Result<Self, LogError> {
        let (mut listing, mut redacted) = (Listing::default(), BTreeMap::new());
        let entries = match uninterrupted(|| disk.list(dir)) {
            // Directories of partitions are made before `log.json` counts them.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let what = "the directory of the partition is missing".to_owned();
                return Err(LogError::Damaged(Damage {
                    partition: Some(partition),
                    file: dir.to_path_buf(),
                    byte: 0,
                    what,
                    intact_before: None,
                }));
            }
            listed => listed.map_err(|error| LogError::storage("list", dir, error))?,
        };
        for entry in entries {
            let path = dir.join(&entry.name);
            let name = entry.name.to_string_lossy();
            let parsed = name.split_once('.').and_then(|(first, kind)| {
                let digits = first.len() == 20 && first.bytes().all(|byte| byte.is_ascii_digit());
                Some((Offset(digits.then_some(first)?.parse().ok()?), kind.to_string()))
            });
            let rewritten = |kind: &str| kind.strip_prefix(REWRITTEN)?.parse::<u64>().ok();
            let (first, kind) = match &parsed {
                Some((first, kind)) if ["seg", "active", "seg.tmp"].contains(&kind.as_str()) || rewritten(kind).is_some() => {
                    (*first, kind.as_str())
                }
                Some((_, kind)) if kind.contains("active.torn-") && entry.kind == EntryKind::File => {
                    listing.torn.push(path);
                    continue;
                }
                _ => {
                    tracing::warn!(file = %path.display(), "a file that is no part of the log is ignored");
                    continue;
                }
            };
            if entry.kind != EntryKind::File {
                let damage =
                    Damage { partition: Some(partition), file: path, byte: 0, what: "not a regular file".to_string(), intact_before: None };
                return Err(LogError::Damaged(damage));
            }
            match kind {
                "seg" => drop(listing.sealed.insert(first, path)),
                "active" => drop(listing.active.insert(first, path)),
                kind if rewritten(kind).is_some_and(|number| number <= revision) => drop(redacted.insert(first, path)),
                _ => listing.unfinished.push(path),
            }
        }
        listing.sealed.extend(redacted);
        Ok(listing)
    }
}

/// Reads a partition's files and judges them. Changes nothing.
pub(crate) fn plan<E: Event>(known: &Known<'_, E>, partition: Partition, mark: Offset) -> Result<Plan<E>, LogError> {
    let dir = partition_dir(known.dir, partition);
    let listing = Listing::of(known.disk, &dir, partition, known.revision)?;
    let (remove, types) = (listing.unfinished, Arc::clone(known.types));
    let mut plan = Plan { dir: dir.clone(), segments: Vec::new(), remove, types, end: Offset(0), last_tick: Tick::ZERO };
    let mut firsts: Vec<Offset> = listing.sealed.keys().chain(listing.active.keys()).copied().collect();
    firsts.sort_unstable();
    firsts.dedup();
    for (place, first) in firsts.iter().enumerate() {
        let id = SegmentId { log: known.log, partition, first: *first };
        let newest = place + 1 == firsts.len();
        let (sealed, active) = (listing.sealed.get(first), listing.active.get(first));
        let path = sealed.or(active).expect("a first offset comes from one of the two");
        if *first != plan.end {
            match sealed {
                Some(path) if is_left_of_merge(known.disk, path, id, plan.end)? => {
                    plan.remove.extend(active.into_iter().chain([path]).cloned());
                    continue;
                }
                _ => return Err(gap(partition, path, plan.end, *first)),
            }
        }
        if sealed.is_some() {
            plan.accept_sealed(known, id, path, newest)?;
            // A crash between sealing and removing leaves both; the sealed one holds all that the active one did.
            plan.remove.extend(active.cloned());
        } else {
            match plan.judge_active(known, id, path, newest) {
                // The writer sealed it since the directory was listed.
                Err(LogError::Storage { source, .. }) if known.beside == Beside::Writer && source.kind() == ErrorKind::NotFound => {
                    plan.accept_sealed(known, id, &dir.join(sealed_name(*first)), newest)?;
                }
                judged => judged?,
            }
        }
    }
    if plan.end < mark {
        let (file, byte) = (dir.join(active_name(plan.end)), 0);
        let what = format!("the log ends at offset {}, the mark says that everything before offset {mark} was on disk", plan.end);
        return Err(LogError::Damaged(Damage { partition: Some(partition), file, byte, what, intact_before: None }));
    }
    Ok(plan)
}

/// Whether a segment's offsets are all in the segments before it, which end at `end`: a merge was interrupted before it removed
/// this one. A segment under a wrong name or of another log is an error.
pub(crate) fn is_left_of_merge(disk: &dyn Disk, path: &Path, id: SegmentId, end: Offset) -> Result<bool, LogError> {
    Ok(id.first < end && SegmentFile::open(disk, path, id)?.end <= end)
}

fn gap(partition: Partition, path: &Path, expected: Offset, found: Offset) -> LogError {
    let what = format!("it starts at offset {found}, expected {expected}: a segment is missing, or there twice");
    LogError::Damaged(Damage { partition: Some(partition), file: path.to_path_buf(), byte: 0, what, intact_before: None })
}

impl<E: Event> Plan<E> {
    fn accept_sealed(&mut self, known: &Known<'_, E>, id: SegmentId, path: &Path, newest: bool) -> Result<(), LogError> {
        let opened = SegmentFile::open(known.disk, path, id);
        let footer = if opened.is_ok() { Footer::Valid } else { Footer::Invalid };
        // Bodies of sealed segments are checked when first read; case B is raised there.
        let evidence = Evidence {
            footer,
            newest,
            clean_stop: known.mark.clean,
            synced: known.mark.synced,
            bad_frame: false,
            later_frame: false,
            below_mark: false,
        };
        debug_assert_eq!(decide(evidence).decision == Decision::Accept, opened.is_ok());
        let segment = opened?;
        if segment.first_tick < self.last_tick {
            let flaw = Flaw::new(0, format!("tick {} after tick {}", segment.first_tick, self.last_tick));
            return Err(flawed(id.partition, path, flaw, None));
        }
        (self.end, self.last_tick) = (segment.end, segment.last_tick);
        self.segments.push(Planned::Sealed(segment));
        Ok(())
    }

    fn judge_active(&mut self, known: &Known<'_, E>, id: SegmentId, path: &Path, newest: bool) -> Result<(), LogError> {
        let bytes = uninterrupted(|| known.disk.read(path)).map_err(|error| LogError::storage("read", path, error))?;
        let Scan { frames, end, flaw, valid_bytes, later_frame } = scan(&bytes, id, self.last_tick);
        let flaw = flaw.filter(|_| !(newest && known.beside == Beside::Writer));
        let mark = known.mark.ends[id.partition.index()];
        let evidence = Evidence {
            footer: Footer::None,
            newest,
            clean_stop: known.mark.clean,
            synced: known.mark.synced,
            bad_frame: flaw.is_some(),
            later_frame,
            below_mark: end < mark,
        };
        let case = decide(evidence);
        let torn = match (case.decision, flaw) {
            (Decision::Accept, _) => None,
            (Decision::CutTail, Some(Flaw { newer: None, .. })) => Some(bytes[valid_bytes..].to_vec()),
            (Decision::Damaged(why), Some(flaw)) => {
                let what = format!("{}; {why} (recovery case {})", flaw.what, case.name);
                return Err(flawed(id.partition, path, Flaw { what, ..flaw }, None));
            }
            // A whole header of a newer version is no torn tail.
            (Decision::CutTail, Some(flaw)) => return Err(flawed(id.partition, path, flaw, None)),
            (Decision::Damaged(why), None) => {
                let what = format!("it ends at offset {end}, the mark is at offset {mark}; {why}");
                return Err(flawed(id.partition, path, Flaw::new(valid_bytes as u64, what), None));
            }
            (Decision::CutTail, None) => unreachable!("rows that cut have a bad frame"),
        };
        let aligned = Bytes::copy(&bytes[..valid_bytes]);
        let mut blocks = Vec::with_capacity(frames.len());
        for (position, header) in &frames {
            let body = position + HEADER_BYTES..position + header.frame_bytes() as usize;
            let body = aligned.part(body).ok_or_else(|| "a block off its 8-byte boundary".to_string());
            let rows = body.and_then(|body| known.types.rows(header, body));
            blocks
                .push(Arc::new(rows.map_err(|what| flawed(id.partition, path, Flaw::new((position + HEADER_BYTES) as u64, what), None))?));
        }
        self.end = end;
        self.last_tick = frames.last().map_or(self.last_tick, |(_, header)| header.last_tick);
        let mut producers = Producers::default();
        blocks.iter().for_each(|rows: &Arc<Rows<E>>| producers.extend(&rows.producers));
        self.segments.push(Planned::Active { id, path: path.to_path_buf(), blocks, producers, torn });
        Ok(())
    }

    /// Merges the blocks that sealing will merge. Done before anything is changed, because it can fail.
    pub fn merge(&mut self, block_events_max: usize) -> Result<(), LogError> {
        for segment in &mut self.segments {
            if let Planned::Active { id, path, blocks, .. } = segment {
                let groups = Groups::of(std::mem::take(blocks).into_iter().map(Ok), block_events_max);
                let damaged = |what| flawed(id.partition, path, Flaw::new(0, what), None);
                *blocks = groups.map(|group| Rows::try_merge(&group?).map_err(damaged)).collect::<Result<_, _>>()?;
            }
        }
        Ok(())
    }

    /// The segments as they are, for a reader that changes nothing.
    pub fn into_segments(self) -> Segments<E> {
        let mut segments = Segments::new(Vec::new(), Offset(0));
        for planned in self.segments {
            match planned {
                Planned::Sealed(file) => segments.push_sealed(Sealed::new(file, &self.types)),
                Planned::Active { id, blocks, .. } => segments.push_open(OpenSegment { first: id.first, blocks, bytes: 0 }),
            }
        }
        segments.end = self.end;
        segments
    }

    /// Gives rewritten segments their names, sets torn tails aside, seals what is active, and merges small segments. Interrupted
    /// anywhere and repeated, it ends in the same state.
    pub fn carry_out(self, disk: &dyn Disk, options: &LogOptions) -> Result<Segments<E>, LogError> {
        let sealing = Sealing { disk, dir: &self.dir, event_type: self.types.own, block_events_max: options.block_events_max };
        let (mut sealed, mut renamed): (Vec<Sealed<E>>, bool) = (Vec::new(), false);
        for segment in self.segments {
            match segment {
                Planned::Sealed(mut segment) => {
                    let own = self.dir.join(sealed_name(segment.id.first));
                    if segment.path != own {
                        uninterrupted(|| disk.rename(&segment.path, &own))
                            .map_err(|error| LogError::storage("rename", &segment.path, error))?;
                        (segment.path, renamed) = (own, true);
                    }
                    sealed.push(Sealed::new(segment, &self.types));
                }
                Planned::Active { id, path, blocks, producers: later, torn } => {
                    if let Some(tail) = torn {
                        reach(Step::TornBeforeCopy);
                        let copy = set_aside(disk, &self.dir, &path, &tail)?;
                        tracing::warn!(segment = %path.display(), bytes = tail.len(), copy = %copy.display(), "a torn tail was set aside");
                        reach(Step::TornAfterCopy);
                    }
                    if !blocks.is_empty() {
                        let mut producers = producers_of(sealed.last())?;
                        producers.extend(&later);
                        let file = seal(sealing, id, blocks.into_iter().map(Ok), &producers)?;
                        sealed.push(Sealed::new(file, &self.types));
                    }
                    reach(Step::SealBeforeRemove);
                    remove(disk, &path)?;
                    reach(Step::SealAfterRemove);
                }
            }
        }
        // An active segment that came back without the sealed one that holds its events would be taken for a second copy: its
        // removal is on disk before that of any sealed one.
        let (last, first): (Vec<_>, Vec<_>) = self.remove.iter().partition(|path| path.extension().is_some_and(|kind| kind == "seg"));
        let mut removed = false;
        for path in first {
            // Sealing replaced the unfinished file of the same name.
            if disk.list(&self.dir).is_ok_and(|entries| entries.iter().any(|entry| Some(entry.name.as_os_str()) == path.file_name())) {
                remove(disk, path)?;
                removed = true;
            }
        }
        if renamed || removed {
            disk.sync_dir(&self.dir).map_err(|error| LogError::storage("sync", &self.dir, error))?;
        }
        last.into_iter().try_for_each(|path| remove(disk, path))?;
        merge_small(sealing, &self.types, &mut sealed, options.segment_bytes_max)?;
        Ok(Segments::new(sealed, self.end))
    }
}

/// The appends of producers that were known at the end of a segment, or none before the first.
pub(crate) fn producers_of<E: Event>(last: Option<&Sealed<E>>) -> Result<Producers, LogError> {
    last.map_or_else(|| Ok(Producers::default()), |last| last.file.producers())
}

pub(crate) fn remove(disk: &dyn Disk, path: &Path) -> Result<(), LogError> {
    uninterrupted(|| disk.remove(path)).map_err(|error| LogError::storage("remove", path, error))
}

/// Copies a torn tail to `NAME.torn-<n>`. A copy that an interrupted recovery made is kept, not repeated.
fn set_aside(disk: &dyn Disk, dir: &Path, segment: &Path, tail: &[u8]) -> Result<PathBuf, LogError> {
    let entries = uninterrupted(|| disk.list(dir)).map_err(|error| LogError::storage("list", dir, error))?;
    let name = segment.file_name().unwrap_or_default().to_string_lossy();
    for number in 1.. {
        let copy = format!("{name}.torn-{number}");
        if !entries.iter().any(|entry| entry.name == *copy) {
            replace(disk, dir, &copy, tail)?;
            return Ok(dir.join(copy));
        }
        if uninterrupted(|| disk.read(&dir.join(&copy))).is_ok_and(|bytes| bytes == tail) {
            return Ok(dir.join(copy));
        }
    }
    unreachable!("there are fewer files than numbers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn all_evidence() -> impl Iterator<Item = Evidence> {
        let footers = [Footer::None, Footer::Valid, Footer::Invalid];
        footers.into_iter().flat_map(|footer| {
            (0..64u32).map(move |bits| Evidence {
                footer,
                newest: bits & 1 != 0,
                clean_stop: bits & 2 != 0,
                synced: bits & 4 != 0,
                bad_frame: bits & 8 != 0,
                later_frame: bits & 16 != 0,
                below_mark: bits & 32 != 0,
            })
        })
    }

    #[test]
    fn exactly_one_row_matches_any_evidence_and_every_row_is_reached() {
        let mut reached = BTreeSet::new();
        for evidence in all_evidence() {
            let matching: Vec<char> = TABLE.iter().filter(|case| case.matches(evidence)).map(|case| case.name).collect();
            assert_eq!(matching.len(), 1, "rows {matching:?} for {evidence:?}");
            assert_eq!(decide(evidence).name, matching[0]);
            reached.extend(matching);
        }
        assert_eq!(reached.len(), TABLE.len());
    }

    #[test]
    fn only_the_unsynced_tail_of_the_newest_active_segment_is_ever_cut() {
        for evidence in all_evidence().filter(|evidence| decide(*evidence).decision == Decision::CutTail) {
            assert!(evidence.newest && evidence.bad_frame && evidence.footer == Footer::None, "{evidence:?}");
            assert!(!evidence.clean_stop && !evidence.below_mark, "{evidence:?}");
            assert!(!(evidence.synced && evidence.later_frame), "{evidence:?}");
        }
    }

    #[test]
    fn a_bad_frame_is_never_accepted() {
        for evidence in all_evidence().filter(|evidence| evidence.bad_frame) {
            assert_ne!(decide(evidence).decision, Decision::Accept, "{evidence:?}");
        }
    }
}
