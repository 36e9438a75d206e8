#!/usr/bin/env bash
# Installs the environment on first use, then runs a command of cnnjax, the tests or the linters in it, or builds the site.
# Written for bash 3.2 and newer, Linux and macOS.
set -euo pipefail
export PYTHONSAFEPATH=1 # a file shutil.py in the current folder is not the module of that name

usage() {
    cat <<'TEXT'
usage: ./launch.sh [--cpu|--cuda|--tpu] [--processes=N] [--dry-run] COMMAND [ARGUMENT ...]

  COMMAND         a cnnjax command, such as train NAME, or one of
    test          run the tests; arguments go to pytest
    lint          run ruff, shellcheck and pyright
    site          build the folder site/: how-tos, references, experiments; open site/index.html
  --cuda, --tpu   install JAX for NVIDIA GPUs or for TPUs; remembered until another is chosen (--cpu goes back)
  --processes=N   run COMMAND as N processes on this machine, as one distributed program
  --dry-run       start nothing: print the index, the run and the environment of each process

Processes started by srun, mpirun, on the hosts of a TPU slice or in the pods of an indexed Job form one distributed
program, too. Elsewhere set JAX_COORDINATOR_ADDRESS=HOST0:PORT, JAX_NUM_PROCESSES=N and JAX_PROCESS_ID=0 to N-1, as in
experiments/jobs. JAX_NUM_PROCESSES=1 makes a process run alone.

The first start installs everything into .venv. Without a COMMAND it does only that.
Environment variables: CNNJAX_VENV, a folder to use instead of .venv; CNNJAX_PYTHON, the Python to create it with.
TEXT
}

log() { echo "launch.sh: $*" >&2; }
fail() { # STATUS MESSAGE...
    log "${@:2}"
    exit "$1"
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
venv=${CNNJAX_VENV:-$root/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
if [ -d "$venv" ]; then venv=$(cd "$venv" && pwd -P); fi
stamp=$venv/cnnjax.stamp # written last: what is installed, and from where
lock=$venv/cnnjax.lock   # held while installing; it also marks the folder as created by this script
pip_log=$venv/cnnjax.log # the output of the installation

# --- the environment ---------------------------------------------------------------------------------------------

# Runs pip install. The setup.py of a package may import what lies beside it, which PYTHONSAFEPATH forbids.
install_with_pip() {
    env -u PYTHONSAFEPATH "$venv/bin/python" -I -m pip install --disable-pip-version-check --no-input "$@"
}

# Prints the pip extras of flavor $1. oneDNN, which makes convolutions on a CPU faster, needs a compiler.
extras() {
    local extras=test compiler=${CXX:-g++} # may be "ccache g++"
    [ "$1" = cpu ] || extras=$extras,$1
    if [ "$1 $(uname -sm)" = "cpu Linux x86_64" ] && command -v "${compiler%% *}" >/dev/null; then extras=$extras,native; fi
    echo "$extras"
}

# Prints the stamp of an up-to-date environment of flavor $1.
expected_stamp() {
    local sum
    sum=$(cat "$root/pyproject.toml" "$root/.ci/constraints.txt" | cksum)
    printf '%s\n%s\n%s\n%s\n' "$1" "$sum $(extras "$1")" "$root" "$venv"
}

installed_flavor() { sed -n 1p "$stamp" 2>/dev/null | grep . || echo cpu; }

is_up_to_date() { # FLAVOR
    [ -f "$stamp" ] && [ -x "$venv/bin/python" ] && [ "$(cat "$stamp")" = "$(expected_stamp "$1")" ]
}

# Prints the path of a suitable Python; fails with those that were found instead.
find_python() {
    local candidate answer found=""
    # pyenv's shims fail for versions that are installed but not selected, so its folder is searched, too
    set -- python3 python3.13 python3.12 python3.11 "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[123].*/bin/python3
    if [ -n "${CNNJAX_PYTHON:-}" ]; then set -- "$CNNJAX_PYTHON"; fi
    for candidate in "$@"; do
        answer=$("$candidate" -I "$root/cnnjax/bootstrap.py" probe 2>/dev/null) || continue
        case $answer in
            ok\ *) echo "${answer#ok }" && return ;;
            *) [ "${found%"is $answer"*}" != "$found" ] || found="${found:+$found, }$candidate is $answer" ;;
        esac
    done
    fail 1 "needs Python 3.11, 3.12 or 3.13; found ${found:-none that runs}. Select one with CNNJAX_PYTHON=/path/to/python3"
}

