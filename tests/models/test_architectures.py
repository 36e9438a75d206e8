"""Every network against published numbers: parameters, statistics, multiplications, shapes and receptive fields.

architectures.json has them under the names of the networks' references, counted there or in those; the map from their
layers to ours is ours. None of it was computed by this project.
"""

import functools
import json
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from cnnjax import summarize
from cnnjax.models import MODELS, create_model

FACTS: dict[str, dict[str, Any]] = json.loads((pathlib.Path(__file__).parents[1] / "architectures.json").read_text())

# Traced in seconds each, and made of the same blocks as a smaller one of the table, which is not slow.
DEEP = (
    r"1202|1001|resnet_?(v\d_)?(152|200|164)|ResNet152|[dD]ense[nN]et(161|169|190|201)|(slim_|keras_)inception_resnet"
)


def slow_where(names: Any) -> list[Any]:
    slow = [pytest.mark.slow, pytest.mark.zoo]
    return [pytest.param(name, marks=slow if re.search(DEEP, name) else []) for name in names]


@functools.cache
def layers(text: str, num_classes: int, shape: tuple[int, int, int]) -> dict[str, summarize.Layer]:
    return {row.name: row for row in summarize.layers(create_model(text, num_classes), shape)}


def feature_map_shapes(text: str, num_classes: int, shape: tuple[int, int, int]) -> Any:
    """The shapes of the named feature maps of one image."""
    text = f"{text[:-1]}, features_only=True)" if text.endswith(")") else f"{text}(features_only=True)"
    make = functools.partial(create_model(text, num_classes).init_with_output, train=False)
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(lambda x: make(jax.random.key(0, impl="rbg"), x), image)[0]


@pytest.mark.parametrize("name", slow_where(FACTS))
def test_a_network_has_the_published_numbers(name: str) -> None:
    fact = FACTS[name]
    of = fact["model"], fact["num_classes"], tuple(fact["input"])
    rows = layers(*of)
    assert sum(row.params for row in rows.values()) == fact["params"]
    assert sum(row.stats for row in rows.values()) == fact["state"]
    if "macs" in fact:
        assert sum(row.macs for row in rows.values()) == fact["macs"]
    if "field" in fact:
        fields = [row.receptive_field for row in rows.values() if row.kind == "convolution" and row.receptive_field]
        assert [max(side) for side in zip(*fields, strict=True)] == [fact["field"]] * 2  # over branches
    features = feature_map_shapes(*of) if fact["ends"] else {}
    assert {name: list(features[name].shape[1:]) for name in fact["ends"]} == fact["ends"]
    for layer, shape in fact.get("layers", {}).items():
        assert [1] * (len(shape) - len(rows[layer].output)) + [*rows[layer].output] == shape, layer


@pytest.mark.parametrize("name", slow_where(MODELS))
def test_a_row_says_what_its_network_is(name: str) -> None:
    row = MODELS[name]
    assert 1957 < row.year < 2030 or name == "sequential"  # a list of layers has no paper
    rows = layers(name, row.num_classes, row.input_shape)
    assert sum(layer.params for layer in rows.values()) == row.params
    assert sum(layer.macs for layer in rows.values()) == row.macs
    assert all(layer.output or layer.kind == "training only" for layer in rows.values())


def test_every_network_has_published_numbers_or_is_a_variant_of_one_that_has() -> None:
    """Each class of networks is in the table, with every count of parameters that a variant of it has."""
    classes = {type(create_model(fact["model"], fact["num_classes"])) for fact in FACTS.values()}
    classes.add(type(create_model("airbench94", 10)))  # of a recipe: its paper has the code, and counts nothing
    classes.add(type(create_model("sequential", 10)))  # of no paper
    assert {type(create_model(name, row.num_classes)) for name, row in MODELS.items()} == classes
