//! Top-k, of all rows and of each group.

use std::cmp::Reverse;

use lambdaflow::log::Tick;
use lambdaflow::operators::{Events, Views};
use lambdaflow::testing::Law;

use crate::harness::{Fact, Kind, Multiset, Row, answer, check, check_log, fact, greatest, multiset, rows, rows_of};

fn dataflow(facts: Events<'_, Fact>, views: &mut Views) {
    let rows = rows(facts);
    views.publish("best", rows.clone().top_k(1, |(_, (_, amount))| *amount));
    views.publish("best_three", rows.clone().top_k(3, |(_, (_, amount))| *amount));
    views.publish("none", rows.clone().top_k(0, |(_, (_, amount))| *amount));
    views.publish("least_of_group", rows.clone().top_k_by_group(2, |(_, amount)| -*amount));
    views.publish("all_tie", rows.clone().top_k_by_group(2, |_| ()));
    views.publish("two_least", rows.clone().bottom_k(2, |(_, (_, amount))| *amount));
    views.publish("two_least_of_group", rows.clone().bottom_k_by_group(2, |(user, _)| *user));
    views.publish("min", rows.clone().min());
    views.publish("max", rows.clone().map(|(group, (_, amount))| (group, amount)).max());
    views.publish("all_there_are", rows.clone().top_k(usize::MAX, |(_, (_, amount))| *amount));
    views.publish("more_than_there_are", rows.top_k_by_group(10_000, |(_, amount)| *amount));
}

/// The best of all rows.
fn of_all(rows: Multiset<Row>, k: usize) -> Multiset<Row> {
    let one_group = multiset(rows.into_iter().map(|(row, n)| (((), row), n)));
    multiset(greatest(&one_group, k, |(_, (_, amount))| *amount).into_iter().map(|(((), row), n)| (row, n)))
}

/// The `k` least rows by `by`, then by row: the greatest in reversed order.
fn least<O: Ord>(rows: Multiset<Row>, k: usize, by: impl Fn(&(u64, i64)) -> O) -> Multiset<Row> {
    let reversed = multiset(rows.into_iter().map(|((group, row), n)| ((group, Reverse(row)), n)));
    let best = greatest(&reversed, k, |Reverse(row)| Reverse(by(row)));
    multiset(best.into_iter().map(|((group, Reverse(row)), n)| ((group, row), n)))
}

fn two_least(rows: Multiset<Row>) -> Multiset<Row> {
    let one_group = multiset(rows.into_iter().map(|(row, n)| (((), Reverse(row)), n)));
    let best = greatest(&one_group, 2, |Reverse((_, (_, amount)))| Reverse(*amount));
    multiset(best.into_iter().map(|(((), Reverse(row)), n)| (row, n)))
}

fn amounts(rows: &Multiset<Row>) -> Multiset<(String, i64)> {
    multiset(rows.iter().map(|((group, (_, amount)), n)| ((group.clone(), *amount), *n)))
}

fn matches_plain_rust(kind: Kind) {
    check(
        kind,
        dataflow,
        &[
            ("best", &|facts| answer(of_all(rows_of(facts), 1))),
            ("best_three", &|facts| answer(of_all(rows_of(facts), 3))),
            ("none", &|_| Vec::new()),
            ("least_of_group", &|facts| answer(greatest(&rows_of(facts), 2, |(_, amount)| -*amount))),
            ("all_tie", &|facts| answer(greatest(&rows_of(facts), 2, |_| ()))),
            ("all_there_are", &|facts| answer(of_all(rows_of(facts), usize::MAX))),
            ("two_least", &|facts| answer(two_least(rows_of(facts)))),
            ("two_least_of_group", &|facts| answer(least(rows_of(facts), 2, |(user, _)| *user))),
            ("min", &|facts| answer(least(rows_of(facts), 1, |row| *row))),
            ("max", &|facts| answer(greatest(&amounts(&rows_of(facts)), 1, |amount| *amount))),
            ("more_than_there_are", &|facts| answer(greatest(&rows_of(facts), 10_000, |(_, amount)| *amount))),
        ],
    );
}

