//! Internal consistency: whichever process is asked, and whenever, money has only moved.
//!
//! Transfers are appended at all processes while readers at all processes ask for views that were joined from others. Every
//! answer is of one tick: totals are zero in each, and it holds the transfers up to its tick and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lambdaflow_dataflows::bank::{Generator, Transfer, reference};
use serde_json::Value;

use super::cluster::*;
use super::harness::*;

const SHAPES: [(usize, usize); 6] = [(3, 2), (1, 1), (2, 2), (3, 1), (1, 2), (2, 1)];
/// Least time under load in each shape.
const SECONDS: f64 = 1.0;
/// Transfers appended at once.
const APPENDED: usize = 20;
/// Time between two appends of a writer.
const APPEND_PAUSE: Duration = Duration::from_millis(20);
/// Handovers in each shape; it goes on until there were so many.
const HANDOVERS_MIN: u64 = 2;
/// Ticks that each reader has checked, at the least.
const ROUNDS_MIN: usize = 3;
/// Longest that a read waits for its tick: not as long as a test waits for an answer.
const TIMEOUT_MS: &str = "20000";

/// An append that was acknowledged.
#[derive(Clone, Debug)]
pub struct Moved {
    pub token: u64,
    pub transfers: Vec<Transfer>,
}

/// A server that does not answer, or not now.
#[derive(Debug)]
pub struct Away;

/// The body of an answer. One that is no answer is [`Away`]; anything that means a fault is a panic.
pub fn answered(reply: Result<Reply, ureq::Error>) -> Result<Reply, Away> {
    match reply {
        Err(_) => Err(Away),
        // A process is going down, is only starting, or waits for another.
        Ok(Reply { status: 503 | 504, .. }) => Err(Away),
        Ok(reply) => Ok(reply),
    }
}

/// Appends under numbers of its own.
pub struct Writer {
    producer: String,
    next: u64,
    transfers: Generator,
    /// Taken from the generator and not acknowledged.
    open: Option<Vec<Transfer>>,
    pub moved: Vec<Moved>,
    /// Appends that had to be tried again.
    pub repeated: usize,
}

impl Writer {
    pub fn new(producer: String, seed: u64) -> Self {
        Self { producer, next: 0, transfers: Generator::new(seed), open: None, moved: Vec::new(), repeated: 0 }
    }

    pub fn is_done(&self) -> bool {
        self.open.is_none()
    }

    /// Makes an append, or the last one again if nobody knows what became of it.
    pub fn append(&mut self, client: &Client) -> Result<(), Away> {
        self.repeated += usize::from(self.open.is_some());
        let transfers = self.open.get_or_insert_with(|| self.transfers.by_ref().take(APPENDED).collect()).clone();
        let lines: String = transfers.iter().map(|transfer| serde_json::to_string(transfer).expect("a transfer") + "\n").collect();
        let path = format!("/v1/events?producer={}&sequence={}", self.producer, self.next);
        let answer = answered(client.try_post(&path, JSON_LINES, lines))?.ok();
        assert_eq!(answer["accepted"], transfers.len(), "{answer}");
        self.moved.push(Moved { token: answer["token"].as_u64().expect("a token"), transfers });
        (self.next, self.open) = (self.next + 1, None);
        Ok(())
    }
}

/// What a reader of one process found in order.
#[derive(Default)]
pub struct Reader {
    pub rounds: usize,
    /// Rounds that were not finished, since a handover made their tick too old.
    pub too_old: usize,
    pub bases: BTreeSet<u64>,
    /// Latest tick read, and latest frontier seen.
    last: (Option<u64>, u64),
    /// Ticks with the credits of all accounts then.
    pub credits: BTreeMap<u64, i64>,
}

/// An answer's tick and rows.
struct Answer {
    at: u64,
    base: u64,
    rows: Vec<Value>,
}

