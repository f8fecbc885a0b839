//! What of a graph can be reached, and what hangs together, while edges come and go.
//!
//! An event inserts or deletes an edge or a root ([`GraphChange`]). An edge is there while it was inserted more often than it
//! was deleted, in whatever order the events come; then it counts once. So it is with roots. Nodes are those of edges and roots.
//!
//! | view | what it has | how |
//! | --- | --- | --- |
//! | `distances` | the least number of edges from a root to each node that can be reached | recursion |
//! | `reachable` | those nodes | from `distances` |
//! | `components` | by node of an edge, the least node of its component: edges lead from one to the other, in any direction | recursion |
//! | `component_sizes` | by the least node, the nodes of its component | aggregate |
//! | `degrees` | by node of an edge, the edges that leave it and that enter it | aggregate |
//! | `triangles` | by node, the triangles it is a corner of. Edges count in either direction, and once | two joins |
//!
//! What it costs:
//!
//! - The recursions are [opaque](mod@lambdaflow::operators::opaque): every graph of either layer, so every batch cycle too, has
//!   all edges brought in and runs the recursion over all of them before it sees a change, however few changes there are. They
//!   stay in memory, with the arrangements of the recursion. Use it for graphs that fit, in memory and in that time.
//! - From then on a change costs what it changes. An edge within a component is next to nothing; the one edge between two
//!   large components gives all nodes of one of them another name, and its deletion gives the names back.
//! - Degrees cost what changes. Triangles keep all pairs of edges that share their least node: a node with 10,000 greater
//!   neighbours makes 50 million of them.
//!
//! [`mod@reference`] computes the same with plain loops, and **must not share logic with the dataflow**.

mod dataflow;
mod generate;
pub mod reference;

pub use dataflow::graph;
pub use generate::{Generator, GeneratorOptions};

use columnar::Columnar;
use lambdaflow::prelude::{Event, Program};
use serde::{Deserialize, Serialize};

/// The graph changes. As JSON: `{"insert_edge": {"from": 1, "to": 2}}`, `{"insert_root": {"node": 1}}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Columnar)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum GraphChange {
    InsertEdge(Edge),
    DeleteEdge(Edge),
    InsertRoot(Root),
    DeleteRoot(Root),
}

/// An edge leads from a node to a node, maybe the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Columnar)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Edge {
    pub from: u64,
    pub to: u64,
}

/// A node where paths begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Columnar)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the name says it")]
pub struct Root {
    pub node: u64,
}

impl Event for GraphChange {
    const NAME: &'static str = "graph.GraphChange";
    const VERSION: u32 = 1;
    const FIELDS: &'static [&'static str] =
        &["InsertEdge: from u64, to u64", "DeleteEdge: from u64, to u64", "InsertRoot: node u64", "DeleteRoot: node u64"];
}

/// The program: reads changes of a graph as JSON, one a line.
pub fn program() -> Program<GraphChange> {
    let json = |change| serde_json::to_string(&change).expect("a change is representable as JSON");
    Program::new("graph", graph)
        .summary("reachable nodes, distances, components and triangles of a graph whose edges come and go")
        .samples(move |seed| Generator::new(seed, GeneratorOptions::default()).map(json))
}
