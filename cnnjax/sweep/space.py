"""Search spaces: setting -> a list of choices, or a range such as 'log(1e-3, 1)'.

A setting is a field of `Config`, or an argument in a field that is a call string: 'model.dropout',
'augment.cutout.size'. Fields may have the names of earlier versions (`config.ALIASES`).
"""

import ast
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from cnnjax import spec
from cnnjax.config import FIELDS, Config, check, current_name
from cnnjax.errors import InputError, unknown


def uniform(low: float, high: float) -> BaseDistribution:
    """Returns the uniform distribution of floats from `low` to `high`."""
    return FloatDistribution(low, high)


def log(low: float, high: float) -> BaseDistribution:
    """Returns the log-uniform distribution of floats from `low` to `high`."""
    return FloatDistribution(low, high, log=True)


def integer(low: int, high: int, step: int = 1, log: bool = False) -> BaseDistribution:
    """Returns the uniform distribution of the integers `low`, `low` + `step`, ... up to and including `high`.

    With `log`, the distribution is log-uniform, and `step` has to be 1.
    """
    return IntDistribution(low, high, log=log, step=step)


RANGES: dict[str, Callable[..., BaseDistribution]] = {"uniform": uniform, "log": log, "integer": integer}
Space = Mapping[str, Any]  # setting -> a list of choices, or a call string of RANGES


def distributions(space: Space, config: Config) -> dict[str, BaseDistribution]:
    """Converts a space to Optuna's distributions: setting -> distribution.

    Raises InputError for an empty space, an unknown config field, an invalid choice (checked in `config`), or an
    invalid range.
    """
    if not space:
        raise InputError(
            "the sweep has no space; give --space.FIELD=[A, B] or =log(1e-3, 1), or sweep() in the config file"
        )
    return {name: _distribution(name, values, config) for name, values in space.items()}


def _distribution(name: str, values: Any, config: Config) -> BaseDistribution:
    """Converts the values of the setting `name` to a distribution, and checks each choice in `config`.

    A call string of `RANGES` gives a range; a list, or its text '[16, 32]', gives a categorical distribution.
    """
    field = current_name(name).partition(".")[0]
    if field not in FIELDS:
        raise unknown("config field", field, FIELDS)
    if isinstance(values, str):
        try:
            values = ast.literal_eval(values)
        except spec.PARSER_ERRORS:
            try:
                return spec.build("space", values, RANGES)
            except (ValueError, OverflowError) as error:  # also raised by Optuna
                raise InputError(f"space.{name} = {values!r}: {error}") from error
    scalar = (bool, int, float, str)
    if not isinstance(values, list | tuple) or not values or not all(isinstance(value, scalar) for value in values):
        raise InputError(f"space.{name} = {values!r}: expected a list of choices, or a range such as 'log(1e-3, 1)'")
    for value in values:
        check(with_settings(config, {name: value}))
    return CategoricalDistribution(values)


def with_settings(config: Config, values: Mapping[str, Any]) -> Config:
    """Returns a copy of `config` with these settings: config fields, or arguments in call strings ('model.dropout').

    Raises InputError for an argument if its field is not a call string, or does not contain the call exactly once.
    Whether the called function has the argument is not checked.
    """
    config = dataclasses.replace(config)
    for name, value in values.items():
        field, *path = current_name(name).split(".")
        old = getattr(config, field)
        if path and not isinstance(old, str):
            raise InputError(f"{name!r}: config.{field} = {old!r} is not a call string")
        setattr(config, field, spec.with_argument(old, path, value) if path else value)
    return config


def settings_in(config: Config, space: Iterable[str]) -> dict[str, Any]:
    """Returns the values of the settings in `space` that a config has: the inverse of `with_settings`.

    Raises InputError if a call string does not give the argument that a setting names.
    """
    settings: dict[str, Any] = {}
    for name in space:
        field, *path = current_name(name).split(".")
        settings[name] = getattr(config, field)
        if path:
            calls = spec.parse_pipeline(settings[name])
            given = [
                call.kwargs[path[-1]] for call in calls if path[:-1] in ([], [call.name]) and path[-1] in call.kwargs
            ]
            if len(given) != 1:
                raise InputError(f"config.{field} = {settings[name]!r} does not give the argument of {name!r}")
            settings[name] = given[0]
    return settings


def example_value(distribution: BaseDistribution) -> Any:
    """Returns one valid value to check a config with: the first choice, or the lower end of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[0]
    return distribution.low  # type: ignore[attr-defined]
