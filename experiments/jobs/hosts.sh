#!/usr/bin/env bash
# One run on several hosts, by ssh. The hosts have to share this folder. From the root of the repository on one of them:
#   experiments/jobs/hosts.sh host0,host1 --config=configs/FILE.py --workdir=runs/NAME
# Ctrl-C stops it on all of them; the same command resumes it.
set -euo pipefail
IFS=, read -r -a hosts <<<"$1"
shift

# Install the environment once, before all hosts need it.
./launch.sh >/dev/null

# One process per host, with all of its GPUs. Process 0 opens the port, which the others have to reach.
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
