"""The container and the devcontainer: they do what README.md says, with what launch.sh accepts."""

import fnmatch
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
README, LAUNCH = (ROOT / "README.md").read_text(), (ROOT / "launch.sh").read_text()


def instructions() -> list[tuple[str, str]]:
    """Returns the instructions of the Dockerfile, as (keyword, rest), in their order."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [(line.split(" ", 1)[0], " ".join(line.split(" ")[1:])) for line in text.splitlines() if line.strip()]


def values(keyword: str) -> list[str]:
    return [rest for name, rest in instructions() if name == keyword]


DEFAULTS = dict(value.split("=") for value in values("ARG"))


def test_it_has_a_python_that_is_supported() -> None:
    assert values("FROM") == ["python:${PYTHON}-slim"]
    supported = re.search(r"needs Python ([\d., or]+);", LAUNCH)
    assert supported
    assert DEFAULTS["PYTHON"] in re.findall(r"3\.\d+", supported[1])


def test_it_installs_what_the_readme_recommends_for_a_cpu() -> None:
    (install,) = (run for run in values("RUN") if "apt-get install" in run)
    packages = [word for word in shlex.split(install.split("apt-get install")[1].split("&&")[0]) if word[0] != "-"]
    assert all(f"`{package}`" in README for package in packages)
    assert packages == ["g++", "libjpeg-dev"]


def test_it_installs_by_launch_sh_and_runs_the_first_command_of_the_readme() -> None:
    *_, last = values("RUN")
    assert last == './launch.sh "--$FLAVOR"'
    assert f"--{DEFAULTS['FLAVOR']} | --cuda | --tpu)" in LAUNCH
    place = values("WORKDIR")[0]
    (entry,), command = (json.loads(values(name)[0]) for name in ("ENTRYPOINT", "CMD"))
    assert entry == f"{place}/launch.sh"
    assert os.access(ROOT / "launch.sh", os.X_OK)
    commands = re.findall(r"^\./launch\.sh (.*)$", README, re.M)
    assert commands[:2] == [" ".join(command), "test"]
    order = [name for name, _ in instructions()]
    assert order.index("USER") < order.index("COPY") < len(order) - 1 - order[::-1].index("RUN"), "nothing runs as root"


def test_what_is_left_out_is_what_git_ignores_and_no_file_of_the_project() -> None:
    patterns = (ROOT / ".dockerignore").read_text().split()
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    local = [line for line in ignored if not line.startswith("experiments/")]  # a few pages, at most
    assert set(local) <= {pattern.removeprefix("**/") for pattern in patterns}
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        pytest.skip("not a git checkout")
    for file in done.stdout.splitlines():
        parents = [file, *map(str, pathlib.PurePosixPath(file).parents)]
        hits = [p for p in patterns if any(fnmatch.fnmatch(path, p.removeprefix("**/")) for path in parents)]
        assert not hits, file


def test_a_devcontainer_is_the_container_with_the_checkout_in_its_place() -> None:
    content = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    place, variables = values("WORKDIR")[0], dict(word.split("=") for word in values("ENV")[0].split())
    assert (ROOT / ".devcontainer" / content["build"]["dockerfile"]).resolve() == ROOT / "Dockerfile"
    assert content["build"]["args"].keys() <= DEFAULTS.keys()
    assert content["workspaceFolder"] == place
    assert f",target={place}," in content["workspaceMount"]
    (user,) = values("USER")
    assert any(f"useradd --uid {user} --create-home {content['remoteUser']} " in run for run in values("RUN"))
    assert content["postCreateCommand"] == f"./launch.sh --{content['build']['args']['FLAVOR']}"
    python = content["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert python == f"{variables['CNNJAX_VENV']}/bin/python"
