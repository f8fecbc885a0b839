//! Join: all pairs of rows with equal keys.
//!
//! **Law.** `(A + a)(B + b) - AB = ab + aB + Ab` for bases A, B and changes a, b. The first term is differential's join of
//! the two changes; the other two are look-ups of one side's changes in the other side's frozen run.
//! **State.** Two arrangements of the changes since the base.
//! **Cost.** One look-up into the base and one into the other side's changes for each change, and the pairs it makes.

use crate::runs::{Data, Run};

use super::arranged::{Kept, arrange};
use super::flow::{Diff, Flow, place};
use super::look_up::look_up;

impl<'s, K: Data, V: Data> Flow<'s, (K, V)> {
    /// Rows `(key, (left, right))` for all pairs; multiplicities multiply.
    pub fn join<W: Data>(self, other: Flow<'s, (K, W)>) -> Flow<'s, (K, (V, W))> {
        self.join_map(other, |key, left, right| (key.clone(), (left.clone(), right.clone())))
    }

    /// A row made of each pair.
    pub fn join_map<W: Data, D: Data>(self, other: Flow<'s, (K, W)>, logic: impl Fn(&K, &V, &W) -> D + Clone + 'static) -> Flow<'s, D> {
        let layer = self.layer;
        let left_slot = layer.slot::<K, V, Diff>("Join left");
        let right_slot = layer.slot::<K, W, Diff>("Join right");
        let (left, right) = (place(self.changes.inner), place(other.changes.inner));

        let left_arranged = arrange(left.clone(), "Join left");
        let right_arranged = arrange(right.clone(), "Join right");
        let (left_kept, right_kept) = (Kept::new(&layer, &left_arranged.trace), Kept::new(&layer, &right_arranged.trace));
        layer.freeze_by(&left_slot, move || Run::from_rows(left_kept.rows()));
        layer.freeze_by(&right_slot, move || Run::from_rows(right_kept.rows()));

        let pair = logic.clone();
        let mut changes = left_arranged.join_core(right_arranged, move |key, left, right| Some(pair(key, left, right)));
        if layer.has_base() {
            let (pair, swapped) = (logic.clone(), logic);
            let new_left = look_up(left, &right_slot.base, "BaseRight").map(move |(key, (left, right))| pair(&key, &left, &right));
            let new_right = look_up(right, &left_slot.base, "BaseLeft").map(move |(key, (right, left))| swapped(&key, &left, &right));
            changes = changes.concat(new_left).concat(new_right);
        }
        Flow::new(layer, changes)
    }
}
