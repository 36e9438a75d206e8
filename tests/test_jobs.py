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


@pytest.mark.parametrize(("flavor", "extras"), [("cpu", "test,native"), ("cuda", "test,cuda")])
def test_the_packed_wheels_are_those_that_launch_sh_installs(flavor: str, extras: str, tmp_path: pathlib.Path) -> None:
    script, python = tmp_path / "experiments" / "jobs" / "pack.sh", tmp_path / ".venv" / "bin" / "python"
    for path, text in (
        (script, (JOBS / "pack.sh").read_text()),
        (tmp_path / "launch.sh", "#!/bin/sh\n"),
        (python, '#!/bin/sh\necho "$@" >>"$CALLS"\n'),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    (tmp_path / "data" / "cifar10").mkdir(parents=True)
    mine = {"CALLS": str(tmp_path / "calls"), "TFDS_DATA_DIR": str(tmp_path / "data"), "CNNJAX_VENV": ".venv"}
    subprocess.run([script, tmp_path / "packed", flavor], env=os.environ | mine, check=True, timeout=60)
    assert f" .[{extras}] setuptools pip" in (tmp_path / "calls").read_text()
    assert (tmp_path / "packed" / "part-000").exists()
