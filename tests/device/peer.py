#!/usr/bin/env python3
"""Trains, or generates, with transformers on one GPU, and prints what was measured as a line of JSON.

    peer.py [--shape smollm2-2048] [--mode eager|compile|generate] [--pure-bf16] [--steps 16] [--device cuda|cpu]

Weights and tokens are random. Training has weights in f32 and autocast to bf16 (as `bf16=True` of HF Trainer and as Aurora;
`--pure-bf16` has weights and optimizer in bf16), fused AdamW, clipping, and one wait for the device in each step. The
attention is SDPA's causal one: transformers would pass a mask under `torch.compile`, which excludes the flash kernel.
"""

import argparse
import json
import statistics
import time

BEGAN = time.perf_counter()

SHAPES = {
    "smollm2-2048": dict(layers=30, hidden=576, heads=9, kv_heads=3, feed_forward=1536, vocabulary=49152, theta=1e5,
                         sequence=2048, micro_batch=16, micro_batches=2),
    "llama-1b": dict(layers=16, hidden=2048, heads=32, kv_heads=8, feed_forward=8192, vocabulary=128256, theta=5e5,
                     sequence=2048, micro_batch=4, micro_batches=4),
}
# Of `generate`; as in specs/generate.aur and data/prompts.jsonl.
PROMPTS, PROMPT_TOKENS, NEW_TOKENS = 16, 8, 128
MIB = 1 << 20


def new_model(of: dict, device: str):
    """The model of a shape with random weights, in f32."""
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface, LlamaConfig, LlamaForCausalLM
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register("sdpa_causal", sdpa_attention_forward)
    AttentionMaskInterface.register("sdpa_causal", lambda *_, **__: None)
    torch.manual_seed(1)
    with torch.device(device):
        return LlamaForCausalLM(LlamaConfig(
            vocab_size=of["vocabulary"], hidden_size=of["hidden"], intermediate_size=of["feed_forward"],
            num_hidden_layers=of["layers"], num_attention_heads=of["heads"], num_key_value_heads=of["kv_heads"],
            max_position_embeddings=of["sequence"], rope_parameters=dict(rope_type="default", rope_theta=of["theta"]),
            rms_norm_eps=1e-5, tie_word_embeddings=True, attention_bias=False, mlp_bias=False, hidden_act="silu",
            use_cache=False, attn_implementation="sdpa_causal",
        ))


def wait(device: str) -> None:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def train(of: dict, mode: str, pure: bool, steps: int, device: str) -> dict:
    import torch

    torch.set_float32_matmul_precision("high")
    model = new_model(of, device).train()
    if pure:
        model = model.to(torch.bfloat16)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        lr=1e-3, betas=(0.9, 0.95), eps=1e-8, fused=True,
    )
    rows = (steps, of["micro_batches"], of["micro_batch"], of["sequence"] + 1)
    batches = torch.randint(of["vocabulary"], rows, device=device)

    def loss_of(ids, targets):
        with torch.autocast(device, dtype=torch.bfloat16, enabled=not pure):
            logits = model(input_ids=ids).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        return loss / of["micro_batches"]

    if mode == "compile":
        loss_of = torch.compile(loss_of)
    seconds, losses = [], []
    wait(device)
    for step in batches:
        began = time.perf_counter()
        total = torch.zeros((), device=device)
        for batch in step:
            loss = loss_of(batch[:, :-1], batch[:, 1:])
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(total.item())
        wait(device)
        seconds.append(time.perf_counter() - began)
        if len(seconds) == 1:
            until_first_step = time.perf_counter() - BEGAN
    # The same steps are counted as by the program `speed`.
    kept = seconds[max(1, steps // 4):]
    tokens = of["micro_batches"] * of["micro_batch"] * of["sequence"]
    return {
        "median_tokens_per_second": tokens / statistics.median(kept),
        "best_tokens_per_second": tokens / min(kept),
        "first_step_seconds": seconds[0],
        "seconds_until_first_step": until_first_step,
        "losses": losses,
    }


def generate(of: dict, device: str) -> dict:
    """Greedy generation for a batch, the second of two calls."""
    import torch

    model = new_model(of, device).eval().to(torch.bfloat16)
    prompts = torch.randint(of["vocabulary"], (PROMPTS, PROMPT_TOKENS), device=device)
    for _ in range(2):
        wait(device)
        began = time.perf_counter()
        model.generate(
            prompts, attention_mask=torch.ones_like(prompts), do_sample=False, use_cache=True, pad_token_id=0,
            min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS,
        )
        wait(device)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "tokens_per_second": PROMPTS * NEW_TOKENS / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-2048")
    parser.add_argument("--mode", choices=["eager", "compile", "generate"], default="eager")
    parser.add_argument("--pure-bf16", action="store_true")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    arguments = parser.parse_args()
    import torch
    import transformers

    of = SHAPES[arguments.shape]
    if arguments.mode == "generate":
        result = generate(of, arguments.device)
    else:
        result = train(of, arguments.mode, arguments.pure_bf16, arguments.steps, arguments.device)
    if arguments.device == "cuda":
        result |= {
            "device_peak_mib": torch.cuda.max_memory_allocated() // MIB,
            "device_reserved_mib": torch.cuda.max_memory_reserved() // MIB,
        }
    print(json.dumps({**result, "torch": torch.__version__, "transformers": transformers.__version__}))


if __name__ == "__main__":
    main()
