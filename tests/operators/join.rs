//! Join and join_map.

use lambdaflow::operators::{Events, Views};

use crate::harness::{Fact, Kind, Multiset, answer, check, multiset, pairs, rows, rows_of};

fn dataflow(facts: Events<'_, Fact>, views: &mut Views) {
    let rows = rows(facts);
    let users = rows.clone().map(|(group, (user, _))| (group, user));
    let amounts = rows.clone().map(|(group, (_, amount))| (group, amount));
    views.publish("shared", users.clone().join(amounts.clone()));
    views.publish("self", amounts.clone().join(amounts.clone()));
    let (even, odd) = (rows.clone().filter(|row| row.1.0 % 2 == 0), rows.filter(|row| row.1.0 % 2 == 1));
    views.publish("sides", even.clone().join(odd.clone()));
    views.publish("map", even.clone().join_map(odd, |group, left, right| (left.1 - right.1, group.len() as u64)));
    views.publish("chain", users.join(even.map(|(group, (_, amount))| (group, amount))).join(amounts));
}

fn users(rows: &Multiset<crate::harness::Row>) -> Multiset<(String, u64)> {
    multiset(rows.iter().map(|((group, (user, _)), n)| ((group.clone(), *user), *n)))
}

fn amounts(rows: &Multiset<crate::harness::Row>) -> Multiset<(String, i64)> {
    multiset(rows.iter().map(|((group, (_, amount)), n)| ((group.clone(), *amount), *n)))
}

fn side(facts: &[Fact], parity: u64) -> Multiset<crate::harness::Row> {
    multiset(rows_of(facts).into_iter().filter(|((_, (user, _)), _)| user % 2 == parity))
}

fn matches_plain_rust(kind: Kind) {
    check(
        kind,
        dataflow,
        &[
            ("shared", &|facts| answer(pairs(&users(&rows_of(facts)), &amounts(&rows_of(facts))))),
            ("self", &|facts| answer(pairs(&amounts(&rows_of(facts)), &amounts(&rows_of(facts))))),
            ("sides", &|facts| answer(pairs(&side(facts, 0), &side(facts, 1)))),
            ("map", &|facts| {
                let pairs = pairs(&side(facts, 0), &side(facts, 1));
                answer(multiset(pairs.into_iter().map(|((group, (left, right)), n)| ((left.1 - right.1, group.len()), n))))
            }),
            ("chain", &|facts| {
                let rows = rows_of(facts);
                answer(pairs(&pairs(&users(&rows), &amounts(&side(facts, 0))), &amounts(&rows)))
            }),
        ],
    );
}

#[test]
fn joins_match_plain_rust() {
    matches_plain_rust(Kind::Matched);
}

/// Two rows that are missing make a pair that is there: multiplicities multiply.
#[test]
fn joins_are_linear_in_negative_multiplicities() {
    matches_plain_rust(Kind::Unmatched);
}
