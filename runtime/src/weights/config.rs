//! `config.json` of Hugging Face's models, read and written.
//!
//! In: its text. Out: the model as in a spec. Models that Aurora does not compute are refused with the reason: scaled
//! rotary positions, biases in llama, heads of another width. Missing fields have transformers' defaults; an export writes
//! all fields.

use aurora_compiler::exact::Exact;
use aurora_compiler::fields::{Activation, Architecture, ModelFields};
use aurora_compiler::schema::{self, Type};
use aurora_compiler::spec::BlockKind;
use serde_json::{Map, Value, json};

use crate::strict_json;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("it is not a JSON object: {0}")]
    NoJson(String),
    #[error("it does not have `{0}`")]
    Missing(&'static str),
    #[error("`{field}` is {found}, expected {expected}")]
    Value {
        field: &'static str,
        found: String,
        expected: &'static str,
    },
    #[error("`{field}` is {found}, expected a whole number from 1 to {most}, the most that a model of a spec may have")]
    Count {
        field: &'static str,
        found: String,
        most: u64,
    },
    #[error("`{field}` is {found}: {why}")]
    Unsupported {
        field: &'static str,
        found: String,
        why: &'static str,
    },
}

struct Config(Map<String, Value>);

impl Config {
    fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    fn wrong(field: &'static str, found: &Value, expected: &'static str) -> ConfigError {
        let found = found.to_string();
        ConfigError::Value { field, found, expected }
    }

    /// A count, at most what the field `own` of a spec's model may be.
    fn optional_count(&self, field: &'static str, own: &str) -> Result<Option<u32>, ConfigError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let most = largest(own);
        let count = value.as_u64().filter(|count| (1..=most).contains(count));
        let count = count.and_then(|count| u32::try_from(count).ok());
        count.map(Some).ok_or_else(|| ConfigError::Count {
            field,
            found: value.to_string(),
            most,
        })
    }

    fn count(&self, field: &'static str, own: &str) -> Result<u32, ConfigError> {
        self.optional_count(field, own)?.ok_or(ConfigError::Missing(field))
    }

    fn flag(&self, field: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.get(field) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(Self::wrong(field, other, "`true` or `false`")),
        }
    }

    /// A flag that must have the value that Aurora implements.
    fn only(&self, field: &'static str, wanted: bool, why: &'static str) -> Result<(), ConfigError> {
        match self.flag(field, wanted)? {
            flag if flag == wanted => Ok(()),
            flag => {
                let found = flag.to_string();
                Err(ConfigError::Unsupported { field, found, why })
            }
        }
    }

    fn text(&self, field: &'static str) -> Result<Option<&str>, ConfigError> {
        match self.get(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Self::wrong(field, other, "a text")),
        }
    }

    fn exact(&self, field: &'static str) -> Result<Option<Exact>, ConfigError> {
        self.get(field).map(|value| positive(field, value)).transpose()
    }
}

/// The most that a field of a spec's model may be. Work and memory grow with these numbers before a tensor is read.
pub(super) fn largest(field: &str) -> u64 {
    match schema::at_path(BlockKind::Model, &[field]).map(|field| &field.kind) {
        Some(Type::Integer { most, .. }) => most.unsigned_abs(),
        Some(Type::Quantity { most, .. }) => *most,
        _ => u64::from(u32::MAX),
    }
}

fn positive(field: &'static str, value: &Value) -> Result<Exact, ConfigError> {
    let wrong = || Config::wrong(field, value, "a number above zero");
    let Value::Number(number) = value else {
        return Err(wrong());
    };
    let exact: Exact = number.to_string().parse().map_err(|_| wrong())?;
    if exact.to_f64() > 0.0 { Ok(exact) } else { Err(wrong()) }
}

