//! A Lambda Architecture runtime on timely and differential dataflow.
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "http")]
pub mod http;
pub mod layers;
pub mod log;
pub mod operators;
pub mod prelude;
pub mod runs;
pub mod runtime;
pub mod serving;
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
