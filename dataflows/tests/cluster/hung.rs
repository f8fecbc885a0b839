//! A process that hangs and does not count as lost yet: answers that need it fail with its name, all others are given.

use lambdaflow::runtime::APPENDS_PASSED_ON_MAX;
use lambdaflow::serving::READS_WAITING_MAX;
use serde_json::{Value, json};

use super::cluster::*;
use super::harness::*;

#[test]
fn reads_that_need_a_hung_process_name_it_and_all_others_are_answered() {
    const HUNG: usize = 2;
    const KEYS: u64 = 40;
    let dir = Dir::new();
    let plan = Plan::new(&dir, "web_analytics", (3, 1)).with(&["--peer-timeout", "60s"]);
    let cluster = plan.start();
    let token = cluster[1].append(&(0..KEYS).map(event).collect::<Vec<_>>()).to_string();
    let get = |process: usize, n: u64, more: &[(&str, &str)]| {
        let key = json!(format!("/e/{n}")).to_string();
        cluster[process].get("/v1/views/visitors/get", &[&[("key", key.as_str()), ("timeout_ms", "500")], more].concat())
    };
    for process in 0..3 {
        let seen = cluster[process].get("/v1/views/visitors/scan", &[("at_least", &token)]).ok();
        assert_eq!(seen["rows"].as_array().map(Vec::len), Some(KEYS as usize), "process {process}");
    }

    signal("STOP", cluster[HUNG].process.id());
    let name = plan.name(HUNG);
    let (mut answered, mut unreachable) = (0, 0);
    for n in 0..KEYS {
        // Every key is asked of one of those that live, until it is known that there are both kinds.
        if answered >= 5 && unreachable >= 3 {
            break;
        }
        let reply = get(n as usize % 2, n, &[]);
        if reply.status == 200 {
            assert_eq!(reply.ok()["rows"].as_array().map(Vec::len), Some(1), "key {n}");
            answered += 1;
        } else if reply.status == 504 {
            // The last that was heard of the hung process made one of the others complete, and the other not.
            reply.fails(504, "was not complete");
        } else {
            reply.fails(503, &name);
            unreachable += 1;
        }
    }
    assert!(answered > 0 && unreachable > 0, "{answered} answered, {unreachable} not");
    cluster[0].get("/v1/views/hits/scan", &[("timeout_ms", "500")]).fails(503, &name);
    cluster[1].get("/v1/views/hits/top", &[("n", "3"), ("timeout_ms", "500")]).fails(503, &name);
    // Appends need nobody but the process that takes them.
    let later = cluster[0].append(&[event(KEYS)]).to_string();
    // What was appended since cannot be complete without the process that hangs.
    get(0, 0, &[("at_least", &later)]).fails(504, "was not complete");

    signal("CONT", cluster[HUNG].process.id());
    for process in 0..3 {
        let seen = cluster[process].get("/v1/views/visitors/scan", &[("at_least", &later)]).ok();
        assert_eq!(seen["rows"].as_array().map(Vec::len), Some(KEYS as usize + 1), "process {process}");
    }
    cluster.stop();
}

