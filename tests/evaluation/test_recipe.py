"""Other views of a trained network: which fields of its config they replace."""

import dataclasses
from typing import Any

import pytest

from cnnjax.config import Config
from cnnjax.data.info import DataInfo
from cnnjax.evaluation.recipe import with_views
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.models import create_model

CONFIG = Config(model="mlp", preprocess="resize(9)", protocol="flip", average="probabilities", eval_batch_size=5)
VIEWS: list[dict[str, Any]] = [
    {},
    {"preprocess": ""},
    {"preprocess": "resize(8)", "protocol": "center(8)"},
    {"average": "logits"},
    {"protocol": "single", "preprocess": "resize(9)"},
]


@pytest.mark.parametrize("changes", VIEWS)
def test_what_is_given_replaces_a_field_and_nothing_else_does(changes: dict[str, Any]) -> None:
    assert with_views(CONFIG, **changes) == dataclasses.replace(CONFIG, cache="host", **changes)
    data = DataInfo(("a", "b"), (9, 9, 1), {"mean": [0.5], "std": [0.5]}, False, {})
    network = TrainedNetwork(CONFIG, data, create_model("mlp", 2), {}, 3)
    changed = network.with_views(**changes)
    assert changed == dataclasses.replace(network, config=with_views(CONFIG, **changes))
    assert network.config == CONFIG


def test_a_batch_size_of_zero_keeps_the_configs() -> None:
    assert with_views(CONFIG).eval_batch_size == 5
    assert with_views(CONFIG, batch_size=7).eval_batch_size == 7
