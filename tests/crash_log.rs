//! Kills a real process at each durable step, and lets two processes ask for one log (rows C1, C4, C11, C14, N1, N2).
//!
//! The test binary runs itself as the child: `child_role` does nothing unless the environment names a directory.
#[path = "log_support/mod.rs"]
mod log_support;

use lambdaflow::log::{Log, LogError, LogOptions, RedactRequest, Share, SystemClock, Tick, redact, verify};
use lambdaflow::storage::{RealDisk, Step};
use log_support::{Note, note, notes, numbers, read_all};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

const CHILD_DIR: &str = "LAMBDAFLOW_TEST_LOG";
const CHILD_TASK: &str = "LAMBDAFLOW_TEST_TASK";
const CRASH_AT: &str = "LAMBDAFLOW_CRASH_AT";
const APPENDS: u64 = 25;
const SIGKILL: i32 = 9;

fn open(dir: &Path) -> Result<Log<Note>, LogError> {
    let options = LogOptions { segment_bytes_max: 1_200, ..LogOptions::default() };
    Log::open(Arc::new(RealDisk), Arc::new(SystemClock), dir, options)
}

/// Memory is as good as a disk here: a kill loses nothing that was written, wherever that is.
fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

fn say(line: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "child: {line}").unwrap();
    out.flush().unwrap();
}

#[test]
fn child_role() {
    let Ok(dir) = std::env::var(CHILD_DIR) else {
        return;
    };
    if std::env::var(CHILD_TASK).as_deref() == Ok("redact") {
        redact_some(Path::new(&dir));
        return;
    }
    if let Ok(task @ ("cluster" | "straggle")) = std::env::var(CHILD_TASK).as_deref() {
        let mut shares = cluster(Path::new(&dir)).unwrap();
        if task == "straggle" {
            drop(shares.drain(..SHARES - 1));
            say("holds");
            let _ = std::io::stdin().read_line(&mut String::new());
        } else {
            append_to_all(shares);
        }
        return;
    }
    let log = open(Path::new(&dir)).unwrap();
    let first = log.events_total();
    match std::env::var(CHILD_TASK).as_deref() {
        Ok("append") => {
            for number in first..first + APPENDS {
                log.append(vec![note(number)]).unwrap();
                say(number + 1);
                log.advance().unwrap();
            }
            log.close().unwrap();
        }
        Ok("hold") => {
            say("holds");
            let _ = std::io::stdin().read_line(&mut String::new());
        }
        task => panic!("no such task: {task:?}"),
    }
}

const SHARES: usize = 3;

/// All shares of a log, as so many processes would open them.
fn cluster(dir: &Path) -> Result<Vec<Log<Note>>, LogError> {
    let options =
        |index| LogOptions { segment_bytes_max: 500, share: Share { index: index as u32, of: SHARES as u32 }, ..LogOptions::default() };
    let prepared = Log::prepare(Arc::new(RealDisk), Arc::new(SystemClock), dir, options(0))?;
    let mut shares = vec![prepared.open(options(0))?];
    for index in 1..SHARES {
        shares.push(Log::open_share(Arc::new(RealDisk), Arc::new(SystemClock), dir, options(index))?);
    }
    Ok(shares)
}

/// Each share gets every so-manieth number.
fn append_to_all(shares: Vec<Log<Note>>) {
    let first: u64 = shares.iter().map(|log| log.events_total()).sum();
    for number in first..first + APPENDS {
        let log = &shares[number as usize % SHARES];
        log.append(vec![note(number)]).unwrap();
        say(number + 1);
        log.advance().unwrap();
    }
    shares.into_iter().for_each(|log| log.close().unwrap());
}

