"""Plateau schedules and early stopping, which depend on earlier evaluations."""

import pathlib
from typing import Any

import pytest

from tests import tiny

OFTEN: dict[str, Any] = tiny.MONITORED | {"log_every": "1 steps"}


def test_a_plateau_lowers_the_rate_and_an_early_stop_is_an_end(
    digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = tiny.patch_step(monkeypatch, lambda before, after, sums: (after, sums))
    first = tiny.run(tmp_path, digits_dir, **OFTEN)
    lines = tiny.metrics_of(tmp_path)
    scores = {line["step"]: line["val/loss"] for line in lines if "val/loss" in line}
    rates = {line["step"]: line["train/lr"] for line in lines if "train/lr" in line}
    assert len(traces) == 1
    assert first["step"] == max(scores) < 40
    best = min(scores, key=lambda step: scores[step])
    assert first["step"] == best + 3
    assert first["stopped"].startswith("early_stop(patience=3, metric='loss'): no evaluation of the last 3 was better")
    for step in range(3, first["step"] + 1):  # the rate of a step follows the evaluations before it
        values = [scores[before] for before in range(1, step)]
        bad = sum(value >= min(values[:i]) * (1 - 1e-4) for i, value in enumerate(values) if i)
        assert rates[step] == pytest.approx(0.5 * 0.1**bad), step
    assert "test/loss" in lines[-1]

    before = tiny.digest(tmp_path, first["step"])
    again = tiny.run(tmp_path, digits_dir, **OFTEN)
    assert (tiny.metrics_of(tmp_path), tiny.digest(tmp_path, first["step"])) == (lines, before)
    assert tiny.numbers(again) == tiny.numbers(first)
    assert len(traces) == 1
