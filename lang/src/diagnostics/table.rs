//! Every diagnostic code with its explanation and example, sorted by code.

use super::codes::{Explanation, codes};

/// The explanation of a code, in upper or lower case.
pub fn explain(code: &str) -> Option<&'static Explanation> {
    let code = code.trim().to_ascii_uppercase();
    TABLE.iter().find(|entry| entry.code.as_str() == code)
}

codes! {
    SYNTAX = "E0101", "unexpected text",
        r#"The text does not follow the grammar at this place. A file is a list of blocks, `KIND NAME { … }`; a block is a list of
fields, `name = value`, one per line and without separators. Parsing resumes at the next block, so that the other errors
of the file are reported too."#,
        wrong r#"experiment tiny {
  seed: 7
}"#,
        right r#"experiment tiny {
  seed = 7
}"#;
    UNCLOSED = "E0102", "bracket is never closed",
        r#"A `{`, `[` or `(` has no closing bracket. The second place shown is where it was expected at the latest: another kind of
bracket, or a new block at the left edge."#,
        wrong r#"experiment tiny {
  seed = 7

source english { from = "file:data/english.txt" }"#,
        right r#"experiment tiny {
  seed = 7
}

source english { from = "file:data/english.txt" }"#;
    TOO_DEEP = "E0103", "nested too deeply",
        r#"More than 32 brackets are open at once, also through the values of `let` and `param`, or an expression has more than 64
operators, or values depend on more than 128 names one after the other. The limits bound the work of the compiler; no field needs
more than four levels."#,
        wrong r#"eval heldout { data = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[en]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]] }"#,
        right r#"eval heldout {
  data = [en, fi]
  // …
}"#;
    FILE_TOO_LARGE = "E0104", "file, list or block too large",
        r#"A spec has at most 1 MiB and 2000 blocks, and a list, call or block at most 1000 elements. Where values of `let` and `param`
replace names, they have at most 100,000 elements in total. Data does not belong in a spec: refer to it with a `source`."#,
        wrong r#""#,
        right r#""#;
    UNCLOSED_STRING = "E0105", "text is never closed",
        r#"A text starts and ends with `"` on one line. In a text, a line break is written `\n` and a quote `\"`."#,
        wrong r#"source english { from = "file:data/english.txt }"#,
        right r#"source english { from = "file:data/english.txt" }"#;
    UNKNOWN_ESCAPE = "E0106", "unknown escape",
        r#"In a text, a backslash starts an escape: `\"`, `\\`, `\n` or `\t`. A single backslash is written twice."#,
        wrong r#"source english { from = "file:data\english.txt" }"#,
        right r#"source english { from = "file:data/english.txt" }"#;
    NOT_SUPPORTED = "E0107", "not supported yet",
        r#"`import` and `extends` read files of the project, of the web (`https://…`) and of packages
(`pkg:pypi/NAME@VERSION/PATH.aur`). Other schemes are reserved for a later version of the language. They are errors, because
an ignored import would change the meaning of a spec."#,
        wrong r#"import "s3://bucket/corpora.aur" { finnish }"#,
        right r#"import "lib/corpora.aur" { finnish_web }"#;
    UNKNOWN_BLOCK = "E0201", "unknown kind of block",
        r#"The first word of a block is its kind. The kinds are `experiment`, `source`, `corpus`, `tokenizer`, `model`, `mixture`,
`stage`, `eval`, `expect`, `layout`, `profile` and `sweep`; lines that start with `import`, `extends`, `let` or `param` are
written between the blocks."#,
        wrong r#"sorce english { from = "file:data/english.txt" }"#,
        right r#"source english { from = "file:data/english.txt" }"#;
    NESTED_BLOCK = "E0202", "block inside a block",
        r#"Blocks are declared at the top level and refer to each other by name. Only a `profile` contains blocks, one level deep."#,
        wrong r#"experiment tiny {
  seed = 7
  source english { from = "file:data/english.txt" }
}"#,
        right r#"experiment tiny { seed = 7 }

source english { from = "file:data/english.txt" }"#;
    UNKNOWN_FIELD = "E0203", "unknown field",
        r#"The block has no such field. Unknown fields are errors, because a misspelt field would otherwise silently have
