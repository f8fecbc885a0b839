//! Facts, random logs of them, and the comparison of a dataflow with the law and with a plain reference.

use std::collections::BTreeMap;

use columnar::Columnar;
use lambdaflow::log::{Event, Tick};
use lambdaflow::operators::{ERRORS, Events, Flow, Views};
use lambdaflow::runs::AnswerRow;
use lambdaflow::testing::{Law, Random, check_layers_by_tick};
use serde::{Deserialize, Serialize};

/// A row that appears or disappears `times` times.
#[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
pub struct Fact {
    pub group: String,
    pub user: u64,
    pub amount: i64,
    pub times: i64,
}

impl Event for Fact {
    const NAME: &'static str = "tests.Fact";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] = &["group: String", "user: u64", "amount: i64", "times: i64"];
}

/// `(group, (user, amount))`.
pub type Row = (String, (u64, i64));

/// Rows with their multiplicities, none zero.
pub type Multiset<D> = BTreeMap<D, isize>;

/// What a log of facts does.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Facts are retracted, but only after they were inserted, and no more often.
    Matched,
    /// Facts are also retracted before they are inserted, or without being inserted at all.
    Unmatched,
}

/// Random logs that each test checks.
const ROUNDS: u64 = 4;

/// Number of facts in a random log.
const FACTS: std::ops::Range<u64> = 30..130;

/// A random log. The fewer groups, users and amounts it has, the more often rows meet, vanish and return.
pub fn facts(kind: Kind, seed: u64) -> Vec<(Tick, Fact)> {
    let mut random = Random::new(seed);
    let count = FACTS.start + random.below(FACTS.end - FACTS.start);
    let (groups, users, amounts) = (1 + random.below(6), 1 + random.below(6), 1 + random.below(6));
    let mut present: Multiset<Row> = Multiset::new();
    let mut log = Vec::new();
    let mut tick = 0;
    while (log.len() as u64) < count {
        if random.below(5) == 0 {
            tick += 1 + random.below(2);
        }
        let any = (group_name(random.below(groups)), (random.below(users), random.below(amounts) as i64 - 2));
        let made: Vec<(Row, isize)> = match (random.below(12), kind) {
            // A whole group goes at once.
            (0, _) => present.iter().filter(|(row, n)| row.0 == any.0 && **n > 0).map(|(row, n)| (row.clone(), -n)).collect(),
            (1..4, _) => {
                let there: Vec<_> = present.iter().filter(|(_, n)| **n > 0).collect();
                match there.get(random.below(there.len() as u64) as usize) {
                    Some((row, n)) => vec![((*row).clone(), -1 - random.below(**n as u64) as isize)],
                    None => vec![],
                }
            }
            (4..7, Kind::Unmatched) => vec![(any, -1 - random.below(3) as isize)],
            (7, _) => vec![(any, 2 + random.below(3) as isize)],
            _ => vec![(any, 1)],
        };
        for (row, times) in made {
            log.push((Tick(tick), fact(&row.0, row.1.0, row.1.1, times as i64)));
            add(&mut present, row, times);
        }
    }
    log
}

/// Names of differing length, some the beginning of another, not all ASCII.
fn group_name(index: u64) -> String {
    ["/", "/a", "/a/b", "/é", "", "/b"][index as usize].to_owned()
}

pub fn fact(group: &str, user: u64, amount: i64, times: i64) -> Fact {
    Fact { group: group.to_owned(), user, amount, times }
}

/// The facts as rows, with their multiplicities.
pub fn rows<'s>(facts: Events<'s, Fact>) -> Flow<'s, Row> {
    facts.explode(|fact| Some(((text(fact.group), (*fact.user, *fact.amount)), *fact.times as isize)))
}

/// A borrowed string, owned.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("strings in events are UTF-8")
}

/// The rows that facts leave.
pub fn rows_of(facts: &[Fact]) -> Multiset<Row> {
    multiset(facts.iter().map(|fact| ((fact.group.clone(), (fact.user, fact.amount)), fact.times as isize)))
}

pub fn multiset<D: Ord>(rows: impl IntoIterator<Item = (D, isize)>) -> Multiset<D> {
    let mut all = Multiset::new();
    rows.into_iter().for_each(|(row, n)| add(&mut all, row, n));
    all
}

