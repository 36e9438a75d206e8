#!/usr/bin/env bash
# The one door to cnnjax: makes the environment on first use, then runs what is asked in it.
# Written for bash 3.2 and newer, Linux and macOS.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: ./launch.sh [--cpu|--cuda|--tpu] [--processes=N] [--dry-run] COMMAND [ARGUMENT ...]

  COMMAND         a command of cnnjax, as in ./launch.sh train --config=configs/FILE.py; or one of
    test          the tests, with pytest's arguments
    lint          ruff, shellcheck and pyright
  --cuda, --tpu   install JAX for NVIDIA GPUs or for TPUs; remembered until another is asked for (--cpu goes back)
  --processes=N   run N processes of COMMAND on this machine, as one distributed program
  --dry-run       start nothing: say which process of which run each would be, and with what environment

Started several times by srun, mpirun, on the hosts of a TPU slice or in the pods of an indexed Job, or with
JAX_COORDINATOR_ADDRESS=HOST0:PORT, JAX_NUM_PROCESSES=N and JAX_PROCESS_ID=0 to N-1, the processes are one distributed
program, too; experiments/jobs has examples. JAX_NUM_PROCESSES=1 keeps one by itself.

The first start installs everything into .venv. With no COMMAND, it does only that.
Environment: CNNJAX_VENV, a folder in place of .venv; CNNJAX_PYTHON, the Python to make it with.
TEXT
}

say() { echo "launch.sh: $*" >&2; }
fail() { # STATUS MESSAGE...
    local status=$1
    shift
    say "$@"
    exit "$status"
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
venv=${CNNJAX_VENV:-$root/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
if [ -d "$venv" ]; then venv=$(cd "$venv" && pwd -P); fi
stamp=$venv/cnnjax.stamp # written last: what is installed, and from where
lock=$venv/cnnjax.lock   # held while installing; also says that this script made the folder
log=$venv/cnnjax.log     # what the installation said

# --- the environment ---------------------------------------------------------------------------------------------

# What pip installs for flavour $1. oneDNN, for faster convolutions on a CPU, needs a compiler.
extras() {
    local extras=test
    [ "$1" = cpu ] || extras=$extras,$1
    if [ "$1 $(uname -sm)" = "cpu Linux x86_64" ] && command -v "${CXX:-g++}" >/dev/null; then extras=$extras,native; fi
    echo "$extras"
}

# The stamp that an environment of flavour $1 ought to have.
wanted() {
    local sum
    sum=$(cat "$root/pyproject.toml" "$root/.ci/constraints.txt" | cksum)
    printf '%s\n%s\n%s\n%s\n' "$1" "$sum $(extras "$1")" "$root" "$venv"
}

installed_flavour() {
    local flavour=cpu
    if [ -f "$stamp" ]; then read -r flavour <"$stamp" || true; fi
    echo "${flavour:-cpu}"
}

ready() { # FLAVOUR
    [ -f "$stamp" ] && [ -x "$venv/bin/python" ] && [ "$(cat "$stamp")" = "$(wanted "$1")" ]
}

# Prints the path of a Python that will do; fails saying what was found instead.
find_python() {
    local candidate answer found=""
    local probe='import sys; v = "%d.%d" % sys.version_info[:2]; ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
try: import ensurepip, venv
except ImportError: v += " without its venv module (on Debian: apt install python" + v + "-venv)"; ok = False
print(("ok " + sys.executable) if ok else v)'
    # pyenv's shims fail for a version that is installed and not chosen, so its folder is looked into as well
    set -- python3 python3.13 python3.12 python3.11 "${PYENV_ROOT:-${HOME:-}/.pyenv}"/versions/3.1[123].*/bin/python3
    if [ -n "${CNNJAX_PYTHON:-}" ]; then set -- "$CNNJAX_PYTHON"; fi
    for candidate in "$@"; do
        answer=$("$candidate" -c "$probe" 2>/dev/null) || continue
        case $answer in
            ok\ *) echo "${answer#ok }" && return ;;
            *) [ "${found%"is $answer"*}" != "$found" ] || found="${found:+$found, }$candidate is $answer" ;;
        esac
    done
    fail 1 "needs Python 3.11, 3.12 or 3.13; found ${found:-none that runs}. CNNJAX_PYTHON=/path/to/python3 names one"
}

