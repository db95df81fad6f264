#!/usr/bin/env bash
# A folder over the nodes of a SLURM cluster, one share of the files each:
#   sbatch --array=1-64 docs/deploy/slurm.sh PHOTOS OUT -s 2
# What a task finished stays when it is killed: submit the same line again, and it goes on.
#SBATCH --job-name=restore
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --output=restore-%A-%a.log
set -euo pipefail
photos=${1:?"the folder of the photos"}
out=${2:?"the folder of the results"}
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-4}
shard=${SLURM_ARRAY_TASK_ID:?"submit with --array=1-N"}/${SLURM_ARRAY_TASK_COUNT:?}
exec restore upscale "$photos" -o "$out" --shard "$shard" --offline -q "${@:3}"
