//! Internal consistency: whatever a reader is shown, money has only moved.
//!
//! While transfers are appended, readers ask for views that were joined from others. Every answer is of one tick, so totals
//! are zero in each, and views that are read at one tick fit together, while generations change beneath the readers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lambdaflow::layers::Cycle;
use lambdaflow::log::{Log, LogOptions, SystemClock, Tick};
use lambdaflow::runs::{AnswerRow, Query, ReadError};
use lambdaflow::runtime::{Server, ServerOptions};
use lambdaflow::serving::{Answer, Read, ServeError, Serving};
use lambdaflow::storage::RealDisk;
use lambdaflow_dataflows::bank::{Generator, Transfer, program};

use super::harness::{Dir, PATIENCE};

const SECONDS: f64 = 4.0;
/// Transfers appended at once.
const APPENDED: usize = 20;
/// Time between two appends: 2,000 transfers a second, each of which changes ten rows or so.
const APPEND_PAUSE: Duration = Duration::from_millis(10);
const BATCH_INTERVAL: Duration = Duration::from_millis(400);
const READERS: usize = 2;
/// Handovers in a run; it goes on until there were so many.
const HANDOVERS_MIN: u64 = 4;
const ANSWERS_MIN: usize = 50;

/// What a reader found in order.
#[derive(Default)]
struct Checked {
    answers: usize,
    bases: BTreeSet<Tick>,
    /// Rounds that were not finished, since a handover made their tick too old.
    too_old: usize,
    /// Latest tick read.
    last: Option<Tick>,
    /// Days, and the balance of the busiest account, to see that the answers were not all of nothing.
    days: usize,
    largest: i64,
    /// Ticks with the credits of all accounts then.
    credits: BTreeMap<Tick, i64>,
}

impl Checked {
    /// An answer, or none if a handover has made the tick too old to be read.
    fn scan(&mut self, serving: &Serving, read: Read) -> Option<Answer> {
        let answer = match serving.read(&read) {
            Ok(answer) => answer,
            Err(ServeError::Read(ReadError::TooOld { .. })) if read.as_of.is_some() => {
                self.too_old += 1;
                return None;
            }
            Err(error) => panic!("{}: {error}", read.view),
        };
        assert!(self.last.is_none_or(|last| last <= answer.as_of), "{} went back", read.view);
        self.answers += 1;
        self.bases.insert(answer.base);
        self.last = Some(answer.as_of);
        Some(answer)
    }

    /// One round: the total as it comes, then all other views at its tick.
    fn round(&mut self, serving: &Serving) -> Option<()> {
        let whole = |view: &str| Read { timeout: PATIENCE, ..Read::latest(view, Query::Scan { limit: usize::MAX }) };
        // Each round is of a later tick than the last.
        let at_least = self.last.map(|last| Tick(last.0 + 1));
        let total = self.scan(serving, Read { at_least, ..whole("total") })?;
        let at = total.as_of;
        let zeros = |rows: &[AnswerRow]| rows.iter().all(|row| row.value == 0 && row.count == 1);
        assert!(total.rows.len() <= 1 && zeros(&total.rows), "the total at {at} is {:?}, on base {}", total.rows, total.base);

        let mut then = |view: &str| {
            let answer = self.scan(serving, Read { as_of: Some(at), ..whole(view) })?;
            assert_eq!(answer.as_of, at, "{view}");
            Some(answer.rows)
        };
        let daily_total = then("daily_total")?;
        assert!(zeros(&daily_total), "daily totals at {at}: {daily_total:?}");
        let (balance, credits, debits) = (amounts(&then("balance")?), amounts(&then("credits")?), amounts(&then("debits")?));
        assert_eq!(balance.values().sum::<i64>(), 0, "balances at {at}, on base {}", total.base);
        assert_eq!(credits.values().sum::<i64>(), debits.values().sum::<i64>(), "credits and debits at {at}");
        let of = |amounts: &BTreeMap<String, i64>, account: &String| amounts.get(account).copied().unwrap_or(0);
        for (account, amount) in &balance {
            assert_eq!(*amount, of(&credits, account) - of(&debits, account), "balance of {account} at {at}");
        }
        assert!(credits.keys().chain(debits.keys()).all(|account| balance.contains_key(account)), "an account has no balance at {at}");
        assert_eq!(total.rows.is_empty(), balance.is_empty());

        let mut by_day: BTreeMap<u64, i64> = BTreeMap::new();
        let mut by_account: BTreeMap<String, i64> = BTreeMap::new();
        for row in then("daily")? {
            let amount = row.value.as_i64().expect("cents");
            *by_day.entry(row.key[0].as_u64().expect("a day")).or_default() += amount;
            *by_account.entry(row.key[1].to_string()).or_default() += amount;
        }
        assert_eq!(by_account, balance, "days of an account add up to its balance at {at}");
        assert!(by_day.len() == daily_total.len() && by_day.values().all(|sum| *sum == 0), "days at {at}: {by_day:?}");

        self.days = self.days.max(by_day.len());
        self.largest = self.largest.max(balance.values().copied().max().unwrap_or(0));
        self.credits.insert(at, credits.values().sum());
        Some(())
    }
}

