//! Whether two processes that name a directory mean the same one: what one of them writes into it, the other reads.

use std::path::Path;

use super::document;
use super::error::LogError;
use super::frame::LogId;
use crate::storage::Disk;

/// The file that says which run of a cluster has the log.
pub(crate) const NAME: &str = "cluster";

/// Marks a log's directory, whose lock is held. Returns the mark, which is unlike any other.
pub fn mark(disk: &dyn Disk, dir: &Path) -> Result<String, LogError> {
    let mark = LogId::random().to_string();
    document::write(disk, dir, NAME, &mark)?;
    Ok(mark)
}

/// Whether the directory has this mark.
pub fn is_marked(disk: &dyn Disk, dir: &Path, mark: &str) -> bool {
    document::read::<String>(disk, dir, NAME).is_ok_and(|found| found == mark)
}
