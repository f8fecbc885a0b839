//! Batches of an arrangement behind `Arc`, so that other threads may read them.
//!
//! Differential implements its batch traits for `Rc<B>`. The orphan rule forbids us the same for `Arc<B>`, so a newtype
//! carries them. It costs nothing measurable and drops into every stock operator.

use std::ops::Deref;
use std::sync::Arc;

use differential_dataflow::trace::implementations::Vector;
use differential_dataflow::trace::implementations::ord_neu::OrdValBatch;
use differential_dataflow::trace::implementations::spine_fueled::{Merger, Spine, SpineBatch};
use differential_dataflow::trace::{Cursor, Navigable};
use timely::progress::frontier::AntichainRef;

/// A batch that several threads may hold.
pub struct Shared<B>(Arc<B>);

/// A batch of `(key, value)` rows with changes of type `R`.
pub type Batch<K, V, R> = Shared<OrdValBatch<Vector<((K, V), u64, R)>>>;

/// A trace of such batches.
pub type SharedSpine<K, V, R> = Spine<Batch<K, V, R>>;

impl<B> Clone for Shared<B> {
    fn clone(&self) -> Self {
        Shared(Arc::clone(&self.0))
    }
}

impl<B> From<B> for Shared<B> {
    fn from(batch: B) -> Self {
        Shared(Arc::new(batch))
    }
}

impl<B> Deref for Shared<B> {
    type Target = B;
    fn deref(&self) -> &B {
        &self.0
    }
}

impl<B: Navigable> Navigable for Shared<B> {
    type Cursor = SharedCursor<B::Cursor>;
    fn cursor(&self) -> Self::Cursor {
        SharedCursor(self.0.cursor())
    }
}

/// The cursor of the batch inside.
pub struct SharedCursor<C>(C);

#[rustfmt::skip] // the delegations are compared by eye, one a line
impl<C: Cursor> Cursor for SharedCursor<C> {
    type Storage = Shared<C::Storage>;
    type Key<'a> = C::Key<'a>;
    type KeyContainer = C::KeyContainer;
    type Val<'a> = C::Val<'a>;
    type ValContainer = C::ValContainer;
    type ValOwn = C::ValOwn;
    type TimeGat<'a> = C::TimeGat<'a>;
    type TimeContainer = C::TimeContainer;
    type Time = C::Time;
    type DiffGat<'a> = C::DiffGat<'a>;
    type DiffContainer = C::DiffContainer;
    type Diff = C::Diff;

    fn key_valid(&self, s: &Self::Storage) -> bool { self.0.key_valid(s) }
    fn val_valid(&self, s: &Self::Storage) -> bool { self.0.val_valid(s) }
    fn key<'a>(&self, s: &'a Self::Storage) -> Self::Key<'a> { self.0.key(s) }
    fn val<'a>(&self, s: &'a Self::Storage) -> Self::Val<'a> { self.0.val(s) }
    fn get_key<'a>(&self, s: &'a Self::Storage) -> Option<Self::Key<'a>> { self.0.get_key(s) }
    fn get_val<'a>(&self, s: &'a Self::Storage) -> Option<Self::Val<'a>> { self.0.get_val(s) }
    fn map_times<L: FnMut(Self::TimeGat<'_>, Self::DiffGat<'_>)>(&mut self, s: &Self::Storage, logic: L) { self.0.map_times(s, logic) }
    fn step_key(&mut self, s: &Self::Storage) { self.0.step_key(s) }
    fn seek_key(&mut self, s: &Self::Storage, key: Self::Key<'_>) { self.0.seek_key(s, key) }
    fn step_val(&mut self, s: &Self::Storage) { self.0.step_val(s) }
    fn seek_val(&mut self, s: &Self::Storage, val: Self::Val<'_>) { self.0.seek_val(s, val) }
    fn rewind_keys(&mut self, s: &Self::Storage) { self.0.rewind_keys(s) }
    fn rewind_vals(&mut self, s: &Self::Storage) { self.0.rewind_vals(s) }
}

impl<B: SpineBatch> SpineBatch for Shared<B> {
    type Time = B::Time;
    type Merger = SharedMerger<B>;
    fn len(&self) -> usize {
        self.0.len()
    }
}

/// The merger of the batches inside.
pub struct SharedMerger<B: SpineBatch>(B::Merger);

impl<B: SpineBatch> Merger<Shared<B>> for SharedMerger<B> {
    fn new(a: &Shared<B>, b: &Shared<B>, frontier: AntichainRef<B::Time>) -> Self {
        SharedMerger(B::Merger::new(a, b, frontier))
    }
    fn work(&mut self, a: &Shared<B>, b: &Shared<B>, fuel: &mut isize) {
        self.0.work(a, b, fuel)
    }
    fn done(self) -> Option<Shared<B>> {
        self.0.done().map(Shared::from)
    }
}
