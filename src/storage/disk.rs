//! The only way to a file system.
//!
//! Every durable step goes through this seam, so that a simulated disk can cut the power at any of them.
use super::map::Bytes;
use std::any::Any;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Bytes that a file is read through in.
const READ_BYTES: usize = 1 << 20;

/// A file system, as far as a log and its generations use one.
pub trait Disk: Send + Sync {
    /// Makes a directory and those above it; no error when it is there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The entries of a directory, in no particular order.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;
    /// Makes a file for appending; an error when it is there.
    fn create(&self, file: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// The whole file, from the disk and not from a cache that may hold what a failed sync lost.
    fn read(&self, file: &Path) -> io::Result<Vec<u8>>;
    /// Reads the whole file and keeps nothing: an error now is one that a mapping could not report.
    fn read_through(&self, file: &Path) -> io::Result<()> {
        self.read(file).map(drop)
    }
    /// The whole file as immutable bytes, without a copy where possible. Only for files that are never written again.
    fn map(&self, file: &Path) -> io::Result<Bytes>;
    /// Gives a file another name, replacing what had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, file: &Path) -> io::Result<()>;
    /// Makes the entries of a directory durable: names survive a power cut only after this.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Takes the lock of a file, creating it, and writes the process id into it; held until the guard is dropped.
    /// [`ErrorKind::WouldBlock`] when it is taken; the error's text is then the file's content.
    fn lock(&self, file: &Path) -> io::Result<LockGuard>;
    /// Device and inode: what tells a file from another that got its name. The same for all on a disk without such a thing.
    fn identity(&self, _file: &Path) -> io::Result<(u64, u64)> {
        Ok((0, 0))
    }
}

/// A file being written from front to back.
pub trait DiskFile: Send {
    /// Appends some of `bytes` and returns how many; the system may take fewer than all.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Returns when everything appended is on stable storage.
    fn sync(&mut self) -> io::Result<()>;
}

/// Holds a lock until dropped.
pub type LockGuard = Box<dyn Any + Send + Sync>;

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name, not the path.
    pub name: OsString,
    /// What it is.
    pub kind: EntryKind,
}

/// What an entry of a directory is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A link, pipe, socket or device: never opened.
    Other,
}

/// Appends all of `bytes`: completes short writes, retries interrupted ones.
pub(crate) fn append_all(file: &mut dyn DiskFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.append(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Retries an operation that a signal interrupted. Never used for a sync: its retry lies.
pub(crate) fn uninterrupted<T>(mut operation: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match operation() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// The file system of the machine.
#[derive(Copy, Clone, Debug, Default)]
pub struct RealDisk;

struct RealFile(File);

struct RealLock(File);

impl Drop for RealLock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread is just starting holds a copy of the file until it has replaced
        // itself, and the lock with it. An error leaves the lock to the closing that follows.
        let _ = self.0.unlock();
    }
}

impl DiskFile for RealFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()?; // the length is data's own metadata and is written with it
        match self.0.metadata()?.nlink() {
            0 => Err(io::Error::new(ErrorKind::NotFound, "the file was removed while it was being written")),
            _ => Ok(()),
        }
    }
}

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        fs::read_dir(dir)?
            .map(|entry| {
                let entry = entry?;
                let kind = match entry.file_type()? {
                    kind if kind.is_file() => EntryKind::File,
                    kind if kind.is_dir() => EntryKind::Directory,
                    _ => EntryKind::Other,
                };
                Ok(Entry { name: entry.file_name(), kind })
            })
            .collect()
    }

    fn create(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(OpenOptions::new().append(true).create_new(true).open(file)?)))
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        let mut file = File::open(file)?;
        // After a failed sync the cache still shows what never reached the disk. Clean pages are dropped by this; a file
        // system that does not know the call has no such cache.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn read_through(&self, file: &Path) -> io::Result<()> {
        io::copy(&mut io::BufReader::with_capacity(READ_BYTES, File::open(file)?), &mut io::sink()).map(drop)
    }

    fn map(&self, file: &Path) -> io::Result<Bytes> {
        Bytes::map(&File::open(file)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        fs::remove_file(file)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn identity(&self, file: &Path) -> io::Result<(u64, u64)> {
        let metadata = fs::metadata(file)?;
        Ok((metadata.dev(), metadata.ino()))
    }

    fn lock(&self, path: &Path) -> io::Result<LockGuard> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                Ok(Box::new(RealLock(file)))
            }
            Err(fs::TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder)?;
                Err(io::Error::new(ErrorKind::WouldBlock, holder.trim().to_string()))
            }
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}
