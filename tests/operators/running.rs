//! Count, distinct, threshold.

use lambdaflow::operators::{Events, Views};

use crate::harness::{Fact, Kind, Multiset, answer, check, multiset, rows, rows_of};

fn dataflow(facts: Events<'_, Fact>, views: &mut Views) {
    let rows = rows(facts);
    views.publish("count", rows.clone().count());
    views.publish("count_of_groups", rows.clone().map(|(group, _)| group).count());
    views.publish("distinct", rows.clone().distinct());
    views.publish("distinct_users", rows.clone().map(|(group, (user, _))| (group, user)).distinct());
    views.publish("threshold", rows.clone().threshold(|(_, (user, _)), n| if *user == 0 { 1 } else { n.min(2) }));
    views.publish("threshold_squared", rows.map(|(group, (user, _))| (user, group)).threshold(|_, n| n * n - 4));
}

/// Each row's multiplicity replaced.
fn replaced<D: Ord>(rows: Multiset<D>, logic: impl Fn(&D, isize) -> isize) -> Multiset<D> {
    multiset(rows.into_iter().map(|(row, n)| {
        let n = logic(&row, n);
        (row, n)
    }))
}

fn matches_plain_rust(kind: Kind) {
    check(
        kind,
        dataflow,
        &[
            ("count", &|facts| answer(multiset(rows_of(facts).into_iter().map(|row| (row, 1))))),
            ("count_of_groups", &|facts| {
                let groups = multiset(rows_of(facts).into_iter().map(|((group, _), n)| (group, n)));
                answer(multiset(groups.into_iter().map(|row| (row, 1))))
            }),
            ("distinct", &|facts| answer(replaced(rows_of(facts), |_, n| isize::from(n > 0)))),
            ("distinct_users", &|facts| {
                let users = multiset(rows_of(facts).into_iter().map(|((group, (user, _)), n)| ((group, user), n)));
                answer(replaced(users, |_, n| isize::from(n > 0)))
            }),
            ("threshold", &|facts| answer(replaced(rows_of(facts), |(_, (user, _)), n| if *user == 0 { 1 } else { n.min(2) }))),
            ("threshold_squared", &|facts| {
                let groups = multiset(rows_of(facts).into_iter().map(|((group, (user, _)), n)| ((user, group), n)));
                answer(replaced(groups, |_, n| n * n - 4))
            }),
        ],
    );
}

#[test]
fn count_distinct_and_threshold_match_plain_rust() {
    matches_plain_rust(Kind::Matched);
}

/// A row that is retracted before it is inserted is counted below zero, is not distinct, and reaches `threshold` as it is.
#[test]
fn rows_that_are_missing_count_below_zero() {
    matches_plain_rust(Kind::Unmatched);
}
