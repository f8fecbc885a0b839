//! Makes up changes of a graph: the same ones for the same seed on every machine, without end.
//!
//! Edges are inserted until there are enough; from then on one goes for each that comes.

use lambdaflow::testing::Random;

use super::{Edge, GraphChange, Root};

/// What the graph is like.
#[derive(Clone, Debug)]
pub struct GeneratorOptions {
    /// Nodes that edges are between, numbered from 0.
    pub nodes: u64,
    /// Edges that there are after a while. One for each node makes components of all sizes.
    pub edges: usize,
    /// Roots that there are.
    pub roots: usize,
}

impl Default for GeneratorOptions {
    fn default() -> Self {
        Self { nodes: 10_000, edges: 10_000, roots: 10 }
    }
}

/// One in so many changes replaces a root, once there are enough.
const ROOT_ONE_IN: u64 = 1_000;
/// One in so many edges is to one of the next nodes, which is how triangles come about.
const NEAR_ONE_IN: u64 = 4;
const NEAR: u64 = 3;

/// An endless, seeded stream of changes.
#[derive(Clone, Debug)]
pub struct Generator {
    options: GeneratorOptions,
    random: Random,
    edges: Vec<Edge>,
    roots: Vec<Root>,
}

impl Generator {
    /// The stream of a seed.
    pub fn new(seed: u64, options: GeneratorOptions) -> Self {
        Self { options, random: Random::new(seed), edges: Vec::new(), roots: Vec::new() }
    }

    fn edge(&mut self) -> Edge {
        let from = self.random.below(self.options.nodes);
        let to = match self.random.below(NEAR_ONE_IN) {
            0 => (from + 1 + self.random.below(NEAR)) % self.options.nodes,
            _ => self.random.below(self.options.nodes),
        };
        Edge { from, to }
    }
}

impl Iterator for Generator {
    type Item = GraphChange;

    fn next(&mut self) -> Option<GraphChange> {
        if self.roots.len() < self.options.roots {
            let root = Root { node: self.random.below(self.options.nodes) };
            self.roots.push(root);
            return Some(GraphChange::InsertRoot(root));
        }
        if self.random.below(ROOT_ONE_IN) == 0 && !self.roots.is_empty() {
            let at = self.random.below(self.roots.len() as u64) as usize;
            return Some(GraphChange::DeleteRoot(self.roots.swap_remove(at)));
        }
        if self.edges.len() >= self.options.edges.max(1) {
            let at = self.random.below(self.edges.len() as u64) as usize;
            return Some(GraphChange::DeleteEdge(self.edges.swap_remove(at)));
        }
        let edge = self.edge();
        self.edges.push(edge);
        Some(GraphChange::InsertEdge(edge))
    }
}
