//! Generations on disk: what is written is read again or found to be damaged, a restart goes on from them, and no crash at
//! any step costs an event or changes an answer.

#[path = "../cluster_support/mod.rs"]
mod cluster_support;
mod crash;
mod faults;
mod files;
mod restart;
mod system;
