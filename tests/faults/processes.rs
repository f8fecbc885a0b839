//! Kills before any system call, system calls that fail, limits, directories that are gone.

use super::child::{APPENDS, Said, command, open, small_segments};
use super::log_support::{note, notes, numbers, read_all};
use super::tools::{installed, needs, run, strace, temporary};
use lambdaflow::log::{LogError, LogOptions, verify};
use lambdaflow::storage::{RealDisk, Rng};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long kills are tried, unless `LAMBDAFLOW_FAULT_SECONDS` says otherwise. All of them take about a minute.
const KILL_SECONDS: u64 = 12;
const SIGKILL: i32 = 9;
const SIGXFSZ: i32 = 25;

/// Opens a log whose writer numbered its events from 0. Returns how many there are.
#[track_caller]
fn recover(dir: &Path, acked: &[u64], tried: u64) -> u64 {
    let log = open(dir, small_segments()).unwrap();
    let found = numbers(&read_all(&log));
    assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>(), "each once, in order");
    let (count, acked) = (found.len() as u64, acked.len() as u64);
    assert!((acked..=tried).contains(&count), "{count} events, {acked} acknowledged, {tried} tried");
    assert_eq!(log.append(vec![note(count)]).unwrap().first_offset().0, count);
    log.close().unwrap();
    assert!(verify(&RealDisk, dir).unwrap().is_whole());
    count
}

