"""Gradients per convolution and responses per block, against values computed by hand."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnjax.models import create_model
from cnnjax.models.blocks import sow_aux_logits
from cnnjax.state import Tree
from cnnjax.study import propagation
from tests import tiny

X, A, B = 2.0, 0.5, np.array([1.0, -3.0])  # a pixel, and the weights of the two convolutions
PROBABILITIES = np.exp(A * X * B) / np.exp(A * X * B).sum()
ERROR = PROBABILITIES - np.array([0.0, 1.0])  # the gradient of the loss with respect to the logits; the label is 1


class TwoConvolutions(nn.Module):
    """Logits b * a * x of one pixel, from two 1x1 convolutions whose names are not in the order of their calls."""

    aux: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Conv(1, (1, 1), use_bias=False, name="z_first")(x)
        logits = nn.Conv(2, (1, 1), use_bias=False, name="a_last")(x)[:, 0, 0]
        if self.aux:
            sow_aux_logits(self, lambda: logits, train)
        return logits


@pytest.mark.parametrize(("aux", "weight", "factor"), [(False, 0.3, 1), (True, 0.3, 1.3), (True, 0.0, 1)])
def test_the_gradients_are_those_of_the_chain_rule(aux: bool, weight: float, factor: float) -> None:
    params = {"z_first": {"kernel": jnp.full((1, 1, 1, 1), A)}, "a_last": {"kernel": jnp.array(B).reshape(1, 1, 1, 2)}}
    config = tiny.config(aux_weight=weight)
    run = propagation.RunBatch(
        config, TwoConvolutions(aux), {"params": params}, {}, jnp.full((1, 1, 1, 1), X), np.array([1]), 2
    )
    gradients = propagation.kernel_gradients(run, run.start)
    assert list(gradients) == ["z_first", "a_last"]
    first, last = abs(X * ERROR @ B), np.sqrt(np.mean((A * X * ERROR) ** 2))
    np.testing.assert_allclose(list(gradients.values()), [factor * first, factor * last], rtol=1e-5)


@pytest.mark.parametrize("shortcut", ["B", "none"])
def test_the_response_is_that_of_the_last_normalization_in_each_block(shortcut: str) -> None:
    """Batch normalization gives a standard deviation of its scale; that of a shortcut does not count."""
    model = create_model(f"cifar_resnet20(depth=14, shortcut='{shortcut}')", 10, "float32")
    images = jax.random.normal(jax.random.key(0), (8, 8, 8, 3))
    variables: Tree = model.init({"params": jax.random.key(1)}, images, train=True)
    block = variables["params"]["stage2_block1"]
    block["norm1"]["scale"] = jnp.full_like(block["norm1"]["scale"], 5.0)
    block["norm2"]["scale"] = jnp.full_like(block["norm2"]["scale"], 3.0)
    responses = propagation.block_responses(model, variables, images)
    names = [f"stage{stage}_block{i}" for stage in (1, 2, 3) for i in (1, 2)]
    assert list(responses) == names
    expected = [3.0 if name == "stage2_block1" else 1.0 for name in names]
    np.testing.assert_allclose([branch for branch, _ in responses.values()], expected, rtol=1e-3)


@pytest.mark.slow
def test_a_run_is_measured_before_and_after_its_training(tmp_path: pathlib.Path, digits_dir: str) -> None:
    tiny.run(tmp_path / "run", digits_dir, model="cifar_resnet20(depth=8)", lr=0.5, duration="4 steps")
    result = propagation.gradient_flow(tmp_path / "run", digits_dir, ("start", "end"))
    assert [len(result[f"gradient_{time}"]) for time in ("start", "end")] == [7, 7]
    for time in ("start", "end"):
        first, *_, last = result[f"gradient_{time}"]
        assert result[f"decades_{time}"] == pytest.approx(np.log10(first / last))
        assert result[f"unevenness_{time}"] == abs(result[f"decades_{time}"])
    assert result["gradient_start"] != result["gradient_end"]
    responses = propagation.residual_responses(tmp_path / "run", digits_dir)
    assert responses["mean_response_start"] == pytest.approx(1, abs=0.01)  # the initial scale
    assert len(responses["response_end"]) == 3
    assert responses["mean_response_end"] != pytest.approx(1, abs=0.01)
