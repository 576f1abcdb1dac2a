//! Stored number formats: f32, f16, bf16, and blocks of 32 that share a scale. All little-endian.
//!
//! The blocks are those of ggml: q8_0 is a scale (f16) and 32 signed bytes; q4_0 a scale and 16 bytes with two numbers
//! each, the first sixteen in the low halves, minus 8; q4_1 a scale, a minimum and the same 16 bytes.

use half::{bf16 as Bf16, f16 as F16};

/// Numbers of one block.
pub(super) const BLOCK: usize = 32;

pub(super) fn f32(bytes: &[u8]) -> Vec<f32> {
    let (each, _) = bytes.as_chunks::<4>();
    each.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

pub(super) fn f16(bytes: &[u8]) -> Vec<f32> {
    let (each, _) = bytes.as_chunks::<2>();
    each.iter().map(|two| F16::from_le_bytes(*two).to_f32()).collect()
}

pub(super) fn bf16(bytes: &[u8]) -> Vec<f32> {
    let (each, _) = bytes.as_chunks::<2>();
    each.iter().map(|two| Bf16::from_le_bytes(*two).to_f32()).collect()
}

fn half(bytes: &[u8], at: usize) -> f32 {
    F16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

pub(super) fn q8_0(bytes: &[u8]) -> Vec<f32> {
    let (blocks, _) = bytes.as_chunks::<34>();
    let mut numbers = Vec::with_capacity(blocks.len() * BLOCK);
    for block in blocks {
        let scale = half(block, 0);
        numbers.extend(block[2..].iter().map(|&byte| scale * f32::from(byte.cast_signed())));
    }
    numbers
}

fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let low = bytes.iter().map(|byte| byte & 15);
    low.chain(bytes.iter().map(|byte| byte >> 4))
}

pub(super) fn q4_0(bytes: &[u8]) -> Vec<f32> {
    let (blocks, _) = bytes.as_chunks::<18>();
    let mut numbers = Vec::with_capacity(blocks.len() * BLOCK);
    for block in blocks {
        let scale = half(block, 0);
        numbers.extend(nibbles(&block[2..]).map(|nibble| scale * (f32::from(nibble) - 8.0)));
    }
    numbers
}

pub(super) fn q4_1(bytes: &[u8]) -> Vec<f32> {
    let (blocks, _) = bytes.as_chunks::<20>();
    let mut numbers = Vec::with_capacity(blocks.len() * BLOCK);
    for block in blocks {
        let (scale, minimum) = (half(block, 0), half(block, 2));
        numbers.extend(nibbles(&block[4..]).map(|nibble| scale * f32::from(nibble) + minimum));
    }
    numbers
}
