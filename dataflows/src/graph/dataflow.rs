//! The dataflow: changes of a graph in, six views out. Batch and speed layer both run this definition.

use lambdaflow::operators::graphs;
use lambdaflow::prelude::*;

use super::{EdgeReference, GraphChange, GraphChangeReference as Lent, RootReference};

/// Publishes `distances`, `reachable`, `components`, `component_sizes`, `degrees` and `triangles`.
pub fn graph(changes: Events<'_, GraphChange>, views: &mut Views) {
    let edges = changes.clone().explode(|change| match change {
        Lent::InsertEdge(EdgeReference { from, to }) => Some(((*from, *to), 1)),
        Lent::DeleteEdge(EdgeReference { from, to }) => Some(((*from, *to), -1)),
        Lent::InsertRoot(_) | Lent::DeleteRoot(_) => None,
    });
    let roots = changes.explode(|change| match change {
        Lent::InsertRoot(RootReference { node }) => Some((*node, 1)),
        Lent::DeleteRoot(RootReference { node }) => Some((*node, -1)),
        Lent::InsertEdge(_) | Lent::DeleteEdge(_) => None,
    });
    let (edges, roots) = (edges.distinct(), roots.distinct());

    let distances = graphs::distances(edges.clone(), roots);
    views.publish("distances", distances.clone()).key(&["node"]).value(&["edges"]);
    // Another recursion would find the same nodes. One whose distance changes goes and comes in the same tick.
    views.publish("reachable", distances.map(|(node, _edges)| (node, ()))).key(&["node"]).value(&[]);

    let components = graphs::components(edges.clone());
    views.publish("components", components.clone()).key(&["node"]).value(&["least"]);
    let sizes = components.map(|(_node, least)| (least, ())).aggregate(|()| Count::one());
    views.publish("component_sizes", sizes).key(&["least"]).value(&["nodes"]);

    let ends = edges.clone().flat_map(|(from, to)| [(from, (1, 0)), (to, (0, 1))]);
    let degrees = ends.aggregate(|(leaves, enters)| (Count(*leaves), Count(*enters)));
    views.publish("degrees", degrees).key(&["node"]).value(&["out", "in"]);

    views.publish("triangles", triangles(edges)).key(&["node"]).value(&["triangles"]);
}

/// How many triangles each node is a corner of, if any.
fn triangles<'s>(edges: Flow<'s, (u64, u64)>) -> Aggregated<'s, u64, Count> {
    // A triangle is found once, from its least corner.
    let sides = edges.filter(|(from, to)| from != to).map(|(from, to)| (from.min(to), from.max(to))).distinct();
    let open = sides.clone().join_map(sides.clone(), |least, b, c| (b < c).then_some(((*b, *c), *least)));
    let closed = open.flat_map(|open| open).semijoin(sides);
    closed.flat_map(|((b, c), least)| [least, b, c].map(|corner| (corner, ()))).aggregate(|()| Count::one())
}
