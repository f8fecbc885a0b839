//! The operator library: what a dataflow is written in. Each file states how its operators keep the layer law.
//!
//! Every collection here holds *changes relative to a base*: the generation that the graph stands on. In a full batch the
//! base is empty and the changes are everything.
//!
//! Deliberately absent: files, clocks, threads. An operator sees its layer, and through it runs of the base.

mod aggregate;
mod arranged;
mod cells;
mod changes;
mod distributions;
mod events;
mod extremes;
mod flow;
mod frequencies;
pub mod graphs;
mod hyperloglog;
mod in_order;
mod join;
mod keyed;
mod layer;
mod look_up;
mod moments;
mod monoid;
mod opaque;
mod quarantine;
mod reduce;
mod relational;
mod running;
mod temporal;
mod top_k;
mod views;
mod windows;
#[doc = include_str!("../../docs/write_your_own_operator.md")]
pub mod write_your_own {}

pub use aggregate::{Aggregated, COMBINED_GROUPS_MAX, Groups, KeyRef};
pub use changes::{RowChange, Upserts};
pub use distributions::{Bucket, Histogram, Quantiles, Summary};
pub use events::{Chunk, Epoch, Events};
pub use extremes::{ArgMax, ArgMin, BoundedSet, Max, Min};
pub use flow::{Diff, Flow, Update};
pub use frequencies::{CountMin, Heavy, HeavyHitters};
pub use hyperloglog::HyperLogLog;
pub use keyed::Keyed;
pub use layer::{Frozen, Layer, Purpose, Slot};
pub use moments::{Mean, Moments, Real, Variance};
pub use monoid::{Abelian, Count, Fold, Monoid, Sum};
pub use opaque::{Inner, Inputs, opaque};
pub(crate) use quarantine::panic_message;
pub use quarantine::{ERRORS, Graph, QUARANTINED_TEXT_MAX, Quarantined};
pub use views::{NewView, Publish, Rows, Sums, ViewExport, Views};
pub use windows::Window;
