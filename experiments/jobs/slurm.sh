#!/usr/bin/env bash
# One run on two nodes with eight GPUs each, from the repository's root:
#   sbatch experiments/jobs/slurm.sh --config=configs/FILE.py --workdir=runs/NAME
# When its time is over: the same again, and it goes on.

#SBATCH --nodes=2
# A task for each GPU: JAX gives task i of a node GPU i.
#SBATCH --ntasks-per-node=8
# Not --gpus-per-task: each task would see one GPU, and as number 0.
#SBATCH --gpus-per-node=8
# Cores that decode images; how many are needed is in README.md.
#SBATCH --cpus-per-task=12
#SBATCH --time=12:00:00
# Five minutes before the end the tasks are told; they save and leave.
#SBATCH --signal=TERM@300
# After the failure of a node Slurm starts the job again, and the run goes on, in the same log.
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

# Slurm runs a copy of this file. The folder that sbatch was called in is one that all nodes see.
cd "$SLURM_SUBMIT_DIR"

# The environment, once, before sixteen tasks come for it.
./launch.sh --cuda >/dev/null

# When a task fails, srun ends the others at once. It does not inherit --cpus-per-task from above.
srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" ./launch.sh train "$@"
