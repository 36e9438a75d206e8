"""Sweeps whose record or runs were damaged: every result that counts is that of the run with the trial's settings."""

import contextlib
import dataclasses
import datetime
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.runs import workdir
from cnnjax.sweep import record, report, search
from cnnjax.sweep.journal import Journal
from cnnjax.sweep.record import Sweep
from cnnjax.sweep.settings import Settings, claim
from tests.runs.fakes import FakeExecutor, learns, write_result

CONFIG = Config(model="mlp(features=(8,))", train_split="train[:80%]", val_split="train[80%:]")
SPACE = {"lr": "log(1e-3, 1)", "model.activation": ["relu", "tanh"]}
Rows = list[dict[str, Any]]


def settings(**changes: Any) -> Settings:
    plain = {"config": dataclasses.asdict(CONFIG), "source": "x.py", "space": SPACE, "trials": 3, "sampler": "random"}
    return Settings(**plain | changes)


def run(folder: pathlib.Path, values: Settings, start: Any = None) -> tuple[Sweep, list[str]]:
    """Runs or resumes a sweep with one worker. Returns it, and what it logged."""
    lines: list[str] = []
    sweep = search.sweep(folder, values, start or FakeExecutor(learns), workers=1, stall_timeout=60,
                         show=lambda *_: None, log=lines.append)  # fmt: skip
    return sweep, lines


def rows(sweep: Sweep) -> Rows:
    """Returns the leaderboard without its times, after checking that each result is that of the row's own run."""
    table = report.rows(sweep)
    for row in table:
        if row["state"] == "complete":
            config = json.loads((pathlib.Path(row["folder"]) / "config.json").read_text())
            assert config["lr"] == row["lr"]
            assert config["model"] == f"mlp(features=(8,), activation={row['model.activation']!r})"
            assert row["accuracy"] == 1 - abs(row["lr"] - 0.1)
    return [row | {"seconds": None, "folder": pathlib.Path(row["folder"]).name} for row in table]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, Rows]:
    """A finished sweep of three trials, and its leaderboard."""
    folder = tmp_path_factory.mktemp("sweeps") / "s"
    return folder, rows(run(folder, settings())[0])


def damaged(folder: pathlib.Path, tmp_path: pathlib.Path, change: Callable[[bytes], bytes]) -> pathlib.Path:
    """Copies a sweep and changes its journal."""
    copy = tmp_path / "s"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    path = copy / record.JOURNAL
    path.write_bytes(change(path.read_bytes()))
    return copy


