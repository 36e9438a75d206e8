"""`cnnjax sweep`: its arguments, and a whole search with fake and with real trainings."""

import json
import math
import os
import pathlib
import re
import shlex
import signal
from typing import Any

import pytest

from cnnjax import cli, config_files, register
from cnnjax.cli import sweep as sweep_command
from cnnjax.runs import supervise
from cnnjax.runs.executors import EXECUTORS
from cnnjax.sweep import report
from cnnjax.sweep.settings import Settings
from tests.runs.fakes import FakeExecutor, fails, keeps_running, learns, write_metrics, write_result

FILE = """
from cnnjax.config import Config

def get_config():
    return Config(model="mlp(features=(8,))", train_split="train[:80%]", val_split="train[80%:]", duration="2 epochs",
                  batch_size=64)

def sweep():
    return {"lr": "log(1e-3, 1)", "model.activation": ["relu", "tanh"]}
"""


@pytest.fixture
def file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mine.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return "mine.py"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "--config=FILE is missing"),
        (["--confg=mine.py", "--space.lr=[1]"], 1, "unknown flag '--confg=mine.py'; did you mean '--config'?"),
        (["--workdir=nowhere"], 2, "--config=FILE is missing, and nowhere is not a sweep's folder"),
        (["bets"], 1, "cnnjax sweep 'bets': did you mean 'best'?"),
        (["best"], 2, "the sweep's folder is missing, as in cnnjax sweep best DIR"),
        (["best", "--workdir=nowhere"], 1, "nowhere does not exist"),
        (["best", "nowhere"], 1, "nowhere does not exist"),
        (["show", "a", "b"], 2, "unexpected argument 'b': sweep show takes a sweep's folder alone"),
        (["show", "a", "--workdir=b"], 2, "unexpected argument 'a'"),
        (["show", "--workdir=x", "--config=mine.py"], 2, "unexpected argument '--config=mine.py'"),
        (["show", "x", "--confg=mine.py"], 2, "unexpected argument '--confg=mine.py'"),
        (["--config=mine.py", "--workers=0"], 1, "--workers=0: expected at least 1"),
        (["--config=mine.py", "--stall_timeout=0"], 1, "--stall_timeout=0.0: expected at least 0.01"),
        (["--config=mine.py", "--silence=0"], 1, "--stall_timeout=0.0: expected at least 0.01"),  # its former name
        (["--config=mine.py", "--trials=x"], 2, "argument --trials: invalid int value: 'x'"),
        (["--config=mine.py", "--config.lrr=4 steps"], 1, "unknown config field 'lrr'; did you mean 'lr'?"),
        (["--config=mine.py", "--space.lr"], 1, "'--space.lr': expected --space.FIELD=VALUES"),
        (["--config=mine.py", "--space.lrr=[1]"], 1, "config has no field 'lrr'; did you mean 'lr'?"),
        (["--config=mine.py", "--workrs=2"], 1, "unknown flag '--workrs=2'; did you mean '--workers'?"),
        (["--config=mine.py", "--executor=slrum"], 1, "unknown executor 'slrum'; did you mean 'slurm'?"),
        (["--config=mine.py", "--config.val_split="], 1, "config.val_split = '': a sweep compares"),
        (["--config=other.py"], 1, "there is no config file 'other.py'; did you mean 'mine.py'?"),
    ],
)
def test_wrong_arguments_are_one_line_errors(
    arguments: list[str], status: int, message: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        returned = cli.main(["sweep", *arguments])
    except SystemExit as exception:
        returned = exception.code
    error = capsys.readouterr().err
    assert (returned, error.count("\n")) == (status, 1)
    if "other.py" not in message:
        assert message in error


def test_the_leaderboard_cuts_nothing_at_80_columns() -> None:
    space = ("lr", "optimizer.weight_decay", "model.activation", "batch_size", "label_smoothing")
    values = dict(zip(space, (0.01234567, 1.23456e-5, "leaky_relu", 128, 0.123456), strict=True))
    row = {"trial": 7, "state": "complete", "accuracy": 0.9876, "evaluations": 12, "seconds": 12345.6, **values}
    settings = Settings(config={}, source="", space=dict.fromkeys(space, ""))
    lines = sweep_command._leaderboard([row], settings, 80).splitlines()
    assert max(map(len, lines)) <= 80
    for text in ("98.76%", "0.01235", "1.235e-05", "leaky_relu", "128", "0.1235", "3 h 25 min", *space):
        assert any(text in line for line in lines)


def check_search(
    file: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], trials: int, *flags: str
) -> None:
    """Searches, shows the leaderboard and the winner, and adds one trial."""

    def sweep(*arguments: str) -> str:
        assert cli.main(["sweep", *arguments]) == 0
        return capsys.readouterr().out

    output = sweep(f"--config={file}", f"--trials={trials}", "--workers=2", "--workdir=s", *flags)
    assert f"{trials} trials of lr, model.activation, 2 in parallel, in s" in output
    assert f"{trials} trials: {trials} complete" in output
    assert re.search(rf"trial {trials - 1}: accuracy \d\d\.\d\d%", output)
    assert f"{trials} trials: {trials} complete" in sweep("show", "--workdir=s")
    assert sweep("show", "--workdir=s") == sweep("show", "s")
    assert cli.main(["sweep", "s"]) == 2
    assert "s is a sweep, not a config: resume it with --workdir=s" in capsys.readouterr().err
    best = sweep("best", "s")
    assert best.startswith("cnnjax train --config=mine.py")
    config = config_files.read_config("mine.py", [word for word in shlex.split(best) if "--config." in word])
    assert config.lr in [json.loads(path.read_text())["lr"] for path in tmp_path.glob("s/trials/*/config.json")]
    assert config.model in [f"mlp(features=(8,), activation='{name}')" for name in ("relu", "tanh")]
    assert f"{trials + 1} trials: {trials + 1} complete" in sweep("--workdir=s", f"--trials={trials + 1}")


