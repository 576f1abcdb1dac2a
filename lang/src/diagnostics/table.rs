//! Every code with its explanation and example, in the order of the codes.

use super::codes::codes;

codes! {
    SYNTAX = "E0101", "unexpected text",
        r#"The text does not follow the grammar at this place. A file is a list of blocks, `KIND NAME { … }`; a block is a list of
fields, `name = value`, one a line and without separators. Reading goes on at the next block, so that the other faults of
the file show as well."#,
        wrong r#"experiment tiny {
  seed: 7
}"#,
        right r#"experiment tiny {
  seed = 7
}"#;
    UNCLOSED = "E0102", "bracket is never closed",
        r#"A `{`, `[` or `(` has no partner. The second place shown is where the missing bracket was noticed: another kind of bracket,
or a new block at the left edge."#,
        wrong r#"experiment tiny {
  seed = 7

source english { from = "file:data/english.txt" }"#,
        right r#"experiment tiny {
  seed = 7
}

source english { from = "file:data/english.txt" }"#;
    TOO_DEEP = "E0103", "nested too deeply",
        r#"More than 32 brackets are open at once, or an expression has more than 64 operators. Nothing in the language needs a tenth
of that; the bound keeps the work of a compile bounded."#,
        wrong r#"eval heldout { data = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[en]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]] }"#,
        right r#"eval heldout {
  data = [en, fi]
  // …
}"#;
    FILE_TOO_LARGE = "E0104", "file, list or block too large",
        r#"A spec has at most 1 MiB and 2000 blocks, and a list, call or block at most 1000 elements. Data does not belong into a spec:
name it with a `source`."#,
        wrong r#""#,
        right r#""#;
    UNCLOSED_STRING = "E0105", "text is never closed",
        r#"A text starts and ends with `"` on one line. A line break inside of a text is written `\n`, a quote `\"`."#,
        wrong r#"source english { from = "file:data/english.txt }"#,
        right r#"source english { from = "file:data/english.txt" }"#;
    UNKNOWN_ESCAPE = "E0106", "unknown escape",
        r#"In a text, a backslash starts an escape: `\"`, `\\`, `\n` or `\t`. A lone backslash is written twice."#,
        wrong r#"source english { from = "file:data\english.txt" }"#,
        right r#"source english { from = "file:data/english.txt" }"#;
    NOT_SUPPORTED = "E0107", "not supported yet",
        r#"`import` and `extends` read files of the project, files of the web (`https://…`) and of packages
(`pkg:pypi/NAME@VERSION/PATH.aur`). Other ways of access are left to a later version of the language, and refused rather than
ignored, so that a spec never means less than it says."#,
        wrong r#"import "s3://bucket/corpora.aur" { finnish }"#,
        right r#"import "lib/corpora.aur" { finnish_web }"#;
    UNKNOWN_BLOCK = "E0201", "unknown kind of block",
        r#"The first word of a block is its kind. The kinds are `experiment`, `source`, `corpus`, `tokenizer`, `model`, `mixture`,
`stage`, `eval`, `expect`, `layout`, `profile` and `sweep`; lines that start with `import`, `extends`, `let` or `param` stand
between the blocks."#,
        wrong r#"sorce english { from = "file:data/english.txt" }"#,
        right r#"source english { from = "file:data/english.txt" }"#;
    NESTED_BLOCK = "E0202", "block inside a block",
        r#"Blocks stand on the top level and refer to each other by name. Only a `profile` holds blocks, one level deep."#,
        wrong r#"experiment tiny {
  seed = 7
  source english { from = "file:data/english.txt" }
}"#,
        right r#"experiment tiny { seed = 7 }

source english { from = "file:data/english.txt" }"#;
    UNKNOWN_FIELD = "E0203", "unknown field",
        r#"The block has no such field. Unknown fields are errors, because a misspelt field would otherwise be a setting that silently
