"""`push` and `pull` by huggingface_hub itself, which talks over HTTP to a stand-in for the Hub."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.hub.fakes import Hub, serving

pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "runs" / "kept" / "whitened" / "run"
CODE = """
import json, os, sys
from cnnjax import cli
for words in json.loads(sys.argv[1]):
    os.environ.update({word.partition("=")[0]: word.partition("=")[2] for word in words if word.startswith("HF_")})
    print("status", cli.main([word for word in words if not word.startswith("HF_")]), flush=True)
"""


def commands(endpoint: str, folder: pathlib.Path, *lines: str) -> tuple[list[str], list[str]]:
    """Runs commands in one process; words that begin with HF_ are variables. Returns the lines of stdout and stderr."""
    variables = {
        "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    words = json.dumps([line.split(" ") for line in lines])
    done = subprocess.run(
        [sys.executable, "-c", CODE, words], env=os.environ | variables, cwd=folder, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_a_run_goes_to_the_hub_and_comes_back(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("huggingface_hub")
    run = shutil.copytree(KEPT, tmp_path / "run")
    hub = Hub()
    with serving(hub) as (endpoint, unknown):
        out, errors = commands(
            endpoint,
            tmp_path,
            "HF_TOKEN=write push run hf:ada/digits --public",
            "push run hf:ada/digits --public",  # once more, into what is there
            "pull hf:ada/digits",
            "pull hf:ada/digts",
            "pull hf:ada/digits@nowhere --to=x",
            "push run hf:eve/digits",
            "HF_TOKEN=wrong push run hf:ada/other",
        )
    assert [line for line in out if line.startswith("status")] == [f"status {n}" for n in (0, 0, 0, 1, 1, 1, 1)]
    reasons = [line for line in errors if line.startswith("error: ")]
    assert reasons == [
        "error: hf:ada/digts: there is no such repository, or your token may not read it; did you mean "
        "'hf:ada/digits'? valid: hf:ada/digits",
        "error: hf:ada/digits@nowhere: there is no such branch, tag or commit",
        "error: hf:eve/digits: your token may not do this: valid: ada",
        "error: hf:ada/other: the Hub rejects your token, or requires one: run `hf auth login`, or set HF_TOKEN",
    ]
    assert unknown == []
    assert not hub.repositories["ada/digits"].is_private
    fetched = tmp_path / "runs" / "digits"
    names = {path.relative_to(fetched) for path in fetched.rglob("*") if path.is_file()}
    assert names == {path.relative_to(run) for path in run.rglob("*") if path.is_file()} | {pathlib.Path("README.md")}
    assert all((fetched / name).read_bytes() == (run / name).read_bytes() for name in names if name.name != "README.md")


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("huggingface_hub")
    shutil.copytree(KEPT, tmp_path / "run")
    lines = ("HF_TOKEN=write push run hf:ada/digits", "pull hf:ada/digits")
    _, errors = commands("http://127.0.0.1:9", tmp_path, *lines)
    reasons = [line for line in errors if line.startswith("error: ")]
    assert len(reasons) == 2
    assert all(reason.startswith("error: hf:ada/digits: the Hub cannot be reached or read: ") for reason in reasons)