fn child(dir: &Path, task: &str, crash_at: Option<(Step, u64)>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child_role", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(CHILD_DIR, dir).env(CHILD_TASK, task).env_remove(CRASH_AT);
    if let Some((step, count)) = crash_at {
        command.env(CRASH_AT, format!("{}:{count}", step.name()));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs the child to its end. Returns how many events it was told are in the log, and whether it was killed.
fn run(dir: &Path, crash_at: Option<(Step, u64)>) -> (u64, bool) {
    let output = child(dir, "append", crash_at).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let acked = text.lines().filter_map(|line| line.split_once("child: ")?.1.parse().ok()).max().unwrap_or(0);
    let killed = output.status.signal() == Some(SIGKILL);
    assert!(killed || output.status.success(), "{}: {text}", output.status);
    (acked, killed)
}

/// Recovers and compares; returns how many events there are.
fn check(dir: &Path, acked: u64, tried: u64) -> u64 {
    let log = open(dir).unwrap();
    let found = numbers(&read_all(&log));
    assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
    let count = found.len() as u64;
    assert!((acked..=tried).contains(&count), "{count} events, {acked} acknowledged, {tried} tried");
    assert!(verify(&RealDisk, dir).unwrap().is_whole());
    count
}

#[test]
fn acknowledged_events_survive_a_kill_at_every_durable_step() {
    // Those of generations are not the log's; they are killed at by the end-to-end tests of the program.
    let of_log = |step: &Step| ["append.", "segment_create.", "seal.", "mark.", "torn."].iter().any(|area| step.name().starts_with(area));
    for step in Step::ALL.into_iter().filter(of_log) {
        let torn = [Step::TornBeforeCopy, Step::TornAfterCopy].contains(&step);
        let counts = match step {
            Step::AppendBeforeWrite | Step::AppendAfterWrite | Step::AppendBeforeSync | Step::AppendAfterSync => 1..=20,
            _ => 1..=3,
        };
        let mut kills = 0;
        for count in counts {
            let place = temporary();
            let dir = place.path().join("log");
            let mut before = 0;
            if torn {
                before = tear(&dir);
            }
            let (acked, killed) = run(&dir, Some((step, count)));
            kills += u64::from(killed);
            let now = check(&dir, acked.max(before), before + APPENDS);
            // The same command resumes.
            let (acked, killed) = run(&dir, None);
            assert_eq!((acked, killed), (now + APPENDS, false), "after a kill at {}:{count}", step.name());
            check(&dir, acked, acked);
        }
        assert!(kills > 0, "{} was never reached", step.name());
    }
}

/// A log whose last group is torn; returns the events that are whole.
fn tear(dir: &Path) -> u64 {
    let log = open(dir).unwrap();
    log.append(notes(0..2)).unwrap();
    log.append(notes(2..4)).unwrap();
    drop(log);
    let segment = dir.join("p0000").join(format!("{:020}.active", 0));
    let file = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
    file.set_len(file.metadata().unwrap().len() - 3).unwrap();
    2
}

/// The threads of three shares reach the steps in any order, so a step is the n-th of any of them.
#[test]
fn what_any_share_acknowledged_survives_a_kill_at_every_durable_step() {
    for step in Step::ALL.into_iter().filter(|step| ["append.", "seal.", "mark."].iter().any(|area| step.name().starts_with(area))) {
        let mut kills = 0;
        for count in [1, 2, 4, 7] {
            let place = temporary();
            let dir = place.path().join("log");
            let output = child(&dir, "cluster", Some((step, count))).wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            let acked: u64 = text.lines().filter_map(|line| line.split_once("child: ")?.1.parse().ok()).max().unwrap_or(0);
            let killed = output.status.signal() == Some(SIGKILL);
            assert!(killed || output.status.success(), "{}: {text}", output.status);
            kills += u32::from(killed);
            if dir.join("log.json").exists() {
                assert!(verify(&RealDisk, &dir).unwrap().is_whole(), "{}:{count}", step.name());
            }
            let log = open(&dir).unwrap();
            let mut found = numbers(&read_all(&log));
            found.sort_unstable();
            let due = found.len() as u64;
            assert_eq!(found, (0..due).collect::<Vec<_>>(), "{}:{count}", step.name());
            assert!((acked..=acked + 1).contains(&due), "{}:{count}: {due} events, {acked} were acknowledged", step.name());
            log.close().unwrap();
            assert_eq!(cluster(&dir).unwrap().iter().map(|log| log.events_total()).sum::<u64>(), due);
        }
        assert!(kills > 0, "{} was not reached", step.name());
    }
}

#[test]
fn a_process_that_outlived_its_cluster_is_named_to_whoever_wants_the_whole_log() {
    let place = temporary();
    let dir = place.path().join("log");
    let mut straggler = child(&dir, "straggle", None);
    let mut lines = BufReader::new(straggler.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("child: holds")));
    for refused in [open(&dir).err(), cluster(&dir).err()] {
        let refused = refused.expect("it is refused");
        assert_eq!(refused.exit_code(), 6);
        assert!(matches!(&refused, LogError::InUse { pid, .. } if *pid == straggler.id().to_string()), "{refused}");
    }
    straggler.kill().unwrap();
    straggler.wait().unwrap();
    assert_eq!(cluster(&dir).unwrap().len(), SHARES);
}

/// Removes every note from number 10 on.
fn redact_some(dir: &Path) {
    let options = LogOptions { segment_bytes_max: 1_200, ..LogOptions::default() };
    let request = RedactRequest { conditions: vec!["number >= 10".parse().unwrap()], why: "test".to_string(), options };
    redact::<Note>(Arc::new(RealDisk), Arc::new(SystemClock), dir, &request).unwrap();
}

#[test]
fn a_redaction_that_is_killed_at_any_step_is_done_or_not_begun() {
    for (step, done) in [
        (Step::RedactBeforeCommit, false),
        (Step::RedactAfterCommit, true),
        (Step::RedactBeforeSettle, true),
        (Step::RedactAfterSettle, true),
    ] {
        let place = temporary();
        let dir = place.path().join("log");
        assert_eq!(run(&dir, None), (APPENDS, false));
        let output = child(&dir, "redact", Some((step, 1))).wait_with_output().unwrap();
        assert_eq!(output.status.signal(), Some(SIGKILL), "{} was not reached", step.name());
        let (due, revision) = if done { (10, 1) } else { (APPENDS, 0) };
        for _ in 0..2 {
            let log = open(&dir).unwrap();
            assert_eq!((numbers(&read_all(&log)), log.revision()), ((0..due).collect(), revision), "{}", step.name());
            log.close().unwrap();
            assert!(verify(&RealDisk, &dir).unwrap().is_whole());
        }
        redact_some(&dir);
        let log = open(&dir).unwrap();
        assert_eq!((log.events_total(), log.revision()), (10, 1), "again, there is nothing left to remove");
        assert_eq!(log.append(vec![note(0)]).unwrap().first_offset().0, APPENDS);
    }
}

#[test]
fn a_crash_loop_during_recovery_leaves_one_copy_of_the_torn_tail() {
    let place = temporary();
    let dir = place.path().join("log");
    let whole = tear(&dir);
    for round in 0..20 {
        let step = if round % 2 == 0 { Step::TornAfterCopy } else { Step::SealBeforeRename };
        assert_eq!(run(&dir, Some((step, 1))), (0, true));
    }
    assert_eq!(check(&dir, whole, whole), whole);
    let names = std::fs::read_dir(dir.join("p0000")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let torn: Vec<String> = names.filter(|name| name.contains("torn")).collect();
    assert_eq!(torn.len(), 1, "{torn:?}");
}

#[test]
fn a_second_process_is_refused_and_told_who_holds_the_log() {
    let place = temporary();
    let dir = place.path().join("log");
    let mut holder = child(&dir, "hold", None);
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("child: holds")));
    let link = place.path().join("link");
    std::os::unix::fs::symlink(&dir, &link).unwrap();
    for path in [&dir, &link] {
        match open(path) {
            Err(error @ LogError::InUse { .. }) => {
                assert_eq!(error.exit_code(), 6);
                let message = format!("log {} is in use by process {}", path.display(), holder.id());
                assert!(error.to_string().starts_with(&message), "{error}");
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("two processes have the log open"),
        }
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    open(&dir).expect("the lock of a killed process is gone").close().unwrap();
}

#[test]
fn a_second_handle_in_the_same_process_is_refused() {
    let place = temporary();
    let dir = place.path().join("log");
    let log = open(&dir).unwrap();
    log.append(notes(0..1)).unwrap();
    assert!(matches!(open(&dir), Err(LogError::InUse { .. })));
    log.append(notes(1..2)).unwrap();
    log.close().unwrap();
    let log = open(&dir).unwrap();
    assert_eq!(numbers(&read_all(&log)), [0, 1]);
    assert!(log.frontier() > Tick::ZERO);
}

#[test]
fn a_link_or_pipe_in_the_place_of_a_segment_is_reported_and_not_opened() {
    let place = temporary();
    let dir = place.path().join("log");
    open(&dir).unwrap().close().unwrap();
    let pipe = dir.join("p0000").join(format!("{:020}.seg", 0));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for _ in 0..2 {
        match open(&dir) {
            Err(error @ LogError::Damaged(_)) => assert_eq!(error.exit_code(), 3),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("a pipe was taken for a segment"),
        }
        std::fs::remove_file(&pipe).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &pipe).unwrap();
    }
}
