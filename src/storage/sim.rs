//! A disk that can lose power at any step.
//!
//! Killing a process cannot find a missing sync, because the page cache outlives the process. [`SimDisk`] keeps apart what was
//! written and what is on stable storage; a power cut keeps the latter and an arbitrary part of the rest: any subset of
//! unsynced writes, of their 512-byte sectors, and of unsynced directory entries, with garbage in torn sectors. It is harsher
//! than any file system, and it does not model disks that lie about a flush: [`FaultDisk`](super::FaultDisk) can play those.
use super::disk::{Disk, DiskFile, Entry, EntryKind, LockGuard};
use super::map::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// Random numbers from a seed: the seed is the whole recipe (SplitMix64, Steele et al. 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// The numbers of `seed`.
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// The seed in `LAMBDAFLOW_SEED`, to repeat one failed run; otherwise `None`.
    pub fn seed_from_env() -> Option<u64> {
        std::env::var("LAMBDAFLOW_SEED").ok()?.parse().ok()
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }

    /// True once in `n`.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// A file system in memory that knows what would survive a power cut.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

#[derive(Clone, Default)]
struct State {
    inodes: Vec<Inode>,
    live: BTreeMap<PathBuf, usize>,
    durable: BTreeMap<PathBuf, usize>,
    /// Changes of directory entries that are not durable yet, in order.
    changes: Vec<Change>,
    directories: BTreeSet<PathBuf>,
    locked: BTreeSet<PathBuf>,
    steps: u64,
    power_cut_at: Option<u64>,
    off: bool,
}

#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum Change {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf, usize),
    Remove(PathBuf),
}

impl Change {
    fn dir(&self) -> Option<&Path> {
        match self {
            Change::Create(path, _) | Change::Rename(_, path, _) | Change::Remove(path) => path.parent(),
        }
    }

    fn apply(&self, entries: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Change::Create(path, inode) => drop(entries.insert(path.clone(), *inode)),
            Change::Rename(from, to, inode) => {
                entries.remove(from);
                entries.insert(to.clone(), *inode);
            }
            Change::Remove(path) => drop(entries.remove(path)),
        }
    }
}

