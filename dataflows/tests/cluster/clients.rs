//! What clients may count on does not depend on which process they ask.

use lambdaflow::http::BODY_BYTES_MAX;
use lambdaflow::log::APPEND_EVENTS_MAX;
use serde_json::{Value, json};

use super::cluster::*;
use super::harness::*;

fn append(client: &Client, producer: &str, sequence: u64, events: std::ops::Range<u64>) -> Reply {
    let events: Vec<_> = events.map(event).collect();
    client.post(&format!("/v1/events?producer={producer}&sequence={sequence}"), JSON_LINES, ndjson(&events))
}

/// What an answer says of where an append is.
fn place(answer: &Value) -> [Value; 4] {
    ["token", "accepted", "partition", "first_offset"].map(|name| answer[name].clone())
}

#[test]
fn a_numbered_append_is_stored_once_whichever_process_it_is_repeated_at() {
    const PRODUCERS: u64 = 6;
    const APPENDS: u64 = 4;
    let dir = Dir::new();
    let mut places: Vec<[Value; 4]> = Vec::new();
    let mut sent: Vec<std::ops::Range<u64>> = Vec::new();
    for (round, shape) in [(3, 1), (2, 2), (1, 2), (3, 2)].into_iter().enumerate() {
        let cluster = Plan::new(&dir, "web_analytics", shape).start();
        let clients = cluster.clients();
        let of = |n: u64| &clients[n as usize % clients.len()];
        // Everything that was appended before this start, again, everywhere.
        let again = |at: u64| {
            for (n, (events, place_of)) in sent.iter().zip(&places).enumerate() {
                let (round, n) = (n as u64 / (PRODUCERS * APPENDS), n as u64 % (PRODUCERS * APPENDS));
                let (producer, sequence) = (n / APPENDS, round * APPENDS + n % APPENDS);
                let answer = append(of(producer + sequence + at), &format!("p{producer}"), sequence, events.clone()).ok();
                assert_eq!(place(&answer), *place_of, "append {sequence} of p{producer} under {shape:?}");
            }
        };
        again(round as u64);
        for producer in 0..PRODUCERS {
            for sequence in (round as u64 * APPENDS)..(round as u64 + 1) * APPENDS {
                let first = sent.last().map_or(0, |last| last.end);
                let events = first..first + 1 + producer;
                let name = format!("p{producer}");
                let answer = append(of(producer + sequence), &name, sequence, events.clone()).ok();
                assert_eq!(answer["accepted"], events.end - events.start, "{answer}");
                for other in 0..clients.len() as u64 {
                    assert_eq!(place(&append(of(other), &name, sequence, events.clone()).ok()), place(&answer));
                }
                // Every process knows what it must refuse.
                let ahead = append(of(producer + 1), &name, sequence + 2, events.clone()).is(409);
                assert_eq!(ahead["expected"], sequence + 1, "{ahead}");
                let other = append(of(producer + 2), &name, sequence, first + 1..first + 2 + producer).is(409);
                assert_eq!(other["expected"], sequence + 1, "{other}");
                sent.push(events);
                places.push(place(&answer));
            }
        }
        let token = places.iter().filter_map(|place| place[0].as_u64()).max().expect("appends");
        let all: Vec<_> = sent.iter().cloned().flatten().map(event).collect();
        for (process, client) in clients.iter().enumerate() {
            assert_same_answers(&expected(&all), &client.answers(token), &format!("process {process} of {shape:?}"));
        }
        cluster.stop();
        assert_eq!(events_in(&dir.at("log")), all.len() as u64, "{shape:?}");
    }
}

/// The process that owns a producer's partition answers of itself, the others say what it said.
#[test]
fn what_is_refused_is_refused_alike_by_every_process() {
    let dir = Dir::new();
    let (json, numbered) = (|text: &str| json!({ "text": text }).to_string(), "/v1/events?producer=p&sequence=1");
    let too_many = "a\n".repeat(APPEND_EVENTS_MAX + 1);
    let far = [("as_of", "99999999999999")];
    let replies = |dataflow, ask: &dyn Fn(&Client) -> Vec<Reply>| -> Vec<Vec<Reply>> {
        let cluster = Plan { log: dir.at(dataflow), ..Plan::new(&dir, dataflow, (3, 1)) }.start();
        let replies = cluster.clients().iter().map(ask).collect();
        cluster.stop();
        replies
    };
    let check = |dataflow, expected: &[u16], ask: &dyn Fn(&Client) -> Vec<Reply>| {
        for (process, replies) in replies(dataflow, ask).into_iter().enumerate() {
            let got: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
            assert_eq!(got, expected, "process {process} over {dataflow}: {replies:?}");
            assert!(replies.iter().all(|reply| reply.body["error"].is_string()), "process {process} over {dataflow}: {replies:?}");
        }
    };
    check("bank", &[415, 415], &|client| vec![client.post(numbered, PLAIN_LINES, "1"), client.post("/v1/events", PLAIN_LINES, "1")]);
    check("wordcount", &[413, 413, 413, 409, 400, 400, 404, 409], &|client| {
        // Refused before it is sent.
        let length = BODY_BYTES_MAX + 1;
        let too_large =
            raw(client, &format!("POST {numbered} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"));
        let (head, body) = too_large.split_once("\r\n\r\n").expect("a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        vec![
            client.post("/v1/events?producer=p&sequence=0", PLAIN_LINES, &too_many),
            client.post("/v1/events", PLAIN_LINES, &too_many),
            Reply { status, body: serde_json::from_str(body).expect("JSON") },
            client.post(numbered, JSON_LINES, json("before its number's turn")),
            client.post("/v1/events?producer=&sequence=0", JSON_LINES, json("of nobody")),
            client.get("/v1/views/words/get", &[("key", "[1]")]),
            client.get("/v1/views/nothing/scan", &[]),
            client.get("/v1/views/words/scan", &far),
        ]
    });
}

