//! The learning rate of a step, from the pieces of the learning-rate schedule.

use aurora_compiler::fields::SchedulePiece;

/// The rate of update `step` (counted from 0) in `f64`; 0 before the first piece.
///
/// A linear or cosine piece keeps its final rate after `to`, until the next piece.
pub fn rate(schedule: &[SchedulePiece], step: u64) -> f64 {
    let from = |piece: &SchedulePiece| match *piece {
        SchedulePiece::Constant { from, .. }
        | SchedulePiece::Linear { from, .. }
        | SchedulePiece::Cosine { from, .. } => from,
    };
    let Some(piece) = schedule.iter().rev().find(|piece| from(piece) <= step) else {
        return 0.0;
    };
    match *piece {
        SchedulePiece::Constant { rate, .. } => rate.to_f64(),
        SchedulePiece::Linear { from, to, start, end } => {
            if step >= to {
                return end.to_f64();
            }
            let (start, end) = (start.to_f64(), end.to_f64());
            start + (end - start) * fraction(from, to, step)
        }
        SchedulePiece::Cosine { from, to, start, end } => {
            if step >= to {
                return end.to_f64();
            }
            let (start, end) = (start.to_f64(), end.to_f64());
            end + (start - end) * (0.5 * (1.0 + libm::cos(std::f64::consts::PI * fraction(from, to, step))))
        }
    }
}

fn fraction(from: u64, to: u64, step: u64) -> f64 {
    (step - from) as f64 / (to - from) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use aurora_compiler::exact::Exact;

    fn exact(text: &str) -> Exact {
        text.parse().unwrap()
    }

    #[test]
    fn rates_are_as_documented() {
        let schedule = [
            SchedulePiece::Linear {
                from: 0,
                to: 4,
                start: exact("0"),
                end: exact("8e-4"),
            },
            SchedulePiece::Cosine {
                from: 4,
                to: 8,
                start: exact("8e-4"),
                end: exact("0"),
            },
            SchedulePiece::Constant {
                from: 10,
                rate: exact("1e-5"),
            },
        ];
        let rates: Vec<f64> = (0..12).map(|step| rate(&schedule, step)).collect();
        let expected = [
            0.0,
            2e-4,
            4e-4,
            6e-4,
            8e-4,
            6.82842712474619e-4,
            4e-4,
            1.1715728752538e-4,
            0.0,
            0.0,
            1e-5,
            1e-5,
        ];
        for (step, (rate, expected)) in rates.iter().zip(expected).enumerate() {
            assert!((rate - expected).abs() < 1e-17, "step {step}: {rate} is not {expected}");
        }
        assert_eq!(rate(&schedule[2..], 3), 0.0);
        assert_eq!(
            rate(
                &[SchedulePiece::Linear {
                    from: 2,
                    to: 2,
                    start: exact("1"),
                    end: exact("2")
                }],
                2
            ),
            2.0
        );
    }
}
