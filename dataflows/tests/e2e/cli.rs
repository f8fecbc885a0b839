//! What the program says and by which exit code it ends, above all when something is wrong: what, where, what next.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use lambdaflow::log::{Event, Log, LogOptions, SystemClock};
use lambdaflow::storage::RealDisk;
use lambdaflow_dataflows::web_analytics::Request;
use serde_json::json;

use super::harness::*;

/// Longest that a server may take to end when it is asked to.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Lines of a terminal of ordinary height.
const SCREEN_LINES: usize = 40;

const BAD_LINE: &str = "10.0.0.1 - - [17/May/2015:10:05:03 +0000] \"GET /unfinished";

/// Three good lines with a bad one in their midst.
fn with_a_bad_line() -> (String, String) {
    let good = lines(3);
    let mut all: Vec<&str> = good.lines().collect();
    all.insert(2, BAD_LINE);
    (good.clone(), all.join("\n") + "\n")
}

/// The names in a directory, and below.
fn listing(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            names.extend(listing(&path));
        }
        names.push(path);
    }
    names.sort();
    names
}

#[test]
fn help_starts_with_an_example() {
    let help = lambdaflow(["--help"]).exits(0);
    assert!(help.out.starts_with("Example:\n  lambdaflow ingest"), "{}", help.out);

    assert_eq!(help.err, "");
    for command in ["run", "launch", "ingest", "query", "rebuild", "audit", "generate", "oracle", "diff", "log"] {
        assert!(help.out.contains(command), "{command} is missing");
        let help = lambdaflow([command, "--help"]).exits(0);
        assert!(help.out.starts_with(&format!("Example:\n  lambdaflow {command} ")), "{}", help.out);
        assert!(help.out.lines().count() <= SCREEN_LINES, "does not fit a screen:\n{}", help.out);
    }
    assert!(lambdaflow(["list"]).exits(0).out.starts_with("web_analytics "));
}

#[test]
fn a_malformed_line_stops_an_ingestion_before_anything_is_taken() {
    let dir = Dir::new();
    let file = dir.file("requests.log", with_a_bad_line().1);
    let log = dir.at("log");
    let ended = lambdaflow(["ingest", "web_analytics", "--log", &log, &file]).exits(1);
    ended.says(&[&format!("{file}:3"), "closing quote", "hint: nothing was ingested", "--on-error skip"]);
    assert_eq!(events_in(&log), 0);
    // The same from a pipe, which cannot be read twice.
    lambdaflow_with_input(["ingest", "web_analytics", "--log", &log, "-"], with_a_bad_line().1).exits(1).says(&["-:3"]);
    assert_eq!(events_in(&log), 0);
}

#[test]
fn skipping_takes_the_other_lines_and_keeps_what_is_left_out() {
    let dir = Dir::new();
    let (good, all) = with_a_bad_line();
    let (file, log, rejects) = (dir.file("requests.log", all), dir.at("log"), dir.at("rejects"));
    let ended = lambdaflow(["ingest", "web_analytics", "--log", &log, &file, "--on-error", "skip", "--rejects", &rejects]).exits(0);
    assert!(ended.out.starts_with("3 events in ") && ended.out.ends_with("1 lines rejected\n"), "{}", ended.out);
    ended.says(&[&format!("rejected {file}:3: ")]);
    assert_eq!(std::fs::read_to_string(&rejects).expect("rejects"), format!("{BAD_LINE}\n"));
    assert_eq!(cat(&log), requests(&good));

    let json = lambdaflow(["ingest", "web_analytics", "--log", &log, &file, "--on-error", "skip", "--format", "json"]).exits(0).json();
    assert_eq!((&json["accepted"], &json["rejected"]), (&json!(3), &json!(1)));
    assert_eq!(json["first_rejected"][0]["line"], 3);
}

fn requests(lines: &str) -> Vec<Request> {
    use lambdaflow_dataflows::web_analytics::parse::parse_any;
    lines.lines().map(|line| parse_any(line.as_bytes()).expect("a good line")).collect()
}