does nothing. `aurora explain` and the language reference list the fields of each block."#,
        wrong r#"stage cat {
  glbal_batch = 8 sequences
  // …
}"#,
        right r#"stage cat {
  global_batch = 8 sequences
  // …
}"#;
    DUPLICATE_FIELD = "E0204", "field set twice",
        r#"A field, an argument or a component of a mixture is set once. There is no "the last one wins"."#,
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
        r#"Two blocks of one kind have the same name. Blocks of different kinds may share a name, but for stages and models (`E0215`)."#,
        wrong r#"source english { from = "file:data/english.txt" }
source english { from = "file:data/more.txt" }"#,
        right r#"source english { from = "file:data/english.txt" }"#;
    UNKNOWN_NAME = "E0206", "unknown name",
        r#"A name refers to a block that the file does not have. The order of blocks does not matter: a block may be named before it
is declared."#,
        wrong r#"stage cat {
  mixture = mostly_finish
  // …
}"#,
        right r#"stage cat {
  mixture = mostly_finnish
  // …
}"#;
    WRONG_KIND = "E0207", "name of another kind",
        r#"The name exists, but names a block of another kind than the field takes: a source where a corpus is expected, say. A corpus
is what is extracted from sources and cleaned; mixtures and evals of perplexity read corpora."#,
        wrong r#"tokenizer bpe {
  corpora = [english, finnish]
  // …
}"#,
        right r#"tokenizer bpe {
  corpora = [en, fi]
  // …
}"#;
    UNKNOWN_CALL = "E0208", "unknown call",
        r#"A field that takes a call, such as `learning_rate = cosine(…)`, takes only those that its table lists."#,
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
        r#"A field that has no default is not written."#,
        wrong r#"source english {
  licence = "MIT"
}"#,
        right r#"source english {
  from    = "file:data/english.txt"
  licence = "MIT"
}"#;
    BAD_ARGUMENT = "E0211", "missing or misplaced argument",
        r#"An argument that has no default is not written, or one is written without its name. Only a source (of an extraction or a
tokenizer) and a repository come first and without a name; all other arguments are named."#,
        wrong r#"stage cat {
  learning_rate = cosine(1e-3)
  // …
}"#,
        right r#"stage cat {
  learning_rate = cosine(peak = 1e-3)
  // …
}"#;
    EXPERIMENT_COUNT = "E0212", "not exactly one experiment",
        r#"A file describes one experiment, named by its `experiment` block. A variant of it is a `profile`; another experiment is
another file."#,
        wrong r#"experiment tiny { seed = 7 }
experiment tiny_again { seed = 8 }"#,
        right r#"experiment tiny { seed = 7 }"#;
    CYCLE = "E0213", "stages in a circle",
        r#"Stages start from each other without end. The first stage of a chain starts from a model."#,
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
    AMBIGUOUS_NAME = "E0215", "stage and model of one name",
        r#"`start = NAME` and the metrics of a gate may mean a stage or a model, so that the two share their names."#,
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
    UNKNOWN_METRIC = "E0216", "metric that will not exist",
        r#"A gate names a metric by stage (or model), eval, metric and set: `cap.heldout.bits_per_byte.en`. Each part must exist, and
the metric must be one that an eval of that kind reports. The set may be left out where the eval has only one."#,
        wrong r#"expect english_kept { cat.heldout.bits_per_byte.sv <= 3 }"#,
        right r#"expect english_kept { cat.heldout.bits_per_byte.en <= 3 }"#;
    BAD_PROFILE = "E0217", "profile that changes no field",
        r#"A profile is a list of values to lay over the file: `stage.cap.budget = 1M tokens`, an argument of a call
(`stage.cap.learning_rate.peak = 1e-3`), a block with some of its fields (`model small { layers = 1 }`), or a `param` by its
name. The braces of `extends`, the paths of a `sweep` and `--set` change values in the same way."#,
        wrong r#"profile smoke { budget = 10 steps }"#,
        right r#"profile smoke { stage.cap.budget = 10 steps }"#;
    PATH_OUTSIDE_PROFILE = "E0218", "path outside of a profile",
        r#"Names joined with dots say which field of which block a profile changes. In a block of its own, a field has its own name."#,
        wrong r#"stage cat {
  optimizer.beta1 = 0.9
  // …
}"#,
        right r#"stage cat {
  optimizer = adamw(beta1 = 0.9)
  // …
}"#;
    IMPORT_CYCLE = "E0219", "files that import each other",
        r#"Following the imports of a file leads back to it. The chain of files is shown. What both files need belongs into a third
