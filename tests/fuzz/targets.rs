//! What is fuzzed: whatever reads bytes that others could have made. Each target takes any bytes and must return.
//!
//! A target is a function so that two drivers can call it: `main.rs`, a test that runs on stable, and libFuzzer in the crate
//! `fuzz/`, which follows the branches.
use super::edits::{Input, edit, mend_active, mend_document, mend_sealed};
use super::generations::{manifests, runs};
use columnar::{Columnar, Index};
use lambdaflow::log::{Clock, Event, Execution, Log, LogError, LogOptions, LogReader, RedactRequest, SimClock, Tick, redact, verify};
use lambdaflow::runtime::{LINE_BYTES_MAX, for_each_line};
use lambdaflow::storage::SimDisk;
use lambdaflow_dataflows::web_analytics::generate::to_combined_line;
use lambdaflow_dataflows::web_analytics::parse::{parse_any, parse_line};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A target: any bytes in, nothing out, no panic.
pub type Target = fn(&[u8]);

/// All of them. The corpus of each is in a directory of its name.
pub const TARGETS: [(&str, Target); 5] =
    [("segments", segments), ("documents", documents), ("runs", runs), ("manifests", manifests), ("lines", lines)];

const DIR: &str = "/place/log";

/// An event of columns of every shape: numbers, text, options, lists, lists of options.
#[derive(Clone, Debug, PartialEq, Columnar, Serialize, Deserialize)]
pub struct Shapes {
    pub flag: bool,
    pub number: u64,
    pub text: String,
    pub maybe: Option<String>,
    pub list: Vec<u32>,
    pub pair: (i64, String),
    pub nested: Vec<Option<String>>,
    pub letter: char,
    pub time: Duration,
}

impl Event for Shapes {
    const NAME: &'static str = "shapes";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["flag: bool", "number: u64", "..."];
}

/// Event of a number.
pub fn shapes(number: u64) -> Shapes {
    let text = (!number.is_multiple_of(3)).then(|| format!("text {number}"));
    Shapes {
        flag: number.is_multiple_of(2),
        number,
        text: "é".repeat(number as usize % 5),
        maybe: text.clone(),
        list: (0..number as u32 % 5).collect(),
        pair: (-(number as i64), "x".repeat(number as usize % 4)),
        nested: vec![text, None],
        letter: if number.is_multiple_of(2) { 'a' } else { '☃' },
        time: Duration::new(number, 7),
    }
}

/// A log as a kill or a clean stop left it.
struct Image {
    disk: SimDisk,
    /// The partition's segments, sealed or active, in order.
    segments: Vec<PathBuf>,
    /// The numbers of its events.
    numbers: Vec<u64>,
}

/// Segments are as large as a run makes them, and too large to be merged when the log is opened again.
fn options() -> LogOptions {
    LogOptions { execution: Execution::Inline, block_events_max: 5, segment_bytes_max: 4_000, ..LogOptions::default() }
}

fn open(disk: &SimDisk) -> Result<Log<Shapes>, LogError> {
    Log::open(Arc::new(disk.clone()), SimClock::at(100) as Arc<dyn Clock>, Path::new(DIR), options())
}

/// A killed log with an active segment of six groups, and a closed one of three sealed segments.
fn images() -> &'static [Image; 2] {
    static IMAGES: OnceLock<[Image; 2]> = OnceLock::new();
    IMAGES.get_or_init(|| [image(1), image(3)])
}

