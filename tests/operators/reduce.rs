//! Reduce: any function of a key's rows.

use lambdaflow::log::Tick;
use lambdaflow::operators::{Events, Views};
use lambdaflow::testing::{Law, Random};

use crate::harness::{Fact, Kind, Multiset, add, answer, by_key, check, check_log, fact, facts, multiset, rows, rows_of};

type Val = (u64, i64);

fn least(_: &String, vals: &[(&Val, isize)], out: &mut Vec<(Val, isize)>) {
    out.push((*vals[0].0, 1));
}

/// Two rows for each key, with multiplicities that come from the input, one of them below zero.
fn several(_: &String, vals: &[(&Val, isize)], out: &mut Vec<(i64, isize)>) {
    let total: isize = vals.iter().map(|(_, n)| n).sum();
    out.push((vals[0].0.1, total));
    out.push((vals[vals.len() - 1].0.1 + 100, -vals[0].1));
}

/// Nothing for keys with one value: they are touched and leave no output.
fn spread(_: &String, vals: &[(&Val, isize)], out: &mut Vec<(i64, isize)>) {
    if let [first, .., last] = vals {
        out.push((last.0.1 - first.0.1, 1));
    }
}

fn dataflow(facts: Events<'_, Fact>, views: &mut Views) {
    let rows = rows(facts);
    views.publish("least", rows.clone().reduce(least));
    views.publish("several", rows.clone().reduce(several));
    views.publish("spread", rows.clone().reduce(spread));
    views.publish("identity", rows.reduce_named("Identity", |_, vals, out| out.extend(vals.iter().map(|(val, n)| (**val, *n)))));
}

/// The function applied to each key's rows.
fn reduced<V: Ord + Clone>(
    rows: Multiset<(String, Val)>,
    logic: impl Fn(&String, &[(&Val, isize)], &mut Vec<(V, isize)>),
) -> Multiset<(String, V)> {
    let mut all = Multiset::new();
    for (key, vals) in by_key(&rows) {
        let mut out = Vec::new();
        logic(&key, &vals.iter().map(|(val, n)| (val, *n)).collect::<Vec<_>>(), &mut out);
        out.into_iter().for_each(|(val, n)| add(&mut all, (key.clone(), val), n));
    }
    all
}

fn matches_plain_rust(kind: Kind) {
    check(
        kind,
        dataflow,
        &[
            ("least", &|facts| answer(reduced(rows_of(facts), least))),
            ("several", &|facts| answer(reduced(rows_of(facts), several))),
            ("spread", &|facts| answer(reduced(rows_of(facts), spread))),
            ("identity", &|facts| answer(rows_of(facts))),
        ],
    );
}

#[test]
fn reduce_matches_plain_rust() {
    matches_plain_rust(Kind::Matched);
}

/// The function gets rows that are missing with the multiplicity they have.
#[test]
fn reduce_sees_negative_multiplicities() {
    matches_plain_rust(Kind::Unmatched);
}

/// A key of the base that is touched and then gone from the arrangement still has rows in the base, which must be
/// subtracted when a batch is frozen. The first version of the design forgot it.
#[test]
fn a_key_that_is_touched_and_vanishes_takes_its_base_rows_with_it() {
    let log = [
        (Tick(0), fact("/a", 1, 1, 1)),
        (Tick(0), fact("/b", 1, 1, 1)),
        (Tick(1), fact("/a", 1, 1, -1)),
        (Tick(3), fact("/b", 1, 1, -1)),
        (Tick(3), fact("/b", 2, 2, 1)),
        (Tick(4), fact("/a", 1, 1, 1)),
        (Tick(5), fact("/a", 1, 1, -1)),
    ];
    let dataflow = |facts: Events<'_, Fact>, views: &mut Views| {
        views.publish("least", rows(facts).reduce(least));
    };
    check_log(&log, &Law { cuts: 24, seed: 1, ..Law::default() }, dataflow, &[("least", &|facts| answer(reduced(rows_of(facts), least)))]);
}

/// Rows that come straight from the log run ahead of rows that another operator had to wait for: a key is touched at a
/// late tick first, at an early one afterwards, and its base rows must then enter at the early one.
#[test]
fn an_earlier_touch_that_arrives_later_moves_the_first_touch() {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    let dataflow = |facts: Events<'_, Fact>, views: &mut Views| {
        let rows = rows(facts);
        let counted = rows.clone().map(|(group, _)| group).count().map(|(group, n)| (group, (99, n as i64)));
        let late = counted.count().map(|((group, val), _)| (group, val));
        let ahead = rows.filter(|(_, (user, _))| *user == 0);
        views.publish("all", ahead.concat(late).reduce(|_, vals, out| out.extend(vals.iter().map(|(val, n)| (**val, *n)))));
    };
    let reference = |facts: &[Fact]| {
        let rows = rows_of(facts);
        let counts = multiset(rows.iter().map(|((group, _), n)| (group.clone(), *n)));
        let late = counts.into_iter().map(|(group, n)| ((group, (99, n as i64)), 1));
        answer(multiset(rows.clone().into_iter().filter(|((_, (user, _)), _)| *user == 0).chain(late)))
    };
    for seed in seed..seed.saturating_add(4) {
        check_log(&facts(Kind::Matched, seed), &Law { seed, ..Law::default() }, dataflow, &[("all", &reference)]);
    }
}