one, which both import."#,
        wrong r#"import "lib/circle.aur" { finnish_web }"#,
        right r#"import "lib/corpora.aur" { finnish_web }"#;
    IMPORT_NOT_READ = "E0220", "import that cannot be read",
        r#"`import` and `extends` name an .aur file by its path, relative to the file in which they stand. The path uses `/`, does not
start with one, and does not leave the project."#,
        wrong r#"import "lib/corpus.aur" { finnish_web }"#,
        right r#"import "lib/corpora.aur" { finnish_web }"#;
    UNKNOWN_IMPORT = "E0221", "import of an unknown name",
        r#"The imported file has no block, `let` or `param` of this name."#,
        wrong r#"import "lib/corpora.aur" { finish_web }"#,
        right r#"import "lib/corpora.aur" { finnish_web }"#;
    NAME_TAKEN = "E0222", "name that means something already",
        r#"A `let` or `param` gives a name to a value, and a word of a field that is this name stands for the value. The name can
therefore be neither that of a block of the same file, nor a word of the language such as `keep` or `cosine`, nor declared
twice."#,
        wrong r#"let keep = reset"#,
        right r#"let kept = keep

stage cat {
  optimizer_state = kept
  // …
}"#;
    VALUE_CYCLE = "E0223", "value made of itself",
        r#"Following the names in a `let` or `param` leads back to it, so that it has no value."#,
        wrong r#"let warm = cold
let cold = warm"#,
        right r#"let warm = 4 steps
let cold = warm"#;
    BAD_PARAM = "E0224", "value that a parameter may not have",
        r#"A `param` has a value of its own, which says what it counts: a number, a percentage, a number of tokens, a text, a word. A
profile, a sweep or `--set` may give it another one of the same kind. Behind `in` stands what is allowed: a range whose both
ends are included, or a list. The parameter's own value has to be allowed too."#,
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
    BAD_SWEEP = "E0225", "sweep that is no list of points",
        r#"A `sweep` gives each path a list of values: `stage.cap.learning_rate.peak = [5e-5, 1e-4]`. Several paths make a product;
paths inside of `zip NAME { … }` change together and have equally many values. Every point is an experiment, whose name is
made of the values, so no two may be the same. A field that is itself a list is given a list of lists."#,
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
        r#"`--point NAME` names a point that no `sweep` of the file has. A point is called after its values, such as `peak_5e_5`;
`aurora sweep SPEC` lists them."#,
        wrong r#""#,
        right r#""#;
    BAD_SETTING = "E0227", "setting that cannot be made",
        r#"`--set NAME=VALUE` gives a `param` of the spec another value, and `--set KIND.NAME.FIELD=VALUE` sets a field, such as
`--set stage.cap.budget=1M tokens`. The value is written as in a spec: a text stands in double quotes. Each name is set once.
A sweep names parameters in the same way."#,
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
    BAD_EXTENDS = "E0228", "experiment that extends too much",
        r#"A file extends one other, whose blocks it takes over and changes in the braces. Other files may extend it in turn, but
nothing is imported from it by name, because the import would not say which of the two is meant."#,
        wrong r#"import "lib/variant.aur" { finnish_web }"#,
        right r#"import "lib/corpora.aur" { finnish_web }"#;
    WRONG_TYPE = "E0301", "value of another type",
        r#"The value is of another type than the field: a text for a number, a number for a list, a lone value for an interval. Words
and names stand without quotes; texts (sources, patterns, selectors) stand in double quotes."#,
        wrong r#"model small {
  layers = "two"
  // …
}"#,
        right r#"model small {
  layers = 2
  // …
}"#;
    WRONG_UNIT = "E0302", "wrong or missing unit",
        r#"Counts carry their unit, so that tokens are never mistaken for sequences or bytes. Units are `tokens`, `sequences`, `steps`,
