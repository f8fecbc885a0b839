//! Upsert, deduplicate, and changes of whole rows.

use std::collections::BTreeMap;

use lambdaflow::log::Tick;
use lambdaflow::operators::{Events, Min, RowChange, Views};
use lambdaflow::testing::Law;

use crate::harness::{Fact, Kind, Multiset, answer, check, check_log, fact, multiset, rows, rows_of, text};

fn dataflow(facts: Events<'_, Fact>, views: &mut Views) {
    let table = facts.clone().upsert::<String, u64, i64>(|fact, rows| match *fact.times > 0 {
        true => rows.put(fact.group, *fact.user, *fact.amount),
        false => rows.delete(fact.group, *fact.user),
    });
    views.publish("upsert", table);
    let ids = facts.clone().deduplicate::<(u64, i64), String>(|fact, rows| rows.add((*fact.user, *fact.amount), Min::of(text(fact.group))));
    views.publish("deduplicate", ids);
    // The key is made, so it is lent from the closure and not from the log.
    let owned = facts.clone().deduplicate::<String, i64>(|fact, rows| rows.add(&text(fact.group).to_uppercase(), Min::of(*fact.amount)));
    views.publish("deduplicate_owned", owned);
    views.publish("row_changes", facts.clone().row_changes(|fact| Some(change(text(fact.group), *fact.user, *fact.amount, *fact.times))));
    let rows = rows(facts);
    views.publish("flow_upsert", rows.clone().map(|(group, (user, amount))| (group, (user, Some(amount).filter(|n| *n >= 0)))).upsert());
    views.publish("flow_deduplicate", rows.deduplicate());
}

fn change(group: String, user: u64, amount: i64, times: i64) -> RowChange<(String, i64)> {
    match times > 0 {
        true if user.is_multiple_of(2) => RowChange::Update { before: (group.clone(), amount), after: (group, amount + 1) },
        true => RowChange::Insert((group, amount)),
        false => RowChange::Delete((group, amount)),
    }
}

/// The value of each key with the greatest order, if it has one.
fn last<K: Ord>(changes: impl Iterator<Item = (K, (u64, Option<i64>))>) -> Multiset<(K, i64)> {
    let mut keys: BTreeMap<K, (u64, Option<i64>)> = BTreeMap::new();
    for (key, change) in changes {
        keys.entry(key).and_modify(|last| *last = change.max(*last)).or_insert(change);
    }
    keys.into_iter().filter_map(|(key, (_, value))| Some(((key, value?), 1))).collect()
}

fn least<K: Ord, V: Ord>(rows: impl Iterator<Item = (K, V)>) -> Multiset<(K, V)> {
    let mut ids: BTreeMap<K, Vec<V>> = BTreeMap::new();
    rows.for_each(|(id, row)| ids.entry(id).or_default().push(row));
    ids.into_iter().filter_map(|(id, rows)| Some(((id, rows.into_iter().min()?), 1))).collect()
}

fn matches_plain_rust(kind: Kind) {
    check(
        kind,
        dataflow,
        &[
            ("upsert", &|facts| {
                answer(last(facts.iter().map(|fact| (fact.group.clone(), (fact.user, (fact.times > 0).then_some(fact.amount))))))
            }),
            ("deduplicate", &|facts| answer(least(facts.iter().map(|fact| ((fact.user, fact.amount), fact.group.clone()))))),
            ("deduplicate_owned", &|facts| answer(least(facts.iter().map(|fact| (fact.group.to_uppercase(), fact.amount))))),
            ("row_changes", &|facts| {
                answer(multiset(facts.iter().flat_map(|fact| {
                    let row = |more: i64| (fact.group.clone(), fact.amount + more);
                    match (fact.times > 0, fact.user % 2 == 0) {
                        (true, true) => vec![(row(0), -1), (row(1), 1)],
                        (true, false) => vec![(row(0), 1)],
                        (false, _) => vec![(row(0), -1)],
                    }
                })))
            }),
            ("flow_upsert", &|facts| {
                let changes =
                    rows_of(facts).into_iter().map(|((group, (user, amount)), n)| ((group, (user, (amount >= 0).then_some(amount))), n));
                answer(last(multiset(changes).into_iter().filter(|(_, n)| *n > 0).map(|(row, _)| row)))
            }),
            ("flow_deduplicate", &|facts| answer(least(rows_of(facts).into_iter().filter(|(_, n)| *n > 0).map(|(row, _)| row)))),
        ],
    );
}

#[test]
fn tables_of_changes_match_plain_rust() {
    matches_plain_rust(Kind::Matched);
}

#[test]
fn tables_with_missing_changes_match_plain_rust() {
    matches_plain_rust(Kind::Unmatched);
}

/// Orders (users) 3, 1, 4, 2: the deletion with order 4 stands against the late put with order 2; on a flow it can be
/// taken back, and what was put before holds again.
#[test]
fn a_late_change_does_not_overwrite_a_newer_one() {
    let log = [
        (Tick(0), fact("/a", 3, 30, 1)),
        (Tick(1), fact("/a", 1, 10, 1)),
        (Tick(2), fact("/a", 4, -1, 1)),
        (Tick(4), fact("/a", 2, 20, 1)),
        (Tick(5), fact("/a", 4, -1, -1)),
    ];
    let dataflow = |facts: Events<'_, Fact>, views: &mut Views| {
        let table = facts.clone().upsert::<String, u64, i64>(|fact, rows| match *fact.amount >= 0 {
            true => rows.put(fact.group, *fact.user, *fact.amount),
            false => rows.delete(fact.group, *fact.user),
        });
        views.publish("events", table);
        let changes = rows(facts).map(|(group, (user, amount))| (group, (user, (amount >= 0).then_some(amount))));
        views.publish("flow", changes.upsert());
    };
    let held = |value: Option<i64>| answer(value.map(|value| (("/a", value), 1)).into_iter().collect());
    check_log(
        &log,
        &Law { cuts: 18, seed: 1, ..Law::default() },
        dataflow,
        &[
            ("events", &|facts| held([Some(30), Some(30), None, None, None][facts.len() - 1])),
            ("flow", &|facts| held([Some(30), Some(30), None, None, Some(30)][facts.len() - 1])),
        ],
    );
}
