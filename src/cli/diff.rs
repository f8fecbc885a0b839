//! `lambdaflow diff`: what a changed program would answer differently.

use std::io::Write;
use std::sync::Arc;

use crate::log::Event;
use crate::runtime::{Program, command_id, diff_log, diff_log_in};

use super::Failure;
use super::arguments::{Diff, Format};
use super::cluster::explain;

pub(super) fn diff<E: Event>(program: &Program<E>, arguments: &Diff) -> Result<u8, Failure> {
    let (processes, limit) = (&arguments.processes, arguments.limit);
    let id = || command_id(program, "diff", processes.exchange, vec![("--limit".to_owned(), limit.to_string())]);
    let stopping = Arc::default();
    let diff = match processes.join(id, &stopping)? {
        Some(cluster) => {
            let diff = diff_log_in(&cluster, program, &arguments.log, processes.exchange, limit);
            let Some(diff) = explain(&cluster, &stopping, diff)? else { return Ok(0) };
            diff
        }
        None => diff_log(program, &arguments.log, processes.workers, limit)?,
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if arguments.format == Format::Json {
        writeln!(out, "{}", serde_json::to_string(&diff).map_err(std::io::Error::from)?)?;
    } else {
        for difference in &diff.differences {
            for row in &difference.rows {
                writeln!(out, "{}\t{:+}\t{}\t{}", difference.view, row.count, row.key, row.value)?;
            }
            match (difference.unread, difference.more) {
                (true, _) => writeln!(out, "{}\tcannot be compared: its types changed, or this program has no such view", difference.view)?,
                (false, 0) => {}
                (false, more) => writeln!(out, "{}\tand {more} rows more", difference.view)?,
            }
        }
    }
    out.flush()?;
    let same = if diff.same_program { " (this program computed it)" } else { "" };
    let verdict = match diff.differences.len() {
        0 => "no difference".to_owned(),
        n => format!("{n} views differ, new minus old"),
    };
    writeln!(std::io::stderr(), "{verdict}: generation {}{same}, everything before tick {}", diff.generation, diff.frontier)?;
    Ok(u8::from(!diff.differences.is_empty()))
}