def check_goes_on(copy: pathlib.Path, expected: Rows) -> list[str]:
    """Checks that a damaged sweep, shown and resumed, has the same rows, without a training. Returns its log."""
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    shown: list[str] = []
    assert rows(record.open_sweep(copy, settings(), shown.append)) == expected  # in memory
    assert before == {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    start = FakeExecutor(learns)
    sweep, lines = run(copy, settings(), start)
    assert rows(sweep) == expected
    assert start.folders == []
    assert shown == [line.replace(" and was set aside as journal.log.damaged", "") for line in lines]
    again, more = run(copy, settings())
    assert (rows(again), more) == (expected, [])  # the record is whole again
    return lines


def test_a_journal_that_lost_its_end_gets_the_trials_from_their_folders(
    finished: tuple[pathlib.Path, Rows], tmp_path: pathlib.Path
) -> None:
    """Cut after every line, and in the middle of every line."""
    folder, expected = finished
    lines = (folder / record.JOURNAL).read_bytes().splitlines(keepends=True)
    for count in range(len(lines)):
        for end in (b"", lines[count][: len(lines[count]) // 2], lines[count][:-1]):
            log = check_goes_on(damaged(folder, tmp_path, lambda _: b"".join(lines[:count]) + end), expected)  # noqa: B023
            assert all(line.startswith("the record lacks trial") for line in log)


def flip(content: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


@pytest.mark.parametrize(
    "change",
    [
        lambda content, lines, i: b"".join([*lines[: i + 1], *lines[i:]]),  # repeated
        lambda content, lines, i: b"".join([*lines[:i], *lines[i + 1 :]]),  # lost
        lambda content, lines, i: b"".join([*lines[:i], *lines[i : i + 2][::-1], *lines[i + 2 :]]),  # swapped
        lambda content, lines, i: b"".join([*lines[:i], b"\xef" + lines[i], *lines[i + 1 :]]),  # not UTF-8
        lambda content, lines, i: b"".join([*lines[:i], b"{}\n", *lines[i + 1 :]]),
        lambda content, lines, i: b"".join([*lines[:i], b"[" * 100_000 + b"\n", *lines[i + 1 :]]),
        lambda content, lines, i: flip(content, len(b"".join(lines[:i])) + 7919 * i % len(lines[i]), i % 8),
    ],
    ids=["repeated", "lost", "swapped", "not UTF-8", "empty", "nested", "a bit"],
)  # fmt: skip
def test_a_damaged_line_of_the_journal_is_said_and_changes_no_row(
    change: Callable[[bytes, list[bytes], int], bytes], finished: tuple[pathlib.Path, Rows], tmp_path: pathlib.Path
) -> None:
    folder, expected = finished
    content = (folder / record.JOURNAL).read_bytes()
    lines = content.splitlines(keepends=True)
    for i in range(len(lines)):
        altered = change(content, lines, i)
        log = check_goes_on(damaged(folder, tmp_path, lambda _: altered), expected)  # noqa: B023
        if altered.startswith(content):
            continue
        if not content.startswith(altered) and i < len(lines) - 1:
            assert "journal.log is damaged in line" in log[0]
            assert (tmp_path / "s" / "journal.log.damaged").read_bytes() == altered


# ------------------------------------------------------------------- records without checksums: databases, old versions


def as_optuna_writes(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Rows:
    """Runs a sweep whose journal is Optuna's own, as that of an earlier version was. Returns its leaderboard."""
    with monkeypatch.context() as patch:
        patch.setattr(record, "Journal", lambda path, writable: _Unsealed(str(path)))
        return rows(run(folder, settings())[0])


class _Unsealed(JournalFileBackend):
    damage, transaction = "", staticmethod(contextlib.nullcontext)


def test_a_journal_without_checksums_goes_on_with_them(
    finished: tuple[pathlib.Path, Rows], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = as_optuna_writes(tmp_path / "s", monkeypatch)
    assert expected == finished[1]
    more = rows(run(tmp_path / "s", settings(trials=4))[0])
    assert len(more) == 4
    content = (tmp_path / "s" / record.JOURNAL).read_bytes()
    assert b'"crc"' not in content.splitlines()[0]
    assert b'"crc"' in content.splitlines()[-1]
    study = optuna.load_study(
        study_name="sweep", storage=JournalStorage(JournalFileBackend(str(tmp_path / "s" / record.JOURNAL)))
    )  # as Optuna's dashboard reads it
    assert len(study.trials) == 4
    study.set_user_attr("note", "written in the dashboard")
    sweep, log = run(tmp_path / "s", settings(trials=5))
    assert (len(rows(sweep)), log) == (5, [])
    assert sweep.study.user_attrs == {"note": "written in the dashboard"}
    copy = damaged(
        tmp_path / "s", tmp_path / "copy", lambda content: flip(content, content.index(b'"op_code":4') + 40, 0)
    )
    sweep, log = run(copy, settings(trials=5))
    assert len(rows(sweep)) == 5
    assert "is damaged in line" in log[0]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"param_value_internal":0', b'"param_value_internal":1', "holds a run with another config: lr ="),
        (b'"values":[0.', b'"values":[0.9', "in the record, and"),
        (b'"trial_id":0', b'"trial_ic":0', "is damaged in line"),
        (b'"op_code":6', b'"op_code":66', "is damaged in line"),
        (b'"op_code":4', b'"op_code":4444', "is damaged in line"),
    ],
)
def test_a_damaged_journal_without_checksums_crowns_no_other_run(
    old: bytes, new: bytes, said: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_optuna_writes(tmp_path / "whole", monkeypatch)
    copy = damaged(tmp_path / "whole", tmp_path, lambda content: content.replace(old, new, 1))
    sweep, log = run(copy, settings())
    assert said in log[0]
    assert sum(row["state"] == "complete" for row in rows(sweep)) == (2 if sweep.rejected else 3)
    assert all(number != report.ranked(sweep)[0].number for number in sweep.rejected)


def test_a_trial_without_all_its_settings_has_failed_and_another_takes_its_place(tmp_path: pathlib.Path) -> None:
    """As a kill in the sampler's question leaves it in a database, with no, one or all settings."""
    values = settings(storage=f"sqlite:///{tmp_path}/trials.db", trials=3)
    expected = [row["lr"] for row in rows(run(tmp_path / "whole", values)[0])]
    sweep = record.open_sweep(tmp_path / "s", values, log=print)
    with claim(tmp_path / "s", values):
        sweep.study.ask({})
        sweep.study.ask({"lr": sweep.space["lr"]})
    start = FakeExecutor(learns)
    sweep, _ = run(tmp_path / "s", values, start)
    table = rows(sweep)
    assert [row["state"] for row in table] == ["complete"] * 3 + ["failed"] * 2
    assert [row["lr"] for row in table[:3]] == expected
    assert {row["failure"] for row in table[3:]} == {record.UNSAMPLED}
    assert [folder.name for folder in start.folders] == ["0002", "0003", "0004"]


def test_a_transaction_within_another_is_part_of_it(tmp_path: pathlib.Path) -> None:
    journal = Journal(tmp_path / "journal.log", writable=True)
    with contextlib.suppress(KeyboardInterrupt), journal.transaction():
        with journal.transaction():
            journal.append_logs([{"op_code": 2}])
        assert not (tmp_path / "journal.log").exists()
        raise KeyboardInterrupt
    assert not (tmp_path / "journal.log").exists()


def test_a_point_of_a_grid_that_was_killed_in_the_question_is_tried(tmp_path: pathlib.Path) -> None:
    space = {"lr": [0.1, 0.2], "model.activation": ["relu", "tanh"]}
    values = settings(storage=f"sqlite:///{tmp_path}/trials.db", trials=9, space=space, sampler="grid")
    sweep = record.open_sweep(tmp_path / "s", values, log=print)
    sweep.study.enqueue_trial({"lr": 0.1, "model.activation": "relu"})
    sweep.study.ask({"lr": sweep.space["lr"]})
    with claim(tmp_path / "s", values):
        pass
    table = rows(run(tmp_path / "s", values)[0])
    assert [row["state"] for row in table] == ["complete"] * 4 + ["failed"]
    points = {(row["lr"], row["model.activation"]) for row in table[:4]}
    assert points == set(itertools.product(*space.values()))


# --------------------------------------------------------------------------------------------------- folders of trials


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: edit(folder, "lr", 0.9), "holds a run with another config: lr = 0.9 there"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json, but metrics.jsonl"),
    ],
)
def test_a_folder_of_another_run_is_moved_out_of_the_way(
    change: Callable[[pathlib.Path], Any], said: str, tmp_path: pathlib.Path
) -> None:
    """A running trial is neither given the result of another config, nor trained with it."""

    def killed(folder: pathlib.Path) -> int:
        learns(folder)
        change(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s", settings(), FakeExecutor(killed))
    start = FakeExecutor(learns)
    sweep, log = run(tmp_path / "s", settings(), start)
    assert said in log[0]
    assert log[0].endswith(f"moved to {tmp_path}/s/trials/0000-aside")
    assert [row["state"] for row in rows(sweep)] == ["complete"] * 3
    assert len(start.folders) == 3
    assert (tmp_path / "s" / "trials" / "0000-aside" / "result.json").exists()


def edit(folder: pathlib.Path, field: str, value: Any) -> None:
    path = folder / "config.json"
    workdir.write_json(path, workdir.read_json(path) | {field: value})


def test_a_result_whose_run_has_another_config_does_not_count(
    finished: tuple[pathlib.Path, Rows], tmp_path: pathlib.Path
) -> None:
    copy = damaged(finished[0], tmp_path, lambda content: content)
    edit(copy / "trials" / finished[1][0]["folder"], "batch_size", 16)
    log: list[str] = []
    sweep = record.open_sweep(copy, settings(), log.append)
    assert [row["state"] for row in rows(sweep)] == ["complete", "complete", "failed"]
    assert report.best(sweep).lr == finished[1][1]["lr"]
    assert "does not count" in log[0]
    assert "batch_size = 16 there, 128 now" in log[0]
    edit(copy / "trials" / finished[1][0]["folder"], "batch_size", 128)
    edit(copy / "trials" / finished[1][0]["folder"], "eval_every", "2 epochs")  # changes no result
    assert rows(record.open_sweep(copy, settings(), pytest.fail)) == finished[1]
    shutil.rmtree(copy / "trials" / finished[1][0]["folder"])  # to save space
    assert record.open_sweep(copy, settings(), pytest.fail).rejected == {}


def test_a_run_whose_last_evaluation_is_lost_has_no_result(tmp_path: pathlib.Path) -> None:
    def loses_the_last(folder: pathlib.Path) -> int:
        write_result(folder, [0.9, 0.5])
        lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
        (folder / "metrics.jsonl").write_text("".join(lines[:-1]))
        return 0

    sweep, _ = run(tmp_path / "s", settings(trials=1), FakeExecutor(loses_the_last))
    (row,) = report.rows(sweep)
    assert (row["state"], row["accuracy"]) == ("failed", None)
    assert row["failure"].endswith("metrics.jsonl has lost its last lines")


def test_lost_trials_of_several_seeds_and_without_a_run_are_counted(tmp_path: pathlib.Path) -> None:
    """Trial 0 failed without a run's folder; with the journal lost, trial 1 keeps its number."""
    values = settings(seeds=2, trials=2)
    before = report.rows(run(tmp_path / "s", values)[0])
    shutil.rmtree(tmp_path / "s" / "trials" / "0000")
    (tmp_path / "s" / record.JOURNAL).unlink()
    sweep, log = run(tmp_path / "s", values)
    assert "the record lacks trial 1;" in log[0]
    assert [trial.state for trial in sweep.study.trials] == [TrialState.FAIL, TrialState.COMPLETE, TrialState.COMPLETE]
    assert sweep.study.trials[0].user_attrs == {"failure": record.LOST}
    assert sweep.study.trials[1].value == next(row["accuracy"] for row in before if row["trial"] == 1)
    assert sum(row["sd"] is not None for row in report.rows(sweep)) == 2


# ------------------------------------------------------------------------------------------- two sweeps, links, clocks


def test_a_second_sweep_in_the_folder_is_refused_in_one_line(tmp_path: pathlib.Path) -> None:
    def second(folder: pathlib.Path) -> int:
        with pytest.raises(InputError, match=f"^{tmp_path}/s is in use: another sweep is running in it$"):
            run(tmp_path / "s", settings())
        return learns(folder)

    assert len(rows(run(tmp_path / "s", settings(), FakeExecutor(second))[0])) == 3


def test_nothing_is_written_through_a_link(tmp_path: pathlib.Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "precious").write_text("precious")
    workdir.write_json(tmp_path / "s" / "sweep.json", dataclasses.asdict(settings()))
    for name in (record.JOURNAL, "leaderboard.csv", "history.png", "sweep.json.part"):
        os.symlink(tmp_path / "precious", tmp_path / "s" / name)
    with pytest.raises(InputError, match=r"journal.log cannot be read: it is a link"):
        run(tmp_path / "s", settings())
    (tmp_path / "s" / record.JOURNAL).unlink()
    report.write(run(tmp_path / "s", settings())[0])
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_clock_that_is_set_back_ends_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:

    hours = iter(range(10_000, 0, -1))

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime.datetime:
            return datetime.datetime(2026, 1, 1, tzinfo=tz) + datetime.timedelta(hours=next(hours))

    monkeypatch.setattr("optuna.storages.journal._storage.datetime", Clock)
    monkeypatch.setattr("time.time", lambda: 3600.0 * next(hours))
    sweep, _ = run(tmp_path / "s", settings())
    assert [(row["state"], row["seconds"]) for row in report.rows(sweep)] == [("complete", None)] * 3
