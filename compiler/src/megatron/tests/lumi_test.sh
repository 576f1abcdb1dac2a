#!/bin/bash

#SBATCH --job-name=33b
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
##SBATCH --cpus-per-task=8
#SBATCH --partition=standard-g
#SBATCH --time=0-00:30:00
#SBATCH --gpus-per-node=mi250:8
#SBATCH --account=project_000000000

set -euo pipefail

# who talks to whom
GPUS_PER_NODE=8
MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n 1)
MASTER_PORT=32478
NNODES=$SLURM_NNODES
export WORLD_SIZE=$((SLURM_GPUS_ON_NODE*SLURM_JOB_NUM_NODES))

CHECKPOINT_PATH="checkpoints"
DATA_PATH="data/debug_text_document"
MICRO_BATCH_SIZE=2
GLOBAL_BATCH_SIZE=512

GPT_ARGS=" \
--tensor-model-parallel-size 4 \
--pipeline-model-parallel-size 4 \
--sequence-parallel \
--num-layers 40 \
--hidden-size 6144 \
--num-attention-heads 48 \
--attention-head-type multiquery \
--init-method-std 0.01275 \
--seq-length 2048 \
--max-position-embeddings 2048 \
--attention-dropout 0.1 \
--hidden-dropout 0.1 \
--micro-batch-size 4 \
--global-batch-size 32 \
--lr 0.0003 \
--min-lr 0.00003 \
--train-iters 250000 \
--lr-decay-iters 250000 \
--lr-decay-style cosine \
--lr-warmup-iters 2000 \
--weight-decay .1 \
--adam-beta2 .95 \
--clip-grad 1.0 \
--bf16 \
--no-gradient-accumulation-fusion \
--fim-rate 0.5 \
--save-interval 2500 \
--eval-interval 2500 \
--eval-iters 2 \
--use-distributed-optimizer \
--valid-num-workers 0 \
"

OUTPUT_ARGS=" \
    --log-interval 10 \
    --save-interval 1000 \
    --eval-interval 100 \
    --eval-iters 2 \
    --save $CHECKPOINT_PATH \
    --load $CHECKPOINT_PATH \
    --structured-logs \
    --structured-logs-dir $CHECKPOINT_PATH/logs \
    "

CMD="torchrun \
--nproc_per_node $GPUS_PER_NODE \
--nnodes $NNODES \
--master_addr $MASTER_ADDR \
--master_port $MASTER_PORT \
pretrain_gpt.py \
$GPT_ARGS \
$OUTPUT_ARGS \
--data-path $DATA_PATH \
"

echo $CMD

srun \
    --label \
    $CMD
