//! Quarantine: what an author's code cannot take goes into the view `errors`, and the layer goes on.
//!
//! A panic, or an `Err` where the code may return one, puts one row into `errors` in place of what the code would have
//! made. It is a row like any other: both layers compute it, a handover audits it, and when the row that caused it is
//! retracted, or a group changes to one that the code can take, the error is retracted too.
//!
//! **Law.** The code is a function of its row (or group), so its failure is too: errors are one more output of each operator.
//! An event's error names its partition, offset and tick. Rows derived from several events have no place in the log: their
//! errors show the row instead, where the operator still has it.
//! **State.** The rows of `errors`. **Cost.** None on rows that do not fail but for catching, which is done for many rows at
//! a time where rows are made one by one (`map`, `filter`, aggregates of events), else for each row, pair or group.
//!
//! Not caught: monoids, raw timely and differential code (`linear`, `opaque`) and keyed operators' updates. A panic there
//! has left state half changed; it fails the batch, or ends the process in the speed layer.

use std::any::type_name;
use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Once;

use columnar::{Columnar, Index};
use differential_dataflow::AsCollection;
use serde::{Deserialize, Serialize};
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Concatenate;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{Scope, StreamVec};

use crate::log::{Block, Event};

use super::flow::{Diff, Flow, Update};
use super::layer::Layer;
use super::views::Views;

/// The view that holds what was quarantined, in every dataflow.
pub const ERRORS: &str = "errors";

/// Longest message, and longest text of an event or row, that an error keeps, in bytes.
pub const QUARANTINED_TEXT_MAX: usize = 1_000;

/// A row of the view `errors`, by message: what was quarantined, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Quarantined {
    /// The operator whose code failed, and its number among those of the dataflow.
    pub operator: String,
    /// The event's partition; none for a row that was derived from several.
    pub partition: Option<u32>,
    /// The event's tick.
    pub tick: Option<u64>,
    /// The event's offset in its partition.
    pub offset: Option<u64>,
    /// The event as JSON, or the row or key as `Debug` shows it, cut off after [`QUARANTINED_TEXT_MAX`] bytes. Empty if the
    /// code had consumed it.
    pub row: String,
}

/// A failure on its way to the view: message and row.
pub(crate) type Failure = (String, Quarantined);

/// Failures of one operator, as changes.
pub(crate) type Failures = Vec<Update<Failure>>;

/// One graph under construction: its layer, and the errors of its operators. Cheap to clone.
#[derive(Clone)]
pub struct Graph<'s> {
    layer: Layer,
    errors: Rc<RefCell<Vec<StreamVec<'s, u64, Update<Failure>>>>>,
    guards: Rc<Cell<usize>>,
}

impl std::ops::Deref for Graph<'_> {
    type Target = Layer;
    fn deref(&self) -> &Layer {
        &self.layer
    }
}

impl<'s> Graph<'s> {
    /// A graph of a layer, with no operators yet.
    pub fn new(layer: Layer) -> Self {
        Self { layer, errors: Rc::default(), guards: Rc::default() }
    }

    /// A guard for the next operator that runs an author's code.
    pub(crate) fn guard(&self, operator: &str) -> Guard {
        hush_caught_panics();
        let number = self.guards.get() + 1;
        self.guards.set(number);
        Guard { operator: format!("{operator} {number}"), said: false }
    }

    pub(crate) fn quarantine(&self, errors: StreamVec<'s, u64, Update<Failure>>) {
        self.errors.borrow_mut().push(errors);
    }

    /// Publishes the view `errors`. Called once, when the dataflow is complete.
    pub fn publish_errors(&self, scope: Scope<'s, u64>, views: &mut Views) {
        let errors = self.errors.take();
        let all = Flow::new(self.clone(), scope.concatenate(errors).as_collection());
        views.publish_reserved(ERRORS, all).key(&["message"]).value(&["operator", "partition", "tick", "offset", "row"]);
    }
}

/// Catches the failures of one operator.
pub(crate) struct Guard {
    operator: String,
    said: bool,
}

impl Guard {
    /// The failure of code on an event.
    pub(crate) fn event<E: Event>(&mut self, message: String, block: &Block<E>, row: usize) -> Failure {
        let (tick, offset) = block.place(row);
        let shown = attempt(|| {
            let event = E::into_owned(block.columns().get(row));
            serde_json::to_string(&event).map_err(|error| error.to_string())
        });
        let event = shown.unwrap_or_else(|_| type_name::<E>().to_owned());
        self.failure(message, (Some(block.partition().0), Some(tick.0), Some(offset.0)), event)
    }

    /// The failure of code on a derived row.
    pub(crate) fn row(&mut self, message: String, row: &dyn Debug) -> Failure {
        // `Debug` may be the author's, and fail on what the code failed on.
        let shown = attempt(|| Ok(format!("{row:?}")));
        self.failure(message, (None, None, None), shown.unwrap_or_default())
    }