impl Reader {
    fn scan(&mut self, client: &Client, view: &str, pair: (&str, String)) -> Result<Option<Answer>, Away> {
        let pairs = [(pair.0, pair.1.as_str()), ("timeout_ms", TIMEOUT_MS)];
        let reply = answered(client.try_get(&format!("/v1/views/{view}/scan"), &pairs))?;
        if reply.status == 410 && pair.0 == "as_of" {
            self.too_old += 1;
            return Ok(None);
        }
        let body = reply.ok();
        let tick = |name: &str| body[name].as_u64().unwrap_or_else(|| panic!("no {name} in {body}"));
        let (at, base, frontier) = (tick("as_of"), tick("base"), tick("frontier"));
        assert!(self.last.0 <= Some(at), "{view} went back from {:?} to {at}", self.last.0);
        assert!(self.last.1 <= frontier, "the frontier went back from {} to {frontier}", self.last.1);
        assert!(at < frontier && base <= frontier, "{view}: {at}, {base}, {frontier}");
        self.last = (Some(at), frontier);
        self.bases.insert(base);
        Ok(Some(Answer { at, base, rows: body["rows"].as_array().expect("rows").clone() }))
    }

    /// The total as it comes, later than the last, then all other views at its tick.
    pub fn round(&mut self, client: &Client) -> Result<(), Away> {
        let at_least = self.last.0.map_or(0, |last| last + 1);
        let total = self.scan(client, "total", ("at_least", at_least.to_string()))?.expect("the latest tick is never too old");
        let (at, base) = (total.at, total.base);
        let zeros = |rows: &[Value]| rows.iter().all(|row| row["value"] == 0 && row["count"] == 1);
        assert!(total.rows.len() <= 1 && zeros(&total.rows), "the total at {at} is {:?}, on base {base}", total.rows);

        let mut then = BTreeMap::new();
        for view in ["daily_total", "balance", "credits", "debits", "daily"] {
            let Some(answer) = self.scan(client, view, ("as_of", at.to_string()))? else { return Ok(()) };
            assert_eq!(answer.at, at, "{view}");
            then.insert(view, answer.rows);
        }
        assert!(zeros(&then["daily_total"]), "daily totals at {at}: {:?}", then["daily_total"]);
        let (balance, credits, debits) = (amounts(&then["balance"]), amounts(&then["credits"]), amounts(&then["debits"]));
        assert_eq!(balance.values().sum::<i64>(), 0, "balances at {at}, on base {base}");
        let of = |amounts: &BTreeMap<String, i64>, account: &String| amounts.get(account).copied().unwrap_or(0);
        for (account, amount) in &balance {
            assert_eq!(*amount, of(&credits, account) - of(&debits, account), "balance of {account} at {at}, on base {base}");
        }
        assert!(credits.keys().chain(debits.keys()).all(|account| balance.contains_key(account)), "an account has no balance at {at}");
        assert_eq!(total.rows.is_empty(), balance.is_empty());
        let mut by_account: BTreeMap<String, i64> = BTreeMap::new();
        for row in &then["daily"] {
            *by_account.entry(row["key"][1].to_string()).or_default() += row["value"].as_i64().expect("cents");
        }
        assert_eq!(by_account, balance, "days of an account add up to its balance at {at}, on base {base}");
        self.credits.insert(at, credits.values().sum());
        self.rounds += 1;
        Ok(())
    }
}

/// Rows by account.
fn amounts(rows: &[Value]) -> BTreeMap<String, i64> {
    let amounts: BTreeMap<String, i64> = rows.iter().map(|row| (row["key"].to_string(), row["value"].as_i64().expect("cents"))).collect();
    assert_eq!(amounts.len(), rows.len(), "an account has several rows");
    amounts
}

/// Asserts that what readers saw is what was moved up to each tick, and no more.
#[track_caller]
pub fn check_prefixes<'a>(moved: impl IntoIterator<Item = &'a Moved>, readers: &[Reader]) {
    let mut at: BTreeMap<u64, i64> = BTreeMap::new();
    for moved in moved {
        *at.entry(moved.token).or_default() += moved.transfers.iter().map(|transfer| transfer.amount).sum::<i64>();
    }
    let mut total = 0;
    let through: BTreeMap<u64, i64> = at
        .into_iter()
        .map(|(tick, amount)| {
            (tick, {
                total += amount;
                total
            })
        })
        .collect();
    for (process, reader) in readers.iter().enumerate() {
        for (at, credits) in &reader.credits {
            let appended = through.range(..=*at).next_back().map_or(0, |(_, total)| *total);
            assert_eq!(*credits, appended, "credits at {at}, as process {process} answered, are what was moved until then");
        }
    }
}

