//! The card of an exported model: what it is, how it was made, and how to make it again.

use std::fmt::Write;

use aurora_compiler::fields::ModelFields;

/// How a checkpoint was made.
#[derive(Clone, Debug, Default)]
pub struct Card {
    /// `EXPERIMENT/NODE`, or the file that was imported.
    pub name: String,
    /// The spec's description of the experiment.
    pub about: String,
    /// Content key of the node.
    pub key: Option<String>,
    /// Path of the lock and the BLAKE3 of its text.
    pub lock: Option<(String, String)>,
    /// The origin of its initial weights.
    pub base: Option<String>,
    /// Stages up to the checkpoint, in the order of training.
    pub stages: Vec<Trained>,
    /// What the numerics depended on.
    pub made_on: Option<String>,
    /// Sources that were read, with their terms.
    pub sources: Vec<(String, String)>,
}

/// A stage, up to the checkpoint.
#[derive(Clone, Debug)]
pub struct Trained {
    pub stage: String,
    pub steps: u64,
    pub tokens: u64,
    /// Components and their weights in millionths.
    pub mixture: Vec<(String, u32)>,
}

impl Card {
    /// The card as Markdown with the header that the hub reads.
    pub(super) fn text(&self, model: &ModelFields) -> String {
        let mut text =
            String::from("---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- aurora\n---\n\n");
        let mut line = |words: std::fmt::Arguments<'_>| {
            writeln!(text, "{words}").expect("writing into a text does not fail");
        };
        line(format_args!("# {}\n", self.name));
        if !self.about.is_empty() {
            line(format_args!("{}\n", self.about));
        }
        let family = serde_json::to_value(model.architecture).unwrap_or_default();
        line(format_args!(
            "{} parameters: {}, {} layers of width {}, {} heads with {} key and value heads, context {} tokens, \
             vocabulary {}. Weights are `float32`.\n",
            model.parameters(),
            family.as_str().unwrap_or_default(),
            model.layers,
            model.hidden,
            model.heads,
            model.kv_heads,
            model.context,
            model.vocabulary
        ));
        line(format_args!("## Training record\n"));
        if let Some(base) = &self.base {
            line(format_args!("- Initial weights: {base}"));
        }
        if self.stages.is_empty() {
            line(format_args!("- Not trained by Aurora."));
        }
        for stage in &self.stages {
            let mixture: Vec<String> = stage
                .mixture
                .iter()
                .map(|(name, parts)| format!("{name} {}%", f64::from(*parts) / 1e4))
                .collect();
            line(format_args!(
                "- Stage `{}`: {} steps, {} tokens of {}",
                stage.stage,
                stage.steps,
                stage.tokens,
                mixture.join(", ")
            ));
        }
        if let Some(made_on) = &self.made_on {
            line(format_args!("- Numerics: {made_on}"));
        }
        if let Some(key) = &self.key {
            line(format_args!("- Content key: `{key}`"));
        }
        if let Some((path, digest)) = &self.lock {
            line(format_args!("- Lock: `{path}`, BLAKE3 `{digest}`"));
            line(format_args!(
                "\n`aurora rerun {path}` repeats the run and compares every result."
            ));
        }
        if !self.sources.is_empty() {
            line(format_args!("\n## Sources\n"));
            for (reference, licence) in &self.sources {
                line(format_args!("- `{reference}`: {licence}"));
            }
        }
        text
    }
}
