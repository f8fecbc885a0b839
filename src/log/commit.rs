//! Group commit: one checksummed frame per group, one sync in flight per partition.
//!
//! A sync costs as much as writing a mebibyte or more, so everything that waits while one is in flight goes into the next
//! group. Because the next frame is written only after the sync returned, at most one frame of a log can be torn, which is
//! what lets recovery tell a torn tail from damage.
//!
//! Appends of producers go into the same groups. Each is judged when its group is formed: a fresh one is written with its
//! number in the frame, so that number and events are on disk together or not at all; a repeated one is answered as the first
//! time, after the group that it may be repeated within.
use super::block::{Rows, Runs};
use super::core::Core;
use super::error::LogError;
use super::event::Event;
use super::frame::SegmentId;
use super::options::Durability;
use super::position::{Offset, Partition, Tick};
use super::producers::{Claim, Entry, Producers, Verdict};
use super::segment::active_name;
use crate::storage::{DiskFile, Step, append_all, reach, uninterrupted};
use columnar::{Borrow, Container, ContainerOf, Len, bytemuck};
use crossbeam::channel::{Receiver, Sender};
use std::path::PathBuf;
use std::sync::Arc;

/// Events in one append. More are refused before anything is written.
pub const APPEND_EVENTS_MAX: usize = 1024 * 1024;
/// Columnar bytes of one append. More are refused before anything is written.
pub const APPEND_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Events that a group gathers before it stops taking in more appends.
pub const GROUP_EVENTS_MAX: usize = 64 * 1024;
/// Columnar bytes that a group gathers before it stops taking in more appends.
pub const GROUP_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Appends that wait for a partition's writer; the next caller waits for room.
pub const QUEUE_APPENDS_MAX: usize = 1024;
/// Full segments that wait to be sealed; a writer waits for room before it starts another.
pub const SEAL_BACKLOG_MAX: usize = 2;

/// Proof that events are in the log: made by the commit path alone.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    tick: Tick,
    partition: Partition,
    first_offset: Offset,
    count: u64,
}

impl Ack {
    /// The tick of the events. Once the frontier is above it, every view that is complete includes them.
    pub fn tick(&self) -> Tick {
        self.tick
    }

    /// The partition the events are in.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// The offset of the first event; the others follow.
    pub fn first_offset(&self) -> Offset {
        self.first_offset
    }

    /// How many events were appended.
    pub fn count(&self) -> u64 {
        self.count
    }
}

/// Events on their way into a partition.
pub(crate) struct Job<E: Event> {
    pub columns: ContainerOf<E>,
    pub bytes: usize,
    /// The append's producer and number, if it has one.
    pub claim: Option<Claim>,
    pub reply: Sender<Result<Ack, LogError>>,
}

/// What a writer thread is told.
pub(crate) enum Message<E: Event> {
    Append(Job<E>),
    Stop,
}

/// A partition's write end.
pub(crate) struct Lane {
    partition: Partition,
    end: Offset,
    open: Option<OpenFile>,
    frame: Vec<u64>,
    /// What is in the log, and in the group that is being formed.
    producers: Producers,
}

/// Appends that become one frame.
struct Group<E: Event> {
    /// What to answer once the frame is written: to whom, and where the events are from the front of the group.
    replies: Vec<(Sender<Result<Ack, LogError>>, Answer)>,
    columns: Vec<ContainerOf<E>>,
    events: u64,
    /// Producer and number of the appends that have them.
    claims: Vec<Claim>,
}

enum Answer {
    /// Events of this group: how many come before, how many there are.
    Fresh { before: u64, count: u64 },
    /// An append that is in the log: what was remembered of it when it was judged, as the group's own appends may push it out.
    Repeat(Entry),
}

struct OpenFile {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    first: Offset,
    bytes: u64,
}

impl Lane {
    pub fn new(partition: Partition, end: Offset, producers: Producers) -> Self {
        Lane { partition, end, open: None, frame: Vec::new(), producers }
    }

    /// Takes appends from the queue until told to stop.
    pub fn serve<E: Event>(&mut self, core: &Core<E>, queue: &Receiver<Message<E>>) {
        let mut next = queue.recv().ok();
        while let Some(Message::Append(first)) = next.take() {
            let (mut events, mut bytes, mut jobs) = (first.columns.len(), first.bytes, vec![first]);
            next = queue.try_recv().ok();
            while let Some(Message::Append(job)) = next.take_if(|message| match message {
                Message::Append(job) => events + job.columns.len() <= GROUP_EVENTS_MAX && bytes + job.bytes <= GROUP_BYTES_MAX,
                Message::Stop => false,
            }) {
                (events, bytes) = (events + job.columns.len(), bytes + job.bytes);
                jobs.push(job);
                next = queue.try_recv().ok();
            }
            self.commit(core, jobs);
            next = next.or_else(|| queue.recv().ok());
        }
    }

