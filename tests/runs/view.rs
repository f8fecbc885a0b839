//! Reads of a view over several shards are what a sorted map of its rows answers.

use std::any::Any;
use std::cmp::Reverse;
use std::fmt::Debug;
use std::sync::Arc;

use columnar::Columnar;
use lambdaflow::log::Tick;
use lambdaflow::operators::{Rows, Sum, Sums};
use lambdaflow::runs::{
    AnswerRow, Changes, Data, Levels, Portion, Published, Query, ReadError, Run, ShardedView, View, ViewInfo, ViewShard, bucket,
};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::model::{self, Model, batch, holds, model, number, short_string};

/// The base's frontier: what is in its runs happened before.
const BASE: u64 = 10;
/// Everything below is complete.
const UPPER: u64 = 14;

/// A view's rows: those of the base, and later changes.
#[derive(Clone, Debug)]
struct Held<K, V> {
    base: Vec<(K, V, isize)>,
    changes: Vec<(K, V, u64, isize)>,
    shards: u64,
}

fn held<K: Data, V: Data>(
    key: impl Strategy<Value = K> + Clone,
    val: impl Strategy<Value = V> + Clone,
) -> impl Strategy<Value = Held<K, V>> {
    // Changes at and beyond `UPPER` are there and must not be seen.
    let changes = vec((key.clone(), val.clone(), BASE..UPPER + 2, -2isize..3), 0..30);
    (model::rows(key, val), changes, 1u64..4).prop_map(|(base, changes, shards)| Held { base, changes, shards })
}

impl<K: Data, V: Data + Serialize> Held<K, V> {
    fn view(&self) -> Arc<dyn View> {
        ShardedView::<Rows<K, V>>::assemble(info(), self.shards(), Portion::whole(self.shards as usize))
    }

    /// The view as the processes of a cluster have it, one shard each.
    fn portions(&self) -> Vec<Arc<dyn View>> {
        let of = self.shards as usize;
        let portion = |(first, shard)| ShardedView::<Rows<K, V>>::assemble(info(), vec![shard], Portion { first, of });
        self.shards().into_iter().enumerate().map(portion).collect()
    }

    fn shards(&self) -> Vec<Arc<dyn Any + Send + Sync>> {
        let shards = (0..self.shards).map(|shard| {
            let mine = |key: &K| bucket(key) % self.shards == shard;
            let rows = self.base.iter().filter(|(key, ..)| mine(key));
            let (early, late): (Vec<_>, Vec<_>) = rows.cloned().enumerate().partition(|(i, _)| i % 3 == 0);
            let runs = [early, late].map(|rows| Arc::new(Run::from_rows(rows.into_iter().map(|(_, row)| row))));
            let (first, second): (Vec<_>, Vec<_>) =
                self.changes.iter().filter(|(key, ..)| mine(key)).cloned().partition(|change| change.2 == BASE);
            let published = Published::new(BASE);
            let batches = [first, second].iter().filter_map(|changes| batch(changes)).collect();
            published.store(Changes { since: BASE - 1, upper: UPPER, batches });
            let shard = ViewShard::<Rows<K, V>> { base: Arc::new(Levels::of(runs.to_vec())), published: Arc::new(published) };
            Arc::new(shard) as Arc<dyn Any + Send + Sync>
        });
        shards.collect()
    }

    fn at(&self, tick: u64) -> Model<K, V> {
        let changes = self.changes.iter().filter(|change| change.2 <= tick);
        let all: Vec<_> = self.base.iter().cloned().chain(changes.map(|(key, val, _, n)| (key.clone(), val.clone(), *n))).collect();
        model(&all)
    }
}

fn info() -> ViewInfo {
    ViewInfo { name: "view".into(), key: vec!["a".into(), "b".into()], value: Vec::new() }
}

/// What the processes of a cluster answer together. All name the same owner of a key, and nobody else has rows of it.
fn together(portions: &[Arc<dyn View>], at: Tick, query: &Query) -> Vec<AnswerRow> {
    let read = |portion: &Arc<dyn View>, query: &Query| portion.read(at, query).expect("the tick is readable and the keys are keys");
    let Query::Get(keys) = query else {
        let parts = portions.iter().map(|portion| read(portion, query)).collect();
        return portions[0].merge(query, parts).expect("answers can be read again");
    };
    let of_key = |key: &Value| {
        let query = Query::Get(vec![key.clone()]);
        let owner = portions[0].owner(key).expect("a key");
        for (number, portion) in portions.iter().enumerate() {
            assert_eq!(portion.owner(key), Ok(owner));
            assert!(number == owner || read(portion, &query).is_empty());
        }
        read(&portions[owner], &query)
    };
    keys.iter().flat_map(of_key).collect()
}