/// Reads a `config.json`.
///
/// # Errors
/// [`ConfigError`]: it is malformed, or of a model that Aurora does not compute.
pub fn read_config(text: &[u8]) -> Result<ModelFields, ConfigError> {
    let config = strict_json::parse(text).map_err(|error| ConfigError::NoJson(error.to_string()))?;
    let Value::Object(config) = config else {
        return Err(ConfigError::NoJson("it is JSON, but not an object".to_owned()));
    };
    let config = Config(config);
    match config.text("model_type")? {
        Some("gpt_bigcode") => bigcode(&config),
        Some("llama") => llama(&config),
        Some(other) => Err(ConfigError::Unsupported {
            field: "model_type",
            found: format!("`{other}`"),
            why: "Aurora computes `gpt_bigcode` and `llama`",
        }),
        None => Err(ConfigError::Missing("model_type")),
    }
}

fn bigcode(config: &Config) -> Result<ModelFields, ConfigError> {
    config.only(
        "scale_attn_weights",
        true,
        "attention is scaled by the root of a head's width",
    )?;
    config.only("tie_word_embeddings", true, "gpt_bigcode has no separate output layer")?;
    let (hidden, heads) = (config.count("n_embd", "hidden")?, config.count("n_head", "heads")?);
    let activation = match config.text("activation_function")?.unwrap_or("gelu_pytorch_tanh") {
        "gelu" => Activation::Gelu,
        "gelu_pytorch_tanh" | "gelu_new" => Activation::GeluTanh,
        other => {
            return Err(ConfigError::Unsupported {
                field: "activation_function",
                found: format!("`{other}`"),
                why: "Aurora computes `gelu` and `gelu_pytorch_tanh`",
            });
        }
    };
    Ok(ModelFields {
        architecture: Architecture::GptBigcode,
        layers: config.count("n_layer", "layers")?,
        hidden,
        heads,
        kv_heads: if config.flag("multi_query", true)? { 1 } else { heads },
        feed_forward: config
            .optional_count("n_inner", "feed_forward")?
            .unwrap_or(hidden.saturating_mul(4)),
        context: config.count("n_positions", "context")?,
        vocabulary: config.count("vocab_size", "vocabulary")?,
        activation,
        norm_epsilon: config
            .exact("layer_norm_epsilon")?
            .ok_or(ConfigError::Missing("layer_norm_epsilon"))?,
        rotary_base: None,
        tied_embeddings: true,
    })
}

fn llama(config: &Config) -> Result<ModelFields, ConfigError> {
    config.only("attention_bias", false, "Aurora's llama has no biases")?;
    config.only("mlp_bias", false, "Aurora's llama has no biases")?;
    if let Some(other) = config.text("hidden_act")?.filter(|act| *act != "silu") {
        return Err(ConfigError::Unsupported {
            field: "hidden_act",
            found: format!("`{other}`"),
            why: "Aurora's llama computes `silu`",
        });
    }
    let (hidden, heads) = (
        config.count("hidden_size", "hidden")?,
        config.count("num_attention_heads", "heads")?,
    );
    if let Some(width) = config.optional_count("head_dim", "hidden")?
        && width.checked_mul(heads) != Some(hidden)
    {
        return Err(ConfigError::Unsupported {
            field: "head_dim",
            found: width.to_string(),
            why: "Aurora's heads have the width `hidden` ÷ `heads`",
        });
    }
    // transformers 5 nests fields that were not nested before.
    let nested = match config.get("rope_parameters") {
        Some(Value::Object(nested)) => Some(Config(nested.clone())),
        Some(other) => return Err(Config::wrong("rope_parameters", other, "an object")),
        None => None,
    };
    let scaled = |of: &Config| -> Result<(), ConfigError> {
        let kind = of.text("rope_type")?.or(of.text("type")?).unwrap_or("default");
        if kind == "default" {
            return Ok(());
        }
        Err(ConfigError::Unsupported {
            field: "rope_scaling",
            found: format!("`{kind}`"),
            why: "Aurora's rotary positions are not scaled",
        })
    };
    match config.get("rope_scaling") {
        Some(Value::Object(scaling)) => scaled(&Config(scaling.clone()))?,
        Some(other) => return Err(Config::wrong("rope_scaling", other, "an object or null")),
        None => {}
    }
    let mut base = config.exact("rope_theta")?;
    if let Some(nested) = &nested {
        scaled(nested)?;
        base = base.or(nested.exact("rope_theta")?);
    }
    Ok(ModelFields {
        architecture: Architecture::Llama,
        layers: config.count("num_hidden_layers", "layers")?,
        hidden,
        heads,
        kv_heads: config
            .optional_count("num_key_value_heads", "kv_heads")?
            .unwrap_or(heads),
        feed_forward: config.count("intermediate_size", "feed_forward")?,
        context: config.count("max_position_embeddings", "context")?,
        vocabulary: config.count("vocab_size", "vocabulary")?,
        activation: Activation::SwiGlu,
        norm_epsilon: config
            .exact("rms_norm_eps")?
            .ok_or(ConfigError::Missing("rms_norm_eps"))?,
        rotary_base: Some(base.ok_or(ConfigError::Missing("rope_theta"))?),
        tied_embeddings: config.flag("tie_word_embeddings", false)?,
    })
}

