//! Types that several tables use, and their bounds.

use super::{TextKind, Type};
use crate::spec::Unit;

/// Tokens.
pub(super) const LONGEST_SEQUENCE: u64 = 1 << 24;
/// Sequences.
pub(super) const LARGEST_MICRO_BATCH: u64 = 1 << 16;
pub(super) const TOKENS_OR_STEPS: &[Unit] = &[Unit::Tokens, Unit::Steps];
pub(super) const TEXT: Type = Type::Text(TextKind::Plain);
