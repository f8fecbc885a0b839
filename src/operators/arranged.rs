//! Arrangements by our placement of keys, and reading them whole.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;

use differential_dataflow::operators::arrange::TraceAgent;
use differential_dataflow::operators::arrange::arrangement::{Arranged, arrange_core};
use differential_dataflow::trace::TraceReader;
use differential_dataflow::trace::implementations::ValBatcher;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::progress::Antichain;

use crate::runs::shared::SharedSpine;
use crate::runs::{Change, Data, Merged};

use super::layer::Layer;

/// A trace of rows by key.
pub(crate) type Trace<K, V, R> = TraceAgent<SharedSpine<K, V, R>>;

/// Arranges updates that are already placed by key.
pub(crate) fn arrange<'s, K: Data, V: Data, R: Change>(
    placed: StreamVec<'s, u64, ((K, V), u64, R)>,
    name: &str,
) -> Arranged<'s, Trace<K, V, R>> {
    arrange_core::<_, _, ValBatcher<K, V, u64, R>, SharedSpine<K, V, R>>(placed, Pipeline, name, ValBatcher::new)
}

/// A trace that a freezer will read at the end; none in a graph that is not frozen, where it would hold back compaction.
pub(crate) struct Kept<K: Data, V: Data, R: Change>(Rc<RefCell<Option<Trace<K, V, R>>>>);

impl<K: Data, V: Data, R: Change> Kept<K, V, R> {
    /// Keeps a trace if the layer freezes. Its batches may merge; their times may not be coalesced away.
    pub(crate) fn new(layer: &Layer, trace: &Trace<K, V, R>) -> Self {
        let kept = layer.freezes().then(|| {
            let mut trace = trace.clone();
            trace.set_physical_compaction(Antichain::new().borrow());
            trace
        });
        Self(Rc::new(RefCell::new(kept)))
    }

    /// All rows, with the sums of their changes over all times.
    pub(crate) fn rows(&self) -> Vec<(K, V, R)> {
        let Some(mut trace) = self.0.borrow_mut().take() else {
            return Vec::new();
        };
        let batches = trace.batches_through(Antichain::new().borrow()).expect("every batch of a finished graph can be read");
        let mut rows = Vec::new();
        Merged { runs: &[], batches: &batches, through: u64::MAX }.walk(&|_| false, &mut |key, of_key| {
            rows.extend(of_key.iter().map(|(val, change)| (key.clone(), val.clone(), change.clone())));
            ControlFlow::Continue(())
        });
        rows
    }
}
