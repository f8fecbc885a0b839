//! The same log under every number of processes and workers, one after the other: the answers are those of plain loops over
//! its events, from every process and for every kind of query.

use std::collections::BTreeMap;

use lambdaflow::testing::Random;
use lambdaflow_dataflows::web_analytics::Request;
use lambdaflow_dataflows::web_analytics::parse::parse_any;
use lambdaflow_dataflows::web_analytics::reference::{self, Answers};
use serde_json::Value;

use super::cluster::*;
use super::harness::*;

const ACCESS_LOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/access.log");
/// Processes and workers, each shape with another before and after it.
const SHAPES: [(usize, usize); 6] = [(2, 1), (3, 2), (1, 2), (3, 1), (2, 2), (1, 1)];
/// Lines of an append.
const CHUNK: usize = 150;
/// Views whose values are numbers, so that it is plain which are the greatest.
const COUNTS: [&str; 2] = ["visitors", "status"];

/// Appends lines through all processes at a time; the latest token.
fn ingest(cluster: &Cluster, lines: &[&str]) -> u64 {
    let clients = cluster.clients();
    let tokens = std::thread::scope(|scope| {
        let appenders = clients.iter().enumerate().map(|(process, client)| {
            let chunks = lines.chunks(CHUNK).skip(process).step_by(clients.len());
            scope.spawn(move || {
                let append = |chunk: &[&str]| client.post("/v1/events?on_error=skip", PLAIN_LINES, chunk.concat()).ok();
                chunks.filter_map(|chunk| append(chunk)["token"].as_u64()).max()
            })
        });
        let appenders: Vec<_> = appenders.collect();
        appenders.into_iter().filter_map(|appender| appender.join().expect("an appender ends")).max()
    });
    tokens.expect("something was appended")
}

fn rows(client: &Client, view: &str, kind: &str, pairs: &[(&str, &str)]) -> Vec<Value> {
    let answer = client.get(&format!("/v1/views/{view}/{kind}"), pairs).ok();
    answer["rows"].as_array().expect("rows").iter().cloned().map(sorted).collect()
}

fn sorted(mut row: Value) -> Value {
    row.sort_all_objects();
    row
}

/// Asks a process for all there is, in every way.
fn check(client: &Client, token: u64, answers: &Answers, want: &str, random: &mut Random, context: &str) {
    assert_same_answers(want, &client.answers(token), context);
    for (view, all) in answers {
        if *view == "errors" || all.is_empty() {
            continue;
        }
        let all: Vec<Value> = all.iter().cloned().map(sorted).collect();
        let key = |at: u64| &all[at as usize]["key"];
        let some: Vec<&Value> = (0..4).map(|_| key(random.below(all.len() as u64))).collect();
        let texts: Vec<String> = some.iter().map(|key| key.to_string()).collect();
        let pairs: Vec<(&str, &str)> = texts.iter().map(|key| ("key", key.as_str())).collect();
        let wanted: Vec<Value> = some.iter().flat_map(|key| all.iter().filter(|row| row["key"] == **key)).cloned().collect();
        assert_eq!(rows(client, view, "get", &pairs), wanted, "{context}: {view} of {texts:?}");

        let (mut from, mut to) = (random.below(all.len() as u64), random.below(all.len() as u64));
        if from > to {
            (from, to) = (to, from);
        }
        let first = |of: u64| all.iter().position(|row| row["key"] == *key(of)).expect("it is there");
        let wanted = &all[first(from)..first(to)];
        let (from, to) = (key(from).to_string(), key(to).to_string());
        let got = rows(client, view, "range", &[("from", &from), ("to", &to)]);
        assert!(got == wanted, "{context}: {view} from {from} to {to}: {got:?}, not {wanted:?}");
        let got = rows(client, view, "range", &[("from", &from), ("to", &to), ("limit", "3")]);
        assert!(got == wanted[..wanted.len().min(3)], "{context}: the first of {view} from {from} to {to}");
    }
    let hits: Vec<Value> = answers["hits"].iter().cloned().map(sorted).collect();
    let text = |row: &Value| row["key"][0].as_str().expect("a path").to_owned();
    let path = text(&hits[random.below(hits.len() as u64) as usize]);
    let wanted: Vec<&Value> = hits.iter().filter(|row| text(row).starts_with(&path)).collect();
    let prefix = serde_json::json!([path]).to_string();
    let got = rows(client, "hits", "prefix", &[("prefix", &prefix)]);
    assert!(got.iter().eq(wanted), "{context}: hits of {prefix}");

    for view in COUNTS {
        let n = 1 + random.below(12);
        let top = rows(client, view, "top", &[("n", &n.to_string())]);
        let value = |row: &Value| row["value"].as_u64().expect("a number");
        let mut greatest: Vec<u64> = answers[view].iter().map(value).collect();
        greatest.sort_by(|a, b| b.cmp(a));
        greatest.truncate(n as usize);
        assert_eq!(top.iter().map(value).collect::<Vec<_>>(), greatest, "{context}: top {n} of {view}");
        let known: BTreeMap<String, u64> = answers[view].iter().map(|row| (row["key"].to_string(), value(row))).collect();
        assert!(top.iter().all(|row| known[&row["key"].to_string()] == value(row)), "{context}: top {n} of {view}");
        let keys: std::collections::BTreeSet<String> = top.iter().map(|row| row["key"].to_string()).collect();
        assert_eq!(keys.len(), top.len(), "{context}: top {n} of {view} has a key twice");
    }
}

