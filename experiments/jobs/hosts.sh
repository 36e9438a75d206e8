#!/usr/bin/env bash
# One run on hosts that ssh reaches and that share this folder, from the repository's root on one of them:
#   experiments/jobs/hosts.sh host0,host1 --config=configs/FILE.py --workdir=runs/NAME
# Ctrl-C ends it on all of them; the same again goes on from the last checkpoint.
set -euo pipefail
IFS=, read -r -a hosts <<<"$1"
shift

# The environment, once, before all of them come for it.
./launch.sh >/dev/null

# A process for each host, with all of its GPUs. Process 0 opens the port, and the others have to reach it.
started=()
for number in "${!hosts[@]}"; do
    run="JAX_COORDINATOR_ADDRESS=${hosts[0]}:7777 JAX_NUM_PROCESSES=${#hosts[@]} JAX_PROCESS_ID=$number ./launch.sh train"
    ssh -tt "${hosts[$number]}" "cd $(printf %q "$PWD") && $run$(printf ' %q' "$@")" </dev/null & # -tt: it ends with ssh
    started+=($!)
done
trap 'kill "${started[@]}"' INT TERM
status=0
for process in "${started[@]}"; do wait "$process" || status=$?; done
exit "$status"
