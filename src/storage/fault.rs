//! A disk that fails, lies or writes short where it is told to.
use super::disk::{Disk, DiskFile, Entry, LockGuard};
use super::map::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An operation of a disk.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`Disk::create_dir`].
    CreateDir,
    /// [`Disk::list`].
    List,
    /// [`Disk::create`].
    Create,
    /// [`DiskFile::append`].
    Append,
    /// [`DiskFile::sync`].
    Sync,
    /// [`Disk::read`].
    Read,
    /// [`Disk::map`].
    Map,
    /// [`Disk::rename`].
    Rename,
    /// [`Disk::remove`].
    Remove,
    /// [`Disk::sync_dir`].
    SyncDir,
    /// [`Disk::lock`].
    Lock,
}

/// What goes wrong.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The error with this number of the operating system; nothing is done.
    FailBefore(i32),
    /// It is done, and then this error is reported.
    FailAfter(i32),
    /// At most this many bytes are appended.
    Short(usize),
    /// Success is reported, nothing is done.
    Lie,
}

/// When something goes wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The operation it befalls.
    pub operation: Operation,
    /// Only files whose path contains this.
    pub path_contains: String,
    /// How many such operations pass before.
    pub after: u64,
    /// How many then fail.
    pub times: u64,
    /// What goes wrong.
    pub effect: Effect,
}

/// Wraps a disk and lets chosen operations go wrong. Remembers all operations.
#[derive(Clone)]
pub struct FaultDisk {
    inner: Arc<dyn Disk>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    seen: Vec<(Operation, PathBuf)>,
}

impl FaultDisk {
    /// A disk without faults.
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        FaultDisk { inner, state: Arc::default() }
    }

    /// Adds a fault; counting begins now.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Forgets all faults: from now on nothing goes wrong.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// The operations so far, in order.
    pub fn seen(&self) -> Vec<(Operation, PathBuf)> {
        self.state().seen.clone()
    }

    /// How many operations of this kind were tried on files whose path contains `part`.
    pub fn count(&self, operation: Operation, part: &str) -> usize {
        let seen = self.seen();
        seen.iter().filter(|(tried, path)| *tried == operation && path.to_string_lossy().contains(part)).count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn effect(&self, operation: Operation, path: &Path) -> Option<Effect> {
        let mut state = self.state();
        state.seen.push((operation, path.to_path_buf()));
        let text = path.to_string_lossy();
        for fault in &mut state.faults {
            if fault.operation != operation || !text.contains(&fault.path_contains) {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                return Some(fault.effect);
            }
        }
        None
    }

    fn run<T>(
        &self,
        operation: Operation,
        path: &Path,
        lie: impl FnOnce() -> Option<T>,
        run: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        match self.effect(operation, path) {
            None | Some(Effect::Short(_)) => run(),
            Some(Effect::FailBefore(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Effect::FailAfter(errno)) => run().and(Err(io::Error::from_raw_os_error(errno))),
            Some(Effect::Lie) => lie().map_or_else(run, Ok),
        }
    }
}

struct FaultFile {
    disk: FaultDisk,
    path: PathBuf,
    inner: Box<dyn DiskFile>,
}

impl DiskFile for FaultFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.disk.effect(Operation::Append, &self.path) {
            None => self.inner.append(bytes),
            Some(Effect::FailBefore(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Effect::FailAfter(errno)) => self.inner.append(bytes).and(Err(io::Error::from_raw_os_error(errno))),
            Some(Effect::Short(bytes_max)) => self.inner.append(&bytes[..bytes.len().min(bytes_max)]),
            Some(Effect::Lie) => Ok(bytes.len()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let inner = &mut self.inner;
        self.disk.run(Operation::Sync, &self.path, || Some(()), || inner.sync())
    }
}

impl Disk for FaultDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(Operation::CreateDir, dir, || Some(()), || self.inner.create_dir(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.run(Operation::List, dir, || Some(Vec::new()), || self.inner.list(dir))
    }

    fn create(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        let inner = self.run(Operation::Create, file, || None, || self.inner.create(file))?;
        Ok(Box::new(FaultFile { disk: self.clone(), path: file.to_path_buf(), inner }))
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        self.run(Operation::Read, file, || None, || self.inner.read(file))
    }

    fn read_through(&self, file: &Path) -> io::Result<()> {
        self.run(Operation::Read, file, || None, || self.inner.read_through(file))
    }

    fn map(&self, file: &Path) -> io::Result<Bytes> {
        self.run(Operation::Map, file, || None, || self.inner.map(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Operation::Rename, to, || Some(()), || self.inner.rename(from, to))
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        self.run(Operation::Remove, file, || Some(()), || self.inner.remove(file))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.run(Operation::SyncDir, dir, || Some(()), || self.inner.sync_dir(dir))
    }

    fn lock(&self, file: &Path) -> io::Result<LockGuard> {
        self.run(Operation::Lock, file, || None, || self.inner.lock(file))
    }

    fn identity(&self, file: &Path) -> io::Result<(u64, u64)> {
        self.inner.identity(file)
    }
}
