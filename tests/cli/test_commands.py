"""Commands that succeed: help, lists, the results of a run, and interruptions by a signal."""

import csv
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from cnnjax import cli
from cnnjax.cli import shared
from cnnjax.models import MODELS
from cnnjax.pretrained import catalog

ROOT = pathlib.Path(__file__).parents[2]
DIGITS = "--config=configs/digits_lenet5.py"
ENDLESS = ("--config.duration=1000000 steps", "--config.model=mlp(features=(8,))", "--config.log_every=5 steps")


def help_of(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as exit_info:
        cli.main([*argv, "--help"])
    assert exit_info.value.code == 0
    return capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    shown = help_of(capsys)
    assert all(f"\n  {name} " in shown and text in shown for name, text in cli.COMMANDS.items())
    assert cli.main([]) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_flag_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from cnnjax.cli.main import add_command_flags, command_module

    assert cli.COMMANDS[name][1:] in " ".join(help_of(capsys, name).split())
    parser = shared.Parser(prog=name)
    add_command_flags(parser, command_module(name))
    assert [action.dest for action in parser._actions if not action.help] == []


@pytest.mark.parametrize("columns", [60, 80, 140])
def test_the_list_of_networks_cuts_no_number(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli.main(["models"]) == 0
    shown = capsys.readouterr().out
    assert "…" not in shown
    words = set(shown.split())
    for name, row in MODELS.items():
        assert {name, f"{row.params:,}"} <= words
    assert ("or with --csv" in shown) == (columns < 110)


def test_the_list_of_networks_as_csv_has_plain_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--csv"]) == 0
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    assert rows.keys() == MODELS.keys()
    assert (rows["vgg16"]["parameters"], rows["vgg16"]["MACs"]) == ("138357544", "15470264320")
    assert rows["lenet5"]["paper"].endswith("Proc. IEEE 1998")


@pytest.mark.parametrize(
    "command",
    [
        "configs digits_lenet5", "configs", "data list", "data list mnist", "weights", "weights lenet",
        "weights cnnjax:lenet5.digits", "cache",
    ],
)  # fmt: skip
def test_lists_cut_nothing_at_80_columns(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(command.split(" ")) == 0
    assert "…" not in capsys.readouterr().out


@pytest.mark.parametrize("columns", [80, 140])
def test_the_list_of_weights_cuts_no_number(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli.main(["weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    for row in catalog.rows().values():
        (line,) = (line for line in lines if row.name in line.split())
        assert f"{row.params:,}" in line
        assert row.top1 is None or f"{row.top1:.2f} %" in line


def test_the_list_of_weights_as_csv_has_plain_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["weights", "torchvision:resnet18", "--csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["name"], row["top-1"], row["parameters"]) == ("torchvision:resnet18.v1", "69.758", "11689512")


def test_columns_is_the_width_of_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns, width in (("97", 97), ("", 140), ("0", 140), ("wide", 140)):
        monkeypatch.setenv("COLUMNS", columns)
        assert shared.make_console().width == width


@pytest.mark.parametrize(
    "command", ["models", "configs", "data list", "models lenet", "configs configs/digits_lenet5.py"]
)
def test_lists_are_shown(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command.split(" ")) == 0
    shown = capsys.readouterr().out
    assert {"models": "lenet5_1998", "configs": "lenet5", "data": "cifar100"}[command.split(" ")[0]] in shown


def test_a_config_file_may_begin_with_a_byte_order_mark(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = '"""Mine."""\nfrom cnnjax.config import Config as get_config\n'
    (tmp_path / "mine.py").write_text(code, encoding="utf-8-sig")
    assert cli.main(["configs", f"{tmp_path}/mine.py"]) == 0
    assert capsys.readouterr().out.startswith("Mine.")


def test_a_run_ends_with_its_numbers_and_a_command_that_works(
    finished_run: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", f"--workdir={finished_run}"]) == 0  # already finished: says the same again
    shown = capsys.readouterr().out
    result = json.loads((finished_run / "result.json").read_text())
    assert f"{result['accuracy']:.2%}" in shown
    assert f"evaluate {finished_run}" in shown
    assert cli.main(["evaluate", str(finished_run)]) == 0
    assert f"{result['accuracy']:.2%}" in capsys.readouterr().out
    evaluation = json.loads((finished_run / "evaluations" / "digits-test-step4" / "metrics.json").read_text())
    assert evaluation["accuracy"] == result["accuracy"]
    assert evaluation["count"] == 359


def test_a_run_is_summarized_as_its_network(
    finished_run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads((finished_run / "data.json").read_text())
    data |= {"shape": [9, 7, 1], "classes": ["a", "b", "c"], "seal": "edited"}
    (tmp_path / "data.json").write_text(json.dumps(data))
    shutil.copy(finished_run / "config.json", tmp_path)
    tables = []
    for words in ([str(tmp_path)], ["mlp(features=(8,))", "--input=9x7x1", "--num_classes=3"]):
        assert cli.main(["summary", *words, "--csv"]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] == tables[1]


def test_a_known_name_goes_before_a_folder_of_that_name(
    finished_run: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("lenet5", "digits_lenet5"):
        shutil.copytree(finished_run, name)
    assert cli.main(["summary", "lenet5"]) == 0
    assert "61,706 parameters" in capsys.readouterr().out
    flags = ["--config.model=mlp(features=(8,))", "--config.duration=4 steps", "--config.val_split=", "--workdir=new"]
    assert cli.main(["train", "digits_lenet5", *flags]) == 0
    assert (tmp_path / "new" / "result.json").exists()


def wait_for_steps(folder: pathlib.Path, check_running: Callable[[], None]) -> None:
    """Returns once the run has logged training steps."""
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_text():
        check_running()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def check_interrupted(folder: pathlib.Path, out: str) -> None:
    assert f"train --workdir={folder}" in out
    (step,) = (int(path.name) for path in (folder / "checkpoints").iterdir())
    assert f"stopped after step {step}" in out


def test_sigint_saves_a_checkpoint_and_prints_the_command_that_resumes(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"

    def interrupt() -> None:
        try:
            wait_for_steps(folder, lambda: None)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    status = cli.main(["train", DIGITS, *ENDLESS, f"--workdir={folder}"])
    thread.join()
    assert status == 128 + signal.SIGINT
    check_interrupted(folder, capsys.readouterr().out)


def test_sigterm_ends_the_process_in_the_same_way(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "cnnjax", "train", DIGITS, *ENDLESS, f"--workdir={folder}"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def check_running() -> None:
        assert process.poll() is None, process.communicate()

    wait_for_steps(folder, check_running)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    check_interrupted(folder, out)
