//! `lambdaflow log`: looking into a log, removing events from it, copying it.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::log::{self, Event, LogError, LogOptions, RedactRequest, SystemClock};
use crate::runs::store::DIRECTORY;
use crate::storage::{Disk, RealDisk};

use super::Failure;
use super::arguments::{Format, LogCopy, LogInfo, LogRedact, LogVerify};

pub(super) fn info(arguments: &LogInfo) -> Result<u8, Failure> {
    let info = log::info(&RealDisk, &arguments.dir)?;
    let mut out = std::io::stdout().lock();
    if arguments.format == Format::Json {
        writeln!(out, "{}", serde_json::to_string(&info).map_err(std::io::Error::from)?)?;
        return Ok(0);
    }
    writeln!(
        out,
        "log {} of {} version {}, {}",
        info.log_id,
        info.event.name,
        info.event.version,
        if info.closed { "closed" } else { "open or not closed cleanly" }
    )?;
    for event in &info.earlier {
        writeln!(out, "older blocks hold {} version {}, converted when read", event.name, event.version)?;
    }
    if info.revision > 0 {
        writeln!(out, "{} redactions, see `log redactions`", info.revision)?;
    }
    for partition in &info.partitions {
        let ticks = match (partition.first_tick, partition.last_tick) {
            (Some(first), Some(last)) => format!("ticks {} to {}", first.0, last.0),
            _ => "no ticks".to_owned(),
        };
        writeln!(
            out,
            "partition {}: {} events{}, {ticks}, {} bytes in {} sealed and {} active segments, {} blocks",
            partition.partition.0,
            partition.events,
            if partition.missing > 0 { format!(" and {} offsets without one", partition.missing) } else { String::new() },
            partition.bytes,
            partition.segments_sealed,
            partition.segments_active,
            partition.blocks
        )?;
    }
    Ok(0)
}

/// Exit code 3 if anything is damaged.
pub(super) fn verify(arguments: &LogVerify) -> Result<u8, Failure> {
    let report = log::verify(&RealDisk, &arguments.dir)?;
    let code = if report.damage.is_empty() { 0 } else { 3 };
    let mut out = std::io::stdout().lock();
    if arguments.format == Format::Json {
        writeln!(out, "{}", serde_json::to_string(&report).map_err(std::io::Error::from)?)?;
        return Ok(code);
    }
    for damage in &report.damage {
        writeln!(out, "{damage}")?;
    }
    for unfinished in &report.unfinished {
        writeln!(out, "unfinished: {unfinished}")?;
    }
    let events: u64 = report.info.partitions.iter().map(|partition| partition.events).sum();
    match report.damage.len() {
        0 => writeln!(out, "{events} events, every byte checked, nothing damaged")?,
        n => writeln!(out, "{n} places are damaged; {events} events are in what is not")?,
    }
    Ok(code)
}

/// Removes what was computed from the log, all of which may hold what is to be removed: it is computed again.
fn remove_generations(dir: &Path) -> Result<(), LogError> {
    let generations = dir.join(DIRECTORY);
    match std::fs::remove_dir_all(&generations) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LogError::Storage { action: "remove", path: generations, source: Arc::new(error) })
        }
        // What was computed from events that are about to be removed must not come back after a power cut.
        _ => RealDisk.sync_dir(dir).map_err(|source| LogError::Storage { action: "sync", path: dir.to_owned(), source: Arc::new(source) }),
    }
}