/// Writes a `config.json`, with every field for which transformers has a default. `end` is the token that ends a
/// document, if it is known.
pub fn write_config(model: &ModelFields, end: Option<u32>) -> String {
    let number = |exact: Exact| json!(exact.to_f64());
    let mut config = match model.architecture {
        Architecture::GptBigcode => json!({
            "model_type": "gpt_bigcode",
            "architectures": ["GPTBigCodeForCausalLM"],
            "vocab_size": model.vocabulary,
            "n_positions": model.context,
            "n_embd": model.hidden,
            "n_layer": model.layers,
            "n_head": model.heads,
            "n_inner": model.feed_forward,
            "multi_query": model.kv_heads == 1,
            "activation_function": if model.activation == Activation::Gelu { "gelu" } else { "gelu_pytorch_tanh" },
            "layer_norm_epsilon": number(model.norm_epsilon),
            "attn_pdrop": 0.0,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "scale_attn_weights": true,
            "attention_softmax_in_fp32": true,
            "scale_attention_softmax_in_fp32": true,
        }),
        Architecture::Llama => json!({
            "model_type": "llama",
            "architectures": ["LlamaForCausalLM"],
            "vocab_size": model.vocabulary,
            "max_position_embeddings": model.context,
            "hidden_size": model.hidden,
            "num_hidden_layers": model.layers,
            "num_attention_heads": model.heads,
            "num_key_value_heads": model.kv_heads,
            "head_dim": model.hidden.checked_div(model.heads),
            "intermediate_size": model.feed_forward,
            "hidden_act": "silu",
            "rms_norm_eps": number(model.norm_epsilon),
            "rope_theta": model.rotary_base.map(number),
            "rope_scaling": null,
            "attention_bias": false,
            "attention_dropout": 0.0,
            "mlp_bias": false,
        }),
    };
    config["tie_word_embeddings"] = json!(model.tied_embeddings);
    config["bos_token_id"] = json!(end);
    config["eos_token_id"] = json!(end);
    config["torch_dtype"] = json!("float32");
    config["use_cache"] = json!(true);
    super::pretty(&config)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model takes memory for each layer before any tensor is read.
    #[test]
    fn counts_are_those_that_a_spec_may_have() {
        let config = |layers: u64| {
            let config = json!({
                "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": layers,
                "intermediate_size": 128, "max_position_embeddings": 32, "vocab_size": 512, "rms_norm_eps": 1e-5,
                "rope_theta": 10000.0,
            });
            read_config(config.to_string().as_bytes())
        };
        assert_eq!(config(10_000).expect("read").layers, 10_000);
        for layers in [0, 10_001, 1_000_000, u64::MAX] {
            let error = config(layers).expect_err("too many").to_string();
            assert!(
                error.ends_with("expected a whole number from 1 to 10000, the most that a model of a spec may have"),
                "{error}"
            );
        }
    }
}
