//! Power cuts at random steps of everything that is durable: appends, seals, freezing, manifests, handovers, merging,
//! restarts with other workers, recovery itself.
//!
//! After each cut: every acknowledged event is there once, an append that was not acknowledged is there whole or not at all
//! and stays as it was found, the frontier of answers has not gone back, and every view is what plain Rust makes of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lambdaflow::layers::Cycle;
use lambdaflow::log::{SimClock, Tick};
use lambdaflow::storage::{Disk, Rng, SimDisk};
use lambdaflow::testing::Random;

use super::restart::transfer;
use super::system::{NoStart, Settings, System, expected};

/// Lives of a process on one disk before the next disk.
const LIVES: u64 = 6;

/// What the test knows of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Acknowledged,
    /// Its caller was told that it failed, or nothing.
    Open,
    /// It was looked for after a restart, and not found.
    Absent,
}

/// How often rare things happened: a test that never saw them shows nothing.
#[derive(Default, Debug)]
struct Seen {
    lives: u64,
    cuts_at_start: u64,
    cuts_in_appends: u64,
    cuts_in_cycles: u64,
    restored: u64,
    computed: u64,
    resharded: u64,
    handovers: u64,
}

fn budget() -> Duration {
    let seconds = std::env::var("LAMBDAFLOW_CRASH_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

#[test]
fn no_power_cut_loses_an_event_or_changes_an_answer() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}; LAMBDAFLOW_CRASH_SECONDS sets how long it looks");
    let (until, mut seen, mut round) = (Instant::now() + budget(), Seen::default(), 0);
    while Instant::now() < until || round == 0 {
        lives_on_one_disk(seed.wrapping_add(round), &mut seen);
        round += 1;
    }
    println!("{round} disks, {seen:?}");
    if budget() >= Duration::from_secs(10) {
        let Seen { cuts_at_start, cuts_in_appends, cuts_in_cycles, restored, computed, resharded, handovers, .. } = seen;
        let rare = [cuts_at_start, cuts_in_appends, cuts_in_cycles, restored, computed, resharded, handovers];
        assert!(rare.iter().all(|n| *n > 0), "some things never happened: {seen:?}");
    }
}

fn lives_on_one_disk(seed: u64, seen: &mut Seen) {
    let mut rng = Rng::new(seed);
    let (mut disk, clock) = (SimDisk::new(), SimClock::at(10_000));
    // By the first event of each append of three.
    let mut appends: BTreeMap<u64, Known> = BTreeMap::new();
    let mut answered = Tick(0);
    for life in 0..LIVES {
        let context = format!("LAMBDAFLOW_SEED={seed}, life {life}");
        let workers = 1 + rng.below(2) as usize;
        let batch_events = if rng.one_in(3) { 5 } else { u64::MAX };
        let settings = Settings { workers, batch_events, keep: 1 + rng.below(3) as usize, ..Settings::default() };
        // The last life is not disturbed.
        if life + 1 < LIVES {
            let within = if rng.one_in(2) { 40 } else { 400 };
            disk.cut_power_at(1 + rng.below(within));
        }
        if rng.one_in(5) {
            clock.set(10_000); // an hour back, or more
        }
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        match System::start(&shared, &clock, &settings) {
            Ok(system) => live(system, &disk, &clock, &mut rng, &mut appends, &mut answered, seen, &context),
            Err(error) => {
                assert!(disk.is_off(), "{context}: {error:?}");
                assert!(!matches!(&error, NoStart::Cycle(error) if error.to_string().contains("panicked")), "{context}: {error:?}");
                seen.cuts_at_start += 1;
            }
        }
        seen.lives += 1;
        disk = if disk.is_off() { disk.after_power_cut(rng.number()) } else { disk.after_kill() };
    }
}

#[expect(clippy::too_many_arguments, reason = "the state of one test, handed from life to life")]
fn live(
    mut system: System,
    disk: &SimDisk,
    clock: &SimClock,
    rng: &mut Rng,
    appends: &mut BTreeMap<u64, Known>,
    answered: &mut Tick,
    seen: &mut Seen,
    context: &str,
) {
    match &system.started.handover {
        None => seen.restored += 1,
        Some(_) => seen.computed += 1,
    }
    seen.resharded += u64::from(system.started.found.resharded_from.is_some());
    // What was committed is whole: nothing was damaged here, power was lost. In a start that loses it, nothing can be read.
    assert!(disk.is_off() || system.started.found.passed_over.is_empty(), "{context}: {:?}", system.started.found.passed_over);
    assert!(system.serving.frontier() >= *answered, "{context}: answers went back to {} from {answered}", system.serving.frontier());
    check_log(&system, appends, context);

    for _ in 0..rng.below(12) {
        match rng.below(6) {
            0..=2 => {
                let first = appends.last_key_value().map_or(0, |(first, _)| first + 3);
                let acknowledged = system.log.append((first..first + 3).map(transfer).collect());
                appends.insert(first, if acknowledged.is_ok() { Known::Acknowledged } else { Known::Open });
                if acknowledged.is_err() {
                    seen.cuts_in_appends += 1;
                    assert!(disk.is_off(), "{context}: {acknowledged:?}");
                    return;
                }
                clock.pass(rng.below(4));
            }
            3 => {
                if system.log.advance().is_err() {
                    assert!(disk.is_off(), "{context}");
                    return;
                }
            }
            _ => {
                let cycle = if rng.one_in(4) { Cycle::Full } else { Cycle::Incremental };
                match system.cycle(cycle) {
                    Ok(_) => seen.handovers += 1,
                    Err(error) => {
                        assert!(disk.is_off(), "{context}: {error}");
                        seen.cuts_in_cycles += 1;
                        // Serving goes on from memory, and is still right about what it said.
                        *answered = (*answered).max(system.serving.frontier());
                        return;
                    }
                }
            }
        }
        *answered = (*answered).max(system.serving.frontier());
    }
    if !disk.is_off() && system.log.advance().is_ok() {
        check_log(&system, appends, context);
        if system.log.advance().is_ok() {
            assert_eq!(system.answers(), expected(&system.events()), "{context}");
            *answered = (*answered).max(system.serving.frontier());
        }
    }
}

/// The log holds every acknowledged event once, and of the other appends what it held when they were first looked for.
fn check_log(system: &System, appends: &mut BTreeMap<u64, Known>, context: &str) {
    let events = system.events();
    let ids: BTreeSet<u64> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), events.len(), "{context}: an event is there twice");
    assert!(events.iter().all(|event| *event == transfer(event.id)), "{context}: an event has changed");
    let mut known = 0;
    for (first, state) in appends.iter_mut() {
        let there = (*first..first + 3).filter(|id| ids.contains(id)).count();
        assert!(there == 0 || there == 3, "{context}: {there} of 3 events of append {first}");
        match (*state, there) {
            (Known::Acknowledged, 0) => panic!("{context}: append {first} was acknowledged and is lost"),
            (Known::Absent, 3) => panic!("{context}: append {first} was not there after a restart, and now it is"),
            (Known::Open, 0) => *state = Known::Absent,
            (Known::Open, _) => *state = Known::Acknowledged,
            _ => {}
        }
        known += there;
    }
    assert_eq!(known, events.len(), "{context}: there are events that nobody appended");
}
