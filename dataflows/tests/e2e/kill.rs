//! `kill -9` of the program, at moments that nobody chose, and then all its promises again.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lambdaflow::testing::Random;
use lambdaflow_dataflows::web_analytics::Request;
use lambdaflow_dataflows::web_analytics::parse::parse_any;
use serde_json::Value;

use super::harness::*;

const ROUNDS: usize = 6;
const APPENDERS: u64 = 3;
/// Most events of one request.
const REQUEST_EVENTS_MAX: u64 = 40;
/// Requests that are answered before the process is killed, at most.
const ACKS_MAX: u64 = 120;

/// What a client knows of a request it made.
#[derive(Clone, Debug)]
struct Sent {
    events: Range<u64>,
    /// None if the process was killed before it answered.
    token: Option<u64>,
}

/// What clients were told by one process.
#[derive(Default)]
struct Told {
    sent: Mutex<Vec<Sent>>,
    acknowledged: AtomicU64,
    frontier: AtomicU64,
    stop: AtomicBool,
}

/// Appends requests until the process is gone. `next` numbers events over all clients and processes.
fn append(client: &Client, told: &Told, next: &AtomicU64, mut random: Random) {
    while !told.stop.load(Ordering::Acquire) {
        let n = 1 + random.below(REQUEST_EVENTS_MAX);
        let first = next.fetch_add(n, Ordering::Relaxed);
        let events: Vec<Request> = (first..first + n).map(event).collect();
        let reply = client.try_post("/v1/events", JSON_LINES, ndjson(&events));
        let token = match &reply {
            Ok(reply) if reply.status == 200 => Some(reply.body["token"].as_u64().expect("a token")),
            Ok(reply) => panic!("an append was refused: {reply:?}"),
            Err(_) => None,
        };
        told.sent.lock().expect("not poisoned").push(Sent { events: first..first + n, token });
        match token {
            Some(_) => told.acknowledged.fetch_add(1, Ordering::Release),
            None => return,
        };
    }
}

/// Reads until the process is gone, and keeps the highest frontier that was answered.
fn read(client: &Client, told: &Told) {
    while let Ok(reply) = client.try_get("/v1/views/hits/scan", &[("limit", "1")]) {
        let frontier = reply.ok()["frontier"].as_u64().expect("a tick");
        let before = told.frontier.fetch_max(frontier, Ordering::AcqRel);
        assert!(frontier >= before, "the frontier went from {before} to {frontier}");
    }
}

/// How often each event is in the view `hits`.
fn counted(answer: &Value) -> BTreeMap<u64, u64> {
    let mut counted = BTreeMap::new();
    for row in answer["rows"].as_array().expect("rows") {
        let path = row["key"][0].as_str().expect("a path");
        let n = path.strip_prefix("/e/").and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("nobody appended {path}"));
        *counted.entry(n).or_default() += row["value"]["hits"].as_u64().expect("a number");
    }
    counted
}