/// Each request that waits takes a thread, of which there are 512. Reads that waited for a process that hung took all of them, and
/// appends at the process that was asked stood still until it counted as lost.
#[test]
fn however_many_wait_for_a_hung_process_the_others_take_appends() {
    const HUNG: usize = 2;
    const TIMES: usize = 600;
    let dir = Dir::new();
    // Longer than anything here is waited for: whatever is answered before, is answered without the process that hangs.
    let plan = Plan::new(&dir, "web_analytics", (3, 1)).with(&["--peer-timeout", "600s", "--history", "600s"]);
    let cluster = plan.start();
    // Beside others that wait, one that takes its time may be refused; it can be repeated.
    let append = |process: usize, producer: &str, sequence: u64| {
        let path = format!("/v1/events?producer={producer}&sequence={sequence}");
        let post = || cluster[process].post(&path, JSON_LINES, ndjson(&[event(sequence)]));
        eventually("the append is taken", || Some(post()).filter(|reply| reply.status != 503)).ok()
    };
    // A producer of each process's partition.
    let mut producers: Vec<Option<String>> = vec![None; 3];
    for name in (0..).map(|n| format!("p{n}")) {
        let partition = append(0, &name, 0)["partition"].as_u64().expect("a partition") as usize;
        producers[partition % 3].get_or_insert(name);
        if producers.iter().all(Option::is_some) {
            break;
        }
    }
    let producers: Vec<String> = producers.into_iter().flatten().collect();
    let appends_go_on = |sequence: u64| {
        for process in [0, 1] {
            cluster[process].append(&[event(sequence)]);
        }
        // Their own, and passed on.
        append(1, &producers[1], sequence);
        append(1, &producers[0], sequence);
    };

    signal("STOP", cluster[HUNG].process.id());
    let read = "GET /v1/views/hits/top?n=1&timeout_ms=600000 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let reads = send_many(&cluster[1], read, TIMES);
    eventually("all reads but those that may wait are refused", || (reads.answered() == TIMES - READS_WAITING_MAX).then_some(()));
    cluster[1].get("/v1/views/hits/top", &[("n", "1")]).fails(503, "reads wait already");
    appends_go_on(1);
    assert_eq!(reads.answered(), TIMES - READS_WAITING_MAX, "reads wait while appends are taken");

    let (body, producer) = (ndjson(&[event(1)]), &producers[HUNG]);
    let head = format!("POST /v1/events?producer={producer}&sequence=1 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    let appends = send_many(&cluster[1], &format!("{head}content-length: {}\r\n\r\n{body}", body.len()), TIMES);
    eventually("all appends but those that may wait are refused", || (appends.answered() == TIMES - APPENDS_PASSED_ON_MAX).then_some(()));
    appends_go_on(2);
    assert_eq!(appends.answered(), TIMES - APPENDS_PASSED_ON_MAX, "appends wait while others are taken");

    signal("CONT", cluster[HUNG].process.id());
    let expected = [("200".to_owned(), APPENDS_PASSED_ON_MAX), ("503".to_owned(), TIMES - APPENDS_PASSED_ON_MAX)];
    assert_eq!(appends.statuses(), expected.into());
    // Where process 0 had not heard as much of the one that hung, reads may have been refused there.
    let statuses = reads.statuses();
    assert_eq!(statuses.keys().collect::<Vec<_>>(), ["200", "503"], "{statuses:?}");
    assert!(statuses["503"] >= TIMES - READS_WAITING_MAX, "{statuses:?}");
    let again = append(0, producer, 1);
    assert_eq!(append(1, producer, 1), again, "the one append that they all were");
    assert_eq!(append(1, producer, 2)["accepted"], 1);
    cluster.stop();
}

#[test]
fn the_status_says_what_only_a_hung_process_knows() {
    let dir = Dir::new();
    let plan = Plan::new(&dir, "web_analytics", (2, 1)).with(&["--peer-timeout", "600s"]);
    let cluster = plan.start();
    let status = || cluster[1].get("/v1/status", &[]).ok();
    let known = || status()["cycles_unknown"].is_null().then(status);
    let before = eventually("process 0 says how cycles go", known);
    assert_eq!(before["handovers"], 1, "{before}");
    assert!(before["last_handover"]["generation"].is_u64(), "{before}");

    signal("STOP", cluster[0].process.id());
    let hung = status();
    assert!(hung["cycles_unknown"].as_str().is_some_and(|why| why.contains(&plan.name(0))), "{hung}");
    for unknown in [&hung["handovers"], &hung["last_handover"], &hung["last_error"], &hung["layers"]["batch"]["running"]] {
        assert_eq!(*unknown, Value::Null, "{hung}");
    }
    assert_eq!((&hung["generation"], &hung["share"]["rows"]), (&before["generation"], &before["share"]["rows"]));

    signal("CONT", cluster[0].process.id());
    assert_eq!(eventually("process 0 says how cycles go", known)["last_handover"], before["last_handover"]);
    cluster.stop();
}

/// JSON may be nested as deep in a URL as it is read, and one level deeper was more than another process would read: it took the
/// connection for broken, and the cluster ended.
#[test]
fn a_question_that_is_none_ends_nobody() {
    let dir = Dir::new();
    let cluster = Plan::new(&dir, "web_analytics", (2, 1)).start();
    for depth in [1, 100, 115, 120, 122, 123, 124, 125, 126, 127, 128, 200] {
        let deep = "[".repeat(depth) + "1" + &"]".repeat(depth);
        for (process, read, name) in [(0, "range", "from"), (1, "prefix", "prefix"), (1, "get", "key")] {
            let reply = cluster[process].get(&format!("/v1/views/visitors/{read}"), &[(name, &deep)]);
            // A prefix of another type has no rows.
            let expected: &[u16] = if read == "prefix" { &[200, 400] } else { &[400] };
            assert!(expected.contains(&reply.status), "{read} of depth {depth}: {reply:?}");
        }
    }
    let token = cluster[1].append(&[event(1)]).to_string();
    assert_eq!(cluster[0].get("/v1/views/visitors/scan", &[("at_least", &token)]).ok()["rows"].as_array().map(Vec::len), Some(1));
    cluster.stop();
}
