"""Batch normalization as a primitive: equal to its definition, in every derivative and transform."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from cnnjax.ops import batch_norm, onednn

Operands = tuple[jax.Array, jax.Array, jax.Array]


def definition(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, relu: bool) -> Any:
    axes = tuple(range(x.ndim - 1))
    scale, bias = (value.reshape((1,) * len(axes) + (-1,)) for value in (scale, bias))
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    y = (x - mean) / jnp.sqrt(var + epsilon) * scale + bias
    return jax.nn.relu(y) if relu else y, mean.ravel(), var.ravel()


def operands(shape: tuple[int, ...]) -> Operands:
    rng = np.random.default_rng(0)
    x, scale, bias = rng.normal(1, 2, shape), rng.normal(1, 0.5, shape[-1]), rng.normal(0, 1, shape[-1])
    return jnp.asarray(x, jnp.float32), jnp.asarray(scale, jnp.float32), jnp.asarray(bias, jnp.float32)


@pytest.mark.parametrize("channels", [12, 16])
def test_an_optimizer_step_calls_the_library_once_forward_and_once_backward(channels: int) -> None:
    if not onednn.load().ok:
        pytest.skip(onednn.load().text)
    loss = jax.grad(lambda x, scale, bias: batch_norm.batch_norm(x, scale, bias, 1e-5, True)[0].sum(), (0, 1, 2))
    text = jax.jit(loss).lower(*operands((4, 5, 6, channels))).compile().as_text() or ""
    for target in (onednn.NORMALIZE, onednn.NORMALIZE_BACKWARD):
        assert text.count(f'custom_call_target="{target}"') == 1


@pytest.mark.skipif(not onednn.load().ok, reason=onednn.load().text)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    "axes", [("data",), ("data", None, None, "model"), (None,), (None, "data")], ids=["batch", "both", "none", "rows"]
)
@pytest.mark.parametrize("channels", [12, 16])
def test_several_devices_normalize_as_one_does(channels: int, axes: tuple[str | None, ...], relu: bool) -> None:
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    x, scale, bias = operands((8, 4, 5, channels))
    args = 100 + x, scale, bias
    places = tuple(NamedSharding(mesh, PartitionSpec(*spec)) for spec in (axes, (), ()))

    def results_and_gradients(*args: jax.Array) -> Any:
        normalize = functools.partial(batch_norm.batch_norm, epsilon=1e-5, relu=relu)
        results, back = jax.vjp(normalize, *args)
        return results, back((jnp.cos(x), jnp.zeros_like(scale), jnp.zeros_like(scale)))

    compute = jax.jit(results_and_gradients)
    on_several = jax.device_put(args, places)
    text = compute.lower(*on_several).compile().as_text() or ""
    for target in onednn.TARGETS_OF_SHARDS:
        assert text.count(f'custom_call_target="{target}"') == 1
    for a, b in zip(jax.tree.leaves(compute(*on_several)), jax.tree.leaves(compute(*args)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


@pytest.fixture(scope="module", params=["library", "formula"])
def implementation(request: pytest.FixtureRequest) -> Iterator[str]:
    """Sets what computes the primitives, once for all tests of one: JAX must forget what it compiled for the other."""
    if request.param == "library" and not onednn.load().ok:
        pytest.skip(onednn.load().text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_norm, "uses_onednn", lambda context: request.param == "library")
        jax.clear_caches()
        yield request.param
    jax.clear_caches()


def everything(normalize: Callable[..., Any], relu: bool, *args: jax.Array) -> Any:
    """The results, first derivatives in both modes, second ones in both, and those of several examples at once."""

    def loss(*args: jax.Array) -> jax.Array:
        y, mean, var = normalize(*args, 1e-5, relu)
        return jnp.sum(jnp.sin(y) * jnp.cos(args[0])) + jnp.sum(mean * var)

    gradient = jax.grad(loss, (0, 1, 2))
    changes = tuple(map(jnp.cos, args))
    several = jax.vmap(gradient, (0, None, None))(jnp.stack([args[0], 2 * args[0]]), *args[1:])
    return {
        "results": normalize(*args, 1e-5, relu),
        "gradient": jax.checkpoint(gradient)(*args),
        "tangent": jax.jvp(loss, args, changes)[1],
        "forward over reverse": jax.jvp(gradient, args, changes)[1],
        "reverse over reverse": jax.vjp(gradient, *args)[1](changes),
        "of several": several,
        "of the scale alone": jax.grad(loss, 1)(*args),
    }


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(16, 8), (16, 3), (8, 7, 7, 16), (3, 2, 5, 5, 8)], ids=str)
def test_batch_normalization_is_its_definition_in_all_derivatives(
    shape: tuple[int, ...], relu: bool, implementation: str
) -> None:
    found, expected = (
        jax.jit(functools.partial(everything, f, relu))(*operands(shape)) for f in (batch_norm.batch_norm, definition)
    )
    for name, values in expected.items():
        for a, b in zip(jax.tree.leaves(found[name]), jax.tree.leaves(values), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max(), err_msg=name)


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("dtypes", [("bfloat16", "bfloat16"), ("float32", "bfloat16"), ("float16", "float32")], ids=str)
def test_scale_and_bias_of_other_types_are_computed_by_the_formula(dtypes: tuple[str, str], devices: int) -> None:
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    x, scale, bias = operands((8, 4, 5, 16))
    args = x, scale.astype(dtypes[0]), bias.astype(dtypes[1])
    expected = everything(definition, True, *(value.astype(jnp.float32) for value in args))["results"]
    places = tuple(NamedSharding(mesh, PartitionSpec(*spec)) for spec in (("data",), (), ()))
    found = jax.jit(functools.partial(everything, batch_norm.batch_norm, True))(*jax.device_put(args, places))[
        "results"
    ]
    assert [value.dtype for value in found] == [jnp.float32, *[jnp.dtype(dtypes[0])] * 2]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.astype(jnp.float32), b, rtol=0.02, atol=0.02 * np.abs(b).max())


@pytest.mark.parametrize("shape", [(4, 0, 5, 8), (0, 3, 3, 8)], ids=str)
def test_images_without_pixels_stay_empty(shape: tuple[int, ...]) -> None:
    x, scale, bias = operands(shape)
    assert jax.jit(functools.partial(batch_norm.batch_norm, epsilon=1e-5))(x, scale, bias)[0].shape == shape


def test_bfloat16_is_normalized_in_float32() -> None:
    x, scale, bias = operands((8, 7, 7, 4))
    y, mean, _ = batch_norm.batch_norm(x.astype(jnp.bfloat16), scale, bias, 1e-5, True)
    assert (y.dtype, mean.dtype) == (jnp.bfloat16, jnp.float32)
    expected = definition(x.astype(jnp.bfloat16).astype(jnp.float32), scale, bias, 1e-5, True)
    np.testing.assert_allclose(y.astype(jnp.float32), expected[0], rtol=0.01, atol=0.01)
    np.testing.assert_allclose(mean, expected[1], rtol=1e-5)


@pytest.mark.skipif(not onednn.load().ok, reason=onednn.load().text)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    "shape", [(16, 3), (8, 7, 7, 16), (3, 2, 5, 5, 8), (9, 31, 33, 12), (40, 1001), (24, 32771)], ids=str
)
def test_the_library_agrees_with_the_formulas(shape: tuple[int, ...], dtype: Any, relu: bool) -> None:
    """In float64; shapes of one chunk and of several, whose last is shorter, and with rows that are not whole."""
    if dtype == jnp.bfloat16 and onednn.load().bfloat16 == onednn.NONE:
        pytest.skip("oneDNN has no bfloat16 on this processor")
    x, scale, bias = operands(shape)
    x, options = x.astype(dtype), {"epsilon": 1e-5, "relu": relu}
    g, rounding = jnp.cos(x), float(jnp.finfo(dtype).eps)
    y, mean, var, workspace = jax.jit(functools.partial(batch_norm._normalize_by_library, **options))(x, scale, bias)
    residuals = (x, scale, bias, mean, var, workspace)
    found = jax.jit(functools.partial(batch_norm._gradient_by_library, **options))(g, *residuals)
    assert [value.dtype for value in (y, mean, var, *found)] == [dtype, *[jnp.float32] * 2, dtype, *[jnp.float32] * 2]
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(value, np.float64)) for value in (g, x, scale, bias)]
        exact = definition(wide[1], wide[2], wide[3], 1e-5, relu)
        gradients = batch_norm._gradient(*wide, *exact[1:], None, **options)
    for a, b, error in zip((y, mean, var, *found), (*exact, *gradients), [rounding, 1e-6, 1e-6] * 2, strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=2 * error, atol=4 * error * np.abs(b).max())


@pytest.mark.skipif(not onednn.load().ok, reason=onednn.load().text)
def test_the_library_keeps_nan_and_large_means() -> None:
    normalize = jax.jit(functools.partial(batch_norm._normalize_by_library, epsilon=1e-5, relu=True))
    x, scale, bias = operands((50, 8, 8, 12))
    y, _, var, _ = normalize(1e4 + x, scale, bias)
    np.testing.assert_allclose(var, np.var(np.asarray(1e4 + x), (0, 1, 2), dtype=np.float64), rtol=1e-4)
    assert jnp.isfinite(y).all()
    for dtype in (jnp.float32, jnp.bfloat16):  # with 12 channels, our own code
        y, mean, *_ = normalize(x.astype(dtype).at[3, 4, 5, 6].set(jnp.nan), scale, bias)
        for values in (y, mean):
            np.testing.assert_array_equal(np.isnan(values).all(tuple(range(values.ndim - 1))), np.arange(12) == 6)