install_environment() { # FLAVOUR
    local flavour=$1 python again=""
    if [ -d "$venv" ] && [ ! -e "$lock" ] && [ -n "$(ls -A "$venv")" ]; then
        fail 1 "$venv is not an environment that launch.sh made; move it away, or name another with CNNJAX_VENV"
    fi
    python=$(find_python) || exit 1
    mkdir -p "$venv" || fail 1 "cannot make the folder $venv"
    # The lock belongs to the open file: it ends with this process and its children, however they end.
    exec 9>>"$lock"
    "$python" -c '
import fcntl, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("launch.sh: waits for another installation into " + sys.argv[1], file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)
except OSError:
    print("launch.sh: the file system of " + sys.argv[1] + " has no locks: where several processes share it, run "
          "launch.sh once, alone, before them", file=sys.stderr)
' "$venv"
    if ready "$flavour"; then
        exec 9>&-
        return
    fi
    # Only a change of pyproject.toml or of the constraints goes over what is there. Anything else begins anew.
    if [ -x "$venv/bin/python" ] && [ "$(sed 2d "$stamp" 2>/dev/null)" = "$(wanted "$flavour" | sed 2d)" ]; then
        again=yes
    fi
    rm -f "$stamp"
    if [ -n "$again" ]; then
        say "brings $venv up to date with pyproject.toml and the constraints: less than a minute"
    else
        say "installs cnnjax for $flavour into $venv: one to three minutes, more on a slow network"
    fi
    if ! {
        { [ -n "$again" ] || find "$venv" -mindepth 1 -maxdepth 1 ! -name 'cnnjax.lo*' -exec rm -rf {} +; } &&
            { [ -n "$again" ] || "$python" -m venv "$venv"; } &&
            (cd "$root" && "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
                -c .ci/constraints.txt -e ".[$(extras "$flavour")]")
    } >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        fail 1 "the installation failed; above is the end of what it said, all of it is in $log"
    fi
    if [ "$flavour" = cpu ]; then # compiled now, not while the first network waits
        "$venv/bin/python" -c 'from cnnjax.ops import jpeg, onednn; print("convolutions are by " + onednn.load().text); jpeg.load()' \
            2>>"$log" | sed 's/^/launch.sh: /' >&2 || true
    fi
    wanted "$flavour" >"$stamp.new"
    mv "$stamp.new" "$stamp"
    exec 9>&-
}

# --- several processes -------------------------------------------------------------------------------------------

# Runs a command N times. Process 0 has the terminal; the others are heard only when they fail. Signals go to all.
# When one fails the rest are stopped, and its status is ours. In Python, for bash starts children deaf to SIGINT.
supervisor='
import os, shutil, signal, socket, subprocess, sys, tempfile, time

count, flavour, command = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
with socket.socket() as probe:
    probe.bind(("", 0))
    port = probe.getsockname()[1]
devices = []
if flavour == "cuda" and shutil.which("nvidia-smi"):  # each process gets its share of the GPUs
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    lines = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.splitlines()
    total = len(lines) if seen is None else len([name for name in seen.split(",") if name])
    share = total // count
    devices = [",".join(str(i * share + j) for j in range(share)) for i in range(count)] if share else []
logs = tempfile.mkdtemp(prefix="cnnjax-")
processes, starting, deadline, first, signals = [], True, None, None, []


def send(number):
    for process in processes:
        if process.poll() is None:
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                pass


def forward(number, frame):
    signals.append(number)
    if not starting:
        send(number if len(signals) < 3 else signal.SIGKILL)


for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, forward)
for i in range(count):
    env = dict(os.environ, JAX_COORDINATOR_ADDRESS=f"localhost:{port}", JAX_NUM_PROCESSES=str(count),
               JAX_PROCESS_ID=str(i))
    if devices:
        env.setdefault("JAX_LOCAL_DEVICE_IDS", devices[i])
    with open(os.path.join(logs, f"{i}.txt"), "wb") as log:
        output = {} if i == 0 or "--dry-run" in command[1:2] else {"stdout": log, "stderr": log}
        processes.append(
            subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, start_new_session=True, **output)
        )
