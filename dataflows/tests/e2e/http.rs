//! Every endpoint of the interface, as a client written against it meets it.

use std::time::{Duration, Instant};

use lambdaflow::runtime::CYCLES_WAITING_MAX;
use lambdaflow::serving::READS_WAITING_MAX;
use lambdaflow_dataflows::web_analytics::parse::parse_any;
use lambdaflow_dataflows::web_analytics::{Request, views::TOP_PATHS};
use serde_json::{Value, json};

use super::harness::*;

const ACCESS_LOG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/access.log");
/// The one hour in which the first events of [`event`] lie.
const HOUR: u64 = 1_699_999_200;
/// A tick that is not reached while anyone reads this.
const FAR_TICK: &str = "99999999999999";

fn serve(more: &[&str]) -> (Dir, Serving) {
    let dir = Dir::new();
    let server = Serving::start(dir.at("log"), more);
    (dir, server)
}

/// A server with the events of `0..n`, and the token of their append.
fn serve_events(n: u64, more: &[&str]) -> (Dir, Serving, u64) {
    let (dir, server) = serve(more);
    let token = server.append(&(0..n).map(event).collect::<Vec<_>>());
    (dir, server, token)
}

fn keys(answer: &Value) -> Vec<Value> {
    answer["rows"].as_array().expect("rows").iter().map(|row| row["key"].clone()).collect()
}

fn hits_total(answer: &Value) -> u64 {
    answer["rows"].as_array().expect("rows").iter().map(|row| row["value"]["hits"].as_u64().expect("hits")).sum()
}

fn tick(body: &Value, name: &str) -> u64 {
    body[name].as_u64().unwrap_or_else(|| panic!("no {name} in {body}"))
}

#[test]
fn appends_take_json_and_log_lines_with_any_line_ends() {
    let (_dir, server) = serve(&[]);
    let json_line = serde_json::to_string(&event(1)).expect("an event");
    let plain = lines(3);
    let plain_lines: Vec<&str> = plain.lines().collect();
    let cases: Vec<(&str, &str, String, u64)> = vec![
        ("one line", JSON_LINES, format!("{json_line}\n"), 1),
        ("no newline at the end", JSON_LINES, json_line.clone(), 1),
        ("CR LF", JSON_LINES, format!("{json_line}\r\n{json_line}\r\n"), 2),
        ("a byte order mark", JSON_LINES, format!("\u{feff}{json_line}\n"), 1),
        ("no content type of note", "application/octet-stream", format!("{json_line}\n"), 1),
        ("log lines", PLAIN_LINES, plain.clone(), 3),
        ("log lines with a charset", "text/plain; charset=utf-8", plain.clone(), 3),
        ("log lines with CR LF and a mark", PLAIN_LINES, format!("\u{feff}{}\r\n", plain_lines.join("\r\n")), 3),
        ("JSON among log lines", PLAIN_LINES, format!("{}\n{json_line}\n", plain_lines[0]), 2),
    ];
    let (mut events, mut token) = (Vec::new(), 0);
    for (name, kind, body, accepted) in cases {
        let answer = server.post("/v1/events", kind, &body).ok();
        assert_eq!((tick(&answer, "accepted"), &answer["rejected"]), (accepted, &json!([])), "{name}: {answer}");
        assert!(tick(&answer, "token") >= token, "{name}: tokens went back");
        token = tick(&answer, "token");
        let lines = body.trim_start_matches('\u{feff}').lines();
        events.extend(lines.map(|line| parse_any(line.as_bytes()).expect("an event")));
    }
    assert_same_answers(&expected(&events), &server.answers(token), "after all ways to append");

    let nothing = server.post("/v1/events", JSON_LINES, "").ok();
    assert_eq!(nothing, json!({"token": null, "accepted": 0, "rejected": []}));
    assert_eq!(server.get("/v1/status", &[]).ok()["handovers"], 1);
}

