//! Generations on disk.
//!
//! ```text
//! DIR/generations/NAME/00000000000000000007.json   manifest of generation 7 of dataflow NAME; checksummed
//! DIR/generations/NAME/00000000000000000031.runs   a file of runs (see `file.rs`)
//! ```
//!
//! A manifest is written after the files that it names are durable, under a temporary name, synced, renamed, and the
//! directory is synced: a crash anywhere leaves the old generation or the new one. Files of runs are shared by generations;
//! one that no kept manifest names is removed after the next commit. Nothing here is needed to recover the log: all of it can
//! be computed again.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::file::{FileId, RunFile, RunFileWriter};
use super::generation::Shard;
use super::levels::AnyLevels;
use super::manifest::{GenerationError, Manifest};
use crate::log::frame::LogId;
use crate::log::{LogError, document};
use crate::storage::{Disk, EntryKind, Step, reach, uninterrupted};

/// Where a log's directory keeps generations.
pub const DIRECTORY: &str = "generations";
const MANIFEST: &str = "json";
const RUNS: &str = "runs";

/// The generations of one dataflow over one log. Only the process that holds the log's lock may change them.
pub struct GenerationStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    log: LogId,
    keep: usize,
    next_file: AtomicU64,
}

/// A manifest by its number, or why it cannot be read.
pub type Listed = (u64, Result<Manifest, GenerationError>);