starting = False
if signals:
    send(signals[-1])
while None in [process.poll() for process in processes]:
    failed = [i for i, process in enumerate(processes) if process.returncode]
    if failed and deadline is None:
        first = failed[0]
        deadline = time.monotonic() + (60 if signals else 10)  # to save what it has, or only to end
        if not signals:
            send(signal.SIGTERM)
    elif deadline is not None and time.monotonic() > deadline:
        send(signal.SIGKILL)
    time.sleep(0.05)
if first is None:
    first = next((i for i, process in enumerate(processes) if process.returncode), None)
status = 0 if first is None else processes[first].returncode
status = 128 - status if status < 0 else status
if status and not signals:
    for i, process in enumerate(processes):
        if i and process.returncode and (i == first or process.returncode > 0):
            print(f"launch.sh: process {i} wrote:", file=sys.stderr)
            with open(os.path.join(logs, f"{i}.txt"), errors="replace") as log:
                sys.stderr.writelines(log.readlines()[-100:])
    end = f"failed with status {status}" if status < 128 else f"was ended by signal {status - 128}"
    print(f"launch.sh: process {first} of {count} {end}; the others were stopped. What they wrote is in {logs}",
          file=sys.stderr)
else:
    shutil.rmtree(logs, ignore_errors=True)
sys.exit(status)
'

# --- the tests and the checks ------------------------------------------------------------------------------------

run_tests() {
    local argument jobs="-n auto --maxprocesses=8 --dist=worksteal"
    for argument in "$@"; do
        case $argument in # one test alone, or a debugger, is better off in this process
            -n* | --numprocesses* | --dist* | --pdb | --trace | -s | --co | --collect-only | -h | --help | *::*) jobs="" ;;
        esac
    done
    cd "$root"
    # shellcheck disable=SC2086 # several words on purpose
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

# --- the command line --------------------------------------------------------------------------------------------

flavour="" processes="" dry=""
while [ $# -gt 0 ]; do
    case $1 in
        --cpu | --cuda | --tpu) flavour=${1#--} ;;
        --processes=*)
            processes=${1#--processes=}
            case $processes in
                [1-9] | [1-9][0-9] | [1-9][0-9][0-9]) ;;
                *) fail 2 "--processes=$processes: expected a whole number from 1 to 999" ;;
            esac
            ;;
        --dry-run) dry=$1 ;;
        -h | --help)
            usage
            if ready "$(installed_flavour)"; then
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
        test | lint) fail 2 "$option is for the commands of cnnjax, not for $1" ;;
    esac
done
if [ -n "$processes" ] && [ "${OMPI_COMM_WORLD_SIZE:-${SLURM_STEP_NUM_TASKS:-1}}" != 1 ]; then
    fail 2 "--processes=$processes is for one machine, and this is one of several processes already; leave it out"
fi
[ "${1:-}" != lint ] || [ $# -eq 1 ] || fail 2 "lint takes no arguments, got: ${*:2}"

[ $# -gt 0 ] || usage
flavour=${flavour:-$(installed_flavour)}
ready "$flavour" || install_environment "$flavour"
export CNNJAX_COMMAND=$0 # what messages tell a person to type
case ${1:-} in
    "") echo && exec "$venv/bin/cnnjax" --help ;;
    test) shift && run_tests "$@" ;;
    lint) run_lint ;;
    *)
        # XLA on a CPU gets a step's memory anew each time and gives it back, and a machine may take longer to find and
        # clear it than to compute: glibc keeps it, in large pages. What a person has set in GLIBC_TUNABLES stays.
        for setting in hugetlb=1 mmap_max=0 arena_max=1 trim_threshold=1000000000000; do
            case :${GLIBC_TUNABLES:-}: in
                *":glibc.malloc.${setting%=*}="*) ;;
                *) export GLIBC_TUNABLES="${GLIBC_TUNABLES:+$GLIBC_TUNABLES:}glibc.malloc.$setting" ;;
            esac
        done
        set -- "$venv/bin/cnnjax" ${dry:+"$dry"} "$@"
        [ -n "$processes" ] || exec "$@"
        exec "$venv/bin/python" -c "$supervisor" "$processes" "$flavour" "$@"
        ;;
esac
