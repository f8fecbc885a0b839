//! Opaque: any differential code, recursion included.
//!
//! **Law.** The base's input run is brought in whole, the code runs on base plus changes, and the base's output run is
//! subtracted.
//! **State.** Whatever the code keeps, over the whole input.
//! **Cost.** In each graph once the whole base (its hydration); then what the code costs.

use std::cell::RefCell;
use std::rc::Rc;

use differential_dataflow::consolidation::consolidate;
use differential_dataflow::operators::iterate::Iterate;
use differential_dataflow::{AsCollection, VecCollection};
use timely::dataflow::Scope;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::generic::operator::source;
use timely::dataflow::scope::Iterative;
use timely::order::Product;

use crate::runs::run::Place;
use crate::runs::{Data, Levels, Run};

use super::flow::{Diff, Flow, place};
use super::layer::{Layer, Slot};
use super::quarantine::Graph;

/// Rows of a base that enter in one activation, so that a graph's other operators get their turn.
const ROWS_PER_ACTIVATION: usize = 1 << 16;

/// Flows that differential code takes as its inputs: one, or a tuple of two or three.
pub trait Inputs<'s> {
    /// The whole collections, base included.
    type Collections;
    /// Takes a slot for each flow, and brings its base in.
    fn whole(self, name: &str) -> (Graph<'s>, Self::Collections);
}

impl<'s, D: Data> Inputs<'s> for Flow<'s, D> {
    type Collections = VecCollection<'s, u64, D, Diff>;
    fn whole(self, name: &str) -> (Graph<'s>, Self::Collections) {
        let graph = self.graph;
        let slot = graph.slot::<D, (), Diff>(&format!("{name} input"));
        freeze_changes(&graph, &slot, &self.changes);
        let whole = match graph.has_base() {
            true => self.changes.clone().concat(base_rows(self.changes.inner.scope(), &graph, &slot.base)),
            false => self.changes,
        };
        (graph, whole)
    }
}

impl<'s, A: Data, B: Data> Inputs<'s> for (Flow<'s, A>, Flow<'s, B>) {
    type Collections = (VecCollection<'s, u64, A, Diff>, VecCollection<'s, u64, B, Diff>);
    fn whole(self, name: &str) -> (Graph<'s>, Self::Collections) {
        let ((_, a), (graph, b)) = (self.0.whole(name), self.1.whole(name));
        (graph, (a, b))
    }
}

impl<'s, A: Data, B: Data, C: Data> Inputs<'s> for (Flow<'s, A>, Flow<'s, B>, Flow<'s, C>) {
    type Collections = (VecCollection<'s, u64, A, Diff>, VecCollection<'s, u64, B, Diff>, VecCollection<'s, u64, C, Diff>);
    fn whole(self, name: &str) -> (Graph<'s>, Self::Collections) {
        let ((_, a), (_, b), (graph, c)) = (self.0.whole(name), self.1.whole(name), self.2.whole(name));
        (graph, (a, b, c))
    }
}

/// Applies differential code to whole collections, base included, and gives the changes of what it makes of them.
///
/// The code is a function of its inputs: it may not depend on times, nor keep anything of its own.
pub fn opaque<'s, I: Inputs<'s>, D: Data>(
    name: &str,
    inputs: I,
    logic: impl FnOnce(I::Collections) -> VecCollection<'s, u64, D, Diff>,
) -> Flow<'s, D> {
    let (graph, whole) = inputs.whole(name);
    let slot = graph.slot::<D, (), Diff>(&format!("{name} output"));
    let mut changes = logic(whole);
    if graph.has_base() {
        let scope = changes.inner.scope();
        changes = changes.concat(base_rows(scope, &graph, &slot.base).negate());
    }
    freeze_changes(&graph, &slot, &changes);
    Flow::new(graph, changes)
}

