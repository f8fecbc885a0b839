//! Keyed operators of an author's own: their state, not their rows, is what a generation keeps.

use std::collections::BTreeMap;

use lambdaflow::operators::{Diff, Events, Keyed, Views};

use crate::harness::{Fact, Kind, answer, by_key, check, multiset, rows, rows_of};

/// How far apart the least and the greatest amount of each group are, and how many users it has.
struct Spread;

impl Keyed for Spread {
    type Key = String;
    type Row = (u64, i64);
    /// Rows by amount, and by user, without those that come to nothing.
    type State = (Vec<(i64, i64)>, Vec<(i64, i64)>);
    type Out = (i64, u64);

    fn update(&mut self, _: &String, (amounts, users): &mut Self::State, changes: &[((u64, i64), Diff)]) {
        for ((user, amount), n) in changes {
            count(amounts, *amount, *n as i64);
            count(users, *user as i64, *n as i64);
        }
    }

    fn results(&mut self, _: &String, (amounts, users): &Self::State, out: &mut Vec<((i64, u64), Diff)>) {
        let spread = amounts.last().map_or(0, |last| last.0) - amounts.first().map_or(0, |first| first.0);
        out.push(((spread, users.len() as u64), 1));
    }
}

fn count(counts: &mut Vec<(i64, i64)>, of: i64, n: i64) {
    match counts.binary_search_by_key(&of, |(known, _)| *known) {
        Ok(at) => counts[at].1 += n,
        Err(at) => counts.insert(at, (of, n)),
    }
    counts.retain(|(_, n)| *n != 0);
}

fn dataflow(facts: Events<'_, Fact>, views: &mut Views) {
    let spread = rows(facts).keyed("Spread", Spread);
    views.publish("spread", spread.clone());
    // Its changes are the input of another.
    views.publish("widest", spread.map(|(group, (spread, _))| ((), (spread, group))).max());
}

fn spreads(facts: &[Fact]) -> BTreeMap<String, (i64, u64)> {
    let mut spreads = BTreeMap::new();
    for (group, rows) in by_key(&rows_of(facts)) {
        let amounts = multiset(rows.iter().map(|((_, amount), n)| (*amount, *n)));
        let users = multiset(rows.iter().map(|((user, _), n)| (*user, *n)));
        if !amounts.is_empty() || !users.is_empty() {
            let ends = (amounts.last_key_value().map_or(0, |last| *last.0), amounts.first_key_value().map_or(0, |first| *first.0));
            spreads.insert(group, (ends.0 - ends.1, users.len() as u64));
        }
    }
    spreads
}

fn matches_plain_rust(kind: Kind) {
    check(
        kind,
        dataflow,
        &[
            ("spread", &|facts| answer(multiset(spreads(facts).into_iter().map(|row| (row, 1))))),
            ("widest", &|facts| {
                let widest = spreads(facts).into_iter().map(|(group, (spread, _))| (spread, group)).max();
                answer(multiset(widest.map(|widest| (((), widest), 1))))
            }),
        ],
    );
}

#[test]
fn a_keyed_operator_matches_plain_rust() {
    matches_plain_rust(Kind::Matched);
}

#[test]
fn a_keyed_operator_sees_negative_multiplicities() {
    matches_plain_rust(Kind::Unmatched);
}
