//! Opaque: any differential code, recursion included.
//!
//! **Law.** The base's input run is brought in whole, the code runs on base plus changes, and the base's output run is
//! subtracted.
//! **State.** Whatever the code keeps, over the whole input.
//! **Cost.** In each graph once the whole base (its hydration); then what the code costs.

use differential_dataflow::{AsCollection, VecCollection};
use timely::dataflow::Scope;
use timely::dataflow::operators::generic::operator::source;

use crate::runs::{Data, Levels, Run};

use super::arranged::{Kept, arrange};
use super::flow::{Diff, Flow, place};
use super::layer::{Layer, Slot};

/// Rows of a base that enter in one activation, so that a graph's other operators get their turn.
const ROWS_PER_ACTIVATION: usize = 1 << 16;

impl<'s, D: Data> Flow<'s, D> {
    /// Applies differential code to the whole collection, base included.
    pub fn opaque<E: Data>(
        self,
        name: &str,
        logic: impl FnOnce(VecCollection<'s, u64, D, Diff>) -> VecCollection<'s, u64, E, Diff>,
    ) -> Flow<'s, E> {
        let graph = self.graph;
        let input_slot = graph.slot::<D, (), Diff>(&format!("{name} input"));
        let output_slot = graph.slot::<E, (), Diff>(&format!("{name} output"));
        freeze_changes(&graph, &input_slot, &self.changes);

        let changes = if graph.has_base() {
            let scope = self.changes.inner.scope();
            let whole = self.changes.concat(base_rows(scope, &graph, &input_slot.base));
            logic(whole).concat(base_rows(scope, &graph, &output_slot.base).negate())
        } else {
            logic(self.changes)
        };
        freeze_changes(&graph, &output_slot, &changes);
        Flow::new(graph, changes)
    }
}

fn freeze_changes<D: Data>(layer: &Layer, slot: &Slot<D, (), Diff>, changes: &VecCollection<'_, u64, D, Diff>) {
    if layer.freezes() {
        let arranged = arrange(place(changes.clone().map(|row| (row, ())).inner), "Freeze");
        let kept = Kept::new(layer, &arranged.trace);
        layer.freeze_by(slot, move || Run::from_rows(kept.rows()));
    }
}

/// This worker's rows of the base, all at the layer's entry time.
fn base_rows<'s, D: Data>(scope: Scope<'s, u64>, layer: &Layer, base: &Levels<D, (), Diff>) -> VecCollection<'s, u64, D, Diff> {
    let runs = base.runs();
    let time = layer.entry();
    source(scope, "Base", move |capability, info| {
        let activator = scope.activator_for(info.address);
        let mut capability = Some(capability.delayed(&time));
        let (mut run, mut at) = (0, 0);
        move |output| {
            let Some(held) = &capability else { return };
            let mut session = output.session(held);
            let mut left = ROWS_PER_ACTIVATION;
            while run < runs.len() && left > 0 {
                let reader = runs[run].reader();
                while at < reader.key_count() && left > 0 {
                    let row = reader.rows(at).start;
                    session.give((D::into_owned(reader.key(at)), time, reader.change(row)));
                    (at, left) = (at + 1, left - 1);
                }
                if at == reader.key_count() {
                    (run, at) = (run + 1, 0);
                }
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
