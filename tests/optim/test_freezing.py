"""Frozen parameters, from parsed settings. Training with them is in the tests of transfer."""

import jax
import jax.numpy as jnp
import pytest

from cnnjax import optim
from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.optim import freezing

PARAMS = {name: {"kernel": jnp.zeros(1), "bias": jnp.zeros(1)} for name in ("stem", "body", "head")}


def test_parsed_settings_are_those_of_the_config() -> None:
    config = Config(freeze="^(stem|body)", unfreeze="body:2 epochs kernel$:50%", freeze_stats=False)
    parsed = freezing.parse_freezing(config.freeze, config.unfreeze, config.freeze_stats)
    assert [(pattern.pattern, duration) for pattern, duration in parsed.unfreeze] == [
        ("body", "2 epochs"),
        ("kernel$", "50%"),
    ]
    expected = {"stem/kernel": 15, "body/kernel": 15, "body/bias": 20}  # the earliest of several
    assert optim.parse(config).freezing == parsed
    assert freezing.unfreeze_steps(parsed, PARAMS, epoch=10, total=30) == expected
    names = {f"{layer}/{name}" for layer, tree in freezing.trainable(parsed, PARAMS).items() for name in tree}
    assert names == {"stem/kernel", "body/kernel", "body/bias", "head/kernel", "head/bias"}
    mask = freezing.is_unfrozen(PARAMS, expected, jnp.asarray(15))
    assert jax.tree.map(bool, mask) == {
        "stem": {"kernel": True, "bias": True},
        "body": {"kernel": True, "bias": False},
        "head": {"kernel": True, "bias": True},
    }


def test_nothing_frozen_trains_everything() -> None:
    parsed = freezing.parse_freezing("", "", True)
    assert freezing.trainable(parsed, PARAMS) is PARAMS
    assert freezing.unfreeze_steps(parsed, PARAMS, epoch=10, total=30) == {}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (("", "body:1 epochs", True), "nothing is frozen"),
        (("", "", False), "nothing is frozen"),
        (("body", "body", True), "expected PATTERN:DURATION"),
        (("body", "body:soon", True), "'soon' is not a duration"),
        (("(", "", True), "is not a regular expression"),
    ],
)
def test_ill_formed_settings_are_refused(settings: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        freezing.parse_freezing(*settings)