/// Asserts that a process answers as plain loops over the transfers.
#[track_caller]
pub fn check_all<'a>(client: &Client, moved: impl IntoIterator<Item = &'a Moved> + Clone, context: &str) {
    let token = moved.clone().into_iter().map(|moved| moved.token).max().unwrap_or(0).to_string();
    let answers = reference::answers(moved.into_iter().flat_map(|moved| &moved.transfers));
    for (view, rows) in answers {
        let answer = client.get(&format!("/v1/views/{view}/scan"), &[("at_least", &token), ("timeout_ms", TIMEOUT_MS)]).ok();
        let got = answer["rows"].as_array().expect("rows");
        let differs = rows.iter().zip(got).find(|(want, got)| want != got);
        assert_eq!(differs, None, "{context}: {view}");
        assert_eq!(rows.len(), got.len(), "{context}: rows of {view}");
    }
}

#[test]
fn every_answer_of_every_process_adds_up_to_zero() {
    let seed = seed();
    let dir = Dir::new();
    let mut moved: Vec<Moved> = Vec::new();
    for (number, shape) in SHAPES.into_iter().enumerate() {
        let cluster = Plan::new(&dir, "bank", shape).with(&["--history", "10s"]).start();
        let clients = cluster.clients();
        let (stop, enough) = (AtomicBool::new(false), AtomicUsize::new(0));
        let before = cluster.handovers();
        let until = Instant::now() + Duration::from_secs_f64(SECONDS);
        let (writers, readers) = std::thread::scope(|scope| {
            let (stop, enough) = (&stop, &enough);
            let writers = clients.iter().enumerate().map(|(process, client)| {
                let mut writer = Writer::new(format!("teller-{number}-{process}"), seed.wrapping_add((10 * number + process) as u64));
                scope.spawn(move || {
                    while !stop.load(Ordering::Acquire) {
                        writer.append(client).expect("nothing is in the way");
                        // The pace of the load, not a wait for anything.
                        std::thread::sleep(APPEND_PAUSE);
                    }
                    writer.moved
                })
            });
            let writers: Vec<_> = writers.collect();
            let readers = clients.iter().map(|client| {
                scope.spawn(move || {
                    let mut reader = Reader::default();
                    while !stop.load(Ordering::Acquire) {
                        reader.round(client).expect("nothing is in the way");
                        if reader.rounds == ROUNDS_MIN {
                            enough.fetch_add(1, Ordering::Release);
                        }
                    }
                    reader
                })
            });
            let readers: Vec<_> = readers.collect();
            let rebuilt = clients[clients.len() - 1].post("/v1/rebuild", JSON_LINES, "").ok();
            assert_eq!(rebuilt["agreed"], true, "{shape:?}: {rebuilt}");
            eventually("enough was read and handed over", || {
                let handovers = cluster.handovers() - before;
                let all = enough.load(Ordering::Acquire) >= clients.len();
                (all && handovers >= HANDOVERS_MIN && Instant::now() >= until).then_some(())
            });
            stop.store(true, Ordering::Release);
            let writers: Vec<Moved> = writers.into_iter().flat_map(|writer| writer.join().expect("a writer ends")).collect();
            let readers: Vec<Reader> = readers.into_iter().map(|reader| reader.join().expect("a reader ends")).collect();
            (writers, readers)
        });
        let appended = writers.len();
        moved.extend(writers);
        check_prefixes(&moved, &readers);
        for (process, client) in clients.iter().enumerate() {
            check_all(client, &moved, &format!("{shape:?}, process {process}"));
        }
        let (rounds, too_old) = readers.iter().fold((0, 0), |(r, t), reader| (r + reader.rounds, t + reader.too_old));
        let bases: BTreeSet<u64> = readers.iter().flat_map(|reader| reader.bases.clone()).collect();
        println!(
            "{shape:?}: {appended} appends, {rounds} ticks in all views, {too_old} not to their end, {} handovers, {} generations seen",
            cluster.handovers() - before,
            bases.len()
        );
        assert_eq!(cluster.status()["last_error"], Value::Null, "{shape:?}");
        cluster.stop();
    }
    lambdaflow(["audit", "bank", "--log", &dir.at("log")]).exits(0);
}
