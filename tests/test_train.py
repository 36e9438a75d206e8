"""Training: stopped, killed, moved to other devices or damaged, it ends where it would have ended."""

import contextlib
import csv
import dataclasses
import functools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from rich.console import Console

from cnnjax import augment, optim
from cnnjax import config as configs
from cnnjax.config import Config
from cnnjax.data import build, images, statistics, transforms
from cnnjax.data.build import load
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation.scoring import evaluate
from cnnjax.models import airbench, blocks, create_model
from cnnjax.runs import checkpoint, workdir
from cnnjax.training import loop

ROOT = pathlib.Path(__file__).resolve().parents[1]

SMALL = {
    "model": "mlp(features=(16,))",
    "train_split": "train[:96]",
    "val_split": "test[:64]",
    "test_split": "test[64:101]",
    "duration": "8 steps",
    "batch_size": 16,
    "eval_batch_size": 32,
    "lr": 0.05,
    "log_every": "2 steps",
    "eval_every": "4 steps",
    "checkpoint_every": "2 steps",
    "keep_checkpoints": 9,
}
EVERYTHING = {
    "model": "mlp(features=(16,), dropout=0.5)",
    "augment": "pad_crop(1)|flip_lr|flip_alternating",
    "normalize": "mean_image",
    "repeated_augment": 2,
    "grad_accum_steps": 2,
    "optimizer": "adamw",
    "schedule": "one_cycle",
    "weight_decay": 1e-3,
    "lr_factors": "bias$:2",
    "grad_clip_norm": 1.0,
    "ema": 0.9,
}
WATCHED: dict[str, Any] = {
    "optimizer": "sgd(momentum=0.9)|lookahead(every=2)",
    "sam_rho": 0.05,
    "grad_accum_steps": 2,
    "lr": 0.5,
    "schedule": "plateau(patience=0, metric='loss', warmup='2 steps')",
    "early_stop": "early_stop(patience=3, metric='loss')",
    "eval_every": "1 steps",
    "duration": "40 steps",
}
OFTEN: dict[str, Any] = WATCHED | {"log_every": "1 steps"}
DEEP = 'mlp(features=(16, 16), activation="relu")'
BATCHNORM = {"model": "cifar_resnet20(depth=8)"}


def small(**changes: Any) -> Config:
    return Config(**(SMALL | changes))


def run(folder: pathlib.Path, digits_dir: str, devices: int = 1, **changes: Any) -> dict[str, Any]:
    config = small(**changes)
    mesh = sharding.make_mesh(jax.devices()[:devices], config.mesh)
    return loop.train(config, folder, data_dir=digits_dir, mesh=mesh)


def digest(folder: pathlib.Path, step: int) -> dict[str, Any]:
    """Type, shape and checksum of every array of a checkpoint: the same for the same bits."""
    path = folder / "checkpoints" / f"{step:08d}" / "digest" / "metadata"
    return {part: json.loads(path.read_text())[part] for part in ("model", "optimizer")}


def metrics_of(folder: pathlib.Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "train/images_per_second"} for line in lines]


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """What a run returns, without what differs from one to the next."""
    return {name: value for name, value in result.items() if name not in ("seconds", "loop_seconds", "folder")}


def variables(folder: pathlib.Path, shape: tuple[int, ...] = (8, 8, 1)) -> dict[str, np.ndarray]:
    """The newest parameters and statistics of a run, by path."""
    config = configs.load(folder / "config.json")
    init = functools.partial(create_model(config.model, 10, config.dtype).init, train=False)
    abstract = jax.eval_shape(init, jax.random.key(0), np.zeros((1, *shape)))
    params = abstract.pop("params")
    tree = {"params": params, "model_state": abstract, "ema": params if optim.keeps_average(config) else {}}
    whole = sharding.replicated(sharding.make_mesh(jax.devices()[:1]))
    tree = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), tree)
    _, found = checkpoint.restore_model(folder, tree, "last", pytest.fail)
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(found)}


def assert_close(a: dict[str, np.ndarray], b: dict[str, np.ndarray], tolerance: float) -> None:
    """Equal but for the order of summation, relative to the largest element of each array."""
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=tolerance * (np.abs(b[name]).max() + 1e-3), err_msg=name)


