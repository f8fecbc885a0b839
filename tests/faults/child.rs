//! The child: opens a log, appends to it, and says what it was told.

use super::log_support::{Note, note, numbers, read_all, rows};
use lambdaflow::log::{Execution, Log, LogError, LogOptions, LogReader, SystemClock, Tick};
use lambdaflow::storage::RealDisk;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

const DIR: &str = "LAMBDAFLOW_TEST_LOG";
const TASK: &str = "LAMBDAFLOW_TEST_TASK";
const FIRST: &str = "LAMBDAFLOW_TEST_FIRST";

/// Events that the task `append` appends.
pub const APPENDS: u64 = 30;
/// Most events of the task `flood`: whoever waits for a failure sees that there was none.
const FLOOD_MAX: u64 = 5_000;
/// Threads of the task `stream`, and how far apart the numbers are that they append.
pub const STREAMS: u64 = 3;
pub const STREAM_NUMBERS: u64 = 1_000_000;

/// Segments of a few events, so that sealing is met often.
pub fn small_segments() -> LogOptions {
    LogOptions { segment_bytes_max: 1_200, ..LogOptions::default() }
}

pub fn open(dir: &Path, options: LogOptions) -> Result<Log<Note>, LogError> {
    Log::open(Arc::new(RealDisk), Arc::new(SystemClock), dir, options)
}

/// A command that makes a child do a task. `wrapper` is a command line that it is started by.
pub fn command(wrapper: &[&str], dir: &Path, task: &str, first: u64) -> Command {
    let this = std::env::current_exe().expect("this binary");
    let mut command = match wrapper {
        [] => Command::new(&this),
        [program, arguments @ ..] => {
            let mut command = Command::new(program);
            command.args(arguments).arg(&this);
            command
        }
    };
    command.args(["child_role", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(DIR, dir).env(TASK, task).env(FIRST, first.to_string()).env_remove("LAMBDAFLOW_CRASH_AT");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a child said and how it ended.
#[derive(Debug)]
pub struct Said {
    /// Numbers that it was told are in the log, or that it read.
    pub numbers: Vec<u64>,
    /// The error that ended it.
    pub error: Option<String>,
    pub code: Option<i32>,
    pub signal: Option<i32>,
}

impl Said {
    pub fn of(output: &Output) -> Said {
        use std::os::unix::process::ExitStatusExt;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Said {
            numbers: text.lines().filter_map(number_in).collect(),
            error: text.split_once("child failed: ").map(|(_, error)| error.to_owned()),
            code: output.status.code(),
            signal: output.status.signal(),
        }
    }

    /// Asserts that it ended with a failure of storage whose text has these parts.
    #[track_caller]
    pub fn failed(self, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(5), "{self:?}");
        let error = self.error.as_deref().unwrap_or_default();
        assert!(parts.iter().all(|part| error.contains(part)), "no {parts:?} in {error}");
        self
    }
}

/// The number in a line that a child wrote.
pub fn number_in(line: &str) -> Option<u64> {
    line.split_once("child: ")?.1.parse().ok()
}

fn say(number: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "child: {number}").and_then(|()| out.flush()).expect("the parent listens");
}

pub fn play() {
    let Ok(dir) = std::env::var(DIR) else {
        return;
    };
    let first = std::env::var(FIRST).ok().and_then(|first| first.parse().ok()).unwrap_or(0);
    let task = std::env::var(TASK).expect("a task");
    let done = match task.as_str() {
        "append" => append(Path::new(&dir), first),
        "flood" => flood(Path::new(&dir), first),
        "stream" => stream(Path::new(&dir), first),
        "starve" => starve(Path::new(&dir)),
        "read" => read(Path::new(&dir)),
        task => panic!("no such task: {task}"),
    };
    if let Err(error) = done {
        println!("child failed: {error}");
        std::process::exit(error.exit_code().into());
    }
    std::process::exit(0);
}

/// Few events, all work on one thread, so that system calls can be counted.
fn append(dir: &Path, first: u64) -> Result<(), LogError> {
    let log = open(dir, LogOptions { execution: Execution::Inline, ..small_segments() })?;
    for number in first..first + APPENDS {
        log.append(vec![note(number)])?;
        say(number);
        log.advance()?;
    }
    log.close()
}

/// One event after the other into one segment, until something fails or there are too many.
fn flood(dir: &Path, first: u64) -> Result<(), LogError> {
    let log = open(dir, LogOptions::default())?;
    for number in first..first + FLOOD_MAX {
        log.append(vec![note(number)])?;
        say(number);
    }
    Ok(())
}

/// Several threads append to small segments until something fails.
fn stream(dir: &Path, first: u64) -> Result<(), LogError> {
    let log = open(dir, LogOptions { segment_bytes_max: 20_000, ..LogOptions::default() })?;
    let append = |stream: u64| {
        let (log, first) = (log.clone(), first + stream * STREAM_NUMBERS);
        std::thread::spawn(move || {
            for number in first.. {
                if let Err(error) = log.append(vec![note(number)]) {
                    return error;
                }
                say(number);
            }
            unreachable!("numbers do not end")
        })
    };
    let threads: Vec<_> = (0..STREAMS).map(append).collect();
    let errors = threads.into_iter().map(|thread| thread.join().expect("no panic"));
    Err(errors.last().expect("a thread"))
}

/// Appends with no file descriptor left, then with enough of them again.
fn starve(dir: &Path) -> Result<(), LogError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let log = open(dir, small_segments())?;
    log.append(vec![note(0)])?;
    let lowest_free = std::fs::File::open("/dev/null").expect("it is there").as_raw_fd() as u64;
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(lowest_free), ..limits }).expect("a limit can be lowered");
    let mut acked = 1;
    let refused = loop {
        match log.append(vec![note(acked)]) {
            Ok(_) => acked += 1,
            Err(error) => break error,
        }
        assert!(acked < 1_000, "a segment never needs a descriptor");
    };
    assert_eq!(refused.exit_code(), 5, "{refused}");
    assert!(refused.to_string().contains("Too many open files"), "{refused}");
    assert_eq!(numbers(&read_all(&log)), (0..acked).collect::<Vec<_>>(), "what was acknowledged can still be read");
    drop(log);
    setrlimit(Resource::Nofile, limits).expect("back to what it was");
    let log = open(dir, small_segments())?;
    assert_eq!(numbers(&read_all(&log)), (0..acked).collect::<Vec<_>>());
    log.append(vec![note(acked)])?;
    log.close()
}

/// Reads without the lock, block by block.
fn read(dir: &Path) -> Result<(), LogError> {
    let reader = LogReader::<Note>::open(&RealDisk, dir)?;
    let mut cursor = reader.cursor(Tick::ZERO);
    while let Some(block) = cursor.next()? {
        rows(&block).iter().for_each(|placed| say(placed.note.number));
    }
    Ok(())
}
