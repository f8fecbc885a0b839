//! Lines on their way into a log: what is an event, what is not, and what is there already (rows I1, I3, I5 to I8).
mod log_support;

use lambdaflow::log::{Execution, Log, LogError, LogOptions, PRODUCER_WINDOW, Partition, ProducerError, SimClock};
use lambdaflow::prelude::*;
use lambdaflow::runtime::{
    BATCH_LINES_MAX, BatchCutter, IngestError, IngestOptions, Ingested, LINE_BYTES_MAX, OnError, ProducerMemory, Program, ingest,
};
use lambdaflow::storage::SimDisk;
use log_support::{Note, inline, note, numbers, open, read_all};
use std::io::{BufRead, Cursor};
use std::sync::Arc;

fn program() -> Program<Note> {
    Program::new("notes", |events: Events<'_, Note>, views: &mut Views| {
        views.publish("count", events.aggregate::<u64, Count>(|note, groups| groups.add(note.number, Count::one())));
    })
}

fn take(log: &Log<Note>, text: &[u8], options: IngestOptions<'_>) -> Result<Ingested, IngestError> {
    let bytes: Arc<[u8]> = Arc::from(text);
    ingest(&program(), log, || Ok(Box::new(Cursor::new(Arc::clone(&bytes))) as Box<dyn BufRead>), options, |_| {})
}

fn empty_log() -> Log<Note> {
    open(&SimDisk::new(), &SimClock::at(5), inline()).unwrap()
}

const GOOD: &str = r#"{"number":1,"text":"a"}"#;

