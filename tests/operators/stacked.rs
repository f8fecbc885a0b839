//! Operators on operators: the changes that one makes are the input of the next.

use lambdaflow::operators::{Count, Events, Sum, Views};

use crate::harness::{Fact, Kind, Multiset, Row, answer, by_key, check, greatest, multiset, pairs, rows, rows_of};

fn dataflow(facts: Events<'_, Fact>, views: &mut Views) {
    let rows = rows(facts.clone());
    let best = rows.clone().top_k_by_group(2, |(_, amount)| *amount);
    let joined = best.clone().join(rows.clone().map(|(group, (user, _))| (group, user)));
    views.publish(
        "reduce_on_join_on_top_k",
        joined.reduce(|_, vals, out| out.push((vals[vals.len() - 1].0.1, vals.iter().map(|(_, n)| n).sum()))),
    );
    views.publish("top_k_on_count", rows.clone().map(|(group, _)| group).count().top_k(2, |(_, n)| *n));
    views.publish("count_on_distinct", rows.clone().map(|(group, (user, _))| (group, user)).distinct().map(|(_, user)| user).count());
    let sums = rows.clone().aggregate::<Sum>(|(_, amount)| Sum::of(*amount)).rows().map(|(group, Sum(sum))| (group, sum));
    views.publish("join_on_rows", sums.clone().join(best));
    views.publish("distinct_on_concat_on_reduce", {
        let least = rows.clone().reduce(|_, vals, out| out.push((*vals[0].0, 1)));
        rows.clone().filter(|(_, (user, _))| *user == 0).concat(least).distinct()
    });
    views.publish("reduce_on_opaque_on_join", {
        let joined = sums.join_map(rows, |group, sum, (user, _)| (group.clone(), (*user, *sum)));
        joined.opaque("distinct", |rows| rows.distinct()).reduce(|_, vals, out| out.push((vals.len() as u64, 1)))
    });
    let hits = facts.aggregate::<(String, u64), Count>(|fact, groups| groups.add((fact.group, *fact.user), Count::one()));
    views.publish("top_k_on_aggregate", hits.rows().map(|((group, user), Count(n))| (group, (n, user))).top_k_by_group(1, |(n, _)| *n));
}

fn sums(rows: &Multiset<Row>) -> Multiset<(String, i64)> {
    let groups = by_key(rows).into_iter();
    groups.map(|(group, vals)| ((group, vals.iter().map(|((_, amount), n)| amount * *n as i64).sum()), 1)).collect()
}

#[test]
fn stacked_operators_match_plain_rust() {
    let best = |rows: &Multiset<Row>| greatest(rows, 2, |(_, amount)| *amount);
    check(
        Kind::Matched,
        dataflow,
        &[
            ("reduce_on_join_on_top_k", &|facts| {
                let rows = rows_of(facts);
                let users = multiset(rows.iter().map(|((group, (user, _)), n)| ((group.clone(), *user), *n)));
                let joined = by_key(&pairs(&best(&rows), &users)).into_iter();
                answer(joined.map(|(group, vals)| ((group, vals[vals.len() - 1].0.1), vals.iter().map(|(_, n)| n).sum())).collect())
            }),
            ("top_k_on_count", &|facts| {
                let counts = multiset(rows_of(facts).into_iter().map(|((group, _), n)| (group, n)));
                let best = greatest(&counts.into_iter().map(|row| (((), row), 1)).collect(), 2, |(_, n)| *n);
                answer(best.into_iter().map(|(((), row), n)| (row, n)).collect())
            }),
            ("count_on_distinct", &|facts| {
                let users = multiset(rows_of(facts).into_iter().map(|((group, (user, _)), n)| ((group, user), n)));
                let counts = multiset(users.into_keys().map(|(_, user)| (user, 1)));
                answer(counts.into_iter().map(|row| (row, 1)).collect())
            }),
            ("join_on_rows", &|facts| answer(pairs(&sums(&rows_of(facts)), &best(&rows_of(facts))))),
            ("distinct_on_concat_on_reduce", &|facts| {
                let rows = rows_of(facts);
                let least = by_key(&rows).into_iter().map(|(group, vals)| (group, vals[0].0));
                let ahead = rows.keys().filter(|(_, (user, _))| *user == 0).cloned();
                answer(ahead.chain(least).map(|row| (row, 1)).collect())
            }),
            ("reduce_on_opaque_on_join", &|facts| {
                let users = multiset(rows_of(facts).into_iter().map(|((group, (user, _)), n)| ((group, user), n)));
                answer(by_key(&users).into_iter().map(|(group, users)| ((group, users.len()), 1)).collect())
            }),
            ("top_k_on_aggregate", &|facts| {
                let hits = multiset(facts.iter().map(|fact| ((fact.group.clone(), fact.user), 1)));
                let hits = hits.into_iter().map(|((group, user), n)| ((group, (n, user)), 1)).collect();
                answer(greatest(&hits, 1, |(n, _)| *n))
            }),
        ],
    );
}
