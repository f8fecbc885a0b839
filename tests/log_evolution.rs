//! A log written with an earlier event type is read and gone on with by the next one (rows I14, O6).
mod log_support;

use columnar::{Columnar, Index};
use lambdaflow::log::{
    Clock, Cursor, Earlier, Event, Log, LogError, LogOptions, LogReader, Offset, RedactRequest, SimClock, Tick, info, redact, rewrite,
    salvage, verify,
};
use lambdaflow::storage::{Disk, Rng, SimDisk};
use log_support::{dir, inline, inline_small, partition_files};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

#[derive(Clone, Debug, PartialEq, Columnar, Serialize, Deserialize)]
struct OrderV1 {
    number: u64,
    item: String,
}

#[derive(Clone, Debug, PartialEq, Columnar, Serialize, Deserialize)]
struct OrderV2 {
    number: u64,
    item: String,
    pieces: u32,
}

#[derive(Clone, Debug, PartialEq, Columnar, Serialize, Deserialize)]
struct Order {
    id: String,
    item: String,
    pieces: u32,
    gift: bool,
}

impl Event for OrderV1 {
    const NAME: &'static str = "order";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["number: u64", "item: String"];
}

impl From<OrderV1> for OrderV2 {
    fn from(old: OrderV1) -> Self {
        OrderV2 { number: old.number, item: old.item, pieces: 1 }
    }
}

impl Event for OrderV2 {
    const NAME: &'static str = "order";
    const VERSION: u32 = 2;
    const FIELDS: &'static [&'static str] = &["number: u64", "item: String", "pieces: u32"];
    fn earlier() -> Earlier<Self> {
        Earlier::of::<OrderV1>()
    }
}

impl From<OrderV2> for Order {
    fn from(old: OrderV2) -> Self {
        Order { id: old.number.to_string(), item: old.item, pieces: old.pieces, gift: false }
    }
}

/// The newest type names only the one before it.
impl Event for Order {
    const NAME: &'static str = "order";
    const VERSION: u32 = 3;
    const FIELDS: &'static [&'static str] = &["id: String", "item: String", "pieces: u32", "gift: bool"];
    fn earlier() -> Earlier<Self> {
        Earlier::of::<OrderV2>()
    }
}

fn v1(number: u64) -> OrderV1 {
    OrderV1 { number, item: format!("item {number}") }
}

fn v2(number: u64) -> OrderV2 {
    OrderV2 { number, item: format!("item {number}"), pieces: 2 + number as u32 }
}

fn v3(number: u64) -> Order {
    Order { id: number.to_string(), item: format!("item {number}"), pieces: 7, gift: true }
}

fn open<E: Event>(disk: &SimDisk, clock: &Arc<SimClock>, options: LogOptions) -> Result<Log<E>, LogError> {
    Log::open(Arc::new(disk.clone()), Arc::clone(clock) as Arc<dyn Clock>, dir(), options)
}

fn read<E: Event>(mut cursor: Cursor<E>) -> Vec<(Tick, Offset, E)> {
    let mut read = Vec::new();
    while let Some(block) = cursor.next().unwrap() {
        read.extend(block.range().map(|row| {
            let (tick, offset) = block.place(row);
            (tick, offset, E::into_owned(block.columns().get(row)))
        }));
    }
    read
}

/// Ten orders of each version, each in its own run of its own program.
fn three_programs(options: &LogOptions) -> (SimDisk, Vec<Order>) {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let log = open::<OrderV1>(&disk, &clock, options.clone()).unwrap();
    for number in 0..10 {
        clock.pass(1);
        log.append(vec![v1(number)]).unwrap();
    }
    log.close().unwrap();
    let log = open::<OrderV2>(&disk, &clock, options.clone()).unwrap();
    for number in 10..20 {
        clock.pass(1);
        log.append(vec![v2(number)]).unwrap();
    }
    drop(log);
    let disk = disk.after_kill();
    let log = open::<Order>(&disk, &clock, options.clone()).unwrap();
    for number in 20..30 {
        clock.pass(1);
        log.append(vec![v3(number)]).unwrap();
    }
    log.close().unwrap();
    let due = (0..10).map(|number| Order::from(OrderV2::from(v1(number)))).chain((10..20).map(|number| v2(number).into()));
    (disk, due.chain((20..30).map(v3)).collect())
}