#[test]
fn an_append_is_all_or_nothing_unless_it_says_skip() {
    let (_dir, server) = serve(&[]);
    let good = |n| serde_json::to_string(&event(n)).expect("an event");
    let body = format!("{}\n{{\"at\": 1}}\n{}\nnonsense\n\n{}\n", good(1), good(2), good(3));
    for path in ["/v1/events", "/v1/events?on_error=stop"] {
        let refused = server.post(path, JSON_LINES, &body).is(400);
        assert_eq!((&refused["token"], &refused["accepted"]), (&Value::Null, &json!(0)));
        let rejected = refused["rejected"].as_array().expect("rejected lines");
        assert_eq!(rejected.iter().map(|line| tick(line, "line")).collect::<Vec<_>>(), [2, 4, 5], "{refused}");
        assert!(rejected.iter().all(|line| line["error"].as_str().is_some_and(|error| !error.is_empty())), "{refused}");
        assert!(rejected[0]["error"].as_str().expect("text").contains("missing field"), "{refused}");
    }
    let token = server.append(&[event(10)]);
    assert_same_answers(&expected(&[event(10)]), &server.answers(token), "a refused append left something");

    let taken = server.post("/v1/events?on_error=skip", JSON_LINES, &body).ok();
    assert_eq!(tick(&taken, "accepted"), 3);
    assert_eq!(taken["rejected"].as_array().expect("rejected lines").len(), 3);
    assert_same_answers(&expected(&[10, 1, 2, 3].map(event)), &server.answers(tick(&taken, "token")), "three of six lines");

    // Nothing in it is an event: nothing can be skipped to.
    let none = server.post("/v1/events?on_error=skip", PLAIN_LINES, "nonsense\n").is(400);
    assert_eq!((&none["token"], &none["accepted"], &none["rejected"][0]["line"]), (&Value::Null, &json!(0), &json!(1)));
    server.post("/v1/events?on_error=cry", JSON_LINES, &body).fails(400, "not `cry`");
}

#[test]
fn a_token_reads_what_was_written_at_once() {
    let (_dir, server) = serve(&["--batch-interval", "100ms"]);
    let mut frontier = 0;
    for n in 0..50 {
        let token = server.append(&[event(n)]);
        let (key, at_least) = (json!([format!("/e/{n}"), event(n).at / 3600 * 3600]).to_string(), token.to_string());
        let answer = server.get("/v1/views/hits/get", &[("key", &key), ("at_least", &at_least)]).ok();
        assert_eq!(answer["rows"][0]["value"], json!({"hits": 1, "bytes": 100 + n}), "round {n}: {answer}");
        assert!(tick(&answer, "as_of") >= token, "{answer}");
        assert!(tick(&answer, "as_of") < tick(&answer, "frontier") && tick(&answer, "base") <= tick(&answer, "frontier"), "{answer}");
        assert!(tick(&answer, "frontier") >= frontier, "the frontier went back: {answer}");
        frontier = tick(&answer, "frontier");
        let all = server.get("/v1/views/hits/scan", &[("at_least", &at_least)]).ok();
        assert_eq!(hits_total(&all), n + 1, "round {n}");
    }
}

#[test]
fn as_of_reads_the_past_and_says_what_is_gone_or_still_to_come() {
    let (_dir, server) = serve(&["--history", "60s", "--batch-interval", "0"]);
    let first = server.append(&[event(1)]);
    // A later tick, however coarse the clock is.
    let wait = |tick: u64| server.get("/v1/views/hits/scan", &[("at_least", &tick.to_string())]).ok();
    wait(first);
    let second = server.append(&[event(2)]);
    wait(second);
    assert!(second > first, "a tick that was answered for must be closed");
    let at = |tick: u64| server.get("/v1/views/hits/scan", &[("as_of", &tick.to_string())]);
    for (asked, hits) in [(first - 1, 0), (first, 1), (second - 1, 1), (second, 2)] {
        let answer = at(asked).ok();
        assert_eq!((tick(&answer, "as_of"), hits_total(&answer)), (asked, hits), "{answer}");
    }

    server.get("/v1/views/hits/scan", &[("as_of", FAR_TICK)]).fails(409, "is not complete yet");
    for parameter in ["as_of", "at_least"] {
        let started = Instant::now();
        server.get("/v1/views/hits/scan", &[(parameter, FAR_TICK), ("timeout_ms", "120")]).fails(504, "was not complete after");
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(120) && took < PATIENCE / 2, "{parameter} waited {took:?}");
    }
    // A tick that is reached within the timeout is waited for.
    let soon = tick(&wait(second), "frontier") + 100;
    let answer = server.get("/v1/views/hits/scan", &[("as_of", &soon.to_string()), ("timeout_ms", "30000")]).ok();
    assert_eq!((tick(&answer, "as_of"), hits_total(&answer)), (soon, 2));

    // What the batch layer has taken over is readable at its cut and later, not before.
    let handover = server.post("/v1/batch", JSON_LINES, "").ok();
    let cut = tick(&handover, "cut");
    assert!(cut > second);
    at(first).fails(410, "is no longer readable, the earliest is");
    assert_eq!(hits_total(&wait(cut)), 2);
}