no effect. `aurora explain` and the language reference list the fields of each block."#,
        wrong r#"stage cat {
  glbal_batch = 8 sequences
  // …
}"#,
        right r#"stage cat {
  global_batch = 8 sequences
  // …
}"#;
    DUPLICATE_FIELD = "E0204", "field set twice",
        r#"A field, an argument or a component of a mixture can be set only once."#,
        wrong r#"stage cat {
  budget = 5 steps
  budget = 10 steps
  // …
}"#,
        right r#"stage cat {
  budget = 10 steps
  // …
}"#;
    DUPLICATE_BLOCK = "E0205", "block declared twice",
        r#"Two blocks of one kind have the same name. Blocks of different kinds may share a name, except stages and models (`E0215`)."#,
        wrong r#"source english { from = "file:data/english.txt" }
source english { from = "file:data/more.txt" }"#,
        right r#"source english { from = "file:data/english.txt" }"#;
    UNKNOWN_NAME = "E0206", "unknown name",
        r#"The file does not have a block of this name. The order of blocks does not matter: a block may be used before it is
declared."#,
        wrong r#"stage cat {
  mixture = mostly_finish
  // …
}"#,
        right r#"stage cat {
  mixture = mostly_finnish
  // …
}"#;
    WRONG_KIND = "E0207", "name of another kind",
        r#"The name exists, but its block is of another kind than the field takes: for example, a source where a corpus is expected.
A corpus is extracted from sources and cleaned; mixtures and perplexity evals read corpora."#,
        wrong r#"tokenizer bpe {
  corpora = [english, finnish]
  // …
}"#,
        right r#"tokenizer bpe {
  corpora = [en, fi]
  // …
}"#;
    UNKNOWN_CALL = "E0208", "unknown call",
        r#"A field that takes a call, such as `learning_rate = cosine(…)`, takes only the calls that the language reference lists."#,
        wrong r#"stage cat {
  learning_rate = cosin(peak = 1e-3)
  // …
}"#,
        right r#"stage cat {
  learning_rate = cosine(peak = 1e-3)
  // …
}"#;
    UNKNOWN_ARGUMENT = "E0209", "unknown argument",
        r#"The call has no argument of this name. The language reference lists the arguments of each call."#,
        wrong r#"stage cat {
  learning_rate = cosine(peek = 1e-3)
  // …
}"#,
        right r#"stage cat {
  learning_rate = cosine(peak = 1e-3)
  // …
}"#;
    MISSING_FIELD = "E0210", "missing field",
        r#"A required field, one without a default, is missing."#,
        wrong r#"source english {
  licence = "MIT"
}"#,
        right r#"source english {
  from    = "file:data/english.txt"
  licence = "MIT"
}"#;
    BAD_ARGUMENT = "E0211", "missing or misplaced argument",
        r#"A required argument is missing, or an argument is written without its name. Only a source (of an extraction or a
tokenizer) and a repository are written first and without a name; all other arguments have a name."#,
        wrong r#"stage cat {
  learning_rate = cosine(1e-3)
  // …
}"#,
        right r#"stage cat {
  learning_rate = cosine(peak = 1e-3)
  // …
}"#;
    EXPERIMENT_COUNT = "E0212", "not exactly one experiment",
        r#"A file describes one experiment, whose name is that of its `experiment` block. Write a variant as a `profile`, and another
experiment in another file."#,
        wrong r#"experiment tiny { seed = 7 }
experiment tiny_again { seed = 8 }"#,
        right r#"experiment tiny { seed = 7 }"#;
    CYCLE = "E0213", "stages in a cycle",
        r#"The stages start from each other in a cycle. The first stage of a chain starts from a model."#,
        wrong r#"stage cap {
  start = cat
  // …
}

stage cat {
  start = cap
  // …
}"#,
        right r#"stage cap {
  start = small
  // …
}

