//! `lambdaflow log`: looking into a log without knowing its events.

use std::io::Write;

use crate::log;
use crate::storage::RealDisk;

use super::Failure;
use super::arguments::{Format, LogInfo, LogVerify};

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
    for partition in &info.partitions {
        let ticks = match (partition.first_tick, partition.last_tick) {
            (Some(first), Some(last)) => format!("ticks {} to {}", first.0, last.0),
            _ => "no ticks".to_owned(),
        };
        writeln!(
            out,
            "partition {}: {} events, {ticks}, {} bytes in {} sealed and {} active segments, {} blocks",
            partition.partition.0,
            partition.events,
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