/// Rows of the model whose key is wanted, by key, then by value.
fn rows<K: Data, V: Data>(model: &Model<K, V>, wanted: impl Fn(&K) -> bool, limit: usize) -> Vec<AnswerRow> {
    let rows = model.iter().filter(|((key, _), _)| wanted(key)).take(limit);
    rows.map(|((key, val), count)| AnswerRow { key: json!(key), value: json!(val), count: *count }).collect()
}

/// Checks every kind of read but the prefix, at a random tick.
fn reads_match<K: Data + Debug, V: Data + Debug>(key: impl Strategy<Value = K> + Clone, val: impl Strategy<Value = V> + Clone) {
    let limit = prop_oneof![4 => 0usize..20, 1 => Just(usize::MAX)];
    let asked = (
        held(key.clone(), val),
        BASE - 1..UPPER,
        limit,
        vec(key.clone(), 0..4),
        proptest::option::of(key.clone()),
        proptest::option::of(key),
    );
    holds(asked, |(held, tick, limit, keys, from, to)| {
        let (view, portions, model) = (held.view(), held.portions(), held.at(tick));
        let read = |query: Query| {
            let rows = view.read(Tick(tick), &query).expect("the tick is readable and the keys are keys");
            assert_eq!(together(&portions, Tick(tick), &query), rows, "asked of a cluster: {query:?}");
            rows
        };

        let mut asked: Vec<K> = model.keys().map(|(key, _)| key.clone()).step_by(3).collect();
        asked.extend(keys);
        let each = asked.iter().flat_map(|asked| rows(&model, |key| key == asked, usize::MAX)).collect::<Vec<_>>();
        prop_assert_eq!(read(Query::Get(asked.iter().map(|key| json!(key)).collect())), each);

        let within = rows(&model, |key| from.as_ref().is_none_or(|from| key >= from) && to.as_ref().is_none_or(|to| key < to), limit);
        let json = |key: &Option<K>| key.as_ref().map(|key| json!(key));
        prop_assert_eq!(read(Query::Range { from: json(&from), to: json(&to), limit }), within);

        prop_assert_eq!(read(Query::Scan { limit }), rows(&model, |_| true, limit));

        let mut best: Vec<_> = model.iter().map(|((key, val), n)| (Reverse(val), key, n)).collect();
        best.sort();
        let best: Vec<_> =
            best.iter().take(limit).map(|(val, key, n)| AnswerRow { key: json!(key), value: json!(val.0), count: **n }).collect();
        prop_assert_eq!(read(Query::Top(limit)), best);
        Ok(())
    });
}

#[test]
fn reads_of_string_keys_match_a_sorted_map() {
    reads_match(short_string(), number());
}

#[test]
fn reads_of_negative_keys_match_a_sorted_map() {
    reads_match(number(), short_string());
}

#[test]
fn reads_of_tuple_keys_match_a_sorted_map() {
    reads_match((short_string(), number()), (number(), proptest::option::of(short_string())));
}

#[test]
fn reads_of_optional_and_nested_keys_match_a_sorted_map() {
    reads_match((proptest::option::of(short_string()), (number(), any::<bool>())), 0u8..3);
}

/// Checks reads by prefix.
fn prefixes_match<K: Data + Debug>(
    key: impl Strategy<Value = K> + Clone,
    prefix: impl Strategy<Value = Value>,
    begins: impl Fn(&K, &Value) -> bool,
) {
    let asked = (held(key, 0i64..3), BASE - 1..UPPER, prop_oneof![0usize..10, Just(usize::MAX)], prefix);
    holds(asked, |(held, tick, limit, prefix)| {
        let query = Query::Prefix { prefix: prefix.clone(), limit };
        let got = held.view().read(Tick(tick), &query).expect("the tick is readable");
        prop_assert_eq!(&together(&held.portions(), Tick(tick), &query), &got);
        prop_assert_eq!(got, rows(&held.at(tick), |key| begins(key, &prefix), limit));
        Ok(())
    });
}

#[test]
fn a_string_prefix_finds_the_keys_that_begin_with_it() {
    prefixes_match(short_string(), short_string().prop_map(Value::from), |key, prefix| key.starts_with(prefix.as_str().expect("a string")));
}

/// All components but the last must be equal; the last may be a beginning, if it is a string.
#[test]
fn a_tuple_prefix_finds_the_keys_that_begin_with_its_components() {
    let prefix = prop_oneof![
        Just(json!([])),
        number().prop_map(|a| json!([a])),
        (number(), short_string()).prop_map(|(a, b)| json!([a, b])),
        (number(), short_string(), number()).prop_map(|(a, b, c)| json!([a, b, c])),
    ];
    prefixes_match((number(), short_string(), number()), prefix, |key, prefix| {
        let asked = prefix.as_array().expect("an array");
        let text = |at: usize| asked[at].as_str().expect("a string");
        match asked.len() {
            0 => true,
            1 => asked[0] == json!(key.0),
            2 => asked[0] == json!(key.0) && key.1.starts_with(text(1)),
            _ => *asked == [json!(key.0), json!(key.1), json!(key.2)],
        }
    });
}

