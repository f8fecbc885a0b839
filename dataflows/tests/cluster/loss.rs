//! A process that is gone ends the others, soon, with one line that names it; and what was acknowledged is there afterwards.

use std::time::{Duration, Instant};

use lambdaflow::testing::Random;

use super::cluster::*;
use super::harness::*;
use super::tools::{Mount, needs};

/// Kills at durable steps, unless `LAMBDAFLOW_CLUSTER_KILLS` says otherwise.
const KILLS: u64 = 7;
/// How long appends are made until a step is reached.
const UNDER_LOAD: Duration = Duration::from_millis(2_500);
/// Steps of the program at which a process may be killed, and how often a process comes there, or more often.
const STEPS: [(&str, u64); 17] = [
    ("append.before_write", 20),
    ("append.after_write", 20),
    ("append.after_sync", 20),
    ("segment_create.before_dir_sync", 1),
    ("seal.before_footer", 1),
    ("seal.before_rename", 1),
    ("seal.before_remove", 1),
    ("mark.before_write", 1),
    ("mark.after_write", 1),
    ("runs.before_footer", 4),
    ("runs.after_sync", 4),
    ("manifest.before_write", 2),
    ("manifest.after_write", 2),
    ("manifest.before_remove", 2),
    ("handover.before_adopt", 2),
    ("handover.before_switch", 2),
    ("handover.after_switch", 2),
];
/// Events of an append.
const APPENDED: u64 = 5;

/// What became of events that were sent: those of `acknowledged` are there, of `open` all or none of each.
#[derive(Default)]
struct Sent {
    next: u64,
    acknowledged: Vec<u64>,
    open: Vec<std::ops::Range<u64>>,
}

/// Wants so many rounds of appends.
fn rounds(n: u64) -> impl FnMut() -> bool {
    let mut left = 0..n;
    move || left.next().is_some()
}

impl Sent {
    /// Appends until nobody answers any more, or `wanted` no longer.
    fn append_while(&mut self, clients: &[Client], mut wanted: impl FnMut() -> bool) {
        while wanted() {
            for client in clients {
                let events = self.next..self.next + APPENDED;
                self.next = events.end;
                let body = ndjson(&events.clone().map(event).collect::<Vec<_>>());
                match client.try_post("/v1/events", JSON_LINES, body) {
                    Ok(reply) if reply.status == 200 => self.acknowledged.extend(events),
                    Ok(reply) => {
                        // Of a process that is about to end it is open what became of an append.
                        assert!(reply.status >= 500, "{reply:?}");
                        self.open.push(events);
                        return;
                    }
                    Err(_) => return self.open.push(events),
                }
            }
        }
    }

    /// Asserts that the log holds what it must, once, and that every process answers as the reference over it.
    fn check(&self, plan: &Plan, context: &str) {
        let cluster = plan.start();
        let clients = cluster.clients();
        let last = clients[0].append(&[event(1_000_000)]);
        let answers: Vec<String> = clients.iter().map(|client| client.answers(last)).collect();
        clients[0].post("/v1/events", JSON_LINES, "").ok();
        cluster.stop();
        lambdaflow(["log", "verify", &plan.log]).exits(0);
        let events = cat(&plan.log);
        let mut numbers: Vec<u64> = events.iter().map(|event| event.bytes - 100).filter(|n| *n < 1_000_000).collect();
        numbers.sort();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{context}: events twice");
        let there = |n: &u64| numbers.binary_search(n).is_ok();
        let missing: Vec<&u64> = self.acknowledged.iter().filter(|n| !there(n)).collect();
        assert!(missing.is_empty(), "{context}: acknowledged events are lost: {missing:?}");
        let open: u64 = self.open.iter().map(|events| events.clone().filter(there).count() as u64).sum();
        assert!(self.open.iter().all(|events| [0, APPENDED].contains(&(events.clone().filter(there).count() as u64))), "{context}: a part");
        assert_eq!(numbers.len() as u64, self.acknowledged.len() as u64 + open, "{context}: events that nobody sent");
        let want = expected(&events);
        for (process, answers) in answers.iter().enumerate() {
            assert_same_answers(&want, answers, &format!("{context}: process {process}"));
        }
    }
}

