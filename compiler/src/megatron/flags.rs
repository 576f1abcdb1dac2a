//! What each flag of `pretrain_gpt.py` means to Aurora.
//!
//! Of both lines: BigCode's fork, with which StarCoder was trained, and Megatron-Core. Every flag is in the table once, in
//! one class. Source: `megatron/arguments.py` of bigcode-project/Megatron-LM, `megatron/training/arguments.py` and the
//! configuration classes of NVIDIA/Megatron-LM.

/// How many words follow a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    Nothing,
    One,
    Many,
}

/// What becomes of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It is stated by the spec; a value that Aurora does not have is told.
    Translated,
    /// Aurora does the same with or without it, for this reason.
    NoEffect(&'static str),
    /// Aurora has nothing like it, and it changes what is trained.
    ChangesResult {
        why: &'static str,
        /// With this value it does nothing.
        harmless: Option<&'static str>,
    },
    /// Aurora has nothing like it; the numbers stay what they are.
    Placement(&'static str),
}

#[derive(Debug)]
pub struct Flag {
    pub name: &'static str,
    pub takes: Takes,
    pub class: Class,
}

/// The flag of this name, as it is written, with its dashes.
pub fn flag(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

const fn translated(name: &'static str, takes: Takes) -> Flag {
    let class = Class::Translated;
    Flag { name, takes, class }
}

const fn without(name: &'static str, takes: Takes, why: &'static str) -> Flag {
    let class = Class::NoEffect(why);
    Flag { name, takes, class }
}

const fn changes(name: &'static str, takes: Takes, harmless: Option<&'static str>, why: &'static str) -> Flag {
    let class = Class::ChangesResult { why, harmless };
    Flag { name, takes, class }
}

const fn placement(name: &'static str, takes: Takes, why: &'static str) -> Flag {
    let class = Class::Placement(why);
    Flag { name, takes, class }
}

use Takes::{Many, Nothing, One};

const KERNEL: &str = "kernels are chosen by `numerics`";
const LOGGED: &str = "Aurora keeps every step's metrics, and writes TensorBoard events";
const LOADING: &str = "the data order is a pure function of seed and mixture; nothing about reading changes it";
const SAVING: &str = "checkpoints hold all that is needed to go on, under any layout";
const GOING_ON: &str = "the same command goes on from the last checkpoint";
const FRESH: &str = "a stage that starts from a model's weights begins with fresh moments and its own random numbers";
const SUMS: &str = "gradients and sums are in single precision anyway";
const OVERLAP: &str = "what overlaps with what changes no number";
const EVALS: &str = "an `eval` reads every document of its split";
const HALF: &str = "there is no half precision, and so no loss scale";
const FIM: &str = "fill-in-the-middle: Aurora trains on documents as they are";
const DROPOUT: &str = "there is no dropout: every activation counts";
const EXPERTS: &str = "mixtures of experts";
const DOCUMENTS: &str = "a sequence is read across the documents that it is packed from, and every token counts";
const EIGHT_BITS: &str = "there is no training in 8 bits";
const DECAY: &str = "weight decay is constant";
const RAMP: &str = "a stage has one global batch; write a stage for each size";
const ROPE: &str = "rotary positions are not scaled";
const SPLITS: &str = "held-out documents are those of the corpora";
const STORES: &str = "files are found by their content";

/// Every flag that is known.
pub const FLAGS: &[Flag] = &[
    // The network.
    translated("--num-layers", One),
    translated("--hidden-size", One),
    translated("--ffn-hidden-size", One),
    translated("--num-attention-heads", One),
    translated("--kv-channels", One),
    translated("--attention-head-type", One),
    translated("--group-query-attention", Nothing),
    translated("--num-query-groups", One),
    translated("--max-position-embeddings", One),
    translated("--position-embedding-type", One),
    translated("--use-rotary-position-embeddings", Nothing),
    translated("--rotary-base", One),
    translated("--rotary-theta", One),
    translated("--normalization", One),
    translated("--norm-epsilon", One),
    translated("--layernorm-epsilon", One),
    translated("--swiglu", Nothing),
    translated("--openai-gelu", Nothing),
    translated("--no-bias-gelu-fusion", Nothing),
    translated("--disable-bias-linear", Nothing),
    translated("--untie-embeddings-and-output-weights", Nothing),
    translated("--init-method-std", One),
    translated("--make-vocab-size-divisible-by", One),
    translated("--vocab-size", One),
    changes("--rotary-percent", One, Some("1"), "rotary positions turn whole heads"),
    changes("--use-rope-scaling", Nothing, None, ROPE),
    changes("--rope-scaling-factor", One, None, ROPE),
    changes("--rotary-seq-len-interpolation-factor", One, None, ROPE),
    changes(
        "--apply-layernorm-1p",
        Nothing,
        None,
        "norms multiply by their weight, not by one more",
    ),
    changes("--squared-relu", Nothing, None, "activations are GELU and SwiGLU"),
    changes("--glu-activation", One, None, "activations are GELU and SwiGLU"),
    changes("--quick-geglu", Nothing, None, "activations are GELU and SwiGLU"),
    changes(
        "--no-position-embedding",
        Nothing,
        None,
        "positions are learned or rotary",
    ),
    changes("--add-qkv-bias", Nothing, None, "llama has no biases"),
    changes("--qk-layernorm", Nothing, None, "queries and keys are not normed"),
    changes(
        "--multi-latent-attention",
        Nothing,
        None,
        "keys and values are not compressed",
    ),
    changes(
        "--window-size",
        One,
        None,
        "attention sees the whole sequence before it",
    ),
    changes(
        "--apply-residual-connection-post-layernorm",
        Nothing,
        None,
        "the residual stream is taken before the norm",
    ),
    changes(
        "--fp32-residual-connection",
        Nothing,
        None,
        "the residual stream has the layers' precision",
    ),
    changes(
        "--init-method-xavier-uniform",
        Nothing,
        None,
        "first weights are normal random numbers",
    ),
    changes(
        "--embedding-init-method-std",
        One,
        None,
        "all first weights have one standard deviation",
    ),
    changes(
        "--data-parallel-random-init",
        Nothing,
        None,
        "replicas begin with the same weights",
    ),
    changes("--num-experts", One, None, EXPERTS),
    changes("--moe-router-topk", One, None, EXPERTS),
    changes("--moe-router-load-balancing-type", One, None, EXPERTS),
    changes("--moe-aux-loss-coeff", One, None, EXPERTS),
    changes("--moe-grouped-gemm", Nothing, None, EXPERTS),
    changes("--moe-ffn-hidden-size", One, None, EXPERTS),
    changes(
        "--use-checkpoint-args",
        Nothing,
        None,
        "the model's shape stands in the checkpoint, not in the script",
    ),
    // Tokenizer and data.
    translated("--tokenizer-type", One),
    translated("--tokenizer-model", One),
    translated("--tokenizer-file", One),
    translated("--tokenizer-path", One),
    translated("--vocab-file", One),
    translated("--merge-file", One),
    translated("--data-path", Many),
    translated("--train-data-path", Many),
    translated("--train-weighted-split-paths", Many),
    translated("--train-weighted-split-paths-path", One),
    translated("--split", One),
    changes(
        "--data-args-path",
        One,
        None,
        "the data stand in another file; write them as a mixture",
    ),
    changes(
        "--per-split-data-args-path",
        One,
        None,
        "the data stand in another file; write them as a mixture",
    ),
    changes("--mock-data", Nothing, None, "there is no made-up data"),
    without("--valid-data-path", Many, SPLITS),
    without("--test-data-path", Many, SPLITS),
    without("--valid-weighted-split-paths", Many, SPLITS),
    without("--test-weighted-split-paths", Many, SPLITS),
    without("--valid-weighted-split-paths-path", One, SPLITS),
    without("--test-weighted-split-paths-path", One, SPLITS),
    without("--data-impl", One, LOADING),
    without("--data-cache-path", One, LOADING),
    without("--mmap-warmup", Nothing, LOADING),
    without("--no-mmap-bin-files", Nothing, LOADING),
    without("--num-workers", One, LOADING),
    without("--valid-num-workers", One, LOADING),
    without("--num-dataset-builder-threads", One, LOADING),
    without("--no-create-attention-mask-in-dataloader", Nothing, LOADING),
    without("--tiktoken-pattern", One, "a `tokenizer.json` says it itself"),
    changes(
        "--dataloader-type",
        One,
        Some("single"),
        "the data order is Aurora's own",
    ),
    changes("--fim-rate", One, Some("0"), FIM),
    changes("--fim-spm-rate", One, None, FIM),
    changes("--fim-split-sample", One, None, FIM),
    changes("--fragment-fim-rate", One, None, FIM),
    changes("--fim-fragment-rate", One, None, FIM),
    changes("--fim-data", Nothing, None, FIM),
    changes("--fim-no-prefix", One, None, FIM),
    changes("--fim-prefix-token", One, None, FIM),
    changes("--fim-middle-token", One, None, FIM),
    changes("--fim-suffix-token", One, None, FIM),
    changes("--fim-pad-token", One, None, FIM),
    changes("--fim-eod-token", One, None, FIM),
    changes("--reset-attention-mask", Nothing, None, DOCUMENTS),
    changes("--reset-position-ids", Nothing, None, DOCUMENTS),
    changes("--eod-mask-loss", Nothing, None, DOCUMENTS),
    changes("--dataloader-inter-document-masking", Nothing, None, DOCUMENTS),
    // Training.
    translated("--seq-length", One),
    translated("--micro-batch-size", One),
    translated("--global-batch-size", One),
    translated("--train-iters", One),
    translated("--train-samples", One),
    translated("--seed", One),
    translated("--lr", One),
    translated("--min-lr", One),
    translated("--lr-decay-style", One),
    translated("--lr-decay-iters", One),
    translated("--lr-decay-samples", One),
    translated("--lr-warmup-iters", One),
    translated("--lr-warmup-samples", One),
    translated("--lr-warmup-fraction", One),
    translated("--lr-warmup-init", One),
    translated("--lr-wsd-decay-style", One),
    translated("--lr-wsd-decay-iters", One),
    translated("--lr-wsd-decay-samples", One),
    translated("--optimizer", One),
    translated("--adam-beta1", One),
    translated("--adam-beta2", One),
    translated("--adam-eps", One),
    translated("--weight-decay", One),
    translated("--clip-grad", One),
    translated("--bf16", Nothing),
    changes(
        "--fp16",
        Nothing,
        None,
        "there is no half precision; the spec says `f32`",
    ),
    changes("--rampup-batch-size", Many, None, RAMP),
    changes("--step-batch-size-schedule", Many, None, RAMP),
    changes(
        "--phase-transition-iterations",
        One,
        None,
        "phases are stages: write one for each",
    ),
    changes("--attention-dropout", One, Some("0"), DROPOUT),
    changes("--hidden-dropout", One, Some("0"), DROPOUT),
    changes("--weight-decay-incr-style", One, Some("constant"), DECAY),
    changes("--start-weight-decay", One, None, DECAY),
    changes("--end-weight-decay", One, None, DECAY),
    changes(
        "--decoupled-lr",
        One,
        None,
        "embeddings have the learning rate of the rest",
    ),
    changes(
        "--decoupled-min-lr",
        One,
        None,
        "embeddings have the learning rate of the rest",
    ),
    changes("--sgd-momentum", One, None, "the optimizer is AdamW"),
    changes(
        "--grad-reduce-in-bf16",
        Nothing,
        None,
        "gradients are added in single precision",
    ),
    changes("--fp8-format", One, None, EIGHT_BITS),
    changes("--fp8-hybrid", Nothing, None, EIGHT_BITS),
    changes("--fp8-e4m3", Nothing, None, EIGHT_BITS),
    changes("--fp8-margin", One, None, EIGHT_BITS),
    changes("--fp8-interval", One, None, EIGHT_BITS),
    changes("--fp8-recipe", One, None, EIGHT_BITS),
    changes("--fp8-amax-history-len", One, None, EIGHT_BITS),
    changes("--fp8-amax-compute-algo", One, None, EIGHT_BITS),
    changes("--fp8-param-gather", Nothing, None, EIGHT_BITS),
    without(
        "--calculate-per-token-loss",
        Nothing,
        "every sequence has as many tokens that count: both means are the same",
    ),
    without("--accumulate-allreduce-grads-in-fp32", Nothing, SUMS),
    without("--attention-softmax-in-fp32", Nothing, SUMS),
    without(
        "--no-query-key-layer-scaling",
        Nothing,
        "it only keeps half precision in range",
    ),
    without(
        "--apply-query-key-layer-scaling",
        Nothing,
        "it only keeps half precision in range",
    ),
    without("--loss-scale", One, HALF),
    without("--initial-loss-scale", One, HALF),
    without("--min-loss-scale", One, HALF),
    without("--loss-scale-window", One, HALF),
    without("--hysteresis", One, HALF),
    without("--use-flash-attn", Nothing, KERNEL),
    without("--attention-backend", One, KERNEL),
    without("--transformer-impl", One, KERNEL),
    without("--use-mcore-models", Nothing, KERNEL),
    without("--use-legacy-models", Nothing, KERNEL),
    without("--no-masked-softmax-fusion", Nothing, KERNEL),
    without("--no-bias-dropout-fusion", Nothing, KERNEL),
    without("--no-bias-swiglu-fusion", Nothing, KERNEL),
    without("--no-rope-fusion", Nothing, KERNEL),
    without("--no-persist-layer-norm", Nothing, KERNEL),
    without("--no-gradient-accumulation-fusion", Nothing, KERNEL),
    without("--cross-entropy-loss-fusion", Nothing, KERNEL),
    without("--cross-entropy-fusion-impl", One, KERNEL),
    without(
        "--deterministic-mode",
        Nothing,
        "results repeat bit for bit in any case",
    ),
    // Layout.
    translated("--tensor-model-parallel-size", One),
    translated("--pipeline-model-parallel-size", One),
    translated("--sequence-parallel", Nothing),
    translated("--use-distributed-optimizer", Nothing),
    translated("--recompute-granularity", One),
    translated("--recompute-activations", Nothing),
    placement("--context-parallel-size", One, "sequences are not split over devices"),
    placement("--expert-model-parallel-size", One, EXPERTS),
    placement(
        "--num-layers-per-virtual-pipeline-stage",
        One,
        "pipeline stages are not interleaved",
    ),
    placement(
        "--num-virtual-stages-per-pipeline-rank",
        One,
        "pipeline stages are not interleaved",
    ),
    placement(
        "--distribute-saved-activations",
        Nothing,
        "`sequence_parallel` splits what is kept",
    ),
    without(
        "--recompute-method",
        One,
        "`recompute = full` recomputes every layer by itself",
    ),
    without(
        "--recompute-num-layers",
        One,
        "`recompute = full` recomputes every layer by itself",
    ),
    without("--overlap-grad-reduce", Nothing, OVERLAP),
    without("--overlap-param-gather", Nothing, OVERLAP),
    without("--overlap-param-gather-with-optimizer-step", Nothing, OVERLAP),
    without("--tp-comm-overlap", Nothing, OVERLAP),
    without("--no-overlap-p2p-communication", Nothing, OVERLAP),
    without("--no-async-tensor-model-parallel-allreduce", Nothing, OVERLAP),
    without("--ddp-bucket-size", One, OVERLAP),
    without("--DDP-impl", One, OVERLAP),
    without("--no-contiguous-buffers-in-local-ddp", Nothing, OVERLAP),
    without("--no-scatter-gather-tensors-in-pipeline", Nothing, OVERLAP),
    without("--distributed-backend", One, "transports move bytes and never add"),
    without(
        "--distributed-timeout-minutes",
        One,
        "a lost worker is noticed by its silence (`--silence`)",
    ),
    without(
        "--distributed-timeout",
        One,
        "a lost worker is noticed by its silence (`--silence`)",
    ),
    without("--fix-infiniband", Nothing, "transports move bytes and never add"),
    without("--local_rank", One, "launchers say it to each worker"),
    without("--local-rank", One, "launchers say it to each worker"),
    without(
        "--use-cpu-initialization",
        Nothing,
        "first weights are the same wherever they are drawn",
    ),
    without("--empty-unused-memory-level", One, "memory is planned"),
    without("--manual-gc", Nothing, "there is no garbage collector"),
    without("--manual-gc-interval", One, "there is no garbage collector"),
    // Checkpoints.
    translated("--save-interval", One),
    translated("--load", One),
    translated("--save", One),
    translated("--finetune", Nothing),
    translated("--pretrained-checkpoint", One),
    without("--no-load-optim", Nothing, FRESH),
    without("--no-load-rng", Nothing, FRESH),
    without(
        "--override-opt_param-scheduler",
        Nothing,
        "the spec's schedule is the one that counts",
    ),
    without(
        "--use-checkpoint-opt_param-scheduler",
        Nothing,
        "the spec's schedule is the one that counts",
    ),
    without("--no-save-optim", Nothing, SAVING),
    without("--no-save-rng", Nothing, SAVING),
    without("--no-initialization", Nothing, "weights that are loaded are not drawn"),
    without(
        "--exit-on-missing-checkpoint",
        Nothing,
        "weights that are not there are an error",
    ),
    without("--ckpt-format", One, SAVING),
    without("--dist-ckpt-format", One, SAVING),
    without("--use-dist-ckpt", Nothing, SAVING),
    without("--async-save", Nothing, SAVING),
    without("--most-recent-k", One, "`aurora gc` says what stays"),
    without("--save-retain-interval", One, "`aurora gc` says what stays"),
    without("--dist-ckpt-optim-fully-reshardable", Nothing, SAVING),
    without("--exit-interval", One, GOING_ON),
    without("--exit-duration-in-mins", One, GOING_ON),
    without("--exit-signal-handler", Nothing, GOING_ON),
    without("--exit-signal", One, GOING_ON),
    without("--adlr-autoresume", Nothing, GOING_ON),
    // Evaluation and logs.
    translated("--eval-interval", One),
    without("--eval-iters", One, EVALS),
    without("--full-validation", Nothing, EVALS),
    without("--multiple-validation-sets", Nothing, EVALS),
    without("--log-interval", One, LOGGED),
    without("--log-throughput", Nothing, LOGGED),
    without("--log-params-norm", Nothing, LOGGED),
    without("--log-num-zeros-in-grad", Nothing, LOGGED),
    without("--log-timers-to-tensorboard", Nothing, LOGGED),
    without("--log-batch-size-to-tensorboard", Nothing, LOGGED),
    without("--log-validation-ppl-to-tensorboard", Nothing, LOGGED),
    without("--log-memory-to-tensorboard", Nothing, LOGGED),
    without("--log-world-size-to-tensorboard", Nothing, LOGGED),
    without("--log-progress", Nothing, LOGGED),
    without("--timing-log-level", One, LOGGED),
    without("--timing-log-option", One, LOGGED),
    without("--tensorboard-dir", One, LOGGED),
    without("--tensorboard-queue-size", One, LOGGED),
    without("--tensorboard-log-interval", One, LOGGED),
    without("--structured-logs", Nothing, LOGGED),
    without("--structured-logs-dir", One, LOGGED),
    without("--transformer-timers", Nothing, LOGGED),
    without("--wandb-entity-name", One, LOGGED),
    without("--wandb-project-name", One, LOGGED),
    without("--wandb-project", One, LOGGED),
    without("--wandb-exp-name", One, LOGGED),
    without("--wandb-save-dir", One, LOGGED),
    without("--profile", Nothing, LOGGED),
    without("--profile-step-start", One, LOGGED),
    without("--profile-step-end", One, LOGGED),
    without("--profile-ranks", Many, LOGGED),
    without("--sanity-check-dataloader-interval", One, LOADING),
    without("--no-one-logger", Nothing, LOGGED),
    without("--object-storage-cache-path", One, STORES),
];
