//! Memory of CPU tensors as slices, for kernels that are written in Rust.
//!
//! A tensor is a handle: several handles can refer to the same memory, which the borrow checker cannot see.
//! [`HostAccess`] records every slice that it hands out and refuses overlapping ones, so the arguments of one kernel call
//! cannot alias. What it cannot check, its constructor requires.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use tch::Tensor;

use super::ModelError;
use super::device::is_on_device;
use crate::kernels::Stored;

/// How borrowed memory is used. Only borrows that both read, or both use cells, may overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Read,
    Write,
    Cells,
}

/// Slices of tensors for one kernel call. Borrows end with this value.
#[derive(Debug)]
pub struct HostAccess {
    /// Address ranges.
    borrows: RefCell<Vec<(Range<usize>, Use)>>,
}

impl HostAccess {
    /// # Safety
    /// As long as this value exists, no other thread, no other `HostAccess` and no call of libtorch may write to memory
    /// that is read through this value, access memory that is written through it, or free or resize either.
    pub unsafe fn new() -> Self {
        Self {
            borrows: RefCell::default(),
        }
    }

    /// Elements of a contiguous tensor.
    ///
    /// # Errors
    /// [`ModelError`] if the element type differs, the tensor is strided or on another device, or its memory is already
    /// borrowed for writing.
    pub fn read<'a, E: Stored>(&'a self, tensor: &'a Tensor) -> Result<&'a [E], ModelError> {
        self.read_range(tensor, 0..tensor.numel())
    }

    /// Elements of a contiguous tensor, for writing.
    ///
    /// # Errors
    /// [`ModelError`] as for [`HostAccess::read`]; also if the memory is already borrowed for reading.
    pub fn write<'a, E: Stored>(&'a self, tensor: &'a Tensor) -> Result<&'a mut [E], ModelError> {
        self.write_range(tensor, 0..tensor.numel())
    }

    /// A range of the elements of a contiguous tensor.
    ///
    /// # Errors
    /// [`ModelError`] as for [`HostAccess::read`], or if the range exceeds the tensor.
    pub fn read_range<'a, E: Stored>(&'a self, tensor: &'a Tensor, range: Range<usize>) -> Result<&'a [E], ModelError> {
        let (pointer, length) = self.borrow(contiguous(tensor, range)?, Use::Read)?;
        // SAFETY: the elements are initialised and live as long as the tensor. The constructor's caller and `borrow`
        // guarantee that nothing writes to them.
        Ok(unsafe { std::slice::from_raw_parts(pointer, length) })
    }

    /// A range of the elements of a contiguous tensor, for writing.
    ///
    /// # Errors
    /// [`ModelError`] as for [`HostAccess::write`], or if the range exceeds the tensor.
    #[allow(clippy::mut_from_ref)] // `borrow` refuses a second slice of the same memory
    pub fn write_range<'a, E: Stored>(
        &'a self,
        tensor: &'a Tensor,
        range: Range<usize>,
    ) -> Result<&'a mut [E], ModelError> {
        let (pointer, length) = self.borrow(contiguous(tensor, range)?, Use::Write)?;
        // SAFETY: the elements are initialised and live as long as the tensor. The constructor's caller and `borrow`
        // guarantee that nothing else accesses them.
        Ok(unsafe { std::slice::from_raw_parts_mut(pointer, length) })
    }

    /// Elements of a tensor from its first to its last, including those in between that belong to other tensors.
    ///
    /// # Errors
    /// [`ModelError`] as for [`HostAccess::read`]; the tensor may be strided.
    pub fn read_strided<'a, E: Stored>(&'a self, tensor: &'a Tensor) -> Result<&'a [E], ModelError> {
        let (pointer, length) = self.borrow((pointer(tensor)?, extent(tensor)), Use::Read)?;
        // SAFETY: as in `read_range`; the elements in between are initialised parts of the same storage.
        Ok(unsafe { std::slice::from_raw_parts(pointer, length) })
    }

    /// Elements as for [`HostAccess::read_strided`], for writing. Cells of several tensors may overlap.
    ///
    /// # Errors
    /// [`ModelError`] as for [`HostAccess::write`]; the tensor may be strided.
    pub fn cells<'a, E: Stored>(&'a self, tensor: &'a Tensor) -> Result<&'a [Cell<E>], ModelError> {
        let (pointer, length) = self.borrow((pointer::<E>(tensor)?, extent(tensor)), Use::Cells)?;
        // SAFETY: as in `write_range`; a `Cell` has the memory layout of its content and may be aliased.
        Ok(unsafe { std::slice::from_raw_parts(pointer.cast::<Cell<E>>(), length) })
    }

    /// Records a borrow. An empty one gets a dangling pointer, since an empty tensor may have none.
    fn borrow<E>(&self, (pointer, length): (*mut E, usize), usage: Use) -> Result<(*mut E, usize), ModelError> {
        if length == 0 {
            return Ok((std::ptr::dangling_mut(), 0));
        }
        let start = pointer.addr();
        let range = start..start + length * size_of::<E>();
        let mut borrows = self.borrows.borrow_mut();
        let conflicts = |(other, other_use): &(Range<usize>, Use)| {
            other.start < range.end && range.start < other.end && (usage == Use::Write || *other_use != usage)
        };
        if borrows.iter().any(conflicts) {
            return Err(ModelError::Aliased);
        }
        borrows.push((range, usage));
        Ok((pointer, length))
    }
}

