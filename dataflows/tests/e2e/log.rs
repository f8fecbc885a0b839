//! What is stored once, removed, copied: the commands that work on a log, and the requests that number appends.

use std::path::Path;

use lambdaflow::runtime::BATCH_LINES_MAX;
use lambdaflow_dataflows::web_analytics::Request;
use serde_json::{Value, json};

use super::harness::*;

const DATAFLOW: [&str; 2] = ["--dataflow", "web_analytics"];

/// JSON lines of more than two batches, and a bad line in the midst.
fn input() -> (String, usize) {
    let count = 2 * BATCH_LINES_MAX + 300;
    let line = |n: usize| if n == BATCH_LINES_MAX + 7 { "nonsense\n".to_owned() } else { ndjson(&[event(n as u64)]) };
    ((0..count).map(line).collect(), count - 1)
}

/// The events of a log by path, each of which [`event`] makes once.
fn is_once_each(log: &str, count: usize) {
    let mut paths: Vec<String> = cat(log).into_iter().map(|event| event.path).collect();
    assert_eq!(paths.len(), count);
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), count, "an event is there twice");
}

fn ingest(log: &[&str], file: &str, producer: &str) -> Ended {
    let arguments = [&["ingest", "web_analytics", file, "--on-error", "skip", "--producer", producer], log].concat();
    lambdaflow(arguments)
}

#[test]
fn a_file_that_a_producer_ingests_again_is_stored_once_into_a_log_and_into_a_server() {
    let dir = Dir::new();
    let (text, count) = input();
    let (file, log) = (dir.file("requests.json", &text), dir.at("log"));
    // Killed when the second batch was on disk and nobody was told.
    let mut killed = program(["ingest", "web_analytics", &file, "--on-error", "skip", "--producer", "nightly", "--log", &log]);
    killed.env("LAMBDAFLOW_CRASH_AT", "append.after_sync:2");
    if cfg!(debug_assertions) {
        assert_eq!(start(killed, "").wait().code, -1, "it is killed");
    }
    for _ in 0..2 {
        ingest(&["--log", &log], &file, "nightly").exits(0);
        assert_eq!(events_in(&log), count as u64);
    }
    let server = Serving::start(&log, &[]);
    ingest(&["--to", &server.url], &file, "nightly").exits(0);
    // Other lines under the same name are no repetition.
    let other = dir.file("other.json", ndjson(&[event(1_000_000)]));
    ingest(&["--to", &server.url], &other, "nightly").exits(2).says(&[
        "append 0 of producer `nightly`",
        "other events",
        "hint: two producers",
    ]);
    ingest(&["--to", &server.url], &other, "hourly").exits(0);
    server.stop();
    ingest(&["--log", &log], &other, "nightly").exits(2).says(&["append 0 of producer `nightly`"]);
    is_once_each(&log, count + 1);
}

#[test]
fn a_numbered_append_is_answered_again_as_the_first_time_and_a_wrong_number_says_what_is_expected() {
    let dir = Dir::new();
    let mut server = Serving::start(dir.at("log"), &[]);
    let path = |sequence: &str| format!("/v1/events?producer=till%207&sequence={sequence}");
    let post = |server: &Serving, sequence: u64| server.post(&path(&sequence.to_string()), JSON_LINES, ndjson(&[event(sequence)]));
    let first: Vec<Value> = (0..3).map(|sequence| post(&server, sequence).ok()).collect();
    assert_eq!((&first[2]["accepted"], &first[2]["partition"], &first[2]["first_offset"]), (&json!(1), &json!(0), &json!(2)));
    for restart in [false, true] {
        if restart {
            server.process.kill();
            server = Serving::start(dir.at("log"), &[]);
        }
        for sequence in 0..3 {
            assert_eq!(post(&server, sequence).ok(), first[sequence as usize]);
        }
        let ahead = post(&server, 4).is(409);
        assert_eq!((&ahead["expected"], &ahead["oldest"]), (&json!(3), &Value::Null), "{ahead}");
        let differs = server.post(&path("1"), JSON_LINES, ndjson(&[event(99)])).is(409);
        assert!(differs["error"].as_str().expect("text").contains("with other events") && differs["expected"] == 3, "{differs}");
    }
    server.post(&path("x"), JSON_LINES, "").fails(400, "sequence is a number");
    server.post("/v1/events?producer=p", JSON_LINES, "").fails(400, "go together");
    assert!(server.post("/v1/events?producer=&sequence=0", JSON_LINES, ndjson(&[event(0)])).is(400)["error"].is_string());
    server.stop();
    assert_eq!(cat(&dir.at("log")), (0..3).map(event).collect::<Vec<Request>>());
}

/// Whether any file below has these bytes.
fn holds(dir: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(dir).expect("a directory").any(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        std::fs::read(&path).expect("a file").windows(bytes.len()).any(|window| window == bytes)
    })
}

