//! What a restart goes on from.

use std::path::PathBuf;
use std::sync::Arc;

use std::time::{Duration, Instant};

use lambdaflow::layers::Cycle;
use lambdaflow::log::{Durability, Log, LogOptions, SimClock, SystemClock};
use lambdaflow::operators::Codec;
use lambdaflow::runtime::{Program, Server, ServerOptions, diff_log, diff_log_in};
use lambdaflow::storage::{Disk, RealDisk, SimDisk};

use super::cluster_support::together;
use super::system::{NoStart, Settings, System, Transfer, bank, changed_bank, dir, expected, log_options, open_log, store};

pub fn transfer(id: u64) -> Transfer {
    Transfer { id, account: id * 7 % 5, note: format!("note {}", id * id % 11), amount: id as i64 % 9 - 4 }
}

fn append(system: &System, ids: std::ops::Range<u64>) {
    for first in ids.clone().step_by(3) {
        system.log.append((first..ids.end.min(first + 3)).map(transfer).collect()).expect("an append");
    }
}

/// A disk, a clock, and a system that has handed over several times and has a tail.
fn grown(settings: &Settings) -> (SimDisk, Arc<dyn Disk>, Arc<SimClock>) {
    let (sim, clock) = (SimDisk::new(), SimClock::at(1_000));
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let mut system = System::start(&disk, &clock, settings).expect("it starts");
    for round in 0..5 {
        append(&system, 40 * round..40 * round + 40);
        clock.pass(20);
        let cycle = if round == 3 { Cycle::Full } else { Cycle::Incremental };
        let handover = system.cycle(cycle).expect("it hands over");
        assert_eq!(handover.agreed, Some(true));
    }
    append(&system, 200..230);
    assert_eq!(system.answers(), expected(&system.events()));
    drop(system);
    (sim, disk, clock)
}

fn start(disk: &Arc<dyn Disk>, clock: &Arc<SimClock>, settings: &Settings) -> System {
    System::start(disk, clock, settings).unwrap_or_else(|error| panic!("it starts: {error:?}"))
}

#[test]
fn a_restart_goes_on_from_the_newest_generation_and_the_log() {
    for workers in [1, 2] {
        let settings = Settings { workers, ..Settings::default() };
        let (_, disk, clock) = grown(&settings);
        let mut system = start(&disk, &clock, &settings);
        assert!(system.started.handover.is_none(), "{}", system.started.summary());
        assert_eq!((system.started.manifest.id, system.started.found.tail), (6, 30), "{}", system.started.summary());
        assert_eq!(system.answers(), expected(&(0..230).map(transfer).collect::<Vec<_>>()));

        // It goes on: the next cycle stands on what was restored.
        append(&system, 230..260);
        clock.pass(5);
        let handover = system.cycle(Cycle::Incremental).expect("it hands over");
        assert_eq!((handover.generation, handover.agreed), (7, Some(true)));
        assert_eq!(system.answers(), expected(&system.events()));
    }
}

/// A log that has grown has partitions that no generation knows of. Nothing was in them when it was made.
#[test]
fn a_generation_from_before_the_log_grew_is_gone_on_with() {
    let settings = Settings::default();
    let (_, disk, clock) = grown(&settings);
    let options = LogOptions { partitions: 5, ..log_options(Durability::Sync) };
    let prepared = Log::<Transfer>::prepare(Arc::clone(&disk), Arc::clone(&clock) as _, &dir(), options).expect("it grows");
    assert_eq!(prepared.partitions(), 5);
    drop(prepared);
    let mut system = start(&disk, &clock, &settings);
    assert!(system.started.handover.is_none(), "{}", system.started.summary());
    assert_eq!((system.started.manifest.id, system.started.found.tail), (6, 30), "{}", system.started.summary());
    append(&system, 230..290);
    clock.pass(5);
    assert_eq!(system.cycle(Cycle::Incremental).expect("it hands over").agreed, Some(true));
    drop(system);
    let system = start(&disk, &clock, &settings);
    assert_eq!(system.started.manifest.contents.log.ends.len(), 5);
    assert_eq!(system.answers(), expected(&(0..290).map(transfer).collect::<Vec<_>>()));
}

#[test]
fn other_workers_take_the_runs_over() {
    for (before, after) in [(1, 2), (2, 1), (2, 3), (3, 2)] {
        let (_, disk, clock) = grown(&Settings { workers: before, ..Settings::default() });
        let settings = Settings { workers: after, ..Settings::default() };
        let mut system = start(&disk, &clock, &settings);
        assert!(system.started.handover.is_none(), "{}", system.started.summary());
        assert_eq!(system.started.found.resharded_from, Some(before));
        assert_eq!(system.answers(), expected(&system.events()));
        append(&system, 230..250);
        clock.pass(5);
        // Full and incremental cycles agree with what the speed layer makes of the runs that were written anew.
        for cycle in [Cycle::Incremental, Cycle::Full] {
            assert_eq!(system.cycle(cycle).expect("it hands over").agreed, Some(true));
            assert_eq!(system.answers(), expected(&system.events()));
        }
        drop(system);
        let system = start(&disk, &clock, &settings);
        assert_eq!(system.started.found.resharded_from, None);
        assert_eq!(system.answers(), expected(&system.events()));
    }
}

