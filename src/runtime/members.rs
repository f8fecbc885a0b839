//! What the processes of a cluster ask of each other, and process 0's way to all of them.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::{Answer, AskError, Cluster, ClusterError, EXIT_CODE_LOST};
use crate::layers::{BatchError, Command, Cycle, CycleError, Failure, Handover, Node, Processes, Report, Started, is_broken_exchange};
use crate::log::{Event, ProducerError, Tick};
use crate::runs::{AnswerRow, Audit, Query};
use crate::serving::{Room, ServeError};

use super::program::OnError;
use super::service::{Appended, ErrorKind, Format, Numbered, Progress, ServiceError};
use super::waiting::Waiting;

/// How long an append that another process owns may take.
pub(super) const APPEND_PATIENCE: Duration = Duration::from_secs(60);
/// As long as both processes live.
pub(super) const NO_LIMIT: Duration = Duration::MAX;

/// What one process asks of another.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// From process 0: a step of a start or of a handover.
    Command(Command),
    /// From process 0: a batch failed elsewhere.
    GiveUp { attempt: u64 },
    /// To the owner of a producer's partition; the lines are the body.
    Append { numbered: Numbered, format: Format, on_error: OnError },
    /// The rows that are here, at a tick.
    Read { view: String, queries: Vec<Query>, as_of: Tick, timeout_ms: u64 },
    /// To process 0.
    Cycle(Cycle),
    /// To process 0.
    Audit,
    /// To process 0.
    Progress,
    /// How many events this process's share of the log has.
    Events,
}

/// The answer to a [`Request`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    Report(Box<Report>),
    Done,
    Appended(Appended),
    /// One list for each query.
    Rows(Vec<Vec<AnswerRow>>),
    HandedOver(Box<Handover>),
    Audited(Vec<Audit>),
    Progress(Box<Progress>),
    Events(u64),
    Refused(Refusal),
}

/// An error that crosses from one process to another. It is of the same [`ErrorKind`] on both.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Refusal {
    Producer(ProducerError),
    Serve(ServeError),
    Cycle(CycleError),
    TooManyCycles,
    Other { message: String, kind: ErrorKind },
}

impl From<ServiceError> for Refusal {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Log(crate::log::LogError::Producer(error)) => Self::Producer(error),
            ServiceError::Serve(error) => Self::Serve(error),
            ServiceError::Cycle(error) => Self::Cycle(error),
            ServiceError::TooManyCycles => Self::TooManyCycles,
            other => Self::Other { message: other.to_string(), kind: other.kind() },
        }
    }
}

impl From<Refusal> for ServiceError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Producer(error) => Self::Log(error.into()),
            Refusal::Serve(error) => Self::Serve(error),
            Refusal::Cycle(error) => Self::Cycle(error),
            Refusal::TooManyCycles => Self::TooManyCycles,
            Refusal::Other { message, kind } => Self::Elsewhere { message, kind },
        }
    }
}

impl<T> From<Result<T, ServiceError>> for Reply
where
    T: Into<Reply>,
{
    fn from(result: Result<T, ServiceError>) -> Self {
        result.map_or_else(|error| Self::Refused(error.into()), Into::into)
    }
}

impl From<Appended> for Reply {
    fn from(appended: Appended) -> Self {
        Self::Appended(appended)
    }
}

impl From<Handover> for Reply {
    fn from(handover: Handover) -> Self {
        Self::HandedOver(Box::new(handover))
    }
}

impl From<Progress> for Reply {
    fn from(progress: Progress) -> Self {
        Self::Progress(Box::new(progress))
    }
}

impl From<Vec<Audit>> for Reply {
    fn from(audits: Vec<Audit>) -> Self {
        Self::Audited(audits)
    }
}

impl From<Vec<Vec<AnswerRow>>> for Reply {
    fn from(rows: Vec<Vec<AnswerRow>>) -> Self {
        Self::Rows(rows)
    }
}

/// What process 0 says when it has the lock of the log.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Place {
    /// What it wrote into the log's directory just now.
    pub mark: String,
    /// Its path to the directory.
    pub dir: String,
}