#[test]
fn a_directory_that_is_no_log_is_refused_and_left_as_it_was() {
    let dir = Dir::new();
    let file = dir.file("requests.log", lines(3));
    let wrong = dir.path("photos");
    std::fs::create_dir(&wrong).expect("a directory");
    std::fs::write(wrong.join("cat.jpg"), "meow").expect("a file");
    let wrong = wrong.to_str().expect("UTF-8");
    let before = listing(wrong);
    for command in [
        vec!["ingest", "web_analytics", "--log", wrong, &file],
        vec!["run", "web_analytics", "--log", wrong, "--listen", "127.0.0.1:0"],
        vec!["log", "info", wrong],
        vec!["log", "verify", wrong],
        vec!["log", "cat", "--dataflow", "web_analytics", wrong],
        vec!["audit", "web_analytics", "--log", wrong],
    ] {
        lambdaflow(&command).exits(2).says(&[wrong, "is not a log", "cat.jpg", "hint: "]);
        assert_eq!(listing(wrong), before, "{command:?}");
    }
}

#[test]
fn a_directory_that_is_missing_is_made_by_writers_only() {
    let dir = Dir::new();
    let missing = dir.at("missing");
    for command in [
        vec!["log", "info", &missing],
        vec!["log", "verify", &missing],
        vec!["log", "cat", "--dataflow", "web_analytics", &missing],
        vec!["audit", "web_analytics", "--log", &missing],
    ] {
        lambdaflow(&command).exits(2).says(&["there is no log in", &missing, "hint: "]);
        assert!(!dir.path("missing").exists(), "{command:?}");
    }
    // A file that cannot be read must not leave a log behind either.
    lambdaflow(["ingest", "web_analytics", "--log", &missing, &dir.at("no-such-file")]).exits(2).says(&["no-such-file"]);
    assert!(!dir.path("missing").exists());
}

#[derive(Clone, Debug, serde::Serialize, serde::Deserialize, columnar::Columnar)]
struct Song {
    title: String,
}

impl Event for Song {
    const NAME: &'static str = "songs.Song";
    const VERSION: u32 = 3;
    const FIELDS: &'static [&'static str] = &["title: String"];
}

/// Appends without the program, and makes the log if there is none.
fn append<E: Event>(path: &Path, events: &[E]) {
    // Segments of a byte are full, and so not merged when the log is opened again.
    let options = LogOptions { segment_bytes_max: 1, ..LogOptions::default() };
    let log = Log::<E>::open(Arc::new(RealDisk), Arc::new(SystemClock), path, options).expect("a log");
    let mut bulk = log.bulk();
    events.iter().for_each(|event| bulk.push(event).expect("the log takes it"));
    bulk.finish().expect("the log takes it");
    log.close().expect("the log closes");
}

#[test]
fn a_log_of_another_event_type_is_refused() {
    let dir = Dir::new();
    append(&dir.path("songs"), &[Song { title: "Die Gedanken sind frei".to_owned() }]);
    let (songs, file) = (dir.at("songs"), dir.file("requests.log", lines(3)));
    for command in [
        vec!["ingest", "web_analytics", "--log", &songs, &file],
        vec!["run", "web_analytics", "--log", &songs, "--listen", "127.0.0.1:0"],
        vec!["log", "cat", "--dataflow", "web_analytics", &songs],
        vec!["audit", "web_analytics", "--log", &songs],
    ] {
        lambdaflow(&command).exits(2).says(&[&songs, "songs.Song", "web_analytics.Request", "hint: "]);
    }
    // Looking at it needs no type.
    assert!(lambdaflow(["log", "info", &songs]).exits(0).out.contains("songs.Song version 3"));
    lambdaflow(["log", "verify", &songs]).exits(0);
    assert_eq!(events_in(&songs), 1);
}