#[test]
fn every_process_says_how_cycles_go_and_what_its_own_share_is() {
    let dir = Dir::new();
    let mut plan = Plan::new(&dir, "web_analytics", (3, 1));
    // Cycles run on request only.
    plan.more = ["--batch-interval", "0"].map(str::to_owned).to_vec();
    let cluster = plan.start();
    for round in 1..=2 {
        cluster[2].append(&[event(round)]);
        let handover = cluster[1].post("/v1/batch", JSON_LINES, "").ok();
        for (process, client) in cluster.clients().iter().enumerate() {
            let known = |status: &Value| status["cycles_unknown"].is_null();
            let status = eventually("it knows how cycles go", || Some(client.get("/v1/status", &[]).ok()).filter(known));
            assert_eq!(status["generation"], handover["generation"], "process {process}");
            assert_eq!(status["base"], handover["cut"], "process {process}");
            // The first generation was a handover, too.
            assert_eq!(status["handovers"], round + 1, "process {process}");
            assert_eq!(status["last_handover"], handover, "process {process}");
            assert_eq!((&status["last_error"], &status["layers"]["batch"]["running"]), (&Value::Null, &Value::Null), "process {process}");
            let share = &status["share"];
            assert_eq!((&share["process"], &share["of"]), (&json!(process), &json!(3)), "{status}");
            let partitions = share["log"]["partitions"].as_array().expect("partitions");
            assert_eq!(partitions.iter().map(|partition| &partition["partition"]).collect::<Vec<_>>(), [&json!(process)], "{status}");
        }
    }
    cluster.stop();
}

#[test]
fn a_file_ingested_twice_through_two_processes_is_stored_once() {
    let dir = Dir::new();
    let cluster = Plan::new(&dir, "web_analytics", (2, 1)).start();
    let file = dir.file("lines", lines(3_000));
    for client in cluster.clients() {
        lambdaflow(["ingest", "web_analytics", &file, "--to", &client.url, "--producer", "nightly"]).exits(0);
    }
    cluster.stop();
    assert_eq!(events_in(&dir.at("log")), 3_000);
}

#[test]
fn a_token_of_one_process_reads_what_was_written_at_every_other() {
    let dir = Dir::new();
    let cluster = Plan::new(&dir, "web_analytics", (3, 1)).start();
    let clients = cluster.clients();
    let mut frontiers = vec![0; clients.len()];
    let key = |n: u64| json!([format!("/e/{n}"), event(n).at / 3600 * 3600]).to_string();
    for n in 0..60 {
        let token = clients[n as usize % 3].append(&[event(n)]).to_string();
        for (process, client) in clients.iter().enumerate() {
            // A key is on one process, and every process is asked for it.
            let pairs = [("key", key(n)), ("key", key(n / 2)), ("at_least", token.clone())];
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = client.get("/v1/views/hits/get", &pairs).ok();
            let tick = |name: &str| answer[name].as_u64().expect("a tick");
            let values: Vec<&Value> = answer["rows"].as_array().expect("rows").iter().map(|row| &row["value"]).collect();
            let one = |n: u64| json!({"hits": 1, "bytes": 100 + n});
            assert_eq!(values, [&one(n), &one(n / 2)], "event {n} asked of process {process}: {answer}");
            assert!(tick("as_of").to_string() >= token && tick("as_of") < tick("frontier") && tick("base") <= tick("frontier"));
            assert!(tick("frontier") >= frontiers[process], "the frontier of process {process} went back: {answer}");
            frontiers[process] = tick("frontier");
        }
    }
    // A tick that every process has complete is the same at each.
    let as_of = (*frontiers.iter().min().expect("three") - 1).to_string();
    let scans: Vec<Value> =
        clients.iter().map(|client| client.get("/v1/views/hits/scan", &[("as_of", &as_of)]).ok()["rows"].clone()).collect();
    assert!(scans.iter().all(|rows| rows == &scans[0]) && scans[0].as_array().is_some_and(|rows| rows.len() == 60), "{scans:?}");
    for client in &clients {
        client.get("/v1/views/hits/get", &[("key", "[1]")]).fails(400, "key");
        client.get("/v1/views/nothing/scan", &[]).fails(404, "no view");
        client.get("/v1/views/hits/scan", &[("as_of", "99999999999999")]).fails(409, "is not complete yet");
    }
    cluster.stop();
}