stage cat {
  start = cap
  // …
}"#;
    UNKNOWN_PROFILE = "E0214", "unknown profile",
        r#"The command names a profile that the file does not have."#,
        wrong r#""#,
        right r#""#;
    AMBIGUOUS_NAME = "E0215", "stage and model with the same name",
        r#"A stage and a model cannot have the same name, because `start = NAME` and the metrics of a gate refer to either."#,
        wrong r#"stage small {
  start         = small
  budget        = 10 steps
  mixture       = mostly_english
  sequence      = 32 tokens
  global_batch  = 8 sequences
  learning_rate = constant(rate = 1e-4)
}"#,
        right r#"stage first {
  start         = small
  budget        = 10 steps
  mixture       = mostly_english
  sequence      = 32 tokens
  global_batch  = 8 sequences
  learning_rate = constant(rate = 1e-4)
}"#;
    UNKNOWN_METRIC = "E0216", "unknown metric",
        r#"A gate names a metric by stage (or model), eval, metric and set: `cap.heldout.bits_per_byte.en`. Each part must exist, and
the metric must be one that an eval of that kind reports. The set may be left out where the eval has only one."#,
        wrong r#"expect english_kept { cat.heldout.bits_per_byte.sv <= 3 }"#,
        right r#"expect english_kept { cat.heldout.bits_per_byte.en <= 3 }"#;
    BAD_PROFILE = "E0217", "profile path that is not a field",
        r#"A profile is a list of changes to the file: `stage.cap.budget = 1M tokens`, an argument of a call
(`stage.cap.learning_rate.peak = 1e-3`), a block with some of its fields (`model small { layers = 1 }`), or a `param` by its
name. The braces of `extends`, the paths of a `sweep` and `--set` change values in the same way."#,
        wrong r#"profile smoke { budget = 10 steps }"#,
        right r#"profile smoke { stage.cap.budget = 10 steps }"#;
    PATH_OUTSIDE_PROFILE = "E0218", "path outside a profile",
        r#"In a profile, a path with dots names the block and the field to change. Inside its own block, a field is written by its name
alone."#,
        wrong r#"stage cat {
  optimizer.beta1 = 0.9
  // …
}"#,
        right r#"stage cat {
  optimizer = adamw(beta1 = 0.9)
  // …
}"#;
    IMPORT_CYCLE = "E0219", "files that import each other",
        r#"The imports of a file lead back to it. The message shows the chain of files. Move what both files need to a third file, and
import that from both."#,
        wrong r#"import "lib/circle.aur" { finnish_web }"#,
        right r#"import "lib/corpora.aur" { finnish_web }"#;
    IMPORT_NOT_READ = "E0220", "import that cannot be read",
        r#"`import` and `extends` name an .aur file by its path, relative to the importing file. The path uses `/`, does not start with
`/`, and does not leave the project."#,
        wrong r#"import "lib/corpus.aur" { finnish_web }"#,
        right r#"import "lib/corpora.aur" { finnish_web }"#;
    UNKNOWN_IMPORT = "E0221", "import of an unknown name",
        r#"The imported file has no block, `let` or `param` of this name."#,
        wrong r#"import "lib/corpora.aur" { finish_web }"#,
        right r#"import "lib/corpora.aur" { finnish_web }"#;
    NAME_TAKEN = "E0222", "name already in use",
        r#"A `let` or `param` gives a name to a value, and every use of the name in a field is replaced by the value. The name therefore
cannot be the name of a block of the same file or a word of the language such as `keep` or `cosine`, and it cannot be
declared twice."#,
        wrong r#"let keep = reset"#,
        right r#"let kept = keep

stage cat {
  optimizer_state = kept
  // …
}"#;
    VALUE_CYCLE = "E0223", "value that refers to itself",
        r#"The names in a `let` or `param` lead back to it, so it has no value."#,
        wrong r#"let warm = cold
let cold = warm"#,
        right r#"let warm = 4 steps
let cold = warm"#;
    BAD_PARAM = "E0224", "value not allowed for a parameter",
        r#"A `param` has a default value, which also fixes its kind: a number, a percentage, a number of tokens, a text or a word. A
profile, a sweep or `--set` may replace it by another value of the same kind. `in` gives the allowed values: a range that
includes both ends, or a list. The default value must be one of them."#,
        wrong r#"param peak = 1e-2 in 1e-5 .. 1e-3

stage cat {
  learning_rate = cosine(peak = peak)
  // …
}"#,
        right r#"param peak = 1e-3 in 1e-5 .. 1e-3