#[test]
fn each_kind_of_line_is_an_event_or_refused_with_its_number() {
    let cases: Vec<(&str, Vec<u8>, usize, Vec<u64>)> = vec![
        ("nothing", b"".to_vec(), 0, vec![]),
        ("one line", format!("{GOOD}\n").into(), 1, vec![]),
        ("no newline at the end", format!("{GOOD}\n{GOOD}").into(), 2, vec![]),
        ("CR LF", format!("{GOOD}\r\n{GOOD}\r\n").into(), 2, vec![]),
        ("a byte order mark", format!("\u{feff}{GOOD}\n").into(), 1, vec![]),
        ("an empty line", format!("{GOOD}\n\n{GOOD}\n").into(), 2, vec![2]),
        ("an escaped NUL", b"{\"number\":1,\"text\":\"a\\u0000b\"}\n".to_vec(), 1, vec![]),
        ("a bare NUL", b"{\"number\":1,\"text\":\"a\0b\"}\n".to_vec(), 0, vec![1]),
        ("invalid UTF-8", b"{\"number\":1,\"text\":\"\xff\"}\n".to_vec(), 0, vec![1]),
        ("a missing field", b"{\"number\":1}\n".to_vec(), 0, vec![1]),
        ("a wrong type", b"{\"number\":\"1\",\"text\":\"a\"}\n".to_vec(), 0, vec![1]),
        ("too large a number", b"{\"number\":18446744073709551616,\"text\":\"a\"}\n".to_vec(), 0, vec![1]),
        ("no number", b"{\"number\":NaN,\"text\":\"a\"}\n{\"number\":1e400,\"text\":\"a\"}\n".to_vec(), 0, vec![1, 2]),
        ("brackets without end", [&vec![b'['; 100_000][..], b"\n", GOOD.as_bytes()].concat(), 1, vec![1]),
        ("a line over the limit", [&vec![b'x'; LINE_BYTES_MAX + 1][..], b"\n", GOOD.as_bytes()].concat(), 1, vec![1]),
    ];
    for (what, text, accepted, rejected) in cases {
        let log = empty_log();
        let done = take(&log, &text, IngestOptions { on_error: OnError::Skip, ..IngestOptions::default() }).unwrap();
        assert_eq!((done.accepted, done.rejected), (accepted as u64, rejected.len() as u64), "{what}: {done:?}");
        assert_eq!(done.first_rejected.iter().map(|line| line.line).collect::<Vec<_>>(), rejected, "{what}");
        assert_eq!(log.events_total(), accepted as u64, "{what}");
        let log = empty_log();
        match (take(&log, &text, IngestOptions::default()), rejected.first()) {
            (Ok(_), None) => {}
            (Err(IngestError::Rejected { line, .. }), Some(first)) => {
                assert_eq!((line, log.events_total()), (*first, 0), "{what}: nothing is taken before all is known to be good");
            }
            (other, _) => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn an_event_over_the_limit_is_refused_and_the_log_goes_on() {
    let log = empty_log();
    let large = Note { number: 1, text: "x".repeat(lambdaflow::log::APPEND_BYTES_MAX) };
    assert!(matches!(log.append(vec![large]), Err(LogError::TooLarge { events: 1, .. })));
    assert_eq!(log.append(vec![note(1)]).unwrap().first_offset().0, 0);
}

/// Lines of `count` notes, the first with this number.
fn lines(first: u64, count: u64) -> String {
    (first..first + count).map(|number| format!("{{\"number\":{number},\"text\":\"\"}}\n")).collect()
}

fn as_producer(producer: &str) -> IngestOptions<'_> {
    IngestOptions { producer: Some(producer), ..IngestOptions::default() }
}

#[test]
fn an_input_that_is_given_again_is_stored_once_and_one_that_differs_is_refused() {
    let disk = SimDisk::new();
    let (clock, options) = (SimClock::at(5), LogOptions { partitions: 2, ..inline() });
    let count = BATCH_LINES_MAX as u64 + 10;
    let text = lines(0, count);
    for _ in 0..2 {
        let log = open(&disk, &clock, options.clone()).unwrap();
        assert_eq!(take(&log, text.as_bytes(), as_producer("p")).unwrap().accepted, count);
        assert_eq!(log.events_total(), count);
        log.close().unwrap();
    }
    let log = open(&disk, &clock, options).unwrap();
    for (changed, sequence) in [(text.replacen("\"number\":7,", "\"number\":8,", 1), 0), (lines(0, count - 5), 1)] {
        match take(&log, changed.as_bytes(), as_producer("p")) {
            Err(IngestError::Log(LogError::Producer(ProducerError::Differs { sequence: found, .. }))) => assert_eq!(found, sequence),
            other => panic!("{other:?}"),
        }
        assert_eq!(log.events_total(), count);
    }
    take(&log, lines(count, 3).as_bytes(), as_producer("q")).unwrap();
    assert_eq!(log.events_total(), count + 3);
    let read = read_all(&log);
    let of = |partition| read.iter().filter(move |placed| placed.partition == Partition(partition)).map(|placed| placed.note.number);
    assert!((0..2).any(|partition| of(partition).take(count as usize).eq(0..count)), "in the order of the lines");
}

/// Batches went to the log four at a time before the first was compared: when one differed from what was stored, new ones after
/// it were stored all the same, and the input was in the log with a gap.
#[test]
fn nothing_is_stored_after_a_batch_that_differs() {
    let batch = BATCH_LINES_MAX as u64;
    let whole = lines(0, 5 * batch);
    let stored = lines(0, 2 * batch);
    for execution in [Execution::Threads, Execution::Inline] {
        let log = open(&SimDisk::new(), &SimClock::at(5), LogOptions { execution, ..LogOptions::default() }).unwrap();
        take(&log, stored.as_bytes(), as_producer("p")).unwrap();
        let changed = format!("{{\"number\":{},", batch + 7);
        match take(&log, whole.replacen(&changed, "{\"number\":0,", 1).as_bytes(), as_producer("p")) {
            Err(IngestError::Log(LogError::Producer(ProducerError::Differs { sequence: 1, expected: 2, .. }))) => {}
            other => panic!("{execution:?}: {other:?}"),
        }
        assert_eq!(log.events_total(), 2 * batch, "{execution:?}");
        assert_eq!(take(&log, whole.as_bytes(), as_producer("p")).unwrap().accepted, 5 * batch);
        assert_eq!(log.events_total(), 5 * batch, "{execution:?}: the same input goes on where it ended");
    }
}

#[test]
fn batches_end_at_the_same_lines_for_ever() {
    // A later release must cut an input as this one did, or it would store it again.
    let ends = |lengths: &mut dyn Iterator<Item = usize>| {
        let mut cutter = BatchCutter::default();
        lengths.enumerate().filter(|(_, length)| cutter.ends_with(*length)).map(|(line, _)| line).collect::<Vec<_>>()
    };
    assert_eq!(ends(&mut std::iter::repeat_n(10, 150_000)), [49_999, 99_999, 149_999]);
    assert_eq!(ends(&mut std::iter::repeat_n(4_095, 2_500)), [1_023, 2_047]);
    assert_eq!(ends(&mut [4 << 20, 1, (4 << 20) - 1, 0].into_iter()), [0, 2]);
}

#[test]
fn an_input_too_old_to_be_compared_is_refused_and_a_long_one_recognised_by_its_end() {
    let log = empty_log();
    let batches = PRODUCER_WINDOW as u64 + 2;
    // An input of lines of a megabyte, four or five to a batch, would be too much for a test: these are its batches.
    for sequence in 0..batches {
        log.append_as("p", sequence, vec![note(sequence)]).unwrap();
    }
    // All of a short input falls before the window: nobody can tell whether it is the same.
    match take(&log, lines(0, 1).as_bytes(), as_producer("p")) {
        Err(IngestError::Log(LogError::Producer(ProducerError::TooOld { oldest: 2, expected, .. }))) => assert_eq!(expected, batches),
        other => panic!("{other:?}"),
    }
    assert_eq!(numbers(&read_all(&log)), (0..batches).collect::<Vec<_>>());
    let mut memory = ProducerMemory::default();
    assert!(memory.check_reached(5).is_ok() && !memory.has_forgotten(0));
    let (producer, sequence, oldest, expected) = ("p".to_string(), 0, 2, batches);
    memory.learn(ProducerError::TooOld { producer, sequence, oldest, expected }).unwrap();
    assert!(memory.has_forgotten(1) && !memory.has_forgotten(2));
    assert!(memory.check_reached(2).is_err() && memory.check_reached(3).is_ok(), "one batch was compared");
}
