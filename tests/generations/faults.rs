//! Storage that fails while generations are written or read: the cycle fails and says so, what is served goes on, nothing is
//! left over, and the next cycle and the next start are as if nothing had been.

use std::path::Path;
use std::sync::Arc;

use lambdaflow::layers::Cycle;
use lambdaflow::log::SimClock;
use lambdaflow::storage::{Disk, Effect, Fault, FaultDisk, Operation, SimDisk};

use super::restart::transfer;
use super::system::{Settings, System, dir, expected, store};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn append(system: &System, ids: std::ops::Range<u64>) {
    system.log.append(ids.map(transfer).collect()).expect("an append");
}

/// Files of runs that no manifest names.
fn left_over(sim: &SimDisk, disk: &Arc<dyn Disk>, system: &System) -> Vec<String> {
    let manifests = store(disk, &system.log, 2).manifests().expect("they can be listed");
    let named: Vec<String> = manifests
        .iter()
        .flat_map(|(_, manifest)| manifest.as_ref().expect("it is whole").files())
        .map(|file| format!("{:020}.runs", file.number))
        .collect();
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let files = sim.files();
    let runs = files.keys().filter(|path| path.starts_with(dir().join("generations"))).filter_map(|path| name(path));
    runs.filter(|name| name.ends_with(".runs") && !named.contains(name)).collect()
}

#[test]
fn a_cycle_that_cannot_be_written_leaves_everything_as_it_was() {
    // With how many of them before the manifest has its name: two files of runs and the manifest are created and synced, three
    // directories and the manifest's are, of which two here bear the name that is looked for.
    let operations =
        [(Operation::Create, 3), (Operation::Append, 8), (Operation::Sync, 3), (Operation::Rename, 1), (Operation::SyncDir, 3)];
    for (operation, to_fail) in operations {
        for errno in [EIO, ENOSPC] {
            let mut failed = 0;
            for after in 0..8 {
                let (sim, clock) = (SimDisk::new(), SimClock::at(1_000));
                let faults = FaultDisk::new(Arc::new(sim.clone()));
                let disk: Arc<dyn Disk> = Arc::new(faults.clone());
                let settings = Settings { workers: 2, ..Settings::default() };
                let mut system = System::start(&disk, &clock, &settings).expect("it starts");
                append(&system, 0..40);
                clock.pass(5);
                system.cycle(Cycle::Incremental).expect("it hands over");
                append(&system, 40..60);
                clock.pass(5);

                let path_contains = "generations".to_owned();
                let effect = if errno == EIO { Effect::FailBefore(errno) } else { Effect::FailAfter(errno) };
                faults.inject(Fault { operation, path_contains, after, times: 1, effect });
                let context = format!("{operation:?} number {after} fails with {errno}");
                let served = system.serving.generation();
                match system.cycle(Cycle::Incremental) {
                    Ok(_) => {} // what came after the commit: it is tried again
                    Err(error) => {
                        failed += 1;
                        assert!(error.to_string().contains("generations"), "{context}: {error}");
                        assert_eq!(system.serving.generation(), served, "{context}");
                        assert_eq!(left_over(&sim, &disk, &system), Vec::<String>::new(), "{context}");
                    }
                }
                faults.heal();
                assert_eq!(system.answers(), expected(&system.events()), "{context}");
                append(&system, 60..70);
                clock.pass(5);
                assert_eq!(system.cycle(Cycle::Incremental).expect("it hands over").agreed, Some(true), "{context}");
                assert_eq!(system.answers(), expected(&system.events()), "{context}");
                let newest = system.serving.generation().0;
                drop(system);
                let system = System::start(&disk, &clock, &settings).unwrap_or_else(|error| panic!("{context}: {error:?}"));
                assert_eq!((system.started.manifest.id, system.started.handover.is_none()), (newest, true), "{context}");
                assert_eq!(system.answers(), expected(&system.events()), "{context}");
            }
            assert_eq!(failed, to_fail, "cycles in which {operation:?} failed with {errno}");
        }
    }
}

#[test]
fn a_generation_that_cannot_be_read_is_passed_over() {
    let (sim, clock) = (SimDisk::new(), SimClock::at(1_000));
    let faults = FaultDisk::new(Arc::new(sim));
    let disk: Arc<dyn Disk> = Arc::new(faults.clone());
    let settings = Settings::default();
    let mut system = System::start(&disk, &clock, &settings).expect("it starts");
    for round in 0..3 {
        append(&system, 20 * round..20 * round + 20);
        clock.pass(5);
        system.cycle(Cycle::Full).expect("it hands over");
    }
    let newest = system.serving.generation().0;
    drop(system);
    // The manifest is read three times: to see whether it must be dropped, what it names, and to use it.
    for (operation, path_contains, times) in [(Operation::Map, ".runs".to_owned(), 1), (Operation::Read, format!("{newest:020}.json"), 3)] {
        faults.inject(Fault { operation, path_contains, after: 0, times, effect: Effect::FailBefore(EIO) });
        let system = System::start(&disk, &clock, &settings).expect("it starts");
        let passed_over = system.started.found.passed_over.join("\n");
        assert!(passed_over.contains(&format!("generation {newest} is passed over: cannot read")), "{passed_over}");
        assert_eq!(system.started.manifest.id, newest - 1);
        assert_eq!(system.answers(), expected(&system.events()));
    }
    let system = System::start(&disk, &clock, &settings).expect("it starts");
    assert_eq!(system.started.manifest.id, newest, "nothing was removed because it could not be read once");
}