impl Inode {
    fn live(&self) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (at, write) in &self.unsynced {
            put(&mut bytes, *at, write);
        }
        bytes
    }

    fn live_len(&self) -> usize {
        self.unsynced.iter().map(|(at, write)| at + write.len()).max().unwrap_or(0).max(self.durable.len())
    }

    /// What the platter holds after a power cut.
    fn survives(&self, rng: &mut Rng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let fate = rng.below(4);
        for (at, write) in &self.unsynced {
            for (sector, content) in write.chunks(SECTOR_BYTES).enumerate() {
                let at = at + sector * SECTOR_BYTES;
                match (fate, rng.below(8)) {
                    (0, _) => {}                            // nothing landed
                    (1, _) => put(&mut bytes, at, content), // all landed
                    (_, 0..=3) => put(&mut bytes, at, content),
                    (_, 4) => put(&mut bytes, at, &content[..rng.below(content.len() as u64 + 1) as usize]),
                    (_, 5) => {
                        let garbage: Vec<u8> = content.iter().map(|_| rng.number() as u8).collect();
                        put(&mut bytes, at, &garbage);
                    }
                    _ => {} // a hole, if a later sector landed
                }
            }
        }
        if fate == 3 && rng.one_in(2) {
            bytes.resize(self.live_len(), 0); // the length is on disk, the data is not
        }
        bytes
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, content: &[u8]) {
    if bytes.len() < at + content.len() {
        bytes.resize(at + content.len(), 0);
    }
    bytes[at..at + content.len()].copy_from_slice(content);
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

impl Default for SimDisk {
    fn default() -> Self {
        SimDisk::new()
    }
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        SimDisk(Arc::new(Mutex::new(State { directories: BTreeSet::from([PathBuf::from("/")]), ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changing steps so far.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Cuts the power during the given step (from 1): it is issued and not confirmed, and nothing works after it.
    pub fn cut_power_at(&self, step: u64) {
        self.state().power_cut_at = Some(step);
    }

    /// Whether the power was cut.
    pub fn is_off(&self) -> bool {
        self.state().off
    }

    /// A disk with what survived, after the power came back.
    pub fn after_power_cut(&self, seed: u64) -> SimDisk {
        let state = self.state();
        let mut rng = Rng::new(seed);
        let mut entries = state.durable.clone();
        let fate = rng.below(4);
        let prefix = rng.below(state.changes.len() as u64 + 1) as usize;
        for (number, change) in state.changes.iter().enumerate() {
            let landed = match fate {
                0 => false,
                1 => true,
                2 => number < prefix,
                _ => rng.one_in(2),
            };
            if landed {
                change.apply(&mut entries);
            }
        }
        let inodes = state.inodes.iter().map(|inode| Inode { durable: inode.survives(&mut rng), unsynced: Vec::new() }).collect();
        let directories = state.directories.clone();
        SimDisk(Arc::new(Mutex::new(State { inodes, live: entries.clone(), durable: entries, directories, ..State::default() })))
    }

    /// A disk as the next process finds it after a kill: nothing is lost, nothing more is durable, no lock is held.
    pub fn after_kill(&self) -> SimDisk {
        let state = State { locked: BTreeSet::new(), steps: 0, power_cut_at: None, off: false, ..self.state().clone() };
        SimDisk(Arc::new(Mutex::new(state)))
    }

    /// All files, for comparison.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state();
        state.live.iter().map(|(path, inode)| (path.clone(), state.inodes[*inode].live())).collect()
    }

    /// Puts a file in place behind the log's back, durable.
    pub fn plant(&self, path: &Path, content: &[u8]) {
        let mut state = self.state();
        state.inodes.push(Inode { durable: content.to_vec(), unsynced: Vec::new() });
        let inode = state.inodes.len() - 1;
        state.live.insert(path.to_path_buf(), inode);
        state.durable.insert(path.to_path_buf(), inode);
    }

    /// Takes a file away behind the log's back, durably.
    pub fn uproot(&self, path: &Path) {
        let mut state = self.state();
        state.live.remove(path);
        state.durable.remove(path);
    }

    fn reading(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if state.off { Err(no_power()) } else { Ok(state) }
    }
}

impl State {
    /// Counts a changing step. An error before anything is done when the power is off already; `true` when it goes now.
    fn step(&mut self) -> io::Result<bool> {
        if self.off {
            return Err(no_power());
        }
        self.steps += 1;
        self.off = self.power_cut_at == Some(self.steps);
        Ok(self.off)
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.changes.push(change);
    }

    fn inode(&self, path: &Path) -> io::Result<usize> {
        self.live.get(path).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

fn confirm(power_cut: bool) -> io::Result<()> {
    if power_cut { Err(no_power()) } else { Ok(()) }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl DiskFile for SimFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        let cut = state.step()?;
        let inode = &mut state.inodes[self.inode];
        let at = inode.live_len();
        inode.unsynced.push((at, bytes.to_vec()));
        confirm(cut).map(|()| bytes.len())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.disk.state();
        confirm(state.step()?)?;
        let inode = &mut state.inodes[self.inode];
        inode.durable = inode.live();
        inode.unsynced.clear();
        Ok(())
    }
}

struct SimLock(SimDisk, PathBuf);

impl Drop for SimLock {
    fn drop(&mut self) {
        self.0.state().locked.remove(&self.1);
    }
}

impl Disk for SimDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        // Directories are durable at once: what a log does without one of its own directories is told by other tests.
        let mut state = self.reading()?;
        state.directories.extend(dir.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let state = self.reading()?;
        if !state.directories.contains(dir) {
            return Err(ErrorKind::NotFound.into());
        }
        let entry = |path: &PathBuf, kind| {
            let name = (path.parent() == Some(dir)).then(|| path.file_name()).flatten();
            name.map(|name| Entry { name: name.to_os_string(), kind })
        };
        let files = state.live.keys().filter_map(|path| entry(path, EntryKind::File));
        let directories = state.directories.iter().filter_map(|path| entry(path, EntryKind::Directory));
        Ok(files.chain(directories).collect())
    }

    fn create(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        if !state.off && state.live.contains_key(file) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if !file.parent().is_some_and(|dir| state.directories.contains(dir)) {
            return Err(ErrorKind::NotFound.into());
        }
        let cut = state.step()?;
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.change(Change::Create(file.to_path_buf(), inode));
        confirm(cut)?;
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        let state = self.reading()?;
        Ok(state.inodes[state.inode(file)?].live())
    }

    fn map(&self, file: &Path) -> io::Result<Bytes> {
        self.read(file).map(|bytes| Bytes::copy(&bytes))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let cut = state.step()?;
        let inode = state.inode(from)?;
        state.change(Change::Rename(from.to_path_buf(), to.to_path_buf(), inode));
        confirm(cut)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.off {
            state.inode(file)?;
        }
        let cut = state.step()?;
        state.change(Change::Remove(file.to_path_buf()));
        confirm(cut)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        confirm(state.step()?)?;
        let State { changes, durable, .. } = &mut *state;
        changes.retain(|change| {
            let here = change.dir() == Some(dir);
            if here {
                change.apply(durable);
            }
            !here
        });
        Ok(())
    }

    fn lock(&self, file: &Path) -> io::Result<LockGuard> {
        let mut state = self.reading()?;
        if !state.locked.insert(file.to_path_buf()) {
            return Err(io::Error::new(ErrorKind::WouldBlock, std::process::id().to_string()));
        }
        Ok(Box::new(SimLock(self.clone(), file.to_path_buf())))
    }
}
