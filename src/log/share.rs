//! One log, several processes: each has a share of the partitions, and is the only one to write to them.
//!
//! ```text
//! process 0   Claim::take              takes DIR/lock
//! process k   ShareLock::take          after that: takes DIR/lock-000k
//! process 0   Claim::prepare           when all have: recovers the whole log, lets it grow
//! process 0   Prepared::open           opens share 0, keeps DIR/lock
//! process k   Log::open_locked_share   after the log was prepared: opens share k
//! ```
//!
//! Locks come first, so that a process that is late, and whose cluster is gone by then, holds up others but never writes beside
//! them: it opens its share when process 0 says so.
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

/// The lock of a log, or of a directory that will be one. Nothing was looked into yet.
pub struct Claim {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    dir: PathBuf,
    lock: LockGuard,
}

/// The lock of a share other than the first.
pub struct ShareLock(LockGuard);

impl ShareLock {
    /// Takes the lock of a share of the log in `dir`. [`LogError::InUse`] when another process has it.
    pub fn take(disk: &dyn Disk, dir: &Path, share: Share) -> Result<Self, LogError> {
        Ok(Self(lock_share(disk, dir, share.index)?))
    }
}

impl Claim {
    /// Takes the lock of the log in `dir`, which is made when there is none.
    pub fn take(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, dir: &Path) -> Result<Self, LogError> {
        look(&*disk, dir)?; // a directory of something else is left as it is
        uninterrupted(|| disk.create_dir(dir)).map_err(|error| LogError::storage("create", dir, error))?;
        let lock = lock_share(&*disk, dir, 0)?;
        Ok(Self { disk, clock, dir: dir.to_path_buf(), lock })
    }

    /// As [`Log::prepare`], when the locks of all shares that will be opened are taken by those who will. No others may be.
    pub fn prepare<E: Event>(self, options: LogOptions) -> Result<Prepared<E>, LogError> {
        let Self { disk, clock, dir, lock } = self;
        let of = options.share.of;
        let lock: LockGuard = Box::new(Locks { _shares: share_locks(&*disk, &dir, |index| index >= of)?, _own: lock });
        let partitions = options.partitions.max(of);
        let meta = match look(&*disk, &dir)? {
            Found::Log => Meta::read(&*disk, &dir)?,
            Found::Nothing => Meta::create::<E>(&*disk, &dir, partitions)?,
        };
        let options = LogOptions { execution: Execution::Inline, ..options.whole() };
        let core = Core::<E>::recover(Arc::clone(&disk), Arc::clone(&clock), &dir, &options, meta)?;
        core.write_clean_mark()?;
        let mut meta = core.meta.clone();
        drop(core);
        meta.grow(&*disk, &dir, partitions)?;
        Ok(Prepared { disk, clock, dir, meta, lock, events: PhantomData })
    }
}

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
        let claim = Claim::take(Arc::clone(&disk), clock, dir)?;
        // Nobody has any share while the log is recovered.
        let _shares = share_locks(&*disk, dir, |index| index < options.share.of)?;
        claim.prepare(options)
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
        let lock = ShareLock::take(&*disk, dir, share)?;
        Self::open_locked_share(disk, clock, dir, options, lock)
    }

    /// As [`Log::open_share`], for whoever took the lock before the log was prepared.
    pub fn open_locked_share(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        dir: &Path,
        options: LogOptions,
        ShareLock(lock): ShareLock,
    ) -> Result<Self, LogError> {
        let meta = Meta::read(&*disk, dir)?;
        check_share(dir, options.share, &meta)?;
        Self::start(disk, clock, dir, options, meta, lock)
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
    _own: LockGuard,
}

impl Locks {
    /// Takes the lock of a log, and those of shares that were ever opened. They are held while the log is recovered, and not only
    /// looked at: a process that starts late must not open its share meanwhile.
    fn take(disk: &dyn Disk, dir: &Path) -> Result<Self, LogError> {
        let own = lock_share(disk, dir, 0)?;
        Ok(Locks { _shares: share_locks(disk, dir, |_| true)?, _own: own })
    }
}

/// Takes the locks of those shares that were ever opened and that are `wanted`.
fn share_locks(disk: &dyn Disk, dir: &Path, wanted: impl Fn(u32) -> bool) -> Result<Vec<LockGuard>, LogError> {
    let indexes = names(disk, dir)?.into_iter().filter_map(|name| share_of_name(LOCK_NAME, &name));
    indexes.filter(|index| wanted(*index)).map(|index| lock_share(disk, dir, index)).collect()
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
