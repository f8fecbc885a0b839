//! Opaque: any differential code, recursion included.

use std::collections::{BTreeMap, BTreeSet};

use differential_dataflow::VecCollection;
use differential_dataflow::operators::iterate::Iterate;
use lambdaflow::operators::{Events, Views, opaque};

use crate::harness::{Fact, Kind, Multiset, answer, check, multiset, rows, rows_of};

/// Nodes of the graphs whose edges the facts are.
const NODES: u64 = 7;

/// A fact as an edge.
fn edge((user, amount): (u64, i64)) -> (u64, u64) {
    (user, (user + 1 + amount.unsigned_abs()) % NODES)
}

/// Pairs of nodes with a path of at least one edge between them.
fn paths<'s>(edges: VecCollection<'s, u64, (u64, u64), isize>) -> VecCollection<'s, u64, (u64, u64), isize> {
    let edges = edges.distinct();
    edges.clone().iterate(|scope, paths| {
        let edges = edges.enter(scope);
        let longer = paths.clone().map(|(from, to)| (to, from)).join_map(edges.clone(), |_, from, to| (*from, *to));
        longer.concat(edges).distinct()
    })
}

/// The same by walking from each node.
fn paths_of(edges: &BTreeSet<(u64, u64)>) -> Multiset<(u64, u64)> {
    let mut all = Multiset::new();
    for from in 0..NODES {
        let mut next = vec![from];
        while let Some(node) = next.pop() {
            for (_, to) in edges.iter().filter(|(start, _)| *start == node) {
                if all.insert((from, *to), 1).is_none() {
                    next.push(*to);
                }
            }
        }
    }
    all
}

fn dataflow(facts: Events<'_, Fact>, views: &mut Views) {
    let rows = rows(facts);
    views.publish("distinct", rows.clone().opaque("distinct", |rows| rows.distinct()));
    views.publish("count", rows.clone().map(|(group, _)| group).opaque("count", |groups| groups.count()));
    let (groups, users) = (rows.clone().map(|(group, _)| group), rows.clone().map(|(_, (user, _))| user));
    let amounts = rows.clone().map(|(_, (_, amount))| amount);
    // What one input says is of no use without what the base has of the others.
    let triples = opaque("triples", (groups, users, amounts), |(groups, users, amounts)| {
        let pairs = groups.distinct().map(|group| ((), group)).join(users.distinct().map(|user| ((), user)));
        pairs.join_map(amounts.distinct().map(|amount| ((), amount)), |(), (group, user), amount| (group.clone(), (*user, *amount)))
    });
    views.publish("triples", triples);
    let edges = rows.map(|(_, fact)| edge(fact));
    views.publish("paths", edges.clone().opaque("paths", paths));
    // Rows derived from an opaque operator's changes.
    views.publish("reached", edges.opaque("paths again", paths).map(|(from, _)| from).count());
}

fn edges_of(facts: &[Fact]) -> BTreeSet<(u64, u64)> {
    multiset(rows_of(facts).into_iter().map(|((_, fact), n)| (edge(fact), n))).into_keys().collect()
}

fn matches_plain_rust(kind: Kind) {
    check(
        kind,
        dataflow,
        &[
            ("distinct", &|facts| answer(rows_of(facts).into_keys().map(|row| (row, 1)).collect())),
            ("count", &|facts| {
                let groups = multiset(rows_of(facts).into_iter().map(|((group, _), n)| (group, n)));
                answer(groups.into_iter().map(|row| (row, 1)).collect())
            }),
            ("triples", &|facts| {
                let rows = rows_of(facts);
                let groups: BTreeSet<_> = multiset(rows.iter().map(|((group, _), n)| (group.clone(), *n))).into_keys().collect();
                let users: BTreeSet<_> = multiset(rows.iter().map(|((_, (user, _)), n)| (*user, *n))).into_keys().collect();
                let amounts: BTreeSet<_> = multiset(rows.iter().map(|((_, (_, amount)), n)| (*amount, *n))).into_keys().collect();
                let pairs = groups.iter().flat_map(|group| users.iter().map(move |user| (group.clone(), *user)));
                let triples = pairs.flat_map(|(group, user)| amounts.iter().map(move |amount| (group.clone(), (user, *amount))));
                answer(triples.map(|triple| (triple, 1)).collect())
            }),
            ("paths", &|facts| answer(paths_of(&edges_of(facts)))),
            ("reached", &|facts| {
                let mut counts = BTreeMap::<u64, isize>::new();
                paths_of(&edges_of(facts)).into_keys().for_each(|(from, _)| *counts.entry(from).or_default() += 1);
                answer(counts.into_iter().map(|row| (row, 1)).collect())
            }),
        ],
    );
}

#[test]
fn differential_code_and_recursion_match_plain_rust() {
    matches_plain_rust(Kind::Matched);
}

/// What the code makes of them is its own affair: differential's `distinct` takes a row that is missing for one that is
/// there, where [`lambdaflow::operators::Flow::distinct`] does not. The law holds either way.
#[test]
fn differential_code_sees_negative_multiplicities() {
    matches_plain_rust(Kind::Unmatched);
}
