//! Learning-rate schedules as pieces over the steps of a stage.
//!
//! In: a schedule's parameters in steps. Out: its pieces, and the pieces that touch the first so many steps: a node's
//! key sees only those, so that a longer budget leaves the shared prefix alone where the schedule does.

use crate::fields::{Exact, Piece};

/// A whole schedule, in steps of its stage.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    Constant {
        rate: Exact,
        warmup: u64,
    },
    Linear {
        peak: Exact,
        floor: Exact,
        warmup: u64,
    },
    Cosine {
        peak: Exact,
        floor: Exact,
        warmup: u64,
    },
    /// Warm-up, stable, decay: a straight line down over the last `decay` steps.
    WarmupStableDecay {
        peak: Exact,
        floor: Exact,
        warmup: u64,
        decay: u64,
    },
}

fn zero() -> Exact {
    Exact::new(rust_decimal::Decimal::ZERO)
}

impl Schedule {
    /// Returns the pieces of a stage of `total` steps, in order of their first steps.
    pub fn pieces(&self, total: u64) -> Vec<Piece> {
        let warm = |warmup: u64, peak: Exact| {
            (warmup > 0).then(|| Piece::Linear {
                from: 0,
                to: warmup,
                start: zero(),
                end: peak,
            })
        };
        match *self {
            Self::Constant { rate, warmup } => warm(warmup, rate)
                .into_iter()
                .chain([Piece::Constant { from: warmup, rate }])
                .collect(),
            Self::Linear { peak, floor, warmup } => warm(warmup, peak)
                .into_iter()
                .chain([Piece::Linear {
                    from: warmup,
                    to: total,
                    start: peak,
                    end: floor,
                }])
                .collect(),
            Self::Cosine { peak, floor, warmup } => warm(warmup, peak)
                .into_iter()
                .chain([Piece::Cosine {
                    from: warmup,
                    to: total,
                    start: peak,
                    end: floor,
                }])
                .collect(),
            Self::WarmupStableDecay {
                peak,
                floor,
                warmup,
                decay,
            } => {
                let start = total.saturating_sub(decay);
                let stable = (start > warmup || decay == 0).then_some(Piece::Constant {
                    from: warmup,
                    rate: peak,
                });
                let down = (decay > 0).then_some(Piece::Linear {
                    from: start,
                    to: total,
                    start: peak,
                    end: floor,
                });
                warm(warmup, peak).into_iter().chain(stable).chain(down).collect()
            }
        }
    }

    /// Returns the pieces that decide the rates of the steps `0..last`.
    pub fn pieces_before(&self, total: u64, last: u64) -> Vec<Piece> {
        self.pieces(total)
            .into_iter()
            .filter(|piece| first_step(piece) < last)
            .collect()
    }
}

fn first_step(piece: &Piece) -> u64 {
    match *piece {
        Piece::Constant { from, .. } | Piece::Linear { from, .. } | Piece::Cosine { from, .. } => from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Exact {
        text.parse().expect("a decimal")
    }

    #[test]
    fn a_longer_budget_leaves_the_prefix_alone_where_the_shape_does() {
        let (peak, floor) = (exact("1e-3"), exact("1e-4"));
        let constant = Schedule::Constant { rate: peak, warmup: 10 };
        assert_eq!(constant.pieces_before(100, 50), constant.pieces_before(200, 50));
        let wsd = Schedule::WarmupStableDecay {
            peak,
            floor,
            warmup: 10,
            decay: 20,
        };
        assert_eq!(wsd.pieces_before(100, 80), wsd.pieces_before(200, 80));
        assert_ne!(wsd.pieces_before(100, 90), wsd.pieces_before(200, 90));
        let cosine = Schedule::Cosine {
            peak,
            floor,
            warmup: 10,
        };
        assert_eq!(
            cosine.pieces_before(100, 10),
            cosine.pieces_before(200, 10),
            "warm-up alone is the same"
        );
        assert_ne!(cosine.pieces_before(100, 50), cosine.pieces_before(200, 50));
    }
}