#[test]
fn a_port_or_a_log_in_use_is_refused_and_the_user_of_it_goes_on() {
    let dir = Dir::new();
    let (log, file) = (dir.at("log"), dir.file("requests.log", lines(3)));
    let server = Serving::start(&log, &[]);
    let address = server.url.strip_prefix("http://").expect("an address").to_owned();
    let other = dir.at("other");
    lambdaflow(["run", "web_analytics", "--log", &other, "--listen", &address]).exits(6).says(&[
        &address,
        "in use",
        "hint: --listen 127.0.0.1:0",
    ]);
    assert!(!dir.path("other").exists(), "no log is made in vain");

    let process = format!("in use by process {}", server.process.id());
    for command in [
        vec!["run", "web_analytics", "--log", &log, "--listen", "127.0.0.1:0"],
        vec!["ingest", "web_analytics", "--log", &log, &file],
        vec!["log", "cat", "--dataflow", "web_analytics", &log],
        vec!["audit", "web_analytics", "--log", &log],
    ] {
        lambdaflow(&command).exits(6).says(&[&log, &process, "hint: "]);
    }
    // Looking is allowed.
    assert_eq!(events_in(&log), 0);
    lambdaflow(["log", "verify", &log]).exits(0);
    let token = server.append(&[event(1)]);
    assert_same_answers(&expected(&[event(1)]), &server.answers(token), "after others were refused");
}

#[test]
fn an_oracle_that_is_not_there_is_asked_for() {
    let mut without = program(["oracle", "nexmark", "--events", "10"]);
    without.env("LAMBDAFLOW_PYTHON", "/no/such/python");
    start(without, "").wait().exits(2).says(&["/no/such/python", "hint: `pip install duckdb`"]);
}

#[test]
fn wrong_usage_exits_with_2_and_touches_nothing() {
    let dir = Dir::new();
    let (log, file) = (dir.at("log"), dir.file("requests.log", lines(3)));
    let run = |more: &[&'static str]| {
        [&["run", "web_analytics", "--log", &log, "--listen", "127.0.0.1:0"], more].concat().into_iter().map(str::to_owned).collect()
    };
    let given = |arguments: &[&str]| arguments.iter().map(|argument| argument.to_string()).collect::<Vec<String>>();
    let cases: Vec<(Vec<String>, &[&str])> = vec![
        (given(&[]), &["Usage:"]),
        (given(&["fly"]), &["fly"]),
        (given(&["run"]), &["--log"]),
        (given(&["ingest", "web_analytics", &file]), &["--log"]),
        (given(&["ingest", "web_analytics", "--log", &log, "--to", "http://127.0.0.1:1", &file]), &["--to"]),
        (given(&["ingest", "web_analytics", "--log", &log, "--on-error", "cry", &file]), &["cry", "skip"]),
        (given(&["run", "no_such", "--log", &log]), &["there is no dataflow `no_such`", "hint: web_analytics"]),
        (given(&["ingest", "no_such", "--log", &log, &file]), &["there is no dataflow `no_such`", "hint: web_analytics"]),
        (run(&["--no-such-flag"]), &["--no-such-flag"]),
        (run(&["-w", "0"]), &["between 1 and 256 workers"]),
        (run(&["-w", "257"]), &["between 1 and 256 workers"]),
        (run(&["--workers", "two"]), &["between 1 and 256 workers"]),
        (run(&["--threads", "0"]), &["between 1 and 256 workers"]),
        (run(&["--tick", "10"]), &["a number with a unit"]),
        (run(&["--batch-interval", "soon"]), &["a number with a unit"]),
        (run(&["--durability", "hope"]), &["hope", "sync"]),
        (given(&["run", "web_analytics", "--log", &log, "--listen", "0.0.0.0:0"]), &["no authentication", "--insecure"]),
        (given(&["run", "web_analytics", "--log", &log, "--listen", "[::]:0"]), &["no authentication", "--insecure"]),
        (given(&["run", "web_analytics", "--log", &log, "--listen", "here"]), &["here"]),
        (given(&["run", "web_analytics", "--log", &log, "--listen", "192.0.2.1:7070", "--insecure"]), &["cannot listen on 192.0.2.1:7070"]),
        (given(&["query", "hits", "--top", "3", "--prefix", "/"]), &["--top"]),
        (given(&["log", "dance", &log]), &["dance"]),
        (given(&["run", "--log", &log]), &["which dataflow?", "hint: web_analytics"]),
        (given(&["oracle", "web_analytics"]), &["no queries"]),
        (given(&["oracle", "nexmark", "--events", "0"]), &["--events"]),
    ];
    for (arguments, parts) in cases {
        lambdaflow(&arguments).exits(2).says(parts);
        assert!(!dir.path("log").exists(), "{arguments:?} made a log");
    }
}

