#!/usr/bin/env bash
# One run on two nodes with eight GPUs each. From the root of the repository:
#   sbatch experiments/jobs/slurm.sh --config=configs/FILE.py --workdir=runs/NAME
# After the time limit the same command resumes it.

#SBATCH --nodes=2
# One task per GPU: JAX assigns GPU i of a node to its task i.
#SBATCH --ntasks-per-node=8
# Not --gpus-per-task: each task would see a single GPU, with index 0.
#SBATCH --gpus-per-node=8
# Cores to decode images; README.md tells how many are needed.
#SBATCH --cpus-per-task=12
#SBATCH --time=12:00:00
# Five minutes before the limit the tasks get SIGTERM, save a checkpoint and exit.
#SBATCH --signal=TERM@300
# After the failure of a node Slurm restarts the job, which resumes the run and appends to its log.
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

# Slurm runs a copy of this file, so go to the folder of sbatch, which all nodes have to share.
cd "$SLURM_SUBMIT_DIR"

# Install the environment once, before sixteen tasks need it.
./launch.sh --cuda >/dev/null

# When a task fails, srun stops the others. It does not inherit --cpus-per-task from above.
srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" ./launch.sh train "$@"
