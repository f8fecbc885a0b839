//! The handover, step by step. A crash anywhere leaves the old or the new generation whole: what is served changes in the
//! last step, and a generation counts only once it is committed.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::log::Tick;
use crate::operators::panic_message;
use crate::runs::{Audit, Contents, Difference, Manifest};

use super::control::{Command, Failure, Processes, Report, Restored};
use super::node::DIFFERENCES_SHOWN;

/// Events after the newest generation on disk that a start replays in the speed layer. With more, the batch layer computes a
/// generation first: the speed layer keeps all that changed since its base in memory.
pub const TAIL_EVENTS_MAX: u64 = 1 << 20;

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
    /// After a change of the dataflow: how its answers differ from the old ones at the cut, in some rows of each view that
    /// does.
    pub differences: Vec<Difference>,
    /// Time in the batch graph, in milliseconds.
    pub batch_ms: u64,
    /// Time in the audit, in milliseconds.
    pub audit_ms: u64,
    /// Time until the new speed graph had caught up and was switched to, in milliseconds.
    pub handover_ms: u64,
}

/// Why a cycle ended without a handover. The old generation is still being served.
#[derive(Debug, thiserror::Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CycleError {
    /// A step failed on some process.
    #[error("{step} failed on process {process}: {reason}")]
    Step {
        /// The step.
        step: String,
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

/// What is served first, after a start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Started {
    /// The generation being served.
    pub manifest: Manifest,
    /// What was found on disk.
    pub found: Restored,
    /// The views of another version of the dataflow are served as they stand: a full cycle is due.
    pub outdated: bool,
    /// The handover by which the generation was computed, if it was not restored.
    pub handover: Option<Handover>,
}

impl Started {
    /// Where the first answers come from, in one line.
    pub fn summary(&self) -> String {
        let Manifest { id, frontier, .. } = &self.manifest;
        let (tail, reasons) = (self.found.tail, self.found.passed_over.join("; "));
        let passed_over = if reasons.is_empty() { String::new() } else { format!(" ({reasons})") };
        let resharded = self.found.resharded_from.map_or(String::new(), |workers| format!(", written anew from {workers} workers"));
        match (&self.handover, self.outdated) {
            (None, false) => format!("generation {id} restored{resharded}, {tail} events replayed{passed_over}"),
            (None, true) => format!("generation {id} of another version of the dataflow stands at tick {frontier}{passed_over}"),
            (Some(_), _) if self.found.newest.is_some() => {
                format!("generation {id} computed from the restored one{resharded} and {tail} events{passed_over}")
            }
            (Some(_), _) => format!("generation {id} computed from the first event{passed_over}"),
        }
    }
}

/// Process 0's part of the handover.
pub struct Coordinator {
    processes: Box<dyn Processes>,
    newest: Manifest,
    /// The greatest number that a generation has.
    last_id: u64,
    /// The number of the last batch that was asked for.
    attempt: u64,
    /// The frontier of the outdated views that stand.
    standing: Option<Tick>,
    /// How the answers differ from the outdated ones, until a handover reports it.
    differences: Vec<Difference>,
    /// A speed graph serves: there is something to compare with.
    serves: bool,
}

impl Coordinator {
    /// A coordinator of these processes, none of which serves anything yet.
    pub fn new(processes: Box<dyn Processes>) -> Self {
        Self { processes, newest: Manifest::default(), last_id: 0, attempt: 0, standing: None, differences: Vec::new(), serves: false }
    }

    /// The generation being served.
    pub fn newest(&self) -> &Manifest {
        &self.newest
    }

    /// Starts to serve: the newest generation on disk and what the log has after it; views of another version of the dataflow
    /// as they stand; or what is computed from the first event. With an empty log that is the empty generation.
    pub fn start(&mut self) -> Result<Started, CycleError> {
        let frontier = self.propose()?;
        let found = self.restore()?;
        self.last_id = found.last_id;
        let mut started = Started { manifest: Manifest::default(), found, outdated: false, handover: None };
        match (&started.found.newest, &started.found.outdated) {
            (Some(newest), _) => {
                self.newest = newest.clone();
                if started.found.tail > TAIL_EVENTS_MAX {
                    started.handover = Some(self.hand_over(Cycle::Incremental, frontier, false)?);
                } else {
                    self.take_over()?;
                }
            }
            (None, Some(outdated)) => {
                self.step("stand", &Command::Stand)?;
                self.newest = outdated.clone();
                self.standing = Some(outdated.frontier);
                started.outdated = true;
            }
            (None, None) => started.handover = Some(self.hand_over(Cycle::Full, frontier, false)?),
        }
        started.manifest = self.newest.clone();
        Ok(started)
    }

    /// Starts to serve the empty generation, so that the speed layer follows the log from its first event.
    pub fn start_empty(&mut self) -> Result<Handover, CycleError> {
        self.hand_over(Cycle::Full, Tick(0), false)
    }

    /// The newest generation that every process can go on from.
    fn restore(&mut self) -> Result<Restored, CycleError> {
        let mut passed_over = Vec::new();
        loop {
            let reports = self.step("restore", &Command::Restore { passed_over: passed_over.clone() })?;
            let restored = reports.into_iter().filter_map(|report| if let Report::Restored(found) = report { Some(*found) } else { None });
            let restored: Vec<Restored> = restored.collect();
            let used = |found: &Restored| found.newest.as_ref().or(found.outdated.as_ref()).map(|manifest| manifest.id);
            // What one process cannot use, none can.
            let common = restored.iter().map(used).min().flatten();
            let newer: Vec<u64> = restored.iter().filter_map(used).filter(|id| Some(*id) > common).collect();
            if newer.is_empty() {
                return Ok(restored.into_iter().reduce(Restored::and).unwrap_or_default());
            }
            passed_over.extend(newer);
        }
    }

