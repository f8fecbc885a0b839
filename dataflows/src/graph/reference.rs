//! Computes the answers of every view with plain loops and maps: the oracle for the dataflow.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::{Value, json};

use super::GraphChange;

/// The rows of each view, `{"key": .., "value": .., "count": n}`, ascending by key.
pub type Answers = BTreeMap<&'static str, Vec<Value>>;

/// The answers of every view after those changes; their order does not matter.
pub fn answers<'a>(changes: impl IntoIterator<Item = &'a GraphChange>) -> Answers {
    let mut edges: BTreeMap<(u64, u64), i64> = BTreeMap::new();
    let mut roots: BTreeMap<u64, i64> = BTreeMap::new();
    for change in changes {
        match change {
            GraphChange::InsertEdge(edge) => *edges.entry((edge.from, edge.to)).or_default() += 1,
            GraphChange::DeleteEdge(edge) => *edges.entry((edge.from, edge.to)).or_default() -= 1,
            GraphChange::InsertRoot(root) => *roots.entry(root.node).or_default() += 1,
            GraphChange::DeleteRoot(root) => *roots.entry(root.node).or_default() -= 1,
        }
    }
    edges.retain(|_, n| *n > 0);
    roots.retain(|_, n| *n > 0);

    let mut onward: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut beside: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut degrees: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for (from, to) in edges.keys() {
        onward.entry(*from).or_default().insert(*to);
        beside.entry(*from).or_default().insert(*to);
        beside.entry(*to).or_default().insert(*from);
        degrees.entry(*from).or_default().0 += 1;
        degrees.entry(*to).or_default().1 += 1;
    }

    // Ring by ring around the roots: whoever is in a ring was in none before.
    let mut distances: BTreeMap<u64, u32> = BTreeMap::new();
    let (mut ring, mut distance): (BTreeSet<u64>, u32) = (roots.into_keys().collect(), 0);
    while !ring.is_empty() {
        distances.extend(ring.iter().map(|node| (*node, distance)));
        let next = ring.iter().filter_map(|node| onward.get(node)).flatten();
        ring = next.filter(|to| !distances.contains_key(to)).copied().collect();
        distance += 1;
    }

    let mut components: BTreeMap<u64, u64> = BTreeMap::new();
    let mut sizes: BTreeMap<u64, u64> = BTreeMap::new();
    for least in beside.keys() {
        let mut found = vec![*least];
        while let Some(node) = found.pop() {
            if let Entry::Vacant(unnamed) = components.entry(node) {
                unnamed.insert(*least);
                *sizes.entry(*least).or_default() += 1;
                found.extend(&beside[&node]);
            }
        }
    }

    let mut triangles: BTreeMap<u64, u64> = BTreeMap::new();
    for (node, neighbours) in &beside {
        // Each corner counts its own: pairs of its neighbours that are neighbours.
        let others = || neighbours.iter().filter(|other| *other != node);
        let n: usize = others().map(|b| others().filter(|c| b < c && beside[b].contains(c)).count()).sum();
        if n > 0 {
            triangles.insert(*node, n as u64);
        }
    }

    BTreeMap::from([
        ("reachable", rows(distances.keys().map(|node| (node, ())))),
        ("distances", rows(&distances)),
        ("components", rows(components)),
        ("component_sizes", rows(sizes)),
        ("degrees", rows(degrees)),
        ("triangles", rows(triangles)),
    ])
}

fn rows<K: Serialize, V: Serialize>(rows: impl IntoIterator<Item = (K, V)>) -> Vec<Value> {
    rows.into_iter().map(|(key, value)| json!({"key": key, "value": value, "count": 1})).collect()
}
