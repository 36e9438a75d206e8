"""Runs that go on with another duration: the same bits as with that duration from the start, or an error."""

import pathlib
import re
from typing import Any

import pytest

from cnnjax.errors import InputError
from tests import tiny

# Settings with which a run of 4 steps may become one of 8.
EXTENDABLE: dict[str, dict[str, Any]] = {
    "constant": {},
    "warm-up": {"schedule": "constant(warmup='6 steps')"},
    "step decay": {"schedule": "piecewise(('3 steps', '6 steps'))"},
    "exponential": {"schedule": "exponential(0.5, '2 steps')"},
    "plateau": {"schedule": "plateau(0.5, patience=0)", "eval_every": "2 steps", "early_stop": "early_stop(9)"},
    "average": {"optimizer": "adamw(b1=0.0)|schedule_free"},
    "unfrozen": {"freeze": "^hidden1", "unfreeze": "^hidden1:6 steps"},
    "all": {**tiny.EVERYTHING, "schedule": "constant"},
}  # fmt: skip


# The ones that few mistakes would break alone.
RARE = ("warm-up", "exponential", "average", "one cycle", "polynomial", "percent")


def cases(table: Any) -> list[Any]:
    return [pytest.param(case, marks=[pytest.mark.slow] if case in RARE else []) for case in table]


def files(folder: pathlib.Path) -> dict[pathlib.Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("case", cases(EXTENDABLE))
def test_an_extended_run_has_the_bits_of_a_longer_one(case: str, digits_dir: str, tmp_path: pathlib.Path) -> None:
    settings = EXTENDABLE[case]
    expected = tiny.run(tmp_path / "whole", digits_dir, **settings, duration="8 steps")
    tiny.run(tmp_path / "part", digits_dir, **settings, duration="4 steps")
    got = tiny.run(tmp_path / "part", digits_dir, **settings, duration="8 steps")
    assert tiny.digest(tmp_path / "part", 8) == tiny.digest(tmp_path / "whole", 8)
    assert tiny.metrics_of(tmp_path / "part") == tiny.metrics_of(tmp_path / "whole")
    assert tiny.numbers(got) == tiny.numbers(expected)


def test_an_extension_that_is_killed_goes_on(digits_dir: str, tmp_path: pathlib.Path) -> None:
    tiny.run(tmp_path / "whole", digits_dir)
    tiny.run(tmp_path / "part", digits_dir, duration="4 steps")
    tiny.interrupt(tmp_path / "part", digits_dir, 7)
    assert not (tmp_path / "part" / "result.json").exists()  # it is not complete
    assert tiny.run(tmp_path / "part", digits_dir)["step"] == 8
    assert tiny.digest(tmp_path / "part", 8) == tiny.digest(tmp_path / "whole", 8)


# Settings of a finished run of 4 steps, the changes, and what the error must say.
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "cosine": ({"schedule": "cosine"}, {}, "the schedule 'cosine' depends on the duration: step 1 was taken with the"),
    "one cycle": ({"schedule": "one_cycle"}, {}, "the schedule 'one_cycle' depends on the duration: step 1 was"),
    "polynomial": ({"schedule": "polynomial(1.0)"}, {}, "the schedule 'polynomial' depends on the duration"),
    "percent": ({"schedule": "piecewise('50%')"}, {}, "the schedule 'piecewise' depends on the duration: step 2 was"),
    "warm-up of half": ({"schedule": "constant(warmup='50%')"}, {}, "learning rate 0.025, and needs 0.0125 now"),
    "unfreeze": (
        {"freeze": "^hidden1", "unfreeze": "^hidden1:50%"},
        {},
        "config.unfreeze = '^hidden1:50%' then gives other steps. Start a new run, with --config.init=",
    ),
    "monitor": (
        {"schedule": "plateau", "eval_every": "3 steps"},
        {},
        "and plateau has seen evaluations at other steps, such as the former end",
    ),
    "shorter": ({}, {"duration": "3 steps"}, "has done 4 steps, more than 3; for a shorter run pass another --workdir"),
    "other": ({"schedule": "cosine"}, {"lr": 0.1}, "another config: duration = '4 steps' there, '8 steps' now, lr ="),
}  # fmt: skip


@pytest.mark.parametrize("case", cases(REFUSED))
def test_where_the_past_would_be_another_it_is_refused(case: str, digits_dir: str, tmp_path: pathlib.Path) -> None:
    settings, changes, message = REFUSED[case]
    tiny.run(tmp_path, digits_dir, duration="4 steps", **settings)
    before = files(tmp_path)
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        tiny.run(tmp_path, digits_dir, **settings | changes)
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == before


def test_a_schedule_may_depend_on_the_duration_later_on(digits_dir: str, tmp_path: pathlib.Path) -> None:
    """Stopped before the first drop, at 6 of 8 steps, and then at 12 of 16, a run has done the same steps."""
    drop: dict[str, Any] = {"schedule": "piecewise('75%')"}
    tiny.run(tmp_path / "whole", digits_dir, **drop, duration="16 steps")
    tiny.interrupt(tmp_path / "part", digits_dir, 5, **drop)
    tiny.run(tmp_path / "part", digits_dir, **drop, duration="16 steps")
    assert tiny.digest(tmp_path / "part", 16) == tiny.digest(tmp_path / "whole", 16)