fn image(segments: u64) -> Image {
    let disk = SimDisk::new();
    let mut events = 0;
    for _ in 0..segments {
        let clock = SimClock::at(100 + events);
        let log = Log::<Shapes>::open(Arc::new(disk.clone()), clock.clone(), Path::new(DIR), options()).expect("a good log");
        for group in 0..6 {
            clock.pass(group % 2);
            // Some of them by a producer, so that frames and segments say so.
            let two: Vec<Shapes> = (events..events + 2).map(shapes).collect();
            let appended = if group % 2 == 1 { log.append_as("fuzz", events / 4, two) } else { log.append(two) };
            appended.expect("a good disk");
            events += 2;
        }
        if segments > 1 {
            log.close().expect("a good disk");
        }
    }
    let disk = disk.after_kill();
    if segments > 1 {
        open(&disk).expect("a good log").close().expect("a good disk"); // what was active is sealed now
        // Two segments have holes.
        let conditions = ["number >= 7", "number <= 15"].map(|condition| condition.parse().expect("a condition")).to_vec();
        let request = RedactRequest { conditions, why: "holes".to_owned(), options: options() };
        let report = redact::<Shapes>(Arc::new(disk.clone()), SimClock::at(100) as Arc<dyn Clock>, Path::new(DIR), &request);
        assert_eq!(report.expect("a good disk").matching_total(), 9);
    }
    let numbers = (0..events).filter(|number| segments == 1 || !(7..=15).contains(number)).collect();
    let partition = Path::new(DIR).join("p0000");
    let files: Vec<PathBuf> = disk.files().into_keys().filter(|path| path.starts_with(&partition)).collect();
    assert_eq!(files.len() as u64, segments, "{files:?}");
    let segments = files;
    Image { disk, segments, numbers }
}

/// Reads the outline of all events, as a dataflow does. Returns them, or why it ended early.
fn read(log: &Log<Shapes>, from: Tick) -> Result<u64, LogError> {
    let (mut cursor, mut count, mut last) = (log.cursor(from), 0, from);
    while let Some(block) = cursor.next()? {
        let rows: usize = block
            .tick_runs()
            .map(|(tick, rows)| {
                assert!(tick >= last, "tick {tick} after {last}");
                last = tick;
                for row in rows.clone() {
                    std::hint::black_box(block.columns().get(row));
                }
                rows.len()
            })
            .sum();
        assert_eq!(rows, block.len());
        assert!(block.end_offset() > block.first_offset());
        count += rows as u64;
    }
    Ok(count)
}

/// Reads whole events. Only where nobody mended a checksum.
fn read_whole(log: &Log<Shapes>) -> Result<Vec<Shapes>, (Vec<Shapes>, LogError)> {
    let (mut cursor, mut events) = (log.cursor(Tick::ZERO), Vec::new());
    loop {
        match cursor.next() {
            Ok(Some(block)) => events.extend(block.range().map(|row| Shapes::into_owned(block.columns().get(row)))),
            Ok(None) => return Ok(events),
            Err(error) => return Err((events, error)),
        }
    }
}

/// Asserts that an error names a file of the log and a byte that is in it, or right after it.
fn check_place(disk: &SimDisk, error: &LogError) {
    match error {
        LogError::Damaged(damage) => {
            let files = disk.files();
            let length = files.get(&damage.file).map(|bytes| bytes.len() as u64);
            // A segment that is not there has no bytes.
            assert!(damage.byte <= length.unwrap_or(0), "{error}: of {length:?} bytes");
        }
        LogError::NewerFormat { path, found, supported } => {
            assert!(disk.files().contains_key(path) && *found > u64::from(*supported), "{error}");
        }
        LogError::WrongEvent { .. } | LogError::EarlierProgram { .. } | LogError::TooManyTypes { .. } | LogError::WrongLayout { .. } => {}
        other => panic!("bytes of a file are no reason for: {other}"),
    }
}

/// Opens a log of which one file was replaced, in every way that there is. `trusted` says that no checksum holds by mending.
fn open_edited(image: &Image, path: &Path, bytes: &[u8], trusted: bool) {
    let same = image.disk.files().get(path).is_some_and(|was| was == bytes);
    let disk = image.disk.after_kill();
    disk.plant(path, bytes);
    match verify(&disk, Path::new(DIR)) {
        Ok(report) => {
            report.damage.iter().for_each(|damage| check_place(&disk, &LogError::Damaged(damage.clone())));
            assert!(!same || report.is_whole(), "{:?}", report.damage);
        }
        Err(error) => check_place(&disk, &error),
    }
    if let Err(error) = LogReader::<Shapes>::open(&disk, Path::new(DIR)) {
        check_place(&disk, &error);
    }
    let before = disk.files();
    match open(&disk) {
        Err(error) => {
            assert!(!same, "a good log is refused: {error}");
            check_place(&disk, &error);
            // A mark is not written, a tail not cut, in a log that is damaged.
            let after = disk.files();
            assert!(before.iter().all(|(path, bytes)| after.get(path) == Some(bytes)), "a refused log was changed");
        }
        Ok(log) if trusted => match read_whole(&log) {
            Ok(events) => {
                assert!(
                    events.iter().cloned().eq(image.numbers.iter().take(events.len()).copied().map(shapes)),
                    "events that nobody wrote"
                );
                assert!(
                    !same || events.len() as u64 == image.numbers.len() as u64,
                    "{} of {} events",
                    events.len(),
                    image.numbers.len() as u64
                );
            }
            Err((events, error)) => {
                assert!(!same, "a good log is damaged: {error}");
                assert!(
                    events.iter().cloned().eq(image.numbers.iter().take(events.len()).copied().map(shapes)),
                    "events that nobody wrote"
                );
                check_place(&disk, &error);
            }
        },
        Ok(log) => {
            for from in [0, 101, 112] {
                if let Err(error) = read(&log, Tick(from)) {
                    check_place(&disk, &error);
                }
            }
            if log.append(vec![shapes(0)]).is_ok() {
                drop(log.close());
            }
        }
    }
}