#[test]
fn a_long_log_is_computed_in_steps() {
    let settings = Settings { batch_events: 16, workers: 2, ..Settings::default() };
    let (sim, clock) = (SimDisk::new(), SimClock::at(1_000));
    let disk: Arc<dyn Disk> = Arc::new(sim);
    let log = open_log(&disk, &clock).expect("a log");
    for id in 0..200 {
        log.append(vec![transfer(id)]).expect("an append");
        clock.pass(1);
    }
    drop(log);
    let mut system = start(&disk, &clock, &settings);
    assert_eq!(system.answers(), expected(&(0..200).map(transfer).collect::<Vec<_>>()));
    for (round, cycle) in [Cycle::Full, Cycle::Incremental, Cycle::Incremental, Cycle::Full].into_iter().enumerate() {
        for id in 200 + 60 * round as u64..260 + 60 * round as u64 {
            append(&system, id..id + 1);
            clock.pass(1);
        }
        let handover = system.cycle(cycle).expect("it hands over");
        assert_eq!(handover.agreed, Some(true));
        assert!(handover.rows > 0);
        assert_eq!(system.answers(), expected(&system.events()));
    }
    drop(system);
    let system = start(&disk, &clock, &settings);
    assert!(system.started.handover.is_none());
    assert_eq!(system.answers(), expected(&system.events()));
}

#[test]
fn an_old_generation_or_the_log_steps_in_for_a_damaged_one() {
    let settings = Settings { keep: 3, ..Settings::default() };
    let (sim, disk, clock) = grown(&settings);
    let log = open_log(&disk, &clock).expect("a log");
    let manifests = store(&disk, &log, 3).manifests().expect("they can be listed");
    drop(log);
    assert_eq!(manifests.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [6, 5, 4]);
    let newest = manifests[0].1.as_ref().expect("it is whole");
    let older = manifests[1].1.as_ref().expect("it is whole");
    let only_newest: Vec<u64> =
        newest.files().map(|file| file.number).filter(|number| older.files().all(|file| file.number != *number)).collect();
    let path = |number: u64| dir().join("generations/bank").join(format!("{number:020}.runs"));

    // A file that only the newest has: the one before it steps in.
    let damaged = sim.after_kill();
    let mut bytes = damaged.files()[&path(only_newest[0])].clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    damaged.plant(&path(only_newest[0]), &bytes);
    let system = start(&(Arc::new(damaged) as _), &clock, &settings);
    let passed_over = system.started.found.passed_over.join("\n");
    assert!(passed_over.contains("generation 6 is passed over") && passed_over.contains("is damaged at byte"), "{passed_over}");
    assert!(passed_over.contains(&format!("{:020}.runs", only_newest[0])), "{passed_over}");
    assert_eq!(system.started.manifest.id, 5);
    assert_eq!(system.answers(), expected(&system.events()));
    drop(system);

    // All files: the log steps in. Numbers of generations go on.
    let damaged = sim.after_kill();
    for (path, mut bytes) in damaged.files().into_iter().filter(|(path, _)| path.extension().is_some_and(|kind| kind == "runs")) {
        bytes.pop();
        damaged.plant(&path, &bytes);
    }
    let disk: Arc<dyn Disk> = Arc::new(damaged);
    let system = start(&disk, &clock, &settings);
    assert_eq!(system.started.found.passed_over.len(), 3);
    assert_eq!((system.started.manifest.id, system.started.manifest.full), (7, true));
    assert_eq!(system.answers(), expected(&system.events()));
    drop(system);
    assert_eq!(start(&disk, &clock, &settings).started.manifest.id, 7, "what was computed again is found");
}

#[test]
fn a_generation_that_is_ahead_of_the_log_is_refused() {
    let settings = Settings::default();
    let (sim, clock) = (SimDisk::new(), SimClock::at(1_000));
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let mut system = start(&disk, &clock, &settings);
    append(&system, 0..30);
    drop(system.log.clone());
    let before: Vec<_> = sim.files().into_iter().collect();
    append(&system, 30..90);
    clock.pass(5);
    system.cycle(Cycle::Incremental).expect("it hands over");
    drop(system);
    // The log as it was before, the generations as they are.
    let restored = sim.after_kill();
    for path in restored.files().keys().filter(|path| !path.starts_with(dir().join("generations"))) {
        restored.uproot(path);
    }
    for (path, bytes) in before.iter().filter(|(path, _)| !path.starts_with(dir().join("generations"))) {
        restored.plant(path, bytes);
    }
    let Err(NoStart::Cycle(error)) = System::start(&(Arc::new(restored) as _), &clock, &settings).map(|_| ()) else {
        panic!("it must not start");
    };
    assert!(error.to_string().contains("is ahead of the log"), "{error}");
}

