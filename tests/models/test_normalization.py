"""Batch, group and response normalization against their definitions."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from cnnjax.models import network
from cnnjax.models.normalization import BatchNorm, local_response_norm, spatial_response_norm
from tests.models import calls


@pytest.mark.parametrize(("size", "beta"), [(5, 0.75), (4, 0.75), (3, 0.5)])
@pytest.mark.parametrize("shape", [(2, 3, 3, 7), (4, 7)])
def test_response_normalization_is_eq_1_of_the_paper(shape: tuple[int, ...], size: int, beta: float) -> None:
    x = calls.noise(*shape) * 50
    expected = np.empty_like(x)
    for i in range(7):
        neighbours = x[..., max(0, i - size // 2) : min(7, i + (size + 1) // 2)]
        expected[..., i] = x[..., i] / (2 + 1e-4 * (neighbours**2).sum(-1)) ** beta
    np.testing.assert_allclose(local_response_norm(jnp.asarray(x), size, beta=beta), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [5, 4, 1])
def test_spatial_normalization_divides_by_the_energy_of_a_window_of_its_channel(size: int) -> None:
    x = calls.noise(2, 6, 7, 3) * 50
    before, after = size // 2, size - size // 2
    expected = np.empty_like(x)
    for i, j in np.ndindex(6, 7):
        window = x[:, max(0, i - before) : i + after, max(0, j - before) : j + after]
        expected[:, i, j] = x[:, i, j] / (1 + 0.001 / 25 * (window**2).sum((1, 2))) ** 0.75
    np.testing.assert_allclose(spatial_response_norm(jnp.asarray(x), size), expected, rtol=1e-5)


@pytest.mark.parametrize("norm", [local_response_norm, spatial_response_norm])
def test_response_normalizations_have_exact_gradients_in_float64(norm: Any) -> None:
    x, weights = 50 * calls.noise(2, 5, 4, 6), calls.noise(2, 5, 4, 6, seed=1)
    with jax.enable_x64(True):
        check = functools.partial(jax.test_util.check_grads, order=1, modes=["rev"], eps=1e-3, rtol=1e-6)
        check(jax.jit(lambda x: (norm(x) * weights).sum()), (np.float64(x),))


def normalized(x: jax.Array, scale: jax.Array, bias: jax.Array, group: int) -> tuple[jax.Array, ...]:
    """The definition: x normalized by group to mean `bias` and deviation `scale`; the groups' means and variances."""
    groups = x.reshape(-1, group, *x.shape[1:])
    axes = tuple(range(1, x.ndim))
    mean, var = groups.mean(axes, keepdims=True), groups.var(axes, keepdims=True)
    scale, bias = (v.reshape((1,) * x.ndim + (-1,)) for v in (scale, bias))
    return ((groups - mean) / jnp.sqrt(var + 1e-5) * scale + bias).reshape(x.shape), mean, var


