#!/usr/bin/env bash
# One run on a TPU slice of several hosts. From the root of the repository on a machine with gcloud:
#   experiments/jobs/tpu_pod.sh NAME ZONE --config=configs/FILE.py --data_dir=/mnt/DATA --workdir=/mnt/RUNS/NAME
# Every host has to mount both folders: all of them read the data, and read and write the run.
set -euo pipefail
name=$1 zone=$2
shift 2

on_all() { gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"; }

# Sixteen chips on four hosts, unless they exist already.
gcloud compute tpus tpu-vm describe "$name" --zone="$zone" >/dev/null ||
    gcloud compute tpus tpu-vm create "$name" --zone="$zone" \
        --accelerator-type=v5litepod-16 --version=v2-alpha-tpuv5-lite

# Copy HEAD to the disk of each host, and install it there.
archive=$(mktemp -d)/cnnjax.tar.gz
git archive --prefix=cnnjax/ --output="$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$name": --zone="$zone" --worker=all
on_all "tar -xzf cnnjax.tar.gz && cd cnnjax && ./launch.sh --tpu >/dev/null"

# The same command on all hosts: JAX gets the process index from the TPU's metadata.
on_all "cd cnnjax && ./launch.sh train$(printf ' %q' "$@")"
