//! Power cuts at random steps of everything that is durable: appends, seals, freezing, manifests, handovers, merging,
//! restarts with other workers, redactions, recovery itself.
//!
//! After each cut: every acknowledged event is there once, unless it was redacted; an append that was not acknowledged is there
//! whole or not at all and stays as it was found; a redaction was carried out or was not; the frontier of answers has not gone
//! back; what was committed is found; and every view is what plain Rust makes of the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use lambdaflow::layers::Cycle;
use lambdaflow::log::{Durability, LogError, RedactRequest, SimClock, Tick, redact};
use lambdaflow::storage::{Disk, Rng, SimDisk};
use lambdaflow::testing::Random;

use super::restart::transfer;
use super::system::{NoStart, Settings, System, Transfer, dir, expected, log_options};

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

/// What was removed from the log: events of an account before some event.
#[derive(Clone, Copy, Debug)]
struct Redacted {
    account: u64,
    before: u64,
}

impl Redacted {
    fn holds(&self, id: u64) -> bool {
        id < self.before && transfer(id).account == self.account
    }
}

/// What the test knows of the log.
#[derive(Default)]
struct History {
    /// By the first event of each append of three.
    appends: BTreeMap<u64, Known>,
    redacted: Vec<Redacted>,
    /// A redaction during which the power was lost.
    maybe: Option<Redacted>,
    /// There was a redaction, or may have been: generations are to be computed anew.
    forgets: bool,
}

impl History {
    fn next(&self) -> u64 {
        self.appends.last_key_value().map_or(0, |(first, _)| first + 3)
    }

    /// The log holds every acknowledged event once, and of the other appends what it held when they were first looked for.
    fn check(&mut self, system: &System, context: &str) {
        let events = system.events();
        let ids: BTreeSet<u64> = events.iter().map(|event| event.id).collect();
        assert_eq!(ids.len(), events.len(), "{context}: an event is there twice");
        assert!(events.iter().all(|event| *event == transfer(event.id)), "{context}: an event has changed");
        if let Some(maybe) = self.maybe.take() {
            let acknowledged = self.appends.iter().filter(|(_, known)| **known == Known::Acknowledged);
            let affected: Vec<u64> =
                acknowledged.flat_map(|(first, _)| *first..first + 3).filter(|id| maybe.holds(*id) && !self.is_gone(*id)).collect();
            // Events of an append that nobody has looked for yet may be among them.
            if ids.iter().any(|id| maybe.holds(*id)) {
                let lost = affected.iter().find(|id| !ids.contains(id));
                assert_eq!(lost, None, "{context}: of {maybe:?}, some events are left and some are not");
            } else {
                self.redacted.push(maybe);
            }
        }
        let mut known = 0;
        for (first, state) in &self.appends {
            let left: Vec<u64> = (*first..first + 3).filter(|id| !self.is_gone(*id)).collect();
            let there = left.iter().filter(|id| ids.contains(id)).count();
            assert!(there == 0 || there == left.len(), "{context}: {there} of {} events of append {first}", left.len());
            match (*state, there) {
                (Known::Acknowledged, 0) if !left.is_empty() => panic!("{context}: append {first} was acknowledged and is lost"),
                (Known::Absent, 1..) => panic!("{context}: append {first} was not there after a restart, and now it is"),
                _ => known += there,
            }
        }
        assert_eq!(known, events.len(), "{context}: there are events that nobody appended, or that were redacted");
        let open = self.appends.iter().filter(|(_, state)| **state == Known::Open).map(|(first, _)| *first).collect::<Vec<_>>();
        for first in open {
            if (first..first + 3).all(|id| self.is_gone(id)) {
                continue; // nobody can tell
            }
            let there = (first..first + 3).any(|id| ids.contains(&id));
            self.appends.insert(first, if there { Known::Acknowledged } else { Known::Absent });
        }
    }

    fn is_gone(&self, id: u64) -> bool {
        self.redacted.iter().any(|redacted| redacted.holds(id))
    }

