"""What a sweep tries: for each setting the values that it may have.

A space says it by a list of choices, or a call of `RANGES`. A setting is a field of `Config`, or an argument inside of
one that is a call string: 'model.dropout', 'augment.cutout.size'.
"""

import ast
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from cnnjax import spec
from cnnjax.config import FIELDS, Config, check
from cnnjax.errors import InputError, unknown


def uniform(low: float, high: float) -> BaseDistribution:
    """Any number from `low` to `high`."""
    return FloatDistribution(low, high)


def log(low: float, high: float) -> BaseDistribution:
    """Any number from `low` to `high`, each power of ten as likely as another."""
    return FloatDistribution(low, high, log=True)


def integer(low: int, high: int, step: int = 1, log: bool = False) -> BaseDistribution:
    """A whole number from `low` to `high`."""
    return IntDistribution(low, high, log=log, step=step)


RANGES: dict[str, Callable[..., BaseDistribution]] = {"uniform": uniform, "log": log, "integer": integer}
Space = Mapping[str, Any]  # setting -> a list of choices, or a call string of RANGES


def distributions(space: Space, config: Config) -> dict[str, BaseDistribution]:
    """The space as Optuna has it. Raises InputError for a setting that `config` does not have, and a wrong range."""
    if not space:
        raise InputError(
            "the sweep has no space; give --space.FIELD=[A, B] or =log(1e-3, 1), or sweep() in the config file"
        )
    return {name: _distribution(name, values, config) for name, values in space.items()}


def _distribution(name: str, values: Any, config: Config) -> BaseDistribution:
    field = name.partition(".")[0]
    if field not in FIELDS:
        raise unknown("config field", field, FIELDS)
    if isinstance(values, str):
        try:
            values = ast.literal_eval(values)
        except (ValueError, SyntaxError):
            try:
                return spec.build("space", values, RANGES)
            except ValueError as error:  # Optuna's, too
                raise InputError(f"space.{name} = {values!r}: {error}") from error
    scalar = (bool, int, float, str)
    if not isinstance(values, list | tuple) or not values or not all(isinstance(value, scalar) for value in values):
        raise InputError(f"space.{name} = {values!r}: expected a list of choices, or a range such as 'log(1e-3, 1)'")
    for value in values:
        check(configured(config, {name: value}))
    return CategoricalDistribution(values)


def configured(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with these settings. Raises InputError for an argument that is in no call string."""
    config = dataclasses.replace(config)
    for name, value in values.items():
        field, *path = name.split(".")
        old = getattr(config, field)
        if path and not isinstance(old, str):
            raise InputError(f"{name!r}: config.{field} = {old!r} is not a call string")
        setattr(config, field, spec.with_argument(old, path, value) if path else value)
    return config


def one_of(values: BaseDistribution) -> Any:
    """A value that it may have, to try out."""
    return values.choices[0] if isinstance(values, CategoricalDistribution) else values.low  # type: ignore[attr-defined]
