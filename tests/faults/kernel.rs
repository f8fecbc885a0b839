//! File systems that lose power, fill up, fail to sync, cannot be read, or are read-only. Needs root and loop devices.

use super::child::{STREAM_NUMBERS, STREAMS, Said, command, number_in, open, small_segments};
use super::log_support::{note, notes, numbers, read_all};
use super::tools::{Image, Lack, Mount, cut_power, installed, needs, run, temporary};
use lambdaflow::log::{LogError, LogOptions, verify};
use lambdaflow::storage::{RealDisk, Rng};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Power cuts, unless `LAMBDAFLOW_POWER_CUTS` says otherwise.
const POWER_CUTS: u64 = 20;
/// Most events that are acknowledged before a cut.
const ACKS_MAX: u64 = 60;
/// Numbers of the events of one cycle begin here.
const CYCLE_NUMBERS: u64 = 10_000_000;
const PATIENCE: Duration = Duration::from_secs(60);
const SIGBUS: i32 = 7;

#[test]
fn acknowledged_events_survive_power_cuts_under_a_live_writer() {
    const NAME: &str = "acknowledged_events_survive_power_cuts_under_a_live_writer";
    let place = temporary();
    let image = needs!(NAME, Image::new(&place.path().join("image"), 16 << 10, &[]));
    let seed = Rng::seed_from_env().unwrap_or_else(|| std::process::id().into());
    println!("LAMBDAFLOW_SEED={seed}");
    let mut rng = Rng::new(seed);
    let at = place.path().join("disk");
    let (mut acked, mut after, mut there) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let cycles = std::env::var("LAMBDAFLOW_POWER_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(POWER_CUTS);
    for cycle in 0..cycles {
        let disk = needs!(NAME, image.mount(&at, "rw"));
        let mut writer = command(&[], &at.join("log"), "stream", cycle * CYCLE_NUMBERS).spawn().unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let (enough, told) = (1 + rng.below(ACKS_MAX) as usize, Arc::new((Mutex::new(Vec::new()), Condvar::new())));
        let listener = {
            let told = Arc::clone(&told);
            std::thread::spawn(move || {
                for number in lines.map_while(Result::ok).filter_map(|line| number_in(&line)) {
                    told.0.lock().unwrap().push(number);
                    told.1.notify_all();
                }
            })
        };
        let (heard, late) = told.1.wait_timeout_while(told.0.lock().unwrap(), PATIENCE, |heard| heard.len() < enough).unwrap();
        assert!(!late.timed_out(), "{} events acknowledged in {PATIENCE:?}, cycle {cycle}", heard.len());
        acked.extend(heard.iter().copied());
        let before = heard.len();
        drop(heard);
        cut_power(&at);
        assert_eq!(writer.wait().unwrap().code(), Some(5), "its next write or sync fails, cycle {cycle}");
        listener.join().unwrap();
        // A power cut also ends whoever could hear of an event after it. This one does not: ext4 lets a sync succeed while it
        // is being cut off.
        after.extend(told.0.lock().unwrap().drain(before..));
        disk.end();

        let disk = image.mount(&at, "rw").unwrap();
        assert!(verify(&RealDisk, &at.join("log")).unwrap().is_whole(), "cycle {cycle}");
        let log = open(&at.join("log"), small_segments()).unwrap();
        let found = numbers(&read_all(&log));
        log.close().unwrap();
        disk.end();
        there = found.iter().copied().collect::<BTreeSet<u64>>();
        assert_eq!(there.len(), found.len(), "an event is there twice, cycle {cycle}, seed {seed}");
        let missing: Vec<_> = acked.difference(&there).collect();
        assert!(missing.is_empty(), "acknowledged and lost in cycle {cycle}, seed {seed}: {missing:?}");
        // Of each thread, a prefix of what it sent: the numbers have no gaps.
        let mut streams: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        found.iter().for_each(|number| streams.entry(number / STREAM_NUMBERS).or_default().push(number % STREAM_NUMBERS));
        for (stream, numbers) in streams {
            assert!(stream % (CYCLE_NUMBERS / STREAM_NUMBERS) < STREAMS);
            assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "stream {stream}, cycle {cycle}, seed {seed}");
        }
    }
    let lost = after.difference(&there).count();
    println!("{cycles} power cuts: {} events acknowledged, {} in the moment of a cut, of which {lost} are lost", acked.len(), after.len());
}

