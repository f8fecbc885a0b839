//! A Lambda Architecture runtime on timely and differential dataflow.
//!
//! An author writes a dataflow once: events in, named views out ([`operators`]). The runtime keeps every event in an
//! immutable [`log`], computes the views in a batch layer over the whole log and in a speed layer over what the batch has
//! not reached ([`layers`]), and serves one exact answer from both ([`serving`]).
//!
//! ```
//! use lambdaflow::prelude::*;
//! use lambdaflow::testing::{Law, check_layers};
//!
//! #[derive(Clone, Debug, Serialize, Deserialize, Columnar)]
//! struct Visit { user: u64, page: String }
//! impl Event for Visit {
//!     const NAME: &'static str = "visits.Visit";
//!     const VERSION: u32 = 1;
//!     const FIELDS: &'static [&'static str] = &["user: u64", "page: String"];
//! }
//!
//! fn visits(events: Events<'_, Visit>, views: &mut Views) {
//!     // `visit` is borrowed from the log: no copy but for the first visit of a page.
//!     let visits = events.aggregate::<String, Count>(|visit, groups| groups.add(visit.page, Count::one()));
//!     views.publish("visits", visits).key(&["page"]).value(&["visits"]);
//! }
//!
//! // Base at any cut plus the changes after it equals the run from scratch: the law that all of this keeps.
//! let events: Vec<_> = (0..100).map(|i| (Tick(i / 5), Visit { user: i % 7, page: format!("/{}", i % 3) })).collect();
//! let (_checks, answers) = check_layers(visits, &events, &Law::default());
//! assert_eq!(answers["visits"][0].key, "/0");
//! assert_eq!(answers["visits"][0].value, 34);
//! ```
#![warn(missing_docs)]

#[cfg(feature = "cli")]
mod cli;
pub mod cluster;
#[cfg(feature = "http")]
pub mod http;
pub mod layers;
pub mod log;
pub mod operators;
pub mod prelude;
pub mod runs;
pub mod runtime;
pub mod serving;
pub mod storage;
pub mod testing;

pub use differential_dataflow;
pub use timely;

#[cfg(feature = "cli")]
pub use cli::{main, main_of};

/// What `monoid_struct!` needs at the author's side.
#[doc(hidden)]
pub mod export {
    pub use columnar;
    pub use differential_dataflow::difference::{IsZero, Semigroup};
    pub use serde;
}
