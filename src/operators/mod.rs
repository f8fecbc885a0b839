//! The operator library: what a dataflow is written in. Each file states how its operators keep the layer law.
//!
//! Every collection here holds *changes relative to a base*: the generation that the graph stands on. In a full batch the
//! base is empty and the changes are everything.
//!
//! Deliberately absent: files, clocks, threads. An operator sees its layer, and through it runs of the base.

mod aggregate;
mod arranged;
mod events;
mod flow;
mod hyperloglog;
mod in_order;
mod join;
mod layer;
mod look_up;
mod monoid;
mod opaque;
mod quarantine;
mod reduce;
mod running;
mod top_k;
mod views;

pub use aggregate::{Aggregated, COMBINED_GROUPS_MAX, Groups, KeyRef};
pub use events::{Chunk, Epoch, Events};
pub use flow::{Diff, Flow, Update};
pub use hyperloglog::HyperLogLog;
pub use layer::{Frozen, Layer, Purpose, Slot};
pub use monoid::{Abelian, Count, Fold, Monoid, Sum};
pub(crate) use quarantine::panic_message;
pub use quarantine::{ERRORS, Graph, QUARANTINED_TEXT_MAX, Quarantined};
pub use views::{NewView, Publish, Rows, Sums, ViewExport, Views};
