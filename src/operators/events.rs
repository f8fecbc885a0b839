//! The events of the log inside a dataflow: borrowed from the log's blocks, never retracted.

use std::ops::Range;

use columnar::{BorrowedOf, Index, Ref};
use differential_dataflow::AsCollection;
use timely::dataflow::StreamVec;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::Operator;

use crate::log::{Block, Event};
use crate::runs::Data;

use super::flow::Flow;
use super::layer::Layer;

/// At which times a graph sees events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epoch {
    /// Each at its own tick, but none before this time: what was earlier is seen in one epoch.
    From(u64),
    /// All at one time, which is not before any of their ticks.
    At(u64),
}

/// Events of one block with the times at which the graph sees them. Cheap to clone.
pub struct Chunk<E: Event> {
    block: Block<E>,
    epoch: Epoch,
}

impl<E: Event> Clone for Chunk<E> {
    fn clone(&self) -> Self {
        Self { block: self.block.clone(), epoch: self.epoch }
    }
}

impl<E: Event> Chunk<E> {
    /// A block seen in epochs of the given kind.
    pub fn new(block: Block<E>, epoch: Epoch) -> Self {
        Self { block, epoch }
    }

    /// The columns of the events, resolved once; rows outside [`Chunk::runs`] are not part of the chunk.
    pub fn columns(&self) -> BorrowedOf<'_, E> {
        self.block.columns()
    }

    /// Row ranges by time, ascending.
    pub fn runs(&self) -> Vec<(u64, Range<usize>)> {
        match self.epoch {
            Epoch::At(time) => vec![(time, self.block.range())],
            Epoch::From(from) => {
                let mut runs: Vec<(u64, Range<usize>)> = Vec::new();
                for (tick, rows) in self.block.tick_runs() {
                    match runs.last_mut() {
                        Some((time, before)) if tick.0 <= *time => before.end = rows.end,
                        _ => runs.push((tick.0.max(from), rows)),
                    }
                }
                runs
            }
        }
    }
}

/// The events of the log, as far as this graph has come.
pub struct Events<'s, E: Event> {
    pub(crate) layer: Layer,
    pub(crate) chunks: StreamVec<'s, u64, Chunk<E>>,
}

impl<E: Event> Clone for Events<'_, E> {
    fn clone(&self) -> Self {
        Self { layer: self.layer.clone(), chunks: self.chunks.clone() }
    }
}

impl<'s, E: Event> Events<'s, E> {
    /// The events that a stream of chunks brings.
    pub fn new(layer: Layer, chunks: StreamVec<'s, u64, Chunk<E>>) -> Self {
        Self { layer, chunks }
    }

    /// A row for each event. The event is borrowed: only what the row keeps is copied.
    pub fn map<D: Data>(self, mut logic: impl FnMut(Ref<'_, E>) -> D + 'static) -> Flow<'s, D> {
        self.flat_map(move |event| Some(logic(event)))
    }

    /// Any number of rows for each event.
    pub fn flat_map<D: Data, I: IntoIterator<Item = D>>(self, mut logic: impl FnMut(Ref<'_, E>) -> I + 'static) -> Flow<'s, D> {
        self.explode(move |event| logic(event).into_iter().map(|row| (row, 1)))
    }

    /// Any number of rows with multiplicities for each event; a negative one retracts a row that an earlier event made.
    pub fn explode<D: Data, I: IntoIterator<Item = (D, isize)>>(self, mut logic: impl FnMut(Ref<'_, E>) -> I + 'static) -> Flow<'s, D> {
        let rows = self.chunks.unary(Pipeline, "Rows", move |_, _| {
            move |input, output| {
                input.for_each(|time, chunks| {
                    let mut session = output.session(&time);
                    for chunk in chunks.drain(..) {
                        let columns = chunk.columns();
                        for (time, rows) in chunk.runs() {
                            for row in rows {
                                session.give_iterator(logic(columns.get(row)).into_iter().map(|(row, diff)| (row, time, diff)));
                            }
                        }
                    }
                });
            }
        });
        Flow::new(self.layer, rows.as_collection())
    }
}
