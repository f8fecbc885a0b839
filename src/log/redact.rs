//! Removes events for good, and says that it did.
//!
//! The segments that hold them are rewritten; the other events keep offset and tick, and where the removed ones were is a hole.
//! Several segments change as one:
//!
//! ```text
//! write   DIR/p0000/NNN.seg.redacted-<id> for each of them, whole and synced       a crash here leaves all of it undone
//! commit  DIR/redactions.json names redaction <id>, `pending`                      from here on it counts
//! apply   rename each to NNN.seg, remove torn tails, clear `pending`               whoever opens the log next goes on here
//! ```
//!
//! `redactions.json` never says what was removed, only by which conditions, how much, and where. Torn tails
//! (`NNN.active.torn-<n>`) were never acknowledged and cannot be searched for events, so all of them are removed, and listed.
//! A digest of 64 bits of an append that a producer numbered stays in the table of producers. Copies elsewhere (backups,
//! blocks that a file system or a drive has not reused) are beyond this program.
use super::clock::Clock;
use super::condition::Condition;
use super::document;
use super::error::LogError;
use super::event::Event;
use super::handle::Log;
use super::meta::partition_dir;
use super::options::{Execution, LogOptions};
use super::position::{Offset, Partition};
use super::recovery::{Listing, remove, rewritten_name};
use super::segment::{Sealed, SegmentWriter, sealed_name};
use crate::storage::{Disk, Step, reach, uninterrupted};
use columnar::Index;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// The file that lists what was redacted.
pub(crate) const REDACTIONS_NAME: &str = "redactions.json";
/// Redactions of one log. The list is read whenever the log is opened.
pub const REDACTIONS_MAX: usize = 10_000;
/// Longest reason, in bytes.
pub const WHY_BYTES_MAX: usize = 4096;

/// What to remove, and why.
#[derive(Clone, Debug)]
pub struct RedactRequest {
    /// An event goes when all of them hold. At least one.
    pub conditions: Vec<Condition>,
    /// The reason, which is kept.
    pub why: String,
    /// How to open the log.
    pub options: LogOptions,
}

/// What a redaction removed, or would.
#[derive(Clone, Debug, Serialize)]
pub struct RedactReport {
    /// Its number, from 1; none when nothing was removed.
    pub id: Option<u64>,
    /// Events that match, by partition.
    pub matching: Vec<u64>,
    /// Events that there were, by partition.
    pub events: Vec<u64>,
    /// Segments that hold events that match.
    pub segments: u64,
    /// Torn tails in the log's directory, which may hold events that were never acknowledged. A redaction removes them.
    pub torn_tails: u64,
}

impl RedactReport {
    /// Events that match, in all partitions.
    pub fn matching_total(&self) -> u64 {
        self.matching.iter().sum()
    }
}

/// A redaction that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redaction {
    /// Its number, from 1.
    pub id: u64,
    /// When: milliseconds since 1970, by the machine's clock.
    pub at: u64,
    /// The reason that was given.
    pub why: String,
    /// The conditions, all of which held of the removed events.
    pub conditions: Vec<String>,
    /// Events that were removed.
    pub events: u64,
    /// The segments they were in.
    pub segments: Vec<RedactedSegment>,
    /// Torn tails that were removed with them.
    pub torn_tails: Vec<TornTail>,
}

/// A segment that was rewritten. It may have been merged with others since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedactedSegment {
    /// Its partition.
    pub partition: Partition,
    /// Its first offset.
    pub first_offset: Offset,
    /// The offset after its last.
    pub end_offset: Offset,
    /// Events that were removed.
    pub events: u64,
    /// CRC32C of all bytes before, in hexadecimal.
    pub crc32c_before: String,
    /// CRC32C of all bytes after, in hexadecimal.
    pub crc32c_after: String,
}

/// A torn tail that was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TornTail {
    /// Its partition.
    pub partition: Partition,
    /// Its name in the partition's directory.
    pub name: String,
}

/// The content of `redactions.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Redactions {
    /// The last one may not be carried out to its end.
    pending: bool,
    redactions: Vec<Redaction>,
}

