//! What a changed program answers differently, before it takes the old one's place.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, ClusterError};
use crate::layers::{BatchError, Blueprint, Crew, EventSource, Feed, Prefix, run_batch};
use crate::log::{self, Block, Event, LogError, LogReader, Share, Tick};
use crate::operators::Codec;
use crate::runs::{
    Difference, DifferencePart, Digest, GenerationError, GenerationStore, Manifest, ReadError, RunFile, ViewsByName, differences,
};
use crate::storage::RealDisk;

use super::program::Program;

/// How a program's answers differ from those of the newest generation on disk.
#[derive(Clone, Debug, Serialize)]
pub struct Diff {
    /// The generation.
    pub generation: u64,
    /// Its frontier: the answers are those at the tick before.
    pub frontier: Tick,
    /// Whether the generation is of this very program. Then a difference is a fault.
    pub same_program: bool,
    /// New minus old, of the views that differ.
    pub differences: Vec<Difference>,
}

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// No generation can be read.
    #[error(transparent)]
    Generation(#[from] GenerationError),
    /// There is nothing to compare with.
    #[error("{0} has no generation that can be read\n  hint: `run` makes them, `generations verify` says what is damaged")]
    Nothing(String),
    /// The dataflow cannot be built.
    #[error("{0}")]
    Dataflow(String),
    /// The new answers could not be computed.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A view could not be read at the frontier.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The other processes.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl DiffError {
    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Log(error) | Self::Batch(BatchError::Log(error)) => error.exit_code(),
            Self::Generation(error) => error.exit_code(),
            Self::Cluster(error) => error.exit_code(),
            Self::Nothing(_) | Self::Dataflow(_) => 2,
            Self::Batch(_) | Self::Read(_) => 1,
        }
    }
}

/// Computes a program's answers from the log in `dir`, in memory, up to the frontier of the newest whole generation, and
/// compares. Takes no lock and changes nothing: a server may be running. At most `limit` rows of each view are listed.
pub fn diff_log<E: Event>(program: &Program<E>, dir: &Path, workers: usize, limit: usize) -> Result<Diff, DiffError> {
    let sides = Sides::of(program, dir, None, &Crew::from(workers))?;
    let differences = differences(&sides.new, &sides.old, &sides.unread, sides.frontier, limit)?;
    Ok(sides.diff(differences))
}

/// As [`diff_log`], as one of the processes of a cluster, each of which reaches `dir` and is given the same limit. Each computes
/// and compares its share; the result is process 0's.
pub fn diff_log_in<E: Event>(
    cluster: &Cluster,
    program: &Program<E>,
    dir: &Path,
    exchange: Codec,
    limit: usize,
) -> Result<Option<Diff>, DiffError> {
    let compared = try_diff_log_in(cluster, program, dir, exchange, limit)
        .map_err(|error| cluster.broken_by(&error.to_string()).map_or(error, DiffError::Cluster));
    compared.inspect_err(|error| cluster.leave(&format!("it could not compare: {error}")))
}

fn try_diff_log_in<E: Event>(
    cluster: &Cluster,
    program: &Program<E>,
    dir: &Path,
    exchange: Codec,
    limit: usize,
) -> Result<Option<Diff>, DiffError> {
    let (crew, first) = (cluster.crew().codec(exchange), cluster.membership().process == 0);
    // A server may make generations meanwhile: all look at the one that process 0 has found.
    let chosen = if first {
        let (store, log) = open_store(program, dir)?;
        let chosen = Chosen { log, generation: newest(&store, dir, None)?.0.id };
        cluster.tell_all(&chosen);
        chosen
    } else {
        cluster.hear(0)?
    };
    let sides = Sides::of(program, dir, Some(&chosen), &crew)?;
    let Some(last) = sides.frontier.0.checked_sub(1).map(Tick) else {
        cluster.part()?;
        return Ok(first.then(|| sides.diff(Vec::new())));
    };

    // Views of which both versions have the same digest are not looked at again.
    let digests =
        sides.new.iter().map(|(name, view)| Ok((name.clone(), view.digest(last)?))).collect::<Result<BTreeMap<_, _>, ReadError>>()?;
    let differing: Vec<String> = if first {
        let mut all = digests;
        for other in cluster.others() {
            for (name, digest) in cluster.hear::<BTreeMap<String, Digest>>(other)? {
                all.entry(name).and_modify(|sum| *sum = sum.plus(digest));
            }
        }
        let mut differing = Vec::new();
        for (name, new) in all.into_iter().filter(|(name, _)| !sides.unread.contains(name)) {
            if sides.old.get(&name).map(|old| old.digest(last)).transpose()? != Some(new) {
                differing.push(name);
            }
        }
        cluster.tell_all(&differing);
        differing
    } else {
        cluster.tell(0, &digests);
        cluster.hear(0)?
    };

    let mut found = Vec::new();
    for name in &differing {
        let Some(new) = sides.new.get(name) else { continue };
        let own = |key: &serde_json::Value| Ok(new.owner(key)? / crew.workers() == crew.process());
        let part = DifferencePart::of(name, Some(new), sides.old.get(name), last, limit, own)?;
        if first {
            let mut parts = vec![part];
            for other in cluster.others() {
                parts.push(cluster.hear(other)?);
            }
            found.push(Difference::from(DifferencePart::merge(parts, &**new, limit)?));
        } else {
            cluster.tell(0, &part);
        }
    }
    cluster.part()?;
    found.retain(|difference| !difference.is_empty());
    found.extend(sides.unread.iter().map(|view| Difference { view: view.clone(), unread: true, ..Difference::default() }));
    Ok(first.then(|| sides.diff(found)))
}