stage cat {
  learning_rate = cosine(peak = peak)
  // …
}"#;
    BAD_SWEEP = "E0225", "invalid sweep",
        r#"A `sweep` gives each path a list of values: `stage.cap.learning_rate.peak = [5e-5, 1e-4]`. The points of a sweep are all
combinations of the values of its paths. Paths in `zip NAME { … }` change together and have lists of the same length. Every
point is an experiment, whose name is made of its values, so each point must be unique. A field that is itself a list takes
a list of lists."#,
        wrong r#"sweep lengths {
  zip both {
    stage.cap.budget = [10 steps, 20 steps]
    stage.cat.budget = [10 steps]
  }
}"#,
        right r#"sweep lengths {
  zip both {
    stage.cap.budget = [10 steps, 20 steps]
    stage.cat.budget = [10 steps, 20 steps]
  }
}"#;
    UNKNOWN_POINT = "E0226", "unknown point of a sweep",
        r#"No `sweep` of the file has the point of `--point NAME`. The name of a point is made of its values, such as `peak_5e_5`;
`aurora sweep SPEC` lists all points."#,
        wrong r#""#,
        right r#""#;
    BAD_SETTING = "E0227", "invalid setting",
        r#"`--set NAME=VALUE` gives a `param` of the spec another value, and `--set KIND.NAME.FIELD=VALUE` sets a field, such as
`--set stage.cap.budget=1M tokens`. The value is written as in a spec, a text in double quotes. Each name can be set
only once. A sweep names parameters in the same way."#,
        wrong r#"param peak = 1e-3

stage cat {
  learning_rate = cosine(peak = peak)
  // …
}

sweep rates { peek = [1e-3, 2e-3] }"#,
        right r#"param peak = 1e-3

stage cat {
  learning_rate = cosine(peak = peak)
  // …
}

sweep rates { peak = [1e-3, 2e-3] }"#;
    BAD_EXTENDS = "E0228", "invalid `extends` or import of a variant",
        r#"A file can extend one other file. It inherits the blocks of that file and changes them in the braces. Other files may extend
it in turn, but cannot import names from it, because it would be unclear which of the two files a name refers to."#,
        wrong r#"import "lib/variant.aur" { finnish_web }"#,
        right r#"import "lib/corpora.aur" { finnish_web }"#;
    WRONG_TYPE = "E0301", "value of another type",
        r#"The value is of another type than the field: a text instead of a number, a number instead of a list, or a single value
instead of an interval. Words and names are written without quotes, texts (sources, patterns, selectors) in double quotes."#,
        wrong r#"model small {
  layers = "two"
  // …
}"#,
        right r#"model small {
  layers = 2
  // …
}"#;
    WRONG_UNIT = "E0302", "wrong or missing unit",
        r#"Counts have a unit, so that tokens are never confused with sequences or bytes. Units are `tokens`, `sequences`, `steps`,
`characters`; `bytes`, `KB`, `MB`, `GB`, `TB` (powers of 1000), `KiB`, `MiB`, `GiB`, `TiB` (powers of 1024); `s`, `min`, `h`, `days`.
Fractions are written as percentages; numbers such as `layers` take no unit."#,
        wrong r#"stage cat {
  sequence = 32 bytes
  // …
}"#,
        right r#"stage cat {
  sequence = 32 tokens
  // …
}"#;
    UNKNOWN_WORD = "E0303", "unknown word",
        r#"The field takes one of a closed set of words."#,
        wrong r#"model small {
  activation = relu
  // …
}"#,
        right r#"model small {
  activation = gelu
  // …
}"#;
    OUT_OF_RANGE = "E0304", "value out of range",
        r#"The value is outside the range of the field, or contradicts another value."#,
        wrong r#"stage cat {
  optimizer = adamw(beta1 = 1.5)
  // …
}"#,
        right r#"stage cat {
  optimizer = adamw(beta1 = 0.9)
  // …
}"#;
    UNKNOWN_UNIT = "E0305", "unknown unit",
        r#"There is no unit of this name. Units are plural and not abbreviated (`1 steps`, `2048 tokens`). The suffixes `K`, `M`, `B` and