@pytest.mark.parametrize("shape", [(12, 4, 5, 3), (12, 3)])
@pytest.mark.parametrize(("ghost", "group"), [(0, 12), (12, 12), (4, 4), (3, 3)])
def test_batch_normalization_is_of_groups_and_its_gradient_that_of_the_definition(
    ghost: int, group: int, shape: tuple[int, ...]
) -> None:
    x, weights = 2 * calls.noise(*shape) + calls.noise(12, *(1 for _ in shape[1:]), seed=1), calls.noise(*shape, seed=2)
    model = BatchNorm(use_running_average=False, ghost_batch_size=ghost)
    params = {"scale": jnp.array([0.5, 1.0, 2.0]), "bias": jnp.array([1.0, 0.0, -1.0])}
    state = {"mean": np.array([1.0, 2.0, 3.0], np.float32), "var": np.ones(3, np.float32)}

    def ours(x: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        y, new = calls.apply(model, {"params": params, "batch_stats": state}, x, mutable=["batch_stats"])
        return (y * weights).sum(), (y, new["batch_stats"])

    def theirs(x: jax.Array, params: Any) -> tuple[jax.Array, Any]:
        y, mean, var = normalized(x, params["scale"], params["bias"], group)
        moments = {"mean": mean, "var": var}
        new = {name: 0.9 * state[name] + 0.1 * moments[name].reshape(-1, 3).mean(0) for name in state}
        return (y * weights).sum(), (y, new)

    got, want = (jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))(jnp.asarray(x), params) for f in (ours, theirs))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4), got, want)
    plain = BatchNorm(use_running_average=True, ghost_batch_size=ghost)  # groups are of training alone
    y = calls.apply(plain, {"params": params, "batch_stats": state}, x[:5])
    expected = (x[:5] - state["mean"]) / np.sqrt(1 + 1e-5) * np.array(params["scale"]) + np.array(params["bias"])
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ghost", [0, 3])
def test_second_derivatives_of_batch_normalization_are_those_of_the_definition(ghost: int) -> None:
    x, weights = jnp.asarray(calls.noise(6, 2)), calls.noise(6, 2, seed=1)
    model = BatchNorm(use_running_average=False, ghost_batch_size=ghost)
    variables: Any = model.init(calls.key(), x)

    def ours(x: jax.Array) -> jax.Array:
        y, _ = calls.apply(model, variables, x, mutable=["batch_stats"])
        return (jnp.sin(y) * weights).sum()

    def definition(x: jax.Array) -> jax.Array:
        return (jnp.sin(normalized(x, jnp.ones(2), jnp.zeros(2), ghost or 6)[0]) * weights).sum()

    got, want = (jax.jit(jax.hessian(f))(x) for f in (ours, definition))
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3 * np.abs(want).max())


@pytest.mark.parametrize(("ghost", "silent"), [(4, True), (2, True), (8, False), (0, False)])
def test_groups_on_one_device_need_no_communication(ghost: int, silent: bool) -> None:
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    made = network.Network(ghost_batch_size=ghost).layers(train=True)
    module, x = calls.Inside(lambda x: made.norm(name="norm")(x)), calls.noise(32, 4, 4, 3)
    variables: Any = module.init(calls.key(), x)

    def both(x: jax.Array, back: jax.Array) -> tuple[jax.Array, ...]:
        y, pull = jax.vjp(lambda x: calls.apply(module, variables, x, mutable=["batch_stats"])[0], x)
        return y, *pull(back)

    eight = jax.jit(both, in_shardings=(rows, rows), out_shardings=rows)
    text = eight.lower(x, x).compile().as_text() or ""
    assert silent != any(
        f"{name}(" in text for name in ("all-reduce", "all-gather", "all-to-all", "collective-permute")
    )
    for got, want in zip(eight(x, x[::-1]), jax.jit(both)(x, x[::-1]), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("norm", "expected"),
    [("batch", {"scale", "bias"}), ("group", {"scale", "bias"}), ("none", set())],
)
def test_norms_have_these_parameters(norm: str, expected: set[str]) -> None:
    made = network.Network(norm=norm).layers(train=True)
    _, params = calls.run(calls.Inside(lambda x: made.norm(name="norm")(x)), calls.noise(2, 4, 4, 48))
    assert set(params.get("norm", {})) == expected
    bare = network.Network(norm=norm, norm_scale=False).layers(train=True)
    _, params = calls.run(calls.Inside(lambda x: bare.norm(name="norm")(x)), calls.noise(2, 4, 4, 48))
    assert set(params.get("norm", {})) == expected - {"scale"}


def test_group_norm_takes_32_groups_or_as_many_as_divide_the_channels() -> None:
    made = network.Network(norm="group").layers(train=True)
    x = calls.noise(2, 4, 4, 48) * np.arange(1, 49, dtype=np.float32)
    y, _ = calls.run(calls.Inside(lambda x: made.norm(name="norm")(x)), x)
    groups = y.reshape(2, 4, 4, 16, 3)  # 48 channels: 16 groups
    np.testing.assert_allclose(groups.mean((1, 2, 4)), 0, atol=1e-5)
    np.testing.assert_allclose(groups.std((1, 2, 4)), 1, atol=1e-3)