def send_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Sends a signal to this process after a step."""
    advance = loop.Bar.advance

    def signalling(self: Any, now: int) -> None:
        advance(self, now)
        if now == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(loop.Bar, "advance", signalling)


# ------------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize(
    ("changes", "stops"),
    [
        ({}, (1,)),
        ({"val_split": "", "test_split": ""}, (7,)),
        (EVERYTHING, (3, 4)),
        (EVERYTHING | {"cache": "host", "augment": "random_crop(7)|flip_lr", "preprocess": "center_crop(7)"}, (2, 5)),
        (BATCHNORM | {"duration": "4 steps"}, (2, 3)),
        (EVERYTHING | {"steps_per_call": 3, "log_every": "3 steps"}, (3, 6)),
        (WATCHED, (2, 5)),
        (WATCHED | {"steps_per_call": 4, "eval_every": "2 steps", "log_every": "2 steps"}, (2, 6)),
    ],
    ids=[
        "plain",
        "no evaluation",
        "everything",
        "from the host",
        "batchnorm",
        "several steps in one call",
        "watched",
        "several watched steps",
    ],
)
def test_a_stopped_run_ends_bit_for_bit_like_one_never_stopped(
    changes: dict, stops: tuple[int, ...], digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    changes = {"log_every": "1 steps"} | changes  # a line of several steps would begin anew at the stop
    expected = run(whole, digits_dir, **changes)
    for step in stops:
        with monkeypatch.context() as patch:
            send_at(patch, step)
            with pytest.raises(loop.Interrupted, match=f"stopped after step {step}; the state is saved") as caught:
                run(stopped, digits_dir, **changes)
        assert caught.value.signal == signal.SIGTERM
        assert checkpoint.steps(stopped)[-1] == step
        assert not (stopped / "result.json").exists()
    got = run(stopped, digits_dir, **changes)
    assert digest(stopped, expected["step"]) == digest(whole, expected["step"])
    assert metrics_of(stopped) == metrics_of(whole)
    assert numbers(got) == numbers(expected)


def test_a_finished_run_is_left_as_it_is(digits_dir: str, tmp_path: pathlib.Path) -> None:
    for cache in ("device", "host"):
        first = run(tmp_path, digits_dir, cache=cache)
        before = metrics_of(tmp_path), digest(tmp_path, 8)
        again = run(tmp_path, digits_dir, cache=cache)
        assert (metrics_of(tmp_path), digest(tmp_path, 8)) == before
        assert numbers(first) == numbers(again)


def test_a_plateau_lowers_the_rate_and_an_early_stop_is_an_end(
    digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces, step_of = [], loop.train_step

    def traced(*args: Any, **kwargs: Any) -> Any:
        traces.append(args)
        return step_of(*args, **kwargs)

    monkeypatch.setattr(loop, "train_step", traced)
    first = run(tmp_path, digits_dir, **OFTEN)
    lines = metrics_of(tmp_path)
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

    before = digest(tmp_path, first["step"])
    again = run(tmp_path, digits_dir, **OFTEN)
    assert (metrics_of(tmp_path), digest(tmp_path, first["step"])) == (lines, before)
    assert numbers(again) == numbers(first)
    assert len(traces) == 1


def test_lines_of_a_lost_attempt_and_half_lines_are_cut(digits_dir: str, tmp_path: pathlib.Path) -> None:
    run(tmp_path, digits_dir)
    expected = metrics_of(tmp_path), digest(tmp_path, 8)
    for step in (6, 8):
        shutil.rmtree(tmp_path / "checkpoints" / f"{step:08d}")  # as if killed after step 4 was saved
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "ep')
    run(tmp_path, digits_dir)
    assert (metrics_of(tmp_path), digest(tmp_path, 8)) == expected


def test_training_goes_on_from_the_newest_intact_checkpoint(
    digits_dir: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    run(whole, digits_dir, **EVERYTHING)
    shutil.copytree(whole, damaged)
    (damaged / "checkpoints" / "00000008" / "digest" / "metadata").write_text("{}")
    shutil.rmtree(damaged / "checkpoints" / "00000006" / "optimizer")
    lines: list[str] = []
    assert evaluate(damaged, data_dir=digits_dir, say=lines.append)["step"] == 6  # the optimizer is not read
    assert "00000008 is damaged" in lines[0]
    run(damaged, digits_dir, **EVERYTHING)
    assert digest(damaged, 8) == digest(whole, 8)
    assert metrics_of(damaged) == metrics_of(whole)
    assert sorted(path.name for path in (damaged / "damaged").iterdir()) == ["00000006-0", "00000008-0"]
    assert evaluate(damaged, data_dir=digits_dir, say=pytest.fail)["step"] == 8


FREE = {"mesh": "data=1", "zero_1": True, "cache": "host", "eval_batch_size": 7, "eval_every": "3 steps",
        "checkpoint_every": "5 steps", "keep_checkpoints": 1, "log_every": "4 steps"}  # fmt: skip


def test_settings_of_what_is_said_and_kept_may_change_and_no_others(
    digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(FREE) == set(configs.RESUMABLE)
    whole, other = tmp_path / "whole", tmp_path / "other"
    run(whole, digits_dir, **EVERYTHING)
    with monkeypatch.context() as patch:
        send_at(patch, 3)
        with pytest.raises(loop.Interrupted):
            run(other, digits_dir, **EVERYTHING)
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    message = r"other is the run of another config: lr = 0.05 there, 0.1 now, seed = 0 there, 3 now\."
    with pytest.raises(InputError, match=message):
        run(other, digits_dir, **EVERYTHING | {"lr": 0.1, "seed": 3})
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before
    run(other, digits_dir, **EVERYTHING | FREE)
    assert digest(other, 8) == digest(whole, 8)
    assert configs.load(other / "config.json").keep == 1


def test_a_folder_that_is_no_runs_is_left_alone(digits_dir: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is not empty and not a run's folder; give another --workdir"):
        run(tmp_path, digits_dir)
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis.tex"]


def test_a_run_killed_before_its_first_file_was_whole_starts_anew(digits_dir: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json.part").write_text('{"mod')
    assert run(tmp_path, digits_dir, duration="1 steps")["step"] == 1


def test_two_trainings_do_not_share_a_folder(tmp_path: pathlib.Path) -> None:
    with workdir.MetricsWriter(tmp_path, 0, leader=True) as log:
        log.write(1, 0.1, "train", {"loss": 1.0})
        with pytest.raises(InputError, match="is in use"):
            workdir.MetricsWriter(tmp_path, 0, leader=True)
    with workdir.MetricsWriter(tmp_path, 1, leader=True):
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("val_split", ["", "test[:64]"])
def test_the_newest_and_the_best_by_the_written_metrics_are_kept(
    keep: int, val_split: str, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    run(
        tmp_path,
        digits_dir,
        keep_checkpoints=keep,
        val_split=val_split,
        eval_every="2 steps",
        lr=0.5,
        duration="12 steps",
    )
    scores = {line["step"]: line["val/accuracy"] for line in metrics_of(tmp_path) if "val/accuracy" in line}
    best = max(scores, key=lambda step: (scores[step], step)) if scores else None
    assert checkpoint.best(tmp_path) == best
    assert set(checkpoint.steps(tmp_path)) == {*(12, 10)[:keep], best} - {None}
    if best:
        found = evaluate(tmp_path, step="best", split="test[:64]", data_dir=digits_dir)
        assert (found["step"], found["accuracy"]) == (best, scores[best])


# ------------------------------------------------------------------------------------------------------------- killed


def command(config: Config, folder: pathlib.Path, digits_dir: str) -> list[str]:
    path = folder.with_name(folder.name + "-config.json")
    path.write_text(json.dumps(dataclasses.asdict(config)))
    args = ["train", f"--config={path}", f"--workdir={folder}", f"--data_dir={digits_dir}"]
    return [sys.executable, "-m", "cnnjax", *args]


def start(
    config: Config, folder: pathlib.Path, digits_dir: str, devices: int = 1, before: tuple[str, ...] = (), **env: str
) -> subprocess.Popen:
    return subprocess.Popen(
        [*before, *command(config, folder, digits_dir)],
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen, seconds: float = 240) -> tuple[int, str, str]:
    """Status, output and errors of a process, which is killed when it takes too long."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def last_line(folder: pathlib.Path) -> str:
    path = folder / "metrics.jsonl"
    return path.read_text().rpartition("}")[0].rpartition("\n")[2] + "}" if path.exists() else "}"


