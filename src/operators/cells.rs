//! Sparse arrays of counters, which histograms and sketches are made of.
//!
//! Cells that are all zero are not kept: so equal sums are equal bits, and nothing is left of what was taken back.

use columnar::Columnar;
use serde::{Deserialize, Serialize};

/// Beyond this many cells, two arrays are merged into a new one; up to it, each cell is put in its place. Mostly one value is
/// added to many, whose cells are there.
const PLACED_MAX: usize = 8;

/// Cells of `WIDTH` counters each, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]
#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]
pub struct Cells {
    /// Ascending.
    numbers: Vec<i64>,
    /// `WIDTH` for each cell.
    counters: Vec<i64>,
}

impl Cells {
    /// An array of one cell.
    pub(crate) fn one(number: i64, counters: &[i64]) -> Self {
        Self { numbers: vec![number], counters: counters.to_vec() }
    }

    /// The cells with the given ascending numbers, equal to each other.
    pub(crate) fn each(numbers: Vec<i64>, counters: &[i64]) -> Self {
        Self { counters: counters.repeat(numbers.len()), numbers }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Cells that are not zero, by number.
    pub(crate) fn iter<const WIDTH: usize>(&self) -> impl DoubleEndedIterator<Item = (i64, &[i64; WIDTH])> {
        self.numbers.iter().copied().zip(self.counters.as_chunks::<WIDTH>().0)
    }

    /// A cell that is not zero.
    pub(crate) fn get<const WIDTH: usize>(&self, number: i64) -> Option<&[i64; WIDTH]> {
        let at = self.numbers.binary_search(&number).ok()?;
        Some(&self.counters.as_chunks::<WIDTH>().0[at])
    }

    /// Adds counter by counter, modulo 2^64.
    pub(crate) fn add<const WIDTH: usize>(&mut self, other: &Self) {
        if other.numbers.len() > PLACED_MAX {
            *self = self.merged::<WIDTH>(other);
            return;
        }
        for (number, counters) in other.iter::<WIDTH>() {
            match self.numbers.binary_search(&number) {
                Ok(at) => {
                    let sums = &mut self.counters.as_chunks_mut::<WIDTH>().0[at];
                    add_counters(sums, counters);
                    if *sums == [0; WIDTH] {
                        self.numbers.remove(at);
                        self.counters.drain(at * WIDTH..(at + 1) * WIDTH);
                    }
                }
                Err(at) => {
                    self.numbers.insert(at, number);
                    self.counters.splice(at * WIDTH..at * WIDTH, counters.iter().copied());
                }
            }
        }
    }

    fn merged<const WIDTH: usize>(&self, other: &Self) -> Self {
        let mut sum = Self::default();
        let mut sides = [self.iter::<WIDTH>().peekable(), other.iter::<WIDTH>().peekable()];
        while let Some(number) = sides.iter_mut().filter_map(|side| side.peek()).map(|(number, _)| *number).min() {
            let mut counters = [0; WIDTH];
            for side in &mut sides {
                if let Some((_, more)) = side.next_if(|(at, _)| *at == number) {
                    add_counters(&mut counters, more);
                }
            }
            sum.push(number, counters);
        }
        sum
    }

    /// Each counter `n` times, modulo 2^64.
    pub(crate) fn times<const WIDTH: usize>(&self, n: isize) -> Self {
        let mut product = Self::default();
        for (number, counters) in self.iter::<WIDTH>() {
            product.push(number, counters.map(|counter| counter.wrapping_mul(n as i64)));
        }
        product
    }

    /// Puts a cell behind the others, unless it is zero.
    fn push<const WIDTH: usize>(&mut self, number: i64, counters: [i64; WIDTH]) {
        if counters != [0; WIDTH] {
            self.numbers.push(number);
            self.counters.extend(counters);
        }
    }
}

fn add_counters(sums: &mut [i64], counters: &[i64]) {
    for (sum, counter) in sums.iter_mut().zip(counters) {
        *sum = sum.wrapping_add(*counter);
    }
}

/// Makes a tuple struct of [`Cells`] a group.
macro_rules! cells_group {
    ($name:ident, $width:expr) => {
        impl differential_dataflow::difference::IsZero for $name {
            fn is_zero(&self) -> bool {
                self.0.is_empty()
            }
        }
        impl differential_dataflow::difference::Semigroup for $name {
            fn plus_equals(&mut self, other: &Self) {
                self.0.add::<{ $width }>(&other.0);
            }
        }
        impl super::monoid::Abelian for $name {
            fn times(&self, n: isize) -> Self {
                Self(self.0.times::<{ $width }>(n))
            }
        }
    };
}
pub(crate) use cells_group;
