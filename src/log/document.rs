//! Small files of the log as checksummed JSON, so that people can read them and damage cannot pass for content.
//!
//! ```text
//! {"format":1,"crc32c":"9f3a1c02","content":{...}}
//! ```
//!
//! The checksum covers `content` as compact JSON with sorted keys. Files are replaced whole (see [`replace`]), so a crash leaves the
//! old or the new one.
use super::error::LogError;
use super::frame::FORMAT;
use crate::storage::{Disk, append_all, uninterrupted};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::Path;

/// Writes `content` as `dir/name` and makes it durable.
pub(crate) fn write(disk: &dyn Disk, dir: &Path, name: &str, content: &impl Serialize) -> Result<(), LogError> {
    let content = serde_json::to_value(content).map_err(|error| LogError::storage("write", &dir.join(name), error.into()))?;
    let document = json!({"format": FORMAT, "crc32c": checksum(&content), "content": content});
    replace(disk, dir, name, format!("{document}\n").as_bytes())
}

/// Writes a small file so that a crash leaves the old or the new content, never a mixture: temporary name, sync, rename,
/// sync of the directory.
pub(crate) fn replace(disk: &dyn Disk, dir: &Path, name: &str, content: &[u8]) -> Result<(), LogError> {
    let path = dir.join(name);
    let temporary = dir.join(format!("{name}.tmp"));
    match uninterrupted(|| disk.remove(&temporary)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(LogError::storage("remove", &temporary, error));
        }
        _ => {}
    }
    let mut file = uninterrupted(|| disk.create(&temporary)).map_err(|error| LogError::storage("create", &temporary, error))?;
    append_all(&mut *file, content).map_err(|error| LogError::storage("write", &temporary, error))?;
    file.sync().map_err(|error| LogError::storage("sync", &temporary, error))?;
    drop(file);
    uninterrupted(|| disk.rename(&temporary, &path)).map_err(|error| LogError::storage("rename", &temporary, error))?;
    disk.sync_dir(dir).map_err(|error| LogError::storage("sync", dir, error))
}

/// Reads `dir/name`. The newer-version check comes first: a newer release may have changed all the rest.
pub(crate) fn read<T: DeserializeOwned>(disk: &dyn Disk, dir: &Path, name: &str) -> Result<T, LogError> {
    let path = dir.join(name);
    let bytes = uninterrupted(|| disk.read(&path)).map_err(|error| LogError::storage("read", &path, error))?;
    let document: Value =
        serde_json::from_slice(&bytes).map_err(|error| LogError::damaged_file(&path, 0, format!("not a document of a log: {error}")))?;
    match document["format"].as_u64() {
        Some(found) if found > u64::from(FORMAT) => {
            return Err(LogError::NewerFormat { path, found, supported: FORMAT });
        }
        Some(_) => {}
        None => return Err(LogError::damaged_file(&path, 0, "no format version")),
    }
    let (found, expected) = (checksum(&document["content"]), &document["crc32c"]);
    if expected != &Value::String(found.clone()) {
        return Err(LogError::damaged_file(&path, 0, format!("checksum {found}, expected {expected}")));
    }
    T::deserialize(&document["content"]).map_err(|error| LogError::damaged_file(&path, 0, error.to_string()))
}

fn checksum(content: &Value) -> String {
    format!("{:08x}", crc32c::crc32c(canonical(content).as_bytes()))
}

/// Compact JSON with sorted keys. `Value` keeps keys sorted or in order of insertion, as some other crate of the build asks.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let fields = fields.into_iter().map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}