fn runs_in(sim: &SimDisk) -> Vec<PathBuf> {
    sim.files().into_keys().filter(|path| path.extension().is_some_and(|kind| kind == "runs")).collect()
}

/// Acknowledgements that were not synced: a power cut takes events that a generation covers. The log then grows again, past the
/// offsets that were covered, so that only what lies below the frontier tells that the generation is of another log.
#[test]
fn a_generation_over_lost_events_is_passed_over_even_when_the_log_has_grown_again() {
    let (sim, clock) = (SimDisk::new(), SimClock::at(1_000));
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let settings = Settings { durability: Durability::Os, ..Settings::default() };
    let mut system = start(&disk, &clock, &settings);
    append(&system, 0..60);
    clock.pass(5);
    system.cycle(Cycle::Incremental).expect("it hands over");
    drop(system);
    // Of what was not synced, nothing landed.
    let lost = (0..).map(|seed| sim.after_power_cut(seed)).find(|disk| {
        let disk: Arc<dyn Disk> = Arc::new(disk.after_kill());
        open_log(&disk, &clock).is_ok_and(|log| log.events_total() < 60)
    });
    let disk: Arc<dyn Disk> = Arc::new(lost.expect("a seed that loses something"));
    for round in 0..2 {
        let system = start(&disk, &clock, &settings);
        let passed_over = system.started.found.passed_over.join("\n");
        assert!(passed_over.contains("covers events that the log lost"), "round {round}: {passed_over}");
        assert_eq!(system.answers(), expected(&system.events()), "round {round}");
        append(&system, 100 * (round + 1)..100 * (round + 1) + 90);
        clock.pass(5);
        assert_eq!(system.answers(), expected(&system.events()), "round {round}");
        drop(system);
        store(&disk, &open_log(&disk, &clock).expect("a log"), 9).drop_if(|(id, _)| *id > 2).expect("it can be dropped");
    }
}

/// What a process left that was killed in the middle of writing is removed at the next start, and damaged generations do not
/// count among those that are kept.
#[test]
fn what_nobody_needs_is_removed_and_what_is_whole_is_kept() {
    let settings = Settings { keep: 2, ..Settings::default() };
    let (sim, disk, clock) = grown(&settings);
    let stray = dir().join("generations/bank").join(format!("{:020}.runs", 7_000));
    sim.plant(&stray, b"begun");
    for name in ["notes.txt", "7.json", "+8.json"] {
        sim.plant(&dir().join("generations/bank").join(name), b"of somebody");
    }
    let log = open_log(&disk, &clock).expect("a log");
    let newest = store(&disk, &log, 2).manifests().expect("they can be listed")[0].1.clone().expect("it is whole");
    drop(log);
    let last = newest.files().map(|file| file.number).max().expect("it has files");
    let path = dir().join("generations/bank").join(format!("{last:020}.runs"));
    let mut bytes = sim.files()[&path].clone();
    bytes[9] ^= 1;
    sim.plant(&path, &bytes);

    let mut system = start(&disk, &clock, &settings);
    assert!(!runs_in(&sim).contains(&stray));
    assert_eq!(system.started.manifest.id, 5, "{}", system.started.summary());
    clock.pass(5);
    system.cycle(Cycle::Incremental).expect("it hands over");
    let kept: Vec<u64> = store(&disk, &system.log, 2).manifests().expect("they can be listed").iter().map(|(id, _)| *id).collect();
    assert_eq!(kept, [7, 5], "6 was damaged");
    assert!(sim.files().contains_key(&dir().join("generations/bank/7.json")), "what is not ours stays");
}

