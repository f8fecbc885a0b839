//! Reduce: any function of a key's rows.
//!
//! **Law.** When a change first touches a key, the key's rows in the base's input run are brought in, at that tick; the
//! arrangement then holds base plus changes for every touched key, the function runs on it, and the key's rows in the
//! base's output run are subtracted. What is left are the changes of the output. Keys never touched contribute nothing, as
//! they should: their output is the base's.
//! **State.** An arrangement of the touched keys' rows and one of their results.
//! **Cost.** One call of the function for each touched key and tick, over all of the key's rows.

use differential_dataflow::AsCollection;
use differential_dataflow::trace::implementations::ValBuilder;

use crate::runs::shared::SharedSpine;
use crate::runs::{Data, Levels, Run};

use super::arranged::{Kept, arrange};
use super::flow::{Diff, Flow, place};
use super::layer::{Layer, Slot};
use super::touch::{Touched, first_touches, look_up};

impl<'s, K: Data, V: Data> Flow<'s, (K, V)> {
    /// Replaces the rows of each key by what `logic` makes of them. It gets the key, its values in order with their
    /// multiplicities (never zero, never none at all), and adds `(value, multiplicity)` results.
    pub fn reduce<W: Data>(self, logic: impl FnMut(&K, &[(&V, Diff)], &mut Vec<(W, Diff)>) + 'static) -> Flow<'s, (K, W)> {
        self.reduce_named("Reduce", logic)
    }

    /// [`Flow::reduce`] under a name that profiles show.
    pub fn reduce_named<W: Data>(
        self,
        name: &str,
        mut logic: impl FnMut(&K, &[(&V, Diff)], &mut Vec<(W, Diff)>) + 'static,
    ) -> Flow<'s, (K, W)> {
        let layer = self.layer;
        let input_slot = layer.slot::<K, V, Diff>(&format!("{name} input"));
        let output_slot = layer.slot::<K, W, Diff>(&format!("{name} output"));
        let placed = place(self.changes.inner);

        let mut input = placed.clone().as_collection();
        let mut known_output = None;
        let mut touched = Touched::<K>::default();
        if layer.has_base() {
            let (touches, seen) = first_touches(placed);
            touched = seen;
            let touches = touches.map(|key| (key, ())).inner;
            let known_input = look_up(touches.clone(), &input_slot.base, "BaseInput").map(|(key, ((), val))| (key, val));
            input = input.concat(known_input);
            known_output = Some(look_up(touches, &output_slot.base, "BaseOutput").map(|(key, ((), row))| (key, row)));
        }

        let arranged = arrange(input.inner, name);
        let reduced = arranged.clone().reduce_abelian::<_, ValBuilder<K, W, u64, Diff>, SharedSpine<K, W, Diff>, _, _>(
            name,
            move |key, rows, results| logic(key, rows, results),
            |buffer, key, updates| {
                buffer.clear();
                buffer.extend(updates.drain(..).map(|(row, time, diff)| ((key.clone(), row), time, diff)));
            },
        );
        freeze(&layer, &input_slot, Kept::new(&layer, &arranged.trace), touched.clone());
        freeze(&layer, &output_slot, Kept::new(&layer, &reduced.trace), touched);

        let results = reduced.as_collection(|key, row| (key.clone(), row.clone()));
        let changes = match known_output {
            Some(known) => results.concat(known.negate()),
            None => results,
        };
        Flow::new(layer, changes)
    }
}

/// Freezes an arrangement of all rows of the touched keys: its rows, less the base's rows of those keys.
fn freeze<K: Data, V: Data>(layer: &Layer, slot: &Slot<K, V, Diff>, kept: Kept<K, V, Diff>, touched: Touched<K>) {
    let base = std::sync::Arc::clone(&slot.base);
    layer.freeze_by(slot, move || {
        let mut rows = kept.rows();
        rows.extend(rows_of(&base, &touched).into_iter().map(|(key, val, diff)| (key, val, -diff)));
        Run::from_rows(rows)
    });
}

fn rows_of<K: Data, V: Data>(base: &Levels<K, V, Diff>, keys: &Touched<K>) -> Vec<(K, V, Diff)> {
    let mut base = crate::runs::Lookup::new(base);
    let mut all = Vec::new();
    for key in keys.borrow().keys() {
        all.extend(base.rows(key).iter().map(|(val, diff)| (key.clone(), val.clone(), *diff)));
    }
    all
}