/// Appends to small segments until the disk is full. Returns what was acknowledged and the refusal.
fn fill(log: &Path, first: u64) -> (u64, LogError) {
    let mut acked = first;
    let opened = open(log, LogOptions { segment_bytes_max: 4_000, ..LogOptions::default() });
    let log = match opened {
        Ok(log) => log,
        Err(error) => return (acked, error),
    };
    loop {
        match log.append((acked..acked + 10).map(note).collect()) {
            Ok(_) => acked += 10,
            Err(error) => {
                assert!(matches!(log.append(vec![note(0)]), Err(LogError::Stopped { .. })));
                assert_eq!(numbers(&read_all(&log)), (0..acked).collect::<Vec<_>>(), "what was acknowledged can still be read");
                return (acked, error);
            }
        }
        assert!(acked < 1_000_000, "the disk is never full");
    }
}

#[track_caller]
fn is_full(refused: &LogError) {
    assert_eq!(refused.exit_code(), 5, "{refused}");
    assert!(refused.to_string().contains("no space or no inodes left"), "{refused}");
}

/// Fills a disk on which `ballast` takes room, gives the room back, and goes on.
fn full_and_free_again(disk: &Mount, ballast: &Path) {
    let log = disk.at.join("log");
    let (acked, refused) = fill(&log, 0);
    is_full(&refused);
    assert!(acked > 0);
    std::fs::remove_dir_all(ballast).unwrap();
    let opened = open(&log, small_segments()).unwrap();
    let found = numbers(&read_all(&opened));
    assert!(found.len() as u64 >= acked && found.len() as u64 <= acked + 10, "{} events, {acked} acknowledged", found.len());
    assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
    opened.append(vec![note(found.len() as u64)]).unwrap();
    opened.close().unwrap();
    assert!(verify(&RealDisk, &log).unwrap().is_whole());
}

fn make_ballast(at: &Path, files: u64, bytes: usize) -> std::path::PathBuf {
    let ballast = at.join("ballast");
    std::fs::create_dir(&ballast).unwrap();
    (0..files).for_each(|file| std::fs::write(ballast.join(file.to_string()), vec![b'x'; bytes]).unwrap());
    ballast
}

#[test]
fn a_full_file_system_refuses_appends_and_goes_on_when_there_is_room() {
    const NAME: &str = "a_full_file_system_refuses_appends_and_goes_on_when_there_is_room";
    let place = temporary();
    let tmpfs = needs!(NAME, Mount::tmpfs(&place.path().join("tmpfs"), 400));
    let ballast = make_ballast(&tmpfs.at, 1, 200 << 10);
    full_and_free_again(&tmpfs, &ballast);
    tmpfs.end();
    let image = needs!(NAME, Image::new(&place.path().join("image"), 3 << 10, &[]));
    let disk = needs!(NAME, image.mount(&place.path().join("disk"), "rw"));
    let ballast = make_ballast(&disk.at, 1, 800 << 10);
    full_and_free_again(&disk, &ballast);
    disk.end();
}

#[test]
fn a_file_system_without_inodes_is_said_to_be_full() {
    const NAME: &str = "a_file_system_without_inodes_is_said_to_be_full";
    let place = temporary();
    let image = needs!(NAME, Image::new(&place.path().join("image"), 4 << 10, &["-N", "32"]));
    let disk = needs!(NAME, image.mount(&place.path().join("disk"), "rw"));
    let ballast = make_ballast(&disk.at, 8, 0);
    full_and_free_again(&disk, &ballast);
    disk.end();
}

/// Makes a loop device write page by page until dropped. It takes the first part of a request for the whole when its file
/// has no room for the rest (Linux 6.18, `lo_complete_rq`), so that a sync succeeds for bytes that are gone. No log can
/// stand a disk that lies; requests of a page fail or do not.
struct OnePageRequests {
    setting: String,
    before: String,
}

impl OnePageRequests {
    fn of(at: &Path) -> Result<Self, Lack> {
        installed(&["findmnt"])?;
        let device = run("findmnt", &["-no", "SOURCE", at.to_str().unwrap()]).map_err(Lack::Kernel)?;
        let setting = format!("/sys/block/{}/queue/max_sectors_kb", device.trim_start_matches("/dev/"));
        let before = std::fs::read_to_string(&setting).map_err(|error| Lack::Kernel(format!("{setting}: {error}")))?;
        std::fs::write(&setting, "4").map_err(|error| Lack::Kernel(format!("{setting}: {error}")))?;
        Ok(OnePageRequests { setting, before })
    }
}

