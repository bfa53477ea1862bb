#!/bin/bash
# A sweep as a SLURM job array: each task runs one part of it, in a folder of its own.
#
#   sbatch --array=1-8 notebooks/sweeps/slurm.sh arms.yaml runs/arms
#   python -m tools.course sweep arms.yaml --out runs/arms --report runs/arms/part-*     # merge what is done
#
# A task that was cut, or ran out of time, goes on when the same line is submitted again.
#SBATCH --job-name=manas-sweep
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=24:00:00
set -euo pipefail

sweep=${1:?name the sweep file, then the folder for results}
out=${2:?name the folder for results}
part=${SLURM_ARRAY_TASK_ID:?submit this as an array of tasks: sbatch --array=1-8 ...}
parts=${SLURM_ARRAY_TASK_COUNT:?SLURM says how many tasks the array has; by hand, set SLURM_ARRAY_TASK_COUNT}

exec python -m tools.course sweep "$sweep" --out "$out/part-$part" --shard "$part/$parts"