#[test]
fn a_changed_dataflow_is_computed_while_the_old_views_stand() {
    for workers in [1, 2] {
        let (_, disk, clock) = grown(&Settings { workers: 2, ..Settings::default() });
        let changed = Settings { workers, dataflow: Arc::new(changed_bank), ..Settings::default() };
        let mut system = start(&disk, &clock, &changed);
        assert!(system.started.outdated, "{}", system.started.summary());
        let frontier = system.started.manifest.frontier;
        assert_eq!(system.serving.frontier(), frontier);

        // What both versions have is answered as the old one did, at its frontier, while events go on coming.
        append(&system, 230..250);
        let old = expected(&(0..200).map(transfer).collect::<Vec<_>>());
        let standing = system.answers_at(None);
        assert_eq!(standing.keys().collect::<Vec<_>>(), ["balances", "errors", "notes"]);
        for (view, rows) in &standing {
            assert_eq!(rows, &old[view], "view {view}");
        }

        let handover = system.cycle(Cycle::Incremental).expect("it is computed");
        assert_eq!((handover.cycle, handover.cut), (Cycle::Full, frontier));
        let differing: Vec<&str> = handover.differences.iter().map(|difference| difference.view.as_str()).collect();
        assert_eq!(differing, ["balances", "lengths", "top_notes", "classes"]);
        let events: Vec<_> = (0..200).map(transfer).collect();
        let of_one: Vec<_> = events.iter().filter(|event| event.account == 1).collect();
        let (n, sum) = (of_one.len() as i64, of_one.iter().map(|event| event.amount).sum::<i64>());
        let changes: Vec<_> = handover.differences[0].rows.iter().map(|row| (row.key.clone(), row.value.clone(), row.count)).collect();
        let row = |sum: i64, count: isize| (serde_json::json!(1), serde_json::json!([n, sum]), count);
        assert_eq!(changes, [row(sum - n, 1), row(sum, -1)], "new minus old");
        assert!(handover.differences[2].unread && handover.differences[3].unread);

        let answers = system.answers();
        assert_eq!(answers.keys().collect::<Vec<_>>(), ["balances", "errors", "lengths", "notes"]);
        assert_eq!(answers["notes"], expected(&system.events())["notes"]);
        drop(system);
        let system = start(&disk, &clock, &changed);
        assert!(system.started.handover.is_none() && !system.started.outdated, "{}", system.started.summary());
    }
}

#[test]
fn another_build_is_another_dataflow() {
    let (_, disk, clock) = grown(&Settings::default());
    let mut system = start(&disk, &clock, &Settings { version: "2".to_owned(), ..Settings::default() });
    assert!(system.started.outdated);
    let handover = system.cycle(Cycle::Incremental).expect("it is computed");
    assert!(handover.differences.is_empty(), "{:?}", handover.differences);
    assert_eq!(system.answers(), expected(&system.events()));
}

/// What `diff` prints before a switch is what the switch then changes; the log is not touched, and may be in use.
#[test]
fn the_difference_is_known_before_the_switch() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let log_options = || LogOptions { partitions: 5, ..LogOptions::default() };
    let open = || Log::<Transfer>::open(Arc::new(RealDisk), Arc::new(SystemClock), &path, log_options()).expect("a log");
    let options = ServerOptions { workers: 2, batch_interval: None, ..ServerOptions::default() };
    let program = Program::new("bank", bank).version("1");
    let log = open();
    let server = Server::start(program.clone(), log.clone(), options.clone()).expect("it starts");
    for id in 0..300 {
        log.append(vec![transfer(id)]).expect("an append");
    }
    server.service().cycle(Cycle::Incremental).expect("it hands over");
    log.append((300..310).map(transfer).collect()).expect("an append");

    let same = diff_log(&program, &path, 1, 10).expect("they are compared");
    assert!(same.same_program && same.differences.is_empty(), "{same:?}");
    let changed = Program::new("bank", changed_bank).version("1");
    let before = diff_log(&changed, &path, 2, 10).expect("they are compared");
    assert!(!before.same_program && !before.differences.is_empty());
    // Several processes find the same, in the same order, and write nothing.
    let files = || {
        let read = |dir: &PathBuf| std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
        let mut files: Vec<PathBuf> = read(&path);
        files.extend::<Vec<PathBuf>>(read(&path.join("generations/bank")));
        files.sort();
        files
    };
    let files_before = files();
    for (processes, limit) in [(2, 10), (3, 2), (3, 1)] {
        let alone = diff_log(&changed, &path, 1, limit).expect("they are compared");
        let diff = |cluster: &_| diff_log_in(cluster, &changed, &path, Codec::default(), limit).expect("they are compared");
        let mut compared = together(processes, 2, diff).into_iter();
        let diff = compared.next().flatten().expect("process 0 has the result");
        assert_eq!((diff.generation, diff.frontier), (alone.generation, alone.frontier));
        assert_eq!(diff.differences, alone.differences, "{processes} processes, {limit} rows");
        assert!(compared.all(|diff| diff.is_none()));
    }
    assert_eq!(files(), files_before);
    server.close().expect("it closes");

    let server = Server::start(changed, open(), options).expect("it starts");
    let service = server.service();
    let deadline = Instant::now() + Duration::from_secs(60);
    let handover = loop {
        if let Some(handover) = service.status().last_handover {
            break handover;
        }
        assert!(Instant::now() < deadline, "the changed dataflow is never computed: {:?}", service.status());
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(handover.differences, before.differences);
    assert!(service.status().started.contains("of another version of the dataflow stands"), "{}", service.status().started);
    server.close().expect("it closes");
}