#[test]
fn reads_find_keys_ranges_prefixes_and_the_greatest_values() {
    let (_dir, server, token) = serve_events(40, &[]);
    let at_least = token.to_string();
    let read = |view: &str, kind: &str, pairs: &[(&str, &str)]| {
        server.get(&format!("/v1/views/{view}/{kind}"), &[pairs, &[("at_least", &at_least)]].concat()).ok()
    };
    let check = |pass: &str| {
        let answer = read("visitors", "get", &[("key", "\"/e/7\""), ("key", "\"/nowhere\""), ("key", "\"/e/3\""), ("key", "\"/e/7\"")]);
        assert_eq!(keys(&answer), ["/e/7", "/e/3", "/e/7"], "{pass}: rows come in the order of the keys");
        assert_eq!(answer["rows"][0], json!({"key": "/e/7", "value": 1, "count": 1}));
        let answer = read("hits", "get", &[("key", &json!(["/e/7", HOUR]).to_string())]);
        assert_eq!(answer["rows"], json!([{"key": ["/e/7", HOUR], "value": {"hits": 1, "bytes": 107}, "count": 1}]), "{pass}");

        let range = |pairs: &[(&str, &str)]| keys(&read("visitors", "range", pairs));
        assert_eq!(range(&[("from", "\"/e/10\""), ("to", "\"/e/13\"")]), ["/e/10", "/e/11", "/e/12"], "{pass}: `to` is not included");
        assert_eq!(range(&[("from", "\"/e/38\""), ("limit", "3")]), ["/e/38", "/e/39", "/e/4"], "{pass}: keys are in byte order");
        assert_eq!(range(&[("to", "\"/e/1\"")]), ["/e/0"], "{pass}");
        assert_eq!(range(&[("from", "\"/e/13\""), ("to", "\"/e/10\"")]), Vec::<Value>::new(), "{pass}: an empty range");
        assert_eq!(range(&[]).len(), 40, "{pass}");
        assert_eq!(range(&[("limit", "0")]).len(), 0, "{pass}");

        let prefix = |pairs: &[(&str, &str)]| keys(&read("visitors", "prefix", pairs));
        assert_eq!(prefix(&[("prefix", "\"/e/1\"")]).len(), 11, "{pass}");
        assert_eq!(prefix(&[("prefix", "\"/e/1\""), ("limit", "2")]), ["/e/1", "/e/10"], "{pass}");
        assert_eq!(prefix(&[("prefix", "\"\"")]).len(), 40, "{pass}");
        assert_eq!(prefix(&[("prefix", "\"/f\"")]).len(), 0, "{pass}");
        assert_eq!(keys(&read("hits", "prefix", &[("prefix", "[\"/e/7\"]")])), [json!(["/e/7", HOUR])], "{pass}");

        let top = read("sessions", "top", &[]);
        assert!(top["rows"].as_array().expect("rows").len() <= TOP_PATHS, "{pass}");
        assert_eq!(read("status", "top", &[("n", "1")])["rows"], json!([{"key": [HOUR, 200], "value": 32, "count": 1}]), "{pass}");
        assert_eq!(read("status", "top", &[("n", "0")])["rows"], json!([]), "{pass}");

        let scan = read("hits", "scan", &[]);
        assert_eq!((hits_total(&scan), keys(&scan).len()), (40, 40), "{pass}");
        assert!(keys(&scan).is_sorted_by_key(|key| key[0].as_str().expect("a path").to_owned()), "{pass}");
        assert_eq!(keys(&read("hits", "scan", &[("limit", "5")])), keys(&scan)[..5], "{pass}");
    };
    check("from the speed layer");
    server.post("/v1/batch", JSON_LINES, "").ok();
    check("from the batch layer");
}

