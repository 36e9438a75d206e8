#!/usr/bin/env bash
# Packs what gpu_speed.sh needs for a machine without a network: wheels and data sets, in parts of at most 60 MB.
#   experiments/jobs/pack.sh FOLDER [FLAVOR]    here, with a network: writes FOLDER/part-000, FOLDER/part-001, ...
#   experiments/jobs/pack.sh --unpack FOLDER    there, with the parts in FOLDER: makes FOLDER/wheels and FOLDER/data,
#                                               and installs from them
# FLAVOR is cuda (default) or cpu. DATASETS (default: cifar10) names data sets that are in the folder of TFDS here. The
# wheels are for the Python and the processor of this machine, and those of PyTorch come along to compare with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
part_bytes=60000000

if [ "${1:-}" = --unpack ]; then
    folder=$(cd "${2:?usage: experiments/jobs/pack.sh --unpack FOLDER}" && pwd)
    (cd "$folder" && sha256sum --check --quiet parts.sha256) # a part that is missing or damaged
    cat "$folder"/part-* | tar -x -C "$folder"
    export PIP_NO_INDEX=1 PIP_FIND_LINKS=$folder/wheels
    ./launch.sh "--$(cat "$folder/flavor")"
    python3 -m venv "$folder/torch"
    "$folder/torch/bin/pip" install --quiet torch
    "$folder/torch/bin/pip" install --quiet --no-deps torchvision
    "$folder/torch/bin/pip" install --quiet pillow numpy
    echo "TFDS_DATA_DIR=$folder/data experiments/jobs/gpu_speed.sh $folder/torch/bin/python"
    exit
fi

folder=${1:?usage: experiments/jobs/pack.sh FOLDER [cuda|cpu]} flavor=${2:-cuda}
case $flavor in cuda | cpu) ;; *) echo "pack.sh: unknown flavor $flavor; expected cuda or cpu" >&2 && exit 2 ;; esac
data=$(cd "${TFDS_DATA_DIR:-$HOME/tensorflow_datasets}" && pwd)
for name in ${DATASETS:-cifar10}; do
    [ -d "$data/$name" ] || { echo "pack.sh: no data set $name in $data; cnnjax data build makes it" >&2 && exit 1; }
done
./launch.sh # an environment, whose pip and Python the wheels are for
pip="${CNNJAX_VENV:-.venv}/bin/python -m pip --disable-pip-version-check --quiet"
mkdir -p "$folder/wheels"
rm -f "$folder"/part-* "$folder/parts.sha256"
extras="test,native" # as launch.sh installs them; oneDNN is for Linux on x86_64 alone
if [ "$flavor" = cuda ]; then extras="test,cuda"; fi
$pip wheel --wheel-dir "$folder/wheels" -c .ci/constraints.txt ".[$extras]" setuptools pip
$pip download --dest "$folder/wheels" -r .ci/references.txt
$pip download --dest "$folder/wheels" --no-deps -r .ci/references-alone.txt
rm -f "$folder"/wheels/cnnjax-*.whl # the checkout is installed
echo "$flavor" >"$folder/flavor"
rm -rf "$folder/data" && mkdir "$folder/data"
for name in ${DATASETS:-cifar10}; do ln -s "$data/$name" "$folder/data/$name"; done
tar -ch -C "$folder" flavor wheels data | split -b "$part_bytes" -d -a 3 - "$folder/part-"
(cd "$folder" && sha256sum part-* >parts.sha256)
echo "$(find "$folder" -name 'part-*' | wc -l) parts of at most $((part_bytes / 1000000)) MB are in $folder"
