//! Faults of real processes and of the kernel: what a simulated disk can only assume. Rows of the fault catalogue are in
//! docs/reliability.md.
//!
//! A log is written by a child, which is this binary in another role; strace lets its system calls fail, limits starve it, a
//! file system of its own is filled, cut off or unreadable. Whatever happened: what was acknowledged is there once, and
//! what is there is what was sent, in order.
mod child;
mod kernel;
#[path = "../log_support/mod.rs"]
mod log_support;
mod processes;
mod tools;

#[test]
fn child_role() {
    child::play();
}