#[test]
fn views_and_status_say_what_there_is() {
    let (_dir, server, token) = serve_events(10, &["-w", "2", "--batch-interval", "0"]);
    let views = server.get("/v1/views", &[]).ok();
    let columns = json!({"views": [
        {"name": "bounce_rate", "key": ["day"], "value": ["sessions", "bounces", "rate"]},
        {"name": "errors", "key": ["message"], "value": ["operator", "partition", "tick", "offset", "row"]},
        {"name": "hits", "key": ["path", "hour"], "value": ["hits", "bytes"]},
        {"name": "referrers", "key": ["referrer"], "value": ["path", "hits", "status"]},
        {"name": "sessions", "key": ["host"], "value": ["start", "end", "hits", "entry"]},
        {"name": "status", "key": ["hour", "status"], "value": ["hits"]},
        {"name": "top_paths", "key": ["measure"], "value": ["total", "path"]},
        {"name": "visitors", "key": ["path"], "value": ["visitors"]},
        {"name": "visitors_hll", "key": ["path"], "value": ["visitors"]},
    ]});
    assert_eq!(views, columns);

    let before = server.get("/v1/status", &[]).ok();
    assert_eq!((&before["dataflow"], &before["workers"], &before["generation"]), (&json!("web_analytics"), &json!(2), &json!(1)));
    let answer = server.get("/v1/views/hits/scan", &[("at_least", &token.to_string())]).ok();
    assert!(tick(&answer, "frontier") >= tick(&before, "frontier"));

    let handover = server.post("/v1/batch", JSON_LINES, "").ok();
    let after = server.get("/v1/status", &[]).ok();
    assert_eq!(after["last_handover"], handover);
    assert_eq!((&handover["generation"], &handover["cycle"], &handover["agreed"]), (&json!(2), &json!("incremental"), &json!(true)));
    assert_eq!((&after["generation"], &after["handovers"], &after["last_error"]), (&json!(2), &json!(2), &Value::Null));
    assert_eq!(tick(&after, "base"), tick(&handover, "cut"));
    assert_eq!(tick(&after["layers"]["batch"], "frontier"), tick(&after, "base"));
    assert_eq!(after["layers"]["batch"]["running"], Value::Null);
    assert_eq!(tick(&after["layers"]["speed"], "frontier"), tick(&after, "frontier"));
    assert!(tick(&after, "frontier") >= tick(&after, "base"));

    // A page for people.
    let page = server.get("/", &[]).ok();
    assert!(page.as_str().is_some_and(|page| page.contains("/v1/views/hits/top?n=10")), "{page}");
}

#[test]
fn batch_and_rebuild_answer_when_they_have_been_switched_to() {
    let (_dir, server) = serve(&["--batch-interval", "0"]);
    let mut events: Vec<Request> = Vec::new();
    for (round, path) in ["/v1/batch", "/v1/rebuild", "/v1/batch", "/v1/rebuild"].into_iter().enumerate() {
        let more: Vec<Request> = (0..30).map(|n| event(round as u64 * 100 + n)).collect();
        let token = server.append(&more);
        events.extend(more);
        let handover = server.post(path, JSON_LINES, "").ok();
        // Without waiting for anything: the answer said so.
        let answer = server.get("/v1/views/hits/scan", &[]).ok();
        assert_eq!(tick(&answer, "base"), tick(&handover, "cut"), "{path}");
        assert!(tick(&handover, "cut") > token, "{path} left out what was appended before it");
        assert_eq!(hits_total(&answer), events.len() as u64, "{path}");
        assert_eq!(tick(&handover, "generation"), round as u64 + 2);
        assert_eq!(handover["agreed"], true, "{handover}");
        assert_same_answers(&expected(&events), &server.answers(token), path);
    }
    let audit = server.post("/v1/audit", JSON_LINES, "").ok();
    assert_eq!(audit["agree"], true, "{audit}");
}

#[test]
fn requests_that_are_not_understood_say_why_and_what_next() {
    let (_dir, server) = serve(&[]);
    let get = |path: &str, pairs: &[(&str, &str)]| server.get(path, pairs);
    get("/v2/views", &[]).fails(404, "nothing at this address");
    get("/v1/views/no_such/scan", &[]).fails(404, "there is no view `no_such`");
    get("/v1/views/hits/dance", &[]).fails(404, "`dance` is no way to read a view");
    get("/v1/views/hits/get", &[]).fails(400, "at least one key");
    get("/v1/views/hits/get", &[("key", "/index.html")]).fails(400, "key is not JSON");
    get("/v1/views/hits/get", &[("key", "7")]).fails(400, "7 is not a key of view `hits`");
    get("/v1/views/visitors/prefix", &[("prefix", "{\"path\": \"/\"}")]).fails(400, "is not a key of view `visitors`");
    get("/v1/views/hits/prefix", &[]).fails(400, "prefix=JSON");
    get("/v1/views/hits/scan", &[("as_of", "yesterday")]).fails(400, "as_of is a number, not `yesterday`");
    get("/v1/views/hits/scan", &[("limit", "-1")]).fails(400, "limit is a number, not `-1`");
    get("/v1/views/hits/scan", &[("top", "3")]).fails(400, "scan has no parameter `top`");
    get("/v1/events", &[]).fails(405, "GET");
    server.post("/v1/status", JSON_LINES, "").fails(405, "POST");
    let refused = get("/v1/views/hits/dance", &[]).is(404);
    assert_eq!(refused["hint"], "get, range, prefix, top, scan");
    // A path that is no UTF-8.
    assert!(raw(&server, "GET /v1/views/%ff/scan HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").contains("{\"error\":"));
}

