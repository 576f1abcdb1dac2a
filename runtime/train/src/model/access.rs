//! Tensors as slices, for kernels that work on the CPU's memory.

use std::cell::Cell;
use std::ops::Range;

use tch::{Device, Tensor};

use super::ModelError;
use crate::kernels::Stored;

fn check<E: Stored>(tensor: &Tensor) -> Result<(*mut E, usize), ModelError> {
    if !tensor.is_contiguous() {
        return Err(ModelError::Strided(tensor.size()));
    }
    Ok((pointer(tensor)?, tensor.numel()))
}

fn pointer<E: Stored>(tensor: &Tensor) -> Result<*mut E, ModelError> {
    if tensor.kind() != E::KIND {
        return Err(ModelError::Kind {
            found: tensor.kind(),
            expected: E::KIND,
        });
    }
    if tensor.device() != Device::Cpu {
        return Err(ModelError::Unfit(format!(
            "a CPU kernel was given a tensor on {:?}",
            tensor.device()
        )));
    }
    Ok(tensor.data_ptr().cast())
}

/// Elements from the first of a tensor to its last.
fn reach(tensor: &Tensor) -> usize {
    let sizes = tensor.size();
    if sizes.contains(&0) {
        return 0;
    }
    let last: i64 = sizes
        .iter()
        .zip(tensor.stride())
        .map(|(size, stride)| (size - 1) * stride)
        .sum();
    last as usize + 1
}

/// The numbers of a contiguous CPU tensor.
///
/// A tensor is a handle: the caller sees to it that no other handle to this memory is written through while the slice
/// lives. In this crate every buffer has one owner: weights change only between steps, gradients and workspaces belong
/// to one thread.
///
/// # Errors
/// [`ModelError`] if the tensor holds other numbers, has gaps, or stands on another device.
pub fn elements<E: Stored>(tensor: &Tensor) -> Result<&[E], ModelError> {
    let (pointer, length) = check::<E>(tensor)?;
    // SAFETY: libtorch keeps `length` initialised elements of this type there as long as the tensor lives.
    Ok(if length == 0 {
        &[]
    } else {
        unsafe { std::slice::from_raw_parts(pointer, length) }
    })
}

/// The numbers of a contiguous CPU tensor, to be written. See [`elements`]; the same tensor must not be read elsewhere
/// meanwhile.
///
/// # Errors
/// As [`elements`].
#[allow(clippy::mut_from_ref)] // a tensor handle gives write access to what it stands for, as in libtorch
pub fn elements_mut<E: Stored>(tensor: &Tensor) -> Result<&mut [E], ModelError> {
    let (pointer, length) = check::<E>(tensor)?;
    // SAFETY: as above, and the caller holds the only handle in use.
    Ok(if length == 0 {
        &mut []
    } else {
        unsafe { std::slice::from_raw_parts_mut(pointer, length) }
    })
}

/// A range of the numbers of a contiguous CPU tensor; several threads may take ranges that do not overlap.
///
/// # Errors
/// As [`elements`]; or if the range reaches past the end.
pub fn part<E: Stored>(tensor: &Tensor, range: Range<usize>) -> Result<&[E], ModelError> {
    part_mut(tensor, range).map(|part| &*part)
}

/// As [`part`], to be written.
///
/// # Errors
/// As [`part`].
#[allow(clippy::mut_from_ref)] // as above
pub fn part_mut<E: Stored>(tensor: &Tensor, range: Range<usize>) -> Result<&mut [E], ModelError> {
    let (pointer, length) = check::<E>(tensor)?;
    if range.start > range.end || range.end > length {
        return Err(ModelError::Unfit(format!("numbers {range:?} of a tensor of {length}")));
    }
    if range.is_empty() {
        return Ok(&mut []);
    }
    // SAFETY: as above; the range lies within the tensor, and nobody else holds a part of it.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer.add(range.start), range.len()) })
}

/// The numbers of a CPU tensor from its first to its last, with what stands in its gaps. See [`elements`]; that goes for
/// the gaps as well.
///
/// # Errors
/// [`ModelError`] if the tensor holds other numbers, or stands on another device.
pub fn spread<E: Stored>(tensor: &Tensor) -> Result<&[E], ModelError> {
    let (pointer, length) = (pointer::<E>(tensor)?, reach(tensor));
    // SAFETY: a tensor lies within its storage, whose elements are initialised; nobody writes to it meanwhile.
    Ok(if length == 0 {
        &[]
    } else {
        unsafe { std::slice::from_raw_parts(pointer, length) }
    })
}

/// As [`spread`], to be written: several tensors may stand in each other's gaps, as long as one thread writes.
///
/// # Errors
/// As [`spread`].
pub fn cells<E: Stored>(tensor: &Tensor) -> Result<&[Cell<E>], ModelError> {
    let (pointer, length) = (pointer::<E>(tensor)?.cast::<Cell<E>>(), reach(tensor));
    // SAFETY: as above; a cell has the layout of what it holds, and other cells may stand for the same number.
    Ok(if length == 0 {
        &[]
    } else {
        unsafe { std::slice::from_raw_parts(pointer, length) }
    })
}
