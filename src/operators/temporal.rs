//! Temporal filters: rows that appear and disappear by themselves as the clock advances.
//!
//! The clock is the log's: ticks, milliseconds since 1970, which go on while no events come. Event time is ordinary data.
//!
//! **Law.** What is still to come (rows to appear and to disappear, by the tick at which they are due) is a collection like
//! any other, kept in a slot. A graph carries out what its base has due from the base's frontier on, and what its own input
//! adds. A batch carries out what is due at or before its last tick, all at once, and takes it out of the slot.
//! **State.** The changes to come since the base; those of the base stay in its run, which is in the order of their ticks.
//! **Cost.** A search of logarithmic time for a change, and its opposite when it is due. Nothing while nothing is due.
//!
//! Changes to come are kept here and not as updates of later times in differential's arrangements, which look through those
//! at every tick.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use differential_dataflow::AsCollection;
use differential_dataflow::consolidation::consolidate;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::Operator;

use crate::log::Tick;
use crate::runs::run::Place;
use crate::runs::{Data, Levels, Run};

use super::flow::{Diff, Flow, Update};

impl<'s, D: Data> Flow<'s, D> {
    /// Each row while the clock is within `ticks(row)`: it appears when it is there and its first tick has come, and disappears
    /// at the end, which is not included; `Tick(u64::MAX)` is never. A row that comes after its end never appears.
    pub fn valid_during(self, ticks: impl Fn(&D) -> Range<Tick> + 'static) -> Flow<'s, D> {
        let scheduled = self.each("valid_during", move |row, made| {
            let Range { start, end } = ticks(&row);
            made.push((row, (start.0, end.0)), 1);
            Ok(())
        });
        scheduled.carry_out()
    }

    /// The rows of the last `width` milliseconds of event time: each until the clock is `width` past `at(row)`, which is
    /// milliseconds since 1970. Rows that come later than that never appear; rows ahead of the clock appear at once.
    pub fn keep_last(self, width: u64, at: impl Fn(&D) -> u64 + 'static) -> Flow<'s, D> {
        self.valid_during(move |row| Tick(0)..Tick(at(row).saturating_add(width)))
    }
}

impl<'s, D: Data> Flow<'s, (D, (u64, u64))> {
    /// Rows from their first tick to before their end.
    fn carry_out(self) -> Flow<'s, D> {
        let graph = self.graph;
        let slot = graph.slot::<u64, D, Diff>("To come");
        let to_come: Rc<RefCell<ToCome<D>>> = Rc::new(RefCell::new(ToCome::on(&slot.base)));
        let frozen = Rc::clone(&to_come);
        graph.freeze_by(&slot, move || frozen.take().changes());

        let (entry, freezes) = (graph.entry(), graph.freezes());
        let rows = self.changes.inner.unary_frontier(Pipeline, "CarryOut", move |capability, _| {
            let mut held: Option<Capability<u64>> = Some(capability.delayed(&entry));
            let mut made: Vec<(D, Diff)> = Vec::new();
            move |(input, frontier), output| {
                let mut to_come = to_come.borrow_mut();
                input.for_each_stamp(|stamp, containers| {
                    let mut session = output.session(&stamp);
                    for ((row, (start, end)), tick, diff) in containers.flat_map(|updates| updates.drain(..)) {
                        if start.max(tick) >= end {
                            continue;
                        }
                        if start > tick {
                            to_come.add(start, row.clone(), diff);
                        }
                        if end < u64::MAX {
                            to_come.add(end, row.clone(), -diff);
                        }
                        if let Some(next) =
                            to_come.next_added().filter(|next| !freezes && held.as_ref().is_none_or(|held| held.time() > next))
                        {
                            held = Some(stamp.delayed(&next, 0));
                        }
                        if start <= tick {
                            session.give((row, tick, diff));
                        }
                    }
                });

                // A batch ends at its entry time; a speed graph whose input has ended is shut down, not at the end of time.
                let (due_before, closing) = match (freezes, frontier.frontier().first()) {
                    (true, _) => (entry.saturating_add(1), true),
                    (false, Some(complete)) => (*complete, false),
                    (false, None) => (0, true),
                };
                while let Some(due) = to_come.next().filter(|due| *due < due_before) {
                    to_come.take(due, freezes, &mut made);
                    let at = due.max(entry);
                    let capability = held.as_mut().expect("held for the next tick that is due");
                    capability.downgrade(&at);
                    output.session(capability).give_iterator(made.drain(..).map(|(row, diff)| -> Update<D> { (row, at, diff) }));
                }
                held = match (&held, to_come.next()) {
                    (Some(held), Some(next)) if !closing => Some(held.delayed(&next.max(entry))),
                    _ => None,
                };
            }
        });
        Flow::new(graph, rows.as_collection())
    }
}

/// Changes by the tick at which they are due.
struct ToCome<D: Data> {
    base: Arc<Vec<Arc<Run<u64, D, Diff>>>>,
    /// By run of the base, the first key that was not carried out.
    at: Vec<Place>,
    added: BTreeMap<u64, Vec<(D, Diff)>>,
    /// What was carried out of the base, in a graph that is frozen.
    taken: Vec<(u64, D, Diff)>,
}

impl<D: Data> Default for ToCome<D> {
    fn default() -> Self {
        Self { base: Arc::default(), at: Vec::new(), added: BTreeMap::new(), taken: Vec::new() }
    }
}

impl<D: Data> ToCome<D> {
    fn on(base: &Levels<u64, D, Diff>) -> Self {
        let base = base.runs();
        Self { at: vec![Place::default(); base.len()], base, ..Self::default() }
    }

    fn add(&mut self, due: u64, row: D, diff: Diff) {
        self.added.entry(due).or_default().push((row, diff));
    }

    fn next_added(&self) -> Option<u64> {
        self.added.first_key_value().map(|(due, _)| *due)
    }

    /// The first tick at which something is due.
    fn next(&self) -> Option<u64> {
        let of_base = self.base.iter().zip(&self.at).filter_map(|(run, at)| run.cursor_at(*at).key().copied());
        of_base.chain(self.next_added()).min()
    }

    /// Takes what is due at a tick, the next, consolidated.
    fn take(&mut self, due: u64, freezes: bool, into: &mut Vec<(D, Diff)>) {
        for (run, at) in self.base.iter().zip(&mut self.at) {
            let mut cursor = run.cursor_at(*at);
            if cursor.key() == Some(&due) {
                cursor.collect(into);
                cursor.step();
                *at = cursor.place();
            }
        }
        if freezes {
            self.taken.extend(into.iter().map(|(row, diff)| (due, row.clone(), *diff)));
        }
        into.extend(self.added.remove(&due).into_iter().flatten());
        consolidate(into);
    }

    /// What changed of the slot: what was added, without what was carried out of the base.
    fn changes(self) -> Run<u64, D, Diff> {
        let added = self.added.into_iter().flat_map(|(due, rows)| rows.into_iter().map(move |(row, diff)| (due, row, diff)));
        Run::from_rows(added.chain(self.taken.into_iter().map(|(due, row, diff)| (due, row, -diff))))
    }
}