    fn take_over(&mut self) -> Result<(), CycleError> {
        let reports = self.step("reach", &Command::Reach)?;
        let frontiers = reports.iter().filter_map(|report| if let Report::Reached { frontier } = report { Some(*frontier) } else { None });
        let reached = frontiers.min().unwrap_or_default();
        let steps = [("adopt", Command::Adopt { reached }), ("switch", Command::Switch), ("retire", Command::Retire)];
        if let Err(error) = steps.iter().try_for_each(|(name, command)| self.step(name, command).map(drop)) {
            // Some may have a graph that others lack.
            self.processes.diverged(&error.to_string());
            return Err(error);
        }
        self.serves = true;
        Ok(())
    }

    /// Runs a batch cycle to the log's frontier and hands over to it.
    pub fn cycle(&mut self, cycle: Cycle) -> Result<Handover, CycleError> {
        match self.standing {
            // Nothing can be gone on from; at the frontier of what stands, both versions can be compared.
            Some(frontier) => self.hand_over(Cycle::Full, frontier, false),
            None => {
                let cut = self.propose()?;
                self.hand_over(cycle, cut, self.serves)
            }
        }
    }

    /// Runs the batch and the audit of a cycle, and hands nothing over.
    pub fn audit(&mut self, cycle: Cycle) -> Result<Vec<Audit>, CycleError> {
        if self.standing.is_some() {
            let reason = "the dataflow was changed, and its views are still being computed".to_owned();
            return Err(CycleError::Step { step: "audit".to_owned(), process: 0, reason, exit_code: 1 });
        }
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
            Err(CycleError::Step { step: "the cycle".to_owned(), process: 0, reason, exit_code: 1 })
        })
    }

    fn try_hand_over(&mut self, cycle: Cycle, cut: Tick, audited: bool) -> Result<Handover, CycleError> {
        let started = Instant::now();
        let (rows, tail) = self.batch(cycle, cut)?;
        let batch = started.elapsed();
        let audits = if audited { self.compare()? } else { Vec::new() };
        if self.standing.is_some() {
            self.differences = self.compare_with_standing()?;
        }
        let audit = started.elapsed() - batch;
        if audits.iter().any(|audit| !audit.agrees()) {
            let views = audits.iter().filter(|audit| !audit.agrees()).map(|audit| audit.view.clone()).collect::<Vec<_>>().join(", ");
            return Err(CycleError::Differs { cut, views, audits });
        }
        let agreed = audits.iter().map(|audit| (audit.view.clone(), audit.batch)).collect();
        let manifest = Manifest { id: self.last_id + 1, frontier: cut, full: cycle == Cycle::Full, contents: self.write()?, agreed };
        self.step("commit", &Command::Commit { manifest: manifest.clone() })?;
        self.last_id = manifest.id;
        if self.standing.is_some() && tail > TAIL_EVENTS_MAX {
            // The old views went on standing while the log grew.
            self.step("proceed", &Command::Proceed)?;
            (self.newest, self.standing) = (manifest, None);
            let frontier = self.propose()?;
            let next = self.try_hand_over(Cycle::Incremental, frontier, false)?;
            return Ok(Handover { rows: rows + next.rows, ..next });
        }
        self.take_over()?;
        (self.newest, self.standing) = (manifest, None);
        let ms = |time: Duration| time.as_millis() as u64;
        Ok(Handover {
            generation: self.newest.id,
            cycle,
            cut,
            rows,
            agreed: (!audits.is_empty()).then_some(true),
            audits,
            differences: std::mem::take(&mut self.differences),
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

    fn batch(&mut self, cycle: Cycle, cut: Tick) -> Result<(usize, u64), CycleError> {
        let full = cycle == Cycle::Full;
        let from = if full { Tick::ZERO } else { self.newest.frontier };
        let reports = self.step("divide", &Command::Divide { from, to: cut })?;
        let cuts: BTreeSet<Tick> =
            reports.into_iter().flat_map(|report| if let Report::Divided { cuts } = report { cuts } else { Vec::new() }).collect();
        self.attempt += 1;
        let command = Command::Batch { attempt: self.attempt, cuts: cuts.into_iter().collect(), full };
        let reports = self.step("batch", &command)?;
        let frozen =
            reports.iter().filter_map(|report| if let Report::Frozen { rows, tail } = report { Some((*rows, *tail)) } else { None });
        Ok(frozen.fold((0, 0), |(rows, tail), (r, t)| (rows + r, tail + t)))
    }

    /// The parts of all processes, in their order.
    fn write(&mut self) -> Result<Contents, CycleError> {
        let reports = self.step("write", &Command::Write)?;
        let parts = reports.into_iter().filter_map(|report| if let Report::Written { contents } = report { Some(contents) } else { None });
        Ok(parts.reduce(Contents::and).unwrap_or_default())
    }

    fn compare_with_standing(&mut self) -> Result<Vec<Difference>, CycleError> {
        let reports = self.step("compare", &Command::Compare)?;
        let parts = reports.into_iter().filter_map(|report| match report {
            Report::Compared { differences } => Some(differences),
            _ => None,
        });
        let mut by_view: Vec<Difference> = Vec::new();
        for difference in parts.flatten().filter(|difference| !difference.is_empty()) {
            match by_view.iter_mut().find(|known| known.view == difference.view) {
                Some(known) => known.add(difference, DIFFERENCES_SHOWN),
                None => by_view.push(difference),
            }
        }
        Ok(by_view)
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
            if let Report::Failed(Failure { reason, exit_code }) = report {
                return Err(CycleError::Step { step: step.to_owned(), process, reason: reason.clone(), exit_code: *exit_code });
            }
        }
        Ok(reports)
    }
}