/// What is compared with, as process 0 tells the others.
#[derive(Serialize, Deserialize)]
struct Chosen {
    log: String,
    generation: u64,
}

/// The new answers, of which a process has its portion, and the old ones, all of them.
struct Sides {
    generation: u64,
    frontier: Tick,
    same_program: bool,
    new: ViewsByName,
    old: ViewsByName,
    unread: Vec<String>,
}

impl Sides {
    fn of<E: Event>(program: &Program<E>, dir: &Path, chosen: Option<&Chosen>, crew: &Crew) -> Result<Self, DiffError> {
        let (store, log) = open_store(program, dir)?;
        if let Some(chosen) = chosen.filter(|chosen| chosen.log != log) {
            let what = format!("--log {} of process {} is log {log}, process 0 has log {}", dir.display(), crew.process(), chosen.log);
            return Err(ClusterError::Mismatch(what).into());
        }
        let (manifest, files) = newest(&store, dir, chosen)?;
        let blueprint = Blueprint::of(&program.dataflow, &program.identity()).map_err(DiffError::Dataflow)?;
        // In each process whole, however many workers there were: so nothing has to be written anew.
        let (old, unread) = blueprint.standing(&store, &manifest, &files, &Crew::from(1))?;

        // After the manifest: everything that it covers is in the log by now.
        let reader = LogReader::<E>::open(&RealDisk, dir)?;
        let (frontier, covers) = (manifest.frontier, &manifest.contents.log);
        let has = reader.offsets_at(frontier)?;
        if reader.revision() != covers.revision || covers.ends_in(has.len()).as_ref() != Some(&has) {
            let why = "covers other events than the log has".to_owned();
            return Err(GenerationError::Unusable { id: manifest.id, why }.into());
        }
        let share = Share { index: crew.process() as u32, of: crew.processes() as u32 };
        let own = OwnPartitions { source: Prefix::new(reader.cursor(Tick::ZERO), frontier), share };
        let stop = Arc::new(AtomicBool::new(false));
        let output = run_batch(&program.dataflow, None, Feed::new(own, Some(frontier)), frontier, crew.clone(), &stop)?;
        Ok(Self {
            generation: manifest.id,
            frontier,
            same_program: manifest.contents.fingerprint == blueprint.fingerprint(),
            new: blueprint.standing_on(&output.shards, frontier, crew),
            old,
            unread,
        })
    }

    fn diff(self, differences: Vec<Difference>) -> Diff {
        let Self { generation, frontier, same_program, .. } = self;
        Diff { generation, frontier, same_program, differences }
    }
}

fn open_store<E: Event>(program: &Program<E>, dir: &Path) -> Result<(GenerationStore, String), DiffError> {
    let log = log::id(&RealDisk, dir)?;
    Ok((GenerationStore::open(Arc::new(RealDisk), dir, &log, &program.name, 1)?, log))
}

/// The newest generation of which every file can be read, or the one that was chosen.
fn newest(store: &GenerationStore, dir: &Path, chosen: Option<&Chosen>) -> Result<(Manifest, Vec<Vec<Arc<RunFile>>>), DiffError> {
    let whole = |(id, manifest): (u64, Result<_, GenerationError>)| {
        let manifest = manifest.ok().filter(|_| chosen.is_none_or(|chosen| chosen.generation == id))?;
        let files = store.files(&manifest).ok()?;
        Some((manifest, files))
    };
    let found = store.manifests()?.into_iter().find_map(whole);
    found.ok_or_else(|| match chosen {
        Some(Chosen { generation, .. }) => {
            GenerationError::Unusable { id: *generation, why: "was removed meanwhile, or cannot be read here".to_owned() }.into()
        }
        None => DiffError::Nothing(dir.display().to_string()),
    })
}

/// What a source has in the partitions of a share.
struct OwnPartitions<S> {
    source: S,
    share: Share,
}

impl<E: Event, S: EventSource<E>> EventSource<E> for OwnPartitions<S> {
    fn next(&mut self) -> Result<Option<Block<E>>, LogError> {
        loop {
            match self.source.next()? {
                Some(block) if block.partition().0 % self.share.of != self.share.index => {}
                next => return Ok(next),
            }
        }
    }

    fn complete(&self) -> Tick {
        self.source.complete()
    }
}