impl<'s, D: Data> Flow<'s, D> {
    /// Applies differential code to the whole collection, base included: [`opaque()`] with one input.
    pub fn opaque<E: Data>(
        self,
        name: &str,
        logic: impl FnOnce(VecCollection<'s, u64, D, Diff>) -> VecCollection<'s, u64, E, Diff>,
    ) -> Flow<'s, E> {
        opaque(name, self, logic)
    }

    /// Repeats differential code on its own result until it no longer changes; the first round gets the rows of this flow.
    /// The code must end, for every input, and should close with an operator that consolidates (`distinct`, `reduce`).
    ///
    /// ```
    /// # use lambdaflow::prelude::*;
    /// # fn halves(numbers: Flow<'_, u64>, views: &mut Views) {
    /// // Every number that comes of halving, down to an odd one.
    /// let all = numbers.iterate("Halves", |_scope, numbers| {
    ///     let halves = numbers.clone().filter(|n| n % 2 == 0 && *n > 0).map(|n| n / 2);
    ///     halves.concat(numbers).distinct()
    /// });
    /// views.publish("halves", all.map(|n| (n, ())));
    /// # }
    /// ```
    pub fn iterate<F>(self, name: &str, logic: F) -> Self
    where
        for<'i> F: FnOnce(Iterative<'i, u64, u64>, Inner<'i, D>) -> Inner<'i, D>,
    {
        self.opaque(name, |rows| rows.iterate(logic))
    }
}

/// A collection inside a loop: times are pairs of a tick and a round.
pub type Inner<'i, D> = VecCollection<'i, Product<u64, u64>, D, Diff>;

/// Freezes what a collection changed by, all times added up.
fn freeze_changes<D: Data>(layer: &Layer, slot: &Slot<D, (), Diff>, changes: &VecCollection<'_, u64, D, Diff>) {
    if !layer.freezes() {
        return;
    }
    let rows: Rc<RefCell<Vec<(D, Diff)>>> = Rc::default();
    let frozen = Rc::clone(&rows);
    layer.freeze_by(slot, move || Run::from_rows(frozen.take().into_iter().map(|(row, diff)| (row, (), diff))));
    let placed = place(changes.clone().map(|row| (row, ())).inner);
    let mut consolidated = 0;
    placed.sink(Pipeline, "Freeze", move |(input, _)| {
        let mut rows = rows.borrow_mut();
        input.for_each(|_, updates| rows.extend(updates.drain(..).map(|((row, ()), _, diff)| (row, diff))));
        // A loop changes its mind: what it took back must not pile up.
        if rows.len() >= 2 * consolidated {
            consolidate(&mut rows);
            consolidated = rows.len().max(1024);
        }
    });
}

/// This worker's rows of the base, all at the layer's entry time.
fn base_rows<'s, D: Data>(scope: Scope<'s, u64>, layer: &Layer, base: &Levels<D, (), Diff>) -> VecCollection<'s, u64, D, Diff> {
    let runs = base.runs();
    let time = layer.entry();
    source(scope, "Base", move |capability, info| {
        let activator = scope.activator_for(info.address);
        let mut capability = Some(capability.delayed(&time));
        let (mut run, mut at) = (0, Place::default());
        move |output| {
            let Some(held) = &capability else { return };
            let mut session = output.session(held);
            let mut left = ROWS_PER_ACTIVATION;
            while run < runs.len() && left > 0 {
                let mut cursor = runs[run].cursor_at(at);
                while left > 0
                    && let Some(row) = cursor.key()
                {
                    let (reader, rows) = cursor.rows();
                    session.give((D::into_owned(row), time, reader.change(rows.start)));
                    cursor.step();
                    left -= 1;
                }
                (run, at) = if cursor.key().is_some() { (run, cursor.place()) } else { (run + 1, Place::default()) };
            }
            drop(session);
            if run == runs.len() {
                capability = None;
            } else {
                activator.activate();
            }
        }
    })
    .container::<Vec<_>>()
    .as_collection()
}
