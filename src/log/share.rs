//! One log, several processes: each has a share of the partitions, and is the only one to write to them.
//!
//! ```text
//! process 0   Log::prepare      takes DIR/lock, recovers the whole log, lets it grow
//! process 0   Prepared::open    opens share 0, keeps DIR/lock
//! process k   Log::open_share   after that: takes DIR/lock-000k, opens share k
//! ```
//!
//! Who wants the whole log takes DIR/lock, and then every lock of a share that there is: a process that outlived process 0 may
//! still be appending.
use super::clock::Clock;
use super::core::Core;
use super::error::LogError;
use super::event::Event;
use super::handle::{Log, id};
use super::mark::{names, share_name, share_of_name};
use super::meta::{Found, LOCK_NAME, Meta, look};
use super::options::{Execution, LogOptions, Share};
use crate::storage::{Disk, LockGuard, uninterrupted};
use std::io::ErrorKind;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A log that is whole, sealed and closed, whose lock is held: its shares can be opened.
pub struct Prepared<E: Event> {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dir: PathBuf,
    meta: Meta,
    lock: LockGuard,
    events: PhantomData<fn() -> E>,
}

impl<E: Event> Log<E> {
    /// Makes a log ready to be opened by several processes, each its share; the first of them calls this. Does what
    /// [`Log::open`] does, for all partitions: creates the log when the directory is absent or empty, recovers it, names the
    /// program's event type, finishes redactions. Then lets it grow to `options.partitions`, and to one partition per share.
    /// A log never has fewer partitions than before.
    ///
    /// [`LogError::InUse`] when another process has the log open, or a share of it.
    pub fn prepare(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, dir: &Path, options: LogOptions) -> Result<Prepared<E>, LogError> {
        look(&*disk, dir)?; // a directory of something else is left as it is
        uninterrupted(|| disk.create_dir(dir)).map_err(|error| LogError::storage("create", dir, error))?;
        let locks = Locks::take(&*disk, dir)?;
        let partitions = options.partitions.max(options.share.of);
        let meta = match look(&*disk, dir)? {
            Found::Log => Meta::read(&*disk, dir)?,
            Found::Nothing => Meta::create::<E>(&*disk, dir, partitions)?,
        };
        let options = LogOptions { execution: Execution::Inline, ..options.whole() };
        let core = Core::<E>::recover(Arc::clone(&disk), Arc::clone(&clock), dir, &options, meta)?;
        core.write_clean_mark()?;
        let mut meta = core.meta.clone();
        drop(core);
        meta.grow(&*disk, dir, partitions)?;
        Ok(Prepared { disk, clock, dir: dir.to_path_buf(), meta, lock: locks.own, events: PhantomData })
    }

    /// Opens a share other than the first of the log in `dir`, which a process with [`Prepared`] keeps for this one. Takes the
    /// lock of the share alone.
    ///
    /// An error when there is no log, when its events are not of this type, and when it has no partition for the share.
    pub fn open_share(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, dir: &Path, options: LogOptions) -> Result<Self, LogError> {
        let share = options.share;
        let Found::Log = look(&*disk, dir)? else {
            return Err(LogError::NoLog { dir: dir.to_path_buf() });
        };
        if share.index == 0 {
            let why = "the first share is opened by the process that prepared the log".to_owned();
            return Err(LogError::WrongShare { dir: dir.to_path_buf(), share, why });
        }
        check_share(dir, share, &Meta::read(&*disk, dir)?)?;
        let guard = lock_share(&*disk, dir, share.index)?;
        // Once more: before the lock was held, it could change.
        let meta = Meta::read(&*disk, dir)?;
        check_share(dir, share, &meta)?;
        Self::start(disk, clock, dir, options, meta, guard)
    }
}

impl<E: Event> Prepared<E> {
    /// 128 random bits in hexadecimal that no other log has.
    pub fn log_id(&self) -> &str {
        &self.meta.log_id
    }

    /// The number of partitions.
    pub fn partitions(&self) -> u32 {
        self.meta.partitions
    }

    /// Opens the first share, whose index is 0, or the whole log when there is no other. Keeps the lock of the log.
    pub fn open(self, options: LogOptions) -> Result<Log<E>, LogError> {
        let share = options.share;
        if share.index != 0 {
            let why = "the process that prepared the log has the first share".to_owned();
            return Err(LogError::WrongShare { dir: self.dir, share, why });
        }
        check_share(&self.dir, share, &self.meta)?;
        Log::start(self.disk, self.clock, &self.dir, options, self.meta, self.lock)
    }
}

/// An error unless the share has a partition.
fn check_share(dir: &Path, share: Share, meta: &Meta) -> Result<(), LogError> {
    let why = match share {
        Share { of: 0, .. } => "there are no shares".to_owned(),
        Share { index, of } if index >= of => format!("shares are numbered from 0 to {}", of - 1),
        Share { of, .. } if of > meta.partitions => format!(
            "the log has {} partitions, fewer than shares\n  hint: the process of share 0 lets it grow before the others open theirs",
            meta.partitions
        ),
        _ => return Ok(()),
    };
    Err(LogError::WrongShare { dir: dir.to_path_buf(), share, why })
}

/// The locks of who has a whole log.
struct Locks {
    // Let go in this order: who gets the lock of the log finds those of the shares free.
    _shares: Vec<LockGuard>,
    own: LockGuard,
}

impl Locks {
    /// Takes the lock of a log, and those of shares that were ever opened. They are held while the log is recovered, and not only
    /// looked at: a process that starts late must not open its share meanwhile.
    fn take(disk: &dyn Disk, dir: &Path) -> Result<Self, LogError> {
        let own = lock_share(disk, dir, 0)?;
        let indexes = names(disk, dir)?.into_iter().filter_map(|name| share_of_name(LOCK_NAME, &name));
        let shares = indexes.map(|index| lock_share(disk, dir, index)).collect::<Result<_, _>>()?;
        Ok(Locks { _shares: shares, own })
    }
}

fn lock_share(disk: &dyn Disk, dir: &Path, index: u32) -> Result<LockGuard, LogError> {
    let path = dir.join(share_name(LOCK_NAME, index));
    uninterrupted(|| disk.lock(&path)).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => LogError::InUse { dir: dir.to_path_buf(), pid: error.to_string() },
        _ => LogError::storage("lock", &path, error),
    })
}

/// Takes the lock of the log in `dir` without opening it: no process can open it while the guard lives.
pub fn lock_dir(disk: &dyn Disk, dir: &Path) -> Result<LockGuard, LogError> {
    id(disk, dir)?;
    take_lock(disk, dir)
}

/// Takes the lock of a whole log.
pub(crate) fn take_lock(disk: &dyn Disk, dir: &Path) -> Result<LockGuard, LogError> {
    Ok(Box::new(Locks::take(disk, dir)?))
}
