"""Search spaces: choices, ranges, arguments of call strings, and their errors."""

from typing import Any

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.sweep.space import distributions, with_settings

CONFIG = Config(model="mlp(features=(8,))", augment="pad_crop(1)|cutout(2)")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2.5, 3], CategoricalDistribution([1, 2.5, 3])),
        ("[1, 2]", CategoricalDistribution([1, 2])),
        ("(1, 2)", CategoricalDistribution([1, 2])),
        ("log(1e-3, 1)", FloatDistribution(1e-3, 1, log=True)),
        ("uniform(0, 0.5)", FloatDistribution(0, 0.5)),
        ("uniform(0, high=0.5)", FloatDistribution(0, 0.5)),
    ],
)
def test_a_space_is_choices_or_a_range(values: Any, expected: BaseDistribution) -> None:
    assert distributions({"lr": values}, CONFIG) == {"lr": expected}


def test_a_range_may_be_of_integers() -> None:
    space = {"batch_size": "integer(16, 64, step=16)", "grad_accum_steps": "integer(1, 8, log=True)"}
    expected = [IntDistribution(16, 64, step=16), IntDistribution(1, 8, log=True)]
    assert list(distributions(space, CONFIG).values()) == expected


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "the sweep has no space; give --space.FIELD="),
        ({"rate": [1]}, "unknown config field 'rate'"),
        ({"lr": "lag(1e-3, 1)"}, "unknown space 'lag'; did you mean 'log'?"),
        ({"lr": "log(1)"}, r"space 'log': .*expected log\(low: float, high: float\)"),
        ({"lr": "log(0, 1)"}, r"space.lr = 'log\(0, 1\)': "),
        ({"lr": "log(2, 1)"}, r"space.lr = 'log\(2, 1\)': "),
        ({"lr": 0.1}, "space.lr = 0.1: expected a list of choices, or a range such as"),
        ({"lr": []}, "expected a list of choices"),
        ({"lr": "[[1], [2]]"}, "expected a list of choices"),
        ({"lr": ["fast"]}, "config.lr = 'fast': expected float"),
        ({"lr.x": [1]}, "'lr.x': config.lr = 0.1 is not a call string"),
        ({"augment.pad": [1]}, "'pad' is not one argument in"),
        ({"augment.crop.pad": [1]}, "'crop.pad' is not one argument in .*valid: cutout.NAME, pad_crop.NAME"),
    ],
)
def test_an_invalid_space_is_a_one_line_error(space: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        distributions(space, CONFIG)
    assert "\n" not in str(caught.value)


def test_a_setting_may_be_an_argument_of_a_call_string() -> None:
    config = with_settings(
        CONFIG, {"lr": 0.5, "optimizer.momentum": 0.8, "augment.cutout.size": 4, "model.dropout": 0.1}
    )
    assert config.lr == 0.5
    assert config.optimizer == "sgd(momentum=0.8)"
    assert config.augment == "pad_crop(1)|cutout(2, size=4)"  # given twice, which `spec.find` refuses
    assert config.model == "mlp(features=(8,), dropout=0.1)"
    assert CONFIG.optimizer == "sgd(momentum=0.9)"


def test_a_field_may_have_the_name_of_an_earlier_version() -> None:
    space = {"accumulate": [1, 2], "clip_norm": "uniform(0, 1)"}
    assert list(distributions(space, CONFIG)) == ["accumulate", "clip_norm"]
    assert with_settings(CONFIG, {"accumulate": 2}).grad_accum_steps == 2
