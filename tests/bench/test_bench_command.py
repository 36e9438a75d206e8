"""`cnnjax bench` from end to end, on a tiny network."""

import dataclasses
import pathlib
import re
from typing import Any

import pytest

from cnnjax import cli, register
from cnnjax.bench import baseline, startup
from cnnjax.config import Config
from cnnjax.errors import InputError

TINY = "mlp(features=(8,))"


def test_the_command_measures_keeps_and_compares(
    quick: None, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "baseline.csv"
    typed = ["bench", TINY, "--batch=8", "--repeats=2"]
    assert cli.main([*typed, "--what=train,forward,memory", f"--csv={path}", f"--profile={tmp_path / 'trace'}"]) == 0
    shown = capsys.readouterr().out
    assert "outside the network" in shown
    for name in ("train", "forward", "memory"):  # each at once, before the table
        assert f"\nmeasuring {TINY} {name}\n" in f"\n{shown}"
        assert re.search(rf"^{re.escape(TINY)} {name}: .*( images/s| MiB)", shown, re.M)
    assert "dot_general" in shown
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))
    train, forward, memory = baseline.read(path)
    assert [record["what"] for record in (train, forward, memory)] == ["train", "forward", "memory"]
    for record in (train, forward):
        assert float(record["images_per_second"]) == pytest.approx(8 / float(record["seconds"]))
        assert float(record["seconds_q1"]) <= float(record["seconds"]) <= float(record["seconds_q3"])
        assert float(record["roofline"]) > 0
    assert memory["memory_bytes"] == train["memory_bytes"]
    assert not memory["seconds"]

    # Compared with a step that took next to no time, and with one that took ages.
    header = path.read_text().splitlines()[0]
    for factor, expected in ((1e-6, 1), (1e6, 0)):
        other = dict(train)
        for name in ("seconds", "seconds_q1", "seconds_q3"):
            other[name] = str(float(train[name]) * factor)
        path.write_text(header + "\n" + ",".join(f'"{value}"' for value in other.values()) + "\n")
        assert cli.main([*typed, "--what=train", f"--against={path}"]) == expected
        assert ("slower, by more than 10%" if expected else "faster") in capsys.readouterr().out


def test_a_configs_own_batches_and_step_are_measured(quick: None, digits_dir: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "baseline.csv"
    settings = [f"--config.model={TINY}", f"--data_dir={digits_dir}", "--batch=16", f"--csv={path}", "--repeats=1"]
    assert cli.main(["bench", "--config=configs/digits_lenet5.py", "--what=input,train", *settings]) == 0
    assert [(record["what"], record["batch"], record["model"]) for record in baseline.read(path)] == [
        ("input", "16", TINY),
        ("train", "16", TINY),
    ]
    assert {record["input"] for record in baseline.read(path)} == {"28x28x1"}


def test_a_start_imports_the_registered_code(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def refuse(command: list[str], **options: Any) -> None:
        commands.append(command)
        raise OSError("no process")

    (tmp_path / "mine.py").write_text("")
    monkeypatch.setattr(register, "_imports", {})
    monkeypatch.setattr(startup.subprocess, "Popen", refuse)
    register.import_code(str(tmp_path / "mine.py"))
    with pytest.raises(OSError, match="no process"):
        startup.startup_seconds(Config(model=TINY), "", tmp_path)
    assert f"--import={tmp_path / 'mine.py'}" in commands[0]


@pytest.mark.slow
def test_a_start_is_measured_to_its_first_step(digits_dir: str, tmp_path: pathlib.Path) -> None:
    config = Config(model=TINY, augment="resize(28)", preprocess="resize(28)")
    assert 1 < startup.startup_seconds(config, digits_dir, tmp_path) < 120
    assert list(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"the run ended before its first step: .*'tets'; did you mean 'test'"):
        startup.startup_seconds(dataclasses.replace(config, test_split="tets"), digits_dir, tmp_path)
