//! Semijoin, antijoin, left and full join, look-ups of past versions, set operators, having.

use std::collections::BTreeSet;

use lambdaflow::log::Tick;
use lambdaflow::operators::{Count, Events, Flow, Monoid, Sum, Views};
use lambdaflow::runs::AnswerRow;
use lambdaflow::testing::Law;

use crate::harness::{Fact, Kind, Multiset, Row, add, answer, check, check_log, fact, multiset, pairs, rows, rows_of};

type Keyed<V> = Multiset<(String, V)>;

fn dataflow(facts: Events<'_, Fact>, views: &mut Views) {
    let rows = rows(facts.clone());
    let side = |parity: u64| -> Flow<'_, (String, i64)> {
        rows.clone().filter(move |(_, (user, _))| user % 2 == parity).map(|(group, (_, amount))| (group, amount))
    };
    let (even, odd) = (side(0), side(1));
    let keys = odd.clone().map(|(group, _)| group);
    views.publish("semijoin", even.clone().semijoin(keys.clone()));
    views.publish("antijoin", even.clone().antijoin(keys));
    views.publish("left_join", even.clone().left_join(odd.clone()));
    views.publish("full_join", even.clone().full_join(odd.clone()));
    views.publish("union", even.clone().union(odd.clone()));
    views.publish("intersect", even.clone().intersect(odd.clone()));
    views.publish("except", even.clone().except(odd.clone()));
    views.publish("intersect_all", even.clone().intersect_all(odd.clone()));
    views.publish("except_all", even.except_all(odd));

    let readings = rows.clone().filter(|row| row.1.0 % 2 == 0).map(|(group, (user, amount))| (group, (at(amount), user)));
    let versions = rows.filter(|row| row.1.0 % 2 == 1).map(|(group, (user, amount))| (group, (user, amount)));
    views.publish("as_of", readings.lookup_as_of(versions).map(|(group, (at, user, version))| (group, ((at, user), version))));
}

/// Amounts as times, between those of the versions, which are users 1, 3 and 5.
fn at(amount: i64) -> u64 {
    (amount + 2) as u64
}

fn side(facts: &[Fact], parity: u64) -> Keyed<i64> {
    let rows = rows_of(facts).into_iter().filter(|((_, (user, _)), _)| user % 2 == parity);
    multiset(rows.map(|((group, (_, amount)), n)| ((group, amount), n)))
}

fn present<V: Ord>(rows: &Keyed<V>) -> BTreeSet<&String> {
    let keys = multiset(rows.iter().map(|((key, _), n)| (key, *n)));
    keys.into_iter().filter(|(_, n)| *n > 0).map(|(key, _)| key).collect()
}

/// Rows whose key is on the other side, or is not.
fn matched<V: Ord + Clone, W: Ord>(rows: &Keyed<V>, other: &Keyed<W>, is_there: bool) -> Keyed<V> {
    let keys = present(other);
    rows.iter().filter(|((key, _), _)| keys.contains(key) == is_there).map(|(row, n)| (row.clone(), *n)).collect()
}

/// Joined rows with `Some`, and what of either side is to be kept without a match.
fn outer(left: &Keyed<i64>, right: &Keyed<i64>, keeps_right: bool) -> Keyed<(Option<i64>, Option<i64>)> {
    let both = pairs(left, right).into_iter().map(|((key, (v, w)), n)| ((key, (Some(v), Some(w))), n));
    let lonely_left = matched(left, right, false).into_iter().map(|((key, v), n)| ((key, (Some(v), None)), n));
    let lonely_right = matched(right, left, false).into_iter().filter(|_| keeps_right).map(|((key, w), n)| ((key, (None, Some(w))), n));
    multiset(both.chain(lonely_left).chain(lonely_right))
}

/// Each row of either side as often as `n` of both multiplicities says.
fn set(facts: &[Fact], n: impl Fn(isize, isize) -> isize) -> Vec<AnswerRow> {
    let (left, right) = (side(facts, 0), side(facts, 1));
    let all: BTreeSet<_> = left.keys().chain(right.keys()).cloned().collect();
    let count = |rows: &Keyed<i64>, row: &(String, i64)| rows.get(row).copied().unwrap_or(0);
    answer(multiset(all.into_iter().map(|row| {
        let n = n(count(&left, &row), count(&right, &row));
        (row, n)
    })))
}

fn as_of(rows: &Multiset<Row>) -> Keyed<((u64, u64), Option<i64>)> {
    let mut all = Multiset::new();
    for ((group, (user, amount)), n) in rows.iter().filter(|((_, (user, _)), _)| user % 2 == 0) {
        let versions = rows.iter().filter(|((other, (from, _)), n)| other == group && from % 2 == 1 && *from <= at(*amount) && **n > 0);
        let version = versions.map(|((_, version), _)| version).max().map(|(_, value)| *value);
        add(&mut all, (group.clone(), ((at(*amount), *user), version)), *n);
    }
    all
}