    /// Writes one group and answers its callers.
    pub fn commit<E: Event>(&mut self, core: &Core<E>, jobs: Vec<Job<E>>) {
        let group = self.form_group(core, jobs);
        let mut waiting = group.replies;
        let (partition, first_offset) = (self.partition, self.end);
        let mut acknowledge = |tick| {
            for (reply, answer) in waiting.drain(..) {
                let ack = match answer {
                    Answer::Fresh { before, count } => Ack { tick, partition, first_offset: first_offset.plus(before), count },
                    Answer::Repeat(entry) => Ack { tick: entry.tick, partition, first_offset: entry.first_offset, count: entry.events },
                };
                // A caller that went away does not need its answer.
                let _ = reply.send(Ok(ack));
            }
            core.wake();
        };
        let written = match group.columns.is_empty() {
            true => core.check_running().map(|()| acknowledge(Tick::ZERO)),
            false => self.write_group(core, group.columns, group.claims, &mut acknowledge),
        };
        if let Err(error) = written {
            core.stop(&error);
            for (reply, _) in waiting {
                let _ = reply.send(Err(error.clone()));
            }
        }
    }

    /// Judges appends of producers, and remembers the fresh ones; their tick follows when the group gets it.
    fn form_group<E: Event>(&mut self, core: &Core<E>, jobs: Vec<Job<E>>) -> Group<E> {
        let mut group = Group { replies: Vec::with_capacity(jobs.len()), columns: Vec::new(), events: 0, claims: Vec::new() };
        let event_type = core.types.own;
        for Job { columns, claim, reply, .. } in jobs {
            let count = columns.len() as u64;
            if let Some(claim) = claim {
                match self.producers.judge(&claim, count, event_type, self.partition) {
                    Ok(Verdict::Fresh) => {
                        let (sequence, digest, first_offset) = (claim.sequence, claim.digest, self.end.plus(group.events));
                        let entry = Entry { sequence, digest, tick: Tick::ZERO, first_offset, events: count, event_type };
                        self.producers.remember(&claim.producer, entry);
                        group.claims.push(claim);
                    }
                    Ok(Verdict::Repeat(entry)) => {
                        // Of this group, as it has no tick yet: it is answered with the group's.
                        let before = entry.first_offset.0.checked_sub(self.end.0).filter(|_| entry.tick == Tick::ZERO);
                        let first = |before| Answer::Fresh { before, count: entry.events };
                        group.replies.push((reply, before.map_or(Answer::Repeat(entry), first)));
                        continue;
                    }
                    Err(error) => {
                        let _ = reply.send(Err(error.into()));
                        continue;
                    }
                }
            }
            group.replies.push((reply, Answer::Fresh { before: group.events, count }));
            group.events += count;
            group.columns.push(columns);
        }
        group
    }

    fn write_group<E: Event>(
        &mut self,
        core: &Core<E>,
        columns: Vec<ContainerOf<E>>,
        claims: Vec<Claim>,
        acknowledge: &mut dyn FnMut(Tick),
    ) -> Result<(), LogError> {
        core.check_running()?;
        self.make_room(core)?;
        let open = self.open.as_mut().expect("a segment was just made ready");
        let columns = join::<E>(columns);
        let tick = core.take_off(self.partition);
        let mut runs = Runs::default();
        runs.push(tick, columns.len());
        let mut rows = Rows::<E>::new(self.partition, self.end, runs, columns);
        for Claim { producer, sequence, .. } in &claims {
            // More than a window of one producer in one group: the oldest are forgotten already.
            if let Some(entry) = self.producers.stamp(producer, *sequence, tick) {
                rows.producers.remember(producer, entry);
            }
        }
        let rows = Arc::new(rows);
        let segment = SegmentId { log: core.log_id, partition: self.partition, first: open.first };
        let bytes = rows.encode(segment, core.types.own, &mut self.frame).frame_bytes();
        let publish = |rows: Arc<Rows<E>>| core.publish(self.partition, open.first, rows, bytes);
        let end = rows.end;
        if core.durability == Durability::Memory {
            publish(Arc::clone(&rows));
            acknowledge(tick);
        }
        reach(Step::AppendBeforeWrite);
        append_all(&mut *open.file, bytemuck::cast_slice(&self.frame))
            .map_err(|error| LogError::storage("append to", &open.path, error))?;
        reach(Step::AppendAfterWrite);
        if core.durability == Durability::Sync {
            reach(Step::AppendBeforeSync);
            open.file.sync().map_err(|error| LogError::storage("sync", &open.path, error))?;
            reach(Step::AppendAfterSync);
        }
        if core.durability != Durability::Memory {
            publish(rows);
        }
        open.bytes += bytes;
        self.end = end;
        core.land(self.partition, end);
        acknowledge(tick);
        Ok(())
    }