#[test]
fn a_view_of_sums_answers_with_each_sum_once() {
    let base: Arc<Levels<String, (), (isize, Sum)>> =
        Arc::new(Levels::of(vec![Arc::new(Run::from_rows([("a".to_owned(), (), (2, Sum(5))), ("b".to_owned(), (), (1, Sum(9)))]))]));
    let changes =
        vec![(("a".to_owned(), ()), 10, (1, Sum(-5))), (("b".to_owned(), ()), 11, (-1, Sum(-9))), (("c".to_owned(), ()), 12, (1, Sum(7)))];
    let mut builder = differential_dataflow::trace::implementations::ValBuilder::<String, (), u64, (isize, Sum)>::default();
    differential_dataflow::trace::Builder::push(&mut builder, &mut changes.clone());
    let published = Published::new(BASE);
    let batches = differential_dataflow::trace::Builder::done(builder).map(Into::into).into_iter().collect();
    published.store(Changes { since: BASE - 1, upper: UPPER, batches });
    let shard = ViewShard::<Sums<String, Sum>> { base, published: Arc::new(published) };
    let view = ShardedView::<Sums<String, Sum>>::assemble(ViewInfo::default(), vec![Arc::new(shard)], Portion::whole(1));

    let read = |tick, query: Query| {
        view.read(Tick(tick), &query)
            .expect("the tick is readable")
            .into_iter()
            .map(|row| (row.key, row.value, row.count))
            .collect::<Vec<_>>()
    };
    let scan = Query::Scan { limit: usize::MAX };
    assert_eq!(read(9, scan.clone()), [(json!("a"), json!(5), 1), (json!("b"), json!(9), 1)]);
    assert_eq!(
        read(10, scan.clone()),
        [(json!("a"), json!(0), 1), (json!("b"), json!(9), 1)],
        "a group with records and a zero sum is there"
    );
    assert_eq!(read(11, scan), [(json!("a"), json!(0), 1)], "a group without records is not");
    assert_eq!(read(13, Query::Top(1)), [(json!("c"), json!(7), 1)]);
    assert_eq!(read(13, Query::Get(vec![json!("c"), json!("b"), json!("a")])), [(json!("c"), json!(7), 1), (json!("a"), json!(0), 1)]);
}

#[test]
fn a_read_that_cannot_be_exact_says_why() {
    let view = Held::<(String, i64), i64> { base: Vec::new(), changes: Vec::new(), shards: 2 }.view();
    let scan = Query::Scan { limit: 1 };
    assert_eq!(view.upper(), Tick(UPPER));
    assert_eq!(view.read(Tick(BASE - 2), &scan), Err(ReadError::TooOld { asked: Tick(BASE - 2), since: Tick(BASE - 1) }));
    assert_eq!(view.read(Tick(UPPER), &scan), Err(ReadError::NotYet { asked: Tick(UPPER), upper: Tick(UPPER) }));
    assert_eq!(view.read(Tick(BASE - 1), &scan), Ok(Vec::new()));
    for query in [Query::Get(vec![json!("a")]), Query::Range { from: Some(json!(["a"])), to: None, limit: 1 }] {
        assert!(matches!(view.read(Tick(BASE), &query), Err(ReadError::NotAKey { .. })), "{query:?}");
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
struct Page {
    site: String,
    depth: u64,
}

/// A struct as a prefix used to match every key.
#[test]
fn a_struct_cannot_be_a_prefix() {
    let page = |site: &str| (Page { site: site.to_owned(), depth: 1 }, 0u64);
    let view = Held { base: vec![(page("a"), 1u64, 1), (page("b"), 2, 1)], changes: Vec::new(), shards: 1 }.view();
    for prefix in [json!({"site": "a"}), json!([{"site": "a", "depth": 1}])] {
        let read = view.read(Tick(BASE), &Query::Prefix { prefix, limit: 9 });
        assert!(matches!(read, Err(ReadError::NotAKey { .. })), "{read:?}");
    }
}

/// Variants are ordered as they are declared, and written by their names: a search for where the prefix begins, guided by
/// the JSON, once ended at the wrong key.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
enum Method {
    Post,
    Get,
    Delete,
}

#[test]
fn a_prefix_finds_keys_that_are_not_ordered_like_their_json() {
    let methods = [Method::Post, Method::Get, Method::Delete];
    let base = methods.iter().flat_map(|method| (0..9u64).map(|n| ((*method, n), 0u64, 1))).collect();
    let held = Held { base, changes: Vec::new(), shards: 2 };
    for method in methods {
        let query = Query::Prefix { prefix: json!([method]), limit: usize::MAX };
        let found = held.view().read(Tick(BASE), &query).expect("the tick is readable");
        assert_eq!(found, rows(&held.at(BASE), |key| key.0 == method, usize::MAX), "{method:?}");
        assert_eq!(found.len(), 9);
    }
}