`T` follow the digits without a space (`377B tokens`)."#,
        wrong r#"stage cat {
  budget = 10 stepz
  // …
}"#,
        right r#"stage cat {
  budget = 10 steps
  // …
}"#;
    CANNOT_BE_UNKNOWN = "E0306", "value that cannot be unknown",
        r#"`unknown` marks a value that is not published: weights, revisions, settings of a run. What determines the graph itself (sizes,
names, budgets) must have a value; mark a guess with `@assumed("why")`."#,
        wrong r#"model small {
  layers = unknown
  // …
}"#,
        right r#"model small {
  layers = 2 @assumed("not published")
  // …
}"#;
    NUMBER_OUT_OF_REACH = "E0307", "number that cannot be represented exactly",
        r#"Numbers are exact decimals of at most 28 digits, not binary fractions: 0.1 + 0.2 is 0.3."#,
        wrong r#"stage cat {
  learning_rate = constant(rate = 1e-40)
  // …
}"#,
        right r#"stage cat {
  learning_rate = constant(rate = 1e-4)
  // …
}"#;
    WEIGHTS = "E0308", "weights do not sum to 100%",
        r#"A weight is the fraction of a stage's tokens that is drawn from a component. The weights of a mixture sum to exactly 100%.
Aurora does not normalize them, because a sum of 90% is more often a forgotten line than intended. If some weights are
`unknown`, the known ones must sum to less than 100%."#,
        wrong r#"mixture mostly_english {
  en from [en] weight 80%
  fi from [fi] weight 15%
}"#,
        right r#"mixture mostly_english {
  en from [en] weight 80%
  fi from [fi] weight 20%
}"#;
    NO_EFFECT = "E0309", "field without an effect",
        r#"With the other values, the field would be ignored. Fields that have no effect are errors."#,
        wrong r#"eval heldout {
  temperature = 0.2
  // …
}"#,
        right r#"eval heldout {
  // …
}"#;
    BAD_SOURCE = "E0310", "malformed source",
        r#"A source is `file:PATH` (relative to the project), `file:ROOT:/PATH`, `https://HOST/PATH`, `s3://BUCKET/PATH`,
`gs://BUCKET/PATH`, `az://CONTAINER/PATH`, `pkg:pypi/NAME@VERSION`, `pkg:deb/debian/NAME@VERSION?suite=SUITE`,
`pkg:cargo/NAME@VERSION`, `pkg:npm/NAME@VERSION`, `hf:ORGANISATION/NAME` or `hf:datasets/ORGANISATION/NAME`. Packages have a
version; the lock pins the content. Passwords, keys and signatures are never part of it."#,
        wrong r#"source english { from = "pkg:pypi/sympy" }"#,
        right r#"source english { from = "pkg:pypi/sympy@1.14.0" }"#;
    SOURCE_SECRET = "E0311", "secret in the location of a source",
        r#"Specs and locks are shared, so the location of a source has no user name, no password and no signature. Credentials come from
the environment or from the files of the platform's own tools: `AWS_ACCESS_KEY_ID`, `HF_TOKEN`, `~/.aws/credentials`."#,
        wrong r#"source english { from = "https://example.org/english.txt?X-Amz-Signature=0123" }"#,
        right r#"source english { from = "s3://corpora/english.txt" }"#;
    BAD_LIST = "E0312", "empty list or repeated element",
        r#"The list has no element, or has the same element twice."#,
        wrong r#"tokenizer bpe {
  corpora = [en, en]
  // …
}"#,
        right r#"tokenizer bpe {
  corpora = [en]
  // …
}"#;
    BAD_EVIDENCE = "E0313", "malformed evidence",
        r#"A value may have one mark: `@published("where")`, `@inferred("how")` or `@assumed("why")`. The text must not be empty, and
`unknown` has no evidence."#,
        wrong r#"experiment tiny { seed = 7 @guessed("no idea") }"#,
        right r#"experiment tiny { seed = 7 @assumed("not published") }"#;
    NOTHING_HELD_OUT = "E0314", "eval of an empty split",
        r#"The eval reads the held-out split of a corpus, and that split is empty: the default of `held_out` is 0%. For a corpus that no