#[test]
fn events_of_two_earlier_types_are_read_as_the_newest_with_offset_and_tick() {
    for options in [inline(), inline_small(), LogOptions { segment_bytes_max: 1, ..inline() }] {
        let (disk, due) = three_programs(&options);
        let check = |read: Vec<(Tick, Offset, Order)>| {
            assert_eq!(read.iter().map(|(.., order)| order.clone()).collect::<Vec<_>>(), due);
            assert!(read.iter().zip(0..).all(|((_, offset, _), number)| offset.0 == number));
            assert!(read.windows(2).all(|pair| pair[0].0 <= pair[1].0));
        };
        check(read(LogReader::<Order>::open(&disk, dir()).unwrap().cursor(Tick::ZERO)));
        let log = open::<Order>(&disk, &SimClock::at(0), options).unwrap();
        check(read(log.cursor(Tick::ZERO)));
        // From the midst, more than once: converted blocks are not kept.
        let all = read(log.cursor(Tick::ZERO));
        for (tick, ..) in &all {
            assert_eq!(read(log.cursor(*tick)), all.iter().filter(|(later, ..)| later >= tick).cloned().collect::<Vec<_>>());
        }
        log.close().unwrap();
        assert!(verify(&disk, dir()).unwrap().is_whole());
        let info = info(&disk, dir()).unwrap();
        assert_eq!((info.event.version, info.earlier.iter().map(|event| event.version).collect::<Vec<_>>()), (3, vec![1, 2]));
    }
}

#[test]
fn a_program_that_skips_a_version_reads_what_the_oldest_wrote() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let log = open::<OrderV1>(&disk, &clock, inline()).unwrap();
    log.append(vec![v1(1)]).unwrap();
    drop(log);
    let disk = disk.after_kill();
    let log = open::<Order>(&disk, &clock, inline()).unwrap();
    log.append(vec![v3(2)]).unwrap();
    let orders: Vec<Order> = read(log.cursor(Tick::ZERO)).into_iter().map(|(.., order)| order).collect();
    assert_eq!(orders, [Order::from(OrderV2::from(v1(1))), v3(2)]);
}

#[test]
fn an_earlier_program_is_refused_and_told_why_and_nothing_is_changed() {
    let (disk, _) = three_programs(&inline());
    let before = disk.files();
    let refused = |error: LogError| {
        assert!(matches!(error, LogError::EarlierProgram { .. }), "{error}");
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    let text = refused(open::<OrderV1>(&disk, &SimClock::at(0), inline()).err().expect("refused"));
    assert!(
        text.starts_with("log /place/log holds order v3 (id: String, ") && text.contains("this program reads and writes order v1"),
        "{text}"
    );
    refused(open::<OrderV2>(&disk, &SimClock::at(0), inline()).err().expect("refused"));
    refused(LogReader::<OrderV1>::open(&disk, dir()).err().expect("refused"));
    // The lock file is the only one that a refusal may write.
    assert_eq!(disk.files(), before);
}

/// The same name and version as [`OrderV2`], but it does not say how it is made from the first.
#[derive(Clone, Debug, Columnar, Serialize, Deserialize)]
struct Forgetful {
    number: u64,
}

impl Event for Forgetful {
    const NAME: &'static str = "order";
    const VERSION: u32 = 2;
    const FIELDS: &'static [&'static str] = &["number: u64"];
}

#[test]
fn a_type_that_does_not_know_the_earlier_one_is_refused_at_the_start() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let log = open::<OrderV1>(&disk, &clock, inline()).unwrap();
    log.append(vec![v1(1)]).unwrap();
    log.close().unwrap();
    let before = disk.files();
    let error = open::<Forgetful>(&disk, &clock, inline()).err().expect("refused");
    let message = "log /place/log holds order v1 (number: u64, item: String), this program reads order v2 (number: u64)";
    assert!(matches!(error, LogError::WrongEvent { .. }) && error.to_string().starts_with(message), "{error}");
    assert_eq!(disk.files(), before);
}

/// Converts all but one event.
#[derive(Clone, Debug, Columnar, Serialize, Deserialize)]
struct Picky {
    number: u64,
}

impl From<OrderV1> for Picky {
    fn from(old: OrderV1) -> Self {
        assert_ne!(old.number, 5, "five is odd");
        Picky { number: old.number }
    }
}

impl Event for Picky {
    const NAME: &'static str = "order";
    const VERSION: u32 = 9;
    const FIELDS: &'static [&'static str] = &["number: u64"];
    fn earlier() -> Earlier<Self> {
        Earlier::of::<OrderV1>()
    }
}

