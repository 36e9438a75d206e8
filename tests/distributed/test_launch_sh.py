"""launch.sh, with stand-ins for Python, pip and cnnjax: nothing is installed and no network is used."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Python, as launch.sh sees it: found, makes environments of stand-ins, and has a pip that does as $STUB_PIP says.
PYTHON = """#!/bin/sh
[ "$1" != -I ] || shift
case "$1 $2" in
    *bootstrap.py" "probe) echo "${STUB_PROBE:-ok $STUB_BIN/python3}" ;;
    "-m venv") echo venv >>"$STUB_BIN/calls"; mkdir -p "$3/bin"; cp "$STUB_BIN/stubs"/* "$STUB_BIN/python3" "$3/bin"
        mv "$3/bin/python3" "$3/bin/python" ;;
    "-m pip") echo "$@" >>"$STUB_BIN/calls"; eval "${STUB_PIP:-true}" ;;
    "-P -c") [ -n "${STUB_SITE:-}" ] ;; # is the generator of the site there?
    "-P -m") case $3 in mkdocs | cnnjax.pages.site) ;; *) exec "$STUB_REAL" "$@" ;; esac
        echo "$@"; [ "$3" != "${STUB_FAILS:-}" ] ;;
    -c*onednn*) echo "using ${STUB_NATIVE:-XLA} for CPU convolutions" ;;
    *) exec "$STUB_REAL" "$@" ;;
esac
"""
CNNJAX = """#!/bin/sh
case $1 in
    --help) echo "commands of cnnjax" ;;
    tunables) printf '%s' "$GLIBC_TUNABLES" ;;
    pythonpath) printf '%s' "$PYTHONPATH" ;;
    env) number=$JAX_PROCESS_ID/$JAX_NUM_PROCESSES
        echo "$number $JAX_COORDINATOR_ADDRESS [$JAX_LOCAL_DEVICE_IDS]" >"$2/$JAX_PROCESS_ID"
        echo "heard $JAX_PROCESS_ID" ;;
    *) printf '<%s>' "$@"; exit "${STUB_STATUS:-0}" ;;
esac
"""
TOOL = """#!/bin/sh
printf '%s' "$(basename "$0")"; printf ' <%s>' "$@"; echo " JAX_PLATFORMS=$JAX_PLATFORMS"
[ "$(basename "$0")" != "$STUB_FAILS" ]
"""


class Place:
    """A copy of what launch.sh reads, in a folder of its own, whose name has a space."""

    def __init__(self, folder: pathlib.Path):
        self.root, self.bin = folder / "a place", folder / "stub bin"
        self.venv = self.root / ".venv"
        self.stamp, self.calls = self.venv / "cnnjax.stamp", self.bin / "calls"
        (self.root / ".ci").mkdir(parents=True)
        (self.root / "cnnjax").mkdir()
        for name in ("launch.sh", "pyproject.toml", ".ci/constraints.txt", "cnnjax/bootstrap.py"):
            shutil.copy(ROOT / name, self.root / name)
        for name, text in {"python3": PYTHON, "stubs/cnnjax": CNNJAX, "stubs/pytest": TOOL, "stubs/ruff": TOOL,
                           "stubs/shellcheck": TOOL, "stubs/pyright": TOOL}.items():  # fmt: skip
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.bin / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("CNNJAX_", "JAX_", "CUDA_"))}
        mine = {"PATH": f"{self.bin}:{os.environ['PATH']}", "STUB_BIN": str(self.bin), "STUB_REAL": sys.executable}
        mine |= {"CXX": "no-such-compiler", "PYTHONPATH": str(ROOT)}
        return kept | mine | more

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        command = [self.root / "launch.sh", *args]
        return subprocess.run(command, env=self.environment(**env), capture_output=True, text=True, timeout=60)

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.root / "launch.sh", *args],
            env=self.environment(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
        )

    def installs(self) -> list[str]:
        """What was asked of `-m venv` and `-m pip` since the last time, as 'venv' and as pip's last argument."""
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return [line.split()[-1] for line in lines]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def install(place):
    assert place.run("anything").returncode == 0
    assert place.installs() == ["venv", ".[test]"]
    return place


@pytest.fixture
def installed(place):
    return install(place)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """An environment for tests that do not change it."""
    return install(Place(tmp_path_factory.mktemp("shared")))


def wait_for(*paths: pathlib.Path) -> None:
    deadline = time.monotonic() + 20
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"none of these came: {paths}"
        time.sleep(0.02)


# --- the command line


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--processes=0", "train"], "--processes=0: expected a whole number from 1 to 999"),
        (["--processes=abc", "train"], "--processes=abc: expected a whole number from 1 to 999"),
        (["--processes=", "train"], "--processes=: expected a whole number from 1 to 999"),
        (["--processes=1.5", "train"], "--processes=1.5: expected a whole number from 1 to 999"),
        (["--processes=2"], "--processes=2 needs a command to run"),
        (["--processes=2", "test"], "--processes=2 applies to the commands of cnnjax, not to test"),
        (["--dry-run"], "--dry-run needs a command to run"),
        (["--processes=2", "--dry-run", "test"], "--processes=2 applies to the commands of cnnjax, not to test"),
        (["--dry-run", "lint"], "--dry-run applies to the commands of cnnjax, not to lint"),
        (["--proceses=2", "train"], "unknown option --proceses=2; expected --cpu, --cuda, --tpu, --processes=N or"),
        (["lint", "--fix"], "lint takes no arguments, got: --fix"),
        (["site", "docs"], "site takes no arguments, got: docs"),
        (["--processes=2", "site"], "--processes=2 applies to the commands of cnnjax, not to site"),
    ],
)
def test_a_wrong_command_line_gets_one_line_and_status_2(shared, args, message):
    done = shared.run(*args)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert shared.installs() == []


@pytest.mark.parametrize(
    ("env", "refused"),
    [
        ({"SLURM_STEP_NUM_TASKS": "8"}, True),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2", "SLURM_STEP_NUM_TASKS": "1"}, True),
    ],
)
def test_one_of_several_processes_starts_no_more_of_them(shared, env, refused):
    done = shared.run("--processes=2", "x", **env)
    assert (done.returncode, done.stdout) == ((2, "") if refused else (0, "<x>"))
    assert ("--processes=2 starts processes on one machine, but this is already one" in done.stderr) == refused


def test_a_dry_run_is_heard_from_every_process(shared):
    assert shared.run("--dry-run", "train", "--x").stdout == "<--dry-run><train><--x>"
    assert shared.run("--processes=3", "--dry-run", "train").stdout == "<--dry-run><train>" * 3


def test_arguments_and_status_pass_through(shared):
    done = shared.run("train", "--config=a b.py", "", "*", "--cuda", STUB_STATUS="7")
    assert done.stdout == "<train><--config=a b.py><><*><--cuda>"
    assert (done.returncode, done.stderr) == (7, "")


def test_it_runs_from_any_folder(shared):
    command = ["bash", "a place/launch.sh", "x"]
    environment, folder = shared.environment(), shared.root.parent
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert (done.stdout, done.returncode, shared.installs()) == ("<x>", 0, [])


def test_help_installs_nothing_and_no_argument_does(place):
    done = place.run("--help")
    assert done.stdout.startswith("usage: ./launch.sh")
    assert (done.returncode, place.installs()) == (0, [])
    done = place.run()
    assert done.stdout.startswith("usage: ./launch.sh")
    assert done.stdout.endswith("commands of cnnjax\n")
    assert place.installs() == ["venv", ".[test]"]
    assert place.run("--help").stdout == done.stdout


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], "pytest <-n> <auto> <--maxprocesses=8> <--dist=worksteal> JAX_PLATFORMS=cpu\n"),
        (["-k", "a b"], "pytest <-n> <auto> <--maxprocesses=8> <--dist=worksteal> <-k> <a b> JAX_PLATFORMS=cpu\n"),
        (["-n0"], "pytest <-n0> JAX_PLATFORMS=cpu\n"),
        (["--pdb"], "pytest <--pdb> JAX_PLATFORMS=cpu\n"),
        (["tests/test_x.py::test_y"], "pytest <tests/test_x.py::test_y> JAX_PLATFORMS=cpu\n"),
    ],
)
def test_the_tests_run_in_parallel_unless_that_hinders(shared, args, expected):
    assert shared.run("test", *args).stdout == expected


def test_memory_is_kept_and_in_large_pages_unless_a_person_says_otherwise(shared):
    names = ("hugetlb=1", "mmap_max=0", "arena_max=1", "trim_threshold=1000000000000")
    large, *others = ours = [f"glibc.malloc.{name}" for name in names]
    for given, expected in {
        "": ours,
        "glibc.malloc.check=0": ["glibc.malloc.check=0", *ours],
        "glibc.malloc.hugetlb=0": ["glibc.malloc.hugetlb=0", *others],
        f"{others[0]}0:{others[1]}6": [f"{others[0]}0", f"{others[1]}6", large, others[2]],
    }.items():
        assert shared.run("tunables", GLIBC_TUNABLES=given).stdout == ":".join(expected)


def test_the_tests_keep_a_chosen_platform_and_their_status(shared):
    done = shared.run("test", "-n0", JAX_PLATFORMS="cuda", STUB_FAILS="pytest")
    assert done.stdout.endswith("JAX_PLATFORMS=cuda\n")
    assert done.returncode == 1


@pytest.mark.parametrize(("fails", "status"), [("", 0), ("ruff", 1), ("shellcheck", 1), ("pyright", 1)])
def test_lint_runs_every_check_and_fails_if_one_does(shared, fails, status):
    done = shared.run("lint", STUB_FAILS=fails)
    assert [line.split(" <--pythonpath")[0].split(" JAX")[0] for line in done.stdout.splitlines()] == [
        "ruff <check> <.>",
        "ruff <format> <--check> <.>",
        "shellcheck <launch.sh> <.ci/run> <experiments/jobs/*.sh>",
        "pyright",
    ]
    assert done.returncode == status


def test_the_site_is_built_and_its_generator_installed_once(place):
    install(place)
    sources = "-P -m cnnjax.pages.site build/site"
    build = f"-P -m mkdocs build --quiet --strict --config-file build/site/mkdocs.yml --site-dir {place.root}/site"
    done = place.run("site")
    assert (done.returncode, done.stdout.splitlines()) == (0, [sources, build])
    assert "open index.html" in done.stderr
    assert place.installs() == [".[site]"]
    assert place.run("site", STUB_SITE="yes").stdout == done.stdout
    assert place.installs() == []
    done = place.run("site", STUB_SITE="yes", STUB_FAILS="mkdocs")  # a dead link, for instance
    assert (done.returncode, "open index.html" in done.stderr) == (1, False)


# --- the environment


def test_the_first_start_installs_and_the_second_does_not(place):
    first = place.run("x")
    assert (first.stdout, first.returncode) == ("<x>", 0)
    assert first.stderr.startswith(f"launch.sh: installing cnnjax for cpu into {place.venv}: one to three minutes")
    assert first.stderr.count("\n") == 2  # the installation, and the convolution library
    assert place.installs() == ["venv", ".[test]"]
    assert place.run("x").stderr == ""
    assert place.installs() == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda place: (place.root / "pyproject.toml").write_text("changed"), [".[test]"]),
        (lambda place: (place.root / ".ci/constraints.txt").write_text("changed"), [".[test]"]),
        (lambda place: place.stamp.unlink(), ["venv", ".[test]"]),
        (lambda place: place.stamp.write_text(""), ["venv", ".[test]"]),
        (lambda place: (place.venv / "bin/python").unlink(), ["venv", ".[test]"]),
        (lambda place: shutil.rmtree(place.venv), ["venv", ".[test]"]),
    ],
    ids=["pyproject", "constraints", "no stamp", "empty stamp", "no python", "no environment"],
)
def test_what_is_out_of_date_is_installed_again(installed, change, expected):
    change(installed)
    assert installed.run("x").stdout == "<x>"
    assert installed.installs() == expected
    assert installed.run("x").stderr == ""


def test_a_folder_that_moved_is_installed_again(installed):
    installed.root = installed.root.rename(installed.root.with_name("another place"))
    assert installed.run("x").stdout == "<x>"
    assert installed.installs() == ["venv", ".[test]"]


@pytest.mark.parametrize(
    ("system", "compiler", "flavor", "extras"),
    [
        ("Linux x86_64", "sh", "--cpu", "test,native"),
        ("Linux x86_64", "env sh", "--cpu", "test,native"),
        ("Linux x86_64", "no-such-compiler", "--cpu", "test"),
        ("Linux aarch64", "sh", "--cpu", "test"),
        ("Darwin arm64", "sh", "--cpu", "test"),
        ("Linux x86_64", "sh", "--cuda", "test,cuda"),
    ],
)
def test_onednn_is_installed_where_it_can_be_compiled(place, system, compiler, flavor, extras):
    place.write("uname", f"#!/bin/sh\necho {system}\n")
    done = place.run(flavor, "anything", CXX=compiler, STUB_NATIVE="oneDNN 3")
    assert place.installs() == ["venv", f".[{extras}]"]
    assert ("launch.sh: using oneDNN 3 for CPU convolutions\n" in done.stderr) == (flavor == "--cpu")
    other = place.run(flavor, "anything", CXX="sh" if compiler == "no-such-compiler" else "no-such-compiler")
    assert other.returncode == 0
    changed = (system, flavor) == ("Linux x86_64", "--cpu")  # a compiler has come, or gone
    assert len(place.installs()) == changed


def test_the_flavor_is_remembered(installed):
    expected = {
        "--cuda": ["venv", ".[test,cuda]"],
        "x": [],
        "--tpu": ["venv", ".[test,tpu]"],
        "--cpu": ["venv", ".[test]"],
    }
    for flag, installs in expected.items():
        assert installed.run(flag).returncode == 0
        assert installed.installs() == installs, flag


def test_a_failed_installation_shows_why_and_is_redone(place):
    done = place.run("x", STUB_PIP="echo no such version; false")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no such version\nlaunch.sh: the installation failed" in done.stderr
    place.installs()
    assert place.run("x").stdout == "<x>"
    assert place.installs() == ["venv", ".[test]"]


def test_the_setup_of_a_dependency_imports_what_lies_beside_it(place):
    """As that of promise, which Debian's pip builds, does; PYTHONSAFEPATH would forbid it."""
    assert place.run("x", STUB_PIP='[ -z "${PYTHONSAFEPATH+set}" ]').returncode == 0


def test_an_interrupted_installation_is_redone(place):
    start = place.start("x", STUB_PIP='echo half >"$STUB_BIN/../a place/.venv/half"; : >"$STUB_BIN/ready"; sleep 60')
    wait_for(place.bin / "ready")
    os.killpg(start.pid, signal.SIGKILL)
    start.communicate()
    place.installs()
    assert place.run("x").stdout == "<x>"
    assert place.installs() == ["venv", ".[test]"]
    assert not (place.venv / "half").exists()


def test_first_starts_at_the_same_time_wait_for_one_another(place):
    slow = 'while [ ! -e "$STUB_BIN/go" ]; do sleep 0.02; done'
    first = place.start("x", STUB_PIP=slow)
    wait_for(place.calls)
    second = place.start("x", STUB_PIP=slow)
    assert second.stdout is not None
    assert second.stdout.readline() == f"launch.sh: waiting for another installation into {place.venv}\n"
    (place.bin / "go").touch()
    assert first.communicate()[0].endswith("\n<x>")
    assert second.communicate()[0] == "<x>"
    assert place.installs() == ["venv", ".[test]"]


def test_a_file_system_without_locks_is_named(place):
    broken = "import fcntl\ndef flock(*_): raise OSError(38, 'Function not implemented')\nfcntl.flock = flock\n"
    script = place.root / "cnnjax/bootstrap.py"
    script.write_text(broken + script.read_text())
    done = place.run("x")
    assert (done.stdout, done.returncode) == ("<x>", 0)
    assert f"launch.sh: the file system of {place.venv} does not support locks: if several" in done.stderr
    assert place.run("x").stderr == ""


def test_a_folder_with_other_files_is_left_alone(place, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").touch()
    done = place.run("x", CNNJAX_VENV=str(tmp_path / "mine"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "mine was not created by launch.sh; move it away, or choose another folder" in done.stderr
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_the_environment_may_be_elsewhere(place, tmp_path):
    (tmp_path / "empty folder").mkdir()
    for venv in (str(tmp_path / "empty folder"), str(tmp_path / "new" / "folder")):
        assert place.run("x", CNNJAX_VENV=venv).stdout == "<x>"
        assert place.run("x", CNNJAX_VENV=venv + "/").stderr == ""
        assert place.installs() == ["venv", ".[test]"]
    assert not place.venv.exists()


def test_no_suitable_python_is_one_line_with_those_found(place):
    for python, answer, found in [("python3", "3.9", "python3 is 3.9"), ("no-such", "", "none that runs")]:
        done = place.run("x", CNNJAX_PYTHON=python, STUB_PROBE=answer)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert f"needs Python 3.11, 3.12 or 3.13; found {found}. Select one with CNNJAX_PYTHON=" in done.stderr
    assert not place.venv.exists()


# --- several processes: see also test_launcher.py


def test_processes_are_started_by_the_launcher(shared, tmp_path):
    done = shared.run("--processes=3", "env", str(tmp_path), JAX_LOCAL_DEVICE_IDS="")
    assert (done.stdout, done.stderr, done.returncode) == ("heard 0\n", "", 0)
    assert [(tmp_path / str(i)).read_text().split()[0] for i in range(3)] == ["0/3", "1/3", "2/3"]


def test_processes_divide_the_gpus(place, tmp_path):
    done = place.run("--cuda", "--processes=2", "env", str(tmp_path), CUDA_VISIBLE_DEVICES="4,5,6,7")
    assert done.returncode == 0
    assert [(tmp_path / str(i)).read_text().split()[-1] for i in range(2)] == ["[0,1]", "[2,3]"]


# --- the current folder


def test_nothing_is_imported_from_the_current_folder(place, tmp_path):
    """Python's own modules of these names are used: by the probe, the installation, the launcher and the command."""
    folder = tmp_path / "of a stranger"
    folder.mkdir()
    names = (
        "shutil",
        "signal",
        "socket",
        "venv",
        "pip",
        "cnnjax",
        "argparse",
        "runpy",
        "fcntl",
        "tempfile",
        "sitecustomize",
    )
    for name in names:
        (folder / f"{name}.py").write_text(f"print('RAN {name}.py FROM THE CURRENT FOLDER')\n")
    place.write("python3", '#!/bin/sh\necho "$@" >>"$STUB_BIN/pythons"\n' + PYTHON.partition("\n")[2])
    place.write("stubs/cnnjax", f'#!/bin/sh\nexec "{sys.executable}" -m argparse\n')
    for args in (["models"], ["--processes=2", "models"]):
        command = [place.root / "launch.sh", *args]
        done = subprocess.run(command, cwd=folder, env=place.environment(), capture_output=True, text=True)
        assert "RAN" not in done.stdout + done.stderr
        assert done.returncode == 0, done.stderr
    started = (place.bin / "pythons").read_text().splitlines()
    assert len(started) >= 5
    assert all(line.startswith(("-I ", "-P ")) for line in started)


def test_a_pythonpath_is_kept_for_the_command(shared):
    assert shared.run("--processes=2", "pythonpath", PYTHONPATH=f"{ROOT}:/a b").stdout == f"{ROOT}:/a b"