def test_a_sweep_from_the_command_line(
    file: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXECUTORS, "local", lambda workers: FakeExecutor(learns))
    check_search(file, tmp_path, capsys, 3, "--config.duration=3 epochs")
    assert json.loads((tmp_path / "s" / "sweep.json").read_text())["config"]["duration"] == "3 epochs"


def test_the_commands_that_are_printed_have_the_data_and_the_code_of_the_sweep(
    file: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXECUTORS, "local", lambda workers: FakeExecutor(learns))
    monkeypatch.setattr(register, "flags", lambda: ["--import=/net.py"])
    assert cli.main(["sweep", f"--config={file}", "--trials=1", "--workdir=s", "--data_dir=my data"]) == 0
    assert "to train the winner: cnnjax sweep best s --import=/net.py\n" in capsys.readouterr().out
    assert cli.main(["sweep", "best", "--workdir=s"]) == 0
    assert capsys.readouterr().out.endswith(" '--data_dir=my data' --import=/net.py\n")


@pytest.mark.parametrize(
    "flags", [[], ["--workers=2", "--executor=slurm(gpus=0)", "--stall_timeout=0.5"], ["--stall_timeout=90.0"]]
)
def test_the_command_that_resumes_a_sweep_has_the_flags_of_its_runs(
    flags: list[str], file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_interrupted(folder: pathlib.Path) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    for name in ("local", "slurm"):
        monkeypatch.setitem(EXECUTORS, name, lambda workers, gpus=1: FakeExecutor(is_interrupted))
    assert cli.main(["sweep", f"--config={file}", "--workdir=s", *flags]) == 128 + signal.SIGTERM
    command = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(command) == ["cnnjax", "sweep", "--workdir=s", *flags]


@pytest.mark.parametrize(
    ("flags", "counted", "ran"),
    [
        ([], "25 of 25 combinations of fold, lr", 25),
        (["--trials=2"], "2 of 25 combinations of fold, lr", 2),
        (["--trials=99"], "25 of 25 combinations of fold, lr", 25),
    ],
)
def test_a_grid_has_all_combinations_unless_trials_are_given(
    flags: list[str],
    counted: str,
    ran: int,
    file: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pathlib.Path(file).write_text(FILE.partition("def sweep")[0])
    monkeypatch.setattr(report, "write", lambda sweep: [])  # takes most of the time
    monkeypatch.setattr(supervise, "POLL_SECONDS", 0.0)
    monkeypatch.setitem(EXECUTORS, "local", lambda workers: FakeExecutor(learns))
    space = ['--space.fold=["1/5", "2/5", "3/5", "4/5", "5/5"]', "--space.lr=[0.1, 0.2, 0.3, 0.4, 0.5]"]
    assert cli.main(["sweep", f"--config={file}", *space, "--sampler=grid", "--workdir=s", *flags]) == 0
    output = capsys.readouterr().out
    assert f"{counted}, 1 in parallel, in s" in output
    assert f"{ran} trials: {ran} complete" in output


def test_cross_validation_of_a_config_with_a_validation_split(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example in the README and in --help."""
    pathlib.Path(file).write_text(FILE.partition("def sweep")[0])
    monkeypatch.setitem(EXECUTORS, "local", lambda workers: FakeExecutor(learns))
    folds = """--space.fold=["1/3", "2/3", "3/3"]"""
    assert cli.main(["sweep", f"--config={file}", folds, "--sampler=grid", "--workdir=s"]) == 0
    output = capsys.readouterr().out
    assert "each fold is cut from 'train[:80%]', and config.val_split = 'train[80%:]' is not used" in output
    assert "accuracy 100.00% ± 0.00%, the mean over 3 folds" in output
    assert cli.main(["sweep", "best", "--workdir=s"]) == 0
    assert capsys.readouterr().out == "cnnjax train --config=mine.py --config.val_split=\n"
    assert cli.main(["sweep", f"--config={file}", folds, "--config.val_split=test", "--workdir=t"]) == 1
    assert "is the validation split; pass --config.val_split='' as well" in capsys.readouterr().err


@pytest.mark.slow
def test_a_sweep_with_real_trainings(
    file: str,
    digits_dir: str,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "1")  # in the runs
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path(cli.__file__).parents[2]))
    check_search(file, tmp_path, capsys, 2, f"--data_dir={digits_dir}")


def diverges(folder: pathlib.Path) -> int:
    """Fails after an evaluation, as a training does whose loss becomes NaN."""
    write_metrics(folder, [0.1])
    return fails(folder)


def has_no_metric(folder: pathlib.Path) -> int:
    (folder / "metrics.jsonl").write_text('{"step": 2, "epoch": 1, "train/loss": 0.5}\n')
    (folder / "result.json").write_text('{"step": 2}')
    return 0


@pytest.mark.parametrize(
    ("training", "reason"),
    [
        (keeps_running, "no output for 1 seconds"),
        (fails, "exit status 1, error: it was wrong (output: s/trials/0000/output.txt)"),
        (diverges, "exit status 1, error: it was wrong (output: s/trials/0000/output.txt)"),
        (lambda folder: write_result(folder, [0.1, math.nan]), "its accuracy is nan"),
        (lambda folder: write_result(folder, []), "s/trials/0000/metrics.jsonl has lost its last lines"),
        (has_no_metric, "s/trials/0000/metrics.jsonl lacks val/accuracy at the last step"),
    ],
)
def test_a_sweep_that_only_fails_ends_with_one_line(
    training: Any, reason: str, file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXECUTORS, "local", lambda workers: FakeExecutor(training))
    arguments = ["--config=mine.py", "--trials=2", "--workdir=s", "--stall_timeout=0.01"]
    assert cli.main(["sweep", *arguments]) == 1
    captured = capsys.readouterr()
    assert "2 trials: 2 failed" in captured.out
    assert captured.err == f"error: all trials failed; trial 0: {reason}\n"
