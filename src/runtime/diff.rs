//! What a changed program answers differently, before it takes the old one's place.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use crate::layers::{BatchError, Blueprint, Crew, Feed, Prefix, run_batch};
use crate::log::{self, Event, LogError, LogReader, Tick};
use crate::runs::{Difference, GenerationError, GenerationStore, ReadError, differences};
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
}

impl DiffError {
    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Log(error) | Self::Batch(BatchError::Log(error)) => error.exit_code(),
            Self::Generation(error) => error.exit_code(),
            Self::Nothing(_) | Self::Dataflow(_) => 2,
            Self::Batch(_) | Self::Read(_) => 1,
        }
    }
}

/// Computes a program's answers from the log in `dir`, in memory, up to the frontier of the newest whole generation, and
/// compares. Takes no lock and changes nothing: a server may be running. At most `limit` rows of each view are listed.
pub fn diff_log<E: Event>(program: &Program<E>, dir: &Path, workers: usize, limit: usize) -> Result<Diff, DiffError> {
    let disk = Arc::new(RealDisk);
    let store = GenerationStore::open(disk.clone(), dir, &log::id(&*disk, dir)?, &program.name, 1)?;
    let whole = |(_, manifest): (u64, Result<_, GenerationError>)| {
        let manifest = manifest.ok()?;
        let files = store.files(&manifest).ok()?;
        Some((manifest, files))
    };
    let (manifest, files) = store.manifests()?.into_iter().find_map(whole).ok_or_else(|| DiffError::Nothing(dir.display().to_string()))?;
    let blueprint = Blueprint::of(&program.dataflow, &program.identity()).map_err(DiffError::Dataflow)?;
    let crew = Crew::from(workers);
    let (old, unread) = blueprint.standing(&store, &manifest, &files, &crew)?;

    // After the manifest: everything that it covers is in the log by now.
    let reader = LogReader::<E>::open(&*disk, dir)?;
    let (frontier, covers) = (manifest.frontier, &manifest.contents.log);
    let has = reader.offsets_at(frontier)?;
    if reader.revision() != covers.revision || covers.ends_in(has.len()).as_ref() != Some(&has) {
        let why = "covers other events than the log has".to_owned();
        return Err(GenerationError::Unusable { id: manifest.id, why }.into());
    }
    let feed = Feed::new(Prefix::new(reader.cursor(Tick::ZERO), frontier), Some(frontier));
    let output = run_batch(&program.dataflow, None, feed, frontier, crew.clone(), &Arc::new(AtomicBool::new(false)))?;
    let new = blueprint.standing_on(&output.shards, frontier, &crew);
    Ok(Diff {
        generation: manifest.id,
        frontier,
        same_program: manifest.contents.fingerprint == blueprint.fingerprint(),
        differences: differences(&new, &old, &unread, frontier, limit)?,
    })
}