/// Rows by account.
fn amounts(rows: &[AnswerRow]) -> BTreeMap<String, i64> {
    let amounts: BTreeMap<String, i64> = rows.iter().map(|row| (row.key.to_string(), row.value.as_i64().expect("cents"))).collect();
    assert_eq!(amounts.len(), rows.len(), "an account has several rows");
    amounts
}

/// Appends while it is wanted, and returns the tick of each append with what was moved by it.
fn append(log: &Log<Transfer>, wanted: impl Fn() -> bool) -> Vec<(Tick, i64)> {
    let mut transfers = Generator::new(11);
    let mut moved = Vec::new();
    while wanted() {
        let some: Vec<Transfer> = transfers.by_ref().take(APPENDED).collect();
        let amount = some.iter().map(|transfer| transfer.amount).sum();
        moved.push((log.append(some).expect("the log takes it").tick(), amount));
        // The pace of the load, not a wait for anything.
        std::thread::sleep(APPEND_PAUSE);
    }
    moved
}

#[test]
fn every_answer_adds_up_to_zero_across_handovers_and_rebuilds() {
    let dir = Dir::new();
    let log = Log::open(Arc::new(RealDisk), Arc::new(SystemClock), &dir.path("log"), LogOptions::default()).expect("a log");
    let options = ServerOptions {
        workers: 2,
        tick: Duration::from_millis(10),
        batch_interval: Some(BATCH_INTERVAL),
        history: Duration::from_secs(10),
        ..ServerOptions::default()
    };
    let server = Server::start(program(), log.clone(), options).expect("the server starts");
    let service = server.service();

    let until = Instant::now() + Duration::from_secs_f64(SECONDS);
    let (stop, answers) = (AtomicBool::new(false), std::sync::atomic::AtomicUsize::new(0));
    let wanted = || {
        let now = Instant::now();
        let enough = service.status().handovers >= Some(HANDOVERS_MIN) && answers.load(Ordering::Relaxed) >= ANSWERS_MIN;
        now < until || (now < until + PATIENCE && !enough)
    };
    let (moved, checked, rebuilds) = std::thread::scope(|scope| {
        let appender = scope.spawn(|| append(&log, wanted));
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let serving = server.serving();
                let (stop, answers) = (&stop, &answers);
                scope.spawn(move || {
                    let mut checked = Checked::default();
                    while !stop.load(Ordering::Acquire) {
                        let before = checked.answers;
                        checked.round(&serving);
                        answers.fetch_add(checked.answers - before, Ordering::Relaxed);
                    }
                    checked
                })
            })
            .collect();
        // Rebuilt from the first transfer, again and again, between the cycles that the schedule makes.
        let rebuilder = scope.spawn(|| {
            let mut rebuilds = 0;
            while !stop.load(Ordering::Acquire) {
                let rebuilt = service.cycle(Cycle::Full).expect("the rebuild is switched to");
                assert_eq!(rebuilt.agreed, Some(true), "the layers differ: {:?}", rebuilt.audits);
                rebuilds += 1;
                // Two cycles of the schedule come between.
                std::thread::sleep(2 * BATCH_INTERVAL);
            }
            rebuilds
        });
        let moved = appender.join().expect("the appender ends");
        stop.store(true, Ordering::Release);
        let checked: Vec<Checked> = readers.into_iter().map(|reader| reader.join().expect("a reader ends")).collect();
        (moved, checked, rebuilder.join().expect("the rebuilder ends"))
    });

    let mut through: BTreeMap<Tick, i64> = BTreeMap::new();
    let mut total = 0;
    for (tick, amount) in &moved {
        total += amount;
        through.insert(*tick, total);
    }
    for (at, credits) in checked.iter().flat_map(|reader| &reader.credits) {
        let appended = through.range(..=*at).next_back().map_or(0, |(_, total)| *total);
        assert_eq!(*credits, appended, "credits at {at} are what was moved until then");
    }
    let answers: usize = checked.iter().map(|reader| reader.answers).sum();
    let rounds: usize = checked.iter().map(|reader| reader.credits.len()).sum();
    let too_old: usize = checked.iter().map(|reader| reader.too_old).sum();
    let bases: BTreeSet<Tick> = checked.iter().flat_map(|reader| reader.bases.iter().copied()).collect();
    let status = service.status();
    let handovers = status.handovers.expect("process 0 knows");
    println!(
        "{} transfers, {answers} answers checked, {rounds} ticks in all views, {too_old} not to their end, {} handovers, {rebuilds} rebuilds, {} generations seen",
        moved.len() * APPENDED,
        handovers,
        bases.len(),
    );
    assert_eq!(status.last_error, None, "a cycle failed");
    assert!(handovers >= HANDOVERS_MIN && rebuilds >= 1, "{handovers} handovers, {rebuilds} rebuilds");
    assert!(answers >= ANSWERS_MIN && bases.len() >= 3, "{answers} answers of {} generations", bases.len());
    assert!(rounds > too_old, "of {rounds} rounds {too_old} more were not finished");
    let (days, largest) = (checked.iter().map(|reader| reader.days).max(), checked.iter().map(|reader| reader.largest).max());
    assert!(days >= Some(4) && largest > Some(0), "{days:?} days, largest balance {largest:?}");
    drop(log);
    server.close().expect("the log closes");
}