#[test]
fn more_reads_than_may_wait_are_refused_and_appends_go_on() {
    let (_dir, server, _) = serve_events(10, &[]);
    let read = |timeout: &str| server.get("/v1/views/hits/scan", &[("at_least", FAR_TICK), ("timeout_ms", timeout)]);
    let request = format!("GET /v1/views/hits/scan?at_least={FAR_TICK}&timeout_ms=8000 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let waiting = send_many(&server, &request, READS_WAITING_MAX + 40);
    eventually("as many wait as may", || (waiting.answered() >= 40).then_some(()));
    read("1").fails(503, "reads wait already, for a tick or for another process");
    // Nobody else notices.
    let token = server.append(&[event(10)]);
    assert_eq!(server.get("/v1/status", &[]).status, 200);
    eventually("the append is answered", || {
        let hits = server.get("/v1/views/hits/scan", &[]).ok();
        (tick(&hits, "frontier") > token && hits_total(&hits) == 11).then_some(())
    });
    let statuses = waiting.statuses();
    assert!(statuses["504"] <= READS_WAITING_MAX && statuses["503"] >= 40, "{statuses:?}");
    assert_eq!(statuses["504"] + statuses["503"], READS_WAITING_MAX + 40, "{statuses:?}");
    assert_eq!(read("1").status, 504, "there is room again");
}

#[test]
fn more_cycles_than_may_wait_are_refused() {
    let (_dir, server, token) = serve_events(3_000, &["--batch-interval", "0"]);
    let asked = send_many(&server, "POST /v1/rebuild HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", 60);
    let statuses = asked.statuses();
    assert!(statuses["200"] >= CYCLES_WAITING_MAX && statuses["503"] > 0, "{statuses:?}");
    assert_eq!(statuses["200"] + statuses["503"], 60, "{statuses:?}");
    let hits = server.get("/v1/views/hits/scan", &[("at_least", &token.to_string())]).ok();
    assert_eq!(hits_total(&hits), 3_000);
}

#[test]
fn a_request_with_too_many_keys_is_refused() {
    let (_dir, server) = serve(&[]);
    let keys = |count: usize| (0..count).map(|n| format!("key=[%22/e/{n}%22,0]&")).collect::<String>();
    let ask = |count| raw(&server, &format!("GET /v1/views/hits/get?{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", keys(count)));
    let answer = ask(2_000);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let answer = ask(4_000);
    assert!(answer.starts_with("HTTP/1.1 414 "), "{answer}");
}

#[test]
fn a_body_over_the_limit_is_refused_before_it_is_sent() {
    let (_dir, server) = serve(&[]);
    let length = (64 << 20) + 1;
    let answer = raw(&server, &format!("POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"));
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let body: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).expect("a body")).expect("JSON");
    assert!(body["error"].as_str().is_some_and(|error| error.contains("67108864")), "{body}");
    assert!(body["hint"].as_str().is_some_and(|hint| hint.contains("in parts")), "{body}");
}

#[test]
fn the_access_log_over_http_is_answered_as_by_the_reference() {
    let Ok(access_log) = std::fs::read(ACCESS_LOG) else {
        return println!("SKIPPED the_access_log_over_http_is_answered_as_by_the_reference: no {ACCESS_LOG}");
    };
    let (_dir, server) = serve(&["-w", "2", "--batch-interval", "200ms"]);
    let lines: Vec<&[u8]> = access_log.split_inclusive(|byte| *byte == b'\n').collect();
    let (mut token, mut accepted, mut rejected) = (0, 0, Vec::new());
    for (chunk, lines) in lines.chunks(700).enumerate() {
        let answer = server.post("/v1/events?on_error=skip", PLAIN_LINES, lines.concat()).ok();
        token = tick(&answer, "token");
        accepted += tick(&answer, "accepted");
        rejected.extend(answer["rejected"].as_array().expect("lines").iter().map(|line| chunk as u64 * 700 + tick(line, "line")));
    }
    assert_eq!((accepted, rejected), (9_999, vec![8_899]), "one line has no closing quote");
    let requests: Vec<Request> = lines.iter().filter_map(|line| parse_any(line).ok()).collect();
    let want = expected(&requests);
    assert_same_answers(&want, &server.answers(token), "over both layers");
    let rebuilt = server.post("/v1/rebuild", JSON_LINES, "").ok();
    assert_eq!(rebuilt["agreed"], true);
    assert_same_answers(&want, &server.answers(token), "after a rebuild");
}