#[test]
fn a_conversion_that_panics_is_an_error_that_names_the_block() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let options = LogOptions { segment_bytes_max: 1, ..inline() };
    let log = open::<OrderV1>(&disk, &clock, options.clone()).unwrap();
    (0..8).for_each(|number| assert_eq!(log.append(vec![v1(number)]).unwrap().count(), 1));
    log.close().unwrap();
    let log = open::<OrderV2>(&disk, &clock, options.clone()).unwrap();
    log.close().unwrap();
    let disk = disk.after_kill();
    // All is sealed; the log's own type is `OrderV2`, so a program of `Picky` has to know it.
    assert!(open::<Picky>(&disk, &clock, options.clone()).is_err());

    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let log = open::<OrderV1>(&disk, &clock, options.clone()).unwrap();
    (0..8).for_each(|number| assert_eq!(log.append(vec![v1(number)]).unwrap().count(), 1));
    log.close().unwrap();
    drop(open::<OrderV1>(&disk, &clock, options.clone()).unwrap());
    let disk = disk.after_kill();
    let log = open::<Picky>(&disk, &clock, options).unwrap();
    let mut cursor = log.cursor(Tick::ZERO);
    (0..5).for_each(|number| assert_eq!(*cursor.next().unwrap().unwrap().columns().get(0).number, number));
    match cursor.next() {
        Err(LogError::Damaged(damage)) => assert!(damage.what.contains("from order v1 to v9 panicked"), "{}", damage.what),
        other => panic!("{other:?}"),
    }
}

#[test]
fn redacting_and_merging_convert_what_they_rewrite() {
    let (disk, due) = three_programs(&inline_small());
    let conditions = vec!["gift = false".parse().unwrap(), "pieces > 1".parse().unwrap()];
    let request = RedactRequest { conditions, why: "test".to_string(), options: inline_small() };
    let report = redact::<Order>(Arc::new(disk.clone()), SimClock::at(9) as Arc<dyn Clock>, dir(), &request).unwrap();
    assert_eq!(report.matching_total(), 10);
    let left: Vec<Order> = due.into_iter().filter(|order| order.gift || order.pieces == 1).collect();
    let log = open::<Order>(&disk, &SimClock::at(0), inline()).unwrap();
    assert_eq!(read(log.cursor(Tick::ZERO)).into_iter().map(|(.., order)| order).collect::<Vec<_>>(), left);
    log.close().unwrap();
    assert!(partition_files(&disk, ".seg").len() < 3, "merged");
}

#[test]
fn a_power_cut_while_the_new_type_is_adopted_loses_nothing() {
    let (image, clock) = (SimDisk::new(), SimClock::at(1_000));
    image.create_dir(dir()).unwrap();
    let log = open::<OrderV1>(&image, &clock, inline_small()).unwrap();
    (0..12).for_each(|number| assert_eq!(log.append(vec![v1(number)]).unwrap().count(), 1));
    drop(log);
    let image = image.after_kill();
    let seeds: Vec<u64> = Rng::seed_from_env().map_or_else(|| (0..6).collect(), |seed| vec![seed]);
    let (mut adopted, mut not_yet) = (0, 0);
    for step in 1.. {
        let disk = image.after_kill();
        disk.cut_power_at(step);
        let mut acked = 0;
        if let Ok(log) = open::<OrderV2>(&disk, &clock, inline_small()) {
            acked = (12..16).take_while(|number| log.append(vec![v2(*number)]).is_ok()).count();
        }
        if !disk.is_off() {
            break;
        }
        for seed in &seeds {
            let disk = disk.after_power_cut(*seed);
            // The old program may go on only as long as the new one wrote nothing.
            match open::<OrderV1>(&disk.after_kill(), &clock, inline_small()) {
                Ok(log) => {
                    not_yet += 1;
                    assert_eq!((acked, log.events_total()), (0, 12));
                }
                Err(LogError::EarlierProgram { .. }) => adopted += 1,
                Err(error) => panic!("power cut at step {step}, LAMBDAFLOW_SEED={seed}: {error}"),
            }
            let log = open::<OrderV2>(&disk, &clock, inline_small()).unwrap();
            let orders: Vec<OrderV2> = read(log.cursor(Tick::ZERO)).into_iter().map(|(.., order)| order).collect();
            let due: Vec<OrderV2> = (0..12).map(|number| v1(number).into()).chain((12..16).map(v2)).collect();
            assert!(due.starts_with(&orders) && orders.len() >= 12 + acked, "power cut at step {step}, LAMBDAFLOW_SEED={seed}: {orders:?}");
        }
    }
    assert!(adopted > 10 && not_yet > 10 || Rng::seed_from_env().is_some(), "{adopted} adopted, {not_yet} not yet");
}

