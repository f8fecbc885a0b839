//! Map, filter, flat_map, concat, negate, explode, linear.

use lambdaflow::operators::{Events, Views};

use crate::harness::{Fact, Kind, answer, check, multiset, rows, rows_of, text};

fn dataflow(facts: Events<'_, Fact>, views: &mut Views) {
    views.publish("events_map", facts.clone().map(|fact| (text(fact.group), *fact.amount)));
    views
        .publish("events_flat_map", facts.clone().flat_map(|fact| (0..*fact.user % 3).map(move |i| (i, *fact.amount)).collect::<Vec<_>>()));
    let rows = rows(facts);
    views.publish("map", rows.clone().map(|(group, (user, amount))| (user / 2, (amount, group))));
    views.publish("filter", rows.clone().filter(|(_, (user, _))| user % 2 == 0));
    views.publish(
        "flat_map",
        rows.clone().flat_map(|(group, (user, amount))| (0..user % 3).map(move |i| ((group.clone(), i), amount)).collect::<Vec<_>>()),
    );
    views.publish("concat", rows.clone().filter(|(_, (user, _))| user % 2 == 0).concat(rows.clone()));
    views.publish("negate", rows.clone().concat(rows.clone().filter(|(_, (_, amount))| *amount > 0).negate()));
    views.publish("explode", rows.clone().explode(|(group, (user, amount))| [((group, user), amount as isize), (("all".into(), 0), 2)]));
    views.publish("linear", rows.linear(|changes| changes.filter(|row| row.1.1 != 0).map(|(group, (user, _))| (user, group))));
}

fn matches_plain_rust(kind: Kind) {
    check(
        kind,
        dataflow,
        &[
            ("events_map", &|facts| answer(multiset(facts.iter().map(|fact| ((fact.group.clone(), fact.amount), 1))))),
            ("events_flat_map", &|facts| answer(multiset(facts.iter().flat_map(|fact| (0..fact.user % 3).map(|i| ((i, fact.amount), 1)))))),
            ("map", &|facts| answer(multiset(rows_of(facts).into_iter().map(|((g, (u, a)), n)| ((u / 2, (a, g)), n))))),
            ("filter", &|facts| answer(multiset(rows_of(facts).into_iter().filter(|((_, (u, _)), _)| u % 2 == 0)))),
            ("flat_map", &|facts| {
                let rows = rows_of(facts);
                answer(multiset(rows.iter().flat_map(|((g, (u, a)), n)| (0..u % 3).map(|i| (((g.clone(), i), *a), *n)))))
            }),
            ("concat", &|facts| {
                answer(multiset(rows_of(facts).into_iter().map(|((g, (u, a)), n)| ((g, (u, a)), if u % 2 == 0 { 2 * n } else { n }))))
            }),
            ("negate", &|facts| answer(multiset(rows_of(facts).into_iter().filter(|((_, (_, a)), _)| *a <= 0)))),
            ("explode", &|facts| {
                let rows = rows_of(facts);
                answer(multiset(rows.iter().flat_map(|((g, (u, a)), n)| [((g.as_str(), *u), n * *a as isize), (("all", 0), 2 * n)])))
            }),
            ("linear", &|facts| {
                answer(multiset(rows_of(facts).into_iter().filter(|((_, (_, a)), _)| *a != 0).map(|((g, (u, _)), n)| ((u, g), n))))
            }),
        ],
    );
}

#[test]
fn linear_operators_match_plain_rust() {
    matches_plain_rust(Kind::Matched);
}

#[test]
fn linear_operators_pass_negative_multiplicities_on() {
    matches_plain_rust(Kind::Unmatched);
}
