//! Specs that the tests edit.

/// A library of data, in use by [`SPEC`].
pub const LIBRARY: &str = r#"let held = 3%

/// News of all kinds.
source news { from = "file:data/news.txt" }

corpus fi {
  language = fi
  from     = [text(news, by_line = true)]
  held_out = held
}

corpus en {
  language = en
  from     = [text(news, by_line = true)]
  held_out = held
}
"#;

pub const SPEC: &str = r#"import "lib/data.aur" { fi, en }

/// Two stages on little data.
experiment demo { seed = 7 }

param length = 128 tokens in [64 tokens, 128 tokens]

tokenizer bpe {
  kind    = train_bpe(vocabulary = 4096)
  corpora = [fi, en]
}

/// A small model.
model small {
  architecture = gpt_bigcode
  layers       = 4
  hidden       = 128
  heads        = 4
  context      = length
  vocabulary   = 4096
  tokenizer    = bpe
}

mixture cap {
  fi from [fi] weight 25%
  en from [en] weight 75%
}

stage first {
  start         = small
  budget        = 240 steps
  mixture       = cap
  sequence      = 128 tokens
  global_batch  = 32 sequences
  learning_rate = cosine(peak = 1e-3, floor = 1e-4, warmup = 8192 tokens)
  checkpoint    = every 40 steps @assumed("often enough")
}

stage second {
  start         = first
  budget        = 327_680 tokens
  mixture       = cap
  sequence      = 128 tokens
  global_batch  = 32 sequences
  learning_rate = constant(rate = 1e-4)
}

eval held_out {
  kind = perplexity
  data = [fi, en]
}

expect kept { second.held_out.bits_per_byte.en <= first.held_out.bits_per_byte.en * 1.05 }

profile short { stage.first.budget = 80 steps }
"#;

/// A file of each: the library, and the spec that imports it.
pub const FILES: [(&str, &str); 2] = [("specs/lib/data.aur", LIBRARY), ("specs/demo.aur", SPEC)];
