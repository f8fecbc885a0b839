//! The start of a cluster: processes that do not fit together say why and end, and strangers at its address disturb nobody.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lambdaflow::testing::Random;

use super::cluster::*;
use super::harness::*;
use super::ports::free_addresses;

/// Longest that a refused start may take: much less than processes wait for each other here.
const REFUSED_MAX: Duration = Duration::from_secs(15);

/// Starts two processes differently, and returns how both ended.
#[track_caller]
fn refused(first: Command, second: Command) -> [Ended; 2] {
    let since = Instant::now();
    let guards = [first, second].map(|command| start(command, ""));
    let ended = guards.map(Guard::wait);
    assert!(since.elapsed() < REFUSED_MAX, "it took {:?}: {ended:?}", since.elapsed());
    for ended in &ended {
        assert_eq!(ended.out, "", "{ended:?}");
        assert!(!ended.err.contains("panicked"), "{ended:?}");
        assert_eq!(ended.err.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{ended:?}");
    }
    ended
}

/// Two processes, and nothing before them.
fn pair(dir: &Dir) -> Plan {
    Plan::new(dir, "web_analytics", (2, 1)).with(&["--connect-timeout", "30s"])
}

#[test]
fn processes_that_were_started_differently_say_what_differs_on_both_sides() {
    let dir = Dir::new();
    type Change = fn(&Dir, &mut Plan);
    // What the second process has, and what both say of it.
    let cases: [(&str, Change, &[&str]); 5] = [
        ("-w", |_, plan| plan.workers = 2, &["process 1 has -w 2, process 0 has 1"]),
        ("dataflow", |_, plan| plan.dataflow = "bank", &["the dataflow bank", "web_analytics"]),
        ("history", |_, plan| plan.more.extend(["--history".to_owned(), "7s".to_owned()]), &["--history 7000 ms", "5000 ms"]),
        (
            "hostfile",
            |dir, plan| {
                let third = free_addresses(1).remove(0);
                plan.hostfile = dir.file("other-hosts", [&plan.addresses[0], &plan.addresses[1], &third].map(String::as_str).join("\n"));
                plan.addresses.push(third);
            },
            &["process 1 has -n 3, process 0 has 2"],
        ),
        (
            "another address",
            |dir, plan| {
                let other = format!("localhost:{}", plan.addresses[0].rsplit_once(':').expect("a port").1);
                plan.hostfile = dir.file("other-hosts", format!("{other}\n{}", plan.addresses[1]));
                plan.addresses[0] = other;
            },
            &["address 0 of its hostfile: localhost:", "127.0.0.1:"],
        ),
    ];
    for (what, change, says) in cases {
        let plan = pair(&dir);
        let mut other = plan.clone();
        change(&dir, &mut other);
        for ended in refused(plan.command(0), other.command(1)) {
            let _ = ended.exits(2).says(says).says(&["hint: all processes of a cluster run the same program with the same options"]);
        }
        assert!(!dir.path("log/p0000").exists(), "{what}: the log was touched");
    }
}

#[test]
fn another_build_of_the_program_is_refused() {
    let dir = Dir::new();
    let plan = pair(&dir);
    let copy = dir.path("copy");
    let mut bytes = std::fs::read(env!("CARGO_BIN_EXE_lambdaflow")).expect("the program");
    bytes.push(0);
    std::fs::write(&copy, bytes).expect("there is room");
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut other = Command::new(&copy);
    other.args(plan.arguments(1)).env_remove("LAMBDAFLOW_TO").env_remove("LAMBDAFLOW_LOG");
    for ended in refused(plan.command(0), other) {
        let _ = ended.exits(2).says(&["process 1 has the program's", "process 0 has"]);
    }
}

#[test]
fn another_log_directory_is_refused() {
    let dir = Dir::new();
    let plan = pair(&dir);
    for there in [false, true] {
        let mut other = plan.clone();
        other.log = dir.at("other");
        if there {
            lambdaflow_with_input(["ingest", "web_analytics", "--log", &other.log, "-"], lines(10)).exits(0);
        }
        let [first, second] = refused(plan.command(0), other.command(1));
        let _ = second.exits(2).says(&[&other.log, &plan.log, "is not the directory"]);
        let _ = first.exits(4).says(&[&plan.name(1), &other.log, &plan.log]);
    }
    assert_eq!(events_in(&dir.at("other")), 10);
}

#[test]
fn another_token_is_refused() {
    let dir = Dir::new();
    let plan = Plan::new(&dir, "web_analytics", (2, 1)).with(&["--connect-timeout", "3s"]);
    let with = |process: usize, token: &str| {
        let mut command = plan.command(process);
        command.env("LAMBDAFLOW_CLUSTER_TOKEN", token);
        command
    };
    let [first, second] = refused(with(0, "red"), with(1, "blue"));
    // Whoever has another token is no process of this cluster: nobody came, and why is a guess.
    for (ended, other) in [(first, 1), (second, 0)] {
        let ended = ended.exits(4).says(&[&plan.name(other), "refuse", "the tokens differ", "did not come within 3 s"]);
        assert!(ended.err.matches("the tokens differ").count() < 5, "said again and again: {ended:?}");
    }
    let guards = [start(with(0, "red"), ""), start(with(1, "red"), "")].map(Serving::from);
    Cluster { members: guards.into() }.stop();
}

#[test]
fn a_process_that_does_not_come_is_named() {
    let dir = Dir::new();
    let plan = Plan::new(&dir, "web_analytics", (3, 1)).with(&["--connect-timeout", "1s"]);
    for lonely in 0..3 {
        let since = Instant::now();
        let ended = plan.launch(lonely).wait().exits(4);
        assert!(since.elapsed() < REFUSED_MAX, "{:?}", since.elapsed());
        let others: Vec<String> = (0..3).filter(|process| *process != lonely).map(|process| plan.name(process)).collect();
        let ended = ended.says(&[&others[0], &others[1], "did not come within 1 s", "hint"]);
        assert_eq!(ended.out, "");
    }
    // Two come, and the third does not.
    let guards = [plan.launch(0), plan.launch(2)];
    for guard in guards {
        let ended = guard.wait();
        assert_eq!(ended.code, 4, "{ended:?}");
        assert!(ended.err.contains(&plan.name(1)), "{ended:?}");
    }
    assert!(!dir.path("log/p0000").exists(), "the log was touched");
}

#[test]
fn a_process_that_dies_while_others_still_wait_may_come_again() {
    let dir = Dir::new();
    let plan = Plan::new(&dir, "web_analytics", (3, 1));
    let first = plan.launch(0);
    eventually("they met", || {
        let last = plan.launch(2);
        std::thread::sleep(Duration::from_millis(500));
        last.kill();
        std::thread::sleep(Duration::from_millis(100));
        first.stderr().contains("it came, and is gone").then_some(())
    });
    let rest = [plan.launch(1), plan.launch(2)];
    let members: Vec<Serving> = [first].into_iter().chain(rest).map(Serving::from).collect();
    Cluster { members }.stop();
}

#[test]
fn addresses_that_cannot_be_used_are_errors() {
    let dir = Dir::new();
    let plan = pair(&dir);
    let taken = TcpListener::bind(&plan.addresses[0]).expect("it was free");
    let _ = plan.launch(0).wait().exits(6).says(&[&plan.addresses[0], "in use"]);
    drop(taken);

    // Not one of this machine: TEST-NET-1, RFC 5737.
    let mut foreign = plan.clone();
    foreign.hostfile = dir.file("foreign", "192.0.2.1:2101\n192.0.2.1:2102\n");
    let _ = foreign.launch(0).wait().exits(2).says(&["addresses that other machines reach", "LAMBDAFLOW_CLUSTER_TOKEN"]);
    let _ = foreign.with(&["--insecure"]).launch(0).wait().exits(2).says(&["process 0 cannot listen on 192.0.2.1:2101", "hint"]);

    // Nobody answers at a name that there is not.
    let mut nowhere = plan.clone().with(&["--insecure"]);
    nowhere.more.retain(|argument| argument != "30s" && argument != "--connect-timeout");
    nowhere = nowhere.with(&["--connect-timeout", "1s"]);
    nowhere.hostfile = dir.file("nowhere", format!("nowhere.invalid:2101\n{}\n", plan.addresses[1]));
    let _ = nowhere.launch(1).wait().exits(4).says(&["process 0 (nowhere.invalid:2101)", "did not come"]);
}

#[test]
fn the_same_number_twice_is_refused_and_the_cluster_goes_on() {
    let dir = Dir::new();
    let plan = pair(&dir);
    let cluster = plan.start();
    // On the machine of the first, its address is taken.
    for process in 0..2 {
        let _ = plan.launch(process).wait().exits(6).says(&[&plan.addresses[process], "in use"]);
    }
    // From another machine: its own address, in a hostfile of its own, and the number of another.
    let mut twin = plan.clone();
    twin.addresses[1] = free_addresses(1).remove(0);
    twin.hostfile = dir.file("twins", twin.addresses.join("\n"));
    let _ = twin.launch(1).wait().exits(2).says(&["address 1 of its hostfile", &twin.addresses[1], &plan.addresses[1]]);
    assert_same_answers(&expected(&[event(1)]), &cluster[1].answers(cluster[0].append(&[event(1)])), "after twins");
    cluster.stop();

    // And before there is a cluster: one of them is turned away, the other is let in.
    let first = plan.launch(0);
    let twins = [plan.launch(1), plan.launch(1)];
    let mut serving = vec![Serving::from(first)];
    let mut refused = 0;
    for mut twin in twins {
        let url = eventually("it serves or ends", || {
            let serves = twin.stderr().contains("serving on ");
            (serves || twin.ended().is_some()).then_some(serves)
        });
        if url {
            serving.push(Serving::from(twin));
        } else {
            let _ = twin.wait().exits(6).says(&[&plan.addresses[1]]);
            refused += 1;
        }
    }
    assert_eq!((serving.len(), refused), (2, 1));
    Cluster { members: serving }.stop();
}

#[test]
fn numbers_that_cannot_be_right_are_usage_errors() {
    let dir = Dir::new();
    let log = dir.at("log");
    let cases: [(&[&str], &str); 7] = [
        (&["-w", "0"], "--workers"),
        (&["-n", "0"], "--processes"),
        (&["-w", "100000"], "--workers"),
        (&["-n", "2", "-p", "5"], "no process 5 of 2"),
        (&["-n", "2", "-p", "2"], "no process 2 of 2"),
        (&["-n", "2", "-h", "/nowhere/hosts"], "/nowhere/hosts"),
        (&["-p", "1"], "no process 1 of 1"),
    ];
    for (arguments, says) in cases {
        let all = ["run", "web_analytics", "--log", &log, "--listen", "127.0.0.1:0"].into_iter().chain(arguments.iter().copied());
        let _ = lambdaflow(all).exits(2).says(&[says]);
    }
    let short = dir.file("short", "127.0.0.1:2101\n");
    let all = ["run", "web_analytics", "--log", &log, "-n", "2", "-h", &short];
    let _ = lambdaflow(all).exits(2).says(&["names 1 addresses, there are 2 processes"]);
    // One process may have a hostfile, too, if it is meant to be one: nobody forgot how many.
    let all = ["run", "web_analytics", "--log", &log, "-h", &short];
    let _ = lambdaflow(all).exits(2).says(&["--processes"]);
    let alone = dir.at("alone");
    let one = ["run", "web_analytics", "--log", &alone, "-n", "1", "-h", &short, "--listen", "127.0.0.1:0"];
    let mut served = Serving::from(start(program(one), ""));
    signal("TERM", served.process.id());
    assert_eq!(eventually("it stops", || served.process.ended()).code(), Some(0));
    assert!(!dir.path("log").exists(), "the log was touched");
}

#[test]
fn more_workers_than_cores_work() {
    let dir = Dir::new();
    let plan = Plan::new(&dir, "bank", (2, 8));
    let cluster = plan.start();
    let generated = lambdaflow(["generate", "bank", "--events", "200"]).exits(0).out;
    let token = cluster[1].post("/v1/events", JSON_LINES, generated).ok()["token"].as_u64().expect("a token").to_string();
    for client in cluster.clients() {
        let total = client.get("/v1/views/total/scan", &[("at_least", &token)]).ok();
        assert_eq!((total["rows"].as_array().map(Vec::len), &total["rows"][0]["value"]), (Some(1), &0.into()), "{total}");
    }
    assert_eq!(cluster[1].post("/v1/rebuild", JSON_LINES, "").ok()["agreed"], true);
    cluster.stop();
}

/// Connects, again and again, to say something that no process says.
fn bother(address: &str, kind: u64, random: &mut Random, kept: &mut Vec<TcpStream>) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
    let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
    let header = |length: u32| [&b"LFCL"[..], &1u16.to_le_bytes(), &length.to_le_bytes()].concat();
    let _ = match kind {
        0 => stream.write_all(b"GET / HTTP/1.1\r\nHost: cluster\r\n\r\n"),
        1 => {
            let garbage: Vec<u8> = (0..random.below(4_000)).map(|_| random.below(256) as u8).collect();
            stream.write_all(&garbage)
        }
        // Silent, for as long as they like.
        2 => {
            kept.push(stream);
            return;
        }
        // Slow: the first bytes of a message that never ends.
        3 => {
            let _ = stream.write_all(&header(1_000)[..1 + random.below(9) as usize]);
            kept.push(stream);
            return;
        }
        4 => stream.write_all(&header(u32::MAX)),
        5 => stream.write_all(&[header(40), b"{\"token\":\"\",\"process\":18446744073709551615".to_vec()].concat()),
        6 => stream.write_all(&[header(2), b"{}".to_vec()].concat()),
        // Well formed, and of somebody else.
        _ => {
            let hello = r#"{"token":"","process":1,"workers":1,"addresses":["a:1","b:1"],"program":{"dataflow":"x","version":"","fingerprint":"","event":"","options":[]},"life":"","channel":{"Graph":{"name":"speed","number":0,"to":""}}}"#;
            let hello = if random.below(2) == 0 {
                hello.replace(r#"{"Graph":{"name":"speed","number":0,"to":""}}"#, "\"Talk\"")
            } else {
                hello.to_owned()
            };
            stream.write_all(&[header(hello.len() as u32), hello.into_bytes()].concat())
        }
    };
    let _ = stream.read(&mut [0; 64]);
    let _ = stream.shutdown(Shutdown::Both);
}

#[test]
fn strangers_at_the_address_disturb_neither_the_start_nor_what_follows() {
    let seed = seed();
    let dir = Dir::new();
    let mut plan = Plan::new(&dir, "web_analytics", (2, 1)).hasty();
    // A stranger that is taken for a process of this cluster ends a start, so there is a token, and they do not know it.
    plan.more.extend(["--cluster-token".to_owned(), "ours".to_owned()]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let strangers: Vec<_> = (0..4)
            .map(|stranger| {
                let (address, stop) = (plan.addresses[stranger % 2].clone(), &stop);
                let mut random = Random::new(seed.wrapping_add(stranger as u64));
                scope.spawn(move || {
                    let (mut kept, mut calls) = (Vec::new(), 0);
                    while !stop.load(Ordering::Acquire) {
                        let kind = random.below(8);
                        bother(&address, kind, &mut random, &mut kept);
                        calls += 1;
                        if kept.len() > 20 {
                            kept.remove(0);
                        }
                        // Not a flood: as many as a port scanner makes.
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    calls
                })
            })
            .collect();
        // They are there before the processes are.
        let cluster = plan.start();
        let mut token = 0;
        for n in 0..40 {
            token = cluster[n as usize % 2].append(&[event(n)]);
        }
        assert_eq!(cluster[1].post("/v1/rebuild", JSON_LINES, "").ok()["agreed"], true);
        for client in cluster.clients() {
            assert_same_answers(&expected(&(0..40).map(event).collect::<Vec<_>>()), &client.answers(token), "among strangers");
        }
        assert_eq!(cluster.status()["last_error"], serde_json::Value::Null);
        stop.store(true, Ordering::Release);
        let calls: u64 = strangers.into_iter().map(|stranger| stranger.join().expect("a stranger ends")).sum();
        println!("{calls} strangers");
        assert!(calls > 40, "{calls} strangers");
        cluster.stop();
    });
}
