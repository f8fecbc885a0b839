//! The model: rows with their sums in a sorted map, and random ones.

use std::collections::BTreeMap;

use differential_dataflow::trace::Builder;
use differential_dataflow::trace::implementations::ValBuilder;
use lambdaflow::runs::Data;
use lambdaflow::runs::shared::{Batch, Shared};
use lambdaflow::testing::Random;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

/// Random cases from `LAMBDAFLOW_SEED`, or from a fresh seed; printed, so that a failure can be repeated.
pub fn config() -> ProptestConfig {
    let seed = Random::seed_from_environment();
    println!("LAMBDAFLOW_SEED={seed}");
    ProptestConfig { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..ProptestConfig::default() }
}

/// Runs a property.
pub fn holds<S: Strategy>(cases: S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    if let Err(error) = TestRunner::new(config()).run(&cases, property) {
        panic!("{error}");
    }
}

/// Rows with their sums, none zero.
pub type Model<K, V> = BTreeMap<(K, V), isize>;

/// Rows as they come, in any order, with opposites among them.
pub type Rows<K, V> = Vec<(K, V, isize)>;

pub fn model<'a, K: Data, V: Data>(rows: impl IntoIterator<Item = &'a (K, V, isize)>) -> Model<K, V> {
    let mut model = Model::new();
    for (key, val, change) in rows {
        *model.entry((key.clone(), val.clone())).or_default() += change;
    }
    model.retain(|_, sum| *sum != 0);
    model
}

/// Short strings over few letters, so that they meet, one the beginning of another, not all ASCII.
pub fn short_string() -> impl Strategy<Value = String> + Clone {
    vec(prop::sample::select(vec!['a', 'b', '/', 'é', '\u{0}', '\u{10FFFF}']), 0..4).prop_map(String::from_iter)
}

/// Small numbers of both signs, and the extremes.
pub fn number() -> impl Strategy<Value = i64> + Clone {
    prop_oneof![8 => -4i64..4, 1 => Just(i64::MIN), 1 => Just(i64::MAX)]
}

pub fn rows<K: Data, V: Data>(keys: impl Strategy<Value = K>, vals: impl Strategy<Value = V>) -> impl Strategy<Value = Rows<K, V>> {
    vec((keys, vals, -2isize..3), 0..30)
}

/// A batch of changes at given times, as an arrangement makes it.
pub fn batch<K: Data, V: Data>(changes: &[(K, V, u64, isize)]) -> Option<Batch<K, V, isize>> {
    let mut updates: Vec<_> = changes.iter().map(|(key, val, time, change)| ((key.clone(), val.clone()), *time, *change)).collect();
    differential_dataflow::consolidation::consolidate_updates(&mut updates);
    let mut builder = ValBuilder::<K, V, u64, isize>::default();
    builder.push(&mut updates);
    builder.done().map(Shared::from)
}
