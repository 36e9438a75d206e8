"""Runs on several devices: the numbers of one device, and what does not divide among them."""

import pathlib
from typing import Any

import pytest

from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation.evaluate import evaluate
from tests import tiny


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        (tiny.EVERYTHING, 1e-5),
        ({"model": "cifar_resnet20(depth=8)", "duration": "4 steps"}, 1e-4),
        ({"model": "mlp(features=(16, 8), norm='batch', ghost_batch_size=4)", "duration": "4 steps"}, 1e-4),
        (tiny.MONITORED | {"zero_1": True, "duration": "10 steps"}, 1e-4),  # later a rounding may decide when it stops
    ],
    ids=["mlp", "batchnorm", "ghost batchnorm", "watched"],
)
def test_eight_devices_give_what_one_gives(
    changes: dict, tolerance: float, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    changes = {"log_every": "1 steps"} | changes
    for devices in (1, 8):
        tiny.run(tmp_path / str(devices), digits_dir, devices, **changes)
    one, eight = (tiny.metrics_of(tmp_path / str(devices)) for devices in (1, 8))
    for line, other in zip(one, eight, strict=True):
        assert other == pytest.approx(line, rel=10 * tolerance)
    tiny.assert_close(tiny.variables(tmp_path / "8"), tiny.variables(tmp_path / "1"), tolerance)
    if "ema" in changes:  # half on one number of devices, half on another
        for before, after in ((1, 8), (8, 1)):
            folder = tmp_path / f"{before} then {after}"
            tiny.interrupt(folder, digits_dir, 3, before, **changes)
            tiny.run(folder, digits_dir, after, **changes)
            tiny.assert_close(tiny.variables(folder), tiny.variables(tmp_path / "1"), tolerance)


def test_a_run_goes_on_from_one_mesh_to_another(digits_dir: str, tmp_path: pathlib.Path) -> None:
    """Every step has the same batch, wherever it is computed, so the numbers are those of one device throughout."""
    settings: dict[str, Any] = tiny.EVERYTHING | {"model": "mlp(features=(16, 8), dropout=0.5)", "val_split": ""}
    settings["log_every"] = "1 steps"
    turns: list[tuple[int, dict[str, Any]]] = [
        (1, {}),
        (8, {"mesh": "data=4,model=2", "zero_1": True}),
        (2, {"mesh": "model=2"}),
    ]
    one, moved = tmp_path / "one", tmp_path / "moved"
    tiny.run(one, digits_dir, **settings)
    for number, (devices, changes) in enumerate(turns, start=1):
        if number < len(turns):
            tiny.interrupt(moved, digits_dir, 2 * number, devices, **settings, **changes)
        else:
            tiny.run(moved, digits_dir, devices, **settings, **changes)
    tiny.assert_close(tiny.variables(moved), tiny.variables(one), 1e-5)
    for line, other in zip(tiny.metrics_of(one), tiny.metrics_of(moved), strict=True):
        assert other == pytest.approx(line, rel=1e-4)
    found = evaluate(moved, data_dir=digits_dir, mesh=sharding.make_mesh(text="data=4,model=2"))
    assert found["loss"] == pytest.approx(tiny.metrics_of(one)[-1]["test/loss"], rel=1e-4)


def test_what_a_device_holds_is_said(digits_dir: str, tmp_path: pathlib.Path) -> None:
    changes: dict[str, Any] = {"model": "mlp(features=(4096,))", "mesh": "data=4,model=2", "zero_1": True}
    lines: list[str] = []
    tiny.run(tmp_path / "run", digits_dir, 8, lines, **changes, optimizer="sgd(momentum=0.9)", duration="1 steps")
    params, halves = 64 * 4096 + 4096 + 4096 * 10 + 10, (64 * 4096 + 4096) / 2
    held, state = 4 * (params - halves) / 2**20, (4 * (halves + 4096 * 10) / 4 + 40 + 4) / 2**20
    line = f"each device holds {held:.1f} MiB of parameters and {state:.1f} MiB of optimizer state"
    assert line in lines


def test_a_batch_that_does_not_divide_among_the_devices_is_an_error(digits_dir: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="a batch of 12 is not divisible among 8 devices"):
        tiny.run(tmp_path / "run", digits_dir, 8, batch_size=24, grad_accum_steps=2)
    assert not (tmp_path / "run").exists()
