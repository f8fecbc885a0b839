//! The master dataset.