/// The names that a run gives to files of its log, and how often it makes each system call on them.
fn system_calls() -> (BTreeSet<PathBuf>, BTreeMap<String, u64>) {
    let place = temporary();
    let (dir, trace) = (place.path().join("log"), place.path().join("trace"));
    let traced = |wrapper: &[&str]| {
        let output = command(wrapper, &dir, "append", 0).output().unwrap();
        assert_eq!(Said::of(&output).code, Some(0), "{output:?}");
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::read_to_string(&trace).unwrap()
    };
    let trace_file = trace.to_str().unwrap();
    let text = traced(&["strace", "-f", "-qq", "-s", "300", "-e", "trace=file", "-o", trace_file]);
    let quoted = text.lines().filter(|line| !line.contains("execve")).flat_map(|line| line.split('"').skip(1).step_by(2));
    let names: BTreeSet<PathBuf> = quoted.filter_map(|path| Some(Path::new(path).strip_prefix(&dir).ok()?.to_path_buf())).collect();
    let paths = path_filter(&dir, &names);
    let wrapper = ["strace", "-f", "-qq", "-o", trace_file].into_iter().chain(paths.iter().map(String::as_str)).collect::<Vec<_>>();
    let mut calls = BTreeMap::new();
    for line in traced(&wrapper).lines() {
        let name = line.split_once(' ').and_then(|(_process, call)| call.trim_start().split_once('(')).map(|(name, _)| name);
        if let Some(name) = name.filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'))
        {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    (names, calls)
}

fn path_filter(dir: &Path, names: &BTreeSet<PathBuf>) -> Vec<String> {
    names.iter().flat_map(|name| ["-P".to_owned(), dir.join(name).to_str().unwrap().trim_end_matches('/').to_owned()]).collect()
}

#[test]
fn acknowledged_events_survive_a_kill_before_any_system_call_on_the_log() {
    const NAME: &str = "acknowledged_events_survive_a_kill_before_any_system_call_on_the_log";
    needs!(NAME, strace());
    let seed = Rng::seed_from_env().unwrap_or_else(|| std::process::id().into());
    println!("LAMBDAFLOW_SEED={seed}");
    let (names, calls) = system_calls();
    for call in ["openat", "write", "fdatasync", "fsync", "rename", "unlink"] {
        assert!(calls.contains_key(call), "the run makes no {call}: {calls:?}");
    }
    let mut moments: Vec<(&str, u64)> = calls.iter().flat_map(|(call, count)| (1..=*count).map(move |n| (call.as_str(), n))).collect();
    let mut rng = Rng::new(seed);
    for last in (1..moments.len()).rev() {
        moments.swap(last, rng.below(last as u64 + 1) as usize);
    }
    let seconds = std::env::var("LAMBDAFLOW_FAULT_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(KILL_SECONDS);
    let (started, mut kills, mut acked) = (Instant::now(), 0, 0);
    for (call, n) in &moments {
        if started.elapsed() > Duration::from_secs(seconds) {
            break;
        }
        let place = temporary();
        let dir = place.path().join("log");
        let inject = format!("inject={call}:signal=KILL:when={n}");
        let paths = path_filter(&dir, &names);
        let fixed = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject];
        let wrapper: Vec<&str> = fixed.into_iter().chain(paths.iter().map(String::as_str)).collect();
        let said = Said::of(&command(&wrapper, &dir, "append", 0).output().unwrap());
        // The clock may save a run a mark or cost it one; then its last calls are not made.
        let killed = said.signal == Some(SIGKILL);
        assert!(killed || said.code == Some(0), "{call} {n}: {said:?}");
        kills += u64::from(killed);
        acked += said.numbers.len();
        println!("{call} {n}: {} acknowledged", said.numbers.len());
        recover(&dir, &said.numbers, APPENDS);
    }
    println!("{kills} kills of {} moments, {acked} events acknowledged", moments.len());
    assert!(kills >= 20, "{kills} kills in {seconds} s");
}

/// A child that appends to one segment while a system call on it fails once.
fn fail_once(call: &str) -> (Said, Vec<String>, tempfile::TempDir) {
    let place = temporary();
    let (dir, trace) = (place.path().join("log"), place.path().join("trace"));
    let segment = dir.join("p0000/00000000000000000000.active");
    let inject = format!("inject={call}:error=EIO:when=5");
    let (trace_file, segment) = (trace.to_str().unwrap(), segment.to_str().unwrap());
    let wrapper = ["strace", "-f", "-qq", "-o", trace_file, "-e", "trace=write,fdatasync", "-e", &inject, "-P", segment];
    let said = Said::of(&command(&wrapper, &dir, "flood", 0).output().unwrap());
    let calls = std::fs::read_to_string(&trace).unwrap().lines().map(str::to_owned).collect();
    (said, calls, place)
}

#[test]
fn a_write_that_fails_is_not_acknowledged_and_stops_the_log() {
    const NAME: &str = "a_write_that_fails_is_not_acknowledged_and_stops_the_log";
    needs!(NAME, strace());
    let (said, calls, place) = fail_once("write");
    let said = said.failed(&["cannot append to", "00000000000000000000.active", "Input/output error"]);
    assert_eq!(said.numbers, [0, 1, 2, 3]);
    let after = calls.iter().skip_while(|line| !line.contains("EIO")).skip(1).collect::<Vec<_>>();
    assert!(after.is_empty(), "the segment is left alone after a failure: {after:?}");
    assert_eq!(recover(&place.path().join("log"), &said.numbers, 4), 4);
}

#[test]
fn a_sync_that_fails_is_not_acknowledged_and_not_repeated() {
    const NAME: &str = "a_sync_that_fails_is_not_acknowledged_and_not_repeated";
    needs!(NAME, strace());
    let (said, calls, place) = fail_once("fdatasync");
    let said = said.failed(&["cannot sync", "00000000000000000000.active", "Input/output error"]);
    assert_eq!(said.numbers, [0, 1, 2, 3]);
    let after = calls.iter().skip_while(|line| !line.contains("EIO")).skip(1).collect::<Vec<_>>();
    assert!(after.is_empty(), "a sync after a failed one lies: {after:?}");
    recover(&place.path().join("log"), &said.numbers, 5);
}

#[test]
fn a_file_over_the_size_limit_ends_the_log_with_an_error_or_a_signal_and_keeps_what_was_acknowledged() {
    for (trap, signal) in [("trap '' XFSZ; ", None), ("", Some(SIGXFSZ))] {
        let place = temporary();
        let dir = place.path().join("log");
        let script = format!("{trap}ulimit -f 16; exec \"$0\" \"$@\"");
        let said = Said::of(&command(&["sh", "-c", &script], &dir, "flood", 0).output().unwrap());
        assert!(said.numbers.len() > 20, "{said:?}");
        assert_eq!(said.signal, signal, "{said:?}");
        let said = if signal.is_none() { said.failed(&["cannot append to", "File too large"]) } else { said };
        // The limit is met within a group: a part of it is written.
        let tried = said.numbers.len() as u64 + 1;
        assert_eq!(recover(&dir, &said.numbers, tried), said.numbers.len() as u64);
        let names = std::fs::read_dir(dir.join("p0000")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        assert_eq!(names.filter(|name| name.contains(".torn-")).count(), 1, "the part is set aside");
    }
}

#[test]
fn no_descriptor_for_a_new_segment_stops_the_log_until_it_is_opened_again() {
    let place = temporary();
    let output = command(&[], &place.path().join("log"), "starve", 0).output().unwrap();
    assert_eq!(Said::of(&output).code, Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Makes a file or directory immutable until dropped: rights alone do not stop root.
struct Immutable(PathBuf);

impl Immutable {
    fn new(path: &Path) -> Result<Self, super::tools::Lack> {
        installed(&["chattr"])?;
        run("chattr", &["+i", path.to_str().unwrap()]).map_err(super::tools::Lack::Kernel)?;
        Ok(Immutable(path.to_path_buf()))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = run("chattr", &["-i", self.0.to_str().unwrap_or_default()]);
    }
}

#[test]
fn a_directory_that_cannot_be_written_to_is_named_and_the_log_is_unharmed() {
    const NAME: &str = "a_directory_that_cannot_be_written_to_is_named_and_the_log_is_unharmed";
    let place = temporary();
    let dir = place.path().join("log");
    let log = open(&dir, LogOptions::default()).unwrap();
    log.append(notes(0..3)).unwrap();
    log.close().unwrap();

    let partition = needs!(NAME, Immutable::new(&dir.join("p0000")));
    // With nothing to seal; where there is, opening already fails.
    match open(&dir, LogOptions::default()).and_then(|log| log.append(notes(3..4))) {
        Err(error @ LogError::Storage { .. }) => {
            assert_eq!(error.exit_code(), 5);
            assert!(error.to_string().contains("p0000") && error.to_string().contains("not permitted"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    drop(partition);
    let whole = Immutable::new(&dir).expect("as before");
    match open(&dir, LogOptions::default()) {
        Err(error) => {
            assert_eq!(error.exit_code(), 5);
            assert!(error.to_string().contains(dir.to_str().unwrap()) && error.to_string().contains("not permitted"), "{error}");
        }
        Ok(_) => panic!("a log that cannot be marked is open"),
    }
    drop(whole);
    assert_eq!(recover(&dir, &[0, 1, 2], 3), 3);
}

#[test]
fn nothing_is_acknowledged_into_a_directory_that_is_gone() {
    let place = temporary();
    let dir = place.path().join("log");
    let log = open(&dir, LogOptions::default()).unwrap();
    log.append(notes(0..3)).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    let refused = log.append(notes(3..4)).unwrap_err();
    assert_eq!(refused.exit_code(), 5);
    assert!(refused.to_string().contains("removed"), "{refused}");
    assert!(matches!(log.append(notes(3..4)), Err(LogError::Stopped { .. })));
    assert_eq!(numbers(&read_all(&log)), [0, 1, 2], "what is in memory can still be read");
    drop(log);
    assert!(!dir.exists(), "a directory that somebody removed is not made again");
}

#[test]
fn a_directory_that_is_renamed_keeps_what_was_acknowledged_and_gets_no_twin() {
    renamed(|_| ());
}

#[test]
fn a_log_that_takes_the_place_of_a_running_one_is_not_written_to() {
    renamed(|dir| {
        let log = open(dir, small_segments()).unwrap();
        log.append(notes(0..2)).unwrap();
        log.close().unwrap();
    });
}

/// The files of a directory, if there is one.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().chain(std::fs::read_dir(dir.join("p0000")).into_iter().flatten());
    let files = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Renames the directory of a running log, after which `replace` may put something else there.
fn renamed(replace: impl Fn(&Path)) {
    let place = temporary();
    let (dir, renamed) = (place.path().join("log"), place.path().join("renamed"));
    let log = open(&dir, small_segments()).unwrap();
    log.append(notes(0..3)).unwrap();
    std::fs::rename(&dir, &renamed).unwrap();
    replace(&dir);
    let twin = contents(&dir);
    let mut acked: Vec<u64> = (0..3).collect();
    let refused = loop {
        let next = acked.len() as u64;
        match log.append(vec![note(next)]) {
            Ok(_) => acked.push(next),
            Err(error) => break error,
        }
        assert!(acked.len() < 1_000, "a new segment is never needed");
    };
    assert_eq!(refused.exit_code(), 5, "{refused}");
    drop(log);
    assert_eq!(contents(&dir), twin, "nothing is written to what has the name now");
    recover(&renamed, &acked, acked.len() as u64 + 1);
}