#[test]
fn redacted_events_are_gone_from_the_log_from_generations_and_from_answers() {
    let dir = Dir::new();
    let log = dir.at("log");
    let mut events: Vec<Request> = (0..60).map(event).collect();
    for event in events.iter_mut().filter(|event| event.host == "10.0.0.3") {
        event.path = "/Waldeinsamkeit".to_owned();
    }
    let server = Serving::start(&log, &["--batch-interval", "0"]);
    server.append(&events);
    server.post("/v1/batch", JSON_LINES, "").ok();
    lambdaflow([&["log", "redact", &log, "--where", "host = 10.0.0.3", "--why", "letter 5"], &DATAFLOW[..]].concat())
        .exits(6)
        .says(&["in use by process"]);
    server.stop();
    assert!(holds(&dir.path("log"), b"Waldeinsamkeit"));

    let redact = |more: &[&str]| lambdaflow([&["log", "redact", &log, "--why", "letter 5"], more, &DATAFLOW[..]].concat());
    let dry = redact(&["--where", "host = 10.0.0.3", "--dry-run", "--format", "json"]).exits(0).json();
    assert_eq!((&dry["id"], &dry["matching"], &dry["events"]), (&Value::Null, &json!([7]), &json!([60])), "{dry}");
    assert_eq!(events_in(&log), 60);
    redact(&["--where", "host = nobody"]).exits(1);
    redact(&["--where", "hots = 10.0.0.3"]).exits(2).says(&["no event has that field", "hint: `log cat"]);
    redact(&["--where", "host"]).exits(2).says(&["no operator", "hint: FIELD OPERATOR VALUE"]);
    let done = redact(&["--where", "host = 10.0.0.3", "--where", "bytes >= 0"]).exits(0);
    assert_eq!(done.out, "partition 0: 7 of 60 events match\nredaction 1: removed 7 events from 1 segments\n");
    assert!(!holds(&dir.path("log"), b"Waldeinsamkeit"), "in no file of the log's directory, generations included");

    let list = lambdaflow(["log", "redactions", &log]).exits(0).out;
    assert!(
        list.contains("7 events where host = 10.0.0.3 and bytes >= 0\n  why: letter 5\n  partition 0 offsets 0 to 60: 7 events"),
        "{list}"
    );
    events.retain(|event| event.host != "10.0.0.3");
    assert_eq!(cat(&log), events);
    lambdaflow(["log", "verify", &log]).exits(0);
    assert!(lambdaflow(["log", "info", &log]).exits(0).out.contains("53 events and 7 offsets without one"));
    let server = Serving::start(&log, &[]);
    let token = server.append(&[event(100)]);
    events.push(event(100));
    assert_same_answers(&expected(&events), &server.answers(token), "after a redaction");
    server.stop();
}

#[test]
fn a_log_is_rewritten_and_what_is_left_of_a_damaged_one_salvaged() {
    let dir = Dir::new();
    let (log, copy, rest) = (dir.at("log"), dir.at("copy"), dir.at("rest"));
    let file = dir.file("requests.json", ndjson(&(0..500).map(event).collect::<Vec<_>>()));
    lambdaflow(["ingest", "web_analytics", "--log", &log, &file]).exits(0);
    let rewrite = |target: &str| lambdaflow([&["log", "rewrite", &log, target], &DATAFLOW[..]].concat());
    assert!(rewrite(&copy).exits(0).out.starts_with("500 events in 1 segments, of 1 before; "));
    rewrite(&copy).exits(2).says(&[&copy, "hint: name a new or an empty directory"]);
    assert_eq!(cat(&copy), cat(&log));

    let salvage = |from: &str, target: &str| lambdaflow([&["log", "salvage", from, target], &DATAFLOW[..]].concat());
    assert!(salvage(&log, &rest).exits(0).out.starts_with("500 events copied, 0 offsets lost; log "));
    let segment = dir.path("log").join("p0000").join(format!("{:020}.seg", 0));
    let mut bytes = std::fs::read(&segment).expect("a segment");
    bytes[200] ^= 1;
    std::fs::write(&segment, &bytes).expect("a segment");
    rewrite(&dir.at("never")).exits(3).says(&["is damaged at byte", "hint: `log verify DIR`"]);
    let lost = salvage(&log, &dir.at("less")).exits(3).out;
    assert!(
        lost.starts_with("lost: partition 0 offsets 0 to 500: segment 0000") && lost.contains("0 events copied, 500 offsets lost"),
        "{lost}"
    );
    assert_eq!(std::fs::read(&segment).expect("a segment"), bytes);
    let server = Serving::start(dir.at("less"), &[]);
    assert_eq!(server.post("/v1/events?producer=p&sequence=0", JSON_LINES, ndjson(&[event(1)])).ok()["first_offset"], 500);
    server.stop();
}
