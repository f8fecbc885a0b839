//! `Events::aggregate`, `Flow::aggregate`, and the rows and keys of aggregates.

use std::collections::{BTreeMap, BTreeSet};

use lambdaflow::log::Tick;
use lambdaflow::operators::{Count, Events, HyperLogLog, Sum, Views};
use lambdaflow::runs::AnswerRow;
use lambdaflow::testing::Law;
use serde::Serialize;

use crate::harness::{Fact, Kind, answer, check, check_log, fact, rows, rows_of};

lambdaflow::monoid_struct! {
    /// Facts and their amounts.
    struct Totals { facts: Count, amount: Sum }
}

/// Groups with an answer each.
fn groups<K: Serialize + Ord, A: Serialize + Ord>(groups: BTreeMap<K, A>) -> Vec<AnswerRow> {
    answer(groups.into_iter().map(|group| (group, 1)).collect())
}

fn of_events(facts: Events<'_, Fact>, views: &mut Views) {
    views.publish("by_string", facts.clone().aggregate::<String, Count>(|fact, groups| groups.add(fact.group, Count::one())));
    views.publish("by_integer", facts.clone().aggregate::<u64, Sum>(|fact, groups| groups.add(*fact.user, Sum::of(*fact.amount))));
    views.publish(
        "by_tuple",
        facts.clone().aggregate::<(String, i64), (Count, Sum)>(|fact, groups| {
            groups.add((fact.group, *fact.amount), (Count::one(), Sum::of(*fact.user)));
        }),
    );
    views.publish(
        "several_groups_for_each_event",
        facts.clone().aggregate::<String, Count>(|fact, groups| {
            groups.add(fact.group, Count::one());
            groups.add("all", Count::one());
            (0..*fact.user % 3).for_each(|_| groups.add("/a", Count::one()));
        }),
    );
    views.publish(
        "struct",
        facts.clone().aggregate::<(String, u64), Totals>(|fact, groups| {
            groups.add((fact.group, *fact.user), Totals { facts: Count::one(), amount: Sum::of(*fact.amount) });
        }),
    );
    views.publish(
        "distinct_users",
        facts.clone().aggregate::<String, HyperLogLog>(|fact, groups| {
            groups.add(fact.group, HyperLogLog::of(fact.user));
        }),
    );
    let sums = facts.aggregate::<String, Sum>(|fact, groups| groups.add(fact.group, Sum::of(*fact.amount)));
    views.publish("rows", sums.clone().rows());
    views.publish("keys", sums.keys().map(|group| (group, ())));
}

/// Totals by group, in plain Rust.
fn count_and_sum<K: Ord>(of: impl IntoIterator<Item = (K, i64)>) -> BTreeMap<K, (isize, i64)> {
    let mut totals = BTreeMap::<K, (isize, i64)>::new();
    for (key, amount) in of {
        let total = totals.entry(key).or_default();
        *total = (total.0 + 1, total.1 + amount);
    }
    totals
}

#[test]
fn aggregates_of_events_match_plain_rust() {
    let by_group = |facts: &[Fact]| count_and_sum(facts.iter().map(|fact| (fact.group.clone(), fact.amount)));
    check(
        Kind::Matched,
        of_events,
        &[
            ("by_string", &|facts| groups(by_group(facts).into_iter().map(|(group, (count, _))| (group, count)).collect())),
            ("by_integer", &|facts| {
                let totals = count_and_sum(facts.iter().map(|fact| (fact.user, fact.amount)));
                groups(totals.into_iter().map(|(user, (_, sum))| (user, sum)).collect())
            }),
            ("by_tuple", &|facts| groups(count_and_sum(facts.iter().map(|fact| ((fact.group.as_str(), fact.amount), fact.user as i64))))),
            ("several_groups_for_each_event", &|facts| {
                let mut counts = BTreeMap::<&str, isize>::new();
                for fact in facts {
                    *counts.entry(&fact.group).or_default() += 1;
                    *counts.entry("all").or_default() += 1;
                    if fact.user % 3 > 0 {
                        *counts.entry("/a").or_default() += (fact.user % 3) as isize;
                    }
                }
                groups(counts)
            }),
            ("struct", &|facts| {
                let totals = count_and_sum(facts.iter().map(|fact| ((fact.group.as_str(), fact.user), fact.amount)));
                groups(totals.into_iter().map(|(key, (count, sum))| (key, Totals { facts: Count(count), amount: Sum(sum) })).collect())
            }),
            // So few users collide in no register, so that the estimate is exact.
            ("distinct_users", &|facts| {
                let mut users = BTreeMap::<&str, BTreeSet<u64>>::new();
                facts.iter().for_each(|fact| _ = users.entry(&fact.group).or_default().insert(fact.user));
                groups(users.into_iter().map(|(group, users)| (group, users.len())).collect())
            }),
            ("rows", &|facts| groups(by_group(facts).into_iter().map(|(group, (_, sum))| (group, sum)).collect())),
            ("keys", &|facts| groups(by_group(facts).into_keys().map(|group| (group, ())).collect())),
        ],
    );
}

