"""oneDNN on several devices: each computes its shard, with the results of one device and of JAX's own convolution."""

import functools
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cnnjax.distributed import sharding
from cnnjax.ops import convolution, onednn, pooling
from cnnjax.ops.batch_norm import batch_norm

pytestmark = pytest.mark.skipif(not onednn.load().ok, reason=f"convolutions are by {onednn.load().text}")

OPTIONS: dict[str, Any] = {"strides": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1)}


def draw(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def products(f: Callable[..., jax.Array], *operands: jax.Array) -> tuple[jax.Array, ...]:
    """The output, and the gradients of some function of it by all operands."""
    gradients = jax.grad(lambda *operands: jnp.sum(jnp.sin(f(*operands))), range(len(operands)))
    return (f(*operands), *gradients(*operands))


def assert_near(found: Any, expected: Any) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


def on(mesh: jax.sharding.Mesh, x: jax.Array, *spec: Any) -> jax.Array:
    return jax.device_put(x, NamedSharding(mesh, P(*spec)))


# Shardings of images and kernel over 'data=4,model=2', and how many arrays are gathered and summed for all products.
SHARDINGS: dict[str, tuple[Any, Any, int, int]] = {
    "images by rows": (("data",), (), 0, 1),
    "images on all": (((("data", "model")),), (), 0, 1),
    "nothing": ((), (), 0, 0),
    "kernel by outputs": (("data",), (None, None, None, "model"), 0, 2),
    "both by inputs": (("data", None, None, "model"), (None, None, "model"), 0, 2),
}


@pytest.mark.parametrize("name", SHARDINGS)
@pytest.mark.parametrize(("groups", "channels"), [(1, 4), (2, 4), (2, 8), (4, 4)])
def test_a_convolution_is_computed_where_its_operands_are(name: str, groups: int, channels: int) -> None:
    images, kernel, gathered, summed = SHARDINGS[name]
    mesh = sharding.make_mesh(jax.devices(), "data=4,model=2")
    x, w = draw(1, 8, 9, 9, channels), draw(2, 3, 3, channels // groups, 8)
    if groups == 4 and "model" in kernel[2:3]:
        pytest.skip("a depthwise kernel has one input channel")
    ours, jaxs = (functools.partial(f, groups=groups, **OPTIONS) for f in (convolution.convolution, convolution._xla))
    step = jax.jit(functools.partial(products, ours))
    shards = on(mesh, x, *images), on(mesh, w, *kernel)
    text = str(step.lower(*shards).compile().as_text())
    assert text.count(f'custom_call_target="{onednn.CONVOLVE}"') == 3
    if groups == 1:
        assert (len(re.findall(r"all-gather\(", text)), len(re.findall(r"all-reduce\(", text))) == (gathered, summed)
    elif not kernel:  # groups are divided by the batch alone
        assert "all-gather(" not in text
    assert_near(step(*shards), jax.jit(functools.partial(products, jaxs))(x, w))


@pytest.mark.parametrize("spec", [("data",), ("data", None, None, "model"), ()], ids=str)
@pytest.mark.parametrize("pool", [pooling.max_pool, pooling.sum_pool])
def test_a_pool_is_computed_where_its_images_are(pool: Callable[..., jax.Array], spec: Any) -> None:
    mesh = sharding.make_mesh(jax.devices(), "data=4,model=2")
    x = draw(1, 8, 9, 9, 4)
    step = jax.jit(functools.partial(products, lambda x: pool(x, 3, 2, ((1, 1), (0, 1)))))
    text = str(step.lower(on(mesh, x, *spec)).compile().as_text())
    assert text.count(f'custom_call_target="{onednn.POOL}"') == 2
    assert "all-gather(" not in text
    assert_near(step(on(mesh, x, *spec)), step(x))


def test_a_loop_and_second_derivatives_are_divided_too() -> None:
    mesh = sharding.make_mesh(jax.devices())
    x, w = draw(1, 8, 9, 9, 4), draw(2, 3, 3, 3, 4, 4) / 5

    def network(convolve: Callable[..., jax.Array], x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.sum(jax.lax.scan(lambda x, w: (jnp.sin(convolve(x, w)), None), x, w)[0])

    def second(convolve: Callable[..., jax.Array], x: jax.Array, w: jax.Array) -> Any:
        gradient = jax.grad(functools.partial(network, convolve), (0, 1))
        return jax.jvp(lambda w: gradient(x, w), (w,), (jnp.cos(w),))

    ours, jaxs = (
        functools.partial(f, **OPTIONS)
        for f in (convolution.convolution, functools.partial(convolution._xla, groups=1))
    )
    found = jax.jit(functools.partial(second, ours))(on(mesh, x, "data"), on(mesh, w))
    assert_near(found, jax.jit(functools.partial(second, jaxs))(x, w))


@pytest.mark.parametrize("name", ["convolution", "batch normalization"])
def test_parts_of_a_batch_are_computed_in_turn(name: str) -> None:
    """XLA shards a part of the batch along a part of the mesh's axis, which JAX cannot name."""
    mesh = sharding.make_mesh(jax.devices())
    x, w, ones = draw(1, 16, 5, 5, 4), draw(2, 3, 3, 4, 4), jnp.ones(4)

    def compute(x: jax.Array) -> jax.Array:
        if name == "convolution":
            return convolution.convolution(x, w, **OPTIONS)
        return batch_norm(x, ones, ones, 1e-5)[0]

    def in_turn(x: jax.Array) -> jax.Array:
        parts = x.reshape(2, 8, *x.shape[1:])
        return jax.lax.scan(lambda total, part: (total + compute(part).sum(), compute(part)), 0.0, parts)[1]

    assert_near(jax.jit(in_turn)(on(mesh, x, "data")), jax.jit(in_turn)(x))


def test_the_compilation_cache_tells_programs_that_differ_in_options_or_our_code_alone(tmp_path: pathlib.Path) -> None:
    """Three processes: each keeps its program, and takes only its own from the cache."""
    code = """if True:
        import sys, jax, jax.numpy as jnp
        from jax.sharding import NamedSharding, PartitionSpec
        from cnnjax.distributed import sharding
        from cnnjax.ops import partitioning
        from cnnjax.ops.convolution import convolution
        if sys.argv[1] == "changed":
            partitioning.CODE += b"a later version"
        mesh = sharding.make_mesh()
        x = jax.device_put(jnp.ones((4, 9, 9, 1)), sharding.batch_sharding(mesh))
        w = jax.device_put(jnp.ones((3, 3, 1, 1)), sharding.replicated(mesh))
        hits = []
        jax.monitoring.register_event_listener(lambda name, **_: hits.append("/cache_hits" in name))
        for d in map(int, filter(str.isdigit, sys.argv)):
            before = sum(hits)
            out = jax.jit(lambda x, w: convolution(x, w, (1, 1), ((d, d), (d, d)), (d, d)))(x, w)
            hit = sum(hits) - before
            print(float(out[0, 0, 1, 0]), hit)
    """
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": "2", "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }  # fmt: skip
    said = []
    for arguments in (["1"], ["2", "1"], ["changed", "1"]):
        command = [sys.executable, "-c", code, *arguments]
        said += subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said == ["6.0 0", "4.0 0", "6.0 1", "6.0 0"]