#[test]
fn no_server_to_ask_is_a_lost_peer() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let dir = Dir::new();
    let file = dir.file("requests.log", lines(3));
    for command in [vec!["query", "hits"], vec!["rebuild"], vec!["audit"], vec!["ingest", "web_analytics", &file]] {
        let arguments = [command, vec!["--to", &url]].concat();
        lambdaflow(&arguments).exits(4).says(&["no answer from", &url, "hint: is `lambdaflow run` running there?"]);
    }
}

#[test]
fn damage_is_named_by_segment_and_byte_and_never_served() {
    let dir = Dir::new();
    let path = dir.path("log");
    // Every opening seals what was appended before.
    for thousand in requests(&lines(3_000)).chunks(1_000) {
        append(&path, thousand);
    }
    append::<Request>(&path, &[]);
    let log = dir.at("log");
    assert!(lambdaflow(["log", "verify", &log]).exits(0).out.contains("3000 events, every byte checked, nothing damaged"));
    let sealed: Vec<PathBuf> = listing(&path).into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "seg")).collect();
    assert!(sealed.len() == 3, "{sealed:?}");

    let victim = &sealed[1];
    let mut bytes = std::fs::read(victim).expect("a segment");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(victim, &bytes).expect("a segment");

    let name = victim.file_name().expect("a name").to_str().expect("UTF-8");
    let damaged = format!("segment {name} of partition 0 is damaged at byte ");
    let verified = lambdaflow(["log", "verify", &log]).exits(3);
    assert!(verified.out.contains(&damaged) && verified.out.contains("1 places are damaged"), "{}", verified.out);
    let json = lambdaflow(["log", "verify", &log, "--format", "json"]).exits(3).json();
    let byte = json["damage"][0]["byte"].as_u64().expect("a byte");
    assert!(byte <= middle as u64, "{byte} is past the damage at {middle}");

    for command in [
        vec!["run", "web_analytics", "--listen", "127.0.0.1:0", "--log", &log],
        vec!["audit", "web_analytics", "--log", &log],
        vec!["log", "cat", "--dataflow", "web_analytics", &log],
    ] {
        let ended = lambdaflow(&command).exits(3).says(&[&damaged, &format!("byte {byte}: "), "hint: `log verify DIR`"]);
        assert!(!ended.err.contains("serving on"), "{command:?} served: {}", ended.err);
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let dir = Dir::new();
    let (log, file) = (dir.at("log"), dir.file("requests.log", lines(20_000)));
    lambdaflow(["ingest", "web_analytics", "--log", &log, &file]).exits(0);
    for arguments in [vec!["log", "cat", "--dataflow", "web_analytics", &log], vec!["generate", "web_analytics", "--events", "1000000"]] {
        let mut child = program(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut first = String::new();
        stdout.read_line(&mut first).expect("a line");
        drop(stdout);
        let ended = child.wait_with_output().expect("it ends");
        assert_eq!(ended.status.code(), Some(0), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&ended.stderr), "", "{arguments:?}");
        assert!(first.ends_with('\n'));
    }
    lambdaflow(["log", "verify", &log]).exits(0);
}

#[test]
fn every_dataflow_takes_its_own_samples() {
    let listed = lambdaflow(["list"]).exits(0).out;
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() >= 4, "{listed}");
    for name in names {
        let dir = Dir::new();
        let log = dir.at("log");
        let samples = lambdaflow(["generate", name, "--events", "1000", "--seed", "3"]).exits(0).out;
        lambdaflow_with_input(["ingest", name, "--log", &log, "-"], samples).exits(0);
        assert_eq!(events_in(&log), 1_000, "{name}");
        lambdaflow(["audit", name, "--log", &log, "-w", "2"]).exits(0);
    }
}

