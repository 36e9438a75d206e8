"""Runs in a process of their own that is killed, or whose disk is full."""

import dataclasses
import json
import pathlib
import random
import shutil
import subprocess
import time

import pytest

from cnnjax import config as configs
from cnnjax.config import Config
from cnnjax.runs import checkpoint
from tests import tiny


def last_line(folder: pathlib.Path) -> str:
    path = folder / "metrics.jsonl"
    return path.read_text().rpartition("}")[0].rpartition("\n")[2] + "}" if path.exists() else "}"


def last_step(folder: pathlib.Path) -> int:
    line = last_line(folder)
    return 0 if line == "}" else json.loads(line)["step"]


def being_saved(folder: pathlib.Path) -> bool:
    return any(folder.glob("checkpoints/*.orbax-checkpoint-tmp*"))


def kill(process: subprocess.Popen, folder: pathlib.Path, steps: int, seconds: float) -> set[str]:
    """Kills a run so many seconds after so many more steps of it were written down; 0 steps: after its start.

    With 0 seconds, as soon as it is seen to save. Returns what the run was doing, by what it left: a slow disk
    still saves while the run trains or validates.
    """
    before = last_step(folder)
    while process.poll() is None and last_step(folder) < (steps and before // 10 * 10 + steps):
        time.sleep(0.01)
    while not seconds and process.poll() is None and not being_saved(folder):
        time.sleep(0.001)
    time.sleep(seconds)
    process.kill()
    tiny.wait(process)
    if (folder / "result.json").exists():
        return {"done"}
    if last_step(folder) == before:
        return {"starting"}
    validating = '"train/' in last_line(folder) and last_step(folder) % 10 == 0
    return {"validating" if validating else "training"} | ({"saving"} if being_saved(folder) else set())


def killed_like_whole(
    config: Config, tmp_path: pathlib.Path, digits_dir: str, kills: list[tuple[int, float]]
) -> set[str]:
    """Asserts that a run killed at each of these instants ends like one never killed; returns what it was doing."""
    whole, killed, phases = tmp_path / "whole", tmp_path / "killed", set()
    status, _, err = tiny.wait(tiny.start(config, whole, digits_dir, XLA_FLAGS=""))
    assert status == 0, err
    for steps, seconds in kills:
        doing = kill(tiny.start(config, killed, digits_dir, XLA_FLAGS=""), killed, steps, seconds)
        print(f"killed while {' and '.join(sorted(doing))}, step {last_step(killed)}")
        phases |= doing
    status, _, err = tiny.wait(tiny.start(config, killed, digits_dir, XLA_FLAGS=""))
    assert status == 0, err
    total = configs.to_steps(config.duration, epoch=1)
    assert tiny.digest(killed, total) == tiny.digest(whole, total)
    assert tiny.metrics_of(killed) == tiny.metrics_of(whole)
    assert not (killed / "damaged").exists()
    assert not list(killed.glob("checkpoints/*tmp*"))
    return phases


def test_a_run_killed_twice_ends_bit_for_bit_like_one_never_killed(digits_dir: str, tmp_path: pathlib.Path) -> None:
    watched = {"schedule": "plateau(patience=2)", "early_stop": "early_stop(patience=300)"}
    changes = {"checkpoint_every": "5 steps", "eval_every": "10 steps", "duration": "300 steps"} | watched
    killed_like_whole(tiny.config(**tiny.EVERYTHING | changes), tmp_path, digits_dir, [(20, 0.02), (100, 0.1)])


@pytest.mark.slow
def test_a_run_killed_twenty_times_ends_bit_for_bit_like_one_never_killed(
    digits_dir: str, tmp_path: pathlib.Path
) -> None:
    config = tiny.config(
        model="lenet5", augment="resize(28)|pad_crop(2)", preprocess="resize(28)", train_split="train[:90%]",
        val_split="train", test_split="test", schedule="one_cycle", ema=0.99, duration="1000 steps", batch_size=64,
        eval_batch_size=8, log_every="5 steps", checkpoint_every="10 steps", eval_every="10 steps", keep_checkpoints=2,
        freeze="^c[13]", unfreeze="^c3:100 steps ^c1:250 steps",
    )  # fmt: skip
    rng = random.Random(0)
    starting = [(0, rng.uniform(0, 12)) for _ in range(4)]
    training = [(rng.randrange(5, 45, 10), 0.001) for _ in range(4)]  # at a step that ends in 5, far from a validation
    validating = [(rng.randrange(10, 50, 10), 0.001) for _ in range(3)]
    anywhere = [(rng.randrange(5, 45, 5), rng.uniform(0.01, 0.3)) for _ in range(4)]
    kills = starting + training + validating + anywhere + [(5, 0)] * 5
    rng.shuffle(kills)
    phases = killed_like_whole(config, tmp_path, digits_dir, kills)
    assert {"training", "validating", "saving"} <= phases
    assert "done" not in phases


def test_a_full_disk_is_one_line_and_the_run_goes_on_later(digits_dir: str, tmp_path: pathlib.Path) -> None:
    folder, config = tmp_path / "run", tiny.config(model="mlp(features=(1000,))", checkpoint_every="4 steps")
    tiny.run(folder, digits_dir, **dataclasses.asdict(config))
    expected = tiny.digest(folder, 8), tiny.metrics_of(folder)
    shutil.rmtree(folder / "checkpoints" / "00000008")
    kept = tiny.digest(folder, 4)
    limited = ("bash", "-c", 'ulimit -f 100; exec "$@"', "bash")  # no file may be larger than 100 KiB
    status, _, err = tiny.wait(tiny.start(config, folder, digits_dir, before=limited, JAX_ENABLE_COMPILATION_CACHE="0"))
    assert status == 1
    assert err.startswith(f"error: cannot save in {folder / 'checkpoints'}: ")
    assert err.count("\n") == 1
    assert checkpoint.steps(folder) == [4]
    assert tiny.digest(folder, 4) == kept
    tiny.run(folder, digits_dir, **dataclasses.asdict(config))
    assert (tiny.digest(folder, 8), tiny.metrics_of(folder)) == expected
