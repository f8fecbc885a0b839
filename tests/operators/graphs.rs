//! Algorithms on graphs with edges that come and go.

use std::collections::{BTreeMap, BTreeSet};

use lambdaflow::operators::graphs::{PAGERANK_PERCENT, PAGERANK_UNIT, components, distances, pagerank, reachable, shortest_paths};
use lambdaflow::operators::{Events, Views};

use crate::harness::{Fact, Kind, Multiset, Row, answer, check, multiset, rows, rows_of};

/// Nodes of the graphs whose edges the facts are.
const NODES: u64 = 8;
const ROUNDS: usize = 5;

fn edge((_, (user, amount)): &Row) -> (u64, u64) {
    (*user, (3 * user + amount.unsigned_abs()) % NODES)
}

fn length((group, _): &Row) -> u64 {
    1 + 3 * group.len() as u64
}

fn is_root((group, (_, amount)): &Row) -> bool {
    group == "/" && *amount < 1
}

fn dataflow(facts: Events<'_, Fact>, views: &mut Views) {
    let rows = rows(facts);
    let edges = rows.clone().map(|row| edge(&row));
    let roots = rows.clone().filter(is_root).map(|(_, (user, _))| user);
    views.publish("reachable", reachable(edges.clone(), roots.clone()).map(|node| (node, ())));
    views.publish("distances", distances(edges.clone(), roots.clone()));
    let lengths = rows.clone().map(|row| (edge(&row).0, (edge(&row).1, length(&row))));
    views.publish("shortest_paths", shortest_paths(lengths, roots));
    views.publish("components", components(edges.clone()));
    views.publish("pagerank", pagerank(edges.clone(), ROUNDS));
    let users = rows.map(|(group, (user, _))| (user + 5, group));
    views.publish("normalized", users.normalize(edges.filter(|(from, _)| from % 2 == 0)));
}

/// The edges that are there, with the least length of each.
fn edges_of(rows: &Multiset<Row>) -> BTreeSet<(u64, u64)> {
    let edges = multiset(rows.iter().map(|(row, n)| (edge(row), *n)));
    edges.into_iter().filter(|(_, n)| *n > 0).map(|(edge, _)| edge).collect()
}

fn roots_of(rows: &Multiset<Row>) -> BTreeSet<u64> {
    let roots = multiset(rows.iter().filter(|(row, _)| is_root(row)).map(|((_, (user, _)), n)| (*user, *n)));
    roots.into_iter().filter(|(_, n)| *n > 0).map(|(root, _)| root).collect()
}

/// Lengths of the shortest paths, by going over all edges until nothing gets shorter.
fn paths(edges: &BTreeSet<(u64, u64, u64)>, roots: &BTreeSet<u64>) -> BTreeMap<u64, u64> {
    let mut known: BTreeMap<u64, u64> = roots.iter().map(|root| (*root, 0)).collect();
    loop {
        let before = known.clone();
        for (from, to, length) in edges {
            if let Some(so_far) = known.get(from).copied() {
                let known = known.entry(*to).or_insert(u64::MAX);
                *known = (*known).min(so_far + length);
            }
        }
        if known == before {
            return known;
        }
    }
}

fn hops(rows: &Multiset<Row>) -> BTreeMap<u64, u64> {
    paths(&edges_of(rows).into_iter().map(|(from, to)| (from, to, 1)).collect(), &roots_of(rows))
}

fn components_of(edges: &BTreeSet<(u64, u64)>) -> BTreeMap<u64, u64> {
    let mut least: BTreeMap<u64, u64> = edges.iter().flat_map(|(a, b)| [(*a, *a), (*b, *b)]).collect();
    for _ in 0..NODES {
        for (a, b) in edges {
            let both = least[a].min(least[b]);
            least.insert(*a, both);
            least.insert(*b, both);
        }
    }
    least
}

fn ranks_of(edges: &BTreeSet<(u64, u64)>) -> BTreeMap<u64, u64> {
    let mut ranks: BTreeMap<u64, u64> = edges.iter().flat_map(|(a, b)| [*a, *b]).map(|node| (node, PAGERANK_UNIT)).collect();
    for _ in 0..ROUNDS {
        let mut next: BTreeMap<u64, u64> = ranks.keys().map(|node| (*node, PAGERANK_UNIT * (100 - PAGERANK_PERCENT) / 100)).collect();
        for (from, to) in edges {
            let degree = edges.iter().filter(|(other, _)| other == from).count() as u64;
            *next.get_mut(to).expect("a node") += ranks[from] * PAGERANK_PERCENT / 100 / degree;
        }
        ranks = next;
    }
    ranks
}

fn once<K: Ord, V: Ord>(rows: impl IntoIterator<Item = (K, V)>) -> Multiset<(K, V)> {
    multiset(rows.into_iter().map(|row| (row, 1)))
}

fn matches_plain_rust(kind: Kind) {
    check(
        kind,
        dataflow,
        &[
            ("reachable", &|facts| answer(once(hops(&rows_of(facts)).into_keys().map(|node| (node, ()))))),
            ("distances", &|facts| answer(once(hops(&rows_of(facts))))),
            ("shortest_paths", &|facts| {
                let rows = rows_of(facts);
                let lengths = multiset(rows.iter().map(|(row, n)| ((edge(row).0, edge(row).1, length(row)), *n)));
                let edges = lengths.into_iter().filter(|(_, n)| *n > 0).map(|(edge, _)| edge).collect();
                answer(once(paths(&edges, &roots_of(&rows))))
            }),
            ("components", &|facts| answer(once(components_of(&edges_of(&rows_of(facts)))))),
            ("pagerank", &|facts| answer(once(ranks_of(&edges_of(&rows_of(facts)))))),
            ("normalized", &|facts| {
                let rows = rows_of(facts);
                let least = components_of(&edges_of(&rows).into_iter().filter(|(from, _)| from % 2 == 0).collect());
                let named = rows.iter().map(|((group, (user, _)), n)| ((user + 5, group.clone()), *n));
                answer(multiset(named.map(|((user, group), n)| ((least.get(&user).copied().unwrap_or(user), group), n))))
            }),
        ],
    );
}

#[test]
fn graph_algorithms_match_plain_rust() {
    matches_plain_rust(Kind::Matched);
}

#[test]
fn edges_that_are_missing_count_not_at_all() {
    matches_plain_rust(Kind::Unmatched);
}