#[test]
fn generated_lines_can_be_piped_into_a_log_and_into_a_server() {
    let dir = Dir::new();
    let generated = lambdaflow(["generate", "web_analytics", "--events", "2000", "--seed", "5"]).exits(0).out;
    assert_eq!(
        generated,
        lambdaflow(["generate", "web_analytics", "--events", "2000", "--seed", "5"]).exits(0).out,
        "a seed makes the same lines"
    );
    assert_ne!(generated, lambdaflow(["generate", "web_analytics", "--events", "2000", "--seed", "6"]).exits(0).out);

    let log = dir.at("log");
    lambdaflow_with_input(["ingest", "web_analytics", "--log", &log, "-"], generated.clone()).exits(0);
    assert_eq!(cat(&log), requests(&generated));
    lambdaflow_with_input(["ingest", "web_analytics", "--log", &log, "--on-error", "skip", "-"], generated.clone()).exits(0);
    assert_eq!(events_in(&log), 4_000);

    let server = Serving::start(&log, &["--threads", "2"]);
    let sent =
        lambdaflow_with_input(["ingest", "web_analytics", "--to", &server.url, "--format", "json", "-"], generated.clone()).exits(0).json();
    assert_eq!((&sent["accepted"], &sent["rejected"]), (&json!(2_000), &json!(0)));
    let token = sent["last_tick"].as_u64().expect("a tick");
    let three = requests(&generated.repeat(3));
    assert_same_answers(&expected(&three), &server.answers(token), "two ingestions and one append");
    assert_eq!(server.get("/v1/status", &[]).ok()["workers"], 2);

    // Rejected lines are named as the file numbers them, over requests, too.
    let (good, bad) = with_a_bad_line();
    let rejects = dir.at("rejects");
    lambdaflow_with_input(["ingest", "web_analytics", "--to", &server.url, "-"], bad.clone()).exits(1).says(&["-:3", "hint: "]);
    let file = dir.file("bad.log", &bad);
    let skipped = lambdaflow(["ingest", "web_analytics", "--to", &server.url, "--on-error", "skip", "--rejects", &rejects, &file]).exits(0);
    skipped.says(&[&format!("rejected {file}:3: ")]);
    assert_eq!(std::fs::read_to_string(&rejects).expect("rejects"), format!("{BAD_LINE}\n"));
    server.stop();
    assert_eq!(cat(&log), [three, requests(&good)].concat());
}

#[test]
fn query_asks_in_every_way_for_people_and_for_programs() {
    let dir = Dir::new();
    let server = Serving::start(dir.at("log"), &[]);
    let events: Vec<Request> = (0..20).map(event).collect();
    let token = server.append(&events).to_string();
    let query = |arguments: &[&str]| lambdaflow([&["query", "--to", &server.url], arguments].concat());
    let rows = |arguments: &[&str]| {
        query(&[arguments, &["--at-least", &token]].concat()).exits(0).out.lines().map(str::to_owned).collect::<Vec<_>>()
    };

    assert_eq!(rows(&["visitors", "--key", "/e/7"]), ["\"/e/7\"\t1"]);
    assert_eq!(rows(&["visitors", "--key", "\"/e/7\"", "--key", "/e/none", "--key", "/e/3"]), ["\"/e/7\"\t1", "\"/e/3\"\t1"]);
    assert_eq!(rows(&["hits", "--key", "[\"/e/7\",1699999200]"]), ["[\"/e/7\",1699999200]\t{\"hits\":1,\"bytes\":107}"]);
    assert_eq!(rows(&["visitors", "--prefix", "/e/1"]).len(), 11);
    assert_eq!(rows(&["visitors", "--prefix", "/e/1", "--limit", "4"]).len(), 4);
    assert_eq!(rows(&["hits", "--prefix", "[\"/e/7\"]"]).len(), 1);
    assert_eq!(rows(&["visitors", "--from", "/e/10", "--until", "/e/13"]), ["\"/e/10\"\t1", "\"/e/11\"\t1", "\"/e/12\"\t1"]);
    assert_eq!(rows(&["visitors", "--limit", "6"]).len(), 6);
    assert_eq!(rows(&["visitors"]).len(), 20);
    assert_eq!(rows(&["status", "--top", "1"]), ["[1699999200,200]\t16"]);

    let ended = query(&["visitors", "--key", "/e/7", "--at-least", &token]).exits(0);
    ended.says(&["1 rows as of tick "]);
    let json = query(&["hits", "--top", "1", "--at-least", &token, "--format", "json"]).exits(0).json();
    assert_eq!(json["rows"], json!([{"key": ["/e/19", 1_699_999_200], "value": {"hits": 1, "bytes": 119}, "count": 1}]));
    let as_of = json["as_of"].as_u64().expect("a tick").to_string();
    assert_eq!(query(&["visitors", "--as-of", &as_of]).exits(0).out.lines().count(), 20);

    let views = query(&[]).exits(0);
    assert!(views.out.contains("hits             key [path, hour] value [hits, bytes]\n"), "{}", views.out);
    let names = query(&["--format", "json"]).exits(0).json();
    assert_eq!(names.as_array().expect("views").len(), 9);

    query(&["no_such"]).exits(2).says(&["there is no view `no_such`", "hint: the views are ", "hits"]);
    query(&["hits", "--key", "7"]).exits(2).says(&["7 is not a key of view `hits`", "hint: its key is [path, hour]"]);
    query(&["hits", "--key", "[\"/e/7\"]"]).exits(2).says(&["is not a key of view `hits`"]);
    query(&["hits", "--as-of", "99999999999999"]).exits(1).says(&["is not complete yet"]);
    query(&["hits", "--at-least", "99999999999999", "--timeout", "50ms"]).exits(1).says(&["was not complete after"]);
}

