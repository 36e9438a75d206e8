"""Studies that are refused before anything runs."""

import dataclasses
from typing import Any

import pytest

from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.study import Comparison, Panel
from cnnjax.study.check import check_study
from tests.study.test_conduct import claim, study

PLOT = Panel("scatter", "test/accuracy", "a plot", x="depth")


def compares(*arguments: Any) -> dict[str, Any]:
    return {"claims": (claim(comparisons=(Comparison(*arguments),)),)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"starts": {"slow": "fsat"}}, "arm 'slow' starts from 'fsat': expected an arm"),
        ({"starts": {"slow": "fast", "fast": "slow"}}, "expected an arm that is trained from scratch"),
        ({"seeds": 0}, "a study of 0 seeds: expected at least 1"),
        ({"arms": {}}, "a study of 0 arms: expected at least 1"),
        ({"panels": ()}, "a study of 0 panels: expected at least 1"),
        ({"arms": {"a": Config(model="lenet6")}}, "arm 'a': unknown model 'lenet6'"),
        ({"arms": {"a": Config(duration="1 steps", schedule="one_cycle")}}, "arm 'a': one_cycle: its peak at '30%'"),
        (compares("fats", "higher", "slow", "depth"), "claim 'fast_is_better': no arm 'fats'; did you mean 'fast'"),
        (compares("fast", "higher", "slow", "x"), "claim 'fast_is_better': no metric 'x'; valid: depth, test/acc"),
        (compares("fast", "equal", "slow", "depth"), "'equal' needs a margin above 0"),
        (compares("fast", "lower", "slow", "depth", -1), "margin=-1; expected 0 or more"),
        (compares("fast", "hihger", "slow", "depth"), "unknown sign 'hihger'; did you mean 'higher'"),
        (compares("fast", "lower", "fast", "depth"), "arm 'fast' is compared with itself"),
        ({"seeds_of": {"fast": 2}}, "seeds_of: arms that claims compare have equal numbers of seeds"),
        ({"fractions": ("test/acuracy",)}, "fractions: no metric 'test/acuracy'; did you mean 'test/accuracy'"),
        ({"claims": (), "seeds_of": {"fats": 2}}, "seeds_of: no arm 'fats'; did you mean 'fast'"),
        ({"claims": (), "seeds_of": {"fast": 0}}, "a study of 0 seeds: expected at least 1"),
        ({"claims": (), "max_seeds": 5}, "max_seeds=5: only a study with claims adds seeds"),
        ({"panels": (PLOT,)}, "panel 'a plot': a scatter plot is for a study without claims"),
        ({"claims": (), "panels": (dataclasses.replace(PLOT, x="deep"),)}, "panel 'a plot': no metric 'deep'; did you"),
        ({"claims": (claim(comparisons=()),)}, "claim 'fast_is_better': no comparisons"),
        ({"claims": (claim(), claim())}, "2 claims have the name 'fast_is_better': expected one"),
        ({"max_seeds": 2}, "max_seeds=2: expected at least seeds = 3"),
        ({"claims": (claim(chapter="trainng"),)}, "unknown chapter 'trainng'; did you mean 'training'?"),
    ],
)
def test_an_inconsistent_study_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_study(study(**changes))