`characters`; `bytes`, `KB`, `MB`, `GB`, `TB` (powers of 1000), `KiB`, `MiB`, `GiB`, `TiB` (powers of 1024); `s`, `min`, `h`, `days`.
Shares are written as percentages; numbers that count nothing, such as layers, take no unit."#,
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
        r#"The value is outside of what the field allows, or contradicts another value beside it."#,
        wrong r#"stage cat {
  optimizer = adamw(beta1 = 1.5)
  // …
}"#,
        right r#"stage cat {
  optimizer = adamw(beta1 = 0.9)
  // …
}"#;
    UNKNOWN_UNIT = "E0305", "unknown unit",
        r#"No unit has this name. Units are written in the plural and out in full (`1 steps`, `2048 tokens`), and thousands as `K`, `M`,
`B` or `T` right behind the digits (`377B tokens`)."#,
        wrong r#"stage cat {
  budget = 10 stepz
  // …
}"#,
        right r#"stage cat {
  budget = 10 steps
  // …
}"#;
    CANNOT_BE_UNKNOWN = "E0306", "value that cannot be unknown",
        r#"`unknown` stands for what nobody has published: shares, revisions, settings of a run. What shapes the graph itself (sizes,
names, budgets) must have a value; `@assumed("why")` behind it says that it is a guess."#,
        wrong r#"model small {
  layers = unknown
  // …
}"#,
        right r#"model small {
  layers = 2 @assumed("not published")
  // …
}"#;
    NUMBER_OUT_OF_REACH = "E0307", "number that cannot be held exactly",
        r#"Numbers are exact decimals of at most 28 digits, never binary fractions: 0.1 + 0.2 is 0.3."#,
        wrong r#"stage cat {
  learning_rate = constant(rate = 1e-40)
  // …
}"#,
        right r#"stage cat {
  learning_rate = constant(rate = 1e-4)
  // …
}"#;
    WEIGHTS = "E0308", "weights do not sum to 100%",
        r#"A weight is the share of a stage's tokens that is drawn from a component. Together they are exactly 100%; Aurora does not
scale them, because a sum of 90% is more often a forgotten line than an intention. Where some weights are `unknown`, the known
ones must leave something for them."#,
        wrong r#"mixture mostly_english {
  en from [en] weight 80%
  fi from [fi] weight 15%
}"#,
        right r#"mixture mostly_english {
  en from [en] weight 80%
  fi from [fi] weight 20%
}"#;
    NO_EFFECT = "E0309", "field without an effect",
        r#"The field would be ignored beside the other values. A spec says nothing that does nothing."#,
        wrong r#"eval heldout {
  temperature = 0.2
  // …
}"#,
        right r#"eval heldout {
  // …
}"#;
    BAD_SOURCE = "E0310", "malformed source",
        r#"A source is `file:PATH` (relative to the spec), `pkg:pypi/NAME@VERSION`, `pkg:deb/debian/NAME@VERSION?suite=SUITE`,
`pkg:cargo/NAME@VERSION`, `pkg:npm/NAME@VERSION`, or `hf:ORGANISATION/NAME`. Packages have a version: the content behind it is
pinned in the lock."#,
        wrong r#"source english { from = "pkg:pypi/sympy" }"#,
        right r#"source english { from = "pkg:pypi/sympy@1.14.0" }"#;
    SOURCE_NOT_SUPPORTED = "E0311", "source that cannot be fetched yet",
        r#"`https:`, `s3:`, `gs:` and `az:` are reserved for a later version. A file that was downloaded by hand is pinned by its content