    /// Removes the events of an account, or loses power.
    fn redact(&mut self, disk: &SimDisk, clock: &Arc<SimClock>, account: u64, context: &str) -> bool {
        let request = RedactRequest {
            conditions: vec![format!("account = {account}").parse().expect("a condition")],
            why: "asked for".to_owned(),
            options: log_options(Durability::Sync),
        };
        let redacted = Redacted { account, before: self.next() };
        self.forgets = true;
        match redact::<Transfer>(Arc::new(disk.clone()), Arc::clone(clock) as _, &dir(), &request) {
            Ok(report) if report.id.is_some() => self.redacted.push(redacted),
            Ok(_) => return false,
            Err(error) => {
                assert!(disk.is_off() || matches!(error, LogError::Condition { .. } | LogError::NoLog { .. }), "{context}: {error}");
                self.maybe = Some(redacted);
            }
        }
        true
    }
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
    redactions: u64,
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
        let Seen { cuts_at_start, cuts_in_appends, cuts_in_cycles, restored, computed, resharded, handovers, redactions, .. } = seen;
        let rare = [cuts_at_start, cuts_in_appends, cuts_in_cycles, restored, computed, resharded, handovers, redactions];
        assert!(rare.iter().all(|n| *n > 0), "some things never happened: {seen:?}");
    }
}

fn lives_on_one_disk(seed: u64, seen: &mut Seen) {
    let mut rng = Rng::new(seed);
    let (mut disk, clock) = (SimDisk::new(), SimClock::at(10_000));
    let mut history = History::default();
    let (mut answered, mut committed) = (Tick(0), 0);
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
        if life > 0 && rng.one_in(4) {
            seen.redactions += u64::from(history.redact(&disk, &clock, rng.below(5), &context));
            if disk.is_off() {
                disk = disk.after_power_cut(rng.number());
            }
        }
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        match System::start(&shared, &clock, &settings) {
            Ok(system) => live(system, &disk, &clock, &mut rng, &mut history, &mut answered, &mut committed, seen, &context),
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
    history: &mut History,
    answered: &mut Tick,
    committed: &mut u64,
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
    let newest = system.started.manifest.id;
    // Generations from before a redaction are gone, and their numbers may come again.
    if std::mem::take(&mut history.forgets) {
        *committed = 0;
    }
    assert!(disk.is_off() || newest >= *committed, "{context}: generation {committed} was committed, {newest} is the newest");
    *committed = (*committed).max(newest);
    assert!(system.serving.frontier() >= *answered, "{context}: answers went back to {} from {answered}", system.serving.frontier());
    history.check(&system, context);

    for _ in 0..rng.below(12) {
        match rng.below(6) {
            0..=2 => {
                let first = history.next();
                let acknowledged = system.log.append((first..first + 3).map(transfer).collect());
                history.appends.insert(first, if acknowledged.is_ok() { Known::Acknowledged } else { Known::Open });
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
                    Ok(handover) => {
                        seen.handovers += 1;
                        *committed = handover.generation;
                    }
                    Err(error) => {
                        assert!(disk.is_off(), "{context}: {error}");
                        seen.cuts_in_cycles += 1;
                        // Serving goes on from memory, and is still right about what it says.
                        let frontier = system.serving.frontier();
                        if frontier > Tick(0) && system.serving.views().len() > 1 {
                            let answers = system.answers_at(Some(Tick(frontier.0 - 1)));
                            assert_eq!(answers, expected(&system.events_before(frontier)), "{context}");
                        }
                        *answered = (*answered).max(frontier);
                        return;
                    }
                }
            }
        }
        *answered = (*answered).max(system.serving.frontier());
    }
    if !disk.is_off() && system.log.advance().is_ok() {
        history.check(&system, context);
        if system.log.advance().is_ok() {
            assert_eq!(system.answers(), expected(&system.events()), "{context}");
            *answered = (*answered).max(system.serving.frontier());
        }
    }
}
