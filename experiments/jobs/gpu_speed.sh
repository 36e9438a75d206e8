#!/usr/bin/env bash
# Benchmarks on one GPU, against PyTorch. From the root of the repository:
#   experiments/jobs/gpu_speed.sh PYTHON [FLAG of launch.sh, as in --cuda]
# PYTHON is the interpreter of an environment with torch and torchvision. The data sets cifar10 and DATASET
# (photographs, default: imagenet2012) have to be in the folder of TFDS. SMALL=1 tests everything in minutes on a CPU.
set -euo pipefail

python=${1:?"usage: experiments/jobs/gpu_speed.sh PYTHON [--cuda]"}
dataset=${DATASET:-imagenet2012} batch=256 repeats=8 seeds=20 fast=() plain=() dtype=bfloat16
if [ -n "${SMALL:-}" ]; then
    batch=8 repeats=2 seeds=2 dtype=float32
    plain=(--config.model=resnet50_v1_5) # without ghost batch normalization, whose groups are larger
    fast=(--config.duration="2 steps" --config.batch_size=64 --config.test_split="test[:500]")
fi
out=runs/gpu_speed-$(date +%Y%m%d-%H%M%S)
mkdir -p "$out"
./launch.sh "${@:2}" >/dev/null

# Training step and forward pass of ResNet-50 against torchvision's with torch.compile, then with the input pipeline.
./launch.sh bench resnet50_v1_5 --batch=$batch --dtype=$dtype --repeats=$repeats --vs="$python" --vs_compile \
    --csv="$out/speed.csv"
./launch.sh bench --config=configs/imagenet_resnet50.py:$batch --config.dataset="$dataset" --config.dtype=$dtype \
    ${plain[@]+"${plain[@]}"} --repeats=$repeats --what=input,train,loop --csv="$out/speed.csv"

# CIFAR-10 to 94 %: accuracy and training time of each seed, without startup.
for ((seed = 0; seed < seeds; seed++)); do
    ./launch.sh train --config=configs/cifar10_fast.py:$dtype --config.seed=$seed ${fast[@]+"${fast[@]}"} \
        --workdir="$out/fast-$seed" >"$out/fast-$seed.txt"
done
"$python" - "$out"/fast-*/result.json <<'PYTHON'
import json, statistics, sys

runs = [json.load(open(path)) for path in sys.argv[1:]]
loops = [sum(seconds for name, seconds in run["loop_seconds"].items() if name != "compilation") for run in runs]
for name, values in (("accuracy", [run["accuracy"] for run in runs]), ("seconds of training", loops)):
    print(f"{name}: {statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}, {len(values)} seeds: {values}")
PYTHON
