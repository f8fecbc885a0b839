//! Ports for processes that are yet to be started.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that systems give to outgoing connections (on Linux from 32,768 on): what is free stays so until it is used.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// Addresses of this machine that nobody listens on. No other test of this process is given the same, and hardly one of another.
pub fn free_addresses(n: usize) -> Vec<String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let span = u32::from(PORTS.end - PORTS.start);
    let candidates = std::iter::repeat_with(|| {
        let nth = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        PORTS.start + ((std::process::id().wrapping_mul(97).wrapping_add(nth)) % span) as u16
    });
    let free = candidates.take(span as usize).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let addresses: Vec<_> = free.take(n).map(|port| format!("127.0.0.1:{port}")).collect();
    assert_eq!(addresses.len(), n, "there are free ports");
    addresses
}