/// What a process says when it has the lock of its share.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Locked;

/// What process 0 says when all may open their shares.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Opening;

/// What a process says when it can take part.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ready;

/// What process 0 says when there are answers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Serves {
    /// Where they come from.
    pub started: Started,
}

/// Asks a process, and reads its answer.
pub(super) fn ask(cluster: &Cluster, process: usize, request: &Request, body: &[u8], patience: Duration) -> Result<Reply, ServiceError> {
    accepted(cluster.ask(process, request, body, patience))
}

/// As [`ask`], if there is `room` to wait for the answer.
pub(super) fn ask_in(
    room: &Room,
    cluster: &Cluster,
    process: usize,
    request: &Request,
    body: &[u8],
    patience: Duration,
) -> Result<Reply, ServiceError> {
    let mut waiting = Waiting::new(cluster, room);
    let asked = waiting.begin(process, request, body)?;
    waiting.go_on(&asked)?;
    accepted(cluster.finish(process, asked, patience))
}

/// What a process answered, if it did not refuse.
fn accepted(asked: Result<Answer, AskError>) -> Result<Reply, ServiceError> {
    match read_reply(asked)? {
        Reply::Refused(refusal) => Err(refusal.into()),
        reply => Ok(reply),
    }
}

/// What a process answered.
pub(super) fn read_reply(asked: Result<Answer, AskError>) -> Result<Reply, ServiceError> {
    let failed = |error: &dyn std::fmt::Display, kind| ServiceError::Elsewhere { message: error.to_string(), kind };
    let answer = asked.map_err(|error| failed(&error, ErrorKind::Unavailable))?;
    serde_json::from_slice(&answer).map_err(|error| failed(&error, ErrorKind::Failed))
}

/// All processes of a cluster, as process 0 sees them.
struct AllProcesses<E: Event> {
    node: Arc<Node<E>>,
    cluster: Cluster,
    /// Why nothing is carried out any more.
    over: Option<String>,
}

impl<E: Event> Processes for AllProcesses<E> {
    fn ask(&mut self, command: &Command) -> Vec<Report> {
        let processes = self.cluster.membership().processes();
        let mut reports: Vec<Report> = (0..processes).map(|_| lost("it did not answer")).collect();
        if let Some(over) = &self.over {
            return reports.into_iter().map(|_| lost(over)).collect();
        }
        let (answered, answers) = crossbeam::channel::unbounded();
        let request = Request::Command(command.clone());
        std::thread::scope(|scope| {
            // Nobody is asked before there is a thread for everybody: a step that some never hear of would set them apart.
            let (begin, begun) = crossbeam::channel::bounded(processes);
            for process in 0..processes {
                let (answered, begun, request) = (answered.clone(), begun.clone(), &request);
                let (cluster, node) = (&self.cluster, &self.node);
                let ask = move || {
                    if begun.recv().is_err() {
                        return;
                    }
                    let report = match process {
                        0 => node.obey(command),
                        process => report(cluster.ask(process, request, &[], NO_LIMIT)),
                    };
                    drop(answered.send((process, report)));
                };
                let spawned = std::thread::Builder::new().name(format!("step-{process}")).spawn_scoped(scope, ask);
                if let Err(error) = spawned {
                    reports.fill(lost(&format!("no thread for a step: {error}")));
                    return;
                }
            }
            (0..processes).for_each(|_| begin.send(()).expect("the threads wait for it"));
            drop(answered);
            let mut given_up = false;
            for (process, report) in answers {
                if let (Report::Failed(_), Command::Batch { attempt, .. }, false) = (&report, command, given_up) {
                    given_up = true;
                    self.node.cancel_batch(*attempt);
                    for other in self.cluster.others() {
                        drop(self.cluster.begin(other, &Request::GiveUp { attempt: *attempt }, &[]));
                    }
                }
                reports[process] = report;
            }
        });
        if let Some(gone) = self.cluster.lost() {
            // Whatever failed, failed because of that.
            let failed = |report: &&mut Report| matches!(report, Report::Failed(_));
            reports.iter_mut().filter(failed).for_each(|report| *report = lost(&gone.to_string()));
        }
        // When one fails, others fail because of that: what is said is the reason.
        let is_reason = |report: &Report| matches!(report, Report::Failed(failure) if !is_consequence(&failure.reason));
        if reports.iter().any(is_reason) {
            for report in &mut reports {
                if matches!(report, Report::Failed(_)) && !is_reason(report) {
                    *report = Report::Done;
                }
            }
        }
        reports
    }

