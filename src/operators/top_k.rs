//! Top-k: the greatest rows, of all or of each group.
//!
//! **Law.** A chain of reductions, each of which keeps the law.
//! **State.** Three reductions. **Cost.** A change re-evaluates one group in each of three stages: rows are spread by hash
//! over 2^16 groups, the best k of each go on to 2^8 groups, and of those to one. A group of any size is never rescanned: a
//! stage's group holds at most 256 times k rows, one of the first stage n / 2^16.

use crate::runs::Data;
use crate::runs::data::stable_hash;

use super::flow::{Diff, Flow};

/// Bits of the hash that choose a group in each stage.
const STAGE_BITS: [u32; 3] = [16, 8, 0];

impl<'s, D: Data> Flow<'s, D> {
    /// The `k` rows with the greatest `by(row)`, ties in favour of the greater row. Rows count with their multiplicity.
    pub fn top_k<O: Data>(self, k: usize, by: impl Fn(&D) -> O + 'static) -> Flow<'s, D> {
        self.map(|row| ((), row)).top_k_by_group(k, by).map(|((), row)| row)
    }
}

impl<'s, G: Data, D: Data> Flow<'s, (G, D)> {
    /// The `k` rows of each group with the greatest `by(row)`, ties in favour of the greater row.
    pub fn top_k_by_group<O: Data>(self, k: usize, by: impl Fn(&D) -> O + 'static) -> Flow<'s, (G, D)> {
        let mut best = self.map(move |(group, row)| {
            let spread = stable_hash(&row) as u32;
            ((group, spread), (by(&row), row))
        });
        for bits in STAGE_BITS {
            let spread = best.map(move |((group, hash), row)| ((group, hash & ((1 << bits) - 1)), row));
            best = spread.reduce_named("TopK", move |_, rows, results| greatest(k, rows, results)).map(|((group, _), (order, row))| {
                let hash = stable_hash(&row) as u32;
                ((group, hash), (order, row))
            });
        }
        best.map(|((group, _), (_, row))| (group, row))
    }
}

/// The last `k` of rows in ascending order, counted with their multiplicities. Rows that are missing (below zero) are none.
fn greatest<V: Clone>(k: usize, rows: &[(&V, Diff)], results: &mut Vec<(V, Diff)>) {
    let mut left = k as Diff;
    for (row, n) in rows.iter().rev().filter(|(_, n)| *n > 0) {
        if left == 0 {
            break;
        }
        let taken = left.min(*n);
        results.push(((*row).clone(), taken));
        left -= taken;
    }
}
