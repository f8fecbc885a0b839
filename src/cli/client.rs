//! Commands that ask a running server.

use std::io::Write;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::layers::Handover;
use crate::log::{ProducerError, Tick};
use crate::runs::{AnswerRow, Audit, ViewInfo};
use crate::runtime::OnError;
use crate::runtime::service::{Appended, Numbered};
use crate::serving::Answer;

use super::Failure;
use super::arguments::{Format, Query, Rebuild, Server};

/// Longest that a cycle may take before the client gives up waiting for its answer.
const CYCLE_TIMEOUT: Duration = Duration::from_secs(3600);
const READ_TIMEOUT: Duration = Duration::from_secs(700);

#[derive(serde::Deserialize)]
struct Views {
    views: Vec<ViewInfo>,
}

#[derive(serde::Deserialize)]
struct Audited {
    audits: Vec<Audit>,
}

fn agent(timeout: Duration) -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(timeout)).build().into()
}

/// The answer's body, whatever its status; an answer with an error is a failure unless `accept` takes its status.
fn receive<T: DeserializeOwned>(
    url: &str,
    sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    accept: impl Fn(u16) -> bool,
) -> Result<T, Failure> {
    let mut response = sent.map_err(|error| {
        Failure::new(format!("no answer from {url}: {error}\n  hint: is `lambdaflow run` running there? --to URL names another server"), 4)
    })?;
    let status = response.status().as_u16();
    let body = response
        .body_mut()
        .with_config()
        .limit(u64::MAX)
        .read_to_vec()
        .map_err(|error| Failure::new(format!("the answer from {url} broke off: {error}"), 4))?;
    if status == 200 || accept(status) {
        return serde_json::from_slice(&body).map_err(|error| Failure::new(format!("{url} is no Lambdaflow server: {error}"), 4));
    }
    let fields: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |name: &str| fields[name].as_str().map(str::to_owned);
    let error = text("error").unwrap_or_else(|| format!("{url} answered with status {status}"));
    let hint = text("hint").map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
    let code = match status {
        400 | 404 => 2,
        507 => 5,
        _ => 1,
    };
    Err(Failure::new(format!("{error}{hint}"), code))
}

/// What became of an append.
pub(super) enum Sent {
    /// It was carried out.
    Taken(Appended),
    /// Its number is in the log, and too old to be repeated.
    TooOld(ProducerError),
}

/// What a server says to an append that it refuses.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Answered {
    Taken(Appended),
    Refused { error: String, hint: Option<String>, expected: Option<u64>, oldest: Option<u64> },
}

/// Appends lines, JSON or not, as the server's dataflow reads them.
pub(super) fn append(server: &str, body: &[u8], on_error: OnError, numbered: Option<&Numbered>) -> Result<Sent, Failure> {
    let url = format!("{}/v1/events", server.trim_end_matches('/'));
    let kind = if body.first() == Some(&b'{') { "application/x-ndjson" } else { "text/plain" };
    let mut request = agent(READ_TIMEOUT).post(&url).header("content-type", kind);
    if on_error == OnError::Skip {
        request = request.query("on_error", "skip");
    }
    if let Some(Numbered { producer, sequence }) = numbered {
        request = request.query("producer", producer).query("sequence", sequence.to_string());
    }
    // 400 with a list of rejected lines is an answer, and so is 409 with what is remembered.
    match (receive(&url, request.send(body), |status| status == 400 || status == 409)?, numbered) {
        (Answered::Taken(appended), _) => Ok(Sent::Taken(appended)),
        (Answered::Refused { expected: Some(expected), oldest: Some(oldest), .. }, Some(Numbered { producer, sequence })) => {
            Ok(Sent::TooOld(ProducerError::TooOld { producer: producer.clone(), sequence: *sequence, oldest, expected }))
        }
        (Answered::Refused { error, hint, .. }, _) => {
            let hint = hint.map(|hint| format!("\n  hint: {hint}")).unwrap_or_default();
            Err(Failure::new(format!("{error}{hint}"), 2))
        }
    }
}

