//! Arguments and sizes of a launch.

use std::ffi::c_void;

use tch::Tensor;

/// Most parts of a tree sum; as in `kernels.cu`.
pub const MAX_PARTS: usize = 16;
/// Threads of a block.
const BLOCK: u32 = 256;
/// Lanes that work on one row together; as in `kernels.cu`.
const GROUP: u64 = 32;

/// Blocks and threads of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    pub blocks: [u32; 2],
    pub threads: u32,
}

impl Grid {
    fn new(blocks: u64, lines: u64, threads: u32) -> Self {
        let limited = |blocks: u64| u32::try_from(blocks).unwrap_or(u32::MAX);
        Self {
            blocks: [limited(blocks), limited(lines)],
            threads,
        }
    }

    /// One thread for each of `count` units of work.
    pub fn threads(count: u64) -> Self {
        Self::new(count.div_ceil(u64::from(BLOCK)), 1, BLOCK)
    }

    /// One thread for four of `count` elements.
    pub fn fours(count: u64) -> Self {
        Self::threads(count.div_ceil(4))
    }

    /// One group of lanes for each row.
    pub fn rows(rows: u64) -> Self {
        Self::threads(rows * GROUP)
    }

    /// One block for each row.
    pub fn blocks(rows: u64) -> Self {
        Self::new(rows, 1, BLOCK)
    }

    /// In each of `lines` lines, one thread for four of `count` elements, in blocks of `threads`.
    pub fn lines(count: u64, lines: u64, threads: u32) -> Self {
        Self::new(count.div_ceil(4).div_ceil(u64::from(threads)), lines, threads)
    }

    /// Blocks of 32 columns, with 32 threads for each.
    pub fn columns(count: u64) -> Self {
        Self::new(count.div_ceil(32), 1, 1024)
    }

    /// Whether there is nothing to do: a driver refuses such a launch.
    pub fn is_empty(self) -> bool {
        self.blocks.contains(&0)
    }
}

/// The arguments of a kernel, in order, each at an address that is a multiple of 8.
#[derive(Debug, Default)]
pub struct Arguments {
    words: Vec<u64>,
    starts: Vec<usize>,
}

impl Arguments {
    fn push(mut self, word: u64) -> Self {
        self.starts.push(self.words.len());
        self.words.push(word);
        self
    }

    /// The memory of a tensor.
    pub fn tensor(self, tensor: &Tensor) -> Self {
        self.push(tensor.data_ptr() as u64)
    }

    /// The memory of a tensor, or a null pointer.
    pub fn optional(self, tensor: Option<&Tensor>) -> Self {
        self.push(tensor.map_or(0, |tensor| tensor.data_ptr() as u64))
    }

    pub fn long(self, value: i64) -> Self {
        self.push(value.cast_unsigned())
    }

    pub fn int(self, value: i32) -> Self {
        self.push(u64::from(value.cast_unsigned()))
    }

    pub fn float(self, value: f32) -> Self {
        self.push(u64::from(value.to_bits()))
    }

    /// A structure of numbers.
    pub fn longs<const N: usize>(mut self, values: [i64; N]) -> Self {
        self.starts.push(self.words.len());
        self.words.extend(values.map(i64::cast_unsigned));
        self
    }

    /// A structure with the memory of up to [`MAX_PARTS`] tensors.
    pub fn parts(mut self, parts: &[Tensor]) -> Self {
        self.starts.push(self.words.len());
        let pointers = parts.iter().map(|part| part.data_ptr() as u64);
        self.words.extend(pointers.chain(std::iter::repeat(0)).take(MAX_PARTS));
        self
    }

    /// The addresses of the arguments, as drivers take them.
    pub(super) fn addresses(&self) -> Vec<*mut c_void> {
        let address = |start: &usize| std::ptr::from_ref(&self.words[*start]).cast_mut().cast();
        self.starts.iter().map(address).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_of_work_has_a_thread() {
        for count in [0, 1, 255, 256, 257, 1_000_000] {
            let Grid { blocks, threads } = Grid::threads(count);
            let all = u64::from(blocks[0]) * u64::from(threads);
            assert!(all >= count && all < count + u64::from(threads));
            assert_eq!(Grid::threads(count).is_empty(), count == 0);
        }
        assert_eq!(Grid::lines(9, 3, 64).blocks, [1, 3]);
    }

    #[test]
    fn arguments_are_where_their_addresses_point() {
        let tensor = Tensor::from(1.0f32);
        let arguments = Arguments::default()
            .long(-7)
            .parts(std::slice::from_ref(&tensor))
            .float(0.5)
            .int(-3);
        let addresses = arguments.addresses();
        assert_eq!(addresses.len(), 4);
        // SAFETY: the addresses point into the words of `arguments`.
        unsafe {
            assert_eq!(*addresses[0].cast::<i64>(), -7);
            assert_eq!(*addresses[1].cast::<*mut c_void>(), tensor.data_ptr());
            assert_eq!(*addresses[1].cast::<u64>().add(MAX_PARTS - 1), 0);
            assert_eq!(*addresses[2].cast::<f32>(), 0.5);
            assert_eq!(*addresses[3].cast::<i32>(), -3);
        }
    }
}
