//! The events of the log inside a dataflow: borrowed from the log's blocks, never retracted.
//!
//! **Law.** Linear: an event's rows follow from the event alone. **State.** None. **Cost.** One call for each event, once in
//! each graph that reads it; no copy but what the rows keep.

use std::fmt::Display;
use std::ops::Range;

use columnar::{BorrowedOf, Index, Ref};
use differential_dataflow::AsCollection;
use timely::dataflow::StreamVec;

use crate::log::{Block, Event};
use crate::runs::Data;

use super::flow::{Diff, Flow};
use super::quarantine::{Graph, Made, attempt, guarded};

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

    /// The block.
    pub fn block(&self) -> &Block<E> {
        &self.block
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
    pub(crate) graph: Graph<'s>,
    pub(crate) chunks: StreamVec<'s, u64, Chunk<E>>,
}

impl<E: Event> Clone for Events<'_, E> {
    fn clone(&self) -> Self {
        Self { graph: self.graph.clone(), chunks: self.chunks.clone() }
    }
}

impl<'s, E: Event> Events<'s, E> {
    /// The events that a stream of chunks brings.
    pub fn new(graph: Graph<'s>, chunks: StreamVec<'s, u64, Chunk<E>>) -> Self {
        Self { graph, chunks }
    }

    /// A row for each event. The event is borrowed: only what the row keeps is copied.
    pub fn map<D: Data>(self, mut logic: impl FnMut(Ref<'_, E>) -> D + 'static) -> Flow<'s, D> {
        self.each("map", move |event, made| {
            made.push(logic(event), 1);
            Ok(())
        })
    }

    /// A row for each event, or the reason why there is none, which goes into the view `errors` with the event's partition,
    /// tick and offset.
    pub fn try_map<D: Data, Error: Display>(self, mut logic: impl FnMut(Ref<'_, E>) -> Result<D, Error> + 'static) -> Flow<'s, D> {
        self.each("try_map", move |event, made| {
            made.push(logic(event).map_err(|error| error.to_string())?, 1);
            Ok(())
        })
    }

    /// Reports events that are odd: those for which `check` has a reason go into the view `errors` with it, and are still
    /// seen by everything else.
    pub fn validate<Error: Display>(&self, mut check: impl FnMut(Ref<'_, E>) -> Result<(), Error> + 'static) {
        self.clone().each::<()>("validate", move |event, _| check(event).map_err(|error| error.to_string()));
    }

    /// Any number of rows for each event.
    pub fn flat_map<D: Data, I: IntoIterator<Item = D>>(self, mut logic: impl FnMut(Ref<'_, E>) -> I + 'static) -> Flow<'s, D> {
        self.each("flat_map", move |event, made| {
            logic(event).into_iter().for_each(|row| made.push(row, 1));
            Ok(())
        })
    }

    /// Any number of rows with multiplicities for each event; a negative one retracts a row that an earlier event made.
    pub fn explode<D: Data, I: IntoIterator<Item = (D, Diff)>>(self, mut logic: impl FnMut(Ref<'_, E>) -> I + 'static) -> Flow<'s, D> {
        self.each("explode", move |event, made| {
            logic(event).into_iter().for_each(|(row, times)| made.push(row, times));
            Ok(())
        })
    }

    /// The rows that `logic` makes of each event: all or none of an event's.
    fn each<D: Data>(self, name: &str, mut logic: impl FnMut(Ref<'_, E>, &mut Made<'_, D>) -> Result<(), String> + 'static) -> Flow<'s, D> {
        let mut guard = self.graph.guard(name);
        let rows = guarded(&self.graph, self.chunks, name, move |chunks, made, failed| {
            for chunk in chunks {
                let columns = chunk.columns();
                for (time, rows) in chunk.runs() {
                    let (mut next, mut whole) = (rows.start, made.len());
                    while next < rows.end {
                        let outcome = attempt(|| {
                            while next < rows.end {
                                logic(columns.get(next), &mut Made::new(made, time, 1))?;
                                (next, whole) = (next + 1, made.len());
                            }
                            Ok(())
                        });
                        if let Err(message) = outcome {
                            made.truncate(whole);
                            failed.push((guard.event(message, chunk.block(), next), time, 1));
                            next += 1;
                        }
                    }
                }
            }
        });
        Flow::new(self.graph, rows.as_collection())
    }
}