#[test]
fn rebuild_and_audit_say_that_both_layers_agree() {
    let dir = Dir::new();
    let (log, file) = (dir.at("log"), dir.file("requests.log", lines(500)));
    lambdaflow(["ingest", "web_analytics", "--log", &log, &file]).exits(0);
    let server = Serving::start(&log, &["--batch-interval", "0"]);
    let token = server.append(&[event(1)]);
    let before = server.answers(token);

    let rebuilt = lambdaflow(["rebuild", "--to", &server.url]).exits(0);
    assert!(rebuilt.out.starts_with("generation 2 serves: ") && rebuilt.out.contains("both layers agreed"), "{}", rebuilt.out);
    let json = lambdaflow(["rebuild", "--to", &server.url, "--format", "json"]).exits(0).json();
    assert_eq!((&json["generation"], &json["cycle"], &json["agreed"]), (&json!(3), &json!("full"), &json!(true)));
    assert_same_answers(&before, &server.answers(token), "after two rebuilds");

    let audit = lambdaflow(["audit", "--to", &server.url]).exits(0);
    assert_eq!(audit.out.lines().filter(|line| line.contains(" agree ")).count(), 9, "{}", audit.out);
    let json = lambdaflow(["audit", "--to", &server.url, "--format", "json"]).exits(0).json();
    assert_eq!(json["agree"], true);
    assert_eq!(server.get("/v1/status", &[]).ok()["generation"], 3, "an audit switches to nothing");
    server.stop();

    let audit = lambdaflow(["audit", "web_analytics", "--log", &log, "--threads", "2"]).exits(0);
    assert!(audit.out.starts_with("both layers, everything before tick "), "{}", audit.out);
    assert_eq!(audit.out.lines().filter(|line| line.contains(" agree ")).count(), 9, "{}", audit.out);
    let json = lambdaflow(["audit", "web_analytics", "--log", &log, "--format", "json"]).exits(0).json();
    assert_eq!(json["audits"].as_array().expect("audits").len(), 9);
    assert_eq!(json["audits"][0]["batch"], json["audits"][0]["speed"]);
}

#[test]
fn generated_nexmark_events_can_be_ingested_and_audited() {
    let (dir, events) = (Dir::new(), lambdaflow(["generate", "nexmark", "--events", "2000"]).exits(0).out);
    let log = dir.at("log");
    lambdaflow_with_input(["ingest", "nexmark", "--log", &log, "-"], events).exits(0);
    let json = lambdaflow(["audit", "nexmark", "--log", &log, "-w", "2", "--format", "json"]).exits(0).json();
    let audits = json["audits"].as_array().expect("audits");
    assert_eq!(audits.len(), 24, "23 queries and the errors");
    let q0 = audits.iter().find(|audit| audit["view"] == "q0").expect("an audit of q0");
    assert_eq!((&q0["batch"], &q0["batch"]["rows"]), (&q0["speed"], &json!(2_000 * 46 / 50)));
}

