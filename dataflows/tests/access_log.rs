//! Facts about a real access log of 10,000 lines, counted by another program.
//!
//! The log is not part of the repository; without it the tests say so and pass.

use lambdaflow_dataflows::web_analytics::Request;
use lambdaflow_dataflows::web_analytics::generate::to_combined_line;
use lambdaflow_dataflows::web_analytics::parse::{ParseError, parse_line};
use lambdaflow_dataflows::web_analytics::reference::answers;
use serde_json::{Value, json};

const LOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/access.log");

fn log() -> Option<Vec<u8>> {
    match std::fs::read(LOG) {
        Ok(log) => Some(log),
        Err(error) => {
            println!("skipped: no log at {LOG}: {error}");
            None
        }
    }
}

fn lines(log: &[u8]) -> impl Iterator<Item = &[u8]> {
    log.split_inclusive(|&byte| byte == b'\n')
}

fn requests(log: &[u8]) -> Vec<Request> {
    lines(log).filter_map(|line| parse_line(line).ok()).collect()
}

#[test]
fn all_lines_but_the_one_without_a_closing_quote_are_read() {
    let Some(log) = log() else { return };
    let failures: Vec<(usize, ParseError)> =
        (1..).zip(lines(&log)).filter_map(|(number, line)| Some((number, parse_line(line).err()?))).collect();
    let unterminated = ParseError::Unterminated { field: "user agent", column: 111 };
    assert_eq!(lines(&log).count(), 10_000);
    assert_eq!(failures, [(8_899, unterminated)]);
}

#[test]
fn requests_survive_being_written_and_read() {
    let Some(log) = log() else { return };
    for request in requests(&log) {
        let line = to_combined_line(&request);
        assert_eq!(parse_line(line.as_bytes()), Ok(request), "{line}");
    }
}

#[test]
fn the_reference_agrees_with_another_program() {
    let Some(log) = log() else { return };
    let requests = requests(&log);
    let answers = answers(&requests);

    let counts: Vec<(&str, usize)> = answers.iter().map(|(view, rows)| (*view, rows.len())).collect();
    assert_eq!(
        counts,
        [
            ("bounce_rate", 4),
            ("errors", 0),
            ("hits", 5_648),
            ("referrers", 2_656),
            ("sessions", 3_052),
            ("status", 291),
            ("top_paths", 20),
            ("visitors", 1_498),
        ]
    );
    let has = |view: &str, key: Value, value: Value| {
        let row = json!({"key": key, "value": value, "count": 1});
        assert!(answers[view].contains(&row), "{view} has no {row}");
    };
    let sum = |view: &str, field: &str| -> u64 {
        let rows = answers[view].iter();
        rows.filter_map(|row| row["value"][field].as_u64()).sum()
    };
    assert_eq!(sum("hits", "hits"), 9_999);
    assert_eq!(sum("hits", "bytes"), 2_747_282_505);
    assert_eq!(sum("sessions", "hits"), 9_999);

    has("status", json!([1_431_856_800, 200]), json!(73));
    has("status", json!([1_431_856_800, 404]), json!(1));
    has("visitors", json!("/favicon.ico"), json!(683));
    has("top_paths", json!("hits"), json!([807, "/favicon.ico"]));
    has("top_paths", json!("hits"), json!([180, "/robots.txt"]));
    has("top_paths", json!("bytes"), json!([1_303_362_072, "/misc/sample.log"]));
    has("top_paths", json!("bytes"), json!([35_554_730, "/files/logstash/logstash-1.0.17-monolithic.jar"]));
    has(
        "sessions",
        json!("83.149.9.216"),
        json!({
            "start": 1_431_857_100,
            "end": 1_431_857_159,
            "hits": 23,
            "entry": "/presentations/logstash-monitorama-2013/images/redis.png",
        }),
    );
    has(
        "referrers",
        json!("http://www.semicomplete.com/style2.css"),
        json!({"path": "/images/web/2009/banner.png", "hits": 200, "status": 200}),
    );
    for (day, sessions, bounces) in
        [(1_431_820_800, 512, 265), (1_431_907_200, 974, 537), (1_431_993_600, 812, 415), (1_432_080_000, 754, 390)]
    {
        let rate = f64::from(bounces) / f64::from(sessions);
        let value = json!({"sessions": sessions, "bounces": bounces, "rate": rate});
        has("bounce_rate", json!(day), value);
    }
}

#[test]
fn every_host_of_the_log_has_a_session() {
    let Some(log) = log() else { return };
    let answers = answers(&requests(&log));
    let mut hosts: Vec<&Value> = answers["sessions"].iter().map(|row| &row["key"]).collect();
    hosts.dedup();
    assert_eq!(hosts.len(), 1_753);
}
