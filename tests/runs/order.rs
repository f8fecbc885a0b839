//! Columnar rows are ordered as the owned values are: what `Data` demands of the types that people use.

use std::fmt::Debug;

use columnar::Columnar;
use lambdaflow::operators::{Count, HyperLogLog, Sum};
use lambdaflow::runs::Data;
use lambdaflow::runs::data::order;
use lambdaflow::runs::run::KeyProbe;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::model::{holds, number, short_string};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
struct Page {
    site: String,
    depth: i64,
    parent: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
struct Pair(i64, String);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
enum Method {
    Post,
    Get(u64),
    Other(String),
    Between { low: i64, high: i64 },
}

fn keeps_order<D: Data + Debug>(values: impl Strategy<Value = D>) {
    holds((&values, &values), |(a, b)| {
        let (mut probe_a, mut probe_b) = (KeyProbe::<D>::default(), KeyProbe::<D>::default());
        let (column_a, column_b) = (probe_a.set(&a), probe_b.set(&b));
        prop_assert_eq!(order::<D>(column_a, column_b), a.cmp(&b));
        prop_assert_eq!(D::into_owned(column_a), a);
        Ok(())
    });
}

/// A property test for each type.
macro_rules! ordered {
    ($($name:ident: $values:expr;)+) => {$(
        #[test]
        fn $name() {
            keeps_order($values);
        }
    )+};
}

ordered! {
    unsigned_8: any::<u8>();
    unsigned_16: any::<u16>();
    unsigned_32: any::<u32>();
    unsigned_64: any::<u64>();
    unsigned_128: any::<u128>();
    unsigned_size: any::<usize>();
    signed_8: any::<i8>();
    signed_16: any::<i16>();
    signed_32: any::<i32>();
    signed_64: number();
    signed_128: any::<i128>();
    signed_size: any::<isize>();
    booleans: any::<bool>();
    characters: any::<char>();
    unit: Just(());
    strings: short_string();
    options_of_unsigned: option::of(0u64..3);
    options_of_signed: option::of(number());
    options_of_strings: option::of(short_string());
    options_of_options: option::of(option::of(0u8..2));
    results: prop_oneof![(0u64..3).prop_map(Ok), short_string().prop_map(Err::<u64, _>)];
    vectors_of_bytes: vec(0u8..3, 0..4);
    vectors_of_signed: vec(number(), 0..4);
    vectors_of_strings: vec(short_string(), 0..3);
    vectors_of_vectors: vec(vec(0u8..2, 0..3), 0..3);
    vectors_of_tuples: vec((short_string(), number()), 0..3);
    arrays: prop::array::uniform3(0u8..3);
    tuples: (short_string(), number());
    nested_tuples: ((number(), short_string()), option::of(0u64..3), any::<bool>());
    tuples_of_four: (number(), short_string(), 0u8..2, option::of(short_string()));
    structs: (short_string(), number(), option::of(0u64..3)).prop_map(|(site, depth, parent)| Page { site, depth, parent });
    tuple_structs: (number(), short_string()).prop_map(|(a, b)| Pair(a, b));
    enums: prop_oneof![
        Just(Method::Post),
        (0u64..3).prop_map(Method::Get),
        short_string().prop_map(Method::Other),
        (number(), number()).prop_map(|(low, high)| Method::Between { low, high }),
    ];
    counts: any::<isize>().prop_map(Count);
    sums: number().prop_map(Sum);
    sketches: (0u64..3).prop_map(|value| HyperLogLog::of(&value));
}
