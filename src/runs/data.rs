//! What rows and multiplicities must offer to be kept in runs.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use columnar::{Borrow, Columnar, ContainerBytes, Ref};
use differential_dataflow::ExchangeData;
use differential_dataflow::difference::Semigroup;

/// Columns whose borrowed rows are ordered.
///
/// The order must be the owned type's order: strings bytewise, tuples and structs field by field. For an author's
/// struct it is derived with `#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]`.
#[diagnostic::on_unimplemented(
    message = "the columns `{Self}` are not ordered",
    note = "beside `Columnar`, a struct or enum in a row derives the order of its columns: `#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]`"
)]
pub trait Ordered: ContainerBytes + for<'a> Borrow<Ref<'a>: Ord> + Send + Sync {}
#[diagnostic::do_not_recommend]
impl<C: ContainerBytes + for<'a> Borrow<Ref<'a>: Ord> + Send + Sync> Ordered for C {}

/// A key or value: ordered, hashable, able to cross threads, processes and layers.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a row, or part of one",
    label = "not a row",
    note = "rows are kept in columns, in order, across threads and layers: `#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Columnar)]` and, for the order of the columns, `#[columnar(derive(PartialEq, Eq, PartialOrd, Ord))]`",
    note = "floating-point numbers have no total order: use integers (cents, millionths), or `Real`"
)]
pub trait Data: Columnar<Container: Ordered> + ExchangeData + Hash + Send + Sync {}
impl<D: Columnar<Container: Ordered> + ExchangeData + Hash + Send + Sync> Data for D {}

/// Compares two borrowed rows, whatever their lifetimes.
pub fn order<D: Data>(a: Ref<'_, D>, b: Ref<'_, D>) -> Ordering {
    D::Container::reborrow_ref(a).cmp(&D::Container::reborrow_ref(b))
}

/// What is added up for a row: a multiplicity, or a monoid's value.
pub trait Change: Columnar<Container: Send + Sync> + ExchangeData + Semigroup + Hash + Send + Sync {}
impl<R: Columnar<Container: Send + Sync> + ExchangeData + Semigroup + Hash + Send + Sync> Change for R {}

/// Number of buckets that keys are placed in. Fixed for ever: runs are cut along buckets, so that another number of
/// workers can take them over.
pub const BUCKETS: u64 = 1024;

/// The bucket of a key, in `0..BUCKETS`. Worker `w` of `n` owns the buckets that are `w` modulo `n`.
pub fn bucket<K: Hash + ?Sized>(key: &K) -> u64 {
    stable_hash(key) % BUCKETS
}

/// A hash that is the same on every machine and in every build of this format version.
pub fn stable_hash<K: Hash + ?Sized>(key: &K) -> u64 {
    let mut hasher = StableHasher::default();
    key.hash(&mut hasher);
    hasher.finish()
}

/// Folds 8 bytes at a time: `state = fold((state ^ word) * MULTIPLIER)`, where `fold` adds the halves of the 128-bit
/// product by exclusive or. Words are little-endian; a byte string's last word is padded with zeros and its length follows.
///
/// `std`'s `Hash` decides which words a type feeds in; a test pins the results, since the standard library does not
/// promise them.
pub struct StableHasher(u64);

impl StableHasher {
    /// 2^64 divided by the golden ratio, as Fibonacci hashing uses it; odd.
    const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

    fn word(&mut self, word: u64) {
        let product = u128::from(self.0 ^ word ^ 0xA5A5_A5A5_5A5A_5A5A) * u128::from(Self::MULTIPLIER);
        self.0 = (product as u64) ^ ((product >> 64) as u64).rotate_left(23);
    }
}

impl Default for StableHasher {
    fn default() -> Self {
        Self(0x243F_6A88_85A3_08D3) // the fraction of pi: a start that is not zero
    }
}

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
        self.word(bytes.len() as u64);
    }
    fn write_u8(&mut self, i: u8) {
        self.word(u64::from(i));
    }
    fn write_u16(&mut self, i: u16) {
        self.word(u64::from(i));
    }
    fn write_u32(&mut self, i: u32) {
        self.word(u64::from(i));
    }
    fn write_u64(&mut self, i: u64) {
        self.word(i);
    }
    fn write_u128(&mut self, i: u128) {
        self.word(i as u64);
        self.word((i >> 64) as u64);
    }
    fn write_usize(&mut self, i: usize) {
        self.word(i as u64);
    }
    fn finish(&self) -> u64 {
        let mut last = Self(self.0);
        last.word(0xFF);
        last.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs on disk are placed by these values: a change here is a change of format.
    #[test]
    fn placement_never_changes() {
        let seen = [stable_hash("/index.html"), stable_hash(&7u64), stable_hash(&("a".to_string(), -1i64)), stable_hash(&Some(3u16))];
        assert_eq!(seen, GOLDEN);
    }
    const GOLDEN: [u64; 4] = [2097795175561111223, 14534528260713604861, 2621634052717880099, 13389973065086532611];

    #[test]
    fn buckets_fill_evenly() {
        let mut filled = vec![0u32; BUCKETS as usize];
        for i in 0..64 * BUCKETS {
            filled[bucket(&format!("/page/{i}")) as usize] += 1;
        }
        assert!(filled.iter().all(|n| (16..144).contains(n)), "{:?}", (filled.iter().min(), filled.iter().max()));
    }
}