fn matches_plain_rust(kind: Kind) {
    check(
        kind,
        dataflow,
        &[
            ("semijoin", &|facts| answer(matched(&side(facts, 0), &side(facts, 1), true))),
            ("antijoin", &|facts| answer(matched(&side(facts, 0), &side(facts, 1), false))),
            ("left_join", &|facts| {
                let rows = outer(&side(facts, 0), &side(facts, 1), false).into_iter();
                answer(rows.map(|((key, (left, right)), n)| ((key, (left.expect("kept"), right)), n)).collect())
            }),
            ("full_join", &|facts| answer(outer(&side(facts, 0), &side(facts, 1), true))),
            ("union", &|facts| set(facts, |left, right| isize::from(left > 0 || right > 0))),
            ("intersect", &|facts| set(facts, |left, right| isize::from(left > 0 && right > 0))),
            ("except", &|facts| set(facts, |left, right| isize::from(left > 0 && right <= 0))),
            ("intersect_all", &|facts| set(facts, |left, right| left.min(right).max(0))),
            ("except_all", &|facts| set(facts, |left, right| if left > right.max(0) { left - right.max(0) } else { 0 })),
            ("as_of", &|facts| answer(as_of(&rows_of(facts)))),
        ],
    );
}

#[test]
fn joins_and_set_operators_match_plain_rust() {
    matches_plain_rust(Kind::Matched);
}

/// A key is present if its multiplicities sum to more than zero; rows that are missing pass with theirs, or are no rows.
#[test]
fn joins_and_set_operators_with_missing_rows_match_plain_rust() {
    matches_plain_rust(Kind::Unmatched);
}

fn filtered(facts: Events<'_, Fact>, views: &mut Views) {
    let of_events = facts.clone().aggregate::<String, Count>(|fact, groups| groups.add(fact.group, Count::one()));
    views.publish("events", of_events.having(|group, facts| facts.answer() % 3 == 1 && group != "/a"));
    let of_rows = rows(facts).aggregate::<(Count, Sum)>(|(_, amount)| (Count::one(), Sum::of(*amount)));
    views.publish("rows", of_rows.having(|_, (_, sum)| sum.0 > 0));
}

fn having_matches_plain_rust(kind: Kind) {
    check(
        kind,
        filtered,
        &[
            ("events", &|facts| {
                let counts = multiset(facts.iter().map(|fact| (fact.group.clone(), 1)));
                answer(counts.into_iter().filter(|(group, n)| n % 3 == 1 && group != "/a").map(|row| (row, 1)).collect())
            }),
            ("rows", &|facts| {
                let mut sums = std::collections::BTreeMap::<String, (isize, i64)>::new();
                for ((group, (_, amount)), n) in rows_of(facts) {
                    let sum = sums.entry(group).or_default();
                    *sum = (sum.0 + n, sum.1 + n as i64 * amount);
                }
                answer(sums.into_iter().filter(|(_, (_, sum))| *sum > 0).map(|row| (row, 1)).collect())
            }),
        ],
    );
}

#[test]
fn having_matches_plain_rust_on_events_and_flows() {
    having_matches_plain_rust(Kind::Matched);
    having_matches_plain_rust(Kind::Unmatched);
}

/// Reading 2 at time 4 (`amount` 2); prices from 1 and from 3. The price from 3 arrives late, is corrected, and is retracted.
#[test]
fn late_and_retracted_versions_correct_past_rows() {
    let log = [
        (Tick(0), fact("/a", 2, 2, 1)),
        (Tick(1), fact("/a", 1, 10, 1)),
        (Tick(2), fact("/a", 3, 30, 1)),
        (Tick(3), fact("/a", 3, 30, -1)),
        (Tick(3), fact("/a", 3, 31, 1)),
        (Tick(4), fact("/a", 3, 31, -1)),
        (Tick(5), fact("/a", 1, 10, -1)),
    ];
    let price = |facts: &[Fact]| [None, Some(10), Some(30), None, Some(31), Some(10), None][facts.len() - 1];
    let dataflow = |facts: Events<'_, Fact>, views: &mut Views| {
        let rows = rows(facts);
        let readings = rows.clone().filter(|row| row.1.0 % 2 == 0).map(|(group, (user, amount))| (group, (at(amount), user)));
        let prices = rows.filter(|row| row.1.0 % 2 == 1);
        views.publish("prices", readings.lookup_as_of(prices).map(|(group, (at, _, price))| (group, (at, price))));
    };
    let reference = |facts: &[Fact]| answer(Multiset::from([(("/a", (4, price(facts))), 1)]));
    check_log(&log, &Law { cuts: 18, seed: 1, ..Law::default() }, dataflow, &[("prices", &reference)]);
}