install_environment() { # FLAVOR
    local flavor=$1 python update=""
    if [ -d "$venv" ] && [ ! -e "$lock" ] && [ -n "$(ls -A "$venv")" ]; then
        fail 1 "$venv was not created by launch.sh; move it away, or choose another folder with CNNJAX_VENV"
    fi
    python=$(find_python) || exit 1
    mkdir -p "$venv" || fail 1 "cannot create the folder $venv"
    # The lock belongs to the open file: it is released when this process and its children exit, however they exit.
    exec 9>>"$lock"
    "$python" -I "$root/cnnjax/bootstrap.py" lock "$venv"
    if is_up_to_date "$flavor"; then
        exec 9>&-
        return
    fi
    # After a change of pyproject.toml or of the constraints alone pip updates in place; else the folder is emptied first.
    if [ -x "$venv/bin/python" ] && [ "$(sed 2d "$stamp" 2>/dev/null)" = "$(expected_stamp "$flavor" | sed 2d)" ]; then
        update=yes
    fi
    rm -f "$stamp"
    if [ -n "$update" ]; then
        log "updating $venv to pyproject.toml and the constraints: less than a minute"
    else
        log "installing cnnjax for $flavor into $venv: one to three minutes, longer on a slow network"
    fi
    if ! {
        { [ -n "$update" ] || find "$venv" -mindepth 1 -maxdepth 1 ! -name 'cnnjax.lo*' -exec rm -rf {} +; } &&
            { [ -n "$update" ] || "$python" -I -m venv "$venv"; } &&
            (cd "$root" && install_with_pip -c .ci/constraints.txt -e ".[$(extras "$flavor")]")
    } >"$pip_log" 2>&1 </dev/null; then
        tail -n 20 "$pip_log" >&2
        fail 1 "the installation failed; the end of its output is above, all of it in $pip_log"
    fi
    if [ "$flavor" = cpu ]; then # compile now rather than at the first training
        "$venv/bin/python" -I -c 'from cnnjax.ops import jpeg, onednn; print("using " + onednn.load().text + " for CPU convolutions"); jpeg.load()' \
            2>>"$pip_log" | sed 's/^/launch.sh: /' >&2 || true
    fi
    expected_stamp "$flavor" >"$stamp.new"
    mv "$stamp.new" "$stamp"
    exec 9>&-
}

# --- the tests and the checks ------------------------------------------------------------------------------------

run_tests() {
    local argument jobs="-n auto --maxprocesses=8 --dist=worksteal"
    for argument in "$@"; do
        case $argument in # a single test, or a debugger, runs in this process
            -n* | --numprocesses* | --dist* | --pdb | --trace | -s | --co | --collect-only | -h | --help | *::*) jobs="" ;;
        esac
    done
    cd "$root"
    # shellcheck disable=SC2086 # several words
    JAX_PLATFORMS=${JAX_PLATFORMS:-cpu} exec "$venv/bin/pytest" $jobs "$@"
}