fn contiguous<E: Stored>(tensor: &Tensor, range: Range<usize>) -> Result<(*mut E, usize), ModelError> {
    if !tensor.is_contiguous() {
        return Err(ModelError::Strided(tensor.size()));
    }
    let (pointer, length) = (pointer::<E>(tensor)?, tensor.numel());
    if range.start > range.end || range.end > length {
        return Err(ModelError::OutOfRange { range, length });
    }
    // SAFETY: the range is within the tensor's elements.
    Ok((unsafe { pointer.add(range.start) }, range.len()))
}

fn pointer<E: Stored>(tensor: &Tensor) -> Result<*mut E, ModelError> {
    if tensor.kind() != E::KIND {
        return Err(ModelError::Kind {
            found: tensor.kind(),
            expected: E::KIND,
        });
    }
    if is_on_device(tensor) {
        return Err(ModelError::Device(tensor.device()));
    }
    Ok(tensor.data_ptr().cast())
}

/// Elements from a tensor's first to its last.
fn extent(tensor: &Tensor) -> usize {
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

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn access() -> HostAccess {
        // SAFETY: each test has its own tensors and one access, and calls nothing of libtorch meanwhile.
        unsafe { HostAccess::new() }
    }

    #[test]
    fn written_memory_is_never_aliased() {
        let buffer = Tensor::zeros([6, 4], (Kind::Float, Device::Cpu));
        let (rows, columns) = (buffer.narrow(0, 2, 2), buffer.narrow(1, 1, 2));
        let host = access();
        host.write::<f32>(&rows).unwrap().fill(1.0);
        assert!(matches!(host.read::<f32>(&buffer), Err(ModelError::Aliased)));
        assert!(matches!(host.write::<f32>(&rows), Err(ModelError::Aliased)));
        assert!(matches!(host.cells::<f32>(&columns), Err(ModelError::Aliased)));
        assert_eq!(host.read_range::<f32>(&buffer, 0..8).unwrap(), [0.0; 8]);
        assert_eq!(host.read_range::<f32>(&buffer, 0..4).unwrap(), [0.0; 4]);
        assert!(matches!(
            host.write_range::<f32>(&buffer, 7..8),
            Err(ModelError::Aliased)
        ));
        drop(host);
        let host = access();
        let (left, right) = (buffer.narrow(1, 0, 2), buffer.narrow(1, 2, 2));
        host.cells::<f32>(&left).unwrap()[0].set(2.0);
        host.cells::<f32>(&right).unwrap()[0].set(3.0);
        assert!(matches!(host.read_strided::<f32>(&left), Err(ModelError::Aliased)));
        drop(host);
        assert_eq!(access().read_range::<f32>(&buffer, 0..3).unwrap(), [2.0, 0.0, 3.0]);
    }

    #[test]
    fn unsuitable_tensors_are_refused() {
        let buffer = Tensor::zeros([3, 4], (Kind::Float, Device::Cpu));
        let columns = buffer.narrow(1, 1, 2);
        let host = access();
        assert!(matches!(host.read::<f32>(&columns), Err(ModelError::Strided(_))));
        assert!(matches!(host.read::<i64>(&buffer), Err(ModelError::Kind { .. })));
        assert!(matches!(
            host.read_range::<f32>(&buffer, 3..13),
            Err(ModelError::OutOfRange { .. })
        ));
        assert_eq!(host.read_strided::<f32>(&columns).unwrap().len(), 10);
        let empty = Tensor::zeros([0], (Kind::Float, Device::Cpu));
        assert!(host.write::<f32>(&empty).unwrap().is_empty());
    }
}