def last_step(folder: pathlib.Path) -> int:
    line = last_line(folder)
    return 0 if line == "}" else json.loads(line)["step"]


def being_saved(folder: pathlib.Path) -> bool:
    return any(folder.glob("checkpoints/*.orbax-checkpoint-tmp*"))


def kill(process: subprocess.Popen, folder: pathlib.Path, steps: int, seconds: float) -> str:
    """Kills a run so many seconds after so many more steps of it were written down; 0 steps: after its start.

    With 0 seconds, as soon as it is seen to save. Returns what the run was doing, by what it left.
    """
    before = last_step(folder)
    while process.poll() is None and last_step(folder) < (steps and before // 10 * 10 + steps):
        time.sleep(0.01)
    while not seconds and process.poll() is None and not being_saved(folder):
        time.sleep(0.001)
    time.sleep(seconds)
    process.kill()
    ended(process)
    if (folder / "result.json").exists():
        return "done"
    if last_step(folder) == before:
        return "starting"
    if being_saved(folder):
        return "saving"
    return "validating" if '"train/' in last_line(folder) and last_step(folder) % 10 == 0 else "training"


def killed_like_whole(
    config: Config, tmp_path: pathlib.Path, digits_dir: str, kills: list[tuple[int, float]]
) -> list[str]:
    """Asserts that a run killed at each of these instants ends like one never killed; returns what it was doing."""
    whole, killed, phases = tmp_path / "whole", tmp_path / "killed", []
    status, _, err = ended(start(config, whole, digits_dir))
    assert status == 0, err
    for steps, seconds in kills:
        phases.append(kill(start(config, killed, digits_dir), killed, steps, seconds))
        print(f"killed while {phases[-1]}, step {last_step(killed)}")
    status, _, err = ended(start(config, killed, digits_dir))
    assert status == 0, err
    total = configs.steps(config.duration, epoch=1)
    assert digest(killed, total) == digest(whole, total)
    assert metrics_of(killed) == metrics_of(whole)
    assert not (killed / "damaged").exists()
    assert not list(killed.glob("checkpoints/*tmp*"))
    return phases


def test_a_run_killed_twice_ends_bit_for_bit_like_one_never_killed(digits_dir: str, tmp_path: pathlib.Path) -> None:
    watched = {"schedule": "plateau(patience=2)", "early_stop": "early_stop(patience=300)"}
    changes = {"checkpoint_every": "5 steps", "eval_every": "10 steps", "duration": "300 steps"} | watched
    killed_like_whole(small(**EVERYTHING | changes), tmp_path, digits_dir, [(20, 0.02), (100, 0.1)])


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_bit_for_bit_like_one_never_killed(
    digits_dir: str, tmp_path: pathlib.Path
) -> None:
    config = small(
        model="lenet5", augment="resize(28)|pad_crop(2)", preprocess="resize(28)", train_split="train[:90%]",
        val_split="train", test_split="test", schedule="one_cycle", ema=0.99, duration="1000 steps", batch_size=64,
        eval_batch_size=8, log_every="5 steps", checkpoint_every="10 steps", eval_every="10 steps", keep_checkpoints=2,
    )  # fmt: skip
    rng = random.Random(0)
    starting = [(0, rng.uniform(0, 12)) for _ in range(4)]
    kills = starting + [(rng.randrange(5, 45, 5), rng.uniform(0.01, 0.3)) for _ in range(11)] + [(5, 0)] * 5
    rng.shuffle(kills)
    phases = killed_like_whole(config, tmp_path, digits_dir, kills)
    assert {"training", "validating", "saving"} <= set(phases)
    assert "done" not in phases


# ------------------------------------------------------------------------------------------- devices and processes


@pytest.mark.parametrize(
    ("changes", "tolerance"),
    [
        (EVERYTHING, 1e-5),
        (BATCHNORM | {"duration": "4 steps"}, 1e-4),
        ({"model": "cifar_resnet20(depth=8, ghost=4)", "duration": "4 steps"}, 1e-4),
        (WATCHED | {"zero_1": True, "duration": "10 steps"}, 1e-4),  # later a rounding may decide when it stops
    ],
    ids=["mlp", "batchnorm", "ghost batchnorm", "watched"],
)
def test_eight_devices_give_what_one_gives(
    changes: dict, tolerance: float, digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"log_every": "1 steps"} | changes
    for devices in (1, 8):
        run(tmp_path / str(devices), digits_dir, devices, **changes)
    one, eight = (metrics_of(tmp_path / str(devices)) for devices in (1, 8))
    for line, other in zip(one, eight, strict=True):
        assert other == pytest.approx(line, rel=10 * tolerance)
    assert_close(variables(tmp_path / "8"), variables(tmp_path / "1"), tolerance)
    if "ema" in changes:  # half on one number of devices, half on another
        for before, after in ((1, 8), (8, 1)):
            folder = tmp_path / f"{before} then {after}"
            with monkeypatch.context() as patch:
                send_at(patch, 3)
                with pytest.raises(loop.Interrupted):
                    run(folder, digits_dir, before, **changes)
            run(folder, digits_dir, after, **changes)
            assert_close(variables(folder), variables(tmp_path / "1"), tolerance)


def test_a_run_goes_on_from_one_mesh_to_another(
    digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every step has the same batch, wherever it is computed, so the numbers are those of one device throughout."""
    settings: dict[str, Any] = EVERYTHING | {"model": "mlp(features=(16, 8), dropout=0.5)", "val_split": ""}
    settings["log_every"] = "1 steps"
    turns: list[tuple[int, dict[str, Any]]] = [
        (1, {}),
        (8, {"mesh": "data=4,model=2", "zero_1": True}),
        (2, {"mesh": "model=2"}),
    ]
    one, moved = tmp_path / "one", tmp_path / "moved"
    run(one, digits_dir, **settings)
    for number, (devices, changes) in enumerate(turns, start=1):
        with monkeypatch.context() as patch, contextlib.ExitStack() as stack:
            if number < len(turns):
                send_at(patch, 2 * number)
                stack.enter_context(pytest.raises(loop.Interrupted))
            run(moved, digits_dir, devices, **settings, **changes)
    assert_close(variables(moved), variables(one), 1e-5)
    for line, other in zip(metrics_of(one), metrics_of(moved), strict=True):
        assert other == pytest.approx(line, rel=1e-4)
    found = evaluate(moved, data_dir=digits_dir, mesh=sharding.make_mesh(text="data=4,model=2"))
    assert found["loss"] == pytest.approx(metrics_of(one)[-1]["test/loss"], rel=1e-4)


def test_a_batch_that_does_not_divide_into_groups_is_an_error(digits_dir: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="a batch of 8 does not divide into the network's ghost batches of 16"):
        run(tmp_path / "run", digits_dir, model="cifar_resnet20(ghost=16)", grad_accum_steps=2)
    assert not (tmp_path / "run").exists()


def test_what_a_device_holds_is_said(digits_dir: str, tmp_path: pathlib.Path) -> None:
    changes: dict[str, Any] = {"model": "mlp(features=(4096,))", "mesh": "data=4,model=2", "zero_1": True}
    with (tmp_path / "said").open("w") as said:
        config = small(**changes, optimizer="sgd(momentum=0.9)", duration="1 steps")
        loop.train(config, tmp_path / "run", data_dir=digits_dir, console=Console(file=said, width=999))
    params, halves = 64 * 4096 + 4096 + 4096 * 10 + 10, (64 * 4096 + 4096) / 2
    held, state = 4 * (params - halves) / 2**20, (4 * (halves + 4096 * 10) / 4 + 40 + 4) / 2**20
    line = f"each device holds {held:.1f} MiB of parameters and {state:.1f} MiB of the optimizer's state\n"
    assert line in (tmp_path / "said").read_text()


def test_a_batch_that_does_not_divide_among_the_devices_is_an_error(digits_dir: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="a batch of 12 is not divisible among 8 devices"):
        run(tmp_path / "run", digits_dir, 8, batch_size=24, grad_accum_steps=2)
    assert not (tmp_path / "run").exists()


def several(
    config: Config,
    folder: pathlib.Path,
    digits_dir: str,
    devices: int = 1,
    before: Sequence[tuple[str, ...]] = ((), ()),
) -> list[subprocess.Popen]:
    """Starts two processes of one run, without a launcher."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    env: dict[str, Any] = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
    return [start(config, folder, digits_dir, devices, before[i], **env, JAX_PROCESS_ID=str(i)) for i in range(2)]


def first(code: str) -> tuple[str, ...]:
    """What comes before a command of ours, so that its Python runs this code first."""
    rest = "sys.argv = sys.argv[3:]; runpy.run_module('cnnjax', run_name='__main__', alter_sys=True)"
    return (sys.executable, "-c", f"import os, runpy, sys; {code}; {rest}")


def said(out: str) -> list[str]:
    return [line for line in out.splitlines() if not line.startswith("[Gloo]")]  # which its library prints


def wait_for_checkpoint(folder: pathlib.Path, processes: list[subprocess.Popen]) -> None:
    while not checkpoint.steps(folder):
        assert all(process.poll() is None for process in processes), [ended(process) for process in processes]
        time.sleep(0.1)


SLOWLY = {"lr": 0.001}  # at which batch normalisation lets a rounding grow to 1e-6 in 50 steps, not to 1e-2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "places", "tolerance"),
    [
        (EVERYTHING, {}, 1e-5),
        (EVERYTHING, {"mesh": "data=8", "zero_1": True}, 1e-5),
        (EVERYTHING, {"mesh": "data=1,model=8"}, 1e-5),
        (BATCHNORM | SLOWLY, {}, 1e-4),
    ],
    ids=["mlp", "zero", "model", "batchnorm"],
)
def test_two_processes_give_what_one_gives(
    changes: dict[str, Any], places: dict[str, Any], tolerance: float, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    changes = changes | {"duration": "50 steps", "log_every": "1 steps"}
    changes |= {"eval_every": "25 steps", "checkpoint_every": "25 steps"}
    run(tmp_path / "1", digits_dir, 1, **changes)
    run(tmp_path / "8", digits_dir, 8, **changes)
    two, changes = tmp_path / "two", changes | places
    results = [ended(process) for process in several(small(**changes), two, digits_dir, devices=4)]
    assert [(status, err) for status, _, err in results] == [(0, "")] * 2
    assert "50 steps of 16 on 8 cpu device(s)" in results[0][1]
    assert said(results[1][1]) == []  # one process speaks for both
    assert json.loads((two / "versions.json").read_text())["processes"] == 2
    assert json.loads((two / "result.json").read_text())["step"] == 50
    assert checkpoint.steps(two) == [25, 50]
    for folder in (tmp_path / "8", two):
        assert_close(variables(folder), variables(tmp_path / "1"), tolerance)
        for line, other in zip(metrics_of(tmp_path / "1"), metrics_of(folder), strict=True):
            assert other == pytest.approx(line, rel=10 * tolerance)


@pytest.mark.slow
def test_two_processes_stop_together_and_one_goes_on(digits_dir: str, tmp_path: pathlib.Path) -> None:
    config = small(**EVERYTHING, duration="600 steps", eval_every="200 steps", checkpoint_every="50 steps")
    processes = several(config, tmp_path / "run", digits_dir)
    wait_for_checkpoint(tmp_path / "run", processes)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    results = [ended(process) for process in processes]
    assert [(status, err) for status, _, err in results] == [(128 + signal.SIGTERM, "")] * 2
    step = checkpoint.steps(tmp_path / "run")[-1]
    assert f"stopped after step {step}; the state is saved" in results[0][1]
    assert said(results[1][1]) == []
    status, out, err = ended(start(config, tmp_path / "run", digits_dir, devices=2))
    assert status == 0, err
    assert f"going on from step {step}" in out.replace(",", "")
    assert checkpoint.steps(tmp_path / "run")[-1] == 600


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "number"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (0, signal.SIGSTOP), (1, signal.SIGSTOP)]
)
def test_without_one_of_its_processes_a_run_ends_and_can_go_on(
    victim: int, number: int, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    """Killed, a process closes its connections; stopped, it leaves them open and is silent, as a host that is gone."""
    config = small(val_split="", duration="400 steps", checkpoint_every="20 steps", log_every="20 steps")
    quick = first("from cnnjax import processes; processes.HEARTBEAT_SECONDS = 10")
    processes = several(config, tmp_path, digits_dir, before=(quick, quick))
    wait_for_checkpoint(tmp_path, processes)
    processes[victim].send_signal(number)
    begun = time.monotonic()
    status, _, err = ended(processes[1 - victim], seconds=60)
    assert time.monotonic() - begun < 30
    assert status != 0
    last = err.splitlines()[-1]
    assert re.fullmatch(
        rf"error: .*(process {1 - victim} of 2, on .*)?another process .*, and the run goes on", last
    ), err
    processes[victim].kill()
    ended(processes[victim])
    status, out, err = ended(start(config, tmp_path, digits_dir))
    assert (status, err) == (0, "")
    assert "going on from step " in out


@pytest.mark.slow
def test_a_process_that_fails_alone_ends_the_run(digits_dir: str, tmp_path: pathlib.Path) -> None:
    """Each host with a disk of its own: process 1 sees another folder, and process 0 must not wait for it."""
    quick = "from cnnjax import processes, workdir; processes.HEARTBEAT_SECONDS, workdir.SYNC_SECONDS = 10, 1"
    before = []
    for disk in (tmp_path / "0", tmp_path / "1"):
        disk.mkdir()
        before.append(first(f"{quick}; os.chdir({str(disk)!r}); sys.argv.append('--workdir=run')"))
    begun = time.monotonic()
    config = small(val_split="", duration="2000 steps")
    zero, one = [ended(process) for process in several(config, tmp_path / "run", digits_dir, before=before)]
    assert time.monotonic() - begun < 60
    assert (one[0], said(one[1])) == (1, [])
    assert re.fullmatch(r"error: process 1, on .*, does not see .*/1/run as process 0 does: the processes .*\n", one[2])
    assert zero[0] != 0


@pytest.mark.slow
def test_a_process_to_which_no_others_come_says_so(digits_dir: str, tmp_path: pathlib.Path) -> None:
    before = first("from cnnjax import processes; processes.JOIN_SECONDS = 3")
    zero, one = several(small(), tmp_path / "run", digits_dir, before=((), before))
    zero.kill()
    ended(zero)
    status, _, err = ended(one, seconds=60)
    assert status != 0
    expected = r"error: process 1 of 2, on .*, could not join the others at localhost:\d+ within 3 s, or was killed"
    assert re.fullmatch(expected, err.splitlines()[-1])
    assert not (tmp_path / "run").exists()


# -------------------------------------------------------------------------------------------------- what goes wrong


def test_training_stops_at_a_loss_that_is_not_finite(digits_dir: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(FloatingPointError, match=r"at step [23]$|by step [123]$"):
        run(
            tmp_path, digits_dir, model='mlp(features=(16, 16), activation="relu")', lr=1e30, checkpoint_every="1 steps"
        )
    assert checkpoint.steps(tmp_path) == [1]
    for step in checkpoint.steps(tmp_path):
        shutil.copytree(tmp_path, copy := tmp_path.with_name(f"{tmp_path.name}-{step}"))
        for later in checkpoint.steps(copy):
            if later > step:
                shutil.rmtree(copy / "checkpoints" / f"{later:08d}")
        assert all(np.isfinite(array).all() for array in variables(copy).values())


def test_images_of_a_size_that_the_network_does_not_take_are_an_error_before_training(
    digits_dir: str, tmp_path: pathlib.Path
) -> None:
    cases: list[tuple[dict[str, Any], int]] = [({"preprocess": "resize(9)"}, 9), ({"model": "lenet5_1998"}, 8)]
    for changes, size in cases:
        with pytest.raises(InputError, match=rf"does not take images of \({size}, {size}, 1\): "):
            run(tmp_path, digits_dir, **changes)
        assert not checkpoint.steps(tmp_path)


def test_parameters_that_are_not_finite_are_not_saved(
    digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of a step is still finite when its update overflows."""
    step_of = loop.train_step

    def overflowing(state: Any, *args: Any, **kwargs: Any) -> Any:
        new, sums = step_of(state, *args, **kwargs)
        grown = jax.tree.map(lambda x: jnp.where(state.step == 3, jnp.inf, 1) * x, new.params)
        return dataclasses.replace(new, params=grown), sums

    monkeypatch.setattr(loop, "train_step", overflowing)
    with pytest.raises(FloatingPointError, match="hidden1/bias became infinite or NaN by step 4"):
        run(tmp_path, digits_dir)
    assert checkpoint.steps(tmp_path) == [2]
    assert all(np.isfinite(array).all() for array in variables(tmp_path).values())


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(digits_dir: str, tmp_path: pathlib.Path) -> None:
    folder, config = tmp_path / "run", small(model="mlp(features=(1000,))", checkpoint_every="4 steps")
    run(folder, digits_dir, **dataclasses.asdict(config))
    expected = digest(folder, 8), metrics_of(folder)
    shutil.rmtree(folder / "checkpoints" / "00000008")
    kept = digest(folder, 4)
    limited = ("bash", "-c", 'ulimit -f 100; exec "$@"', "bash")  # no file may be larger than 100 KiB
    status, _, err = ended(start(config, folder, digits_dir, before=limited, JAX_ENABLE_COMPILATION_CACHE="0"))
    assert status == 1
    assert err.startswith(f"error: cannot save in {folder / 'checkpoints'}: ")
    assert err.count("\n") == 1
    assert checkpoint.steps(folder) == [4]
    assert digest(folder, 4) == kept
    run(folder, digits_dir, **dataclasses.asdict(config))
    assert (digest(folder, 8), metrics_of(folder)) == expected


def test_checkpoints_that_cannot_be_written_are_one_error(digits_dir: str, tmp_path: pathlib.Path) -> None:
    run(tmp_path, digits_dir, duration="1 steps")
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(InputError, match=f"cannot save in {tmp_path / 'checkpoints'}: "):
        run(tmp_path, digits_dir, duration="1 steps")


# ------------------------------------------------------------------------------------------- how it is dispatched


@pytest.mark.parametrize(
    ("start", "total", "periods", "most", "ends"),
    [
        (0, 4, [100], 1, [1, 2, 3, 4]),
        (0, 10, [100], 4, [4, 8, 10]),
        (0, 10, [5, 100], 4, [4, 5, 9, 10]),
        (3, 10, [2.5], 32, [5, 8, 10]),  # every 2.5 steps: what is due at 7.5 is at 8
        (0, 7, [3, 2], 32, [2, 3, 4, 6, 7]),
        (7, 7, [3], 4, []),
    ],
)
def test_a_group_of_steps_ends_where_something_is_due(
    start: int, total: int, periods: list[float], most: int, ends: list[int]
) -> None:
    groups = list(loop._groups(start, total, periods, most))
    assert [group.stop for group in groups] == ends
    assert [step for group in groups for step in group] == list(range(start, total))


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("dispatch", [3, 32])
def test_several_steps_in_one_call_give_what_single_ones_give(
    dispatch: int, devices: int, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    for number in (1, dispatch):
        changes: dict[str, Any] = {**EVERYTHING, "log_every": "3 steps", "steps_per_call": number}
        run(tmp_path / str(number), digits_dir, devices, **changes)
    one, several = (metrics_of(tmp_path / str(number)) for number in (1, dispatch))
    for line, other in zip(one, several, strict=True):
        assert other == pytest.approx(line, rel=1e-5)  # XLA rounds otherwise inside its loop
    assert_close(variables(tmp_path / str(dispatch)), variables(tmp_path / "1"), 1e-6)


def test_a_loss_that_is_not_finite_is_named_by_its_step_within_a_group(
    digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step_of = loop.train_step

    def failing(state: Any, *args: Any, **kwargs: Any) -> Any:
        new, sums = step_of(state, *args, **kwargs)
        return new, sums | {"loss": jnp.where(state.step == 4, jnp.nan, sums["loss"])}

    monkeypatch.setattr(loop, "train_step", failing)
    every: dict[str, Any] = {"log_every": "8 steps", "checkpoint_every": "8 steps", "eval_every": "8 steps"}
    with pytest.raises(FloatingPointError, match="the loss became nan at step 5"):
        run(tmp_path, digits_dir, steps_per_call=8, **every)


def test_several_steps_in_one_call_need_the_split_in_device_memory(digits_dir: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(
        InputError, match=r"config.steps_per_call = 2: the training split is not in device memory; use 0"
    ):
        run(tmp_path / "run", digits_dir, steps_per_call=2, cache="host")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["input", "step", "dispatch", "evaluation", "saving"])
def test_what_limits_a_run_is_said_at_its_end(
    part: str, digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(function: Any, seconds: float) -> Any:
        def slow(*args: Any, **kwargs: Any) -> Any:
            time.sleep(seconds)
            return function(*args, **kwargs)

        return slow

    if part == "input":
        monkeypatch.setattr(loop.pipeline, "order", slowly(loop.pipeline.order, 0.4))
    elif part == "step":
        monkeypatch.setattr(loop.jax, "block_until_ready", slowly(jax.block_until_ready, 0.4))
    elif part == "steps_per_call":
        monkeypatch.setattr(loop.Bar, "advance", slowly(loop.Bar.advance, 0.4))
    elif part == "evaluation":
        make = loop.make_scorer
        monkeypatch.setattr(loop, "make_scorer", lambda *args: slowly(make(*args), 3))
    else:
        monkeypatch.setattr(checkpoint.Saver, "finish", slowly(checkpoint.Saver.finish, 1))
    with (tmp_path / "said").open("w") as said:
        config = small(val_split="", log_every="8 steps", checkpoint_every="4 steps")
        result = loop.train(config, tmp_path / "run", data_dir=digits_dir, console=Console(file=said, width=999))
    line = next(line for line in (tmp_path / "said").read_text().splitlines() if line.startswith("limited by"))
    assert line.startswith(f"limited by: {part} ({part} ")
    assert max(result["loop_seconds"], key=result["loop_seconds"].__getitem__) == part
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    assert sum(result["loop_seconds"].values()) <= result["seconds"] + 0.1


def test_the_statistics_of_a_run_are_computed_once_for_the_same_data(
    digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, digits_dir, duration="2 steps")
    known = workdir.read_json(tmp_path / "data.json")
    computed: list[Any] = []
    derive = statistics.derive
    monkeypatch.setattr(statistics, "derive", lambda *args: computed.append(args) or derive(*args))
    run(tmp_path, digits_dir, duration="2 steps")
    assert not computed
    changed = {"dataset": "digits/0.9.0", "bytes": {"train": 1, "test": 1}, "split": "train", "augment": "resize(9)"}
    wrong = [known | {"of": known["of"] | {name: value}, "mean": [9.0]} for name, value in changed.items()]
    texts = [*map(json.dumps, [*wrong, {"mean": [9.0]}, []]), "{"]
    for number, text in enumerate(texts, start=1):
        (tmp_path / "data.json").write_text(text)
        run(tmp_path, digits_dir, duration="2 steps")
        assert len(computed) == number
        assert workdir.read_json(tmp_path / "data.json") == known


# ------------------------------------------------------------------------------------------------------- one step


def test_accumulated_parts_give_the_update_of_the_whole(digits_dir: str, tmp_path: pathlib.Path) -> None:
    for parts in (1, 4):
        run(tmp_path / str(parts), digits_dir, grad_accum_steps=parts, log_every="1 steps")
    assert_close(variables(tmp_path / "4"), variables(tmp_path / "1"), 1e-5)
    for line, other in zip(metrics_of(tmp_path / "1"), metrics_of(tmp_path / "4"), strict=True):
        assert other == pytest.approx(line, rel=1e-4)


def test_the_moving_average_follows_its_formula(digits_dir: str, tmp_path: pathlib.Path) -> None:
    run(tmp_path, digits_dir, ema=0.3, checkpoint_every="1 steps", keep_checkpoints=99, duration="6 steps")
    history = []
    for step in reversed(checkpoint.steps(tmp_path)):
        history.insert(0, variables(tmp_path))
        shutil.rmtree(tmp_path / "checkpoints" / f"{step:08d}")
    names = [name for name in history[0] if name.startswith("['ema']")]
    assert len(names) == 4
    for name in names:
        params = name.replace("['ema']", "['params']")
        for step in range(1, 6):  # the decays are 2/11, 3/12, then 0.3
            decay = min(0.3, (1 + step) / (10 + step))
            expected = decay * history[step - 1][name].astype(np.float64) + (1 - decay) * history[step][params]
            np.testing.assert_allclose(history[step][name], expected, rtol=1e-5, atol=1e-7)


def test_bfloat16_computes_with_float32_parameters_and_learns(digits_dir: str, tmp_path: pathlib.Path) -> None:
    run(tmp_path, digits_dir, dtype="bfloat16", duration="60 steps", optimizer="sgd(momentum=0.9)")
    for part in digest(tmp_path, 60).values():
        assert {kind for kind, _, _ in part["arrays"].values()} <= {"float32", "int32"}
    losses = [line["train/loss"] for line in metrics_of(tmp_path) if "train/loss" in line]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ('lenet5(head="conv")', r"the network gives maps of \(2, 2, 10\); training needs logits"),
        ("lenet5(features_only=True)", "the network gives the maps c1, c3, c5, s2, s4; training needs logits"),
    ],
)
def test_a_network_that_gives_no_logits_is_an_error_before_training(
    model: str, message: str, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", digits_dir, model=model, augment="resize(32)", preprocess="resize(32)")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_auxiliary_classifiers_learn_with_their_weight(weight: float) -> None:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
            x = nn.relu(nn.Dense(8, name="shared")(x.reshape(x.shape[0], -1)))
            blocks.sow_aux_logits(self, lambda: nn.Dense(10, name="aux")(x), train)
            return nn.Dense(10, name="head")(x)

    config, key = Config(lr=0.1, aux_weight=weight), jax.random.key(0)
    parts: dict[str, Any] = {"config": config, "model": Net(), "schedule": loop.optim.build_schedule(config, 10, 100)}
    state = loop.init_state(key, shape=(4, 4, 1), **parts)
    batch = {
        "image": jax.random.normal(key, (8, 4, 4, 1)),
        **dict.fromkeys(("label", "example", "epoch"), jnp.arange(8)),
    }
    after, sums = loop.train_step(
        state, batch, key, prepare=lambda key, x, *_: x, mix=augment.build_mixing([], 10), **parts
    )

    def losses_of(params: Any) -> list[jax.Array]:
        x = nn.relu(batch["image"].reshape(8, -1) @ params["shared"]["kernel"])  # biases are 0 at first
        rows = [jax.nn.log_softmax(x @ params[name]["kernel"]) for name in ("head", "aux")]
        return [-row[jnp.arange(8), batch["label"]].mean() for row in rows]

    gradients = jax.grad(lambda params: jnp.dot(jnp.array(losses_of(params)), jnp.array([1.0, weight])))(state.params)
    for name, gradient in gradients.items():
        moved = after.params[name]["kernel"] - state.params[name]["kernel"]
        np.testing.assert_allclose(moved, -0.1 * gradient["kernel"], rtol=1e-4, atol=1e-6)
    assert np.any(after.params["aux"]["kernel"] != state.params["aux"]["kernel"]) == (weight > 0)
    assert after.model_state == {}
    assert float(sums["loss"]) == pytest.approx(8 * float(losses_of(state.params)[0]), rel=1e-5)  # without the others


def test_a_step_learns_from_mixed_images_and_targets() -> None:
    """The loss is that of the mixed target; hits are counted by the label."""
    config, key = Config(lr=0.0), jax.random.key(0, impl="rbg")
    schedule = loop.optim.build_schedule(config, 10, 100)
    parts: dict[str, Any] = {"config": config, "model": create_model("mlp(features=())", 10), "schedule": schedule}
    state = loop.init_state(key, shape=(4, 4, 1), **parts)
    images, labels = jax.random.normal(key, (8, 4, 4, 1)), jnp.arange(8)
    batch = {"image": images, **dict.fromkeys(("label", "example", "epoch"), labels)}

    def mix(key: jax.Array, images: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        target = jax.nn.one_hot(label, 10)
        return 0.75 * images + 0.25 * images[::-1], 0.75 * target + 0.25 * target[::-1]

    _, sums = loop.train_step(state, batch, key, prepare=lambda key, x, *_: x, mix=mix, **parts)
    mixed, target = mix(key, images, labels)
    logits = parts["model"].apply(state.variables, mixed, train=False)
    assert float(sums["loss"]) == pytest.approx(float(-(target * jax.nn.log_softmax(logits)).sum()), rel=1e-5)
    assert int(sums["accuracy"]) == int((logits.argmax(axis=1) == labels).sum())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_mixes_and_scores_whole_images(digits_dir: str, tmp_path: pathlib.Path, accumulate: int) -> None:
    changes: dict[str, Any] = {
        "augment": "flip_lr|mixup(0.8)|cutmix",
        "grad_accum_steps": accumulate,
        "duration": "2 steps",
    }
    assert run(tmp_path / "run", digits_dir, **changes)["loss"] > 0
    with pytest.raises(InputError, match=r"'mixup' mixes the images of a training batch: its place is config.augment"):
        run(tmp_path / "other", digits_dir, preprocess="mixup(0.8)")
    assert not (tmp_path / "other").exists()


def test_dropout_differs_from_step_to_step_and_follows_the_seed() -> None:
    model = create_model("mlp(features=(64,), dropout=0.5)", 10)
    images, labels = jnp.ones((4, 8, 8, 1)), jnp.arange(4)
    config = Config(lr=0.0)
    parts: dict[str, Any] = {"config": config, "model": model, "schedule": loop.optim.build_schedule(config, 1, 9)}
    state = loop.init_state(jax.random.key(0), shape=(8, 8, 1), **parts)
    step = functools.partial(loop.train_step, prepare=lambda key, x, *_: x, mix=augment.build_mixing([], 10), **parts)
    batch = {"image": images, "label": labels, "example": labels, "epoch": labels}

    def loss(seed: int, at: int) -> float:
        return float(step(dataclasses.replace(state, step=jnp.int32(at)), batch, jax.random.key(seed))[1]["loss"])

    assert loss(0, 1) == loss(0, 1)
    assert len({loss(0, 1), loss(0, 2), loss(1, 1)}) == 3


@pytest.mark.parametrize("devices", [1, 8])
def test_a_network_is_primed_with_the_first_images_once(devices: int, digits_dir: str, tmp_path: pathlib.Path) -> None:
    settings = {
        "model": "airbench94(features=(8, 8, 8))",
        "augment": "resize(32)|pad_crop(2)",
        "preprocess": "resize(32)",
    }
    run(tmp_path, digits_dir, devices, duration="1 steps", train_split="train[:50]", **settings)
    split = load("digits", "train[:50]", digits_dir)
    pixels = np.stack([transforms.resize(image, 32) for image in split.read(np.arange(50))[0]]).astype(np.float32)
    expected = airbench.whitening_kernel(jnp.asarray((pixels - pixels.mean()) / pixels.std()))
    kernel = variables(tmp_path, (32, 32, 1))["['model_state']['constants']['whiten']['kernel']"]
    assert kernel.shape == (2, 2, 1, 8)
    np.testing.assert_allclose(np.abs(kernel), np.abs(expected), rtol=1e-2, atol=1e-2)  # a direction has no sign


# ------------------------------------------------------------------------------------------------------- evaluation


@pytest.fixture(scope="module")
def finished(digits_dir: str, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(folder, digits_dir, ema=0.9, duration="20 steps", val_split="test[:64]", test_split="test[:101]")
    return folder


def files(result: dict[str, Any]) -> dict[str, Any]:
    return json.loads((pathlib.Path(result["folder"]) / "metrics.json").read_text())


def test_evaluation_counts_every_image_once_whatever_the_batch_and_devices(
    finished: pathlib.Path, digits_dir: str
) -> None:
    expected = files(evaluate(finished, data_dir=digits_dir))
    assert expected["count"] == np.sum(expected["confusion"]) == 101
    for batch_size, devices in ((7, 1), (128, 1), (1000, 1), (7, 8), (1000, 8)):
        mesh = sharding.make_mesh(jax.devices()[:devices])
        got = files(evaluate(finished, batch_size=batch_size, data_dir=digits_dir, mesh=mesh))
        exact = {name for name, value in expected.items() if not isinstance(value, float)}
        assert {name: got[name] for name in exact} == {name: expected[name] for name in exact}
        for name in expected.keys() - exact:
            assert got[name] == pytest.approx(expected[name], rel=1e-5), name


@pytest.mark.parametrize(("step", "split", "group"), [("last", "", "test"), ("12", "test[:64]", "val")])
def test_evaluation_agrees_with_what_the_training_wrote(
    step: str, split: str, group: str, finished: pathlib.Path, digits_dir: str
) -> None:
    got = evaluate(finished, step=step, split=split, data_dir=digits_dir)
    line = next(line for line in metrics_of(finished) if line["step"] == got["step"] and f"{group}/loss" in line)
    assert got["loss"] == pytest.approx(line[f"{group}/loss"], rel=1e-5)
    assert {name: got[name] for name in ("accuracy", "top5")} == {
        name: line[f"{group}/{name}"] for name in ("accuracy", "top5")
    }


def test_the_files_of_an_evaluation_agree_with_one_another(finished: pathlib.Path, digits_dir: str) -> None:
    result = evaluate(finished, data_dir=digits_dir)
    written, folder = files(result), pathlib.Path(result["folder"])
    matrix = np.array(written.pop("confusion"))
    assert written == result
    with (folder / "confusion.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0][1:] == [row[0] for row in rows[1:]] == list(result["per_class"])
    assert np.array_equal([[int(x) for x in row[1:]] for row in rows[1:]], matrix)
    with (folder / "per_class.csv").open() as file:
        for number, row in enumerate(csv.DictReader(file)):
            assert (int(row["images"]), int(row["right"])) == (matrix[number].sum(), matrix[number, number])
            assert float(row["accuracy"]) == result["per_class"][row["class"]]
    assert result["top1_right"] == np.trace(matrix) == round(result["accuracy"] * 101)
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "ten_of_two", "split": "train"}, "ten_of_two has 2 classes; the network of .* 10"),
        ({"split": "nothing"}, "'nothing'"),
        ({"dataset": "large_digits", "split": "test"}, r"does not take images of \(9, 9, 1\): "),
        ({"step": "3"}, "no checkpoint of step '3'; valid: last, best, "),
    ],
)
def test_what_cannot_be_evaluated_is_named(
    options: dict[str, Any], message: str, finished: pathlib.Path, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    if name := options.get("dataset"):
        side, classes = {"ten_of_two": (8, ("no", "yes")), "large_digits": (9, "0123456789")}[name]
        for split in ("train", "test"):
            for label in classes:
                path = tmp_path / "source" / split / label / "image.png"
                path.parent.mkdir(parents=True)
                path.write_bytes(images.encode_png(np.full((side, side), 7, np.uint8)))
        build.build(name, str(tmp_path / "source"), str(tmp_path), log=lambda line: None)
        digits_dir = str(tmp_path)
    with pytest.raises(InputError, match=message):
        evaluate(finished, data_dir=digits_dir, **options)


def test_images_are_evaluated_as_other_operations_make_them(finished: pathlib.Path, digits_dir: str) -> None:
    plain, moved = (evaluate(finished, data_dir=digits_dir, preprocess=ops) for ops in (None, "shift(3, 3)"))
    assert moved["accuracy"] < plain["accuracy"]
    assert moved["preprocess"] == "shift(3, 3)"
    assert moved["folder"] == plain["folder"] + "-preprocess=shift_3_3_"  # the evaluation of before is still there
    assert pathlib.Path(plain["folder"]).exists()


def test_another_split_is_evaluated_by_its_name(finished: pathlib.Path, digits_dir: str) -> None:
    result = evaluate(finished, dataset="digits", split="train[96:196]", data_dir=digits_dir)
    assert (result["count"], result["split"], result["dataset"]) == (100, "train[96:196]", "digits")
