"""Backward rules: a layer's backward step is the adjoint of its linear part; nonlinearities follow the papers."""

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnjax.errors import InputError
from cnnjax.models import create_model
from cnnjax.models.blocks import SqueezeExcite, TiledConv
from cnnjax.models.layers import (
    ACTIVATIONS,
    FullyConnected,
    avg_pool,
    conv,
    global_avg_pool,
    max_pool,
    prelu,
)
from cnnjax.models.lenet import SubSampling, TableConv
from cnnjax.models.normalization import BatchNorm, local_response_norm, spatial_response_norm
from cnnjax.models.prelunet import pyramid_pool
from cnnjax.visualize import rules
from tests.models import zoo

LINEAR_PART = rules.Rule(rectifies=False, has_slope=False, holds=True)
SHAPE = (2, 7, 6, 6)  # of the feature maps that go into a layer

# ------------------------------------------------------------------------------- the linear part of a layer, in NumPy

Linear = Callable[[np.ndarray, np.ndarray], np.ndarray]  # x, where switches and denominators are from; v -> A v


def max_pool_part(x: np.ndarray, v: np.ndarray, window: int, stride: int, padding: int, ceil: bool) -> np.ndarray:
    """Takes v where each window of x has its maximum."""

    def starts(size: int) -> list[int]:
        last = size - window + 2 * padding
        count = (-(-last // stride) if ceil else last // stride) + 1
        return [i * stride - padding for i in range(count) if i * stride < size + padding]

    rows, columns = starts(x.shape[1]), starts(x.shape[2])
    out = np.zeros((len(x), len(rows), len(columns), x.shape[3]))
    for n, i, j, c in np.ndindex(out.shape):
        places = [
            (y, z)
            for y in range(rows[i], rows[i] + window)
            for z in range(columns[j], columns[j] + window)
            if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]
        ]
        y, z = max(places, key=lambda place: x[n, *place, c])
        out[n, i, j, c] = v[n, y, z, c]
    return out


def lrn_part(x: np.ndarray, v: np.ndarray) -> np.ndarray:
    out = np.zeros_like(v)
    for c in range(x.shape[-1]):
        near = x[..., max(0, c - 2) : c + 3]
        out[..., c] = v[..., c] * (2 + 1e-4 * (near**2).sum(-1)) ** -0.75
    return out


def spatial_norm_part(x: np.ndarray, v: np.ndarray) -> np.ndarray:
    out = np.zeros_like(v)
    for i, j in np.ndindex(x.shape[1:3]):
        near = x[:, max(0, i - 2) : i + 3, max(0, j - 2) : j + 3]
        out[:, i, j] = v[:, i, j] * (1 + 4e-5 * (near**2).sum((1, 2))) ** -0.75
    return out


def group_norm_part(x: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Subtracts the mean of each of 2 groups from v, and divides by the deviation of x."""
    x, v = (array.reshape(*array.shape[:3], 2, -1) for array in (x, v))
    deviation = np.sqrt(x.var((1, 2, 4), keepdims=True) + 1e-6)
    return ((v - v.mean((1, 2, 4), keepdims=True)) / deviation).reshape(SHAPE)


def pyramid_part(x: np.ndarray, v: np.ndarray) -> np.ndarray:
    parts = []
    for bins in (3, 1):
        for i, j in np.ndindex(bins, bins):
            spans = [slice(k * n // bins, -(-(k + 1) * n // bins)) for k, n in ((i, x.shape[1]), (j, x.shape[2]))]
            inside, moved = (array[:, *spans].reshape(len(x), -1, x.shape[3]) for array in (x, v))
            parts.append(np.take_along_axis(moved, inside.argmax(1)[:, None], 1)[:, 0])
    return np.concatenate(parts, 1)


def applied(module: nn.Module) -> Callable[[Any], Any]:
    """The layer with random variables, none of which is 0 or 1."""

    @functools.cache
    def variables() -> Any:
        shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), np.zeros(SHAPE))
        rng = np.random.default_rng(0)
        drawn: Any = jax.tree.map(lambda leaf: rng.uniform(0.2, 1, leaf.shape) * rng.choice((-1, 1)), shapes)
        if "batch_stats" in drawn:
            drawn["batch_stats"]["var"] = np.abs(drawn["batch_stats"]["var"])
        return drawn

    return lambda x: module.apply(variables(), x)


def padded_sum(x: jax.Array) -> jax.Array:
    return x[:, ::2, ::2] + jnp.pad(x[:, 1::2, ::2, :3], ((0, 0), (0, 1), (0, 0), (0, 3)))


def squeeze_excite_part(x: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Multiplies v by the gates of x, which are what the layer does to ones."""
    return v * (np.asarray(GATED(x)) / x)


WIDE = {"dtype": jnp.float64}
GATED = applied(SqueezeExcite(partial(nn.Dense, **WIDE), 2))
conv6 = partial(conv, 6, **WIDE)

# Each layer with its linear part; None for a layer that is affine: A v is f(v) - f(0).
LAYERS: dict[str, tuple[Callable[[Any], Any], Linear | None]] = {
    "convolution": (applied(conv6(3, 1)), None),
    "convolution with stride": (applied(conv6(3, 2, 0)), None),
    "convolution with stride, SAME": (applied(conv6(3, 2, "SAME")), None),
    "convolution in groups": (applied(conv6(3, 1, groups=3)), None),
    "depthwise convolution": (applied(conv6((3, 1), 1, groups=6)), None),
    "dilated convolution": (applied(conv6(3, 1, dilation=2)), None),
    "convolution with copied borders": (applied(conv6(3, 1, padding_mode="edge")), None),
    "convolution with mirrored borders": (applied(conv6(3, 1, padding_mode="reflect")), None),
    "tiled convolution": (applied(TiledConv(4, 3, **WIDE)), None),
    "convolution by a table": (applied(TableConv(**WIDE)), None),
    "subsampling": (applied(SubSampling(**WIDE)), None),
    "fully connected": (applied(FullyConnected(5, **WIDE)), None),
    "fully connected, sliding": (applied(FullyConnected(5, 3, **WIDE)), None),
    "batch norm": (applied(BatchNorm(use_running_average=True, **WIDE)), None),
    "average pool": (partial(avg_pool, window=3, stride=2, padding=1), None),
    "average pool, ceil": (partial(avg_pool, window=3, stride=2, ceil=True, count_padding=False), None),
    "global average pool": (global_avg_pool, None),
    "residual sum with padded channels": (padded_sum, None),
    "concatenation": (lambda x: jnp.concatenate([x, 2 * x[..., ::-1]], -1), None),
    "max pool": (partial(max_pool, window=2), partial(max_pool_part, window=2, stride=2, padding=0, ceil=False)),
    "overlapping max pool": (
        partial(max_pool, window=3, stride=2, padding=1),
        partial(max_pool_part, window=3, stride=2, padding=1, ceil=False),
    ),
    "overlapping max pool, ceil": (
        partial(max_pool, window=3, stride=2, ceil=True),
        partial(max_pool_part, window=3, stride=2, padding=0, ceil=True),
    ),
    "pyramid pool": (partial(pyramid_pool, levels=(3, 1)), pyramid_part),
    "local response norm": (local_response_norm, lrn_part),
    "spatial response norm": (spatial_response_norm, spatial_norm_part),
    "group norm": (applied(nn.GroupNorm(2, use_bias=False, use_scale=False, **WIDE)), group_norm_part),
    "squeeze-and-excitation": (GATED, squeeze_excite_part),
    **{name: (function, lambda x, v: v) for name, function in ACTIVATIONS.items() if name != "prelu"},
    "scaled_tanh": (ACTIVATIONS["scaled_tanh"], lambda x, v: 1.7159 * (2 / 3) * v),
    "prelu": (partial(prelu, slope=0.3), lambda x, v: v),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_the_backward_step_of_a_layer_is_the_adjoint_of_its_linear_part(name: str) -> None:
    function, linear = LAYERS[name]
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        x, v = rng.normal(size=(2, *SHAPE))
        g = rng.normal(size=jax.eval_shape(function, x).shape)

        @jax.jit
        def compute(x: jax.Array, v: jax.Array, g: jax.Array) -> Any:
            y, back = jax.vjp(rules.evaluated_with(function, LINEAR_PART), x)
            return y, function(x), function(v) - function(0 * v), back(g)[0]

        y, expected, difference, backward = jax.device_get(compute(x, v, g))
        forward = linear(x, v) if linear else difference
    np.testing.assert_array_equal(y, expected)
    assert backward.dtype == np.float64
    assert abs((forward * g).sum() - (v * backward).sum()) < 1e-10 * np.linalg.norm(forward) * np.linalg.norm(g)


LOOPS = tuple(f"cifar_preresnet110(stage_sizes=(3, 1), {option}=True)" for option in ("scan", "remat"))
EVERY = [(text, text not in zoo.REDUCED) for text in zoo.COMPUTED] + [(text, False) for text in LOOPS]


@pytest.mark.parametrize("text", zoo.computed(lambda text: "features_only" in zoo.fields_of(text)))
def test_the_backward_pass_of_a_network_is_the_adjoint_of_its_linear_part(text: str) -> None:
    """With switches, gates and denominators held, and without rectification, from every layer to the image."""
    _, variables = zoo.made(text)
    model = create_model(zoo.with_fields(text, features_only=True), 10, "float64")
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, v = rng.normal(size=(2, 2, *zoo.smallest(text)))

        @jax.jit
        def both(x: jax.Array, v: jax.Array, g: Any) -> Any:
            linear_part = rules.evaluated_with(lambda x: model.apply(variables, x, train=False), LINEAR_PART)
            return jax.jvp(linear_part, (x,), (v,))[1], jax.vjp(linear_part, x)[1](g)[0]

        shapes: Any = jax.eval_shape(lambda x: model.apply(variables, x, train=False), x)
        g = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)
        forward, backward = jax.device_get(both(x, v, g))
    assert {leaf.dtype for leaf in jax.tree.leaves((forward, backward))} == {np.dtype("float64")}
    pairs = jax.tree.map(lambda a, b: (a * b).sum(), forward, g)
    sizes = jax.tree.map(lambda a, b: np.linalg.norm(a) * np.linalg.norm(b), forward, g)
    total = sum(jax.tree.leaves(sizes))
    assert total > 0
    assert abs(sum(jax.tree.leaves(pairs)) - (v * backward).sum()) < 1e-10 * total


LARGE = (pytest.mark.slow, pytest.mark.zoo)


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
@pytest.mark.parametrize("text", [pytest.param(text, marks=LARGE if large else ()) for text, large in EVERY])
def test_the_logits_of_every_network_follow_the_rules(text: str, rule: str) -> None:
    """Without computing: an operation that a rule does not know is noticed when a network is traced."""
    model, x = create_model(text, 10), jax.ShapeDtypeStruct((1, *zoo.smallest(text)), jnp.float32)

    def signal(x: jax.Array) -> jax.Array:
        variables = model.init(zoo.key(), x, train=False)
        logits, back = jax.vjp(rules.with_rule(lambda x: model.apply(variables, x, train=False), rule), x)
        return back(logits)[0]

    assert jax.eval_shape(signal, x).shape == x.shape


# ---------------------------------------------------------------------------------------------------- nonlinearities

Z = np.array([-2.0, -0.5, 0.0, 0.5, 2.0, 7.0], np.float32)
SIGNALS = (
    np.array([1.0, -1.0, 1.0, -1.0, 1.0, 1.0], np.float32),
    np.array([-1.0, 1.0, 2.0, 1.0, -1.0, -2.0], np.float32),
)


@pytest.mark.parametrize("g", SIGNALS, ids=["g", "h"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_an_activation_does_to_a_backward_signal(name: str, g: np.ndarray) -> None:
    function = partial(prelu, slope=0.3) if name == "prelu" else ACTIVATIONS[name]
    rectified = g if name in ("tanh", "scaled_tanh", "sigmoid", "step") else np.maximum(g, 0)
    slope = jax.vmap(jax.grad(function))(jnp.asarray(Z))
    scale = {"scaled_tanh": 1.7159 * 2 / 3, "selu": 1}.get(name, 1)  # constants around an activation are linear layers
    expected = {"gradient": slope * g, "guided": slope * rectified, "deconvnet": scale * rectified}
    for rule, signal in expected.items():
        y, back = jax.vjp(rules.with_rule(function, rule), Z)
        np.testing.assert_array_equal(y, function(jnp.asarray(Z)))
        np.testing.assert_allclose(back(g)[0], signal, rtol=1e-6, err_msg=rule)


def test_a_relu_written_as_a_maximum_is_one() -> None:
    for rule in ("guided", "deconvnet"):
        signals = [jax.vjp(rules.with_rule(f, rule), Z[Z != 0])[1](SIGNALS[0][Z != 0])[0] for f in RELUS]
        np.testing.assert_array_equal(*signals)


RELUS: tuple[Callable[[Any], Any], ...] = (jax.nn.relu, lambda x: jnp.maximum(x, 0))

UNKNOWN: dict[str, tuple[Callable[[Any], Any], str]] = {
    "an unknown function": (jnp.sin, "no backward rule for sin: expected linear operations"),
    "a comparison": (lambda x: jnp.where(x > 0, x, 0), "no backward rule for gt"),
    "a threshold": (lambda x: jnp.maximum(x, 1), "no backward rule for max with a number other than 0"),
    "an unnamed gelu": (lambda x: jax.nn.gelu(x, approximate=False), "no backward rule for erfc"),
    "a derivative of its own": (
        lambda x: jnp.logaddexp(x, 1),
        "no backward rule for the function '', which has a deri",
    ),
    "indices": (lambda x: x[jnp.argmax(x)], "no backward rule for argmax"),
}
UNKNOWN_TO_HOLD: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a product": (lambda x: x * x[::-1], "no backward rule for mul of two feature maps"),
    "a scalar product": (lambda x: x @ x, "no backward rule for dot_general of two feature maps"),
    "a power": (lambda x: (x**2 + 1) ** 0.5, "no backward rule for a denominator without a numerator"),
    "a power in a branch": (lambda x: x + jnp.exp(x), "no backward rule for add of a signal and a denominator"),
}


@pytest.mark.parametrize(
    ("rule", "what"),
    [(rule, what) for rule in ("guided", "deconvnet") for what in UNKNOWN]
    + [("deconvnet", what) for what in UNKNOWN_TO_HOLD],
)
def test_an_operation_without_a_rule_is_named(rule: str, what: str) -> None:
    function, message = (UNKNOWN | UNKNOWN_TO_HOLD)[what]
    with pytest.raises(InputError, match=message):
        rules.with_rule(function, rule)(Z)
    np.testing.assert_array_equal(rules.with_rule(function, "gradient")(Z), function(Z))


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(InputError, match=r"unknown rule 'guidde'; did you mean 'guided'\?"):
        rules.with_rule(jax.nn.relu, "guidde")


@pytest.mark.parametrize("rule", ["guided", "deconvnet"])
def test_blocks_in_a_loop_and_rematerialized_blocks_follow_the_rule(rule: str) -> None:
    def apply(x: jax.Array, form: str) -> jax.Array:
        def block(x: jax.Array, w: jax.Array) -> jax.Array:
            return x + jax.nn.relu(x @ w)

        if form == "loop":
            return jax.lax.scan(lambda x, w: (block(x, w), None), x, weights)[0]
        for w in weights:
            x = (jax.checkpoint(block) if form == "remat" else block)(x, w)
        return x

    rng = np.random.default_rng(0)
    weights, x, g = (jnp.asarray(rng.normal(size=shape)) for shape in ((3, 4, 4), (2, 4), (2, 4)))
    signals = [
        jax.vjp(rules.with_rule(partial(apply, form=form), rule), x)[1](g)[0] for form in ("plain", "loop", "remat")
    ]
    for signal in signals[1:]:
        np.testing.assert_allclose(signal, signals[0], rtol=1e-5)
