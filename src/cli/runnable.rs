//! Programs of any event type behind one face.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::log::{Event, Log, LogOptions, SystemClock, Tick};
use crate::runtime::{Program, audit_log, audit_log_in, command_id};
use crate::storage::RealDisk;

use super::arguments::{Audit, Diff, DurabilityArgument, Generate, Ingest, LogCat, LogCopy, LogRedact, Oracle, Run};
use super::{Failure, client, cluster, diff, ingest, oracle, run};

/// A program that the command line can carry out. Implemented by [`Program`].
#[expect(private_interfaces, reason = "the arguments are the command line's own")]
pub trait Runnable: Send + Sync {
    /// What the command line calls it.
    fn name(&self) -> &str;
    /// One line on what it computes.
    fn summary(&self) -> &str;
    #[doc(hidden)]
    fn run(&self, arguments: &Run) -> Result<u8, Failure>;
    #[doc(hidden)]
    fn ingest(&self, arguments: &Ingest) -> Result<u8, Failure>;
    #[doc(hidden)]
    fn audit(&self, arguments: &Audit) -> Result<u8, Failure>;
    #[doc(hidden)]
    fn generate(&self, arguments: &Generate) -> Result<u8, Failure>;
    #[doc(hidden)]
    fn oracle(&self, arguments: &Oracle) -> Result<u8, Failure>;
    #[doc(hidden)]
    fn diff(&self, arguments: &Diff) -> Result<u8, Failure>;
    #[doc(hidden)]
    fn cat(&self, arguments: &LogCat) -> Result<u8, Failure>;
    #[doc(hidden)]
    fn redact(&self, arguments: &LogRedact) -> Result<u8, Failure>;
    #[doc(hidden)]
    fn rewrite(&self, arguments: &LogCopy) -> Result<u8, Failure>;
    #[doc(hidden)]
    fn salvage(&self, arguments: &LogCopy) -> Result<u8, Failure>;
}

#[expect(private_interfaces, reason = "the arguments are the command line's own")]
impl<E: Event> Runnable for Program<E> {
    fn name(&self) -> &str {
        &self.name
    }

    fn summary(&self) -> &str {
        &self.summary
    }

    fn run(&self, arguments: &Run) -> Result<u8, Failure> {
        run::run(self, arguments)
    }

    fn ingest(&self, arguments: &Ingest) -> Result<u8, Failure> {
        ingest::ingest(self, arguments)
    }

    fn audit(&self, arguments: &Audit) -> Result<u8, Failure> {
        let Some(dir) = &arguments.log else { return Err(Failure::usage("--log DIR is missing")) };
        let (stopping, exchange) = (Arc::new(AtomicBool::new(false)), arguments.processes.exchange);
        if let Some(cluster) = arguments.processes.join(|| command_id(self, "audit", exchange, Vec::new()), &stopping)? {
            let audited = cluster::explain(&cluster, &stopping, audit_log_in(&cluster, self, dir, exchange))?;
            return audited.map_or(Ok(0), |(at, audits)| client::print_audits(Some(at), &audits, arguments.format));
        }
        let log = open_existing::<E>(dir)?;
        log.advance()?;
        let (at, audits) = audit_log(self, &log, arguments.processes.workers)?;
        log.close()?;
        client::print_audits(Some(at), &audits, arguments.format)
    }

    fn generate(&self, arguments: &Generate) -> Result<u8, Failure> {
        let Some(samples) = &self.samples else { return Err(Failure::usage(format!("`{}` has no sample input", self.name))) };
        let mut out = std::io::BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
        for line in samples(arguments.seed).take(arguments.events as usize) {
            out.write_all(line.as_bytes())?;
            out.write_all(b"\n")?;
        }
        out.flush()?;
        Ok(0)
    }

    fn oracle(&self, arguments: &Oracle) -> Result<u8, Failure> {
        oracle::oracle(self, arguments)
    }

    fn diff(&self, arguments: &Diff) -> Result<u8, Failure> {
        diff::diff(self, arguments)
    }

    fn cat(&self, arguments: &LogCat) -> Result<u8, Failure> {
        let log = open_existing::<E>(&arguments.dir)?;
        log.advance()?;
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        log.cursor(Tick(0)).cat(&mut out, arguments.limit.unwrap_or(u64::MAX))?;
        out.flush()?;
        log.close()?;
        Ok(0)
    }

    fn redact(&self, arguments: &LogRedact) -> Result<u8, Failure> {
        super::log::redact::<E>(arguments)
    }

    fn rewrite(&self, arguments: &LogCopy) -> Result<u8, Failure> {
        super::log::rewrite::<E>(arguments)
    }

    fn salvage(&self, arguments: &LogCopy) -> Result<u8, Failure> {
        super::log::salvage::<E>(arguments)
    }
}

/// Opens a log, or makes one.
pub(super) fn open<E: Event>(dir: &std::path::Path, durability: DurabilityArgument) -> Result<Log<E>, Failure> {
    let options = LogOptions { durability: durability.into(), ..LogOptions::default() };
    Ok(Log::open(Arc::new(RealDisk), Arc::new(SystemClock), dir, options)?)
}

/// Opens a log that must be there.
fn open_existing<E: Event>(dir: &std::path::Path) -> Result<Log<E>, Failure> {
    Ok(Log::open_existing(Arc::new(RealDisk), Arc::new(SystemClock), dir, LogOptions::default())?)
}