#[test]
fn a_rewritten_log_has_one_type_and_producers_go_on() {
    let (disk, clock) = (SimDisk::new(), SimClock::at(1_000));
    let log = open::<OrderV1>(&disk, &clock, inline()).unwrap();
    log.append_as("p", 0, vec![v1(0)]).unwrap();
    log.close().unwrap();
    let log = open::<OrderV2>(&disk, &clock, inline()).unwrap();
    log.append_as("p", 1, vec![v2(1)]).unwrap();
    let due = read(log.cursor(Tick::ZERO));
    log.close().unwrap();
    let target = Path::new("/place/copy");
    for salvaged in [false, true] {
        let disk = disk.after_kill();
        if salvaged {
            assert_eq!(salvage::<OrderV2>(&disk, dir(), target, &inline()).unwrap().lost, []);
        } else {
            rewrite::<OrderV2>(&disk, dir(), target, &inline()).unwrap();
        }
        let summary = info(&disk, target).unwrap();
        assert_eq!((summary.event.version, summary.earlier), (2, vec![]));
        let log = Log::<OrderV2>::open(Arc::new(disk), Arc::clone(&clock) as Arc<dyn Clock>, target, inline()).unwrap();
        assert_eq!(read(log.cursor(Tick::ZERO)), due);
        // Of the earlier type, only the number of events can be compared; of this one, the events.
        assert_eq!(log.append_as("p", 0, vec![v1(0).into()]).unwrap().first_offset(), Offset(0));
        assert!(log.append_as("p", 0, vec![v2(0), v2(0)]).is_err());
        assert_eq!(log.append_as("p", 1, vec![v2(1)]).unwrap().first_offset(), Offset(1));
        assert!(log.append_as("p", 1, vec![v2(3)]).is_err());
        assert_eq!(log.append_as("p", 2, vec![v2(2)]).unwrap().first_offset(), Offset(2));
    }
}

/// The same rows as [`Order`], of a program that knows no earlier type.
#[derive(Clone, Debug, PartialEq, Columnar, Serialize, Deserialize)]
struct Alone {
    id: String,
    item: String,
    pieces: u32,
    gift: bool,
}

impl Event for Alone {
    const NAME: &'static str = "order";
    const VERSION: u32 = 3;
    const FIELDS: &'static [&'static str] = &["id: String", "item: String", "pieces: u32", "gift: bool"];
}

/// Without `log.json` the program's type was taken to be number 0, the oldest: old events were read as new ones, with other
/// meanings, and the new ones were lost. Now the highest number is the program's, and those below it its earlier types, or lost.
#[test]
fn without_its_log_json_an_evolved_log_is_salvaged_by_the_numbers_of_its_types() {
    let (disk, due) = three_programs(&LogOptions { segment_bytes_max: 1, ..inline() });
    disk.plant(&dir().join("log.json"), b"rubbish");
    let (known, alone) = (Path::new("/place/known"), Path::new("/place/alone"));
    let report = salvage::<Order>(&disk, dir(), known, &inline()).unwrap();
    assert!(report.is_whole() && report.notes[0].contains("and of the 2 before it"), "{report:?}");
    let copy = LogReader::<Order>::open(&disk, known).unwrap();
    assert_eq!(read(copy.cursor(Tick::ZERO)).into_iter().map(|(_, _, order)| order).collect::<Vec<_>>(), due);
    let report = salvage::<Alone>(&disk, dir(), alone, &inline()).unwrap();
    assert!(report.notes[0].contains("cannot be told apart"), "{report:?}");
    // The last of the earlier ones was sealed, and so converted, by the newest program.
    let lost = &report.lost;
    assert!(lost[0].from == Offset(0) && lost.last().unwrap().to == Offset(19) && lost[0].why.contains("event type number"), "{lost:?}");
    assert_eq!(lost.iter().map(|lost| lost.to.0 - lost.from.0).sum::<u64>(), 19, "{lost:?}");
    let copy = LogReader::<Alone>::open(&disk, alone).unwrap();
    let newest = due[19..].iter().map(|order| (order.id.clone(), order.pieces));
    assert_eq!(
        read(copy.cursor(Tick::ZERO)).into_iter().map(|(_, _, order)| (order.id, order.pieces)).collect::<Vec<_>>(),
        newest.collect::<Vec<_>>()
    );
}
