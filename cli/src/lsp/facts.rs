//! Numbers derived from a spec: parameters of a model, steps and tokens of a stage, tokens of a component.
//!
//! A number is absent if a value that it needs is unknown or has an error.

use aurora_compiler::check::Examined;
use aurora_compiler::graph::model_fields;
use aurora_compiler::schema;
use aurora_compiler::spec::StageBatch;
use aurora_compiler::spec::{Block, BlockId, BlockKind, Field, Spec, Unit, Value};

use crate::output::grouped;

/// A count with few digits: `377B`, `1.23M`, `4,096`.
pub fn short(count: u64) -> String {
    const SUFFIXES: [(u64, char); 3] = [(1_000_000_000_000, 'T'), (1_000_000_000, 'B'), (1_000_000, 'M')];
    let Some((factor, suffix)) = SUFFIXES.into_iter().find(|(factor, _)| count >= *factor) else {
        return grouped(count);
    };
    let hundredths = (u128::from(count) * 100 + u128::from(factor) / 2) / u128::from(factor);
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    format!("{}{suffix}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Parameters of a model.
pub fn parameters(spec: &Spec, model: &BlockId) -> Option<u64> {
    let block = spec.blocks.get(model)?;
    let all_known = schema::block(BlockKind::Model).fields.iter().all(|field| {
        block
            .field(field.name)
            .is_some_and(|field| field.value != Value::Unknown)
    });
    all_known.then(|| model_fields(spec, model).parameters())
}

/// Steps and tokens of a stage.
pub fn length(spec: &Spec, stage: &BlockId) -> Option<(u64, u64)> {
    let batch = spec.batch_of(stage)?;
    let steps = batch.steps(spec.blocks.get(stage)?.quantity("budget")?)?;
    Some((steps, steps.checked_mul(batch.tokens)?))
}

/// A quantity in another unit: tokens as steps, steps and sequences as tokens.
pub fn converted(batch: StageBatch, (count, unit): (u64, Unit)) -> Option<String> {
    match unit {
        Unit::Tokens => {
            let steps = count / batch.tokens;
            let about = if count % batch.tokens == 0 { "" } else { "≈ " };
            Some(format!("{about}{} steps", grouped(steps)))
        }
        Unit::Steps => Some(format!("{} tokens", short(count.checked_mul(batch.tokens)?))),
        Unit::Sequences => Some(format!("{} tokens", short(count.checked_mul(batch.sequence)?))),
        _ => None,
    }
}

/// The stages that use a mixture.
pub fn stages_of<'s>(spec: &'s Spec, mixture: &BlockId) -> Vec<&'s BlockId> {
    let reads = |block: &Block| block.reference("mixture") == Some(mixture);
    spec.of_kind(BlockKind::Stage)
        .filter(|(_, block)| reads(block))
        .map(|(id, _)| id)
        .collect()
}

/// The tokens that a stage draws from a component.
pub fn component_tokens(spec: &Spec, stage: &BlockId, component: &Field) -> Option<u64> {
    let (_, tokens) = length(spec, stage)?;
    let weight = component.argument("weight")?.number()?.to_f64();
    Some((tokens as f64 * weight / 100.0).round() as u64)
}

/// Lines with the numbers of a block.
pub fn block(examined: &Examined, id: &BlockId) -> Vec<String> {
    let spec = &examined.spec;
    let Some(block) = spec.blocks.get(id) else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    match id.kind {
        BlockKind::Model => lines.extend(parameters(spec, id).map(|count| format!("{} parameters", grouped(count)))),
        BlockKind::Stage => {
            if let Some(batch) = spec.batch_of(id) {
                lines.push(format!(
                    "{} tokens a step: {} sequences × {} tokens",
                    grouped(batch.tokens),
                    grouped(batch.sequences),
                    grouped(batch.sequence)
                ));
            }
            if let Some((steps, tokens)) = length(spec, id) {
                lines.push(format!("{} steps, {} tokens", grouped(steps), grouped(tokens)));
                let model = spec.model_of(id).and_then(|model| parameters(spec, model));
                lines.extend(model.map(|model| {
                    format!(
                        "{:.2e} FLOPs: 6 × {} parameters × tokens",
                        6.0 * model as f64 * tokens as f64,
                        grouped(model)
                    )
                }));
            }
        }
        BlockKind::Mixture => {
            for (name, field) in &block.fields {
                lines.extend(component(spec, id, name, field));
            }
        }
        BlockKind::Corpus
        | BlockKind::Source
        | BlockKind::Tokenizer
        | BlockKind::Eval
        | BlockKind::Expect
        | BlockKind::Experiment
        | BlockKind::Layout => {}
    }
    lines
}

/// A line for each stage that uses a component of a mixture, with its tokens.
pub fn component(spec: &Spec, mixture: &BlockId, name: &str, field: &Field) -> Vec<String> {
    let Some(weight) = field.argument("weight").map(|weight| weight.value.to_string()) else {
        return Vec::new();
    };
    let lines = stages_of(spec, mixture).into_iter().filter_map(|stage| {
        let tokens = component_tokens(spec, stage, field)?;
        Some(format!(
            "`{name}`: {weight} of stage `{}` is about {} tokens",
            stage.name,
            short(tokens)
        ))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn counts_are_short() {
        let texts = [999, 4096, 1_234_944, 377_000_000_000, 1_999_999, 999_999_999].map(short);
        assert_eq!(texts, ["999", "4,096", "1.23M", "377B", "2M", "1000M"]);
    }
}
