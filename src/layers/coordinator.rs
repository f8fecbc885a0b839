//! The handover, step by step. A crash anywhere leaves the old or the new generation whole: what is served changes in the
//! last step, and a generation counts only once it is committed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::log::Tick;
use crate::operators::panic_message;
use crate::runs::Audit;

use super::control::{Command, Manifest, Processes, Report};

/// What a batch cycle starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cycle {
    /// The generation being served.
    Incremental,
    /// The first event of the log.
    Full,
}

/// A handover that took place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Handover {
    /// The generation switched to.
    pub generation: u64,
    /// What it was computed from.
    pub cycle: Cycle,
    /// Its frontier.
    pub cut: Tick,
    /// Rows in the runs that were frozen.
    pub rows: usize,
    /// Whether both layers agreed in every view; none if there was nothing to compare with.
    pub agreed: Option<bool>,
    /// What was compared.
    pub audits: Vec<Audit>,
    /// Time in the batch graph, in milliseconds.
    pub batch_ms: u64,
    /// Time in the audit, in milliseconds.
    pub audit_ms: u64,
    /// Time until the new speed graph had caught up and was switched to, in milliseconds.
    pub handover_ms: u64,
}

/// Why a cycle ended without a handover. The old generation is still being served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CycleError {
    /// A step failed on some process.
    #[error("{step} failed on process {process}: {reason}")]
    Step {
        /// The step.
        step: &'static str,
        /// The process, by index.
        process: usize,
        /// What it said.
        reason: String,
        /// By which exit code a program would report it.
        exit_code: u8,
    },
    /// The layers disagree.
    #[error("the audit at tick {} found both layers to differ in {views}; the old generation stays\n  hint: `lambdaflow audit` shows the rows", .cut.0)]
    Differs {
        /// Where the generations were compared.
        cut: Tick,
        /// The views that differ.
        views: String,
        /// What was compared.
        audits: Vec<Audit>,
    },
}

/// Process 0's part of the handover.
pub struct Coordinator {
    processes: Box<dyn Processes>,
    newest: Manifest,
}

impl Coordinator {
    /// A coordinator of these processes, none of which serves anything yet.
    pub fn new(processes: Box<dyn Processes>) -> Self {
        Self { processes, newest: Manifest::default() }
    }

    /// The generation being served.
    pub fn newest(&self) -> &Manifest {
        &self.newest
    }

    /// Computes the first generation and starts to serve it. With an empty log that is the empty generation.
    pub fn start(&mut self) -> Result<Handover, CycleError> {
        let frontier = self.propose()?;
        self.hand_over(Cycle::Full, frontier, false)
    }

    /// Starts to serve the empty generation, so that the speed layer follows the log from its first event.
    pub fn start_empty(&mut self) -> Result<Handover, CycleError> {
        self.hand_over(Cycle::Full, Tick(0), false)
    }

    /// Runs a batch cycle to the log's frontier and hands over to it.
    pub fn cycle(&mut self, cycle: Cycle) -> Result<Handover, CycleError> {
        let cut = self.propose()?;
        self.hand_over(cycle, cut, true)
    }

    /// Runs the batch and the audit of a cycle, and hands nothing over.
    pub fn audit(&mut self, cycle: Cycle) -> Result<Vec<Audit>, CycleError> {
        let cut = self.propose()?;
        let audited = self.guarded(|this| this.batch(cycle, cut).and_then(|_| this.compare()));
        self.step("discard", &Command::Discard)?;
        audited
    }

    fn hand_over(&mut self, cycle: Cycle, cut: Tick, audited: bool) -> Result<Handover, CycleError> {
        let handed_over = self.guarded(|this| this.try_hand_over(cycle, cut, audited));
        if handed_over.is_err()
            && let Err(error) = self.step("discard", &Command::Discard)
        {
            // What failed first is what the caller must know.
            tracing::error!(%error, "a failed cycle could not be discarded");
        }
        handed_over
    }

    /// Runs steps that take things which must be given back: a panic is a step that failed.
    fn guarded<T>(&mut self, steps: impl FnOnce(&mut Self) -> Result<T, CycleError>) -> Result<T, CycleError> {
        catch_unwind(AssertUnwindSafe(|| steps(self))).unwrap_or_else(|panic| {
            let reason = format!("panicked: {}", panic_message(&*panic));
            Err(CycleError::Step { step: "the cycle", process: 0, reason, exit_code: 1 })
        })
    }

    fn try_hand_over(&mut self, cycle: Cycle, cut: Tick, audited: bool) -> Result<Handover, CycleError> {
        let started = Instant::now();
        let (fingerprint, rows) = self.batch(cycle, cut)?;
        let batch = started.elapsed();
        let audits = if audited { self.compare()? } else { Vec::new() };
        let audit = started.elapsed() - batch;
        if audits.iter().any(|audit| !audit.agrees()) {
            let views = audits.iter().filter(|audit| !audit.agrees()).map(|audit| audit.view.clone()).collect::<Vec<_>>().join(", ");
            return Err(CycleError::Differs { cut, views, audits });
        }
        let manifest = Manifest { id: self.newest.id + 1, frontier: cut, fingerprint, full: cycle == Cycle::Full };
        self.step("commit", &Command::Commit { manifest: manifest.clone() })?;
        self.step("adopt", &Command::Adopt)?;
        self.step("switch", &Command::Switch)?;
        self.newest = manifest;
        let ms = |time: Duration| time.as_millis() as u64;
        Ok(Handover {
            generation: self.newest.id,
            cycle,
            cut,
            rows,
            agreed: audited.then_some(true),
            audits,
            batch_ms: ms(batch),
            audit_ms: ms(audit),
            handover_ms: ms(started.elapsed() - batch - audit),
        })
    }

    /// A cut that every process has reached.
    fn propose(&mut self) -> Result<Tick, CycleError> {
        let reports = self.step("propose", &Command::Propose)?;
        let frontiers = reports.iter().filter_map(|report| if let Report::Proposed { frontier } = report { Some(*frontier) } else { None });
        Ok(frontiers.min().unwrap_or_default())
    }

    fn batch(&mut self, cycle: Cycle, cut: Tick) -> Result<(u64, usize), CycleError> {
        let reports = self.step("batch", &Command::Batch { cut, full: cycle == Cycle::Full })?;
        let frozen = reports
            .iter()
            .filter_map(|report| if let Report::Frozen { fingerprint, rows } = report { Some((*fingerprint, *rows)) } else { None });
        Ok(frozen.fold((0, 0), |(_, total), (fingerprint, rows)| (fingerprint, total + rows)))
    }

    /// The audits of all processes, added up by view.
    fn compare(&mut self) -> Result<Vec<Audit>, CycleError> {
        let mut by_view: Vec<Audit> = Vec::new();
        for report in self.step("audit", &Command::Audit)? {
            let Report::Audited { audits } = report else { continue };
            for audit in audits {
                match by_view.iter_mut().find(|known| known.view == audit.view) {
                    Some(known) => known.add(audit),
                    None => by_view.push(audit),
                }
            }
        }
        Ok(by_view)
    }

    fn step(&mut self, step: &'static str, command: &Command) -> Result<Vec<Report>, CycleError> {
        let reports = self.processes.ask(command);
        for (process, report) in reports.iter().enumerate() {
            if let Report::Failed { reason, exit_code } = report {
                return Err(CycleError::Step { step, process, reason: reason.clone(), exit_code: *exit_code });
            }
        }
        Ok(reports)
    }
}
