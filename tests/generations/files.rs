//! Files of runs and manifests: every change of a byte is noticed, and rows come back as they were.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use lambdaflow::layers::Cycle;
use lambdaflow::log::SimClock;
use lambdaflow::storage::{Disk, SimDisk};

use super::restart::transfer;
use super::system::{Settings, System, dir, expected, open_log, store};

/// A small system on a disk: several files, a manifest.
fn small() -> (SimDisk, Arc<SimClock>) {
    let (sim, clock) = (SimDisk::new(), SimClock::at(1_000));
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let mut system = System::start(&disk, &clock, &Settings::default()).expect("it starts");
    for (id, cycle) in [(0, Cycle::Full), (1, Cycle::Incremental), (2, Cycle::Incremental)] {
        system.log.append((4 * id..4 * id + 4).map(transfer).collect()).expect("an append");
        clock.pass(5);
        system.cycle(cycle).expect("it hands over");
    }
    (sim, clock)
}

#[test]
fn every_flipped_byte_of_runs_and_manifests_is_noticed() {
    let (sim, clock) = small();
    let files = sim.files();
    let disk: Arc<dyn Disk> = Arc::new(sim.after_kill());
    let log = open_log(&disk, &clock).expect("the log is whole");
    let manifests = store(&disk, &log, 2).manifests().expect("they can be listed");
    // Of the others, which were merged and wait for a manifest, nobody reads a byte.
    let named: BTreeSet<u64> =
        manifests.iter().flat_map(|(_, manifest)| manifest.as_ref().expect("it is whole").files()).map(|file| file.number).collect();
    let is_named = |path: &Path| match path.extension().is_some_and(|kind| kind == "runs") {
        true => path.file_stem().is_some_and(|number| named.contains(&number.to_string_lossy().parse().expect("a number"))),
        false => true,
    };
    let mut flipped = 0;
    for (path, bytes) in files.iter().filter(|(path, _)| path.starts_with(dir().join("generations")) && is_named(path)) {
        for at in 0..bytes.len() {
            let disk = sim.after_kill();
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            disk.plant(path, &damaged);
            let disk: Arc<dyn Disk> = Arc::new(disk);
            // The log's id is needed, and no more: a life for each byte would take minutes.
            let log = open_log(&disk, &clock).expect("the log is whole");
            let store = store(&disk, &log, 2);
            let errors: Vec<String> = store
                .manifests()
                .expect("they can be listed")
                .into_iter()
                .flat_map(|(_, manifest)| match manifest {
                    Ok(manifest) => store.verify(&manifest).iter().map(|error| error.to_string()).collect(),
                    Err(error) => vec![error.to_string()],
                })
                .collect();
            let name = path.file_name().expect("a file").to_string_lossy().into_owned();
            assert!(!errors.is_empty(), "byte {at} of {name} was flipped and nobody noticed");
            assert!(errors.iter().all(|error| error.contains(&name)), "byte {at} of {name}: {errors:?}");
            flipped += 1;
        }
    }
    assert!(flipped > 2_000, "{flipped} bytes");
}

#[test]
fn every_cut_of_a_file_is_noticed_and_another_in_its_place_is_refused() {
    let (sim, clock) = small();
    let disk: Arc<dyn Disk> = Arc::new(sim.clone());
    let log = open_log(&disk, &clock).expect("a log");
    let store = store(&disk, &log, 2);
    let manifest = store.manifests().expect("they can be listed")[0].1.clone().expect("it is whole");
    let paths: Vec<_> = manifest.files().map(|file| dir().join("generations/bank").join(format!("{:020}.runs", file.number))).collect();
    let files = sim.files();
    for path in &paths {
        for len in 0..files[path].len() {
            sim.plant(path, &files[path][..len]);
            assert_eq!(store.verify(&manifest).len(), 1, "cut at {len}");
        }
        sim.plant(path, &[&files[path][..], &[0; 8]].concat());
        assert_eq!(store.verify(&manifest).len(), 1, "eight bytes more");
        sim.uproot(path);
        assert_eq!(store.verify(&manifest).len(), 1, "gone");
        sim.plant(path, &files[path]);
    }
    assert!(store.verify(&manifest).is_empty());
    let [first, .., last] = &paths[..] else { panic!("there are several files: {paths:?}") };
    sim.plant(first, &files[last]);
    let errors = store.verify(&manifest);
    assert!(errors.len() == 1 && errors[0].to_string().contains("expected file"), "{errors:?}");
}

/// Groups of many rows, chunks of many keys: all come back, by look-up and by scan, from files that were merged.
#[test]
fn runs_of_many_chunks_come_back_as_they_were() {
    let (sim, clock) = (SimDisk::new(), SimClock::at(1_000));
    let disk: Arc<dyn Disk> = Arc::new(sim);
    let settings = Settings { workers: 2, ..Settings::default() };
    let mut system = System::start(&disk, &clock, &settings).expect("it starts");
    let many = |id: u64| super::system::Transfer { account: id % 30_011, note: format!("note {}", id % 20_011), ..transfer(id) };
    for round in 0..3u64 {
        let ids = 25_000 * round..25_000 * (round + 1);
        for first in ids.clone().step_by(5_000) {
            system.log.append((first..first + 5_000).map(many).collect()).expect("an append");
        }
        clock.pass(5);
        let handover = system.cycle(Cycle::Incremental).expect("it hands over");
        assert_eq!(handover.agreed, Some(true));
    }
    let events = system.events();
    assert_eq!(system.answers(), expected(&events));
    drop(system);
    let system = System::start(&disk, &clock, &settings).expect("it starts");
    assert!(system.started.handover.is_none());
    assert_eq!(system.answers(), expected(&events));
}
