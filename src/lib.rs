//! A Lambda Architecture runtime on timely and differential dataflow.
pub mod log;