run_lint() {
    local status=0
    cd "$root"
    "$venv/bin/ruff" check . || status=1
    "$venv/bin/ruff" format --check . || status=1
    "$venv/bin/shellcheck" launch.sh .ci/run experiments/jobs/*.sh || status=1
    PYRIGHT_PYTHON_IGNORE_WARNINGS=1 "$venv/bin/pyright" --pythonpath "$venv/bin/python" || status=1
    return $status
}

# --- the site ----------------------------------------------------------------------------------------------------

build_site() {
    cd "$root"
    if ! "$venv/bin/python" -P -c 'import material' 2>/dev/null; then
        log "installing the generator of the site"
        if ! install_with_pip -c .ci/constraints.txt -e ".[site]" >>"$pip_log" 2>&1 </dev/null; then
            tail -n 20 "$pip_log" >&2
            fail 1 "the installation failed; the end of its output is above, all of it in $pip_log"
        fi
    fi
    "$venv/bin/python" -P -m cnnjax.pages.site build/site
    NO_MKDOCS_2_WARNING=1 "$venv/bin/python" -P -m mkdocs build --quiet --strict --config-file build/site/mkdocs.yml --site-dir "$root/site"
    log "the site is in $root/site; open index.html in a browser"
}

# --- the command line --------------------------------------------------------------------------------------------

flavor="" processes="" dry=""
while [ $# -gt 0 ]; do
    case $1 in
        --cpu | --cuda | --tpu) flavor=${1#--} ;;
        --processes=*)
            processes=${1#--processes=}
            case $processes in [1-9] | [1-9][0-9] | [1-9][0-9][0-9]) ;;
                *) fail 2 "--processes=$processes: expected a whole number from 1 to 999" ;;
            esac
            ;;
        --dry-run) dry=$1 ;;
        -h | --help)
            usage
            if is_up_to_date "$(installed_flavor)"; then
                echo
                exec "$venv/bin/cnnjax" --help
            fi
            exit 0
            ;;
        --version) break ;;
        -*) fail 2 "unknown option $1; expected --cpu, --cuda, --tpu, --processes=N or --dry-run before the command" ;;
        *) break ;;
    esac
    shift
done
for option in ${processes:+"--processes=$processes"} $dry; do
    case ${1:-} in
        "") fail 2 "$option needs a command to run" ;;
        test | lint | site) fail 2 "$option applies to the commands of cnnjax, not to $1" ;;
    esac
done
if [ -n "$processes" ] && [ "${OMPI_COMM_WORLD_SIZE:-${SLURM_STEP_NUM_TASKS:-1}}" != 1 ]; then
    fail 2 "--processes=$processes starts processes on one machine, but this is already one of several; leave it out"
fi
case ${1:-} in
    lint | site) [ $# -eq 1 ] || fail 2 "$1 takes no arguments, got: ${*:2}" ;;
esac

[ $# -gt 0 ] || usage
flavor=${flavor:-$(installed_flavor)}
is_up_to_date "$flavor" || install_environment "$flavor"
export CNNJAX_COMMAND=$0 # the program name in messages
case ${1:-} in
    "") echo && exec "$venv/bin/cnnjax" --help ;;
    test) shift && run_tests "$@" ;;
    lint) run_lint ;;
    site) build_site ;;
    *)
        # XLA on a CPU allocates and frees a step's memory every time, and the system may take longer to find and clear
        # it than the step to compute. So glibc keeps it, in large pages. The user's own GLIBC_TUNABLES take precedence.
        for setting in hugetlb=1 mmap_max=0 arena_max=1 trim_threshold=1000000000000; do
            case :${GLIBC_TUNABLES:-}: in
                *":glibc.malloc.${setting%=*}="*) ;;
                *) export GLIBC_TUNABLES="${GLIBC_TUNABLES:+$GLIBC_TUNABLES:}glibc.malloc.$setting" ;;
            esac
        done
        set -- "$venv/bin/cnnjax" ${dry:+"$dry"} "$@"
        [ -n "$processes" ] || exec "$@"
        exec "$venv/bin/python" -P -m cnnjax.distributed.launcher "$processes" "$flavor" "$@"
        ;;
esac