stage trains on, `split = all` reads every document."#,
        wrong r#"corpus en {
  held_out = 0%
  // …
}"#,
        right r#"corpus en {
  held_out = 10%
  // …
}"#;
    TRAINED_ON_EVAL = "E0315", "eval of training data",
        r#"`split = all` reads every document of a corpus, and a stage trains on that corpus: the score would measure memorization."#,
        wrong r#"eval heldout {
  split = all
  // …
}"#,
        right r#"eval heldout {
  split = held_out
  // …
}"#;
    VOCABULARY_TOO_SMALL = "E0316", "vocabulary of the model too small",
        r#"Every entry of the tokenizer needs a row of the model's embedding. The model may have more rows than the tokenizer has entries."#,
        wrong r#"model small {
  vocabulary = 500
  // …
}"#,
        right r#"model small {
  vocabulary = 512
  // …
}"#;
    NO_STATE_TO_KEEP = "E0317", "no optimizer state to keep",
        r#"A stage that starts from a model has no optimizer state to keep: a model has only weights."#,
        wrong r#"stage cap {
  optimizer_state = keep
  // …
}"#,
        right r#"stage cap {
  optimizer_state = reset
  // …
}"#;
    BAD_PATTERN = "E0318", "malformed pattern",
        r#"Patterns select files of a source: `*` matches within a folder, `**` across folders, `?` one character, `[ab]` a character of
a set, `{a,b}` alternatives. They are relative to the root of the source."#,
        wrong r#"corpus en {
  from = [text(english, files = ["/usr/share/*.txt"])]
  // …
}"#,
        right r#"corpus en {
  from = [text(english, files = ["usr/share/*.txt"])]
  // …
}"#;
    BAD_GATE = "E0319", "gate that compares different quantities",
        r#"A gate compares a metric with a metric or a number. Percentage points (`pp`) are added to or subtracted from metrics that are
fractions (pass@k, accuracy, attack success rate), and compared with differences of such metrics (`a - b`, `gap`, `forgetting`,
`trend`). Other metrics are multiplied: `* 1.05`."#,
        wrong r#"expect english_kept { cat.heldout.bits_per_byte.en <= cap.heldout.bits_per_byte.en + 2 pp }"#,
        right r#"expect english_kept { cat.heldout.bits_per_byte.en <= cap.heldout.bits_per_byte.en * 1.02 }"#;
    TOO_FEW_CHECKPOINTS = "E0320", "function of too few checkpoints",
        r#"`trend` fits a line to a metric over the evaluated checkpoints of a stage, and needs three of them. `forgetting` compares the
end of the stage with the best earlier checkpoint, and needs one. The `at` and `stages` of the eval select the checkpoints."#,
        wrong r#"eval heldout {
  at = [start, end]
  // …
}

expect finnish_gains { trend(cap.heldout.bits_per_byte.fi) < 0 }"#,
        right r#"eval heldout {
  at = [start, every 10 steps, end]
  // …
}

expect finnish_gains { trend(cap.heldout.bits_per_byte.fi) < 0 }"#;
    GRAPH_TOO_LARGE = "E0321", "graph of too many nodes",
        r#"A graph has at most 100,000 nodes, so that `plan`, `why` and `diff` answer in seconds. Every checkpoint of a stage is a node, and
so is every eval at a checkpoint."#,
        wrong r#"stage cap {
  budget     = 2M steps
  checkpoint = every 10 steps
  // …
}"#,
        right r#"stage cap {
  budget     = 20K steps
  checkpoint = every 10 steps
  // …
}"#;
    SECRET_IN_CLEAR = "E0322", "secret sent without encryption",
        r#"A key that is sent over `http:` can be read by everybody on the way. It is sent over `https:` only, or to a server of this machine:
`localhost`, `127.0.0.1` or `[::1]`."#,
        wrong r#"eval carp {
  kind   = plug_in
  data   = [english]
  better = higher
  judge  = endpoint("http://api.example.com/v1", model = "judge", question = "{response}?", secret = "API_KEY")
}"#,
        right r#"eval carp {
  kind   = plug_in
  data   = [english]
  better = higher
  judge  = endpoint("https://api.example.com/v1", model = "judge", question = "{response}?", secret = "API_KEY")
}"#;
    HEADS = "E0401", "width not divisible by heads",
        r#"The dimension of each attention head is `hidden` ÷ `heads`."#,
        wrong r#"model small {
  heads = 6
  // …
}"#,
        right r#"model small {
  heads = 8
  // …
}"#;
    KV_HEADS = "E0402", "heads not divisible by key-value heads",
        r#"Heads share keys and values in groups of equal size. `kv_heads = 1` is one group for all heads (multi-query attention)."#,
        wrong r#"model small {
  kv_heads = 3
  // …
}"#,
        right r#"model small {
  kv_heads = 1
  // …
}"#;
    SEQUENCE_TOO_LONG = "E0403", "sequence longer than the context",
        r#"A sequence or window cannot be longer than the `context` of the model. A model with learned positions has an embedding for
