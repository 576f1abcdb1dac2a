//! Boundary values in every numeric field: each gives an answer or an error, within 500 MB and 2 s of CPU time.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use aurora_compiler::schema::{BLOCKS, CallSchema, FieldSchema, Type, calls_of, component};

/// Every numeric field of the language, once at least. Changed values need not make sense together: an error is an answer.
const SPEC: &str = r#"
param highest = 1e-3 in 1e-6 .. 1e-2
let   length  = 32 tokens

experiment bounds {
  seed     = 7
  numerics = invariant(tensor = 2, lanes = 2, micro_batch = 2 sequences)
}

source english { from = "file:data/english.txt" }
source items {
  from    = "file:data/items.jsonl"
  at_most = 1 GiB
  malformed = 5%
}

corpus en {
  language = en
  from     = [text(english)]
  held_out = 10%
  minimum  = 30 characters
  limit    = 10 MB
}
corpus fi {
  language = fi
  from     = [text(english, by_line = true)]
  prepare  = [minimum(20 characters)]
  held_out = 10%
}

tokenizer bpe {
  kind    = train_bpe(vocabulary = 512, minimum_frequency = 2)
  corpora = [en]
}

model small {
  architecture = llama
  layers       = 2
  hidden       = 32
  heads        = 4
  kv_heads     = 4
  feed_forward = 64
  context      = 32 tokens
  vocabulary   = 512
  norm_epsilon = 1e-5
  rotary_base  = 10000
  tokenizer    = bpe
  weights      = random(std = 0.02)
}

mixture parts  { en from [en] weight 80%  fi from [fi] weight 20% max_epochs 4 }
mixture counts { en from [en] weight 8K tokens  fi from [fi] weight 2K tokens }
mixture ramps  { en from [en] weight ramp(start = 80%, end = 20%)  fi from [fi] weight ramp(start = 20%, end = 80%) }

stage first {
  start         = small
  budget        = 20 steps
  mixture       = parts
  sequence      = length
  global_batch  = 8 sequences
  learning_rate = wsd(peak = highest, floor = 1e-4, warmup = 2 steps, decay = 4 steps)
  optimizer     = adamw(beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.1, clip = 1.0)
  checkpoint    = every 10 steps
}
stage second {
  start         = first
  budget        = 5120 tokens
  mixture       = counts
  sequence      = 32 tokens
  global_batch  = 256 tokens
  learning_rate = constant(rate = 1e-4, warmup = 512 tokens)
  optimizer     = adamw(beta1 = 0.9, beta2 = 0.95, weight_decay = 0.1)
  checkpoint    = every 2560 tokens
}
stage third {
  start         = second
  budget        = 20 steps
  mixture       = ramps
  sequence      = 32 tokens
  global_batch  = 8 sequences
  learning_rate = piecewise(start = 0, pieces = [line(to = 1e-3, over = 2 steps), half_cosine(to = 1e-4, over = 4 steps), hold(over = 2 steps)])
  optimizer     = adamw(beta1 = 0.9, beta2 = 0.95, weight_decay = 0.1)
}
stage fourth {
  start         = third
  budget        = 20 steps
  mixture       = parts
  sequence      = 32 tokens
  global_batch  = 8 sequences
  learning_rate = cosine(peak = 1e-3, floor = 1e-4, warmup = 2 steps)
  optimizer     = adamw(beta1 = 0.9, beta2 = 0.95, weight_decay = 0.1)
}
stage fifth {
  start         = fourth
  budget        = 20 steps
  mixture       = parts
  sequence      = 32 tokens
  global_batch  = 8 sequences
  learning_rate = linear(peak = 1e-3, floor = 1e-4, warmup = 2 steps)
  optimizer     = adamw(beta1 = 0.9, beta2 = 0.95, weight_decay = 0.1)
}

eval heldout {
  kind   = perplexity
  data   = [en, fi]
  at     = [start, every 10 steps, end]
  stages = [first]
  window = 16 tokens
}
eval programs {
  kind        = pass_at_k
  data        = [items]
  program     = "{completion}"
  k           = [1, 2]
  samples     = 2
  temperature = 0.2
  top_p       = 0.95
  maximum     = 64 tokens
  timeout     = 3 s
  memory      = 256 MiB
  limit       = 10
  stages      = [first]
}
eval choices {
  kind    = multiple_choice
  data    = [items]
  prompt  = "{question}"
  answer  = "{answer}"
  choices = ["{a}", "{b}"]
  shots   = 2
  stages  = [first]
}

expect kept   { first.heldout.bits_per_byte.en <= small.heldout.bits_per_byte.en * 1.1 }
expect solved { first.programs.pass@1 >= small.programs.pass@1 - 2 pp with 90% confidence }

layout here {
  machine     = mi250x
  nodes       = 1
  devices     = 8
  transport   = gloo
  tensor      = 2
  pipeline    = 2
  data        = 2
  micro_batch = 2 sequences
  threads     = 2
}

