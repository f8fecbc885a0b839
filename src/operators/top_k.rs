//! Top-k, bottom-k, min and max: the outermost rows, of all or of each group.
//!
//! **Law.** A group's rows in the base are in order there, so the rows at one end can be taken from the base one by one,
//! until enough are known that are not cancelled by changes. What they and the changes give, minus what the base gave, is the
//! change of the result.
//! **State.** For each touched group the changes since the base, and those rows of the base that were needed: k, at least 16,
//! and as many more as of the best went. Groups that were never in the base are forgotten when they are empty. A full batch has all
//! rows, in order.
//! **Cost.** A change costs a search among the group's known rows, of logarithmic time in their number; if it is among the
//! best, k more. A group is never scanned, in neither layer, however large it is and whatever is taken from it: each row of
//! the base is taken at most once. Only rows that are missing (below zero) stand in the way: those among the best are passed
//! over each time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use differential_dataflow::AsCollection;
use differential_dataflow::consolidation::consolidate;

use crate::runs::data::stable_hash;
use crate::runs::{Data, End, KeyRows, Lookup, Run};

use super::flow::{Diff, Flow, Table, place, table};
use super::in_order::by_key_in_order;

/// Parts that a flow without groups is cut into first, each with its own best rows, so that all workers take part.
const PARTS: u64 = 64;

/// Rows that are taken from the base at once.
const ROWS_TAKEN: usize = 16;