#[test]
fn every_acknowledged_event_is_there_once_after_each_kill() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    let mut random = Random::new(seed);
    let dir = Dir::new();
    let log = dir.at("log");
    let next = Arc::new(AtomicU64::new(0));
    let mut sent: Vec<Sent> = Vec::new();
    let mut frontier = 0;
    let (mut unanswered, mut kept, mut restored) = (0, 0, 0);
    for round in 0..ROUNDS {
        let context = format!("round {round}, seed {seed}");
        let in_a_cycle = round % 2 == 1;
        let workers = (1 + round % 3).to_string();
        let interval = if in_a_cycle { "200ms" } else { "0" };
        let server = Serving::start(&log, &["-w", &workers, "--tick", "2ms", "--batch-interval", interval]);

        let told = Arc::new(Told::default());
        let appenders: Vec<_> = (0..APPENDERS)
            .map(|appender| {
                let (client, told, next) = (server.client.clone(), Arc::clone(&told), Arc::clone(&next));
                let random = Random::new(seed.wrapping_add(round as u64 * APPENDERS + appender));
                std::thread::spawn(move || append(&client, &told, &next, random))
            })
            .collect();
        let reader = {
            let (client, told) = (server.client.clone(), Arc::clone(&told));
            std::thread::spawn(move || read(&client, &told))
        };

        let enough = 1 + random.below(ACKS_MAX);
        eventually("requests are acknowledged", || (told.acknowledged.load(Ordering::Acquire) >= enough).then_some(()));
        if in_a_cycle {
            let status = || server.get("/v1/status", &[]).ok()["layers"]["batch"]["running"].clone();
            eventually("a batch cycle runs", || status().is_string().then_some(()));
        }
        // The moment is what is random here: some point within a group commit, a cycle, a handover.
        std::thread::sleep(Duration::from_micros(random.below(3_000)));
        server.process.kill();
        told.stop.store(true, Ordering::Release);
        appenders.into_iter().for_each(|appender| appender.join().expect("an appender goes on until the kill"));
        reader.join().expect("the reader goes on until the kill");
        sent.append(&mut told.sent.lock().expect("not poisoned"));
        frontier = frontier.max(told.frontier.load(Ordering::Acquire));
        lambdaflow(["log", "verify", &log]).exits(0);

        let server = Serving::start(&log, &["-w", &workers, "--tick", "2ms"]);
        restored += usize::from(server.get("/v1/status", &[]).ok()["started"].as_str().expect("a sentence").contains("restored"));
        let first = server.get("/v1/views/hits/scan", &[]).ok();
        let now = first["frontier"].as_u64().expect("a tick");
        assert!(now >= frontier, "{context}: the frontier was {frontier} before the kill and is {now}");
        let last = next.fetch_add(1, Ordering::Relaxed);
        let token = server.append(&[event(last)]);
        let latest = sent.iter().filter_map(|sent| sent.token).max().unwrap_or_default();
        assert!(token >= latest.max(frontier), "{context}: token {token} after token {latest} and frontier {frontier}");
        sent.push(Sent { events: last..last + 1, token: Some(token) });

        let hits = server.get("/v1/views/hits/scan", &[("at_least", &token.to_string())]).ok();
        let counted = counted(&hits);
        let twice: Vec<_> = counted.iter().filter(|(_, count)| **count != 1).collect();
        assert!(twice.is_empty(), "{context}: counted more than once: {twice:?}");
        let mut there = 0;
        for request in &sent {
            let events = request.events.clone().filter(|n| counted.contains_key(n)).count() as u64;
            let all = request.events.end - request.events.start;
            match request.token {
                Some(_) => assert_eq!(events, all, "{context}: acknowledged events are lost: {request:?}"),
                None => assert!(events == 0 || events == all, "{context}: {events} of {request:?}"),
            }
            there += events;
        }
        assert_eq!(counted.len() as u64, there, "{context}: events that nobody sent");
        assert_eq!(events_in(&log), there, "{context}: the log and the view `hits` differ");
        unanswered = sent.iter().filter(|sent| sent.token.is_none()).count();
        kept = sent.iter().filter(|sent| sent.token.is_none() && counted.contains_key(&sent.events.start)).count();

        let answers = server.answers(token);
        server.stop();
        let events = cat(&log);
        assert_eq!(events.len() as u64, there, "{context}");
        assert_same_answers(&expected(&events), &answers, &context);
        frontier = frontier.max(now);
    }
    let acknowledged = sent.len() - unanswered;
    assert!(restored > 0, "no restart went on from a generation");
    println!(
        "{ROUNDS} kills, {restored} times restored: {acknowledged} requests acknowledged, {unanswered} not, of which {kept} are in the log"
    );
}

/// Bytes of the files in a directory, 0 if there is none.
fn bytes_in(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

#[test]
fn a_killed_ingestion_leaves_a_prefix_of_the_file_and_can_be_resumed() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    let mut random = Random::new(seed);
    let dir = Dir::new();
    let generated = lambdaflow(["generate", "web_analytics", "--events", "80000"]).exits(0).out;
    let file = dir.file("requests.log", &generated);
    let requests: Vec<Request> = generated.lines().map(|line| parse_any(line.as_bytes()).expect("a good line")).collect();

    // How large the log becomes when nobody disturbs it is the range of the moments.
    lambdaflow(["ingest", "web_analytics", "--log", &dir.at("whole"), &file]).exits(0);
    let whole = bytes_in(&dir.path("whole/p0000"));

    let mut cut_short = 0;
    for round in 0..4 {
        let log = dir.at(&format!("log-{round}"));
        let mut ingestion = start(program(["ingest", "web_analytics", "--log", &log, "--on-error", "skip", &file]), "");
        let (partition, moment) = (dir.path(&format!("log-{round}/p0000")), random.below(whole));
        eventually("the log has grown so far", || (bytes_in(&partition) >= moment || ingestion.ended().is_some()).then_some(()));
        ingestion.kill();
        let context = format!("round {round}, seed {seed}");

        lambdaflow(["log", "verify", &log]).exits(0);
        let kept = cat(&log);
        assert!(kept.len() <= requests.len(), "{context}");
        assert!(kept == requests[..kept.len()], "{context}: {} events are no prefix of the file", kept.len());
        cut_short += usize::from(kept.len() < requests.len());

        let rest: String = generated.split_inclusive('\n').skip(kept.len()).collect();
        lambdaflow_with_input(["ingest", "web_analytics", "--log", &log, "-"], rest).exits(0);
        assert!(cat(&log) == requests, "{context}: resumed after {} events", kept.len());
        println!("killed after {} of {} events, resumed", kept.len(), requests.len());
    }
    assert!(cut_short > 0, "no kill was in time, seed {seed}");
}
