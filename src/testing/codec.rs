//! What it costs to write rows for another process, and to read them there.

use std::hint::black_box;
use std::time::{Duration, Instant};

use timely::bytes::arc::BytesMut;
use timely::container::buffer::default_capacity;

use crate::operators::Codec;
use crate::operators::exchange::{Packer, unpack};
use crate::runs::{Change, Data};

/// What all rows together cost by a codec.
#[derive(Clone, Copy, Debug, Default)]
pub struct CodecCost {
    /// The codec that they were really written by: rows with pointers are never written by abomonation.
    pub codec: Codec,
    /// Until the bytes were there.
    pub written: Duration,
    /// Until there were rows again, each of its own.
    pub read: Duration,
    /// Bytes of all messages, without what timely adds to each.
    pub bytes: usize,
}

/// Writes and reads rows, in messages of as many as a graph sends at once, as they are exchanged.
pub fn codec_cost<K: Data, V: Data, R: Change>(codec: Codec, rows: &[((K, V), u64, R)]) -> CodecCost {
    let mut cost = CodecCost { codec: codec.of::<((K, V), u64, R)>(), ..CodecCost::default() };
    let mut packer = Packer::new(codec);
    let mut buffer = Vec::new();
    for rows in rows.chunks(default_capacity::<((K, V), u64, R)>()) {
        let rows = rows.to_vec();
        buffer.clear();
        let started = Instant::now();
        let rows = packer.write(rows, &mut buffer);
        cost.written += started.elapsed();
        cost.bytes += buffer.len();
        drop(rows);
        let received = BytesMut::from(buffer.clone()).freeze();
        let started = Instant::now();
        let rows: Vec<((K, V), u64, R)> = unpack(received);
        cost.read += started.elapsed();
        black_box(rows);
    }
    cost
}
