//! Rows without pointers, written as they are in memory by `abomonation`, to compare with.
//!
//! **This is unsound**, and stays so: RUSTSEC-2021-0120 has no patch. What is wrong with it here:
//! - Bytes between the fields of a row are read as bytes though nothing wrote them, and are sent: undefined behaviour, and
//!   whatever the sender's memory held there gets to the receiver.
//! - What is received is taken to be rows. Any bit of a `bool`, a `char` or an enum that no row has is undefined behaviour.
//! - The layout of a row is the compiler's choice: processes must run the same executable.
//!
//! So it is for a trusted cluster of one build, when it is asked for, and for nothing that is stored.

use std::io::{self, Write};
use std::mem::{align_of, needs_drop, size_of, size_of_val};

use abomonation::Abomonation;
use serde::de::DeserializeOwned;

use super::{Row, WORD};

/// Whether rows can be copied byte by byte: nothing in them is to be dropped, so they own no memory; they can be made of bytes
/// that do not outlive the making, so by all that a type can tell they borrow none.
pub(super) const fn fits<D>() -> bool {
    !needs_drop::<D>() && align_of::<D>() <= WORD && size_of::<D>() > 0
}

/// A row for which [`fits`] holds.
#[repr(transparent)]
struct Plain<D>(D);

// Nothing here can be checked, see above. The defaults copy a value's own bytes, and [`fits`] holds
// wherever a `Plain` is made: no bytes outside of it belong to it. A type that hides a pointer from `Drop` and from serde (an
// index of interned `&'static str`, say) would still break it.
impl<D: DeserializeOwned + 'static> Abomonation for Plain<D> {}

/// Bytes that rows are written in.
pub(super) fn size<D>(rows: &[D]) -> usize {
    size_of_val(rows)
}

/// Writes rows, one after the other.
pub(super) fn write<D: Row>(rows: &[D], writer: &mut impl Write) -> io::Result<()> {
    debug_assert!(fits::<D>());
    rows.iter().try_for_each(|row| {
        // SAFETY: a `Plain` is laid out as what it wraps.
        let row = unsafe { &*std::ptr::from_ref(row).cast::<Plain<D>>() };
        // SAFETY: see the head of this file.
        unsafe { abomonation::encode(row, writer) }
    })
}

/// Reads so many rows. `abomonation` wants bytes that it may change and that are aligned, so they are copied first.
pub(super) fn read<D: Row>(bytes: &[u8], rows: usize) -> Result<Vec<D>, String> {
    debug_assert!(fits::<D>());
    let length = rows.checked_mul(size_of::<D>()).filter(|length| *length <= bytes.len());
    let length = length.ok_or_else(|| format!("its {} bytes end before its {rows} rows do", bytes.len()))?;
    let mut words = vec![0u64; length.div_ceil(WORD)];
    let copy: &mut [u8] = columnar::bytemuck::cast_slice_mut(&mut words);
    copy[..length].copy_from_slice(&bytes[..length]);
    let rows = copy[..length].chunks_exact_mut(size_of::<D>()).map(|row| {
        // SAFETY: see the head of this file. The row is aligned: the first is, and sizes are multiples of alignments.
        let row = unsafe { abomonation::decode::<Plain<D>>(row) };
        row.expect("a chunk is as long as a row").0.0.clone()
    });
    Ok(rows.collect())
}
