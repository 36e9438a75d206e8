"""Check that runs in folders of earlier versions go on, are scored, and predict as they did.

The folders in `kept` were written by commit 6724c55, on eight devices: `plateau` and `unfreeze` were stopped by SIGTERM
halfway, `whitened` is finished. `expected.json` beside each has what that commit made of a copy of it. The last
bits of `unfreeze`, which has batch normalizations, are those of oneDNN, which computes them since.
"""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from cnnjax.cli import main

ROOT = pathlib.Path(__file__).resolve().parents[2]
KEPT = pathlib.Path(__file__).parent / "kept"
PARTS = ("model", "optimizer")
STOPPED, FINISHED = ("plateau", "unfreeze"), ("whitened",)

Arrays = dict[str, np.ndarray]


@pytest.fixture(params=STOPPED + FINISHED)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def expected(name: str) -> dict[str, Any]:
    """Read what the old commit made of the folder."""
    return json.loads((KEPT / name / "expected.json").read_text())


@pytest.fixture
def run(name: str, tmp_path: pathlib.Path) -> pathlib.Path:
    """Copy the folder, so that it stays as it is."""
    return pathlib.Path(shutil.copytree(KEPT / name / "run", tmp_path / "run"))


def read(folder: pathlib.Path, step: int) -> dict[str, Arrays]:
    """Read the arrays of a checkpoint with Orbax alone: of each part, by path."""
    found = {}
    for part in PARTS:
        item = (folder / "checkpoints" / f"{step:08d}" / part).absolute()
        handler: Any = ocp.PyTreeCheckpointHandler()
        wanted = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(item).tree)
        with ocp.Checkpointer(handler) as reader:
            tree = reader.restore(item, args=ocp.args.PyTreeRestore(restore_args=wanted))
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        found[part] = {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x) for path, x in leaves}
    return found


def recorded(folder: pathlib.Path, step: int) -> dict[str, Any]:
    """Read the record of types, shapes, and CRC-32s that stands beside the arrays of a checkpoint."""
    sealed = json.loads((folder / "checkpoints" / f"{step:08d}" / "digest" / "metadata").read_text())
    return {part: sealed[part]["arrays"] for part in PARTS}


def crcs(parts: dict[str, Arrays]) -> dict[str, Any]:
    """Compute that record anew."""
    return {
        part: {path: [str(x.dtype), list(x.shape), zlib.crc32(x.tobytes())] for path, x in arrays.items()}
        for part, arrays in parts.items()
    }


def digest(parts: dict[str, Arrays]) -> str:
    """Compute one SHA-256 of all arrays, their types, and their shapes, in the order of their paths."""
    flat = {f"{part}/{path}": x for part, arrays in parts.items() for path, x in arrays.items()}
    each = []
    for path in sorted(flat):
        head = json.dumps([str(flat[path].dtype), list(flat[path].shape)]).encode()
        each.append([path, hashlib.sha256(head + flat[path].tobytes()).hexdigest()])
    return hashlib.sha256(json.dumps(each).encode()).hexdigest()


def processor() -> dict[str, Any]:
    """Describe what the last bits of a result depend on, beside the program."""
    path = pathlib.Path("/proc/cpuinfo")
    text = path.read_text() if path.exists() else ""
    model, flags = (re.search(rf"^{name}\s*: (.*)$", text, re.MULTILINE) for name in ("model name", "flags"))
    return {
        "model": model and model[1],
        "flags": flags and hashlib.sha256(flags[1].encode()).hexdigest()[:16],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "jaxlib": importlib.metadata.version("jaxlib"),
    }


def metrics_of(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Read what a run wrote down as it went, without its speed."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "per_second" not in key} for line in lines]


def test_a_kept_run_is_whole(expected: dict[str, Any], run: pathlib.Path) -> None:
    step = expected["restored"]["step"]
    parts = read(run, step)
    assert digest(parts) == expected["restored"]["sha256"]
    assert crcs(parts) == recorded(run, step)


def test_a_kept_run_goes_on_as_it_did(name: str, expected: dict[str, Any], run: pathlib.Path, digits_dir: str) -> None:
    """In a process that compiles as a user's does: the compiler flags of the other tests change the last bits."""
    flags = os.environ.get("XLA_FLAGS", "").replace("--xla_backend_optimization_level=0", "")
    command = [sys.executable, "-m", "cnnjax", "train", f"--workdir={run}", f"--data_dir={digits_dir}"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed, final = done.stdout, expected["final"]
    assert f"resuming from step {expected['restored']['step']}" in printed
    assert "damaged" not in printed
    result = json.loads((run / "result.json").read_text())
    assert result["step"] == final["step"]
    for key in ("accuracy", "top5", "loss"):
        assert result[key] == pytest.approx(final[key], abs=1e-3), key
    known = [(line["step"], line.keys()) for line in expected["metrics"]]
    lines = [line for line in metrics_of(run) if (line["step"], line.keys()) in known]  # checkpoints write one since
    assert [line.keys() for line in lines] == [line.keys() for line in expected["metrics"]]
    for line, other in zip(lines, expected["metrics"], strict=True):
        assert line == pytest.approx(other, abs=1e-3)

    parts = read(run, final["step"])
    assert crcs(parts) == recorded(run, final["step"])
    with np.load(KEPT / name / "expected" / "final.npz") as saved:
        assert saved.keys() == {f"model/{path}" for path in parts["model"]}
        for path, array in parts["model"].items():
            np.testing.assert_allclose(array, saved[f"model/{path}"], rtol=1e-4, atol=1e-4, err_msg=path)
    if name in FINISHED or processor() == expected["processor"]:
        assert digest(parts) == final["sha256"]


def test_a_kept_run_is_scored_as_it_was(expected: dict[str, Any], run: pathlib.Path, digits_dir: str) -> None:
    step = expected["evaluate"]["step"]
    assert main(["evaluate", f"--workdir={run}", f"--step={step}", f"--data_dir={digits_dir}"]) == 0
    (path,) = run.glob("evaluations/*/metrics.json")
    found = json.loads(path.read_text())
    assert (found["step"], found["count"]) == (step, expected["evaluate"]["count"])
    for key in ("accuracy", "top5", "loss"):
        assert found[key] == pytest.approx(expected["evaluate"][key], abs=1e-5), key


def test_a_kept_run_predicts_what_it_did(
    name: str, expected: dict[str, Any], run: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = "best" if name in FINISHED else "last"
    image = KEPT / name / "expected" / "digit.png"
    assert main(["predict", f"--workdir={run}", f"--step={step}", "--json", "--top=3", str(image)]) == 0
    found = json.loads(capsys.readouterr().out)["top"]
    assert [one["class"] for one in found] == [one for one, _ in expected["predict"]]
    assert [one["probability"] for one in found] == pytest.approx([p for _, p in expected["predict"]], abs=1e-4)