`context` positions only."#,
        wrong r#"stage cat {
  sequence = 64 tokens
  // …
}"#,
        right r#"stage cat {
  sequence = 32 tokens
  // …
}"#;
    NOT_WHOLE_STEPS = "E0404", "not a whole number of steps",
        r#"A budget, interval, warm-up or decay in tokens is a whole number of steps of `global_batch` × `sequence` tokens, and a global
batch in tokens is a whole number of sequences. Aurora does not round: a run uses exactly the numbers of the spec."#,
        wrong r#"stage cat {
  budget = 2500 tokens
  // …
}"#,
        right r#"stage cat {
  budget = 2560 tokens
  // …
}"#;
    EVAL_BETWEEN_CHECKPOINTS = "E0405", "eval without a checkpoint",
        r#"An eval evaluates checkpoints. `every QUANTITY` in its `at` must be a multiple of the checkpoint interval of each of its stages."#,
        wrong r#"eval heldout {
  at = [every 5 steps]
  // …
}"#,
        right r#"eval heldout {
  at = [every 10 steps]
  // …
}"#;
    BATCH_SPLIT = "E0406", "global batch that does not split evenly",
        r#"A global batch is split into lanes, and each lane into micro-batches: `global_batch` = lanes × micro-batch × accumulation steps."#,
        wrong r#"stage cat {
  global_batch = 6 sequences
  // …
}"#,
        right r#"stage cat {
  global_batch = 8 sequences
  // …
}"#;
    GRID = "E0407", "model that the logical grid does not divide evenly",
        r#"Under `invariant` numerics the spec fixes the number of logical tensor shards, independent of the number of workers. Heads,
feed-forward width and vocabulary are divided evenly among the shards."#,
        wrong r#"model small {
  vocabulary = 513
  // …
}"#,
        right r#"model small {
  vocabulary = 514
  // …
}"#;
    SCHEDULE_TOO_LONG = "E0408", "schedule longer than its stage",
        r#"Warm-up and decay are part of the stage: together they take at most its budget."#,
        wrong r#"stage cat {
  learning_rate = constant(rate = 1e-4, warmup = 11 steps)
  // …
}"#,
        right r#"stage cat {
  learning_rate = constant(rate = 1e-4, warmup = 2 steps)
  // …
}"#;
    LAYOUT_TENSOR = "E0409", "tensor degree that does not divide",
        r#"Tensor parallelism gives each worker an equal part of the heads, the feed-forward width and the vocabulary; under `invariant`
numerics, an equal number of logical shards."#,
        wrong r#"layout here {
  tensor = 4
  // …
}"#,
        right r#"layout here {
  tensor = 2
  // …
}"#;
    LAYOUT_DATA = "E0410", "data degree that does not divide",
        r#"Data parallelism gives each replica an equal part of the global batch; under `invariant` numerics, an equal number of lanes."#,
        wrong r#"layout here {
  data = 4
  // …
}"#,
        right r#"layout here {
  data = 2
  // …
}"#;
    LAYOUT_PIPELINE = "E0411", "more pipeline ranks than layers",
        r#"Each pipeline rank has at least one layer."#,
        wrong r#"layout here {
  pipeline = 3
  // …
}"#,
        right r#"layout here {
  pipeline = 2
  // …
}"#;
    WORLD = "E0412", "layout that does not fit the machine",
        r#"The number of workers is tensor × pipeline × data, and each worker has its own device. With `data = fill` the replicas use all
