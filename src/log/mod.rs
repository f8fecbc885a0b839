//! The master dataset: every event, immutable, in the order it was acknowledged.
//!
//! ```text
//! DIR/log.json                            what the log is: id, event type, layout, partitions
//! DIR/lock                                held while a process has the log open
//! DIR/mark                                ticks reserved ahead, offsets known to be on disk
//! DIR/lock-0001, DIR/mark-0001            the same of the second process, when several have the log open
//! DIR/p0000/00000000000000000000.seg      sealed segment: large blocks, mapped and read in place
//! DIR/p0000/00000000000000065536.active   being appended to: one frame per group commit
//! DIR/p0000/*.torn-1                      a tail that a crash tore, set aside before it was cut
//! DIR/redactions.json                     what was redacted, by which conditions, and why; absent when nothing was
//! ```
//!
//! What holds whenever: an acknowledged event is never lost; an offset means the same event for ever; a reader that was told
//! a frontier never sees an event below it appear; damage is reported with its place and never skipped.
//!
//! ```
//! use lambdaflow::log::{Event, Log, LogOptions, SystemClock, Tick};
//! use lambdaflow::storage::RealDisk;
//! use std::sync::Arc;
//!
//! #[derive(Clone, Debug, columnar::Columnar, serde::Serialize, serde::Deserialize)]
//! struct Visit { user: u64, path: String }
//! impl Event for Visit {
//!     const NAME: &'static str = "visit";
//!     const VERSION: u32 = 1;
//!     const FIELDS: &'static [&'static str] = &["user: u64", "path: String"];
//! }
//!
//! # let temporary = tempfile::tempdir()?;
//! # let dir = temporary.path().join("log");
//! let log = Log::<Visit>::open(Arc::new(RealDisk), Arc::new(SystemClock), &dir, LogOptions::default())?;
//! let ack = log.append(vec![Visit { user: 1, path: "/".into() }])?; // on disk when this returns
//! assert_eq!(ack.first_offset().0, 0);
//!
//! let mut cursor = log.cursor(Tick::ZERO);
//! let block = cursor.next()?.expect("one block");
//! let paths = block.columns().path; // borrowed from the block
//! assert_eq!(paths.get_str(0), "/");
//! log.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
mod block;
mod bulk;
mod clock;
mod commit;
mod condition;
mod core;
mod cursor;
pub(crate) mod document;
mod error;
mod event;
pub(crate) mod frame;
mod handle;
mod mark;
mod merge;
mod meta;
mod options;
mod partition;
pub(crate) mod place;
mod position;
mod producers;
mod reader;
mod recovery;
mod redact;
mod report;
mod rewrite;
mod salvage;
mod segment;
mod share;
mod ticks;

pub use self::core::ADVANCE_WAIT_MS_MAX;
pub use block::Block;
pub(crate) use block::partition_point;
pub use bulk::{BULK_FRAMES_IN_FLIGHT_MAX, BulkAck, BulkAppender};
pub use clock::{Clock, SimClock, SystemClock};
pub use commit::{APPEND_BYTES_MAX, APPEND_EVENTS_MAX, Ack, GROUP_BYTES_MAX, GROUP_EVENTS_MAX, QUEUE_APPENDS_MAX, SEAL_BACKLOG_MAX};
pub use condition::{CONDITION_BYTES_MAX, Condition};
pub use cursor::Cursor;
pub use error::{Damage, LogError};
pub use event::{Earlier, Event, EventType};
pub use handle::{Log, LogStats, PartitionStats, WakerGuard, id};
pub use merge::MERGE_BYTES_MAX;
pub(crate) use meta::LOCK_NAME;
pub use meta::{EVENT_TYPES_MAX, PARTITIONS_MAX};
pub use options::{BLOCK_EVENTS_MAX, Durability, Execution, LogOptions, SEGMENT_BYTES_MAX, Share};
pub use position::{Offset, Partition, Tick};
pub use producers::{PRODUCER_NAME_BYTES_MAX, PRODUCER_WINDOW, PRODUCERS_MAX, ProducerError};
pub use reader::LogReader;
pub use redact::{
    REDACTIONS_MAX, RedactReport, RedactRequest, RedactedSegment, Redaction, TornTail, WHY_BYTES_MAX, redact, redact_after, redact_dry_run,
    redactions,
};
pub use report::{LogInfo, PartitionInfo, VerifyReport, info, verify};
pub use rewrite::{RewriteReport, rewrite};
pub use salvage::{Lost, SalvageReport, salvage};
pub use share::{Claim, Prepared, ShareLock, lock_dir};
