//! `oracle`: a dataflow's answers beside those of SQL queries.

use std::io::Write;
use std::sync::Arc;

use crate::log::Event;
use crate::runtime::{Program, command_id};
use crate::testing::{Compared, OracleError, Report, Scale};

use super::arguments::{Format, Oracle};
use super::{Failure, cluster};

impl From<OracleError> for Failure {
    fn from(error: OracleError) -> Self {
        let code = match &error {
            OracleError::Storage { .. } => 5,
            OracleError::Cluster(error) => error.exit_code(),
            _ => 2,
        };
        Self::new(error, code)
    }
}

pub(super) fn oracle<E: Event>(program: &Program<E>, arguments: &Oracle) -> Result<u8, Failure> {
    let Some(oracle) = &program.oracle else { return Err(Failure::usage(format!("`{}` has no queries to compare with", program.name))) };
    let scale = Scale { events: arguments.events, seed: arguments.seed, workers: arguments.processes.workers };
    let dir = tempfile::tempdir()?;
    let alike = [("--events", scale.events), ("--seed", scale.seed)].map(|(name, value)| (name.to_owned(), value.to_string()));
    let exchange = arguments.processes.exchange;
    let id = || command_id(program, "oracle", exchange, alike.into());
    let stopping = Arc::default();
    let report = match arguments.processes.join(id, &stopping)? {
        Some(cluster) => {
            let report = oracle.check_in(&cluster, &program.dataflow, scale, exchange, dir.path());
            let Some(report) = cluster::explain(&cluster, &stopping, report)? else { return Ok(0) };
            report
        }
        None => oracle.check(&program.dataflow, scale, dir.path())?,
    };

    let mut out = std::io::stdout().lock();
    match arguments.format {
        Format::Json => writeln!(out, "{}", serde_json::to_string(&report).expect("a report is representable as JSON"))?,
        Format::Text => print(&report, &mut out)?,
    }
    Ok(u8::from(!report.agrees()))
}

fn print(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    for compared in &report.views {
        let Compared { view, rows, missing, extra, oracle_ms, .. } = compared;
        let found = if compared.agrees() { "match".to_owned() } else { format!("{missing} rows missing, {extra} too many") };
        writeln!(out, "{view:<24} {rows:>10} rows  {found}  (SQL {oracle_ms} ms)")?;
        compared.missing_shown.iter().try_for_each(|row| writeln!(out, "  - {row}"))?;
        compared.extra_shown.iter().try_for_each(|row| writeln!(out, "  + {row}"))?;
    }
    for view in &report.not_compared {
        writeln!(out, "{view:<24} not compared")?;
    }
    let matching = report.views.iter().filter(|compared| compared.agrees()).count();
    let seconds = |ms: u64| ms as f64 / 1e3;
    writeln!(
        out,
        "{matching} of {} views match: {} events of seed {}, {} workers{}; full batch to tick {} in {:.2} s, incremental to {} in {:.2} s, speed to {} in {:.2} s; SQL {:.2} s",
        report.views.len(),
        report.events,
        report.seed,
        report.workers,
        if report.processes == 1 { String::new() } else { format!(" in each of {} processes", report.processes) },
        report.cuts[0].0,
        seconds(report.batch_ms[0]),
        report.cuts[1].0,
        seconds(report.batch_ms[1]),
        report.last_tick.0,
        seconds(report.speed_ms),
        seconds(report.views.iter().map(|compared| compared.oracle_ms).sum()),
    )
}
