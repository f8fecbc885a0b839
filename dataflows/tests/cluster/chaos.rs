//! Kills and stops again and again, under load: no acknowledged event is lost or doubled, and nobody ever reads a violated
//! invariant. `LAMBDAFLOW_CHAOS_SECONDS` makes it longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lambdaflow::testing::Random;

use super::bank::{Moved, Reader, Writer, check_all, check_prefixes};
use super::cluster::*;
use super::harness::*;
use super::supervisor::*;

const SECONDS: u64 = 20;
const PROCESSES: usize = 3;
const WORKERS: usize = 2;
/// Faults of each run, however slow the machine is.
const FAULTS_MIN: usize = 5;
/// Quiet time before a fault, so that there is something to lose.
const CALM_MS: std::ops::Range<u64> = 100..1_200;
/// A stop that is ridden through.
const NAP_MS: std::ops::Range<u64> = 50..700;
/// How far a start has come when a process is killed in it.
const START_MS: u64 = 900;
const APPEND_PAUSE: Duration = Duration::from_millis(30);
/// Pause of whoever finds nobody to ask.
const AWAY_PAUSE: Duration = Duration::from_millis(20);

/// What happens to one process.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Kill,
    Terminate,
    /// Stopped for less than the peer timeout: all go on.
    Nap,
    /// Stopped until the others have given up, then killed.
    HangThenKill,
    /// Stopped until the others have given up, then it goes on: it has to notice.
    HangThenWake,
    /// Killed, and another in the start that follows.
    KillInStart,
}

const FAULTS: [Fault; 7] =
    [Fault::Kill, Fault::KillInStart, Fault::Nap, Fault::HangThenWake, Fault::Kill, Fault::Terminate, Fault::HangThenKill];

fn within(random: &mut Random, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(range.start + random.below(range.end - range.start))
}

/// The others end, since one is lost.
fn others_end(members: Vec<Serving>, plan: &Plan, lost: usize, since: Instant) -> (Duration, Serving) {
    let mut gone = None;
    let mut noticed = Duration::ZERO;
    for (process, member) in members.into_iter().enumerate() {
        if process == lost {
            gone = Some(member);
        } else {
            noticed = noticed.max(ends_without(member.process, &[plan.name(lost)], since));
        }
    }
    (noticed, gone.expect("it is one of them"))
}

/// Kills a process somewhere in the start of a cluster: the others end, or were about to serve and then end.
fn kill_in_start(plan: &Plan, random: &mut Random) -> Duration {
    let mut guards: Vec<Guard> = (0..plan.processes()).map(|process| plan.launch(process)).collect();
    let moment = Duration::from_millis(random.below(START_MS));
    // The moment is what is random here.
    std::thread::sleep(moment);
    let lost = random.below(PROCESSES as u64) as usize;
    let since = Instant::now();
    guards.remove(lost).kill();
    for guard in guards {
        let ended = guard.wait();
        let took = since.elapsed();
        assert!(took <= CONNECT_TIMEOUT + LOSS_MAX, "killed {moment:?} after the start, it took {took:?}: {}", ended.err);
        check_lost(&ended, &[plan.name(lost)]);
    }
    moment
}

