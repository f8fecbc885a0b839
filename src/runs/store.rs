//! Generations on disk.
//!
//! ```text
//! DIR/generations/NAME/00000000000000000007.json   manifest of generation 7 of dataflow NAME; checksummed
//! DIR/generations/NAME/00000000000000000031.runs   a file of runs (see `file.rs`)
//! ```
//!
//! A manifest is written after the files that it names are durable, under a temporary name, synced, renamed, and the
//! directory is synced: a crash anywhere leaves the old generation or the new one. Files of runs are shared by generations;
//! one that no manifest names and nobody holds is
//! removed: at a start, after a commit, after a cycle that failed. Nothing here is needed to recover the log: all of it can
//! be computed again.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::file::{FileId, RunFile, RunFileWriter};
use super::generation::Shard;
use super::levels::AnyLevels;
use super::manifest::{FileInfo, GenerationError, Manifest};
use crate::log::frame::LogId;
use crate::log::{LOCK_NAME, LogError, document};
use crate::storage::{Disk, Entry, EntryKind, Step, reach, uninterrupted};

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
    /// Which files this process numbers, and so removes: those whose number is the first modulo the second.
    numbers: (u64, u64),
    /// The first number of this run of all processes.
    first: u64,
    /// What the log's lock was when the store was opened: the log is at this place while it is that.
    log_lock: Option<Identity>,
    /// What the directory was when it was first seen.
    seen: Mutex<Option<Identity>>,
    files: Mutex<Files>,
}

/// The files of runs that this process has to do with.
#[derive(Default)]
struct Files {
    /// The number of the next.
    next: u64,
    /// Being written.
    unfinished: BTreeSet<u64>,
    /// Open while somebody holds them.
    open: Vec<(u64, Weak<RunFile>)>,
    /// Files of earlier runs that this process opened: it removes them, whoever numbered them.
    inherited: BTreeSet<u64>,
    /// Generations with a file that was found to be damaged.
    damaged: BTreeSet<u64>,
}

/// Device and inode.
type Identity = (u64, u64);

/// A manifest by its number, or why it cannot be read.
pub type Listed = (u64, Result<Manifest, GenerationError>);