devices, so tensor × pipeline must divide the number of devices."#,
        wrong r#"layout here {
  machine = mi250x
  nodes   = 1
  tensor  = 2
  data    = 8
}"#,
        right r#"layout here {
  machine = mi250x
  nodes   = 1
  tensor  = 2
  data    = 2
}"#;
    LAYOUT_MICRO_BATCH = "E0413", "two different micro-batches",
        r#"The micro-batch determines the order of summation, so it belongs to the `numerics` of the experiment. A layout may repeat it
as a check."#,
        wrong r#"layout here {
  micro_batch = 4 sequences
  // …
}"#,
        right r#"layout here {
  micro_batch = 2 sequences
  // …
}"#;
    FAMILY = "E0414", "field that the architecture does not have",
        r#"`gpt_bigcode` has GELU, learned positions, tied embeddings, and one key-value head for all heads or one for each head. `llama`
has SwiGLU, rotary positions (which need an even head dimension), and grouped key-value heads."#,
        wrong r#"model small {
  architecture = gpt_bigcode
  activation   = swiglu
  // …
}"#,
        right r#"model small {
  architecture = gpt_bigcode
  activation   = gelu_tanh
  // …
}"#;
    LOCK_MALFORMED = "E0501", "not a lock",
        r#"The file is not a valid lock: Aurora did not write this text. Restore it from version control, or write a new lock with
`aurora lock`."#,
        wrong r#""#,
        right r#""#;
    LOCK_CONFLICT = "E0502", "merge conflict in a lock",
        r#"The lock contains the markers of a merge conflict (`<<<<<<<`, `=======`, `>>>>>>>`). Resolve the conflict in the spec, take either
side of the lock, and run `aurora lock`: it keeps the pins on which both sides agree."#,
        wrong r#""#,
        right r#""#;
    LOCK_TOO_NEW = "E0503", "lock of a newer version",
        r#"A newer version of Aurora wrote the lock, and this version may not understand its entries. Update Aurora."#,
        wrong r#""#,
        right r#""#;
    LOCK_OF_ANOTHER_SPEC = "E0504", "lock of another spec",
        r#"The lock is of another experiment than the spec next to it."#,
        wrong r#""#,
        right r#""#;
    LOCK_ENTRY_DISAGREES = "E0505", "lock entry that does not follow from its spec",
        r#"An entry of the lock does not follow from the spec and the pins, or is missing: the lock was edited by hand,
damaged, or merged incorrectly. Restore it from version control, or delete it: `aurora run SPEC` writes it again."#,
        wrong r#""#,
        right r#""#;
    LOCK_WOULD_CHANGE = "E0506", "lock is stale",
        r#"With `--locked`, the lock must be up to date with the spec. Run `aurora lock` and review the changes."#,
        wrong r#""#,
        right r#""#;
    SOURCE_NOT_PINNED = "E0507", "source is not pinned",
        r#"The content of a source is not pinned yet. `aurora lock` fetches the source and writes its pin."#,
        wrong r#""#,
        right r#""#;
    LOCK_CLAIMED_TWICE = "E0508", "two specs with one lock",
        r#"The name of a lock is the name of the experiment, with the profile and the values of `--set`. Two specs with one name would
overwrite each other's lock. Rename one of the two experiments."#,
        wrong r#""#,
        right r#""#;
    UNUSED = "W0201", "block that is never used",
        r#"Nothing in the file refers to the block, so it changes no result."#,
        wrong r#"source spare { from = "file:data/spare.txt" }"#,
        right r#"corpus spare {
  language = en
  from     = [text(spare_source)]
  held_out = 50%
}

source spare_source { from = "file:data/spare.txt" }

eval heldout {
  data = [en, fi, spare]
  // …
}

expect english_kept { cat.heldout.bits_per_byte.spare <= 3 }"#;
    NOTHING_TO_SILENCE = "W0202", "silenced warning that does not occur",
        r#"An experiment may silence a warning with a reason, `silence = [unused("kept for the next study")]`, or refuse it, which
makes it an error: `refuse = [unused("a block here is used or removed")]`. A `silence` without effect is itself a warning, so
that it is removed with its reason."#,
        wrong r#"experiment tiny {
  seed    = 7
  silence = [unused("kept for the next study")]
}"#,
        right r#"experiment tiny {
  seed    = 7
  silence = [unused("kept for the next study")]
}

source spare { from = "file:data/spare.txt" }"#;
}
