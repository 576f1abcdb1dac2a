//! What a gate can make of metrics.

use crate::spec::Function;

/// A function of gates.
#[derive(Clone, Copy, Debug)]
pub struct FunctionSchema {
    pub function: Function,
    pub name: &'static str,
    /// Its argument is one metric of a stage, read at several checkpoints; otherwise there are two arguments or more.
    pub of_checkpoints: bool,
    /// One sentence.
    pub meaning: &'static str,
    pub example: &'static str,
}

/// All of them, in the order of the reference.
pub const FUNCTIONS: [FunctionSchema; 5] = [
    FunctionSchema {
        function: Function::Trend,
        name: "trend",
        of_checkpoints: true,
        meaning: "The change over a stage, from its first to its last measured checkpoint, along the straight line that fits \
                  best (least squares) to the metric against tokens; needs three measured checkpoints.",
        example: "trend(cap.heldout.bits_per_byte.fi) < 0",
    },
    FunctionSchema {
        function: Function::Forgetting,
        name: "forgetting",
        of_checkpoints: true,
        meaning: "What is lost at a stage's end since the best measured checkpoint before it, of this stage or of those it \
                  builds on; above zero is worse, whichever way the metric is better.",
        example: "forgetting(cat.heldout.bits_per_byte.en) <= 0.02",
    },
    FunctionSchema {
        function: Function::Mean,
        name: "mean",
        of_checkpoints: false,
        meaning: "The mean of its arguments.",
        example: "mean(cat.heldout.bits_per_byte.fi, cat.heldout.bits_per_byte.hi) <= 1.1",
    },
    FunctionSchema {
        function: Function::Worst,
        name: "worst",
        of_checkpoints: false,
        meaning: "The worst of its arguments, all of which must be better in the same direction.",
        example: "worst(cat.questions.accuracy.fi, cat.questions.accuracy.hi) >= 0.4",
    },
    FunctionSchema {
        function: Function::Gap,
        name: "gap",
        of_checkpoints: false,
        meaning: "The largest of its arguments less the smallest.",
        example: "gap(cat.redteam.attack_success_rate.en, cat.redteam.attack_success_rate.fi) <= 5 pp",
    },
];

/// The table's line of a function.
pub fn function(function: Function) -> &'static FunctionSchema {
    let place = match function {
        Function::Trend => 0,
        Function::Forgetting => 1,
        Function::Mean => 2,
        Function::Worst => 3,
        Function::Gap => 4,
    };
    &FUNCTIONS[place]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_found_in_its_line() {
        assert!(
            FUNCTIONS
                .iter()
                .all(|table| function(table.function).name == table.name)
        );
    }
}