all the same."#,
        wrong r#"source english { from = "https://example.org/english.txt" }"#,
        right r#"source english { from = "file:data/english.txt" }"#;
    BAD_LIST = "E0312", "empty list or repeated element",
        r#"The list needs at least one element, or holds the same one twice."#,
        wrong r#"tokenizer bpe {
  corpora = [en, en]
  // …
}"#,
        right r#"tokenizer bpe {
  corpora = [en]
  // …
}"#;
    BAD_EVIDENCE = "E0313", "malformed evidence",
        r#"A value may carry one mark: `@published("where")`, `@inferred("how")` or `@assumed("why")`. The text is not empty, and `unknown`
has no evidence."#,
        wrong r#"experiment tiny { seed = 7 @guessed("no idea") }"#,
        right r#"experiment tiny { seed = 7 @assumed("not published") }"#;
    NOTHING_HELD_OUT = "E0314", "eval of an empty split",
        r#"The eval reads the documents that a corpus keeps out of training, and the corpus keeps none: `held_out` is 0% unless it is
written. A corpus that no stage trains on is read whole with `split = all`."#,
        wrong r#"corpus en {
  held_out = 0%
  // …
}"#,
        right r#"corpus en {
  held_out = 10%
  // …
}"#;
    TRAINED_ON_EVAL = "E0315", "eval of training data",
        r#"`split = all` reads every document of a corpus, and a stage trains on that corpus: the score would measure memory."#,
        wrong r#"eval heldout {
  split = all
  // …
}"#,
        right r#"eval heldout {
  split = held_out
  // …
}"#;
    VOCABULARY_TOO_SMALL = "E0316", "model with too small a vocabulary",
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
        r#"A stage that starts from a model has no moments to go on with: a model brings weights only."#,
        wrong r#"stage cap {
  optimizer_state = keep
  // …
}"#,
        right r#"stage cap {
  optimizer_state = reset
  // …
}"#;
    BAD_PATTERN = "E0318", "malformed pattern",
        r#"Patterns pick files inside of a source: `*` matches within a folder, `**` over folders, `?` one character, `[ab]` a character of
a set, `{a,b}` alternatives. They are relative to the root of the source."#,
        wrong r#"corpus en {
  from = [text(english, files = ["/usr/share/*.txt"])]
  // …
}"#,
        right r#"corpus en {
  from = [text(english, files = ["usr/share/*.txt"])]
  // …
}"#;
    BAD_GATE = "E0319", "gate that compares unlike things",
        r#"A gate compares a metric with a metric or a number. Percentage points (`pp`) are added to or taken from metrics that are shares
(pass@k, accuracy, attack success rate), and compared with a difference of such (`a - b`, `gap`, `forgetting`, `trend`); other metrics
are multiplied: `* 1.05`."#,
        wrong r#"expect english_kept { cat.heldout.bits_per_byte.en <= cap.heldout.bits_per_byte.en + 2 pp }"#,
        right r#"expect english_kept { cat.heldout.bits_per_byte.en <= cap.heldout.bits_per_byte.en * 1.02 }"#;
    TOO_FEW_CHECKPOINTS = "E0320", "function of too few checkpoints",
        r#"`trend` fits a line through a metric at the checkpoints of a stage where its eval looks, and needs three of them; `forgetting`
compares the stage's end with the best one before it, and needs one. The eval's `at` and `stages` say where it looks."#,
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
    HEADS = "E0401", "width not divisible by heads",
        r#"Each attention head has `hidden` ÷ `heads` of the width."#,
        wrong r#"model small {
  heads = 6
  // …
}"#,
        right r#"model small {
  heads = 8
  // …
}"#;
    KV_HEADS = "E0402", "heads not divisible by key-value heads",
        r#"Heads share keys and values in groups of equal size: one group for all heads (multi-query) is `kv_heads = 1`."#,
        wrong r#"model small {
  kv_heads = 3
  // …
}"#,
        right r#"model small {
  kv_heads = 1
  // …
}"#;
    SEQUENCE_TOO_LONG = "E0403", "sequence longer than the context",
        r#"Positions are learned: a model has as many as its `context` says, and a longer sequence or window has no positions."#,
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
batch in tokens a whole number of sequences. Aurora does not round: the numbers of a spec are the numbers of the run."#,
        wrong r#"stage cat {
  budget = 2500 tokens
  // …
}"#,
        right r#"stage cat {
  budget = 2560 tokens
  // …
}"#;
    EVAL_BETWEEN_CHECKPOINTS = "E0405", "eval where no checkpoint is kept",
        r#"An eval measures checkpoints. `every QUANTITY` in its `at` is a multiple of the interval at which each of its stages keeps one."#,
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
    GRID = "E0407", "model that the logical grid does not split evenly",
        r#"Under `invariant` numerics the spec fixes logical tensor shards, whatever the number of workers. Heads, feed-forward width and