/// The dataflows that have generations in a log's directory, by name.
pub fn dataflows(disk: &dyn Disk, log_dir: &Path) -> Result<Vec<String>, GenerationError> {
    let dir = log_dir.join(DIRECTORY);
    let entries = match uninterrupted(|| disk.list(&dir)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.map_err(|error| LogError::storage("list", &dir, error))?,
    };
    let directories = entries.into_iter().filter(|entry| entry.kind == EntryKind::Directory);
    let mut names: Vec<String> = directories.map(|entry| entry.name.to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

impl GenerationStore {
    /// The generations of `dataflow` in a log's directory; made with the first commit. The newest `keep` are kept.
    pub fn open(disk: Arc<dyn Disk>, log_dir: &Path, log_id: &str, dataflow: &str, keep: usize) -> Result<Self, GenerationError> {
        let log = LogId::parse(log_id).ok_or_else(|| LogError::damaged_file(log_dir, 0, format!("log id {log_id:?}")))?;
        let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if dataflow.is_empty() || !dataflow.bytes().all(named) {
            return Err(GenerationError::Name(dataflow.to_owned()));
        }
        let dir = log_dir.join(DIRECTORY).join(dataflow);
        let store = Self { disk, dir, log, keep: keep.max(1), next_file: AtomicU64::new(0) };
        let last = store.numbers(RUNS)?.last().map_or(0, |last| last + 1);
        store.next_file.store(last, Ordering::Relaxed);
        Ok(store)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Numbers of the files with an extension, ascending.
    fn numbers(&self, extension: &str) -> Result<BTreeSet<u64>, GenerationError> {
        let entries = match uninterrupted(|| self.disk.list(&self.dir)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
            listed => listed.map_err(|error| LogError::storage("list", &self.dir, error))?,
        };
        let number = |name: &str| name.strip_suffix(extension)?.strip_suffix('.')?.parse().ok();
        Ok(entries.iter().filter_map(|entry| number(&entry.name.to_string_lossy())).collect())
    }

    fn path(&self, number: u64, extension: &str) -> PathBuf {
        self.dir.join(name_of(number, extension))
    }

    /// All manifests, newest first.
    pub fn manifests(&self) -> Result<Vec<Listed>, GenerationError> {
        Ok(self.numbers(MANIFEST)?.into_iter().rev().map(|id| (id, self.manifest(id))).collect())
    }

    fn manifest(&self, id: u64) -> Result<Manifest, GenerationError> {
        let manifest: Manifest = document::read(&*self.disk, &self.dir, &name_of(id, MANIFEST))?;
        if manifest.id != id {
            let what = format!("the manifest of generation {}", manifest.id);
            return Err(LogError::damaged_file(&self.path(id, MANIFEST), 0, what).into());
        }
        Ok(manifest)
    }

    /// Writes a file of runs: durable but for its name, see [`GenerationStore::commit`]. Nothing is left of one that fails.
    pub(crate) fn write(
        &self,
        shard: usize,
        content: impl FnOnce(&mut RunFileWriter) -> Result<(), GenerationError>,
    ) -> Result<Arc<RunFile>, GenerationError> {
        uninterrupted(|| self.disk.create_dir(&self.dir)).map_err(|error| LogError::storage("create", &self.dir, error))?;
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        let path = self.path(number, RUNS);
        let created = RunFileWriter::create(&*self.disk, &path, FileId { log: self.log, number, shard: shard as u64 });
        let written = created.and_then(|mut file| {
            content(&mut file)?;
            file.finish(&*self.disk)
        });
        if written.is_err() {
            self.forget(&BTreeSet::from([number]));
        }
        written
    }

    /// Makes a generation durable: from here on a restart finds it. Then removes what is no longer kept.
    pub fn commit(&self, manifest: &Manifest) -> Result<(), GenerationError> {
        uninterrupted(|| self.disk.create_dir(&self.dir)).map_err(|error| LogError::storage("create", &self.dir, error))?;
        // The names of the runs, then those of the directories above.
        for dir in self.dir.ancestors().take(3) {
            self.disk.sync_dir(dir).map_err(|error| LogError::storage("sync", dir, error))?;
        }
        reach(Step::ManifestBeforeWrite);
        document::write(&*self.disk, &self.dir, &name_of(manifest.id, MANIFEST), manifest)?;
        reach(Step::ManifestAfterWrite);
        if let Err(error) = self.remove_old() {
            // The generation is committed; what is left over is tried again after the next.
            tracing::warn!(%error, "old generations could not be removed");
        }
        reach(Step::ManifestAfterRemove);
        Ok(())
    }

    /// Removes all manifests but the newest, and files of runs that none of the others names.
    fn remove_old(&self) -> Result<(), GenerationError> {
        let ids = self.numbers(MANIFEST)?;
        for id in ids.iter().rev().skip(self.keep) {
            self.remove(&self.path(*id, MANIFEST))?;
        }
        // A name that comes back after a power cut must not find its files gone.
        self.sync()?;
        reach(Step::ManifestBeforeRemove);
        self.remove_unnamed()
    }

    /// Files of runs that manifests name.
    fn named(&self) -> Result<BTreeSet<u64>, GenerationError> {
        let mut named = BTreeSet::new();
        for (_, manifest) in self.manifests()? {
            named.extend(manifest?.files().map(|file| file.number));
        }
        Ok(named)
    }

    /// Removes files of runs that no manifest names.
    fn remove_unnamed(&self) -> Result<(), GenerationError> {
        let named = self.named()?;
        self.numbers(RUNS)?.difference(&named).try_for_each(|number| self.remove(&self.path(*number, RUNS)))
    }

    /// Removes those of some files of runs that no manifest names, as far as that is possible.
    pub(crate) fn forget(&self, files: &BTreeSet<u64>) {
        let removed = self.named().and_then(|named| files.difference(&named).try_for_each(|number| self.remove(&self.path(*number, RUNS))));
        if let Err(error) = removed {
            tracing::warn!(%error, "files of runs that nobody needs are left over until the next commit");
        }
    }

    fn remove(&self, path: &Path) -> Result<(), GenerationError> {
        match uninterrupted(|| self.disk.remove(path)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(LogError::storage("remove", path, error).into()),
            _ => Ok(()),
        }
    }

    fn sync(&self) -> Result<(), GenerationError> {
        self.disk.sync_dir(&self.dir).map_err(|error| LogError::storage("sync", &self.dir, error).into())
    }

    /// Removes the generations for which `unwanted` holds, and the files that no other needs. Returns their numbers.
    pub fn drop_if(&self, unwanted: impl Fn(&Listed) -> bool) -> Result<Vec<u64>, GenerationError> {
        let listed = self.manifests()?;
        let dropped: Vec<u64> = listed.iter().filter(|listed| unwanted(listed)).map(|(id, _)| *id).collect();
        for id in &dropped {
            self.remove(&self.path(*id, MANIFEST))?;
        }
        if !dropped.is_empty() {
            self.sync()?;
            self.remove_unnamed()?;
            self.sync()?;
        }
        Ok(dropped)
    }

    /// Opens and checks all files of a generation, by shard.
    pub fn files(&self, manifest: &Manifest) -> Result<Vec<Vec<Arc<RunFile>>>, GenerationError> {
        let shards = manifest.contents.shards.iter().enumerate();
        shards.map(|(shard, files)| files.iter().map(|file| self.open_file(file.number, shard)).collect()).collect()
    }

    fn open_file(&self, number: u64, shard: usize) -> Result<Arc<RunFile>, GenerationError> {
        let id = FileId { log: self.log, number, shard: shard as u64 };
        RunFile::open(&*self.disk, &self.path(number, RUNS), id).map(Arc::new)
    }

    /// All damage in the files of a generation: every byte of each is read.
    pub fn verify(&self, manifest: &Manifest) -> Vec<GenerationError> {
        let shards = manifest.contents.shards.iter().enumerate();
        shards.flat_map(|(shard, files)| files.iter().filter_map(move |file| self.open_file(file.number, shard).err())).collect()
    }

    /// Gives the rows of a generation to another number of workers, in new files. `slots` are levels of the right types.
    pub(crate) fn reshard(
        &self,
        shards: &[Arc<Shard>],
        slots: &[Arc<dyn AnyLevels>],
        workers: usize,
    ) -> Result<Vec<Arc<Shard>>, GenerationError> {
        let share = |worker: usize| {
            let file = self.write(worker, |file| {
                slots.iter().enumerate().try_for_each(|(at, slot)| {
                    let parts: Vec<_> = shards.iter().map(|shard| Arc::clone(&shard.slots()[at])).collect();
                    slot.write_share(&parts, worker, workers, file)
                })
            })?;
            Shard::open(slots, vec![file]).map(Arc::new)
        };
        (0..workers).map(share).collect()
    }
}

fn name_of(number: u64, extension: &str) -> String {
    format!("{number:020}.{extension}")
}
