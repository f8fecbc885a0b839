//! Generations of the real program under the kernel's faults: kills before any system call on them, power cuts of a real file
//! system, no room, directories that are moved. Whatever happened: what was acknowledged is there once, the answers are those
//! of the plain reference, and a generation is gone on from, or passed over with a message.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lambdaflow::storage::Rng;

use super::harness::*;
use super::tools::{Image, Mount, cut_power, needs, strace, temporary};

/// How long kills are tried, unless `LAMBDAFLOW_FAULT_SECONDS` says otherwise.
const KILL_SECONDS: u64 = 20;
/// Power cuts, unless `LAMBDAFLOW_POWER_CUTS` says otherwise.
const POWER_CUTS: u64 = 8;
/// Appends before a power cut, at most.
const ACKS_MAX: u64 = 60;
const SIGKILL: i32 = 9;
const SIGBUS: i32 = 7;
/// Files that two handovers make, and more.
const FILES: u64 = 12;

fn seed() -> u64 {
    let seed = Rng::seed_from_env().unwrap_or_else(|| std::process::id().into());
    println!("LAMBDAFLOW_SEED={seed}");
    seed
}

fn setting(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

fn arguments<'a>(log: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    ["run", "web_analytics", "--listen", "127.0.0.1:0", "--log", log].into_iter().chain(more.iter().copied()).collect()
}

/// A server, or nothing if it ended before it served.
fn serving(mut process: Guard) -> Result<Serving, Guard> {
    let url = eventually("it serves or is gone", || {
        let url = process.stderr().lines().find_map(|line| line.strip_prefix("serving on ").map(str::to_owned));
        url.map(Some).or_else(|| process.ended().map(|_| None))
    });
    match url {
        Some(url) => Ok(Serving { process, client: Client::new(&url) }),
        None => Err(process),
    }
}

fn started(server: &Serving) -> String {
    server.get("/v1/status", &[]).ok()["started"].as_str().expect("a sentence").to_owned()
}

/// What was acknowledged is in the log once, in order, `tried` events at most; and all answers are right. Returns where the
/// answers came from.
fn check(log: &str, acknowledged: u64, tried: u64, context: &str) -> String {
    let server = Serving::start(log, &["--batch-interval", "0"]);
    let from = started(&server);
    let answers = server.answers(server.append(&[event(1_000_000)]));
    server.stop();
    let events = cat(log);
    let there = events.len() as u64 - 1;
    assert!((acknowledged..=tried).contains(&there), "{context}: {there} events, {acknowledged} acknowledged, {tried} tried");
    let sent: Vec<_> = (0..there).chain([1_000_000]).map(event).collect();
    assert!(events == sent, "{context}: the log holds something else");
    assert_same_answers(&expected(&events), &answers, context);
    from
}

/// Appends, hands over, appends, hands over, and ends. Returns the events that were acknowledged and tried, and whether the
/// program was killed.
fn two_handovers(mut command: Command) -> (u64, u64, bool) {
    const EVENTS: u64 = 60;
    command.env_remove("LAMBDAFLOW_TO").env_remove("LAMBDAFLOW_LOG");
    let (mut acknowledged, mut tried) = (0, 0);
    let mut process = match serving(start(command, "")) {
        Err(process) => process,
        Ok(server) => {
            for _ in 0..2 {
                tried += EVENTS;
                match server.try_post("/v1/events", JSON_LINES, ndjson(&(tried - EVENTS..tried).map(event).collect::<Vec<_>>())) {
                    Ok(reply) => drop(reply.ok()),
                    Err(_) => break,
                }
                acknowledged = tried;
                match server.try_post("/v1/batch", JSON_LINES, "") {
                    Ok(reply) => drop(reply.ok()),
                    Err(_) => break,
                }
            }
            let mut process = server.process;
            if process.ended().is_none() {
                // It may be killed while it ends, or a moment before this.
                let _ = Command::new("kill").args(["-s", "TERM", &process.id().to_string()]).output();
            }
            process
        }
    };
    let status = eventually("it ends", || process.ended());
    assert!(status.code() == Some(0) || status.signal() == Some(SIGKILL), "{status:?}: {}", process.stderr());
    (acknowledged, tried, status.signal().is_some())
}

