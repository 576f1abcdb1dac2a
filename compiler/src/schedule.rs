//! Learning-rate schedules as pieces over the steps of a stage.
//!
//! In: a schedule's parameters in steps. Out: its pieces, and the pieces that set the rates of the first N steps. A node's
//! key contains only the latter, so that a longer budget keeps the keys of a common prefix wherever the schedule allows it.

use crate::exact::Exact;
use crate::fields::SchedulePiece;

/// A complete schedule, in steps of its stage.
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
    /// One piece after the other, each from the rate at which the one before it ended.
    Piecewise {
        start: Exact,
        pieces: Vec<SchedulePart>,
    },
}

/// A piece with a length but without a first step.
#[derive(Clone, Debug, PartialEq)]
pub struct SchedulePart {
    pub shape: Shape,
    /// Steps; none for a piece that runs to the end of the stage.
    pub over: Option<u64>,
}

/// The shape of a piece; `end_rate` is the learning rate at its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Shape {
    Hold,
    Line { end_rate: Exact },
    HalfCosine { end_rate: Exact },
}

fn zero() -> Exact {
    Exact::new(rust_decimal::Decimal::ZERO)
}

impl Schedule {
    /// Returns the pieces of a stage of `total` steps, in order of their first steps.
    pub fn pieces(&self, total: u64) -> Vec<SchedulePiece> {
        let warm = |warmup: u64, peak: Exact| {
            (warmup > 0).then(|| SchedulePiece::Linear {
                from: 0,
                to: warmup,
                start: zero(),
                end: peak,
            })
        };
        match *self {
            Self::Constant { rate, warmup } => warm(warmup, rate)
                .into_iter()
                .chain([SchedulePiece::Constant { from: warmup, rate }])
                .collect(),
            Self::Linear { peak, floor, warmup } => warm(warmup, peak)
                .into_iter()
                .chain([SchedulePiece::Linear {
                    from: warmup,
                    to: total,
                    start: peak,
                    end: floor,
                }])
                .collect(),
            Self::Cosine { peak, floor, warmup } => warm(warmup, peak)
                .into_iter()
                .chain([SchedulePiece::Cosine {
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
                let decay_step = total.saturating_sub(decay);
                let stable = (decay_step > warmup || decay == 0).then_some(SchedulePiece::Constant {
                    from: warmup,
                    rate: peak,
                });
                let down = (decay > 0).then_some(SchedulePiece::Linear {
                    from: decay_step,
                    to: total,
                    start: peak,
                    end: floor,
                });
                warm(warmup, peak).into_iter().chain(stable).chain(down).collect()
            }
            Self::Piecewise { start, ref pieces } => placed(start, pieces, total),
        }
    }

    /// Returns the pieces that set the rates of the steps `0..last`.
    pub fn pieces_before(&self, total: u64, last: u64) -> Vec<SchedulePiece> {
        self.pieces(total)
            .into_iter()
            .filter(|piece| first_step(piece) < last)
            .collect()
    }
}

/// Gives each part its first step; parts without steps are left out.
fn placed(start: Exact, parts: &[SchedulePart], total: u64) -> Vec<SchedulePiece> {
    let (mut first_step, mut rate) = (0_u64, start);
    let mut pieces = Vec::new();
    for part in parts {
        let end_step = part.over.map_or(total, |over| first_step.saturating_add(over));
        let end_rate = match part.shape {
            Shape::Hold => rate,
            Shape::Line { end_rate } | Shape::HalfCosine { end_rate } => end_rate,
        };
        if end_step > first_step {
            pieces.push(match part.shape {
                Shape::Hold => SchedulePiece::Constant { from: first_step, rate },
                Shape::Line { .. } => SchedulePiece::Linear {
                    from: first_step,
                    to: end_step,
                    start: rate,
                    end: end_rate,
                },
                Shape::HalfCosine { .. } => SchedulePiece::Cosine {
                    from: first_step,
                    to: end_step,
                    start: rate,
                    end: end_rate,
                },
            });
        }
        (first_step, rate) = (end_step, end_rate);
    }
    if first_step < total {
        pieces.push(SchedulePiece::Constant { from: first_step, rate });
    }
    pieces
}

fn first_step(piece: &SchedulePiece) -> u64 {
    match *piece {
        SchedulePiece::Constant { from, .. }
        | SchedulePiece::Linear { from, .. }
        | SchedulePiece::Cosine { from, .. } => from,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact(text: &str) -> Exact {
        text.parse().expect("a decimal")
    }

    #[test]
    fn pieces_follow_each_other() {
        let [low, high] = ["1e-4", "1e-3"].map(exact);
        let part = |shape, over| SchedulePart { shape, over };
        let schedule = Schedule::Piecewise {
            start: low,
            pieces: vec![
                part(Shape::Line { end_rate: high }, Some(10)),
                part(Shape::Hold, Some(0)),
                part(Shape::Hold, Some(20)),
                part(Shape::HalfCosine { end_rate: low }, None),
            ],
        };
        let line = SchedulePiece::Linear {
            from: 0,
            to: 10,
            start: low,
            end: high,
        };
        let cosine = SchedulePiece::Cosine {
            from: 30,
            to: 100,
            start: high,
            end: low,
        };
        assert_eq!(
            schedule.pieces(100),
            [line.clone(), SchedulePiece::Constant { from: 10, rate: high }, cosine]
        );
        assert_eq!(schedule.pieces_before(100, 5), [line]);
        // The last rate is kept.
        let short = Schedule::Piecewise {
            start: high,
            pieces: vec![part(Shape::Line { end_rate: low }, Some(5))],
        };
        assert_eq!(
            short.pieces(8).last(),
            Some(&SchedulePiece::Constant { from: 5, rate: low })
        );
    }

    #[test]
    fn a_longer_budget_keeps_the_prefix_where_the_shape_allows() {
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
            "the warm-up is the same"
        );
        assert_ne!(cosine.pieces_before(100, 50), cosine.pieces_before(200, 50));
    }
}