#[test]
fn a_server_that_is_asked_to_end_does_so_at_once_and_leaves_a_clean_log() {
    for (name, more) in [("TERM", &["--batch-interval", "50ms"][..]), ("INT", &["-w", "3"])] {
        let dir = Dir::new();
        let log = dir.at("log");
        let server = Serving::start(&log, more);
        let events: Vec<Request> = (0..200).map(event).collect();
        server.append(&events);
        // A request that waits must not hold it up.
        let waiting = server.client.clone();
        let waiter =
            std::thread::spawn(move || waiting.try_get("/v1/views/hits/scan", &[("at_least", "99999999999999"), ("timeout_ms", "50000")]));
        let started = std::time::Instant::now();
        signal(name, server.process.id());
        server.process.wait().exits(0);
        assert!(started.elapsed() < STOP_MAX, "{name}: took {:?}", started.elapsed());
        assert!(!waiter.join().expect("no panic").is_ok_and(|reply| reply.status == 200));
        assert!(lambdaflow(["log", "info", &log]).exits(0).out.contains(", closed\n"));
        assert!(lambdaflow(["log", "verify", &log]).exits(0).out.starts_with("200 events, every byte checked, nothing damaged"));
        assert_eq!(cat(&log), events);
    }
}

/// A small file system of its own, unmounted on drop.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: PathBuf, kib: u32) -> Result<Self, String> {
        std::fs::create_dir(&at).expect("a directory");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "lambdaflow-test"]).arg(&at).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(at)),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("`mount` does not run: {error}")),
        }
    }

    fn grow(&self, kib: u32) {
        let grown = Command::new("mount").args(["-o", &format!("remount,size={kib}k")]).arg(&self.0).status().expect("`mount` runs");
        assert!(grown.success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily, so that a child that is still ending does not keep it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_an_ingestion_which_can_be_resumed() {
    const NAME: &str = "a_full_disk_stops_an_ingestion_which_can_be_resumed";
    let dir = Dir::new();
    let disk = match Tmpfs::mount(dir.path("disk"), 400) {
        Ok(disk) => disk,
        Err(reason) => return skip(NAME, &reason),
    };
    let log = dir.at("disk/log");
    let first = lines(500);
    lambdaflow(["ingest", "web_analytics", "--log", &log, &dir.file("first", &first)]).exits(0);
    let input = lines(20_000);
    lambdaflow(["ingest", "web_analytics", "--log", &log, &dir.file("second", &input)]).exits(5).says(&[
        "no space",
        &log,
        "hint: make room",
    ]);

    disk.grow(64 << 10);
    lambdaflow(["log", "verify", &log]).exits(0);
    let kept = cat(&log);
    let (first, input) = (requests(&first), requests(&input));
    assert_eq!(kept[..500], first, "what was acknowledged is there");
    assert_eq!(kept[500..], input[..kept.len() - 500], "and then some of what was being ingested, in order");
    lambdaflow(["ingest", "web_analytics", "--log", &log, &dir.file("third", lines(100))]).exits(0);
    assert_eq!(events_in(&log), kept.len() as u64 + 100);
}

#[test]
fn a_full_disk_stops_a_server_which_answers_for_all_it_acknowledged_when_there_is_space_again() {
    const NAME: &str = "a_full_disk_stops_a_server_which_answers_for_all_it_acknowledged_when_there_is_space_again";
    let dir = Dir::new();
    let disk = match Tmpfs::mount(dir.path("disk"), 400) {
        Ok(disk) => disk,
        Err(reason) => return skip(NAME, &reason),
    };
    let log = dir.at("disk/log");
    let server = Serving::start(&log, &[]);
    let mut acknowledged: Vec<Request> = Vec::new();
    let refused = loop {
        let n = acknowledged.len() as u64;
        let events: Vec<Request> = (n..n + 200).map(event).collect();
        let reply = server.post("/v1/events", JSON_LINES, ndjson(&events));
        if reply.status != 200 {
            break reply;
        }
        acknowledged.extend(events);
        assert!(acknowledged.len() < 100_000, "the disk is never full");
    };
    assert!(!acknowledged.is_empty());
    refused.fails(507, "no space");
    server.process.wait().exits(5).says(&["no space", &log, "hint: make room"]);

    disk.grow(64 << 10);
    lambdaflow(["log", "verify", &log]).exits(0);
    let server = Serving::start(&log, &[]);
    let last = event(1_000_000);
    let token = server.append(std::slice::from_ref(&last));
    acknowledged.push(last);
    assert_same_answers(&expected(&acknowledged), &server.answers(token), "after there was space again");
}