impl Drop for OnePageRequests {
    fn drop(&mut self) {
        let _ = std::fs::write(&self.setting, self.before.trim());
    }
}

#[test]
fn what_a_failed_sync_lost_is_not_resurrected_by_a_restart() {
    const NAME: &str = "what_a_failed_sync_lost_is_not_resurrected_by_a_restart";
    let place = temporary();
    // The image is sparse, and what holds it is smaller than it: writes go to the page cache, and the sync fails.
    let holder = needs!(NAME, Mount::tmpfs(&place.path().join("holder"), 6 << 10));
    let image = needs!(NAME, Image::new(&holder.at.join("image"), 16 << 10, &["-b", "4096", "-O", "^has_journal"]));
    let at = place.path().join("disk");
    let disk = needs!(NAME, image.mount(&at, "rw"));
    let _whole_or_not = needs!(NAME, OnePageRequests::of(&at));
    let dir = at.join("log");
    let log = open(&dir, LogOptions::default()).unwrap();
    let text = "y".repeat(1_000);
    let mut acked = 0;
    let refused = loop {
        let events = (acked..acked + 20).map(|number| super::log_support::Note { number, text: text.clone() }).collect();
        match log.append(events) {
            Ok(_) => acked += 20,
            Err(error) => break error,
        }
        assert!(acked < 20_000, "no sync fails");
    };
    println!("after {acked} events: {refused}");
    assert_eq!(refused.exit_code(), 5);
    assert!(refused.to_string().contains("cannot sync"), "{refused}");
    drop(log);

    // A restart on the same mount, with room again: the page cache still has what was lost.
    holder.grow_tmpfs(64 << 10);
    let shown = match open(&dir, LogOptions::default()) {
        Ok(log) => numbers(&read_all(&log)),
        Err(error) => panic!("there is room, and the log cannot be opened: {error}"),
    };
    println!("{} events after the restart", shown.len());
    assert!(shown.len() as u64 >= acked);
    // The cache is gone with the mount: a power cut, as far as the log can tell.
    cut_power(&at);
    disk.end();
    let disk = image.mount(&at, "rw").unwrap();
    let log = open(&dir, LogOptions::default()).unwrap();
    let found = numbers(&read_all(&log));
    assert!(found.len() as u64 >= acked && found.len() as u64 <= acked + 20, "{} events, {acked} acknowledged", found.len());
    assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
    assert!(shown.len() <= found.len(), "{} events were shown, of which {} were on the disk", shown.len(), found.len());
    log.close().unwrap();
    disk.end();
    holder.end();
}

/// The highest block of 1 KiB on its device that a file has.
fn highest_block(file: &Path) -> u64 {
    let map = run("filefrag", &["-v", "-b1024", file.to_str().unwrap()]).unwrap();
    // `  0:    0..  13:   15361..  15374:   14:   last,eof`: number, place in the file, place on the device, length.
    let extents = map.lines().filter_map(|line| line.split(':').nth(2)?.split_once("..")?.1.trim().parse().ok());
    extents.max().unwrap_or_else(|| panic!("{map}"))
}

