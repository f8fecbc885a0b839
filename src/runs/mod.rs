//! Runs: immutable sorted rows, in levels that add up to a collection, and the merge of a base with later changes.
//!
//! **Invariant.** The sum over a collection's runs is what the collection held at the generation's frontier. Everything
//! that rearranges runs keeps that sum.
//!
//! Runs are in memory, or in files that are mapped (`file`) and named by a manifest (`manifest`, `store`).
//!
//! Deliberately absent: any knowledge of operators and graphs, and of the log but for its ids and offsets.

pub mod data;
pub mod difference;
pub mod file;
pub mod generation;
mod json_order;
pub mod levels;
pub mod manifest;
pub mod merged;
pub mod published;
pub mod run;
pub mod shared;
pub mod store;
pub mod view;

pub use data::{BUCKETS, Change, Data, bucket};
pub use difference::{Difference, DifferencePart, ViewsByName, differences};
pub use file::RunFile;
pub use generation::{Frozen, Generation, Shard};
pub use levels::{AnyLevels, End, KeyRows, Levels, Lookup};
pub use manifest::{Contents, FileInfo, GenerationError, LogRange, Manifest, SlotInfo};
pub use merged::{Digest, Merged};
pub use published::{Changes, History, Published};
pub use run::Run;
pub use store::GenerationStore;
pub use view::{AnswerRow, Audit, Audited, Portion, Query, ReadError, Shape, ShardedView, View, ViewInfo, ViewShard};