sweep rates { stage.fifth.learning_rate.floor = [1e-5, 1e-4] }
"#;

const VALUES: [&str; 9] = [
    "0",
    "1",
    "2147483648",
    "4294967296",
    "9007199254740992",
    "9223372036854775807",
    "1000000000000000000",
    "7922816251426433759354395033.5",
    "0.0000000000000000000000000001",
];

#[test]
fn boundary_values_in_every_field_are_answered() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a small file");
    write("base.aur", SPEC);
    std::fs::create_dir(folder.path().join("data")).expect("a folder");
    write("data/english.txt", "some text\n");
    write("data/items.jsonl", "{}\n");
    let base = limited(folder.path(), &["check", "base.aur"]);
    assert!(base.status.success(), "{}", String::from_utf8_lossy(&base.stderr));
    let missing: Vec<&str> = numeric_fields()
        .into_iter()
        .filter(|name| !SPEC.contains(name))
        .collect();
    assert!(missing.is_empty(), "the spec of this test does not have {missing:?}");
    let cases: Vec<(usize, String)> = changed_specs().into_iter().enumerate().collect();
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((number, text)) = cases.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let name = format!("case{number}.aur");
                    write(&name, text);
                    answers(folder.path(), &name, text);
                }
            });
        }
    });
}

/// Every command on one spec; only `check` if that finds errors.
fn answers(folder: &Path, name: &str, text: &str) {
    let commands: [&[&str]; 5] = [
        &["check", name],
        &["build", name],
        &["plan", name],
        &["why", name, "report"],
        &["diff", "base.aur", name],
    ];
    for command in commands {
        let output = limited(folder, command);
        let code = output.status.code();
        assert!(
            matches!(code, Some(0 | 1)),
            "`aurora {}` ended with {:?}\n{}\n{}",
            command.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr),
            changed_lines(text)
        );
        if code == Some(1) && command[0] == "check" {
            return;
        }
    }
}

fn limited(folder: &Path, arguments: &[&str]) -> Output {
    Command::new("sh")
        .args([
            "-c",
            "ulimit -v 512000 -t 2; exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_aurora"),
        ])
        .args(arguments)
        .current_dir(folder)
        .env("RAYON_NUM_THREADS", "2")
        .stdin(Stdio::null())
        .output()
        .expect("sh runs")
}

fn changed_lines(text: &str) -> String {
    let lines = text.lines().zip(SPEC.lines());
    lines.filter(|(new, old)| new != old).map(|(new, _)| new).collect()
}

/// The spec with one number replaced by each of the values.
fn changed_specs() -> Vec<String> {
    let mut specs = Vec::new();
    for (start, end) in numbers() {
        for value in VALUES {
            specs.push(format!("{}{value}{}", &SPEC[..start], &SPEC[end..]));
        }
    }
    specs
}

/// Byte ranges of the numbers of the spec, without suffix and unit.
fn numbers() -> Vec<(usize, usize)> {
    let bytes = SPEC.as_bytes();
    let is_word = |at: usize| bytes[at].is_ascii_alphanumeric() || matches!(bytes[at], b'_' | b'"' | b'@' | b'.');
    let mut found = Vec::new();
    let mut at = 1;
    while at < bytes.len() {
        if bytes[at].is_ascii_digit() && !is_word(at - 1) {
            let start = at;
            while bytes[at].is_ascii_digit()
                || bytes[at] == b'.' && bytes[at + 1].is_ascii_digit()
                || matches!(bytes[at], b'e' | b'-') && (bytes[at + 1].is_ascii_digit() || bytes[at + 1] == b'-')
            {
                at += 1;
            }
            found.push((start, at));
        }
        at += 1;
    }
    found
}

/// Names of the fields and arguments that hold numbers.
fn numeric_fields() -> BTreeSet<&'static str> {
    fn add(fields: impl Iterator<Item = &'static FieldSchema>, names: &mut BTreeSet<&'static str>) {
        for field in fields {
            if is_numeric(&field.kind) {
                names.insert(field.name);
            }
            for call in calls_of(&field.kind) {
                add(CallSchema::all(call), names);
            }
            if let Type::List { of, .. } = &field.kind {
                for call in calls_of(of) {
                    add(CallSchema::all(call), names);
                }
            }
        }
    }
    fn is_numeric(kind: &Type) -> bool {
        match kind {
            Type::Integer { .. }
            | Type::Decimal { .. }
            | Type::Percent { .. }
            | Type::Quantity { .. }
            | Type::Every(_) => true,
            Type::List { of, .. } => is_numeric(of),
            Type::OneOf(types) => types.iter().any(is_numeric),
            _ => false,
        }
    }
    let mut names = BTreeSet::new();
    add(BLOCKS.iter().flat_map(|block| block.fields), &mut names);
    add(component().all(), &mut names);
    names
}
