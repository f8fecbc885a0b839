//! Which build of the program this is.

use std::sync::OnceLock;

/// Identifies the executable by its bytes: two builds with the same are the same program.
pub(super) fn build_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| match executable() {
        Ok(bytes) => format!("build {:08x}-{}", crc32c::crc32c(&bytes), bytes.len()),
        Err(error) => {
            // Nothing computed by an unknown build may be used by another.
            tracing::warn!(%error, "the executable cannot be read: generations of this run will not be used again");
            format!("unknown build of process {} at {:?}", std::process::id(), std::time::SystemTime::now())
        }
    })
}

fn executable() -> std::io::Result<crate::storage::Bytes> {
    crate::storage::Bytes::map(&std::fs::File::open(std::env::current_exe()?)?)
}
