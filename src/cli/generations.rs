//! `lambdaflow generations`: what the batch layer left on disk. Needs no types of the dataflow.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::log;
use crate::runs::store::{Listed, dataflows};
use crate::runs::{GenerationError, GenerationStore, Manifest};
use crate::storage::RealDisk;

use super::Failure;
use super::arguments::{Format, Generations, GenerationsCommand, Rollback};

impl From<GenerationError> for Failure {
    fn from(error: GenerationError) -> Self {
        Self::new(&error, error.exit_code())
    }
}

pub(super) fn generations(command: &GenerationsCommand) -> Result<u8, Failure> {
    match command {
        GenerationsCommand::List(list) => self::list(list),
        GenerationsCommand::Verify(verify) => self::verify(verify),
        GenerationsCommand::Rollback(rollback) => self::rollback(rollback),
    }
}

/// The stores of a log, by dataflow.
fn stores(dir: &Path, wanted: Option<&str>) -> Result<Vec<(String, GenerationStore)>, Failure> {
    let log_id = log::id(&RealDisk, dir)?;
    let names: Vec<String> = dataflows(&RealDisk, dir)?.into_iter().filter(|name| wanted.is_none_or(|wanted| wanted == name)).collect();
    if names.is_empty() {
        let of = wanted.map_or(String::new(), |name| format!(" of `{name}`"));
        return Err(Failure::new(format!("{} has no generations{of}\n  hint: `run` makes them", dir.display()), 1));
    }
    let open = |name: String| Ok((name.clone(), GenerationStore::open(Arc::new(RealDisk), dir, &log_id, &name, 1)?));
    names.into_iter().map(open).collect()
}

fn list(arguments: &Generations) -> Result<u8, Failure> {
    let mut out = std::io::stdout().lock();
    for (dataflow, store) in stores(&arguments.dir, arguments.dataflow.as_deref())? {
        for (id, manifest) in store.manifests()? {
            match (arguments.format, manifest) {
                (Format::Json, Ok(manifest)) => writeln!(out, "{}", serde_json::json!({ "dataflow": dataflow, "manifest": manifest }))?,
                (Format::Json, Err(error)) => {
                    writeln!(out, "{}", serde_json::json!({ "dataflow": dataflow, "id": id, "damaged": error.to_string() }))?;
                }
                (Format::Text, Ok(manifest)) => writeln!(out, "{}", described(&dataflow, &manifest))?,
                (Format::Text, Err(error)) => writeln!(out, "{dataflow} {id}: {error}")?,
            }
        }
    }
    Ok(0)
}

fn described(dataflow: &str, manifest: &Manifest) -> String {
    let Manifest { id, frontier, full, contents, .. } = manifest;
    let from = if *full { "the first event" } else { "the one before" };
    let events: u64 = contents.log.ends.iter().map(|end| end.0).sum();
    format!(
        "{dataflow} {id}: {events} events before tick {frontier}, {} rows and {} bytes in {} files of {} workers, computed from {from}, dataflow {:016x}",
        manifest.rows(),
        manifest.bytes(),
        manifest.files().count(),
        contents.shards.len(),
        contents.fingerprint
    )
}

/// Exit code 3 if anything is damaged.
fn verify(arguments: &Generations) -> Result<u8, Failure> {
    let mut out = std::io::stdout().lock();
    let (mut bytes, mut damaged) = (0, 0);
    for (dataflow, store) in stores(&arguments.dir, arguments.dataflow.as_deref())? {
        let check = |(id, manifest): Listed| match manifest {
            Ok(manifest) => (id, manifest.bytes(), store.verify(&manifest)),
            Err(error) => (id, 0, vec![error]),
        };
        for (id, size, errors) in store.manifests()?.into_iter().map(check) {
            bytes += size;
            damaged += errors.len();
            let errors: Vec<String> = errors.iter().map(|error| error.to_string()).collect();
            match arguments.format {
                Format::Json => {
                    writeln!(out, "{}", serde_json::json!({ "dataflow": dataflow, "id": id, "bytes": size, "damage": errors }))?
                }
                Format::Text => errors.iter().try_for_each(|error| writeln!(out, "{dataflow} {id}: {error}"))?,
            }
        }
    }
    if arguments.format == Format::Text {
        match damaged {
            0 => writeln!(out, "{bytes} bytes of runs checked, nothing damaged")?,
            n => writeln!(out, "{n} places are damaged\n  hint: the next start passes damaged generations over")?,
        }
    }
    Ok(if damaged == 0 { 0 } else { 3 })
}

fn rollback(arguments: &Rollback) -> Result<u8, Failure> {
    let _lock = log::lock_dir(&RealDisk, &arguments.dir)?;
    let stores = stores(&arguments.dir, arguments.dataflow.as_deref())?;
    let [(dataflow, store)] = &stores[..] else {
        let names: Vec<&str> = stores.iter().map(|(name, _)| name.as_str()).collect();
        return Err(Failure::usage(format!("which dataflow?\n  hint: --dataflow {}", names.join(" or "))));
    };
    let kept = store.manifests()?.into_iter().find(|(id, _)| *id == arguments.to);
    match kept {
        Some((_, manifest)) => {
            if let Some(error) = store.verify(&manifest?).into_iter().next() {
                return Err(error.into());
            }
        }
        None if arguments.to == 0 => {}
        None => return Err(Failure::usage(format!("`{dataflow}` has no generation {}\n  hint: `generations list`", arguments.to))),
    }
    let dropped = store.drop_if(|(id, _)| *id > arguments.to)?;
    let names: Vec<String> = dropped.iter().map(|id| id.to_string()).collect();
    let (next, mut out) =
        (if arguments.to == 0 { "the log".to_owned() } else { format!("generation {}", arguments.to) }, std::io::stdout().lock());
    match dropped.len() {
        0 => writeln!(out, "nothing is newer: the next start goes on from {next}")?,
        _ => writeln!(out, "dropped {}: the next start goes on from {next}", names.join(", "))?,
    }
    Ok(0)
}
