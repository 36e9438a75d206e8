#!/usr/bin/env bash
# Benchmarks on one GPU, against PyTorch, in at most MINUTES (default: 10), the most important first. From the root of
# the repository:
#   experiments/jobs/gpu_speed.sh PYTHON [FLAG of launch.sh, as in --cuda]
# PYTHON is the interpreter of an environment with torch and torchvision. The data set cifar10 has to be in the folder
# of TFDS; DATASET (photographs, such as imagenet2012) is measured, too, if it is named. pack.sh brings all of it to a
# machine without a network. SMALL=1 tries everything on a CPU.
set -euo pipefail

python=${1:?"usage: experiments/jobs/gpu_speed.sh PYTHON [--cuda]"}
end=$((SECONDS + ${MINUTES:-10} * 60)) batch=256 repeats=8 seeds=20 fast=() plain=() dtype=bfloat16
if [ -n "${SMALL:-}" ]; then
    batch=8 repeats=2 seeds=2 dtype=float32
    plain=(--config.model=resnet50_v1_5) # without ghost batch normalization, whose groups are larger
    fast=(--config.duration="2 steps" --config.batch_size=64 --config.test_split="test[:500]")
fi
out=runs/gpu_speed-$(date +%Y%m%d-%H%M%S)
mkdir -p "$out"
./launch.sh "${@:2}" >/dev/null

# Runs a command for the rest of the time at most. What did not end is said, and the others go on.
within() {
    local left=$((end - SECONDS)) status=0
    [ "$left" -gt 0 ] || { echo "no time left for: $*" && return; }
    timeout --signal=INT --kill-after=20 "$left" "$@" || status=$?
    [ "$status" = 0 ] || echo "status $status after $((SECONDS)) s: $*"
}

# 1. A training step and a forward pass of ResNet-50, against torchvision's with torch.compile.
within ./launch.sh bench resnet50_v1_5 --batch=$batch --dtype=$dtype --repeats=$repeats --vs="$python" --vs_compile \
    --csv="$out/speed.csv"

# 2. CIFAR-10 to 94 %: accuracy and training time of each seed, without startup.
for ((seed = 0; seed < seeds; seed++)); do
    [ $SECONDS -lt $((end - ${RESERVE:-120})) ] || break
    within ./launch.sh train cifar10_fast:$dtype --config.seed=$seed ${fast[@]+"${fast[@]}"} \
        --workdir="$out/fast-$seed" >"$out/fast-$seed.txt" || true
done
"$python" - "$out"/fast-*/result.json <<'PYTHON' || echo "no run of cifar10_fast ended"
import json, statistics, sys

runs = [json.load(open(path)) for path in sys.argv[1:]]
loops = [sum(seconds for name, seconds in run["loop_seconds"].items() if name != "compilation") for run in runs]
for name, values in (("accuracy", [run["accuracy"] for run in runs]), ("seconds of training", loops)):
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    print(f"{name}: {statistics.fmean(values):.4f}{spread}, {len(values)} seeds: {values}")
PYTHON

# 3. ResNet-50 with its input pipeline, if there are photographs.
if [ -n "${DATASET:-}" ]; then
    within ./launch.sh bench --config=configs/imagenet_resnet50.py:$batch --config.dataset="$DATASET" \
        --config.dtype=$dtype ${plain[@]+"${plain[@]}"} --repeats=$repeats --what=input,train,loop --csv="$out/speed.csv"
fi
echo "$out, $SECONDS s"
