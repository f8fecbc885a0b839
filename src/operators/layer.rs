//! The context in which one worker builds one graph of a dataflow: which base it stands on, and what it must leave behind.
//!
//! Operators ask for *slots*: places in a generation for the collections they keep. The order of asking is the same in
//! every graph of a dataflow, since the same code builds them all, so a slot's number names its contents.
//!
//! **Invariant.** A run frozen into a slot holds the changes of the graph's input range, no more: base plus run is the
//! collection at the range's end.

use std::any::Any;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use crate::log::Tick;
use crate::runs::{AnyLevels, Change, Data, Frozen, History, Levels, Run, Shard, SlotInfo};

use super::views::ViewExport;

/// What a graph is for.
#[derive(Clone, Debug)]
pub enum Purpose {
    /// Compute changes through one epoch and freeze them.
    Batch,
    /// Follow the log and publish views.
    Speed {
        /// How far back published views stay readable.
        history: Arc<History>,
    },
}

type Freezer = Box<dyn FnOnce() -> Box<dyn Any + Send + Sync>>;

struct Entry {
    outline: String,
    levels: Arc<dyn AnyLevels>,
    freezer: Option<Freezer>,
}

/// Context of one graph under construction on one worker. Cheap to clone.
#[derive(Clone)]
pub struct Layer(Rc<Inner>);

struct Inner {
    base: Arc<Shard>,
    has_base: bool,
    entry: Tick,
    purpose: Purpose,
    slots: RefCell<Vec<Entry>>,
    views: RefCell<Vec<ViewExport>>,
}

/// A place in the generation for one collection.
pub struct Slot<K: Data, V: Data, R: Change> {
    index: usize,
    /// What the collection held at the base's frontier.
    pub base: Arc<Levels<K, V, R>>,
}

impl Layer {
    /// A layer on a base, or on none. Rows of the base enter the graph at time `entry`, before which the graph sees no
    /// event: earlier ones are lifted to it.
    pub fn new(base: Option<Arc<Shard>>, entry: Tick, purpose: Purpose) -> Self {
        let has_base = base.is_some();
        Self(Rc::new(Inner {
            base: base.unwrap_or_default(),
            has_base,
            entry,
            purpose,
            slots: RefCell::default(),
            views: RefCell::default(),
        }))
    }

    /// Whether there is a base to look into.
    pub fn has_base(&self) -> bool {
        self.0.has_base
    }

    /// Whether this graph will be frozen.
    pub fn freezes(&self) -> bool {
        matches!(self.0.purpose, Purpose::Batch)
    }

    /// How published views are kept, in a speed graph.
    pub fn history(&self) -> Option<Arc<History>> {
        match &self.0.purpose {
            Purpose::Batch => None,
            Purpose::Speed { history } => Some(Arc::clone(history)),
        }
    }

    /// The time at which rows of the base enter.
    pub fn entry(&self) -> u64 {
        self.0.entry.0
    }

    /// Takes the next slot.
    ///
    /// # Panics
    /// If the base has a collection of other types there: it belongs to another dataflow, which the fingerprint should
    /// have told.
    pub fn slot<K: Data, V: Data, R: Change>(&self, name: &str) -> Slot<K, V, R> {
        let mut slots = self.0.slots.borrow_mut();
        let index = slots.len();
        let base = match self.0.has_base {
            true => self.0.base.slot(index).unwrap_or_else(|| panic!("slot {index} ({name}) of the base has other types")),
            false => Arc::new(Levels::<K, V, R>::default()),
        };
        let outline = format!("{name}: {} -> {} x {}", std::any::type_name::<K>(), std::any::type_name::<V>(), std::any::type_name::<R>());
        slots.push(Entry { outline, levels: Arc::clone(&base) as _, freezer: None });
        Slot { index, base }
    }

    /// Says how to freeze a slot. Does nothing in a graph that is not frozen, so that no trace is held back.
    pub fn freeze_by<K: Data, V: Data, R: Change>(&self, slot: &Slot<K, V, R>, freezer: impl FnOnce() -> Run<K, V, R> + 'static) {
        if self.freezes() {
            self.0.slots.borrow_mut()[slot.index].freezer = Some(Box::new(move || Box::new(Arc::new(freezer()))));
        }
    }

    /// Adds a view.
    pub(crate) fn export(&self, view: ViewExport) {
        self.0.views.borrow_mut().push(view);
    }

    /// Names a view's columns.
    pub(crate) fn describe(&self, index: usize, describe: impl FnOnce(&mut ViewExport)) {
        describe(&mut self.0.views.borrow_mut()[index]);
    }

    /// Number of views so far.
    pub(crate) fn view_count(&self) -> usize {
        self.0.views.borrow().len()
    }

    /// The views of the finished graph.
    pub fn views(&self) -> Vec<ViewExport> {
        self.0.views.borrow().clone()
    }

    /// The collections that are kept, in order. Graphs with equal ones can use each other's runs.
    pub fn outline(&self) -> Vec<SlotInfo> {
        self.0.slots.borrow().iter().map(|slot| SlotInfo { name: slot.outline.clone(), types: slot.levels.types() }).collect()
    }

    /// Runs every slot's freezer, once the graph has processed all of its input.
    ///
    /// # Panics
    /// If an operator took a slot and did not say how to freeze it.
    pub fn freeze(&self) -> Frozen {
        let freezers: Vec<_> = self.0.slots.borrow_mut().iter_mut().map(|slot| (slot.freezer.take(), slot.outline.clone())).collect();
        freezers.into_iter().map(|(freezer, outline)| freezer.unwrap_or_else(|| panic!("nothing freezes the slot {outline}"))()).collect()
    }

    /// The base, with an empty slot for each collection where there is none.
    pub fn base(&self) -> Shard {
        self.0.base.with_slots(self.0.slots.borrow().iter().map(|slot| Arc::clone(&slot.levels)).collect())
    }
}

impl<K: Data, V: Data, R: Change> Slot<K, V, R> {
    /// The slot's number.
    pub fn index(&self) -> usize {
        self.index
    }
}