vocabulary are split over them in equal parts."#,
        wrong r#"model small {
  vocabulary = 513
  // …
}"#,
        right r#"model small {
  vocabulary = 514
  // …
}"#;
    SCHEDULE_TOO_LONG = "E0408", "schedule longer than its stage",
        r#"Warm-up and decay lie inside of the stage: together they take at most its budget."#,
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
    LAYOUT_PIPELINE = "E0411", "more pipeline stages than layers",
        r#"Each pipeline stage holds at least one layer."#,
        wrong r#"layout here {
  pipeline = 3
  // …
}"#,
        right r#"layout here {
  pipeline = 2
  // …
}"#;
    WORLD = "E0412", "layout that does not fit the machine",
        r#"The number of workers is tensor × pipeline × data, each on a device of its own. With `data = fill` the replicas use all
devices, so that tensor × pipeline divides their number."#,
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
        r#"The micro-batch decides the order in which sums are taken, so that it belongs to the experiment's `numerics`. A layout may
repeat it as a check."#,
        wrong r#"layout here {
  micro_batch = 4 sequences
  // …
}"#,
        right r#"layout here {
  micro_batch = 2 sequences
  // …
}"#;
    FAMILY = "E0414", "field that the architecture does not have",
        r#"`gpt_bigcode` has GELU, learned positions, tied embeddings, and one key and value head for all heads or one for each.
`llama` has SwiGLU, rotary positions (which turn pairs of numbers), and key and value heads shared in groups."#,
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
        r#"The file cannot be read as a lock: it is not the text that Aurora writes. Restore it from version control, or make a new one
with `aurora lock`."#,
        wrong r#""#,
        right r#""#;
    LOCK_CONFLICT = "E0502", "merge conflict in a lock",
        r#"The lock holds the markers of a merge conflict (`<<<<<<<`, `=======`, `>>>>>>>`). Resolve the conflict in the spec, take either
side of the lock, and run `aurora lock`: pins on which both sides agree stay."#,
        wrong r#""#,
        right r#""#;
    LOCK_TOO_NEW = "E0503", "lock of a newer version",
        r#"The lock was written by a newer Aurora, whose entries this one may not understand. Update Aurora."#,
        wrong r#""#,
        right r#""#;
    LOCK_OF_ANOTHER_SPEC = "E0504", "lock of another spec",
        r#"The lock names another experiment than the spec it stands beside."#,
        wrong r#""#,
        right r#""#;
    LOCK_ENTRY_DISAGREES = "E0505", "lock entry that does not follow from its spec",
        r#"An entry of the lock is not what follows from the spec and the pins: it was edited by hand, or merged wrongly. `aurora lock`
writes the entry anew."#,
        wrong r#""#,
        right r#""#;
    LOCK_WOULD_CHANGE = "E0506", "lock is stale",
        r#"With `--locked`, the lock must already hold what follows from the spec. Run `aurora lock` and review the difference."#,
        wrong r#""#,
        right r#""#;
    SOURCE_NOT_PINNED = "E0507", "source is not pinned",
        r#"A source has no pinned content yet. `aurora lock` fetches it once and writes its pin."#,
        wrong r#""#,
        right r#""#;
    UNUSED = "W0201", "block that is never used",
        r#"Nothing in the file refers to the block, so that it changes no result."#,
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
makes it an error: `refuse = [unused("a block here is used or removed")]`. A silencer that silences nothing is itself told, so
that it goes when its reason goes."#,
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
