"""Residual networks: shortcuts alone, blocks as a loop, stochastic depth and initial weights."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnjax.models import create_model
from tests.models import zoo


@pytest.mark.parametrize(
    ("text", "first", "rest"),
    [
        ("cifar_resnet20", r"stage\d_block1", r"(stage\d_block)\d+"),
        ("cifar_preresnet110(stage_sizes=(3, 3, 2))", r"conv\d_1", r"(conv\d_)\d+"),
    ],
)
@pytest.mark.parametrize("remat", [False, True])
def test_blocks_as_a_loop_give_the_same(text: str, first: str, rest: str, remat: bool) -> None:
    """Their variables are those of single blocks, stacked."""
    (single, variables), x = zoo.made(zoo.with_fields(text, remat=remat)), zoo.example(text, 2)
    loop = create_model(zoo.with_fields(text, remat=remat, scan=True), 10)
    shapes = jax.eval_shape(lambda: loop.init(zoo.key(), x, train=False))

    def stacked(tree: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, leaf in tree.items():
            if (match := re.fullmatch(rest, name)) and not re.fullmatch(first, name):
                found.setdefault(next(other for other in like if re.fullmatch(match[1] + "[a-z]+", other)), []).append(
                    leaf
                )
            else:
                found[name] = leaf
        join = functools.partial(jax.tree.map, lambda *leaves: jnp.stack(leaves))
        return {name: join(*leaf) if isinstance(leaf, list) else leaf for name, leaf in found.items()}

    def gradient(model: nn.Module, variables: Any) -> Any:
        def loss(params: Any) -> Any:
            logits, new = model.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
            return jnp.sum(logits**2), new

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])

    (value, new), grads = gradient(single, variables)
    whole = {name: stacked(tree, shapes[name]) for name, tree in variables.items()}
    (looped, looped_new), looped_grads = gradient(loop, whole)
    expected = value, stacked(new["batch_stats"], shapes["batch_stats"]), stacked(grads, shapes["params"])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max()),
        (looped, looped_new["batch_stats"], looped_grads),
        expected,
    )


@pytest.mark.parametrize("text", ["cifar_resnet20", "cifar_plain20"])
def test_without_residuals_only_shortcuts_remain(text: str) -> None:
    """With every F(x) = 0, option A leaves every second pixel between zeros, and a plain network forgets its input."""
    model, variables = zoo.made(text)
    variables = jax.tree.map(np.copy, variables)
    for name, block in variables["params"].items():
        if name.startswith("stage"):
            block["norm2"] = jax.tree.map(np.zeros_like, block["norm2"])
    logits, outputs = zoo.layer_outputs(model, variables, zoo.example(text))
    y = np.maximum(outputs["norm1"], 0)
    for stage, channels in ((2, 32), (3, 64)):
        wide = np.zeros((2, y.shape[1] // 2, y.shape[2] // 2, channels), np.float32)
        for row in range(wide.shape[1]):
            for column in range(wide.shape[2]):
                wide[:, row, column, channels // 4 : channels // 4 + channels // 2] = y[:, 2 * row, 2 * column]
        y = wide if text == "cifar_resnet20" else np.zeros_like(wide)
        np.testing.assert_array_equal(outputs[f"stage{stage}_block1"], y)
    head = variables["params"]["head"]
    np.testing.assert_allclose(logits, y.mean((1, 2)) @ head["kernel"] + head["bias"], rtol=1e-5, atol=1e-5)


def test_initial_weights_are_drawn_as_published() -> None:
    params = zoo.started("cifar_resnet20")[1]["params"]
    assert np.std(params["stage3_block2"]["conv1"]["kernel"]) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)
    assert np.std(params["stage3_block1"]["conv1"]["kernel"]) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)
    params = zoo.started("lenet5_1998")[1]["params"]
    bounds = {"c1": 2.4 / 25, "c5": 2.4 / 400, "f6": 2.4 / 120}
    for name, bound in bounds.items():
        assert 0.95 * bound < np.abs(params[name]["kernel"]).max() <= bound
    largest = np.abs(params["c3"]["kernel"]).max((0, 1))
    assert 0.9 * 2.4 / 75 < largest[:18].max() <= 2.4 / 75  # three channels in
    assert 0.9 * 2.4 / 150 < largest[-6:].max() <= 2.4 / 150  # six channels in
    params = zoo.started("deep_mlp")[1]["params"]
    assert np.abs(params["hidden5"]["kernel"]).max() == pytest.approx(0.05, rel=1e-3)