pub fn add<D: Ord>(rows: &mut Multiset<D>, row: D, n: isize) {
    let sum = rows.remove(&row).unwrap_or(0) + n;
    if sum != 0 {
        rows.insert(row, sum);
    }
}

/// Rows by key, as a function that reduces them gets them.
pub fn by_key<K: Ord + Clone, V: Ord + Clone>(rows: &Multiset<(K, V)>) -> BTreeMap<K, Vec<(V, isize)>> {
    let mut groups: BTreeMap<K, Vec<(V, isize)>> = BTreeMap::new();
    for ((key, val), n) in rows {
        groups.entry(key.clone()).or_default().push((val.clone(), *n));
    }
    groups
}

/// All pairs of rows with equal keys.
pub fn pairs<K: Ord + Clone, V: Ord + Clone, W: Ord + Clone>(left: &Multiset<(K, V)>, right: &Multiset<(K, W)>) -> Multiset<(K, (V, W))> {
    let mut all = Multiset::new();
    for ((key, v), n) in left {
        for ((_, w), m) in right.iter().filter(|((other, _), _)| other == key) {
            add(&mut all, (key.clone(), (v.clone(), w.clone())), n * m);
        }
    }
    all
}

/// The `k` greatest rows of each group by `by`, then by row; each counts as often as it is there.
pub fn greatest<G: Ord + Clone, D: Ord + Clone, O: Ord>(rows: &Multiset<(G, D)>, k: usize, by: impl Fn(&D) -> O) -> Multiset<(G, D)> {
    let mut best = Multiset::new();
    for (group, rows) in by_key(rows) {
        let mut each: Vec<D> = rows.iter().flat_map(|(row, n)| vec![row.clone(); (*n).max(0) as usize]).collect();
        each.sort_by(|a, b| (by(b), b).cmp(&(by(a), a)));
        each.into_iter().take(k).for_each(|row| add(&mut best, (group.clone(), row), 1));
    }
    best
}

/// The answer to a scan of a view that holds these rows.
pub fn answer<K: Serialize + Ord, A: Serialize + Ord>(rows: Multiset<(K, A)>) -> Vec<AnswerRow> {
    let json = |value: serde_json::Result<serde_json::Value>| value.expect("test rows are representable");
    let rows = rows.into_iter();
    rows.map(|((key, a), count)| AnswerRow { key: json(serde_json::to_value(key)), value: json(serde_json::to_value(a)), count }).collect()
}

/// A view's name and what it holds after some facts.
pub type Expected<'a> = (&'a str, &'a dyn Fn(&[Fact]) -> Vec<AnswerRow>);

/// Checks a dataflow over random logs.
pub fn check(kind: Kind, dataflow: impl for<'s> Fn(Events<'s, Fact>, &mut Views) + Clone + Send + Sync + 'static, expected: &[Expected]) {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    for round in 0..ROUNDS {
        let seed = seed.wrapping_add(round);
        check_log(&facts(kind, seed), &Law { seed, ..Law::default() }, dataflow.clone(), expected);
    }
}

/// Checks a dataflow over one log.
pub fn check_log(
    log: &[(Tick, Fact)],
    law: &Law,
    dataflow: impl for<'s> Fn(Events<'s, Fact>, &mut Views) + Send + Sync + 'static,
    expected: &[Expected],
) {
    let (checks, by_tick) = check_layers_by_tick(dataflow, log, law);
    assert!(checks > 0, "the law was not checked");
    for (tick, answers) in by_tick.iter().enumerate() {
        let so_far: Vec<Fact> = log.iter().filter(|(at, _)| at.0 <= tick as u64).map(|(_, fact)| fact.clone()).collect();
        for view in answers.keys().filter(|view| *view != ERRORS) {
            assert!(expected.iter().any(|(name, _)| name == view), "the view `{view}` needs a reference");
        }
        if expected.iter().all(|(name, _)| *name != ERRORS) {
            assert_eq!(answers[ERRORS], [], "nothing here is quarantined");
        }
        for (name, reference) in expected {
            assert_eq!(answers[*name], reference(&so_far), "view `{name}` at tick {tick} differs from plain Rust; seed {}", law.seed);
        }
    }
}
