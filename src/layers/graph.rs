//! Building one graph of a dataflow on one worker. Batch and speed differ in the layer they are given, in nothing else.

use std::sync::Arc;

use timely::dataflow::Scope;
use timely::dataflow::StreamVec;
use timely::dataflow::operators::generic::operator::source;
use timely::scheduling::SyncActivator;
use timely::worker::Worker;

use crate::log::Event;
use crate::operators::{Chunk, Epoch, Events, Graph, Layer, Views};

use super::feed::{Feed, Take};

/// A dataflow's definition: events in, named views out.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a dataflow over events `{E}`",
    label = "not a `fn(Events<'_, {E}>, &mut Views)`",
    note = "a dataflow takes the events and publishes its views: `fn name(events: Events<'_, {E}>, views: &mut Views)`; a closure needs both types written down"
)]
pub trait Dataflow<E: Event>: Send + Sync + 'static {
    /// Writes the dataflow down. Called once for each graph on each worker; it must do the same each time.
    fn build<'s>(&self, events: Events<'s, E>, views: &mut Views);
}

impl<E: Event, F> Dataflow<E> for F
where
    F: for<'s> Fn(Events<'s, E>, &mut Views) + Send + Sync + 'static,
{
    fn build<'s>(&self, events: Events<'s, E>, views: &mut Views) {
        self(events, views)
    }
}

/// Events that a worker sends in one activation, so that operators behind it get their turn.
const EVENTS_PER_ACTIVATION: usize = 1 << 16;

/// Builds the graph. The returned activator wakes this worker's source when its feed has more.
pub(crate) fn build<E: Event>(
    worker: &mut Worker,
    name: &str,
    dataflow: &dyn Dataflow<E>,
    layer: &Layer,
    feed: Arc<Feed<E>>,
) -> SyncActivator {
    worker.dataflow_named::<u64, _, _>(name, |scope| {
        let epoch = if layer.freezes() { Epoch::At(layer.entry()) } else { Epoch::From(layer.entry()) };
        let (chunks, activator) = read(scope, feed, epoch, layer.entry());
        let (graph, mut views) = (Graph::new(layer.clone()), Views::new(layer.clone()));
        dataflow.build(Events::new(graph.clone(), chunks), &mut views);
        graph.publish_errors(scope, &mut views);
        activator
    })
}

/// The source operator: this worker's share of the feed.
fn read<'s, E: Event>(
    scope: Scope<'s, u64>,
    feed: Arc<Feed<E>>,
    epoch: Epoch,
    entry: u64,
) -> (StreamVec<'s, u64, Chunk<E>>, SyncActivator) {
    let mut wake = None;
    let chunks = source(scope, "Log", |capability, info| {
        wake = Some(scope.worker().sync_activator_for(info.address.to_vec()));
        let activator = scope.activator_for(info.address);
        let mut capability = Some(capability.delayed(&entry));
        move |output| {
            let Some(held) = &mut capability else { return };
            let mut left = EVENTS_PER_ACTIVATION;
            let complete = loop {
                let (taken, complete) = feed.take();
                match taken {
                    Take::Block(block) => {
                        left = left.saturating_sub(block.len());
                        output.session(held).give(Chunk::new(block, epoch));
                        if left == 0 {
                            activator.activate();
                            break Some(complete);
                        }
                    }
                    Take::Nothing => break Some(complete),
                    Take::End => break None,
                    // What comes is missing for good, so no time from here on is complete: a graph that follows stays where
                    // it is until it is closed. A batch graph ends, and whoever runs it asks the feed how.
                    Take::Failed if matches!(epoch, Epoch::From(_)) => return,
                    Take::Failed => break None,
                }
            };
            match (complete, epoch) {
                (None, _) => capability = None,
                (Some(complete), Epoch::From(_)) if complete.0 > *held.time() => held.downgrade(&complete.0),
                // A batch's one epoch ends when its input does; until then there is more to take.
                (Some(_), Epoch::At(_)) => activator.activate(),
                _ => {}
            }
        }
    })
    .container::<Vec<_>>();
    (chunks, wake.expect("the source was built"))
}