#[test]
fn top_k_matches_plain_rust() {
    matches_plain_rust(Kind::Matched);
}

/// A row that is missing takes nobody's place.
#[test]
fn top_k_passes_over_rows_with_negative_multiplicity() {
    matches_plain_rust(Kind::Unmatched);
}

#[test]
fn when_the_best_row_is_retracted_the_next_takes_its_place() {
    let log = [
        (Tick(0), fact("/a", 1, 9, 1)),
        (Tick(0), fact("/a", 2, 7, 2)),
        (Tick(1), fact("/a", 3, 7, 1)),
        (Tick(2), fact("/a", 1, 9, -1)),
        (Tick(3), fact("/a", 2, 7, -2)),
        (Tick(4), fact("/a", 3, 7, -1)),
    ];
    let best: [&[((u64, i64), isize)]; 5] =
        [&[((1, 9), 1), ((2, 7), 1)], &[((1, 9), 1), ((3, 7), 1)], &[((2, 7), 1), ((3, 7), 1)], &[((3, 7), 1)], &[]];
    let at = |facts: &[Fact]| [0, 0, 0, 1, 2, 3, 4][facts.len()];
    let dataflow = |facts: Events<'_, Fact>, views: &mut Views| {
        views.publish("best_two", rows(facts).top_k_by_group(2, |(_, amount)| *amount));
    };
    let reference = |facts: &[Fact]| answer(multiset(best[at(facts)].iter().map(|(row, n)| (("/a", *row), *n))));
    check_log(&log, &Law { cuts: 18, seed: 1, ..Law::default() }, dataflow, &[("best_two", &reference)]);
}

/// The base's rows are taken from its end a few at a time; taking away what was best must bring all of them up, in order,
/// through runs that were merged and runs that were not. Rows of high and low rank come at all ticks, so that two runs of a
/// base have them by turns. Some come back for a while. Each has a row beside it that is missing until shortly before its
/// turn: what a change says of a row is not to be trusted while the base's part of it was not taken.
#[test]
fn the_best_rows_can_be_taken_away_one_by_one() {
    const ROWS: u64 = 60;
    // A missing row is further in than the row beside it, being of a lesser user.
    let row = |i: u64, times| fact("/a", 100 + i, (i * 37 % ROWS) as i64, times);
    let missing = |i: u64, times| fact("/a", i, (i * 37 % ROWS) as i64, times);
    let mut log: Vec<(Tick, Fact)> = (0..ROWS).flat_map(|i| [row(i, 1), missing(i, -1)].map(|fact| (Tick(i / 3), fact))).collect();
    let mut ranked: Vec<u64> = (0..ROWS).collect();
    ranked.sort_by_key(|i| Reverse(i * 37 % ROWS));
    for (rank, &best) in ranked.iter().enumerate() {
        let tick = ROWS / 3 + rank as u64 / 2;
        log.push((Tick(tick), row(best, -1)));
        log.extend(ranked.get(rank + 3).map(|later| (Tick(tick), missing(*later, 1))));
        if rank % 9 == 0 {
            log.push((Tick(tick + 2), row(best, 1)));
            log.push((Tick(tick + 3), row(best, -1)));
            // Far beyond the best, so that it is known long before its turn.
            log.push((Tick(tick), fact("/a", 200 + best, -(best as i64), 1)));
        }
    }
    log.sort_by_key(|(tick, _)| *tick);
    let dataflow = |facts: Events<'_, Fact>, views: &mut Views| {
        views.publish("best", rows(facts).top_k_by_group(2, |(_, amount)| *amount));
    };
    let reference = |facts: &[Fact]| answer(greatest(&rows_of(facts), 2, |(_, amount)| *amount));
    check_log(&log, &Law { cuts: 12, seed: 1, ..Law::default() }, dataflow, &[("best", &reference)]);
}
