//! A Lambda Architecture runtime on timely and differential dataflow.
pub mod layers;
pub mod log;
pub mod operators;
pub mod runs;
pub mod serving;
pub mod testing;

/// What `monoid_struct!` needs at the author's side.
#[doc(hidden)]
pub mod export {
    pub use columnar;
    pub use differential_dataflow::difference::{IsZero, Semigroup};
    pub use serde;
}
