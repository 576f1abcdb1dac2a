#!/usr/bin/env bash
# Half a llama: what is in neither family, what only a run knows, a blend, a function, weights to go on from.
train() {
  local lr=$1; shift
  python -m torch.distributed.run --nproc-per-node=4 --nnodes=3 tools/pretrain_gpt.py \
    --num-layers=24 --hidden-size $((16 * HEADS)) --num-attention-heads "$HEADS" \
    --max-position-embeddings 2048 --seq-length 1024 \
    --position-embedding-type rope --normalization RMSNorm --swiglu \
    --micro-batch-size 2 --train-iters 1_000 --lr $lr --lr-warmup-fraction 0.0015 \
    --lr-decay-style inverse-square-root --optimizer sgd \
    --data-path 1 /data/fi_text_document 1 /data/en_text_document 1 "/data/other/fi_text_document" \
    --split 98,1,1 --tokenizer-type HuggingFaceTokenizer --tokenizer-model /models/base/mine.json \
    --load /models/base --finetune --no-load-optim \
    --pretrained $1 --trian-iters 5 stray $EXTRA_ARGS "$@"
}
HEADS=64
if [ "$(hostname)" = login ]; then
  HEADS=32
  RECOMPUTE="--recompute-granularity full"
fi
for size in 1 2; do STEPS=$size; done
cat > notes.txt <<EOF
--num-layers 99 in a note
EOF
echo pretrain_gpt.py --num-layers 12
train 1e-3 $RECOMPUTE --save-interval $STEPS