impl<'s, D: Data> Flow<'s, D> {
    /// The `k` rows with the greatest `by(row)`, ties in favour of the greater row. Rows count with their multiplicity.
    pub fn top_k<O: Data>(self, k: usize, by: impl Fn(&D) -> O + 'static) -> Flow<'s, D> {
        self.outermost_by(End::Greatest, k, by)
    }

    /// The `k` rows with the least `by(row)`, ties in favour of the lesser row. Rows count with their multiplicity.
    pub fn bottom_k<O: Data>(self, k: usize, by: impl Fn(&D) -> O + 'static) -> Flow<'s, D> {
        self.outermost_by(End::Least, k, by)
    }

    fn outermost_by<O: Data>(self, end: End, k: usize, by: impl Fn(&D) -> O + 'static) -> Flow<'s, D> {
        let parts = self.each("top_k", move |row, made| {
            made.push((stable_hash(&row) % PARTS, (by(&row), row)), 1);
            Ok(())
        });
        let best = parts.outermost("Top of each part", end, k).linear(|rows| rows.map(|(_, row)| ((), row)));
        best.outermost("Top", end, k).linear(|rows| rows.map(|((), (_, row))| row))
    }
}

impl<'s, G: Data, D: Data> Flow<'s, (G, D)> {
    /// The `k` rows of each group with the greatest `by(row)`, ties in favour of the greater row. All rows of a group are on
    /// one worker; [`Flow::top_k`] spreads them.
    pub fn top_k_by_group<O: Data>(self, k: usize, by: impl Fn(&D) -> O + 'static) -> Flow<'s, (G, D)> {
        self.outermost_of_group(End::Greatest, k, by)
    }

    /// The `k` rows of each group with the least `by(row)`, ties in favour of the lesser row.
    pub fn bottom_k_by_group<O: Data>(self, k: usize, by: impl Fn(&D) -> O + 'static) -> Flow<'s, (G, D)> {
        self.outermost_of_group(End::Least, k, by)
    }

    fn outermost_of_group<O: Data>(self, end: End, k: usize, by: impl Fn(&D) -> O + 'static) -> Flow<'s, (G, D)> {
        let keyed = self.each("top_k", move |(group, row), made| {
            made.push((group, (by(&row), row)), 1);
            Ok(())
        });
        keyed.outermost("Top of each group", end, k).linear(|rows| rows.map(|(group, (_, row))| (group, row)))
    }

    /// The least row of each group, once.
    pub fn min(self) -> Flow<'s, (G, D)> {
        self.outermost("Min", End::Least, 1)
    }

    /// The greatest row of each group, once.
    pub fn max(self) -> Flow<'s, (G, D)> {
        self.outermost("Max", End::Greatest, 1)
    }

    /// The `k` outermost rows of each group, in their own order.
    fn outermost(self, name: &str, end: End, k: usize) -> Flow<'s, (G, D)> {
        let graph = self.graph;
        // Rows are counted in `Diff`.
        let k = k.min(Diff::MAX as usize);
        let slot = graph.slot::<G, D, Diff>(name);
        let groups: Rc<RefCell<Table<G, Group<D>>>> = Rc::new(RefCell::new(table()));
        let frozen = Rc::clone(&groups);
        graph.freeze_by(&slot, move || {
            let groups = std::mem::take(&mut *frozen.borrow_mut());
            Run::from_rows(groups.into_iter().flat_map(|(key, group)| group.changes().map(move |(row, n)| (key.clone(), row, n))))
        });

        let mut base = Lookup::new(&slot.base);
        let freezes = graph.freezes();
        let best = by_key_in_order(place(self.changes.inner), name, move |key: G, changes, made| {
            let mut groups = groups.borrow_mut();
            if !groups.contains_key(&key) {
                let mut group = Group::of(base.open(&key, end), freezes);
                group.best = group.outermost(k, end, &base);
                groups.insert(key.clone(), group);
            }
            let group = groups.get_mut(&key).expect("inserted above");
            let matters = changes.iter().any(|(row, _)| group.reaches_best(row, k, end));
            group.add(changes);
            if matters {
                let best = group.outermost(k, end, &base);
                made.extend(std::mem::replace(&mut group.best, best).into_iter().map(|(row, n)| ((key.clone(), row), -n)));
                made.extend(group.best.iter().map(|(row, n)| ((key.clone(), row.clone()), *n)));
                consolidate(made);
            }
            if group.is_forgettable() {
                groups.remove(&key);
            }
        });
        Flow::new(graph, best.as_collection())
    }
}

/// A touched group.
struct Group<D> {
    /// Base plus changes for rows that are further out than `reached`; changes alone for the others.
    rows: BTreeMap<D, Diff>,
    /// The outermost row of the base that was not taken yet; none if all were.
    reached: Option<D>,
    left: KeyRows,
    /// The results as they are now.
    best: Vec<(D, Diff)>,
    /// The changes since the base, where `rows` has rows of the base among them and the graph is frozen.
    log: Option<Vec<(D, Diff)>>,
    in_base: bool,
}

impl<D: Data> Group<D> {
    /// A group as the base has it.
    fn of(left: KeyRows, freezes: bool) -> Self {
        let in_base = !left.is_empty();
        let log = (in_base && freezes).then(Vec::new);
        Self { rows: BTreeMap::new(), reached: None, left, best: Vec::new(), log, in_base }
    }

    /// Whether a change of this row can change the best: not if there are enough that are further out.
    fn reaches_best(&self, row: &D, k: usize, end: End) -> bool {
        let full = self.best.iter().map(|(_, n)| n).sum::<Diff>() == k as Diff;
        // `best` is consolidated, so ascending.
        let innermost = if end == End::Greatest { self.best.first() } else { self.best.last() };
        match innermost {
            Some((innermost, _)) if full => !further_out(innermost, row, end),
            _ => true,
        }
    }

    fn add(&mut self, changes: Vec<(D, Diff)>) {
        if let Some(log) = &mut self.log {
            log.extend(changes.iter().cloned());
        }
        if self.rows.is_empty() {
            // Made of a sorted list at once: for a batch that is most of the work.
            self.rows = changes.into_iter().collect();
        } else {
            changes.into_iter().for_each(|(row, n)| self.add_row(row, n));
        }
    }

    fn add_row(&mut self, row: D, n: Diff) {
        match self.rows.entry(row) {
            std::collections::btree_map::Entry::Vacant(none) => {
                none.insert(n);
            }
            std::collections::btree_map::Entry::Occupied(mut known) => {
                *known.get_mut() += n;
                if *known.get() == 0 {
                    known.remove();
                }
            }
        }
    }

    /// The `k` outermost rows, ascending, counted with their multiplicities. Rows that are missing (below zero) are none.
    fn outermost(&mut self, k: usize, end: End, base: &Lookup<impl Data, D, Diff>) -> Vec<(D, Diff)> {
        if self.reached.is_none() {
            self.reached = base.first(&self.left);
        }
        loop {
            let (mut best, mut missing) = (Vec::new(), k as Diff);
            let mut take = |row: &D, n: Diff| {
                if self.reached.as_ref().is_some_and(|reached| !further_out(row, reached, end)) {
                    return false;
                }
                let taken = n.clamp(0, missing);
                if taken > 0 {
                    best.push((row.clone(), taken));
                    missing -= taken;
                }
                missing > 0
            };
            let _ = match end {
                End::Greatest => self.rows.iter().rev().all(|(row, n)| take(row, *n)),
                End::Least => self.rows.iter().all(|(row, n)| take(row, *n)),
            };
            if missing == 0 || self.reached.is_none() {
                best.sort_unstable();
                return best;
            }
            for _ in 0..ROWS_TAKEN.max(missing as usize) {
                match base.take(&mut self.left) {
                    Some((row, Some(n))) => self.add_row(row, n),
                    Some((_, None)) => {}
                    None => break,
                }
            }
            self.reached = base.first(&self.left);
        }
    }

    /// Whether nothing would be lost without it: it is as if it had never been touched.
    fn is_forgettable(&self) -> bool {
        !self.in_base && self.rows.is_empty()
    }

    /// The changes since the base, in a graph that is frozen.
    fn changes(self) -> impl Iterator<Item = (D, Diff)> {
        let rows = if self.in_base { BTreeMap::new() } else { self.rows };
        self.log.into_iter().flatten().chain(rows)
    }
}

/// Whether `row` comes before `other` from this end.
fn further_out<D: Ord>(row: &D, other: &D, end: End) -> bool {
    match end {
        End::Greatest => row > other,
        End::Least => row < other,
    }
}
