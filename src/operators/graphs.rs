//! Algorithms on graphs whose edges come and go: reachability, components, shortest paths, PageRank, equal identities.
//!
//! **Law.** Each is opaque: differential code, recursion included, over all edges.
//! **State.** The arrangements of the recursion, over the whole graph, in each layer's graph; a generation keeps the input and
//! the result. **Cost.** Once for each layer's graph the whole recursion; then for a change what of the recursion it changes,
//! which may be little (an edge inside a component) or all (the one bridge between two halves).
//!
//! An edge or root that is there several times counts once; one that is missing (below zero) counts not at all.

use differential_dataflow::VecCollection;
use differential_dataflow::algorithms::graphs::bfs::bfs;
use differential_dataflow::algorithms::graphs::propagate::propagate;
use differential_dataflow::operators::iterate::Iterate;

use crate::runs::Data;

use super::flow::{Diff, Flow};
use super::opaque::opaque;

/// The rank that each node of [`pagerank`] starts with: ranks are millionths.
pub const PAGERANK_UNIT: u64 = 1_000_000;

/// Of a node's rank, the percentage that it hands to the nodes it points to; the rest each node has by itself. 85 is the
/// damping factor of Brin and Page, "The anatomy of a large-scale hypertextual web search engine", 1998.
pub const PAGERANK_PERCENT: u64 = 85;

/// The nodes that a path from a root leads to, roots included.
pub fn reachable<'s, N: Data>(edges: Flow<'s, (N, N)>, roots: Flow<'s, N>) -> Flow<'s, N> {
    opaque("Reachable", (edges, roots), |(edges, roots)| {
        let (edges, roots) = (present(edges), present(roots));
        roots.clone().iterate(|scope, reached| {
            let (edges, roots) = (edges.enter(scope), roots.enter(scope));
            let next = edges.join_map(reached.map(|node| (node, ())), |_, to, ()| to.clone());
            next.concat(roots).distinct()
        })
    })
}

/// The least number of edges from a root to each node that can be reached.
pub fn distances<'s, N: Data>(edges: Flow<'s, (N, N)>, roots: Flow<'s, N>) -> Flow<'s, (N, u32)> {
    opaque("Distances", (edges, roots), |(edges, roots)| bfs(present(edges), present(roots)))
}

/// The least sum of lengths from a root to each node that can be reached. Edges are `(from, (to, length))`; sums that exceed
/// `u64` stay at its greatest value.
pub fn shortest_paths<'s, N: Data>(edges: Flow<'s, (N, (N, u64))>, roots: Flow<'s, N>) -> Flow<'s, (N, u64)> {
    opaque("ShortestPaths", (edges, roots), |(edges, roots)| {
        let (edges, roots) = (present(edges), present(roots).map(|root| (root, 0)));
        roots.clone().iterate(|scope, reached| {
            let (edges, roots) = (edges.enter(scope), roots.enter(scope));
            let next = reached.join_map(edges, |_, so_far: &u64, (to, length)| (to.clone(), so_far.saturating_add(*length)));
            next.concat(roots).reduce(|_, lengths, least| least.push((*lengths[0].0, 1)))
        })
    })
}

/// Each node of an edge with the least node of its component: nodes are in one if edges lead from one to the other, in any
/// direction.
pub fn components<'s, N: Data>(edges: Flow<'s, (N, N)>) -> Flow<'s, (N, N)> {
    edges.opaque("Components", |edges| {
        let edges = present(edges);
        let both = edges.clone().map(|(a, b)| (b, a)).concat(edges);
        let nodes = present(both.clone().map(|(node, _)| node));
        propagate(both, nodes.map(|node| (node.clone(), node)))
    })
}

/// PageRank after a number of rounds, in millionths ([`PAGERANK_UNIT`] is the average where every node points somewhere).
/// Nodes are those of the edges.
///
/// In each round a node hands 85 % of its rank ([`PAGERANK_PERCENT`]) to the nodes it points to, in equal parts rounded down to
/// whole millionths, and has 15 % of a unit from elsewhere. The rank of a node that points nowhere is handed to nobody.
/// Integers, so that both layers come to the same ranks whatever the order of the sums.
pub fn pagerank<'s, N: Data>(edges: Flow<'s, (N, N)>, rounds: usize) -> Flow<'s, (N, u64)> {
    edges.opaque("PageRank", |edges| {
        let edges = present(edges);
        let nodes = present(edges.clone().flat_map(|(from, to)| [from, to]));
        let degrees = edges.clone().map(|(from, _)| from).count();
        let own = nodes.clone().map(|node| (node, PAGERANK_UNIT * (100 - PAGERANK_PERCENT) / 100));
        let mut ranks = nodes.map(|node| (node, PAGERANK_UNIT));
        for _ in 0..rounds {
            let parts =
                ranks.join_map(degrees.clone(), |from, rank, degree| (from.clone(), rank * PAGERANK_PERCENT / 100 / (*degree as u64)));
            let handed = parts.join_map(edges.clone(), |_, part, to| (to.clone(), *part));
            ranks = handed.concat(own.clone()).reduce(|_, parts, rank| {
                rank.push((parts.iter().map(|(part, n)| *part * (*n as u64)).sum::<u64>(), 1));
            });
        }
        ranks
    })
}

impl<'s, N: Data, D: Data> Flow<'s, (N, D)> {
    /// Puts the least of all equal identities in place of each key. `equal` says which identities are the same, in any
    /// direction and through any number of steps; keys that it does not name stay as they are. Whatever is learnt late
    /// corrects rows that were there before.
    pub fn normalize(self, equal: Flow<'s, (N, N)>) -> Flow<'s, (N, D)> {
        self.left_join(components(equal)).map(|(id, (row, least))| (least.unwrap_or(id), row))
    }
}

/// Each row once, if it is there.
fn present<'s, D: Data>(rows: VecCollection<'s, u64, D, Diff>) -> VecCollection<'s, u64, D, Diff> {
    rows.threshold(|_, n| Diff::from(*n > 0))
}
