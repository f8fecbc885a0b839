//! Runs: immutable sorted rows, in levels that add up to a collection, and the merge of a base with later changes.
//!
//! **Invariant.** The sum over a collection's runs is what the collection held at the generation's frontier. Everything
//! that rearranges runs keeps that sum.
//!
//! Deliberately absent: any knowledge of operators, graphs or files of the log.

pub mod data;
pub mod generation;
mod json_order;
pub mod levels;
pub mod merged;
pub mod published;
pub mod run;
pub mod shared;
pub mod view;

pub use data::{BUCKETS, Change, Data, bucket};
pub use generation::{Generation, Shard};
pub use levels::{AnyLevels, End, KeyRows, Levels, Lookup};
pub use merged::{Digest, Merged};
pub use published::{Changes, History, Published};
pub use run::Run;
pub use view::{AnswerRow, Audit, Audited, Query, ReadError, Shape, ShardedView, View, ViewInfo, ViewShard};