/// Ingests a part of the lines under each shape, and checks all answers of all processes.
fn through_all_shapes(lines: &str, shapes: &[(usize, usize)]) {
    let seed = seed();
    let mut random = Random::new(seed);
    let dir = Dir::new();
    let lines: Vec<&str> = lines.split_inclusive('\n').collect();
    let mut requests: Vec<Request> = Vec::new();
    let mut token = 0;
    for (part, shape) in lines.chunks(lines.len().div_ceil(shapes.len())).zip(shapes) {
        let context = |what: &str, process: usize| format!("{what} asked of process {process} of {shape:?}, seed {seed}");
        let cluster = Plan::new(&dir, "web_analytics", *shape).start();
        let clients = cluster.clients();
        if !requests.is_empty() {
            let status = cluster.status();
            assert!(status["started"].as_str().is_some_and(|started| started.contains("restored")), "{shape:?}: {}", status["started"]);
            let want = expected(&requests);
            for (process, client) in clients.iter().enumerate() {
                assert_same_answers(&want, &client.answers(token), &context("after a start", process));
            }
        }
        token = ingest(&cluster, part);
        requests.extend(part.iter().filter_map(|line| parse_any(line.trim_end().as_bytes()).ok()));
        let answers = reference::answers(&requests);
        let want = reference::render(&answers);
        for (process, client) in clients.iter().enumerate() {
            check(client, token, &answers, &want, &mut random, &context("after appends", process));
        }
        let last = &clients[clients.len() - 1];
        let rebuilt = last.post("/v1/rebuild", JSON_LINES, "").ok();
        assert_eq!(rebuilt["agreed"], true, "{rebuilt}");
        for (process, client) in clients.iter().enumerate() {
            check(client, token, &answers, &want, &mut random, &context("after a rebuild", process));
        }
        let audit = last.post("/v1/audit", JSON_LINES, "").ok();
        assert_eq!(audit["agree"], true, "{shape:?}: {audit}");
        assert_eq!(audit["audits"].as_array().map(Vec::len), Some(EXACT_VIEWS.len() + 1), "{audit}");
        let status = cluster.status();
        assert!(status["handovers"].as_u64() >= Some(1), "{shape:?}: {status}");
        assert_eq!(status["last_error"], Value::Null, "{shape:?}");
        cluster.stop();
    }
    assert_eq!(requests.len() as u64, events_in(&dir.at("log")));
    lambdaflow(["audit", "web_analytics", "--log", &dir.at("log"), "-w", "2"]).exits(0);
    lambdaflow(["log", "verify", &dir.at("log")]).exits(0);
}

#[test]
fn the_access_log_is_answered_as_by_the_reference_by_any_number_of_processes() {
    let Ok(access_log) = std::fs::read_to_string(ACCESS_LOG) else {
        return println!("SKIPPED the_access_log_is_answered_as_by_the_reference_by_any_number_of_processes: no access log");
    };
    through_all_shapes(&access_log, &SHAPES);
}

#[test]
fn generated_lines_are_answered_as_by_the_reference_by_any_number_of_processes() {
    let mut shapes = SHAPES;
    shapes.reverse();
    through_all_shapes(&lines(6_000), &shapes);
}
