//! A process that hangs and does not count as lost yet: answers that need it fail with its name, all others are given.

use serde_json::json;

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