#[test]
fn faults_under_load_lose_and_double_nothing_and_are_recovered_from() {
    let seed = seed();
    let mut random = Random::new(seed);
    let seconds = setting("LAMBDAFLOW_CHAOS_SECONDS", SECONDS);
    let dir = Dir::new();
    let plan = Plan::new(&dir, "bank", (PROCESSES, WORKERS)).hasty();
    let addresses = Arc::new(Addresses::default());
    let (stop, away) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));

    let mut members = start_all(&plan);
    addresses.set(members.iter().map(|member| member.client.clone()).collect());
    let writers: Vec<_> = (0..PROCESSES)
        .map(|number| {
            let (addresses, stop) = (Arc::clone(&addresses), Arc::clone(&stop));
            let mut writer = Writer::new(format!("teller-{number}"), seed.wrapping_add(number as u64));
            let mut random = Random::new(seed.wrapping_add(100 + number as u64));
            std::thread::spawn(move || {
                let mut process = number;
                // What was begun is finished: then it is known what is there.
                while !(stop.load(Ordering::Acquire) && writer.is_done()) {
                    let appended = addresses.get(process).is_some_and(|client| writer.append(&client).is_ok());
                    std::thread::sleep(if appended { APPEND_PAUSE } else { AWAY_PAUSE });
                    if !appended {
                        process = random.below(PROCESSES as u64) as usize;
                    }
                }
                writer
            })
        })
        .collect();
    let readers: Vec<_> = (0..PROCESSES)
        .map(|process| {
            let (addresses, stop, away) = (Arc::clone(&addresses), Arc::clone(&stop), Arc::clone(&away));
            std::thread::spawn(move || {
                let mut reader = Reader::default();
                while !stop.load(Ordering::Acquire) {
                    let read = addresses.get(process).is_some_and(|client| reader.round(&client).is_ok());
                    if !read {
                        away.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(AWAY_PAUSE);
                    }
                }
                reader
            })
        })
        .collect();

    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut recovered, mut noticed): (Vec<Duration>, Vec<Duration>) = (Vec::new(), Vec::new());
    let mut faults = 0;
    let first = random.below(FAULTS.len() as u64) as usize;
    while faults < FAULTS_MIN || Instant::now() < until {
        std::thread::sleep(within(&mut random, CALM_MS));
        let fault = FAULTS[(first + faults) % FAULTS.len()];
        let lost = random.below(PROCESSES as u64) as usize;
        faults += 1;
        let since = Instant::now();
        let id = members[lost].process.id();
        if fault == Fault::Nap {
            signal("STOP", id);
            std::thread::sleep(within(&mut random, NAP_MS));
            signal("CONT", id);
            let took = all_answer(&members, "total") - since;
            println!("fault {faults}: {fault:?} of process {lost}: all answer after {} ms", took.as_millis());
            continue;
        }
        match fault {
            Fault::Terminate => signal("TERM", id),
            Fault::HangThenKill | Fault::HangThenWake => signal("STOP", id),
            _ => signal("KILL", id),
        }
        let (took, gone) = others_end(std::mem::take(&mut members), &plan, lost, since);
        match fault {
            Fault::HangThenWake => {
                signal("CONT", id);
                let others: Vec<String> = (0..PROCESSES).filter(|process| *process != lost).map(|process| plan.name(process)).collect();
                ends_without(gone.process, &others, Instant::now());
            }
            Fault::Terminate => drop(gone.process.wait().exits(0)),
            _ => gone.process.kill(),
        }
        addresses.set(Vec::new());
        noticed.push(took);
        let started = if fault == Fault::KillInStart {
            format!(", another {} ms after the start", kill_in_start(&plan, &mut random).as_millis())
        } else {
            String::new()
        };
        members = start_all(&plan);
        addresses.set(members.iter().map(|member| member.client.clone()).collect());
        let again = all_answer(&members, "total") - since;
        recovered.push(again);
        println!(
            "fault {faults}: {fault:?} of process {lost}{started}: the others end after {} ms, all answer after {} ms",
            took.as_millis(),
            again.as_millis()
        );
    }
    stop.store(true, Ordering::Release);
    let writers: Vec<Writer> = writers.into_iter().map(|writer| writer.join().expect("no append was refused")).collect();
    let readers: Vec<Reader> = readers.into_iter().map(|reader| reader.join().expect("no answer was wrong")).collect();

    let moved: Vec<&Moved> = writers.iter().flat_map(|writer| &writer.moved).collect();
    check_prefixes(moved.iter().copied(), &readers);
    for (process, member) in members.iter().enumerate() {
        check_all(member, moved.iter().copied(), &format!("at the end, process {process}, seed {seed}"));
    }
    let cluster = Cluster { members };
    assert_eq!(cluster[PROCESSES - 1].post("/v1/audit", JSON_LINES, "").ok()["agree"], true);
    cluster.stop();
    let events: usize = moved.iter().map(|moved| moved.transfers.len()).sum();
    assert_eq!(events_in(&plan.log), events as u64, "seed {seed}");
    lambdaflow(["log", "verify", &plan.log]).exits(0);

    let (rounds, repeated): (usize, usize) =
        (readers.iter().map(|reader| reader.rounds).sum(), writers.iter().map(|writer| writer.repeated).sum());
    let of = |times: &mut Vec<Duration>| {
        times.sort();
        (times[times.len() / 2].as_millis(), times[times.len() - 1].as_millis())
    };
    let ((noticed, noticed_max), (recovered, recovered_max)) = (of(&mut noticed), of(&mut recovered));
    println!(
        "{faults} faults, {events} transfers once, {repeated} appends repeated, {rounds} ticks read in all views, {} reads not answered",
        away.load(Ordering::Relaxed)
    );
    println!(
        "noticed after {noticed} ms (median), {noticed_max} ms (worst); all answer after {recovered} ms (median), {recovered_max} ms (worst)"
    );
    assert!(rounds >= 10 && readers.iter().all(|reader| reader.rounds > 0), "{rounds} rounds");
}