pub(super) fn query(arguments: &Query) -> Result<u8, Failure> {
    let server = arguments.server.to.trim_end_matches('/');
    let Some(view) = &arguments.view else { return list(server, arguments.format) };
    let mut pairs: Vec<(&str, String)> = Vec::new();
    let read = if !arguments.key.is_empty() {
        pairs.extend(arguments.key.iter().map(|key| ("key", json(key))));
        "get"
    } else if let Some(prefix) = &arguments.prefix {
        pairs.push(("prefix", json(prefix)));
        "prefix"
    } else if let Some(n) = arguments.top {
        pairs.push(("n", n.to_string()));
        "top"
    } else {
        pairs.extend(arguments.from.iter().map(|from| ("from", json(from))));
        pairs.extend(arguments.until.iter().map(|until| ("to", json(until))));
        "range"
    };
    if matches!(read, "range" | "prefix") {
        pairs.extend(arguments.limit.map(|limit| ("limit", limit.to_string())));
    }
    pairs.extend(arguments.as_of.map(|tick| ("as_of", tick.to_string())));
    pairs.extend(arguments.at_least.map(|tick| ("at_least", tick.to_string())));
    pairs.extend(arguments.timeout.map(|timeout| ("timeout_ms", timeout.as_millis().to_string())));
    let url = format!("{server}/v1/views/{view}/{read}");
    let sent = agent(READ_TIMEOUT).get(&url).query_pairs(pairs).call();
    let answer: Answer = receive(&url, sent, |_| false)?;
    print_answer(&answer, arguments.format)?;
    Ok(0)
}

/// A JSON value as it is; anything else as a string.
fn json(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(_) => text.to_owned(),
        Err(_) => Value::String(text.to_owned()).to_string(),
    }
}

fn print_answer(answer: &Answer, format: Format) -> Result<(), Failure> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    if format == Format::Json {
        writeln!(out, "{}", serde_json::to_string(answer).map_err(std::io::Error::from)?)?;
    } else {
        for AnswerRow { key, value, count } in &answer.rows {
            match count {
                1 => writeln!(out, "{key}\t{value}")?,
                n => writeln!(out, "{key}\t{value}\tx{n}")?,
            }
        }
        let (rows, as_of, base) = (answer.rows.len(), answer.as_of.0, answer.base.0);
        writeln!(std::io::stderr(), "{rows} rows as of tick {as_of}; ticks before {base} from the batch layer")?;
    }
    out.flush()?;
    Ok(())
}

fn list(server: &str, format: Format) -> Result<u8, Failure> {
    let url = format!("{server}/v1/views");
    let Views { views } = receive(&url, agent(READ_TIMEOUT).get(&url).call(), |_| false)?;
    let mut out = std::io::stdout().lock();
    match format {
        Format::Json => writeln!(out, "{}", serde_json::to_string(&views).map_err(std::io::Error::from)?)?,
        Format::Text => {
            for ViewInfo { name, key, value } in views {
                writeln!(out, "{name:<16} key [{}] value [{}]", key.join(", "), value.join(", "))?;
            }
        }
    }
    Ok(0)
}

pub(super) fn rebuild(arguments: &Rebuild) -> Result<u8, Failure> {
    let url = format!("{}/v1/rebuild", arguments.server.to.trim_end_matches('/'));
    let handover: Handover = receive(&url, agent(CYCLE_TIMEOUT).post(&url).send_empty(), |_| false)?;
    let mut out = std::io::stdout().lock();
    match arguments.format {
        Format::Json => writeln!(out, "{}", serde_json::to_string(&handover).map_err(std::io::Error::from)?)?,
        Format::Text => writeln!(
            out,
            "generation {} serves: {} rows computed from the first event to tick {} in {} ms, both layers agreed, handed over in {} ms",
            handover.generation, handover.rows, handover.cut.0, handover.batch_ms, handover.handover_ms
        )?,
    }
    Ok(0)
}

pub(super) fn audit(server: &Server, format: Format) -> Result<u8, Failure> {
    let url = format!("{}/v1/audit", server.to.trim_end_matches('/'));
    let Audited { audits } = receive(&url, agent(CYCLE_TIMEOUT).post(&url).send_empty(), |status| status == 409)?;
    print_audits(None, &audits, format)
}

/// Prints the audits; the exit code is 1 if the layers differ.
pub(super) fn print_audits(at: Option<Tick>, audits: &[Audit], format: Format) -> Result<u8, Failure> {
    let agree = audits.iter().all(|audit| audit.agrees());
    let mut out = std::io::stdout().lock();
    if format == Format::Json {
        writeln!(out, "{}", serde_json::json!({ "agree": agree, "audits": audits }))?;
        return Ok(u8::from(!agree));
    }
    if let Some(at) = at {
        writeln!(out, "both layers, everything before tick {}:", at.0)?;
    }
    for audit in audits {
        let verdict = if audit.agrees() { "agree" } else { "DIFFER" };
        writeln!(
            out,
            "{:<16} {verdict:<7} batch {:>9} rows {:016x}   speed {:>9} rows {:016x}",
            audit.view, audit.batch.rows, audit.batch.hash, audit.speed.rows, audit.speed.hash
        )?;
        for (batch, speed) in &audit.differing {
            let show = |row: &Option<AnswerRow>| {
                row.as_ref().map_or("nothing".to_owned(), |row| format!("{} {} x{}", row.key, row.value, row.count))
            };
            writeln!(out, "  batch {}\n  speed {}", show(batch), show(speed))?;
        }
    }
    Ok(u8::from(!agree))
}
