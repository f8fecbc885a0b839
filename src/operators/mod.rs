//! The operator library: what a dataflow is written in. Each file states how its operators keep the layer law.
//!
//! Every collection here holds *changes relative to a base*: the generation that the graph stands on. In a full batch the
//! base is empty and the changes are everything.
//!
//! # Which operator
//!
//! Each family has a page: what it computes, its **law** (why base plus changes is the whole), its **state** and its **cost**.
//!
//! | to | use | page |
//! | --- | --- | --- |
//! | make rows of events | `map`, `try_map`, `flat_map`, `explode`, `validate` | [`events`] |
//! | change rows one by one | `map`, `filter`, `flat_map`, `concat`, `negate`, `explode`, `linear` | [`flow`] |
//! | add up by key | `aggregate`, `try_aggregate`, with a [`Monoid`] | [`aggregate`] |
//! | what to add up | [`Count`], [`Sum`]; [`Mean`], [`Variance`]; [`Min`], [`Max`], [`ArgMin`], [`ArgMax`], [`BoundedSet`]; [`Histogram`], [`Quantiles`]; [`CountMin`], [`HeavyHitters`]; [`HyperLogLog`] | [`monoid`], [`moments`], [`extremes`], [`distributions`], [`frequencies`], [`hyperloglog`] |
//! | follow sums and multiplicities | `rows`, `keys`, `count`, `distinct`, `threshold` | [`running`] |
//! | combine flows | `join`, `join_map` | [`join`] |
//! | combine flows as SQL does | `semijoin`, `antijoin`, `left_join`, `full_join`, `lookup_as_of`, `union`, `intersect`, `except`, `having` | [`relational`] |
//! | any function of a key's rows | `reduce` | [`mod@reduce`] |
//! | the greatest and the least | `top_k`, `bottom_k`, `min`, `max` | [`top_k`] |
//! | windows of event time | `tumbling`, `hopping`, `sliding`, `sessions` | [`windows`] |
//! | rows that go by themselves | `valid_during`, `keep_last` | [`temporal`] |
//! | tables from streams of changes | `upsert`, `row_changes`, `deduplicate` | [`changes`] |
//! | graphs | `reachable`, `distances`, `shortest_paths`, `components`, `pagerank`, `normalize` | [`graphs`] |
//! | any differential code, recursion | `opaque`, `iterate` | [`mod@opaque`] |
//! | state of your own | `keyed` | [`keyed`], [`write_your_own`] |
//! | what closures could not take | the view `errors` | [`quarantine`] |
//! | answer from it | `publish` | [`views`] |
//!
//! # State and cost in each layer
//!
//! Where a page says "touched since the base", that is: in a speed graph the keys that the log has touched since the
//! generation it stands on, a handover's worth; in an incremental batch those between two cuts, until it is frozen; in a full
//! batch, which stands on nothing, all keys, until it is frozen. A generation keeps runs, sorted and in columns. A cost for a
//! change is a cost for each change of a row at each tick; a batch has one tick, so that what happens to a key several times
//! costs once.
//!
//! Deliberately absent: files, clocks, threads. An operator sees its layer, and through it runs of the base.

pub mod aggregate;
mod arranged;
mod cells;
pub mod changes;
pub mod distributions;
pub mod events;
pub(crate) mod exchange;
pub mod extremes;
pub mod flow;
pub mod frequencies;
pub mod graphs;
pub mod hyperloglog;
mod in_order;
pub mod join;
pub mod keyed;
mod layer;
pub mod moments;
pub mod monoid;
pub mod opaque;
pub mod quarantine;
pub mod reduce;
pub mod relational;
pub mod running;
pub mod temporal;
pub mod top_k;
pub mod views;
pub mod windows;
#[doc = include_str!("../../docs/write_your_own_operator.md")]
pub mod write_your_own {}

pub use aggregate::{Aggregated, COMBINED_GROUPS_MAX, Groups, KeyRef};
pub use changes::{RowChange, Upserts};
pub use distributions::{Bucket, Histogram, Quantiles, Summary};
pub use events::{Chunk, Epoch, Events};
pub use exchange::Codec;
pub use extremes::{ArgMax, ArgMin, BoundedSet, Max, Min};
pub use flow::{Diff, Flow, Update};
pub use frequencies::{CountMin, Heavy, HeavyHitters};
pub use hyperloglog::HyperLogLog;
pub use keyed::Keyed;
pub use layer::{Layer, Purpose, Slot};
pub use moments::{Mean, Moments, Real, Variance};
pub use monoid::{Abelian, Count, Fold, Monoid, Sum};
pub use opaque::{Inner, Inputs, opaque};
pub(crate) use quarantine::panic_message;
pub use quarantine::{ERRORS, Graph, QUARANTINED_TEXT_MAX, Quarantined};
pub use views::{NewView, Publish, Rows, Sums, ViewExport, Views};
pub use windows::Window;
