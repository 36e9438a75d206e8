"""What every network has: initializers, auxiliary classifiers, and fields with their ranges."""

import re
from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn

from cnnjax.models import blocks, network
from tests.models import calls


@pytest.mark.parametrize(
    ("name", "std"),
    [("gaussian", 0.02), ("truncated", 0.02 * 0.8796), ("xavier", (2 / (9 * 96)) ** 0.5), ("he", (2 / (9 * 64)) ** 0.5),
     ("lecun", (1 / (9 * 32)) ** 0.5)],
)  # fmt: skip
def test_initializers_have_their_spread(name: str, std: float) -> None:
    made = network.Network(initializer=name, initializer_std=0.02).layers(train=True)
    _, params = calls.run(made.conv(64, 3), calls.noise(1, 4, 4, 32))
    assert np.std(params["kernel"]) == pytest.approx(std, rel=0.03)


def test_auxiliary_classifiers_are_made_at_once_and_heard_in_training_alone() -> None:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
            blocks.sow_aux_logits(self, lambda: nn.Dense(3, name="aux")(x), train)
            return nn.Dense(3, name="head")(x)

    x, model = calls.noise(2, 5), Net()
    variables: Any = model.init(calls.key(), x, train=False)
    assert set(variables) == {"params"}
    assert set(variables["params"]) == {"aux", "head"}
    _, out = calls.apply(model, variables, x, train=True, mutable=["aux_logits"])
    np.testing.assert_allclose(
        out["aux_logits"]["logits"][0], x @ variables["params"]["aux"]["kernel"], rtol=1e-4, atol=1e-5
    )
    assert calls.apply(model, variables, x, train=False, mutable=["aux_logits"])[1] == {}
    assert calls.apply(model, variables, x, train=True).shape == (2, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"norm": "batchnorm"}, "unknown norm 'batchnorm'; valid: batch, group, none"),
        ({"head": "dense"}, "unknown head 'dense'; valid: gap, fc, conv"),
        ({"padding_mode": "same"}, "unknown padding_mode 'same'; valid: zeros, edge, reflect"),
        ({"initializer": "msra"}, "unknown initializer 'msra'; valid: gaussian, truncated, xavier, he, lecun"),
        ({"dropout": -0.1}, "dropout = -0.1"),
        ({"norm_momentum": 1.0}, "norm_momentum = 1.0"),
        ({"ghost_batch_size": -1}, "ghost_batch_size = -1: expected at least 0"),
        ({"ghost_batch_size": 32, "norm": "group"}, "ghost_batch_size = 32: expected 0, or norm='batch'"),
        ({"norm_epsilon": 0.0}, "norm_epsilon = 0.0: expected more than 0"),
    ],
)
def test_a_wrong_field_says_what_is_valid(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        network.Network(**fields)


def test_a_range_may_be_of_each_number_of_a_sequence_and_a_subclass_may_narrow_it() -> None:
    class Own(network.Network):
        norm: str = network.field("none", choices=("none",))
        dropout: float = 0.5  # keeps the range of the base
        sizes: tuple[int, ...] = network.field((2, 2), minimum=1, maximum=3, length=2)

    assert Own().dropout == 0.5
    for fields, message in (
        ({"norm": "batch"}, "unknown norm 'batch'; valid: none"),
        ({"dropout": 1.0}, "dropout = 1.0: expected at least 0 and less than 1"),
        ({"sizes": (1, 4)}, "sizes = (1, 4): expected at least 1 and at most 3 for each"),
        ({"sizes": (1,)}, "sizes = (1,): expected 2 values"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            Own(**fields)  # pyright: ignore[reportArgumentType]