    fn diverged(&mut self, reason: &str) {
        self.over = Some(reason.to_owned());
        self.cluster.abandon(reason);
    }
}

/// On process 0 all processes, once they can take part; elsewhere none.
pub(super) fn all_processes<E: Event>(cluster: &Cluster, node: &Arc<Node<E>>) -> Result<Option<Box<dyn Processes>>, ClusterError> {
    if cluster.membership().process != 0 {
        cluster.tell(0, &Ready);
        return Ok(None);
    }
    cluster.others().try_for_each(|other| cluster.hear::<Ready>(other).map(drop))?;
    Ok(Some(Box::new(AllProcesses { node: Arc::clone(node), cluster: cluster.clone(), over: None })))
}

/// Whether a failure follows from another process's.
fn is_consequence(reason: &str) -> bool {
    is_broken_exchange(reason) || reason == BatchError::Stopped.to_string()
}

fn report(asked: Result<Answer, AskError>) -> Report {
    match read_reply(asked) {
        Ok(Reply::Report(report)) => *report,
        Ok(Reply::Refused(refusal)) => lost(&ServiceError::from(refusal).to_string()),
        Ok(other) => lost(&format!("an answer to something else: {other:?}")),
        Err(error) => lost(&error.to_string()),
    }
}

fn lost(reason: &str) -> Report {
    Report::Failed(Failure { reason: reason.to_owned(), exit_code: EXIT_CODE_LOST })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::LogError;
    use crate::runs::ReadError;
    use crate::serving::Full;

    #[test]
    fn an_error_is_of_the_same_kind_and_says_the_same_on_the_process_that_asked() {
        let text = || "what it says".to_owned();
        let log = [
            LogError::TooLarge { events: 2, bytes: 3, events_max: 1, bytes_max: 1 },
            LogError::OutOfSpace { action: "write", path: "p0001".into() },
            LogError::Stopped { cause: text() },
            ProducerError::Name { name: String::new() }.into(),
            ProducerError::Ahead { producer: text(), sequence: 3, expected: 1 }.into(),
        ];
        let serve = [
            ServeError::NotReady,
            ServeError::NoSuchView { name: text(), known: text() },
            ServeError::TooManyWaiting,
            ServeError::TimedOut { tick: Tick(2), frontier: Tick(1), waited_ms: 3 },
            ServeError::Unreachable { process: text(), why: text() },
            ReadError::TooOld { asked: Tick(1), since: Tick(2) }.into(),
            ReadError::NotYet { asked: Tick(2), upper: Tick(1) }.into(),
            ReadError::NotAKey { view: text(), given: text(), reason: text(), fields: text() }.into(),
        ];
        let others = [
            CycleError::Differs { cut: Tick(1), views: text(), audits: Vec::new() }.into(),
            CycleError::Step { step: text(), process: 1, reason: text(), exit_code: 5 }.into(),
            ServiceError::TooManyCycles,
            ServiceError::NoLineFormat(text()),
            Full { max: 1 }.into(),
            ServiceError::Elsewhere { message: text(), kind: ErrorKind::Failed },
        ];
        let all = log.map(ServiceError::from).into_iter().chain(serve.map(ServiceError::from)).chain(others);
        for error in all {
            let (kind, message) = (error.kind(), error.to_string());
            let said = serde_json::to_vec(&Reply::Refused(error.into())).expect("it can be written");
            let heard = accepted(Ok(said)).expect_err("it was refused");
            assert_eq!((heard.kind(), heard.to_string()), (kind, message));
        }
    }
}