/// Exit code 1 if no event matches.
pub(super) fn redact<E: Event>(arguments: &LogRedact) -> Result<u8, Failure> {
    let conditions = arguments.conditions.iter().map(|text| text.parse()).collect::<Result<Vec<_>, LogError>>()?;
    let request = RedactRequest { conditions, why: arguments.why.clone(), options: LogOptions::default() };
    let (disk, clock) = (Arc::new(RealDisk), Arc::new(SystemClock));
    let report = if arguments.dry_run {
        log::redact_dry_run::<E>(disk, clock, &arguments.dir, &request)?
    } else {
        log::redact_after::<E>(disk, clock, &arguments.dir, &request, || remove_generations(&arguments.dir))?
    };
    let code = u8::from(report.matching_total() == 0);
    let mut out = std::io::stdout().lock();
    if arguments.format == Format::Json {
        writeln!(out, "{}", serde_json::to_string(&report).map_err(std::io::Error::from)?)?;
        return Ok(code);
    }
    for (partition, (matching, events)) in report.matching.iter().zip(&report.events).enumerate() {
        writeln!(out, "partition {partition}: {matching} of {events} events match")?;
    }
    let torn = match report.torn_tails {
        0 => String::new(),
        count => format!(", and {count} torn tails, which cannot be searched"),
    };
    match report.id {
        Some(id) => writeln!(out, "redaction {id}: removed {} events from {} segments{torn}", report.matching_total(), report.segments)?,
        None => writeln!(out, "nothing was removed; {} segments hold events that match{torn}", report.segments)?,
    }
    Ok(code)
}

pub(super) fn redactions(arguments: &LogInfo) -> Result<u8, Failure> {
    let list = log::redactions(&RealDisk, &arguments.dir)?;
    let mut out = std::io::stdout().lock();
    for redaction in &list {
        if arguments.format == Format::Json {
            writeln!(out, "{}", serde_json::to_string(redaction).map_err(std::io::Error::from)?)?;
            continue;
        }
        writeln!(
            out,
            "{} at {} ms: {} events where {}\n  why: {}",
            redaction.id,
            redaction.at,
            redaction.events,
            redaction.conditions.join(" and "),
            redaction.why
        )?;
        for segment in &redaction.segments {
            writeln!(
                out,
                "  partition {} offsets {} to {}: {} events, CRC32C {} before, {} after",
                segment.partition.0,
                segment.first_offset.0,
                segment.end_offset.0,
                segment.events,
                segment.crc32c_before,
                segment.crc32c_after
            )?;
        }
        for tail in &redaction.torn_tails {
            writeln!(out, "  partition {}: torn tail {}", tail.partition.0, tail.name)?;
        }
    }
    Ok(0)
}

pub(super) fn rewrite<E: Event>(arguments: &LogCopy) -> Result<u8, Failure> {
    let report = log::rewrite::<E>(&RealDisk, &arguments.dir, &arguments.target, &LogOptions::default())?;
    let mut out = std::io::stdout().lock();
    match arguments.format {
        Format::Json => writeln!(out, "{}", serde_json::to_string(&report).map_err(std::io::Error::from)?)?,
        Format::Text => writeln!(
            out,
            "{} events in {} segments, of {} before; {} bytes; log {}",
            report.events, report.segments, report.segments_before, report.bytes, report.log_id
        )?,
    }
    Ok(0)
}

/// Exit code 3 if anything is lost.
pub(super) fn salvage<E: Event>(arguments: &LogCopy) -> Result<u8, Failure> {
    let report = log::salvage::<E>(&RealDisk, &arguments.dir, &arguments.target, &LogOptions::default())?;
    let code = if report.is_whole() { 0 } else { 3 };
    let mut out = std::io::stdout().lock();
    if arguments.format == Format::Json {
        writeln!(out, "{}", serde_json::to_string(&report).map_err(std::io::Error::from)?)?;
        return Ok(code);
    }
    for lost in &report.lost {
        writeln!(out, "lost: partition {} offsets {} to {}: {}", lost.partition.0, lost.from.0, lost.to.0, lost.why)?;
    }
    for lost in &report.producers_lost {
        let (partition, from, to) = (lost.partition.0, lost.from.0, lost.to.0);
        writeln!(out, "lost: what producers appended to partition {partition} at offsets {from} to {to}: {}", lost.why)?;
        writeln!(out, "  hint: compare before anything of it is sent again: it would be stored a second time")?;
    }
    for note in &report.notes {
        writeln!(out, "note: {note}")?;
    }
    let offsets: u64 = report.lost.iter().map(|lost| lost.to.0 - lost.from.0).sum();
    writeln!(out, "{} events copied, {offsets} offsets lost; log {}", report.copy.events, report.copy.log_id)?;
    Ok(code)
}
