//! Publishing: the named outputs of a dataflow.
//!
//! **Law.** A view's changes since the base are kept beside the base's run; a reader adds both. **State.** The changes, in
//! sorted batches that readers share, coalesced before the oldest tick that can be read. **Cost.** A change is sorted into a
//! batch and merged logarithmically often.

use std::any::Any;
use std::sync::Arc;

use differential_dataflow::trace::TraceReader;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;
use timely::progress::Antichain;

use crate::log::Tick;
use crate::runs::{Changes, Data, Portion, Published, Run, Shape, ShardedView, View, ViewInfo, ViewShard};

use super::aggregate::Aggregated;
use super::arranged::{Kept, arrange};
use super::flow::{Diff, Flow, place};
use super::layer::Layer;
use super::monoid::{Fold, Monoid};
use super::quarantine::ERRORS;

/// One worker's part of a view, for whoever puts the parts of all workers together.
#[derive(Clone)]
pub struct ViewExport {
    /// Name and columns.
    pub info: ViewInfo,
    /// The slot that holds the view's rows.
    pub slot: usize,
    /// A `ViewShard` of the view's shape.
    pub shard: Arc<dyn Any + Send + Sync>,
    /// Puts the shards of workers together.
    pub assemble: fn(ViewInfo, Vec<Arc<dyn Any + Send + Sync>>, Portion) -> Arc<dyn View>,
    /// A shard of the view that stands at a frontier, on levels of the slot's types.
    pub standing: fn(Arc<dyn Any + Send + Sync>, Tick) -> Arc<dyn Any + Send + Sync>,
}

/// The views of a dataflow under construction.
pub struct Views {
    layer: Layer,
}

/// A view just published, to name its columns.
pub struct NewView<'a> {
    layer: &'a Layer,
    index: usize,
}

impl Views {
    /// The views of a layer.
    pub fn new(layer: Layer) -> Self {
        Self { layer }
    }

    /// Publishes a flow of `(key, value)` rows or an aggregate under a name.
    ///
    /// # Panics
    /// If the name is taken or is `errors`, or is not made of letters, digits, `_` and `-`: it is part of URLs.
    pub fn publish(&mut self, name: &str, output: impl Publish) -> NewView<'_> {
        assert!(
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'),
            "`{name}` cannot name a view"
        );
        assert!(name != ERRORS, "the view `{ERRORS}` is every dataflow's own: it has what was quarantined");
        assert!(self.layer.views().iter().all(|view| view.info.name != name), "two views are called `{name}`");
        self.publish_reserved(name, output)
    }

    pub(crate) fn publish_reserved(&mut self, name: &str, output: impl Publish) -> NewView<'_> {
        output.publish(name);
        NewView { layer: &self.layer, index: self.layer.view_count() - 1 }
    }
}

impl NewView<'_> {
    /// Names the components of the key.
    pub fn key(self, names: &[&str]) -> Self {
        self.layer.describe(self.index, |view| view.info.key = names.iter().map(|name| name.to_string()).collect());
        self
    }

    /// Names the components of the value.
    pub fn value(self, names: &[&str]) -> Self {
        self.layer.describe(self.index, |view| view.info.value = names.iter().map(|name| name.to_string()).collect());
        self
    }
}

/// What can be published.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be published: a view's rows are `(key, value)` pairs",
    label = "not rows `(key, value)`, nor an aggregate",
    note = "a reader asks by key; rows without a value are published with `.map(|row| (row, ()))`"
)]
pub trait Publish {
    /// Arranges the rows, for readers in a speed graph and for the freezer in a batch graph.
    fn publish(self, name: &str);
}

/// Rows `(key, value)`; the answer is the value, with its multiplicity.
pub struct Rows<K, V>(std::marker::PhantomData<fn() -> (K, V)>);

impl<K: Data, V: Data> Shape for Rows<K, V> {
    type Key = K;
    type Val = V;
    type Change = Diff;
    type Answer = V;
    fn answer(val: &V, change: &Diff) -> (V, isize) {
        (val.clone(), *change)
    }
}

/// One sum for each key; the answer is the monoid's.
pub struct Sums<K, M>(std::marker::PhantomData<fn() -> (K, M)>);

impl<K: Data, M: Monoid> Shape for Sums<K, M> {
    type Key = K;
    type Val = ();
    type Change = Fold<M>;
    type Answer = M::Answer;
    fn answer((): &(), sum: &Fold<M>) -> (M::Answer, isize) {
        (sum.1.answer(), 1)
    }
}

impl<K: Data, V: Data> Publish for Flow<'_, (K, V)> {
    fn publish(self, name: &str) {
        publish::<Rows<K, V>>(&self.graph, name, place(self.changes.inner));
    }
}

impl<K: Data, M: Monoid> Publish for Aggregated<'_, K, M> {
    fn publish(self, name: &str) {
        publish::<Sums<K, M>>(&self.graph, name, self.changes.inner);
    }
}

fn publish<S: Shape>(layer: &Layer, name: &str, placed: StreamVec<'_, u64, ((S::Key, S::Val), u64, S::Change)>) {
    let slot = layer.slot::<S::Key, S::Val, S::Change>(&format!("view {name}"));
    let arranged = arrange(placed, name);
    let published = Arc::new(Published::new(layer.entry()));
    let kept = Kept::new(layer, &arranged.trace);
    layer.freeze_by(&slot, move || Run::from_rows(kept.rows()));

    if let Some(history) = layer.history() {
        let slot = Arc::clone(&published);
        let mut trace = arranged.trace;
        let mut upper = Antichain::from_elem(layer.entry());
        arranged.stream.sink(Pipeline, "Publish", move |(input, frontier)| {
            input.for_each(|_, spans| spans.clear());
            // The empty frontier comes when the graph is shut down: readers keep what they have.
            let Some(&next) = frontier.frontier().first() else {
                return;
            };
            if upper.less_than(&next) {
                upper = Antichain::from_elem(next);
                let since = history.since();
                trace.set_logical_compaction(Antichain::from_elem(since).borrow());
                trace.set_physical_compaction(upper.borrow());
                let since = trace.get_logical_compaction().first().copied().unwrap_or(since);
                let batches = trace.batches_through(Antichain::new().borrow()).expect("all committed batches can be read");
                slot.store(Changes { since, upper: next, batches });
            }
        });
    }

    layer.export(ViewExport {
        info: ViewInfo { name: name.to_owned(), ..ViewInfo::default() },
        slot: slot.index(),
        shard: Arc::new(ViewShard::<S> { base: slot.base, published }),
        assemble: ShardedView::<S>::assemble,
        standing: ViewShard::<S>::standing,
    });
}