/// The dataflows that have generations in a log's directory, by name.
pub fn dataflows(disk: &dyn Disk, log_dir: &Path) -> Result<Vec<String>, GenerationError> {
    let directories = list(disk, &log_dir.join(DIRECTORY))?.into_iter().filter(|entry| entry.kind == EntryKind::Directory);
    let mut names: Vec<String> = directories.map(|entry| entry.name.to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// The entries of a directory; none if there is no such directory.
fn list(disk: &dyn Disk, dir: &Path) -> Result<Vec<Entry>, GenerationError> {
    match uninterrupted(|| disk.list(dir)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        listed => Ok(listed.map_err(|error| LogError::storage("list", dir, error))?),
    }
}

impl GenerationStore {
    /// The generations of `dataflow` in a log's directory; made with the first commit. The newest `keep` are kept.
    pub fn open(disk: Arc<dyn Disk>, log_dir: &Path, log_id: &str, dataflow: &str, keep: usize) -> Result<Self, GenerationError> {
        Self::open_for(disk, log_dir, log_id, dataflow, keep, (0, 1))
    }

    /// As [`GenerationStore::open`], for a process of several that write to the directory: its number, and how many there are.
    pub fn open_for(
        disk: Arc<dyn Disk>,
        log_dir: &Path,
        log_id: &str,
        dataflow: &str,
        keep: usize,
        (process, processes): (usize, usize),
    ) -> Result<Self, GenerationError> {
        let numbers = (process as u64, processes as u64);
        let log = LogId::parse(log_id).ok_or_else(|| LogError::damaged_file(log_dir, 0, format!("log id {log_id:?}")))?;
        let named = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if dataflow.is_empty() || !dataflow.bytes().all(named) {
            return Err(GenerationError::Name(dataflow.to_owned()));
        }
        let dir = log_dir.join(DIRECTORY).join(dataflow);
        let mut store =
            Self { disk, dir, log, keep: keep.max(1), numbers, first: 0, log_lock: None, seen: Mutex::default(), files: Mutex::default() };
        store.log_lock = store.identity(&store.lock_path())?;
        store.check_place()?;
        let first = store.numbered(RUNS)?.last().map_or(0, |last| last.saturating_add(1));
        store.first = first.next_multiple_of(numbers.1);
        store.lock().next = store.first.saturating_add(numbers.0);
        Ok(store)
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_path(&self) -> PathBuf {
        self.dir.ancestors().nth(2).unwrap_or(&self.dir).join(LOCK_NAME)
    }

    fn identity(&self, path: &Path) -> Result<Option<Identity>, GenerationError> {
        match uninterrupted(|| self.disk.identity(path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            found => Ok(Some(found.map_err(|error| LogError::storage("find", path, error))?)),
        }
    }

    /// Whether log and directory are what they were. Files are made and removed by their names: when a directory was moved,
    /// that would happen in whatever has its name now, and a manifest would name files that are elsewhere.
    fn check_place(&self) -> Result<(), GenerationError> {
        let (lock, dir) = (self.identity(&self.lock_path())?, self.identity(&self.dir)?);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.is_none() {
            *seen = dir;
        }
        let moved = if lock != self.log_lock {
            self.dir.ancestors().nth(2)
        } else if *seen != dir {
            Some(self.dir.as_path())
        } else {
            None
        };
        let why = || std::io::Error::other("it was moved, removed or replaced while it was in use");
        moved.map_or(Ok(()), |path| Err(LogError::storage("write to", path, why()).into()))
    }

    /// Makes the directory, if there is none yet.
    fn make_place(&self) -> Result<(), GenerationError> {
        self.check_place()?;
        uninterrupted(|| self.disk.create_dir(&self.dir)).map_err(|error| LogError::storage("create", &self.dir, error))?;
        self.check_place()
    }

    /// Numbers of the files with an extension, ascending.
    fn numbered(&self, extension: &str) -> Result<BTreeSet<u64>, GenerationError> {
        let entries = list(&*self.disk, &self.dir)?;
        let number = |name: &str| {
            let number: u64 = name.strip_suffix(extension)?.strip_suffix('.')?.parse().ok()?;
            (name == name_of(number, extension)).then_some(number)
        };
        let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
        Ok(files.filter_map(|entry| number(&entry.name.to_string_lossy())).collect())
    }

    fn path(&self, number: u64, extension: &str) -> PathBuf {
        self.dir.join(name_of(number, extension))
    }

    /// All manifests, newest first. One that process 0 of a cluster removes meanwhile is not among them.
    pub fn manifests(&self) -> Result<Vec<Listed>, GenerationError> {
        let listed = self.numbered(MANIFEST)?.into_iter().rev().map(|id| (id, self.manifest(id)));
        let gone = |error: &GenerationError| matches!(error, GenerationError::Storage(LogError::Storage { source, .. }) if source.kind() == ErrorKind::NotFound);
        Ok(listed.filter(|(_, manifest)| !manifest.as_ref().is_err_and(gone)).collect())
    }

    fn manifest(&self, id: u64) -> Result<Manifest, GenerationError> {
        let manifest: Manifest = document::read(&*self.disk, &self.dir, &name_of(id, MANIFEST))?;
        let other = (manifest.id != id).then(|| format!("the manifest of generation {}", manifest.id));
        match other.or_else(|| manifest.flaw()) {
            Some(what) => Err(LogError::damaged_file(&self.path(id, MANIFEST), 0, what).into()),
            None => Ok(manifest),
        }
    }

    /// Writes a file of runs: durable but for its name, see [`GenerationStore::commit`]. Nothing is left of one that fails.
    pub(crate) fn write(
        &self,
        shard: usize,
        content: impl FnOnce(&mut RunFileWriter) -> Result<(), GenerationError>,
    ) -> Result<Arc<RunFile>, GenerationError> {
        self.make_place()?;
        let number = {
            let mut files = self.lock();
            let number = files.next;
            files.next += self.numbers.1;
            files.unfinished.insert(number);
            number
        };
        let path = self.path(number, RUNS);
        let created = RunFileWriter::create(&*self.disk, &path, FileId { log: self.log, number, shard: shard as u64 });
        let written = created.and_then(|mut file| {
            content(&mut file)?;
            file.finish(&*self.disk).map(Arc::new)
        });
        let mut files = self.lock();
        files.unfinished.remove(&number);
        match &written {
            Ok(file) => files.open.push((number, Arc::downgrade(file))),
            Err(_) => {
                drop(files);
                self.tidy();
            }
        }
        written
    }

    /// Makes a generation durable: from here on a restart finds it. Then removes what is no longer kept. Whoever commits holds
    /// the files that the manifest names.
    pub fn commit(&self, manifest: &Manifest) -> Result<(), GenerationError> {
        self.make_place()?;
        // The names of the runs, then those of the directories above.
        for dir in self.dir.ancestors().take(3) {
            self.disk.sync_dir(dir).map_err(|error| LogError::storage("sync", dir, error))?;
        }
        reach(Step::ManifestBeforeWrite);
        self.check_place()?;
        document::write(&*self.disk, &self.dir, &name_of(manifest.id, MANIFEST), manifest)?;
        reach(Step::ManifestAfterWrite);
        if let Err(error) = self.remove_old() {
            // The generation is committed; what is left over is tried again after the next.
            tracing::warn!(%error, "old generations could not be removed");
        }
        self.tidy();
        reach(Step::ManifestAfterRemove);
        Ok(())
    }

    /// Notes that a generation cannot be used: it does not count among those that are kept, and goes with the next commit.
    pub(crate) fn pass_over(&self, id: u64) {
        self.lock().damaged.insert(id);
    }

    /// Removes all manifests but the newest that are whole.
    fn remove_old(&self) -> Result<(), GenerationError> {
        let damaged = self.lock().damaged.clone();
        let whole = |(id, manifest): &Listed| manifest.is_ok() && !damaged.contains(id);
        let mut kept = 0;
        for listed in self.manifests()? {
            kept += usize::from(whole(&listed));
            if !whole(&listed) || kept > self.keep {
                self.remove(&self.path(listed.0, MANIFEST))?;
            }
        }
        // A name that comes back after a power cut must not find its files gone.
        self.sync()?;
        reach(Step::ManifestBeforeRemove);
        Ok(())
    }

    /// Files of runs that manifests name. A damaged manifest names nothing: nobody can use it.
    fn named(&self) -> Result<BTreeSet<u64>, GenerationError> {
        let mut named = BTreeSet::new();
        for (_, manifest) in self.manifests()? {
            match manifest {
                Ok(manifest) => named.extend(manifest.files().map(|file| file.number)),
                Err(GenerationError::Storage(LogError::Damaged(_))) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(named)
    }

    /// Removes files of runs that no manifest names and nobody in this process holds or writes, as far as that is possible.
    pub(crate) fn tidy(&self) {
        self.remove_unneeded(false);
    }

    /// As [`GenerationStore::tidy`], and removes what earlier runs left, too: at a start, by one process, before any writes.
    pub(crate) fn tidy_all(&self) {
        self.remove_unneeded(true);
    }

    fn remove_unneeded(&self, left_over: bool) {
        let removed = self.named().and_then(|mut needed| {
            // Listed first: a file that is begun meanwhile is not in the list.
            let there = self.numbered(RUNS)?;
            let mut files = self.lock();
            files.open.retain(|(_, file)| file.strong_count() > 0);
            needed.extend(files.unfinished.iter().copied().chain(files.open.iter().map(|(number, _)| *number)));
            let (next, inherited) = (files.next, files.inherited.clone());
            drop(files);
            let ours = |number: &&u64| match **number {
                number if number < self.first => left_over || self.numbers.1 == 1 || inherited.contains(&number),
                number => number < next && number % self.numbers.1 == self.numbers.0,
            };
            there.difference(&needed).filter(ours).try_for_each(|number| self.remove(&self.path(*number, RUNS)))
        });
        if let Err(error) = removed {
            tracing::warn!(%error, "files of runs that nobody needs are left over");
        }
    }

    fn remove(&self, path: &Path) -> Result<(), GenerationError> {
        self.check_place()?;
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
            self.tidy();
            self.sync()?;
        }
        Ok(dropped)
    }

    /// Opens and checks all files of a generation, by shard.
    pub fn files(&self, manifest: &Manifest) -> Result<Vec<Vec<Arc<RunFile>>>, GenerationError> {
        self.files_of(manifest, 0..manifest.contents.shards.len())
    }

    /// As [`GenerationStore::files`], of some shards.
    pub(crate) fn files_of(&self, manifest: &Manifest, shards: Range<usize>) -> Result<Vec<Vec<Arc<RunFile>>>, GenerationError> {
        let shards = manifest.contents.shards.iter().enumerate().filter(|(shard, _)| shards.contains(shard));
        shards.map(|(shard, files)| files.iter().map(|file| self.open_file(file, shard)).collect()).collect()
    }

    fn open_file(&self, info: &FileInfo, shard: usize) -> Result<Arc<RunFile>, GenerationError> {
        let path = self.path(info.number, RUNS);
        let file = RunFile::open(&*self.disk, &path, FileId { log: self.log, number: info.number, shard: shard as u64 })?;
        if file.info() != *info {
            let what = format!(
                "{} bytes with checksum {:08x}, the manifest names {} bytes with checksum {:08x}",
                file.bytes(),
                file.info().crc,
                info.bytes,
                info.crc
            );
            return Err(GenerationError::Damaged { file: path, byte: file.bytes(), what });
        }
        let file = Arc::new(file);
        let mut files = self.lock();
        files.open.push((info.number, Arc::downgrade(&file)));
        if info.number < self.first {
            files.inherited.insert(info.number);
        }
        Ok(file)
    }

    /// All damage in the files of a generation: every byte of each is read.
    pub fn verify(&self, manifest: &Manifest) -> Vec<GenerationError> {
        let shards = manifest.contents.shards.iter().enumerate();
        shards.flat_map(|(shard, files)| files.iter().filter_map(move |file| self.open_file(file, shard).err())).collect()
    }

    /// Gives the rows of a generation to another number of workers, of which `own` are here, in new files. `slots` are levels of
    /// the right types.
    pub(crate) fn reshard(
        &self,
        shards: &[Arc<Shard>],
        slots: &[Arc<dyn AnyLevels>],
        own: Range<usize>,
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
        own.map(share).collect()
    }
}

fn name_of(number: u64, extension: &str) -> String {
    format!("{number:020}.{extension}")
}
