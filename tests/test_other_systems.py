"""Other systems than Linux on x86-64, by simulation: without what only Linux has, a training works all the same."""

import os
import pathlib
import sys
from typing import Any

import numpy as np
import pytest

from cnnjax.data import pipeline
from cnnjax.distributed.devices import visible_cores
from cnnjax.evaluation.evaluate import evaluate
from cnnjax.ops import jpeg, onednn
from cnnjax.runs import executors
from tests import tiny

CONVOLUTIONAL: dict[str, Any] = {
    "model": "sequential('conv(4, 3)|relu|max_pool(2)|gap|dense(10)')",
    "duration": "2 steps",
}


@pytest.fixture
def macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes this process look like one on macOS: without oneDNN, libjpeg, and the means to bind it to cores."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr(onednn, "load", onednn.load.__wrapped__)  # not what it found on this system
    monkeypatch.setattr(jpeg, "load", lambda: None)
    for function in ("sched_getaffinity", "sched_setaffinity"):
        monkeypatch.delattr(os, function, raising=False)


def test_a_training_and_its_evaluation_work(macos: None, digits_dir: str, tmp_path: pathlib.Path) -> None:
    lines: list[str] = []
    result = tiny.run(tmp_path / "run", digits_dir, lines=lines, **CONVOLUTIONAL)
    assert result["step"] == 2
    assert np.isfinite(result["loss"])
    assert any("XLA (oneDNN needs Linux on x86-64, not darwin on arm64)" in line for line in lines)
    scored = evaluate(tmp_path / "run", data_dir=digits_dir, log=lambda line: None)
    assert scored["accuracy"] == result["accuracy"]


def test_workers_share_the_cores_where_they_cannot_be_divided(macos: None) -> None:
    assert visible_cores() == []
    assert [worker.cores for worker in executors.divide_machine(2)] == [[], []]
    assert pipeline.cores() >= 1
