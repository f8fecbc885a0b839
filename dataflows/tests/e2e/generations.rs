//! Generations on disk, with the real program: what a restart goes on from, what damage does, what the commands say.

use std::path::PathBuf;

use lambdaflow::storage::Step;
use serde_json::Value;

use super::harness::*;

/// Steps of freezing, committing and switching, at each of which the program is killed.
fn steps() -> Vec<Step> {
    let ours = |step: &Step| ["runs.", "manifest.", "handover."].iter().any(|kind| step.name().starts_with(kind));
    Step::ALL.into_iter().filter(ours).collect()
}

fn started(server: &Serving) -> String {
    server.get("/v1/status", &[]).ok()["started"].as_str().expect("a sentence").to_owned()
}

fn all_answers(server: &Serving) -> String {
    server.answers(server.append(&[event(1_000_000)]))
}

#[test]
fn a_kill_at_any_step_of_a_handover_costs_nothing() {
    if cfg!(not(debug_assertions)) {
        return skip("a_kill_at_any_step_of_a_handover_costs_nothing", "release builds have no failpoints");
    }
    let mut restored = 0;
    let steps = steps();
    for (number, step) in steps.iter().enumerate() {
        let (dir, context) = (Dir::new(), format!("killed at {}", step.name()));
        let log = dir.at("log");
        let workers = (1 + number % 2).to_string();
        let server = Serving::start(&log, &["-w", &workers, "--batch-interval", "0"]);
        server.append(&(0..300).map(event).collect::<Vec<_>>());
        server.post("/v1/rebuild", JSON_LINES, "").ok();
        server.stop();

        // The second handover of this process, or what of it comes first.
        let crash_at = format!("{}:{}", step.name(), if number % 2 == 0 { 1 } else { 2 });
        let mut command = program(["run", "web_analytics", "--log", &log, "--listen", "127.0.0.1:0", "-w", &workers]);
        command.args(["--batch-interval", "50ms"]).env("LAMBDAFLOW_CRASH_AT", crash_at);
        let mut server = start(command, "");
        let client = eventually("it serves or is gone", || {
            let url = server.stderr().lines().find_map(|line| line.strip_prefix("serving on ").map(str::to_owned));
            url.map(|url| Some(Client::new(&url))).or_else(|| server.ended().map(|_| None))
        });
        let mut acknowledged = 300;
        while let Some(client) = &client
            && server.ended().is_none()
            && acknowledged < 100_000
        {
            match client.try_post("/v1/events", JSON_LINES, ndjson(&[event(acknowledged)])) {
                Ok(reply) if reply.status == 200 => acknowledged += 1,
                Ok(reply) => panic!("{context}: {reply:?}"),
                Err(_) => break,
            }
        }
        eventually("it kills itself", || server.ended().map(|_| ()));
        assert_eq!(server.wait().code, -1, "{context}: it was to be killed by a signal");

        let server = Serving::start(&log, &["-w", &workers, "--batch-interval", "0"]);
        restored += usize::from(started(&server).contains("restored"));
        let answers = all_answers(&server);
        assert_eq!(server.post("/v1/audit", JSON_LINES, "").ok()["agree"], true, "{context}");
        server.stop();
        let events = cat(&log);
        assert!(events.len() as u64 > acknowledged, "{context}: {} events of {acknowledged}", events.len());
        assert_same_answers(&expected(&events), &answers, &context);
    }
    assert_eq!((restored, steps.len()), (steps.len(), 10), "there was a generation to go on from in each case");
}

fn runs_in(log: &str) -> Vec<PathBuf> {
    let dir = PathBuf::from(log).join("generations/web_analytics");
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let mut runs: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "runs")).collect();
    runs.sort();
    runs
}

#[test]
fn generations_are_listed_verified_passed_over_and_rolled_back() {
    let dir = Dir::new();
    let log = dir.at("log");
    let server = Serving::start(&log, &["-w", "2", "--batch-interval", "0", "--keep-generations", "3"]);
    for round in 0..3u64 {
        server.append(&(200 * round..200 * round + 200).map(event).collect::<Vec<_>>());
        server.post("/v1/rebuild", JSON_LINES, "").ok();
    }
    lambdaflow(["generations", "rollback", &log, "--to", "3"]).exits(6).says(&["is in use by process"]);
    // A changed program would ask this beside the running server; this one has changed nothing.
    let same =
        lambdaflow(["diff", "web_analytics", "--log", &log]).exits(0).says(&["no difference", "generation 4 (this program computed it)"]);
    assert_eq!(same.out, "");
    server.stop();

    let listed = lambdaflow(["generations", "list", &log, "--format", "json"]).exits(0);
    let ids: Vec<u64> = listed
        .out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["manifest"]["id"].as_u64().expect("a number"))
        .collect();
    assert_eq!(ids, [4, 3, 2]);
    let text = lambdaflow(["generations", "list", &log]).exits(0).out;
    assert!(text.starts_with("web_analytics 4: 600 events before tick "), "{text}");
    assert!(lambdaflow(["generations", "verify", &log]).exits(0).out.contains("nothing damaged"));

    // The newest file belongs to the newest generation alone.
    let newest = runs_in(&log).pop().expect("a file");
    let (whole, mut damaged) = (std::fs::read(&newest).expect("a file"), std::fs::read(&newest).expect("a file"));
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(&newest, &damaged).expect("it is written");
    let name = newest.file_name().expect("a name").to_string_lossy().into_owned();
    let verified = lambdaflow(["generations", "verify", &log]).exits(3);
    assert!(verified.out.contains(&name) && verified.out.contains("is damaged at byte"), "{}", verified.out);
    lambdaflow(["generations", "rollback", &log, "--to", "4"]).exits(3).says(&[&name]);

    let server = Serving::start(&log, &["-w", "2", "--batch-interval", "0", "--keep-generations", "3"]);
    let status = started(&server);
    assert!(
        status.contains("generation 3 restored") && status.contains("generation 4 is passed over") && status.contains(&name),
        "{status}"
    );
    let answers = all_answers(&server);
    server.stop();
    assert_same_answers(&expected(&cat(&log)), &answers, "from an older generation");
    std::fs::write(&newest, &whole).expect("it is written");

    let rolled = lambdaflow(["generations", "rollback", &log, "--to", "2"]).exits(0);
    assert!(rolled.out.contains("dropped 4, 3") && rolled.out.contains("goes on from generation 2"), "{}", rolled.out);
    let server = Serving::start(&log, &["-w", "1", "--batch-interval", "0"]);
    assert!(started(&server).contains("generation 2 restored, written anew from 2 workers"), "{}", started(&server));
    let answers = server.answers(server.append(&[event(1_000_001)]));
    server.stop();
    assert_same_answers(&expected(&cat(&log)), &answers, "from two workers to one");
    lambdaflow(["generations", "rollback", &log, "--to", "7"]).exits(2).says(&["has no generation 7"]);
    lambdaflow(["generations", "rollback", &log, "--to", "0"]).exits(0);
    lambdaflow(["generations", "list", &log]).exits(0);
    assert_eq!(runs_in(&log), Vec::<PathBuf>::new());
    lambdaflow(["diff", "web_analytics", "--log", &log]).exits(2).says(&["has no generation that can be read"]);
}