/// Blocks and segments, sealed and active: edits of good ones, with checksums mended or not, and any bytes instead of one.
pub fn segments(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let image = &images()[usize::from(choice & 1)];
    let path = &image.segments[input.below(image.segments.len())];
    let good = image.disk.files()[path].clone();
    let mut edited = good;
    if choice & 4 == 0 {
        edit(&mut edited, &mut input);
    } else {
        edited = input.rest().to_vec();
    }
    let mut mended = edited.clone();
    if choice & 1 == 0 {
        mend_active(&mut mended)
    } else {
        mend_sealed(&mut mended)
    };
    // An input may itself have made a checksum right.
    let trusted = mended != edited || image.disk.files()[path] == edited;
    if choice & 2 == 0 && trusted {
        open_edited(image, path, &edited, true);
    } else {
        open_edited(image, path, &mended, mended == image.disk.files()[path]);
    }
}

/// The small files: `log.json` and `mark`.
pub fn documents(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let choice = input.byte();
    let image = &images()[usize::from(choice & 1)];
    let path = Path::new(DIR).join(if choice & 8 == 0 { "mark" } else { "log.json" });
    let mut edited = image.disk.files()[&path].clone();
    if choice & 4 == 0 {
        edit(&mut edited, &mut input);
    } else {
        edited = input.rest().to_vec();
    }
    if choice & 2 != 0 {
        mend_document(&mut edited);
    }
    open_edited(image, &path, &edited, false);
}

/// Lines of input, as JSON and as lines of an access log.
pub fn lines(bytes: &[u8]) {
    let capacity = 1 + usize::from(bytes.first().copied().unwrap_or(0));
    let (mut seen, mut count) = (Vec::new(), 0);
    let read = for_each_line::<std::io::Error>(std::io::BufReader::with_capacity(capacity, bytes), |number, line, _| {
        count += 1;
        assert_eq!(number, count);
        match line {
            Ok(line) => seen.push(line.to_vec()),
            Err(error) => assert!(bytes.len() > LINE_BYTES_MAX, "{error}"),
        }
        Ok(())
    });
    assert_eq!(read.expect("memory can be read"), bytes.len() as u64);
    let unmarked = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut plain: Vec<&[u8]> = unmarked.split(|byte| *byte == b'\n').collect();
    if plain.last().is_some_and(|last| last.is_empty()) && (bytes.is_empty() || bytes.ends_with(b"\n")) {
        plain.pop();
    }
    let plain = plain.iter().map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    assert!(bytes.len() > LINE_BYTES_MAX || seen.iter().map(Vec::as_slice).eq(plain), "lines are not what stands between line ends");
    for line in &seen {
        // Once read, a request is written and read as the same.
        if let Ok(request) = parse_any(line) {
            let json = serde_json::to_vec(&request).expect("a request is JSON");
            assert_eq!(parse_any(&json).as_ref(), Ok(&request));
        }
        if let Ok(request) = parse_line(line)
            && !line.iter().any(u8::is_ascii_control)
        {
            assert_eq!(parse_line(to_combined_line(&request).as_bytes()), Ok(request));
        }
    }
}
