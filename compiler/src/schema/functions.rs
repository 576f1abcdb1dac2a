//! The functions of gates.

use crate::spec::Function;

/// A function of gates.
#[derive(Clone, Copy, Debug)]
pub struct FunctionSchema {
    pub function: Function,
    pub name: &'static str,
    /// Whether its argument is one metric of a stage, at several checkpoints. Otherwise it has at least two arguments.
    pub of_checkpoints: bool,
    /// One sentence.
    pub meaning: &'static str,
    pub example: &'static str,
}

/// Every function, in the order of the language reference.
pub const FUNCTIONS: [FunctionSchema; 5] = [
    FunctionSchema {
        function: Function::Trend,
        name: "trend",
        of_checkpoints: true,
        meaning: "The change of a metric over a stage, from the first to the last evaluated checkpoint, on the least-squares line of the \
                  metric over tokens; needs three evaluated checkpoints.",
        example: "trend(cap.heldout.bits_per_byte.fi) < 0",
    },
    FunctionSchema {
        function: Function::Forgetting,
        name: "forgetting",
        of_checkpoints: true,
        meaning: "The loss at the end of a stage against the best earlier checkpoint of this stage or the stages it starts from; positive \
                  values are worse, whether higher or lower values of the metric are better.",
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
        meaning: "The worst of its arguments; higher must be better for all of them, or lower for all.",
        example: "worst(cat.questions.accuracy.fi, cat.questions.accuracy.hi) >= 0.4",
    },
    FunctionSchema {
        function: Function::Gap,
        name: "gap",
        of_checkpoints: false,
        meaning: "The largest of its arguments minus the smallest.",
        example: "gap(cat.redteam.attack_success_rate.en, cat.redteam.attack_success_rate.fi) <= 5 pp",
    },
];

/// The schema of a function.
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
    fn every_function_has_its_schema() {
        assert!(
            FUNCTIONS
                .iter()
                .all(|schema| function(schema.function).name == schema.name)
        );
    }
}
