//! Columns that are read in place: what can be checked of bytes before anybody trusts them.
use super::map::Bytes;
use columnar::bytes::indexed;
use columnar::bytes::stash::Stash;
use columnar::{Borrow, ContainerBytes, FromBytes, Index, Len, bytemuck};

/// Columns in memory, or bytes of a file that hold them.
pub(crate) type Column<C> = Stash<C, Bytes>;

/// Reads bytes as columns of `rows` rows, in place. The bytes are as `columnar::bytes::indexed` lays them out, on an 8-byte
/// boundary, and their checksum has been found to hold.
pub(crate) fn read<C: ContainerBytes>(bytes: Bytes, rows: usize) -> Result<Column<C>, String> {
    let words: &[u64] = bytemuck::try_cast_slice(&bytes).map_err(|error| format!("columns: {error}"))?;
    check_structure::<C>(words)?;
    let columns: Column<C> = Stash::Bytes(bytes);
    // `columnar` trusts the bounds inside strings and lists, and the lengths of columns of bits; those that lie outside their
    // values show here as an error, not later as a panic on a worker. Elements of lists are not followed.
    let touch = || {
        let columns = columns.borrow();
        for row in 0..columns.len().min(rows) {
            std::hint::black_box(columns.get(row));
        }
        columns.len()
    };
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(touch)) {
        Ok(found) if found == rows => {}
        Ok(found) => return Err(format!("{found} rows in the columns, expected {rows}")),
        Err(_) => return Err("columns whose bounds lie outside their values".to_string()),
    }
    Ok(columns)
}

/// Reads bytes as columns, in place if they are on an 8-byte boundary. Only how the columns lie in them is checked: bounds inside
/// columns that lead elsewhere panic when a row is looked at.
pub(crate) fn in_place<C: ContainerBytes, B: std::ops::Deref<Target = [u8]>>(bytes: B) -> Result<Stash<C, B>, String> {
    if !bytes.len().is_multiple_of(8) {
        return Err(format!("columns of {} bytes, which are no whole words", bytes.len()));
    }
    if let Ok(words) = bytemuck::try_cast_slice::<u8, u64>(&bytes) {
        check_structure::<C>(words)?;
        return Ok(Stash::Bytes(bytes));
    }
    let words: std::sync::Arc<[u64]> = bytemuck::cast_slice::<u8, [u8; 8]>(&bytes).iter().map(|word| u64::from_ne_bytes(*word)).collect();
    check_structure::<C>(&words)?;
    Ok(Stash::Align(words))
}

fn check_structure<C: ContainerBytes>(words: &[u64]) -> Result<(), String> {
    type Borrowed<'a, C> = <C as Borrow>::Borrowed<'a>;
    // A container may leave its element sizes out; then the number and the bounds of its slices are what can be checked.
    let mut sizes = Vec::new();
    match <Borrowed<'_, C> as FromBytes<'_>>::element_sizes(&mut sizes) {
        Ok(()) => indexed::validate::<Borrowed<'_, C>>(words),
        Err(_) => indexed::validate_structure(words, <Borrowed<'_, C> as FromBytes<'_>>::SLICE_COUNT),
    }
}