impl Redactions {
    /// The redactions that count; none when there is no list.
    pub fn read(disk: &dyn Disk, dir: &Path) -> Result<Self, LogError> {
        match document::read(disk, dir, REDACTIONS_NAME) {
            Err(LogError::Storage { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(Redactions::default()),
            read => read,
        }
    }

    /// How many there are.
    pub fn revision(&self) -> u64 {
        self.redactions.len() as u64
    }

    /// Whether the last one may not be carried out to its end.
    pub fn is_pending(&self) -> bool {
        self.pending
    }

    /// Removes the torn tails that the last one names, if it may have been interrupted before it did.
    pub fn remove_torn_tails(&self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        let pending = self.redactions.last().filter(|_| self.pending);
        for tail in pending.iter().flat_map(|last| &last.torn_tails) {
            let path = partition_dir(dir, tail.partition).join(&tail.name);
            match remove(disk, &path) {
                Err(LogError::Storage { source, .. }) if source.kind() == ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        for tail in pending.iter().flat_map(|last| &last.torn_tails) {
            let dir = partition_dir(dir, tail.partition);
            disk.sync_dir(&dir).map_err(|error| LogError::storage("sync", &dir, error))?;
        }
        Ok(())
    }

    /// Notes that the last one is carried out: all segments have their names, and torn tails are gone.
    pub fn settle(&mut self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        if self.pending {
            self.pending = false;
            self.write(disk, dir)?;
        }
        Ok(())
    }

    /// The same list, for a log in which all of it is carried out.
    pub fn carried_out(&self) -> Self {
        Redactions { pending: false, redactions: self.redactions.clone() }
    }

    /// Puts the list into a directory, replacing what was there.
    pub fn write(&self, disk: &dyn Disk, dir: &Path) -> Result<(), LogError> {
        document::write(disk, dir, REDACTIONS_NAME, self)
    }
}

/// The redactions of the log in `dir`, in order. Takes no lock.
pub fn redactions(disk: &dyn Disk, dir: &Path) -> Result<Vec<Redaction>, LogError> {
    let super::meta::Found::Log = super::meta::look(disk, dir)? else {
        return Err(LogError::NoLog { dir: dir.to_path_buf() });
    };
    Ok(Redactions::read(disk, dir)?.redactions)
}

/// Counts the events that [`redact`] would remove. Opens the log, which takes its lock.
pub fn redact_dry_run<E: Event>(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dir: &Path,
    request: &RedactRequest,
) -> Result<RedactReport, LogError> {
    with_log(disk, clock, dir, &request.options, |log| Ok(find::<E>(log, request)?.0))
}

/// Removes all events of which the conditions hold from the log in `dir`, which nobody has open.
///
/// A crash leaves all of it or nothing, once the log has been opened again. Readers are not told of what is gone: answers that
/// were computed from it are to be computed anew, which [`Log::revision`] lets their keeper see.
pub fn redact<E: Event>(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, dir: &Path, request: &RedactRequest) -> Result<RedactReport, LogError> {
    redact_after::<E>(disk, clock, dir, request, || Ok(()))
}

/// As [`redact`]; `before` runs when it is known that events go and none is gone yet, with the log's lock held. It is the place
/// to remove what was computed from them.
pub fn redact_after<E: Event>(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dir: &Path,
    request: &RedactRequest,
    before: impl FnOnce() -> Result<(), LogError>,
) -> Result<RedactReport, LogError> {
    let at = clock.now().0;
    with_log::<E, _>(Arc::clone(&disk), clock, dir, &request.options, |log| {
        let refused = |what: String| Err(LogError::Condition { what });
        if request.why.is_empty() || request.why.len() > WHY_BYTES_MAX {
            return refused(format!("a redaction needs a reason, of {WHY_BYTES_MAX} bytes at most"));
        }
        let (mut report, segments) = find(log, request)?;
        if segments.is_empty() {
            return Ok(report);
        }
        let mut list = Redactions::read(&*disk, dir)?;
        if list.redactions.len() >= REDACTIONS_MAX {
            return refused(format!(
                "the log has had {REDACTIONS_MAX} redactions, which is the most\n  hint: `log rewrite` begins a new log"
            ));
        }
        before()?;
        let id = list.revision() + 1;
        let event_type = log.event_type_number();
        let rewritten = segments.iter().map(|segment| rewrite_without(&*disk, dir, segment, id, event_type, request));
        let rewritten = rewritten.collect::<Result<Vec<_>, _>>()?;
        let mut torn_tails = Vec::new();
        for partition in (0..log.partitions()).map(Partition) {
            let partition_dir = partition_dir(dir, partition);
            disk.sync_dir(&partition_dir).map_err(|error| LogError::storage("sync", &partition_dir, error))?;
            let torn = Listing::of(&*disk, &partition_dir, partition, list.revision())?.torn;
            let names = torn.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
            torn_tails.extend(names.map(|name| TornTail { partition, name }));
        }
        list.redactions.push(Redaction {
            id,
            at,
            why: request.why.clone(),
            conditions: request.conditions.iter().map(Condition::to_string).collect(),
            events: report.matching_total(),
            segments: rewritten,
            torn_tails,
        });
        list.pending = true;
        reach(Step::RedactBeforeCommit);
        list.write(&*disk, dir)?;
        reach(Step::RedactAfterCommit);
        list.remove_torn_tails(&*disk, dir)?;
        for segment in &segments {
            let SegmentPlace { partition, first, .. } = SegmentPlace::of(segment);
            let dir = partition_dir(dir, partition);
            let (from, to) = (dir.join(rewritten_name(first, id)), dir.join(sealed_name(first)));
            uninterrupted(|| disk.rename(&from, &to)).map_err(|error| LogError::storage("rename", &from, error))?;
            disk.sync_dir(&dir).map_err(|error| LogError::storage("sync", &dir, error))?;
        }
        reach(Step::RedactBeforeSettle);
        list.settle(&*disk, dir)?;
        reach(Step::RedactAfterSettle);
        report.id = Some(id);
        Ok(report)
    })
}

struct SegmentPlace {
    partition: Partition,
    first: Offset,
    end: Offset,
}

impl SegmentPlace {
    fn of<E: Event>(segment: &Sealed<E>) -> Self {
        SegmentPlace { partition: segment.file.id.partition, first: segment.file.id.first, end: segment.file.end }
    }
}

/// Opens the log, so that all of it is sealed and nobody else has it, and closes it after `run`.
fn with_log<E: Event, T>(
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dir: &Path,
    options: &LogOptions,
    run: impl FnOnce(&Log<E>) -> Result<T, LogError>,
) -> Result<T, LogError> {
    let options = LogOptions { execution: Execution::Inline, ..options.clone() };
    let log = Log::<E>::open_existing(disk, clock, dir, options)?;
    let done = run(&log);
    let closed = log.close();
    done.and_then(|done| closed.map(|()| done))
}

/// Whether all conditions hold of an event; counts the events that have each field.
fn matches(request: &RedactRequest, event: &serde_json::Value, found: &mut [u64]) -> bool {
    let mut all = true;
    for (condition, found) in request.conditions.iter().zip(found) {
        let field = condition.field(event);
        *found += u64::from(field.is_some());
        all &= field.is_some_and(|field| condition.holds(field));
    }
    all
}

fn to_json<E: Event>(event: E) -> Result<serde_json::Value, LogError> {
    serde_json::to_value(event).map_err(|error| LogError::Condition { what: format!("an event that is no JSON: {error}") })
}

/// Looks through all events; returns the segments that have some that match.
fn find<E: Event>(log: &Log<E>, request: &RedactRequest) -> Result<(RedactReport, Vec<Arc<Sealed<E>>>), LogError> {
    if request.conditions.is_empty() {
        return Err(LogError::Condition { what: "without a condition, nothing is redacted".to_string() });
    }
    let mut report = RedactReport { id: None, matching: Vec::new(), events: Vec::new(), segments: 0, torn_tails: 0 };
    let (mut found, mut affected) = (vec![0; request.conditions.len()], Vec::new());
    for (partition, sealed) in log.sealed_segments().into_iter().enumerate() {
        let (mut matching, mut events) = (0, 0);
        for segment in sealed {
            let before = matching;
            for rows in segment.blocks() {
                let rows = rows?;
                for row in 0..rows.events() {
                    let event = to_json(E::into_owned(rows.columns().get(row)))?;
                    matching += u64::from(matches(request, &event, &mut found));
                }
                events += rows.events() as u64;
            }
            if matching > before {
                affected.push(segment);
            }
        }
        report.matching.push(matching);
        report.events.push(events);
        let partition = Partition(partition as u32);
        let listing = Listing::of(&*log.disk(), &partition_dir(log.dir(), partition), partition, log.revision())?;
        report.torn_tails += listing.torn.len() as u64;
    }
    report.segments = affected.len() as u64;
    if let Some(place) = found.iter().position(|found| *found == 0).filter(|_| report.events.iter().sum::<u64>() > 0) {
        let what = format!("condition `{}`: no event has that field\n  hint: `log cat DIR --limit 1` shows one", request.conditions[place]);
        return Err(LogError::Condition { what });
    }
    Ok((report, affected))
}

/// Writes a segment without the events that match beside the old one, and syncs it.
fn rewrite_without<E: Event>(
    disk: &dyn Disk,
    dir: &Path,
    segment: &Sealed<E>,
    redaction: u64,
    event_type: u16,
    request: &RedactRequest,
) -> Result<RedactedSegment, LogError> {
    let SegmentPlace { partition, first, end } = SegmentPlace::of(segment);
    let path = partition_dir(dir, partition).join(rewritten_name(first, redaction));
    let mut writer = SegmentWriter::create(disk, path.clone(), segment.file.id, event_type)?;
    let mut events = 0;
    let mut found = vec![0; request.conditions.len()];
    for rows in segment.blocks() {
        let rows = rows?;
        let gone = |row: usize| Ok(matches(request, &to_json(E::into_owned(rows.columns().get(row)))?, &mut found));
        let kept = rows.without(gone)?;
        events += kept.as_ref().map_or(0, |kept| rows.events() - kept.events()) as u64;
        writer.push(kept.as_ref().unwrap_or(&rows))?;
    }
    writer.finish(&segment.file.producers()?)?;
    let after = uninterrupted(|| disk.read(&path)).map_err(|error| LogError::storage("read", &path, error))?;
    let crc32c = |bytes: &[u8]| format!("{:08x}", crc32c::crc32c(bytes));
    Ok(RedactedSegment {
        partition,
        first_offset: first,
        end_offset: end,
        events,
        crc32c_before: crc32c(&segment.file.bytes),
        crc32c_after: crc32c(&after),
    })
}