#[test]
fn a_killed_stopped_or_ended_process_ends_the_others_and_costs_nothing() {
    let seed = seed();
    let mut random = Random::new(seed);
    for (round, name) in ["KILL", "STOP", "TERM", "INT", "ABRT"].into_iter().enumerate() {
        let dir = Dir::new();
        let plan = Plan::new(&dir, "web_analytics", (2 + round % 2, 1 + round % 2)).hasty();
        let cluster = plan.start();
        let clients = cluster.clients();
        let lost = random.below(plan.processes() as u64) as usize;
        let context = format!("{name} of process {lost}, seed {seed}");
        let mut sent = Sent::default();
        let until = Instant::now() + Duration::from_millis(300 + random.below(500));
        let mut members: Vec<Option<Guard>> = cluster.members.into_iter().map(|member| Some(member.process)).collect();
        sent.append_while(&clients, || Instant::now() < until);
        assert!(sent.open.is_empty(), "{context}");
        let mut gone = members[lost].take().expect("it runs");
        let since = Instant::now();
        signal(name, gone.id());
        let mut noticed = Duration::ZERO;
        for process in members.into_iter().flatten() {
            noticed = noticed.max(ends_without(process, &[plan.name(lost)], since));
        }
        println!("{context}: the others end after {} ms", noticed.as_millis());
        match name {
            "STOP" => {
                assert!(noticed >= PEER_TIMEOUT / 2, "{context}: after {noticed:?}");
                signal("CONT", gone.id());
                let others: Vec<String> =
                    (0..plan.processes()).filter(|process| *process != lost).map(|process| plan.name(process)).collect();
                ends_without(gone, &others, Instant::now());
            }
            "TERM" | "INT" => drop(gone.wait().exits(0)),
            _ => drop(eventually("it is gone", || gone.ended())),
        }
        sent.check(&plan, &context);
    }
}

#[test]
fn a_kill_at_any_durable_step_of_any_process_costs_nothing() {
    let seed = seed();
    let mut random = Random::new(seed);
    let (mut in_start, mut under_load, mut never) = (0, 0, 0);
    let first = random.below(STEPS.len() as u64);
    for round in 0..setting("LAMBDAFLOW_CLUSTER_KILLS", KILLS) {
        let (step, times) = STEPS[((first + round * 7) % STEPS.len() as u64) as usize];
        let dir = Dir::new();
        let plan = Plan::new(&dir, "web_analytics", (2 + (round % 2) as usize, 1)).hasty();
        // Manifests are written by process 0.
        let lost = if step.starts_with("manifest") { 0 } else { random.below(plan.processes() as u64) as usize };
        let crash_at = format!("{step}:{}", 1 + random.below(times));
        let context = format!("process {lost} killed at {crash_at}, seed {seed}");
        let mut sent = Sent::default();
        // Something to recover, and to go on from.
        let cluster = plan.start();
        let clients = cluster.clients();
        sent.append_while(&clients, rounds(3));
        clients[plan.processes() - 1].post("/v1/batch", JSON_LINES, "").ok();
        cluster.stop();

        let launch = |process: usize| {
            let mut command = plan.command(process);
            if process == lost {
                command.env("LAMBDAFLOW_CRASH_AT", &crash_at);
            }
            start(command, "")
        };
        let mut guards: Vec<Guard> = (0..plan.processes()).map(launch).collect();
        let urls = eventually("all serve or one is gone", || {
            let url = |guard: &Guard| guard.stderr().lines().find_map(|line| line.strip_prefix("serving on ").map(str::to_owned));
            let urls: Option<Vec<String>> = guards.iter().map(url).collect();
            if guards.iter_mut().any(|guard| guard.ended().is_some()) { Some(None) } else { urls.map(Some) }
        });
        if let Some(urls) = urls {
            let clients: Vec<Client> = urls.iter().map(|url| Client::new(url)).collect();
            let until = Instant::now() + UNDER_LOAD;
            let before = sent.acknowledged.len();
            sent.append_while(&clients, || Instant::now() < until && guards[lost].ended().is_none());
            assert!(sent.acknowledged.len() > before || !sent.open.is_empty(), "{context}: nothing was taken");
            under_load += 1;
        } else {
            in_start += 1;
        }
        let mut gone = guards.remove(lost);
        if sent.open.is_empty() && gone.ended().is_none() {
            // A step that it did not come to: then it is killed as it is.
            never += 1;
        } else {
            eventually("it is killed", || gone.ended());
        }
        let since = Instant::now();
        gone.kill();
        for process in guards {
            ends_without(process, &[plan.name(lost)], since);
        }
        sent.check(&plan, &context);
        println!("{context}: {} acknowledged, {} open", sent.acknowledged.len(), sent.open.len());
    }
    println!("{in_start} kills in the start, {under_load} under load; {never} steps were not reached");
    assert!(never * 2 <= in_start + under_load, "{never} steps were not reached");
}