    /// Starts a new segment when there is none or it is full; the full one goes to be sealed.
    fn make_room<E: Event>(&mut self, core: &Core<E>) -> Result<(), LogError> {
        if self.open.as_ref().is_some_and(|open| open.bytes < core.segment_bytes_max) {
            return Ok(());
        }
        if self.open.is_some() {
            core.wait_for_sealing()?;
        }
        self.sync(core.durability)?;
        core.check_place()?;
        let dir = core.partition_dir(self.partition);
        let path = dir.join(active_name(self.end));
        let file = uninterrupted(|| core.disk.create(&path)).map_err(|error| LogError::storage("create", &path, error))?;
        reach(Step::CreateBeforeDirSync);
        core.disk.sync_dir(&dir).map_err(|error| LogError::storage("sync", &dir, error))?;
        reach(Step::CreateAfterDirSync);
        let full = self.open.replace(OpenFile { file, path, first: self.end, bytes: 0 });
        if let Some(full) = full {
            core.queue_for_sealing(self.partition, full.first);
        }
        Ok(())
    }

    /// Syncs what a group commit left unsynced: nothing under [`Durability::Sync`].
    pub fn sync(&mut self, durability: Durability) -> Result<(), LogError> {
        match &mut self.open {
            Some(open) if durability != Durability::Sync => open.file.sync().map_err(|error| LogError::storage("sync", &open.path, error)),
            _ => Ok(()),
        }
    }

    /// Offset after the last event written.
    pub fn end(&self) -> Offset {
        self.end
    }
}

/// One container of all rows.
fn join<E: Event>(mut columns: Vec<ContainerOf<E>>) -> ContainerOf<E> {
    if columns.len() == 1 {
        return columns.remove(0);
    }
    let mut joined = ContainerOf::<E>::with_capacity_for(columns.iter().map(|part| part.borrow()));
    for part in &columns {
        joined.extend_from_self(part.borrow(), 0..part.len());
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::meta::Meta;
    use crate::log::{Execution, LogOptions, PRODUCER_WINDOW, SimClock};
    use crate::storage::{Disk, SimDisk};
    use columnar::Columnar;
    use crossbeam::channel::bounded;
    use serde::{Deserialize, Serialize};
    use std::path::Path;

    #[derive(Clone, Debug, Columnar, Serialize, Deserialize)]
    struct Number {
        number: u64,
    }

    impl Event for Number {
        const NAME: &'static str = "number";
        const VERSION: u32 = 1;
        const FIELDS: &'static [&'static str] = &["number: u64"];
    }

    fn core() -> Core<Number> {
        let (disk, dir) = (SimDisk::new(), Path::new("/place/log"));
        disk.create_dir(dir).unwrap();
        let meta = Meta::create::<Number>(&disk, dir, 1).unwrap();
        let options = LogOptions { execution: Execution::Inline, ..LogOptions::default() };
        Core::recover(Arc::new(disk), SimClock::at(100), dir, &options, meta).unwrap()
    }

    /// Commits appends of one producer as one group; each has as many events as its number says.
    fn commit(core: &Core<Number>, sequences: impl IntoIterator<Item = u64>) -> Vec<Ack> {
        let job = |sequence: u64| {
            let events: Vec<Number> = (0..=sequence % 3).map(|place| Number { number: 10 * sequence + place }).collect();
            let (reply, answer) = bounded(1);
            let claim = Some(Claim { producer: Arc::from("p"), sequence, digest: sequence });
            (Job { columns: Number::as_columns(events.iter()), bytes: 8 * events.len(), claim, reply }, answer)
        };
        let (jobs, answers): (Vec<_>, Vec<_>) = sequences.into_iter().map(job).unzip();
        crate::log::core::lock(core.lane(Partition(0))).commit(core, jobs);
        answers.into_iter().map(|answer| answer.recv().unwrap().unwrap()).collect()
    }

    /// A retry of the oldest append that is remembered, in one group with the append that pushes it out of the window, was
    /// looked up after the group: the writer panicked and the whole log stopped. Now it is answered as it was judged.
    #[test]
    fn a_retry_is_answered_even_when_its_own_group_pushes_it_out_of_the_window() {
        let window = PRODUCER_WINDOW as u64;
        let full = core();
        let first = commit(&full, 0..window);
        let together = commit(&full, [0, window, 1, window + 1]);
        assert_eq!((together[0], together[2]), (first[0], first[1]));
        let end = |ack: &Ack| ack.first_offset().plus(ack.count());
        assert_eq!((together[1].first_offset(), together[3].first_offset()), (end(&first[127]), end(&together[1])));
        // More than a window in one group, and among them a retry of one that is of the group itself.
        let empty = core();
        let more = commit(&empty, [0, 1, 2, 1].into_iter().chain(3..window + 20));
        assert_eq!(more[3], more[1]);
        assert_eq!((more[3].first_offset(), more[3].count()), (Offset(1), 2));
        let last = commit(&empty, [window + 19, window + 20]);
        assert_eq!((last[0], last[1].count()), (more[more.len() - 1], 1 + (window + 20) % 3));
    }
}
