//! How the import handles each flag of `pretrain_gpt.py`.
//!
//! The table covers BigCode's fork, which trained StarCoder, and Megatron-Core. Every flag is in it once, with one
//! class. Not here: how flags of the class `Translated` become values of the spec (`translate`).
//!
//! Source: `megatron/arguments.py` of bigcode-project/Megatron-LM, `megatron/training/arguments.py` and the
//! configuration classes of NVIDIA/Megatron-LM.

/// The number of values of a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagValues {
    Nothing,
    One,
    Many,
}

/// How the import handles a flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagClass {
    /// It is translated to the spec. Unsupported values are reported.
    Translated,
    /// It has no effect in Aurora, for this reason.
    NoEffect(&'static str),
    /// It is not supported, and changes the training result.
    ChangesResult {
        why: &'static str,
        /// The value with which it has no effect.
        harmless: Option<&'static str>,
    },
    /// It is not supported, but does not change the training result.
    Placement(&'static str),
}

#[derive(Debug)]
pub struct Flag {
    pub name: &'static str,
    pub takes: FlagValues,
    pub class: FlagClass,
}

/// The flag with a name, including its dashes.
pub fn flag(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

const fn translated(name: &'static str, takes: FlagValues) -> Flag {
    let class = FlagClass::Translated;
    Flag { name, takes, class }
}

const fn without(name: &'static str, takes: FlagValues, why: &'static str) -> Flag {
    let class = FlagClass::NoEffect(why);
    Flag { name, takes, class }
}

const fn changes(name: &'static str, takes: FlagValues, harmless: Option<&'static str>, why: &'static str) -> Flag {
    let class = FlagClass::ChangesResult { why, harmless };
    Flag { name, takes, class }
}

const fn placement(name: &'static str, takes: FlagValues, why: &'static str) -> Flag {
    let class = FlagClass::Placement(why);
    Flag { name, takes, class }
}

use FlagValues::{Many, Nothing, One};

const KERNEL: &str = "`numerics` selects the kernels";
const LOGGED: &str = "Aurora records the metrics of every step, and writes TensorBoard events";
const LOADING: &str = "the data order is a pure function of seed and mixture; data loading cannot change it";
const SAVING: &str = "checkpoints contain everything that is needed to resume, under any layout";
const RESUME: &str = "run the same command to resume from the last checkpoint";
const FRESH: &str = "a stage that starts from a model has zero moments and its own random numbers";
const SUMS: &str = "gradients and sums always have single precision";
const OVERLAP: &str = "overlap does not change results";
const EVALS: &str = "an `eval` reads every document of its split";
const FP16: &str = "Aurora does not use half precision, so there is no loss scale";
const FIM: &str = "fill-in-the-middle is not supported: Aurora trains on unchanged documents";
const DROPOUT: &str = "dropout is not supported";
const EXPERTS: &str = "mixtures of experts are not supported";
const DOCUMENTS: &str = "attention and loss cover all tokens of a packed sequence, across documents";
const EIGHT_BITS: &str = "training with 8-bit floats is not supported";
const DECAY: &str = "weight decay is constant";
const RAMP: &str = "a stage has one global batch; write one stage per size";
const ROPE: &str = "rotary positions are not scaled";
const SPLITS: &str = "the corpora define the held-out documents";
const STORES: &str = "files are identified by their content";

/// Every known flag.
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
    changes(
        "--rotary-percent",
        One,
        Some("1"),
        "rotary positions are applied to complete heads",
    ),
    changes("--use-rope-scaling", Nothing, None, ROPE),
    changes("--rope-scaling-factor", One, None, ROPE),
    changes("--rotary-seq-len-interpolation-factor", One, None, ROPE),
    changes(
        "--apply-layernorm-1p",
        Nothing,
        None,
        "norms multiply by their weight, not by weight + 1",
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
    changes("--qk-layernorm", Nothing, None, "queries and keys are not normalized"),
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
        "attention covers the complete sequence before a token",
    ),
    changes(
        "--apply-residual-connection-post-layernorm",
        Nothing,
        None,
        "the residual connection starts before the norm",
    ),
    changes(
        "--fp32-residual-connection",
        Nothing,
        None,
        "the residual stream has the precision of the layers",
    ),
    changes(
        "--init-method-xavier-uniform",
        Nothing,
        None,
        "initial weights are normal random numbers",
    ),
    changes(
        "--embedding-init-method-std",
        One,
        None,
        "all initial weights have the same standard deviation",
    ),
    changes(
        "--data-parallel-random-init",
        Nothing,
        None,
        "all replicas start with the same weights",
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
        "the shape of the model is in the checkpoint, not in the script",
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
        "the data is defined in another file; write it as a mixture",
    ),
    changes(
        "--per-split-data-args-path",
        One,
        None,
        "the data is defined in another file; write it as a mixture",
    ),
    changes("--mock-data", Nothing, None, "mock data is not supported"),
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
    without("--tiktoken-pattern", One, "a `tokenizer.json` contains its pattern"),
    changes(
        "--dataloader-type",
        One,
        Some("single"),
        "Aurora has its own data order",
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
        "half precision is not supported; the spec has `f32`",
    ),
    changes("--rampup-batch-size", Many, None, RAMP),
    changes("--step-batch-size-schedule", Many, None, RAMP),
    changes("--phase-transition-iterations", One, None, "write one stage per phase"),
    changes("--attention-dropout", One, Some("0"), DROPOUT),
    changes("--hidden-dropout", One, Some("0"), DROPOUT),
    changes("--weight-decay-incr-style", One, Some("constant"), DECAY),
    changes("--start-weight-decay", One, None, DECAY),
    changes("--end-weight-decay", One, None, DECAY),
    changes(
        "--decoupled-lr",
        One,
        None,
        "embeddings have the same learning rate as other parameters",
    ),
    changes(
        "--decoupled-min-lr",
        One,
        None,
        "embeddings have the same learning rate as other parameters",
    ),
    changes("--sgd-momentum", One, None, "the optimizer is AdamW"),
    changes(
        "--grad-reduce-in-bf16",
        Nothing,
        None,
        "gradients are summed in single precision",
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
        "every sequence has the same number of loss tokens, so both means are equal",
    ),
    without("--accumulate-allreduce-grads-in-fp32", Nothing, SUMS),
    without("--attention-softmax-in-fp32", Nothing, SUMS),
    without(
        "--no-query-key-layer-scaling",
        Nothing,
        "it only prevents overflow in half precision",
    ),
    without(
        "--apply-query-key-layer-scaling",
        Nothing,
        "it only prevents overflow in half precision",
    ),
    without("--loss-scale", One, FP16),
    without("--initial-loss-scale", One, FP16),
    without("--min-loss-scale", One, FP16),
    without("--loss-scale-window", One, FP16),
    without("--hysteresis", One, FP16),
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
        "results are always bitwise reproducible",
    ),
    // Layout.
    translated("--tensor-model-parallel-size", One),
    translated("--pipeline-model-parallel-size", One),
    translated("--sequence-parallel", Nothing),
    translated("--use-distributed-optimizer", Nothing),
    translated("--recompute-granularity", One),
    translated("--recompute-activations", Nothing),
    placement("--context-parallel-size", One, "context parallelism is not supported"),
    placement("--expert-model-parallel-size", One, EXPERTS),
    placement(
        "--num-layers-per-virtual-pipeline-stage",
        One,
        "interleaved pipeline schedules are not supported",
    ),
    placement(
        "--num-virtual-stages-per-pipeline-rank",
        One,
        "interleaved pipeline schedules are not supported",
    ),
    placement(
        "--distribute-saved-activations",
        Nothing,
        "`sequence_parallel` distributes the saved activations",
    ),
    without(
        "--recompute-method",
        One,
        "`recompute = full` recomputes each layer separately",
    ),
    without(
        "--recompute-num-layers",
        One,
        "`recompute = full` recomputes each layer separately",
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
    without("--distributed-backend", One, "transports only move bytes"),
    without(
        "--distributed-timeout-minutes",
        One,
        "a worker without a heartbeat is treated as lost (`--heartbeat-timeout`)",
    ),
    without(
        "--distributed-timeout",
        One,
        "a worker without a heartbeat is treated as lost (`--heartbeat-timeout`)",
    ),
    without("--fix-infiniband", Nothing, "transports only move bytes"),
    without("--local_rank", One, "the launcher sets it for each worker"),
    without("--local-rank", One, "the launcher sets it for each worker"),
    without(
        "--use-cpu-initialization",
        Nothing,
        "initial weights do not depend on the device",
    ),
    without("--empty-unused-memory-level", One, "Aurora plans its memory"),
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
        "the schedule of the spec is used",
    ),
    without(
        "--use-checkpoint-opt_param-scheduler",
        Nothing,
        "the schedule of the spec is used",
    ),
    without("--no-save-optim", Nothing, SAVING),
    without("--no-save-rng", Nothing, SAVING),
    without("--no-initialization", Nothing, "loaded weights are not initialized"),
    without("--exit-on-missing-checkpoint", Nothing, "missing weights are an error"),
    without("--ckpt-format", One, SAVING),
    without("--dist-ckpt-format", One, SAVING),
    without("--use-dist-ckpt", Nothing, SAVING),
    without("--async-save", Nothing, SAVING),
    without("--most-recent-k", One, "`aurora gc` decides what is kept"),
    without("--save-retain-interval", One, "`aurora gc` decides what is kept"),
    without("--dist-ckpt-optim-fully-reshardable", Nothing, SAVING),
    without("--exit-interval", One, RESUME),
    without("--exit-duration-in-mins", One, RESUME),
    without("--exit-signal-handler", Nothing, RESUME),
    without("--exit-signal", One, RESUME),
    without("--adlr-autoresume", Nothing, RESUME),
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