    /// The failure of code that had consumed its row.
    pub(crate) fn consumed(&mut self, message: String) -> Failure {
        self.failure(message, (None, None, None), String::new())
    }

    fn failure(
        &mut self,
        mut message: String,
        (partition, tick, offset): (Option<u32>, Option<u64>, Option<u64>),
        mut row: String,
    ) -> Failure {
        cut(&mut message, QUARANTINED_TEXT_MAX);
        cut(&mut row, QUARANTINED_TEXT_MAX);
        let failure = (message, Quarantined { operator: self.operator.clone(), partition, tick, offset, row });
        if !std::mem::replace(&mut self.said, true) {
            let location = LOCATION.take().unwrap_or_else(|| "an `Err`".to_owned());
            let (message, Quarantined { operator, row, .. }) = &failure;
            tracing::warn!(%operator, %message, %location, ?partition, ?tick, ?offset, %row, "quarantined; the view `errors` has all of them");
        }
        failure
    }
}

/// Cuts a text off at a character boundary.
fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
}

thread_local! {
    /// Whether an author's code runs under a guard on this thread.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    /// Where the last panic under a guard came from.
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs an author's code. A panic is an `Err` with its message.
pub(crate) fn attempt<T>(code: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let outer = GUARDED.replace(true);
    // What the code leaves half changed is its own state; ours is put back by the caller.
    let outcome = catch_unwind(AssertUnwindSafe(code));
    GUARDED.set(outer);
    match outcome {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(message)) => {
            LOCATION.set(None);
            Err(message)
        }
        Err(panic) => Err(panic_message(&*panic)),
    }
}

/// The text of a panic.
pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| text.to_string()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".to_owned())
}

/// Panics under a guard are rows of a view, not lines on stderr: there may be millions.
fn hush_caught_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match GUARDED.get() {
            true => LOCATION.set(panic.location().map(ToString::to_string)),
            false => before(panic),
        }));
    });
}

/// Rows that an author's code makes of one input row.
pub(crate) struct Made<'a, D> {
    rows: &'a mut Vec<Update<D>>,
    time: u64,
    times: Diff,
}

impl<'a, D> Made<'a, D> {
    pub(crate) fn new(rows: &'a mut Vec<Update<D>>, time: u64, times: Diff) -> Self {
        Self { rows, time, times }
    }

    /// Adds a row, so many times for each time the input row counts.
    pub(crate) fn push(&mut self, row: D, times: Diff) {
        self.rows.push((row, self.time, times * self.times));
    }
}

/// An operator without state, with a second output for what it quarantines. `work` gets a container and adds to both outputs.
pub(crate) fn guarded<'s, A: Clone + 'static, B: Clone + 'static>(
    graph: &Graph<'s>,
    input: StreamVec<'s, u64, A>,
    name: &str,
    mut work: impl FnMut(std::vec::Drain<'_, A>, &mut Vec<B>, &mut Failures) + 'static,
) -> StreamVec<'s, u64, B> {
    let mut builder = OperatorBuilder::new(name.to_owned(), input.scope());
    let mut input = builder.new_input(input, Pipeline);
    builder.set_notify_for(0, timely::progress::operate::FrontierInterest::Never);
    let (rows, rows_stream) = builder.new_output();
    let (errors, errors_stream) = builder.new_output();
    let (mut rows, mut errors) = (OutputBuilder::from(rows), OutputBuilder::from(errors));
    builder.build(move |_| {
        let (mut made, mut failed) = (Vec::new(), Vec::new());
        move |_| {
            let (mut rows, mut errors) = (rows.activate(), errors.activate());
            input.for_each_stamp(|stamp, containers| {
                let mut session = rows.session(&stamp);
                for container in containers {
                    work(container.drain(..), &mut made, &mut failed);
                    session.give_iterator(made.drain(..));
                }
                if !failed.is_empty() {
                    errors.session(&stamp).give_iterator(failed.drain(..));
                }
            });
        }
    });
    graph.quarantine(errors_stream);
    rows_stream
}

/// Sends the failures among some outcomes into quarantine.
pub(crate) fn settle<'s, D: Clone + 'static>(
    graph: &Graph<'s>,
    outcomes: StreamVec<'s, u64, Update<Result<D, Box<Failure>>>>,
) -> StreamVec<'s, u64, Update<D>> {
    guarded(graph, outcomes, "Settle", |outcomes, made, failed| {
        for (outcome, time, diff) in outcomes {
            match outcome {
                Ok(row) => made.push((row, time, diff)),
                Err(failure) => failed.push((*failure, time, diff)),
            }
        }
    })
}