#[test]
fn a_full_disk_of_one_process_ends_all_and_costs_nothing() {
    const NAME: &str = "a_full_disk_of_one_process_ends_all_and_costs_nothing";
    let dir = Dir::new();
    let plan = Plan::new(&dir, "web_analytics", (2, 1)).hasty();
    let cluster = plan.start();
    let mut sent = Sent::default();
    sent.append_while(&cluster.clients(), rounds(3));
    cluster.stop();
    // The second process's partition moves to a small file system.
    let partition = dir.path("log/p0001");
    let moved = dir.path("moved");
    std::fs::rename(&partition, &moved).expect("it can be moved");
    let room = needs!(NAME, Mount::tmpfs(&partition, 512));
    for entry in std::fs::read_dir(&moved).expect("a directory") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), partition.join(entry.file_name())).expect("there is room");
    }
    let cluster = plan.start();
    let clients = cluster.clients();
    let mut guards: Vec<Guard> = cluster.members.into_iter().map(|member| member.process).collect();
    sent.append_while(&clients[1..], || true);
    let full = guards.remove(1).wait().exits(5);
    assert!(full.err.contains("no space") && full.err.contains("p0001"), "{}", full.err);
    assert!(!full.err.contains("panicked at"), "{}", full.err);
    ends_without(guards.remove(0), &[plan.name(1)], Instant::now());
    room.grow_tmpfs(64 << 10);
    sent.check(&plan, NAME);
    room.end();
}

#[test]
fn a_process_that_outlives_its_cluster_keeps_its_share_from_the_next() {
    let dir = Dir::new();
    let plan = Plan::new(&dir, "web_analytics", (3, 1)).hasty();
    let cluster = plan.start();
    let mut sent = Sent::default();
    sent.append_while(&cluster.clients(), rounds(9));
    let mut guards: Vec<Guard> = cluster.members.into_iter().map(|member| member.process).collect();
    let outliving = guards.pop().expect("the last");
    signal("STOP", outliving.id());
    let since = Instant::now();
    for process in guards {
        ends_without(process, &[plan.name(2)], since);
    }
    // It may still be about to append: nobody opens the log, with whatever number of processes.
    let next = Plan { log: plan.log.clone(), ..Plan::new(&dir, "web_analytics", (2, 1)).hasty() };
    let [second, first] = [1, 0].map(|process| next.launch(process));
    let first = first.wait();
    assert_eq!((first.code, first.err.matches("error: ").count()), (6, 1), "{first:?}");
    assert!(first.err.contains("in use"), "{first:?}");
    check_lost(&second.wait(), &[next.name(0)]);
    let alone = Plan { log: plan.log.clone(), ..Plan::new(&dir, "web_analytics", (1, 1)) };
    let _ = alone.launch(0).wait().exits(6).says(&["in use"]);

    signal("CONT", outliving.id());
    ends_without(outliving, &[plan.name(0), plan.name(1)], Instant::now());
    sent.check(&next, "after the last one ended");
}

#[test]
fn a_process_that_stops_in_the_start_ends_the_others() {
    let seed = seed();
    let mut random = Random::new(seed);
    let dir = Dir::new();
    let plan = Plan::new(&dir, "web_analytics", (3, 1)).hasty();
    let cluster = plan.start();
    let mut sent = Sent::default();
    sent.append_while(&cluster.clients(), rounds(9));
    cluster.stop();
    for round in 0..2 {
        let mut guards: Vec<Guard> = (0..3).map(|process| plan.launch(process)).collect();
        let moment = Duration::from_millis(random.below(200 + 400 * round));
        // The moment is what is random here.
        std::thread::sleep(moment);
        let lost = random.below(3) as usize;
        let context = format!("process {lost} stopped {moment:?} after the start, seed {seed}");
        let stopped = guards.remove(lost);
        signal("STOP", stopped.id());
        let since = Instant::now();
        for process in guards {
            let ended = process.wait();
            assert!(since.elapsed() <= CONNECT_TIMEOUT + LOSS_MAX, "{context}: it took {:?}", since.elapsed());
            check_lost(&ended, &[plan.name(lost)]);
        }
        println!("{context}: the others ended after {:?}", since.elapsed());
        let others: Vec<String> = (0..3).filter(|process| *process != lost).map(|process| plan.name(process)).collect();
        signal("CONT", stopped.id());
        check_lost(&stopped.wait(), &others);
    }
    sent.check(&plan, &format!("after stops in the start, seed {seed}"));
}
