"""The example job files, with stand-ins for what starts processes: each comes to the same training everywhere."""

import os
import pathlib
import subprocess

import pytest

JOBS = pathlib.Path(__file__).resolve().parents[1] / "experiments" / "jobs"

STANDINS = {
    "launch.sh": """#!/bin/sh
printf '%s%s' "$JAX_COORDINATOR_ADDRESS" "${JAX_PROCESS_ID:+ $JAX_PROCESS_ID/$JAX_NUM_PROCESSES }" >>"$CALLS"
{ printf '%s' launch.sh; printf ' <%s>' "$@"; echo; } >>"$CALLS"; [ "$1" != train ] || exit "${STATUS:-0}"
""",
    "srun": '#!/bin/sh\necho "srun $1 $2" >>"$CALLS"; shift 2; exec "$@"\n',
    "ssh": '#!/bin/sh\n[ "$2" != bad ] || exit 255; cd /; exec sh -c "$3"\n',
    "git": '#!/bin/sh\necho "git $1 $2" >>"$CALLS"\n',
    "gcloud": """#!/bin/sh
shift 3; echo "$1" >>"$CALLS"
for word in "$@"; do case $word in --command=*launch.sh*) cd "$PLACE"; eval "${word##*&& }" ;; esac; done
[ "$1" != describe ]
""",
}
TRAIN = "launch.sh <train> <--config=a b> <--workdir=$x>"
EXPECTED = {
    "slurm.sh": ([], ["launch.sh <--cuda>", "srun --kill-on-bad-exit=1 --cpus-per-task=12", TRAIN]),
    "hosts.sh": (
        ["one,two"],
        ["launch.sh <>", f"one:7777 0/2 {TRAIN}", f"one:7777 1/2 {TRAIN}"],
    ),
    "tpu_pod.sh": (
        ["name", "zone"],
        ["describe", "create", "git archive --prefix=cnnjax/", "scp", "ssh", "launch.sh <--tpu>", "ssh", TRAIN],
    ),
}


def run(folder: pathlib.Path, script: str, *args: str, **env: str) -> tuple[int, list[str]]:
    place, calls = folder / "a place", folder / "calls"
    place.mkdir()
    for name, text in STANDINS.items():
        path = (place if name == "launch.sh" else folder) / name
        path.write_text(text)
        path.chmod(0o755)
    mine = {"PATH": f"{folder}:{os.environ['PATH']}", "CALLS": str(calls), "PLACE": str(place)}
    mine |= {"SLURM_SUBMIT_DIR": str(place), "SLURM_CPUS_PER_TASK": "12", "TMPDIR": str(folder)}
    done = subprocess.run([JOBS / script, *args], cwd=place, env=os.environ | mine | env, timeout=60)
    return done.returncode, calls.read_text().splitlines()


@pytest.mark.parametrize("script", EXPECTED)
def test_a_job_file_trains_with_its_arguments(script: str, tmp_path: pathlib.Path) -> None:
    first, expected = EXPECTED[script]
    status, calls = run(tmp_path, script, *first, "--config=a b", "--workdir=$x")
    assert status == 0
    calls = [line.replace("launch.sh <>", "launch.sh <>") for line in calls]
    assert calls[:1] + sorted(calls[1:]) == expected if script == "hosts.sh" else calls == expected


@pytest.mark.parametrize(("hosts", "env", "status"), [("one,bad,two", {}, 255), ("one,two", {"STATUS": "7"}, 7)])
def test_a_host_that_fails_is_the_status(hosts: str, env: dict[str, str], status: int, tmp_path: pathlib.Path) -> None:
    assert run(tmp_path, "hosts.sh", hosts, **env)[0] == status
