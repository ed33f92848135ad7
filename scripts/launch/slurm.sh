#!/bin/bash
# Train on several nodes under Slurm: `sbatch --nodes 2 scripts/launch/slurm.sh -r pipe.yaml`.
#
# What is given after the script's name goes to every `pipe`: -r, --run, --set.
# The folder that sbatch is called in must be on a disk that all nodes share at the same path, with
# the recipe and runs/ in it; so must the models (HF_HOME) and `pipe` itself.
#
# prepare, export and eval run on the first node alone; training runs on all, one `pipe` a node,
# each of which starts a process for every GPU. A node that fails ends the step on all
# (--kill-on-bad-exit), and so does node 0 when it has published (--wait).
# Before the time limit Slurm sends SIGTERM: the step ends with a checkpoint, the job goes back into
# the queue, and the same commands go on from there; what is done already is skipped.
# Log in to the hub before (HF_TOKEN or `hf auth login`): no token belongs in this file.
#SBATCH --job-name=pipe
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=pipe-%j.log
set -euo pipefail

PIPE=${PIPE:-.venv/bin/pipe}
names=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${names%%$'\n'*}
# a port of its own for each job, below those that the kernel hands out
port=$((20000 + SLURM_JOB_ID % 10000))
# Slurm counts no GPUs where a cluster does not declare them
gpus=${SLURM_GPUS_ON_NODE:-8}
stopped=$PWD/.pipe-stopped-$SLURM_JOB_ID
export PIPE first port gpus stopped

rm -f "$stopped"
"$PIPE" prepare "$@"

# shellcheck disable=SC2016 # each node puts in its own number
srun --kill-on-bad-exit=1 --wait=300 bash -c '
    trap : TERM # Slurm tells this shell too: it waits for pipe
    "$PIPE" train --nproc "$gpus" --nnodes "$SLURM_NNODES" --node-rank "$SLURM_NODEID" \
        --rendezvous "$first:$port" "$@" && exit
    code=$?
    [ "$code" -eq 130 ] || exit "$code"
    touch "$stopped" # and no failure: that would kill the nodes that still stop
' pipe "$@"
if [ -e "$stopped" ]; then
    rm "$stopped"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi

"$PIPE" export --no-register "$@"
"$PIPE" eval "$@"