/// strace for calls on the generations of a log, with the program's process as the child and strace behind it.
fn traced(log: &Path, more: &[&str]) -> Command {
    let generations = log.join("generations");
    let dir = generations.join("web_analytics");
    let files = (0..FILES).flat_map(|n| ["runs", "json", "json.tmp"].map(|kind| dir.join(format!("{n:020}.{kind}"))));
    let paths: Vec<PathBuf> = [generations, dir.clone()].into_iter().chain(files).collect();
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-qq"]).args(more);
    for path in &paths {
        command.arg("-P").arg(path);
    }
    let run = program(arguments(log.to_str().expect("a path in UTF-8"), &["--batch-interval", "0", "--keep-generations", "1"]));
    command.arg(run.get_program()).args(run.get_args());
    command
}

#[test]
fn a_kill_before_any_system_call_on_generations_costs_nothing() {
    const NAME: &str = "a_kill_before_any_system_call_on_generations_costs_nothing";
    needs!(NAME, strace());
    let mut rng = Rng::new(seed());
    let place = temporary();
    let trace = place.path().join("trace");
    let (acknowledged, tried, killed) = two_handovers(traced(&place.path().join("log"), &["-o", trace.to_str().expect("UTF-8")]));
    assert!(acknowledged == tried && !killed);
    let mut calls: BTreeMap<String, u64> = BTreeMap::new();
    for line in std::fs::read_to_string(&trace).expect("a trace").lines() {
        let name = line.split_once(' ').and_then(|(_process, call)| call.trim_start().split_once('(')).map(|(name, _)| name);
        if let Some(name) = name.filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')) {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    for call in ["openat", "write", "fdatasync", "fsync", "rename", "unlink", "mkdir", "mmap"] {
        assert!(calls.contains_key(call), "the run makes no {call}: {calls:?}");
    }
    let mut moments: Vec<(&str, u64)> = calls.iter().flat_map(|(call, count)| (1..=*count).map(move |n| (call.as_str(), n))).collect();
    for last in (1..moments.len()).rev() {
        moments.swap(last, rng.below(last as u64 + 1) as usize);
    }
    let (until, mut kills, mut restored, mut from) = (setting("LAMBDAFLOW_FAULT_SECONDS", KILL_SECONDS), 0, 0, BTreeSet::new());
    let began = Instant::now();
    for (call, n) in &moments {
        if began.elapsed() > Duration::from_secs(until) {
            break;
        }
        let place = temporary();
        let log = place.path().join("log");
        let inject = format!("inject={call}:signal=KILL:when={n}");
        let (acknowledged, tried, killed) =
            two_handovers(traced(&log, &["-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject]));
        kills += u64::from(killed);
        let context = format!("killed before {call} {n}");
        let answered = check(log.to_str().expect("UTF-8"), acknowledged, tried, &context);
        restored += u64::from(answered.contains("restored"));
        println!("{context}: {acknowledged} acknowledged; {answered}");
        from.insert(call);
    }
    println!("{kills} kills of {} moments, {restored} times restored", moments.len());
    assert!(kills >= 5 && restored > 0, "{kills} kills in {until} s, {restored} restored");
}

#[test]
fn power_cuts_under_a_server_lose_no_event_and_change_no_answer() {
    const NAME: &str = "power_cuts_under_a_server_lose_no_event_and_change_no_answer";
    let place = temporary();
    let image = needs!(NAME, Image::new(&place.path().join("image"), 64 << 10, &[]));
    let mut rng = Rng::new(seed());
    let at = place.path().join("disk");
    let log = at.join("log").to_str().expect("UTF-8").to_owned();
    let (mut acknowledged, mut restored, mut passed_over, mut generations) = (0, 0, 0, 0);
    let cuts = setting("LAMBDAFLOW_POWER_CUTS", POWER_CUTS);
    for cut in 0..cuts {
        let context = format!("cut {cut}");
        let disk = needs!(NAME, image.mount(&at, "rw"));
        let workers = (1 + cut % 2).to_string();
        let more = ["-w", &workers, "--batch-interval", "20ms", "--keep-generations", "2"];
        let server = Serving::from(start(program(arguments(&log, &more)), ""));
        let from = started(&server);
        restored += usize::from(from.contains("restored"));
        passed_over += usize::from(from.contains("passed over"));
        if cut > 0 {
            let answers = server.answers(0);
            assert_same_answers(&expected(&(0..acknowledged).map(event).collect::<Vec<_>>()), &answers, &format!("{context}: {from}"));
        }
        let before = server.get("/v1/status", &[]).ok()["generation"].as_u64().expect("a number");
        // Nobody hears of an event in the moment of the cut: whoever asks is the one who cuts.
        let generation = || server.get("/v1/status", &[]).ok()["generation"].as_u64().expect("a number");
        let mut append = |count: u64| {
            server.append(&(acknowledged..acknowledged + count).map(event).collect::<Vec<_>>());
            acknowledged += count;
        };
        for _ in 0..rng.below(4) {
            let now = generation();
            append(1 + rng.below(20));
            eventually("a handover", || (generation() > now).then_some(()));
        }
        // And somewhere in the next.
        for _ in 0..1 + rng.below(ACKS_MAX) {
            append(1 + rng.below(20));
        }
        generations += generation() - before;
        cut_power(&at);
        let mut process = server.process;
        let client = server.client;
        // Its next write fails; and what is mapped may no longer be there to be read.
        let status = eventually("it ends", || {
            let _ = client.try_post("/v1/events", JSON_LINES, ndjson(&[event(2_000_000)]));
            process.ended()
        });
        assert!(status.code() == Some(5) || status.signal() == Some(SIGBUS), "{context}: {status:?}: {}", process.stderr());
        drop(process);
        disk.end();
        let disk = image.mount(&at, "rw").expect("it was mounted before");
        assert_eq!(cat(&log), (0..acknowledged).map(event).collect::<Vec<_>>(), "{context}");
        disk.end();
    }
    println!(
        "{cuts} power cuts, {acknowledged} events, {generations} generations; {restored} times restored, {passed_over} times one was passed over"
    );
    assert!(restored > 0 && generations > 0, "{restored} times restored, {generations} generations");
}

#[test]
fn no_room_for_a_generation_fails_cycles_with_a_message_and_nothing_else() {
    const NAME: &str = "no_room_for_a_generation_fails_cycles_with_a_message_and_nothing_else";
    let dir = Dir::new();
    let log = dir.at("log");
    let events = |range: std::ops::Range<u64>| range.map(event).collect::<Vec<_>>();
    lambdaflow_with_input(["ingest", "web_analytics", "--log", &log, "-"], ndjson(&events(0..100))).exits(0);
    let room = needs!(NAME, Mount::tmpfs(&dir.path("log/generations"), 16 << 10));
    let server = Serving::start(&log, &["--batch-interval", "0"]);
    let ballast = dir.path("log/generations/ballast");
    let mut fill = std::fs::File::create(&ballast).expect("there is room");
    // To the last byte, but for two pages that are given back: a file can be begun, and not be ended.
    while std::io::Write::write(&mut fill, &[1; 4096]).is_ok_and(|written| written > 0) {}
    let full = fill.metadata().expect("a file").len();
    fill.set_len(full - 8192).expect("it is shorter");
    let generation = server.get("/v1/status", &[]).ok()["generation"].clone();
    for round in 1..4 {
        let token = server.append(&events(100 * round..100 * (round + 1)));
        for cycle in ["/v1/batch", "/v1/rebuild"] {
            let reply = server.post(cycle, JSON_LINES, "");
            assert!(reply.status >= 500, "{reply:?}");
            let error = reply.body["error"].as_str().expect("an error");
            assert!(error.contains("no space") && error.contains("generations"), "{error}");
        }
        let status = server.get("/v1/status", &[]).ok();
        assert_eq!(status["generation"], generation);
        assert!(status["last_error"].as_str().is_some_and(|error| error.contains("no space")), "{status}");
        assert_same_answers(&expected(&events(0..100 * (round + 1))), &server.answers(token), "without room");
    }
    let entries = || std::fs::read_dir(dir.path("log/generations/web_analytics")).expect("a directory").count();
    let before = entries();
    fill.set_len(0).expect("it is shorter");
    let handover = server.post("/v1/batch", JSON_LINES, "").ok();
    assert_eq!(handover["agreed"], true, "{handover}");
    assert!(before <= 2, "{before} files were left by cycles that failed");
    let token = server.append(&events(400..500));
    assert_same_answers(&expected(&events(0..500)), &server.answers(token), "with room again");
    server.stop();
    let server = Serving::start(&log, &["--batch-interval", "0"]);
    assert!(started(&server).contains("restored"), "{}", started(&server));
    assert_same_answers(&expected(&events(0..500)), &server.answers(0), "restarted");
    server.stop();
    drop(fill);
    room.end();
}

#[test]
fn generations_are_not_written_to_what_took_the_place_of_their_directory() {
    type Replace = fn(&Path);
    let nothing: Replace = |_| {};
    let empty: Replace = |path| std::fs::create_dir_all(path.join("web_analytics")).expect("it can be made");
    for moved in ["log/generations", "log/generations/web_analytics"] {
        for (what, replace) in [("nothing", nothing), ("another directory", empty)] {
            let context = format!("{moved} is moved, {what} is in its place");
            let dir = Dir::new();
            let log = dir.at("log");
            let server = Serving::start(&log, &["--batch-interval", "0"]);
            server.append(&(0..100).map(event).collect::<Vec<_>>());
            server.post("/v1/batch", JSON_LINES, "").ok();
            std::fs::rename(dir.path(moved), dir.path("moved")).expect("it can be moved");
            replace(&dir.path("log/generations"));
            let token = server.append(&[event(100)]);
            for cycle in ["/v1/batch", "/v1/rebuild"] {
                let reply = server.post(cycle, JSON_LINES, "");
                assert!(reply.status >= 500 && reply.body["error"].as_str().is_some_and(|e| e.contains("moved")), "{context}: {reply:?}");
            }
            let all: Vec<_> = (0..101).map(event).collect();
            assert_same_answers(&expected(&all), &server.answers(token), &context);
            server.stop();
            let there = std::fs::read_dir(dir.path("log/generations/web_analytics")).map_or(0, |entries| entries.count());
            assert_eq!(there, 0, "{context}: something was written there");

            // Put back, it is gone on from.
            let _ = std::fs::remove_dir_all(dir.path(moved));
            std::fs::rename(dir.path("moved"), dir.path(moved)).expect("it can be moved");
            let server = Serving::start(&log, &["--batch-interval", "0"]);
            assert!(started(&server).contains("restored"), "{context}: {}", started(&server));
            assert_same_answers(&expected(&all), &server.answers(0), &context);
            server.stop();
        }
    }
}

#[test]
fn a_log_that_is_moved_while_it_runs_takes_its_generations_along() {
    let dir = Dir::new();
    let log = dir.at("log");
    let other = dir.at("other");
    for (place, first) in [(&log, 0), (&other, 500)] {
        let server = Serving::start(place, &["--batch-interval", "0"]);
        server.append(&(first..first + 100).map(event).collect::<Vec<_>>());
        server.post("/v1/batch", JSON_LINES, "").ok();
        server.stop();
    }
    let server = Serving::start(&log, &["--batch-interval", "0"]);
    std::fs::rename(&log, dir.path("moved")).expect("it can be moved");
    std::fs::rename(&other, &log).expect("it can be moved");
    let reply = server.try_post("/v1/rebuild", JSON_LINES, "");
    assert!(reply.as_ref().map_or(true, |reply| reply.status >= 500), "{reply:?}");
    drop(server);
    // The other log has its own generations, and nothing of ours.
    for (place, first) in [(dir.at("moved"), 0), (log, 500)] {
        assert!(lambdaflow(["generations", "verify", &place]).exits(0).out.contains("nothing damaged"));
        let server = Serving::start(&place, &["--batch-interval", "0"]);
        assert!(started(&server).contains("restored"), "{place}: {}", started(&server));
        assert_same_answers(&expected(&(first..first + 100).map(event).collect::<Vec<_>>()), &server.answers(0), &place);
        server.stop();
    }
}
