"""Resumed runs: interrupted, damaged or with other settings, they end with the same bits."""

import functools
import json
import pathlib
import re
import shutil
import signal
from typing import Any

import pytest

from cnnjax import config as configs
from cnnjax import sealed
from cnnjax.data import statistics
from cnnjax.errors import InputError
from cnnjax.evaluation.evaluate import evaluate
from cnnjax.runs import checkpoint, history, supervise, workdir
from cnnjax.runs.duration import training_seconds
from tests import tiny


@pytest.mark.parametrize(
    ("changes", "stops"),
    [
        ({}, (1,)),
        ({"val_split": "", "test_split": ""}, (7,)),
        (tiny.EVERYTHING, (3, 4)),
        (
            tiny.EVERYTHING | {"cache": "host", "augment": "random_crop(7)|flip_lr", "preprocess": "center_crop(7)"},
            (2, 5),
        ),
        (tiny.BATCHNORM, (2, 3)),
        (tiny.EVERYTHING | {"steps_per_call": 3, "log_every": "3 steps"}, (3, 6)),
        (tiny.MONITORED, (2, 5)),
        (tiny.MONITORED | {"steps_per_call": 4, "eval_every": "2 steps", "log_every": "2 steps"}, (2, 6)),
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
    changes: dict, stops: tuple[int, ...], digits_dir: str, tmp_path: pathlib.Path
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    changes = {"log_every": "1 steps"} | changes  # a line of several steps would begin anew at the stop
    expected = tiny.run(whole, digits_dir, **changes)
    for step in stops:
        assert tiny.interrupt(stopped, digits_dir, step, **changes).signal == signal.SIGTERM
        assert checkpoint.steps(stopped)[-1] == step
        assert not (stopped / "result.json").exists()
    got = tiny.run(stopped, digits_dir, **changes)
    assert tiny.digest(stopped, expected["step"]) == tiny.digest(whole, expected["step"])
    assert tiny.metrics_of(stopped) == tiny.metrics_of(whole)
    assert tiny.numbers(got) == tiny.numbers(expected)


def test_a_finished_run_is_left_as_it_is(digits_dir: str, tmp_path: pathlib.Path) -> None:
    first = tiny.run(tmp_path, digits_dir)
    before = tiny.metrics_of(tmp_path), tiny.digest(tmp_path, 8)
    file = tmp_path / "result.json"
    result, written = file.read_bytes(), file.stat().st_mtime_ns
    assert sum(first["loop_seconds"].values()) > 0
    for cache in ("device", "host"):
        again = tiny.run(tmp_path, digits_dir, cache=cache)
        assert (tiny.metrics_of(tmp_path), tiny.digest(tmp_path, 8)) == before
        assert again == first
        assert (file.read_bytes(), file.stat().st_mtime_ns) == (result, written)
    file.write_bytes(b"damaged")
    assert tiny.numbers(tiny.run(tmp_path, digits_dir)) == tiny.numbers(first) == tiny.numbers(sealed.read_json(file))


def test_lines_of_a_lost_attempt_and_half_lines_are_cut(digits_dir: str, tmp_path: pathlib.Path) -> None:
    tiny.run(tmp_path, digits_dir)
    expected = tiny.metrics_of(tmp_path), tiny.digest(tmp_path, 8)
    for step in (6, 8):
        shutil.rmtree(tmp_path / "checkpoints" / f"{step:08d}")  # as if killed after step 4 was saved
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "ep')
    result = tiny.run(tmp_path, digits_dir)
    assert (tiny.metrics_of(tmp_path), tiny.digest(tmp_path, 8)) == expected
    lines = supervise.read_metrics(tmp_path)
    assert result["seconds"] == round(training_seconds(lines, tiny.config().batch_size), 1)  # of both attempts
    assert next(line["step"] for line in lines if "train/images_per_second" in line) < 4


def test_training_goes_on_from_the_newest_intact_checkpoint(digits_dir: str, tmp_path: pathlib.Path) -> None:
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    tiny.run(whole, digits_dir, **tiny.EVERYTHING)
    shutil.copytree(whole, damaged)
    (damaged / "checkpoints" / "00000008" / "digest" / "metadata").write_text("{}")
    shutil.rmtree(damaged / "checkpoints" / "00000006" / "optimizer")
    lines: list[str] = []
    assert evaluate(damaged, data_dir=digits_dir, log=lines.append)["step"] == 6  # the optimizer is not read
    assert "00000008 is damaged" in lines[0]
    tiny.run(damaged, digits_dir, **tiny.EVERYTHING)
    assert tiny.digest(damaged, 8) == tiny.digest(whole, 8)
    assert tiny.metrics_of(damaged) == tiny.metrics_of(whole)
    assert sorted(path.name for path in (damaged / "damaged").iterdir()) == ["00000006-0", "00000008-0"]
    assert evaluate(damaged, data_dir=digits_dir, log=pytest.fail)["step"] == 8


FREE = {"mesh": "data=1", "zero_1": True, "cache": "host", "eval_batch_size": 7, "eval_every": "3 steps",
        "checkpoint_every": "5 steps", "keep_checkpoints": 1, "log_every": "4 steps"}  # fmt: skip


def test_settings_of_what_is_said_and_kept_may_change_and_no_others(digits_dir: str, tmp_path: pathlib.Path) -> None:
    assert set(FREE) == set(configs.RESUMABLE)
    whole, other = tmp_path / "whole", tmp_path / "other"
    tiny.run(whole, digits_dir, **tiny.EVERYTHING)
    tiny.interrupt(other, digits_dir, 3, **tiny.EVERYTHING)
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    message = r"other holds a run with another config: lr = 0.05 there, 0.1 now, seed = 0 there, 3 now\."
    with pytest.raises(InputError, match=message):
        tiny.run(other, digits_dir, **tiny.EVERYTHING | {"lr": 0.1, "seed": 3})
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before
    tiny.run(other, digits_dir, **tiny.EVERYTHING | FREE)
    assert tiny.digest(other, 8) == tiny.digest(whole, 8)
    assert configs.load(other / "config.json").keep_checkpoints == 1


@pytest.mark.parametrize("duration", ["40 steps", "50 steps"])
@pytest.mark.parametrize("name", ["schedule", "early_stop"])
def test_a_run_that_follows_its_evaluations_keeps_their_period(
    name: str, duration: str, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    settings: dict[str, Any] = {name: tiny.MONITORED[name], "eval_every": "1 steps", "duration": "40 steps"}
    tiny.interrupt(tmp_path, digits_dir, 2, **settings)
    message = "eval_every = '1 steps' there, '2 steps' now, which its plateau schedule or early stopping follows."
    other: dict[str, Any] = settings | {"eval_every": "2 steps", "duration": duration}
    with pytest.raises(InputError, match=message):
        tiny.run(tmp_path, digits_dir, **other)
    rest: dict[str, Any] = settings | FREE | {"eval_every": "1 steps", "duration": "3 steps"}
    assert tiny.run(tmp_path, digits_dir, **rest)["step"] == 3


def test_a_folder_that_is_no_runs_is_left_alone(digits_dir: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="is not empty and not a run's folder; pass another --workdir"):
        tiny.run(tmp_path, digits_dir)
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis.tex"]


def test_a_run_killed_before_its_first_file_was_whole_starts_anew(digits_dir: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json.part").write_text('{"mod')
    assert tiny.run(tmp_path, digits_dir, duration="1 steps")["step"] == 1


def test_a_training_that_is_refused_writes_nothing_in_the_folder_of_another(
    digits_dir: str, tmp_path: pathlib.Path
) -> None:
    tiny.run(tmp_path, digits_dir, duration="4 steps")
    for path in (tmp_path / "checkpoints" / "00000004").rglob("_METADATA"):
        path.write_text("")  # a damaged checkpoint is set aside
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with workdir.claim(tmp_path, configs.load(tmp_path / "config.json")):
        during = {path: path.read_bytes() for path in before}
        with pytest.raises(InputError, match="is in use: another training is running in it"):
            tiny.run(tmp_path, digits_dir, duration="4 steps", keep_checkpoints=3)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == during
    assert tiny.run(tmp_path, digits_dir, duration="4 steps", keep_checkpoints=3)["step"] == 4


def test_metrics_of_steps_to_be_taken_again_are_removed(tmp_path: pathlib.Path) -> None:
    with history.MetricsWriter(tmp_path, 0, leader=True) as log:
        for step in (1, 2):
            log.write(step, 0.1, "train", {"loss": 1.0})
    with history.MetricsWriter(tmp_path, 1, leader=True):
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("name", ["lock", "config.json.part", "data.json.part", "metrics.jsonl.part"])
def test_no_link_in_a_folder_is_followed(name: str, digits_dir: str, tmp_path: pathlib.Path) -> None:
    run, victim = tmp_path / "run", tmp_path / "victim"
    tiny.run(run, digits_dir, duration="2 steps")
    victim.write_text("precious")
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim)
    if name == "lock":
        with pytest.raises(InputError, match=r"run/lock cannot be opened: Too many levels of symbolic links"):
            tiny.run(run, digits_dir, duration="2 steps")
    else:
        tiny.run(run, digits_dir, duration="2 steps")
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize("val_split", ["", "test[:64]"])
def test_the_newest_and_the_best_by_the_written_metrics_are_kept(
    keep: int, val_split: str, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    tiny.run(
        tmp_path,
        digits_dir,
        keep_checkpoints=keep,
        val_split=val_split,
        eval_every="2 steps",
        lr=0.5,
        duration="12 steps",
    )
    scores = {line["step"]: line["val/accuracy"] for line in tiny.metrics_of(tmp_path) if "val/accuracy" in line}
    best = max(scores, key=lambda step: (scores[step], step)) if scores else None
    assert checkpoint.best(tmp_path) == best
    assert set(checkpoint.steps(tmp_path)) == {*(12, 10)[:keep], best} - {None}
    if best:
        found = evaluate(tmp_path, step="best", split="test[:64]", data_dir=digits_dir)
        assert (found["step"], found["accuracy"]) == (best, scores[best])


def test_the_statistics_of_a_run_are_computed_once_for_the_same_data(
    digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = functools.partial(tiny.run, tmp_path, digits_dir, duration="2 steps", normalize="mean_image")
    run()
    content = workdir.read_json(tmp_path / "data.json")
    computed: list[Any] = []
    derive = statistics.derive
    monkeypatch.setattr(statistics, "derive", lambda *args: computed.append(args) or derive(*args))
    run()
    assert not computed
    wrong = [content | {"of": content["of"] | {name: value}, "mean": [9.0]}
             for name, value in {"split": "train", "augment": "resize(9)"}.items()]  # fmt: skip
    texts = [*map(json.dumps, [*wrong, {"mean": [9.0]}, []]), "{"]
    for number, text in enumerate(texts, start=1):
        (tmp_path / "data.json").write_text(text)
        lines: list[str] = []
        run(lines=lines)
        assert any("data.json or statistics.npz is damaged, and is recomputed" in line for line in lines)
        assert len(computed) == number
        assert workdir.read_json(tmp_path / "data.json") == content
    (tmp_path / "statistics.npz").unlink()  # with the mean image, which the normalization needs
    run()
    assert len(computed) == number + 1
    assert (tmp_path / "statistics.npz").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"of": {"dataset": "digits/0.9.0"}},
            "the data set 'digits' had version 0.9.0 in the training, and has 1.0.0 now. A",
        ),
        (
            {"of": {"bytes": {"train": 1, "test": 1}}},
            "the data set 'digits' was rebuilt since the training: its file sizes di",
        ),
        (
            {"classes": list("abcdefghij")},
            "was rebuilt since the training: class 0 was 'a' and is now '0'. A run resumes",
        ),
        ({"classes": list("0123")}, "was rebuilt since the training: it had 4 classes and now has 10. A run"),
    ],
)
def test_a_data_set_that_was_built_again_is_not_trained_on(
    change: dict[str, Any], message: str, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    tiny.run(tmp_path, digits_dir, duration="2 steps")
    content = workdir.read_json(tmp_path / "data.json")
    workdir.write_json(tmp_path / "data.json", content | change | {"of": content["of"] | change.get("of", {})})
    text = (tmp_path / "data.json").read_text()
    with pytest.raises(InputError, match=re.escape(message)):
        tiny.run(tmp_path, digits_dir, duration="2 steps")
    assert (tmp_path / "data.json").read_text() == text
    lines: list[str] = []
    if "classes" not in change:  # with other names it is an error
        evaluate(tmp_path, data_dir=digits_dir, log=lines.append)
        assert message.partition(". ")[0] in lines[0]


def test_checkpoints_that_cannot_be_written_are_one_error(digits_dir: str, tmp_path: pathlib.Path) -> None:
    tiny.run(tmp_path, digits_dir, duration="1 steps")
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(InputError, match=f"cannot save in {tmp_path / 'checkpoints'}: "):
        tiny.run(tmp_path, digits_dir, duration="1 steps")