#[test]
fn a_disk_that_cannot_be_read_is_an_error_and_never_the_end_of_the_log() {
    const NAME: &str = "a_disk_that_cannot_be_read_is_an_error_and_never_the_end_of_the_log";
    needs!(NAME, installed(&["filefrag"]));
    // Small files and directories are in their inodes, at the front: what is cut off is the segment's alone.
    for sealed in [false, true] {
        let place = temporary();
        let image = needs!(NAME, Image::new(&place.path().join("image"), 16 << 10, &["-b", "1024", "-I", "1024", "-O", "inline_data"]));
        let at = place.path().join("disk");
        let disk = needs!(NAME, image.mount(&at, "rw"));
        let dir = at.join("log");
        let log = open(&dir, LogOptions::default()).unwrap();
        let events = 100_000;
        for first in (0..events).step_by(10_000) {
            log.append(notes(first..first + 10_000)).unwrap();
        }
        drop(log);
        let mut segment = dir.join("p0000/00000000000000000000.active");
        if sealed {
            open(&dir, LogOptions::default()).unwrap().close().unwrap();
            segment.set_extension("seg");
        }
        let broken = highest_block(&segment);
        disk.end();
        let disk = image.mount(&at, "ro").unwrap();
        std::fs::OpenOptions::new().write(true).open(&image.file).unwrap().set_len(broken << 10).unwrap();

        let said = Said::of(&command(&[], &dir, "read", 0).output().unwrap());
        println!("sealed {sealed}: code {:?}, signal {:?}, {:?}, {} events", said.code, said.signal, said.error, said.numbers.len());
        assert_eq!(said.numbers, (0..said.numbers.len() as u64).collect::<Vec<_>>());
        assert!((said.numbers.len() as u64) < events);
        // Sealed segments are mapped, and a mapping that cannot be read ends the process: no answer is a right one.
        if said.signal.is_none() {
            assert!([Some(3), Some(5)].contains(&said.code), "{said:?}");
            assert!(said.error.is_some_and(|error| error.contains("00000000000000000000")));
        } else {
            assert!(sealed && said.signal == Some(SIGBUS));
        }
        disk.end();
    }
}

#[test]
fn a_read_only_file_system_is_named_and_can_be_read() {
    const NAME: &str = "a_read_only_file_system_is_named_and_can_be_read";
    let place = temporary();
    let image = needs!(NAME, Image::new(&place.path().join("image"), 16 << 10, &[]));
    let at = place.path().join("disk");
    let disk = needs!(NAME, image.mount(&at, "rw"));
    let dir = at.join("log");
    let log = open(&dir, small_segments()).unwrap();
    for number in 0..50 {
        log.append(vec![note(number)]).unwrap();
    }
    log.close().unwrap();
    disk.end();

    let disk = image.mount(&at, "ro").unwrap();
    match open(&dir, small_segments()) {
        Err(error) => {
            assert_eq!(error.exit_code(), 5);
            assert!(error.to_string().contains("Read-only file system"), "{error}");
        }
        Ok(_) => panic!("a log on a read-only file system is open for appending"),
    }
    assert!(verify(&RealDisk, &dir).unwrap().is_whole());
    let said = Said::of(&command(&[], &dir, "read", 0).output().unwrap());
    assert_eq!((said.code, said.numbers), (Some(0), (0..50).collect()));
    disk.end();

    // While it runs: ext4 that is cut off refuses everything from then on.
    let disk = image.mount(&at, "rw").unwrap();
    let log = open(&dir, small_segments()).unwrap();
    log.append(vec![note(50)]).unwrap();
    cut_power(&at);
    let refused = log.append(vec![note(51)]).unwrap_err();
    assert_eq!(refused.exit_code(), 5, "{refused}");
    assert_eq!(numbers(&read_all(&log)), (0..=50).collect::<Vec<_>>(), "reads go on");
    drop(log);
    disk.end();
}

#[test]
fn a_log_is_in_use_by_whatever_path_it_is_named() {
    const NAME: &str = "a_log_is_in_use_by_whatever_path_it_is_named";
    let place = temporary();
    let dir = place.path().join("log");
    let log = open(&dir, small_segments()).unwrap();
    log.append(vec![note(0)]).unwrap();
    let other = needs!(NAME, Mount::new(&place.path().join("other"), &["--bind", dir.to_str().unwrap()]));
    let relative = dir.join("../other");
    for path in [&other.at, &relative] {
        assert!(matches!(open(path, small_segments()), Err(LogError::InUse { .. })), "{}", path.display());
    }
    log.append(vec![note(1)]).unwrap();
    log.close().unwrap();
    assert_eq!(numbers(&read_all(&open(&other.at, small_segments()).unwrap())), [0, 1]);
    other.end();
}

#[test]
fn a_missing_tool_is_told_apart_from_a_kernel_that_cannot() {
    assert!(matches!(installed(&["lambdaflow-no-such-tool"]), Err(Lack::Tool(_))));
    let place = temporary();
    let refused = Mount::new(&place.path().join("at"), &["-t", "lambdaflow-no-such-file-system", "none"]);
    assert!(matches!(refused, Err(Lack::Kernel(_))), "{refused:?}");
}
