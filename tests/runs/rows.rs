//! Runs, levels, look-ups and merged rows hold the sums of what went in.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use lambdaflow::runs::{Data, Levels, Lookup, Merged, Run};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::model::{Model, Rows, batch, config, model, number, rows, short_string};

type Key = (String, i64);
type Val = Option<String>;

fn key() -> impl Strategy<Value = Key> {
    (short_string(), -2i64..2)
}

fn val() -> impl Strategy<Value = Val> {
    proptest::option::of(short_string())
}

/// A run's rows, in the order in which it keeps them.
fn read<K: Data, V: Data>(run: &Run<K, V, isize>) -> Vec<((K, V), isize)> {
    let mut cursor = run.cursor();
    let mut rows = Vec::new();
    while let Some(key) = cursor.key() {
        let mut of_key = Vec::new();
        cursor.collect(&mut of_key);
        rows.extend(of_key.into_iter().map(|(val, n)| ((K::into_owned(key), val), n)));
        cursor.step();
    }
    rows
}

/// A model's rows in order.
fn listed<K: Data, V: Data>(model: &Model<K, V>) -> Vec<((K, V), isize)> {
    model.iter().map(|(row, n)| (row.clone(), *n)).collect()
}

/// The values of one key.
fn vals_of<K: Data, V: Data>(model: &Model<K, V>, key: &K) -> Vec<(V, isize)> {
    model.iter().filter(|((k, _), _)| k == key).map(|((_, val), n)| (val.clone(), *n)).collect()
}

fn levels<K: Data, V: Data>(parts: &[Rows<K, V>]) -> Levels<K, V, isize> {
    parts.iter().fold(Levels::default(), |levels, rows| levels.plus(Arc::new(Run::from_rows(rows.iter().cloned()))))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_run_holds_the_sums_of_its_rows_in_order(rows in rows(key(), val())) {
        let run = Run::from_rows(rows.iter().cloned());
        let model = model(&rows);
        prop_assert_eq!(read(&run), listed(&model));
        prop_assert_eq!((run.len(), run.is_empty()), (model.len(), model.is_empty()));
    }

    #[test]
    fn a_run_of_signed_keys_finds_each_and_the_place_of_the_others(rows in rows(number(), number()), asked in number()) {
        let run = Run::from_rows(rows.iter().cloned());
        let mut cursor = run.cursor();
        cursor.seek(|key| *key < asked);
        let model = model(&rows);
        prop_assert_eq!(cursor.key().copied(), model.keys().map(|(key, _)| *key).find(|key| *key >= asked));
        let found = run.find(&asked).map(|range| range.rows.len()).unwrap_or(0);
        prop_assert_eq!(found, vals_of(&model, &asked).len());
    }

    #[test]
    fn merging_two_runs_adds_them_up(a in rows(key(), val()), b in rows(key(), val())) {
        let merged = Run::from_rows(a.iter().cloned()).merge(&Run::from_rows(b.iter().cloned()));
        prop_assert_eq!(read(&merged), listed(&model(a.iter().chain(&b))));
    }

    #[test]
    fn a_run_merged_with_its_opposite_is_empty(rows in rows(key(), val())) {
        let opposite = rows.iter().map(|(key, val, change)| (key.clone(), val.clone(), -change));
        prop_assert!(Run::from_rows(rows.iter().cloned()).merge(&Run::from_rows(opposite)).is_empty());
    }

    #[test]
    fn compacting_keeps_the_sum_and_leaves_each_run_twice_as_large_as_the_next(parts in vec(rows(key(), val()), 0..6)) {
        let levels = levels(&parts);
        levels.compact();
        let runs = levels.runs();
        prop_assert!(runs.windows(2).all(|pair| pair[0].len() >= 2 * pair[1].len()));
        prop_assert!(runs.iter().all(|run| !run.is_empty()));
        let sum = runs.iter().fold(Run::default(), |sum, run| sum.merge(run));
        prop_assert_eq!(read(&sum), listed(&model(parts.iter().flatten())));
    }

    #[test]
    fn a_look_up_adds_up_all_levels(parts in vec(rows(key(), val()), 0..4), absent in key()) {
        let (levels, model) = (levels(&parts), model(parts.iter().flatten()));
        let mut look_up = Lookup::new(&levels);
        let keys = parts.iter().flatten().map(|(key, ..)| key).chain([&absent]);
        for key in keys {
            prop_assert_eq!(look_up.rows(key), vals_of(&model, key));
        }
    }

    /// Compaction replaces runs under a reader that has loaded the old ones.
    #[test]
    fn a_look_up_is_not_disturbed_by_compaction(parts in vec(rows(key(), val()), 0..4)) {
        let (levels, model) = (levels(&parts), model(parts.iter().flatten()));
        let mut look_up = Lookup::new(&levels);
        levels.compact();
        for (key, ..) in parts.iter().flatten() {
            prop_assert_eq!(look_up.rows(key), vals_of(&model, key));
        }
    }

    #[test]
    fn merged_rows_are_the_runs_plus_the_changes_through_a_tick(
        parts in vec(rows(key(), val()), 0..3),
        batches in vec(vec((key(), val(), 5u64..9, -2isize..3), 0..20), 0..3),
        through in 4u64..10,
        from in key(),
    ) {
        let levels = levels(&parts);
        let runs = levels.runs();
        let columns: Vec<_> = batches.iter().filter_map(|changes| batch(changes)).collect();
        let merged = Merged { runs: &runs, batches: &columns, through };

        let changes = batches.iter().flatten().filter(|(_, _, time, _)| *time <= through);
        let all: Rows<Key, Val> = parts.iter().flatten().cloned().chain(changes.map(|(k, v, _, n)| (k.clone(), v.clone(), *n))).collect();
        let model = model(&all);

        let mut walked = BTreeMap::new();
        let mut order = Vec::new();
        merged.walk(&|key| *key < from, &mut |key, rows| {
            order.push(key.clone());
            walked.extend(rows.iter().map(|(val, n)| ((key.clone(), val.clone()), *n)));
            ControlFlow::Continue(())
        });
        prop_assert!(order.is_sorted_by(|a, b| a < b), "each key once, in order");
        prop_assert_eq!(listed(&walked), listed(&model.iter().filter(|((key, _), _)| *key >= from).map(|(row, n)| (row.clone(), *n)).collect()));

        let mut visits = 0;
        merged.walk(&|_| false, &mut |_, _| {
            visits += 1;
            ControlFlow::Break(())
        });
        prop_assert_eq!(visits, usize::from(!model.is_empty()));

        for (key, ..) in all.iter().chain([&(from, None, 0)]) {
            prop_assert_eq!(merged.get(key), vals_of(&model, key));
        }
        let whole = Run::from_rows(model.iter().map(|((key, val), n)| (key.clone(), val.clone(), *n)));
        let same = Merged { runs: &[Arc::new(whole)], batches: &[], through: 0 };
        prop_assert_eq!(merged.digest(), same.digest());
    }
}