fn of_flow(facts: Events<'_, Fact>, views: &mut Views) {
    let rows = rows(facts);
    let sums = rows.clone().aggregate::<Sum>(|(_, amount)| Sum::of(*amount));
    views.publish("sums", sums.clone());
    views.publish("rows", sums.clone().rows());
    views.publish("keys", sums.keys().map(|group| (group, ())));
    let both =
        rows.map(|(group, (user, amount))| ((user, group), amount)).aggregate::<(Count, Sum)>(|amount| (Count::one(), Sum::of(*amount)));
    views.publish("tuple", both.clone());
    views.publish("tuple_rows", both.rows());
}

/// Records and sum of each group. A group is there unless both are zero: where every retraction takes back a record that
/// was inserted, that is while it has records.
fn totals<K: Ord>(rows: impl IntoIterator<Item = (K, i64, isize)>) -> BTreeMap<K, (isize, i64)> {
    let mut totals = BTreeMap::<K, (isize, i64)>::new();
    for (key, amount, n) in rows {
        let total = totals.entry(key).or_default();
        *total = (total.0 + n, total.1 + n as i64 * amount);
    }
    totals.retain(|_, total| *total != (0, 0));
    totals
}

fn flow_aggregates_match_plain_rust(kind: Kind) {
    let by_group = |facts: &[Fact]| totals(rows_of(facts).into_iter().map(|((group, (_, amount)), n)| (group, amount, n)));
    let by_both = |facts: &[Fact]| totals(rows_of(facts).into_iter().map(|((group, (user, amount)), n)| ((user, group), amount, n)));
    let sums = |facts: &[Fact]| groups(by_group(facts).into_iter().map(|(group, (_, sum))| (group, sum)).collect());
    check(
        kind,
        of_flow,
        &[
            ("sums", &sums),
            ("rows", &sums),
            ("keys", &|facts| groups(by_group(facts).into_keys().map(|group| (group, ())).collect())),
            ("tuple", &|facts| groups(by_both(facts))),
            ("tuple_rows", &|facts| groups(by_both(facts))),
        ],
    );
}

#[test]
fn aggregates_of_flows_take_retracted_rows_back() {
    flow_aggregates_match_plain_rust(Kind::Matched);
}

#[test]
fn aggregates_of_flows_are_linear_in_negative_multiplicities() {
    flow_aggregates_match_plain_rust(Kind::Unmatched);
}

#[test]
fn a_group_whose_sum_is_zero_is_there_while_it_has_records() {
    let log = [
        (Tick(0), fact("/a", 1, 5, 1)),
        (Tick(1), fact("/a", 2, -5, 1)),
        (Tick(2), fact("/a", 1, 5, -1)),
        (Tick(2), fact("/a", 2, -5, -1)),
        (Tick(3), fact("/a", 3, 0, 1)),
    ];
    let sum_at = |facts: &[Fact]| match facts.len() {
        1 => Some(5),
        2 | 5 => Some(0),
        _ => None,
    };
    let dataflow = |facts: Events<'_, Fact>, views: &mut Views| {
        let sums = rows(facts).aggregate::<Sum>(|(_, amount)| Sum::of(*amount));
        views.publish("sums", sums.clone());
        views.publish("rows", sums.clone().rows());
        views.publish("keys", sums.keys().map(|group| (group, ())));
    };
    let sums = |facts: &[Fact]| groups(sum_at(facts).map(|sum| ("/a", sum)).into_iter().collect());
    let law = Law { cuts: 9, seed: 1, ..Law::default() };
    check_log(
        &log,
        &law,
        dataflow,
        &[("sums", &sums), ("rows", &sums), ("keys", &|facts| groups(sum_at(facts).map(|_| ("/a", ())).into_iter().collect()))],
    );
}
