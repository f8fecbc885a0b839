//! Join: all pairs of rows with equal keys.
//!
//! **Law.** `(A + a)(B + b) - AB = ab + aB + Ab` for bases A, B and changes a, b. The first term is differential's join of
//! the two changes; the other two are look-ups of one side's changes in the other side's frozen run.
//! **State.** Two arrangements of the changes since the base.
//! **Cost.** One look-up into the base and one into the other side's changes for each change, and the pairs it makes.

use std::cell::RefCell;
use std::fmt::Debug;
use std::rc::Rc;

use differential_dataflow::{AsCollection, VecCollection};

use crate::runs::{Data, Run};

use super::arranged::{Kept, arrange};
use super::flow::{Diff, Flow, place};
use super::look_up::look_up;
use super::quarantine::{attempt, settle};

impl<'s, K: Data, V: Data> Flow<'s, (K, V)> {
    /// Rows `(key, (left, right))` for all pairs; multiplicities multiply.
    pub fn join<W: Data>(self, other: Flow<'s, (K, W)>) -> Flow<'s, (K, (V, W))> {
        let graph = self.graph.clone();
        Flow::new(graph, self.pairs(other, |key, left, right| (key.clone(), (left.clone(), right.clone()))))
    }

    /// A row made of each pair.
    pub fn join_map<W: Data, D: Data>(self, other: Flow<'s, (K, W)>, logic: impl Fn(&K, &V, &W) -> D + Clone + 'static) -> Flow<'s, D> {
        let graph = self.graph.clone();
        let guard = Rc::new(RefCell::new(graph.guard("join_map")));
        let outcomes = self.pairs(other, move |key, left, right| {
            attempt(|| Ok(logic(key, left, right))).map_err(|message| Box::new(guard.borrow_mut().row(message, &(key, left, right))))
        });
        Flow::new(graph.clone(), settle(&graph, outcomes.inner).as_collection())
    }

    /// What `pair` makes of each pair of rows; it must not panic.
    fn pairs<W: Data, D: Ord + Clone + Debug + 'static>(
        self,
        other: Flow<'s, (K, W)>,
        pair: impl Fn(&K, &V, &W) -> D + Clone + 'static,
    ) -> VecCollection<'s, u64, D, Diff> {
        let graph = self.graph;
        let left_slot = graph.slot::<K, V, Diff>("Join left");
        let right_slot = graph.slot::<K, W, Diff>("Join right");
        let (left, right) = (place(self.changes.inner), place(other.changes.inner));

        let left_arranged = arrange(left.clone(), "Join left");
        let right_arranged = arrange(right.clone(), "Join right");
        let (left_kept, right_kept) = (Kept::new(&graph, &left_arranged.trace), Kept::new(&graph, &right_arranged.trace));
        graph.freeze_by(&left_slot, move || Run::from_rows(left_kept.rows()));
        graph.freeze_by(&right_slot, move || Run::from_rows(right_kept.rows()));

        let of_changes = pair.clone();
        let mut changes = left_arranged.join_core(right_arranged, move |key, left, right| Some(of_changes(key, left, right)));
        if graph.has_base() {
            let (pair, swapped) = (pair.clone(), pair);
            let new_left = look_up(left, &right_slot.base, "BaseRight").map(move |(key, (left, right))| pair(&key, &left, &right));
            let new_right = look_up(right, &left_slot.base, "BaseLeft").map(move |(key, (right, left))| swapped(&key, &left, &right));
            changes = changes.concat(new_left).concat(new_right);
        }
        changes
    }
}
