//! Reads over all processes: one tick is chosen, each process answers for its shards at that tick, and the rows are put
//! together. A key's rows are asked of the process that has them, everything else of all.

use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::log::Tick;
use crate::runs::{AnswerRow, Query, ReadError};
use crate::serving::{Answer, Full, Read, ServeError, Serving, WAIT_MAX};

use super::members::{Reply, Request, read_reply};
use super::service::ServiceError;
use super::waiting::Waiting;

/// How much longer than the process itself the one that asks it waits.
const MARGIN: Duration = Duration::from_millis(500);

/// Answers a read from the shards of all processes.
pub(super) fn read(serving: &Serving, cluster: &Cluster, read: &Read) -> Result<Answer, ServiceError> {
    let deadline = Instant::now() + read.timeout.min(WAIT_MAX);
    let left = || deadline.saturating_duration_since(Instant::now());
    if let Some(tick) = read.at_least {
        serving.wait(tick, read.timeout)?;
    }
    loop {
        match try_read(serving, cluster, read, left()) {
            // Some process is ahead of the tick that was chosen here; the reader asked for the latest, whatever its tick.
            Err(ServiceError::Serve(ServeError::Read(ReadError::TooOld { .. }))) if read.as_of.is_none() && !left().is_zero() => {
                serving.wait(serving.frontier(), left())?;
            }
            answered => return answered,
        }
    }
}

fn try_read(serving: &Serving, cluster: &Cluster, read: &Read, patience: Duration) -> Result<Answer, ServiceError> {
    let membership = cluster.membership();
    let own = membership.process;
    // Fixes the tick, and finds out whether the question is one: without rows yet.
    let question = match read.query.clone() {
        Query::Range { from, to, .. } => Query::Range { from, to, limit: 0 },
        Query::Prefix { prefix, .. } => Query::Prefix { prefix, limit: 0 },
        Query::Get(_) | Query::Top(_) | Query::Scan { .. } => Query::Get(Vec::new()),
    };
    let tick = serving.read(&Read { query: question, at_least: None, timeout: patience, ..read.clone() })?;
    let view = serving.view(&read.view)?;
    let queries: Vec<Query> = match &read.query {
        Query::Get(keys) => keys.iter().map(|key| Query::Get(vec![key.clone()])).collect(),
        query => vec![query.clone()],
    };
    let owner = |query: &Query| match query {
        Query::Get(keys) => keys.iter().map(|key| Ok(view.owner(key)? / membership.workers)).next().transpose(),
        _ => Ok::<Option<usize>, ReadError>(None),
    };
    let owners = queries.iter().map(owner).collect::<Result<Vec<_>, _>>().map_err(ServeError::from)?;
    let of = |process: usize| -> Vec<usize> { (0..queries.len()).filter(|at| owners[*at].is_none_or(|owner| owner == process)).collect() };

    let timeout_ms = patience.as_millis() as u64;
    let mut waiting = Waiting::new(cluster, serving.room());
    let too_many = |_: Full| ServeError::TooManyWaiting;
    let asked = cluster.others().map(|process| (process, of(process))).filter(|(_, wanted)| !wanted.is_empty());
    let asked = asked
        .map(|(process, wanted)| {
            let queries = wanted.iter().map(|at| queries[*at].clone()).collect();
            let request = Request::Read { view: read.view.clone(), queries, as_of: tick.as_of, timeout_ms };
            Ok((process, wanted, waiting.begin(process, &request, &[]).map_err(too_many)?))
        })
        .collect::<Result<Vec<_>, ServeError>>()?;
    let mut parts: Vec<Vec<Vec<AnswerRow>>> = queries.iter().map(|_| Vec::new()).collect();
    let mut failed: Option<ServiceError> = None;
    for at in of(own) {
        match serving.read(&Read { query: queries[at].clone(), as_of: Some(tick.as_of), at_least: None, ..read.clone() }) {
            Ok(answer) => parts[at].push(answer.rows),
            Err(error) => drop(failed.get_or_insert(error.into())),
        }
    }
    for (process, wanted, asked) in asked {
        waiting.go_on(&asked).map_err(too_many)?;
        let answered = cluster.finish(process, asked, patience + MARGIN);
        let unreachable = |why: String| ServeError::Unreachable { process: cluster.name(process), why };
        match answered.map_err(|error| unreachable(error.to_string()).into()).and_then(|answer| read_reply(Ok(answer))) {
            Ok(Reply::Rows(rows)) if rows.len() == wanted.len() => {
                wanted.into_iter().zip(rows).for_each(|(at, rows)| parts[at].push(rows));
            }
            Ok(Reply::Refused(refusal)) => drop(failed.get_or_insert(refusal.into())),
            Ok(other) => drop(failed.get_or_insert(unreachable(format!("it answered something else: {other:?}")).into())),
            // What does not answer is the reason for others that wait.
            Err(error @ ServiceError::Serve(ServeError::Unreachable { .. })) => failed = Some(error),
            Err(error) => drop(failed.get_or_insert(error)),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let merged = queries.iter().zip(parts).map(|(query, parts)| view.merge(query, parts));
    let rows = merged.collect::<Result<Vec<_>, _>>().map_err(ServeError::from)?.into_iter().flatten().collect();
    Ok(Answer { rows, ..tick })
}

/// The rows of this process for another's read.
pub(super) fn read_part(
    serving: &Serving,
    view: &str,
    queries: Vec<Query>,
    as_of: Tick,
    timeout: Duration,
) -> Result<Vec<Vec<AnswerRow>>, ServiceError> {
    serving.wait(as_of, timeout)?;
    let read = |query| Ok(serving.read(&Read { view: view.to_owned(), query, as_of: Some(as_of), at_least: None, timeout })?.rows);
    queries.into_iter().map(read).collect()
}
