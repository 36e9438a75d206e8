"""Convolutions and pools as we have XLA compute them: equal to JAX's own, in every derivative and transform."""

import concurrent.futures
import functools
import os
import pathlib
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.ops import compiler, convolution, onednn, pooling
from cnnjax.ops.batch_norm import batch_norm

HERE = onednn.load()
needs_onednn = pytest.mark.skipif(not HERE.ok, reason=f"convolutions are by {HERE.text}")


PLAIN: Any = {"strides": (1, 1), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}


def draw(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def some_convolutions(count: int) -> list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]]:
    """Shapes of images and kernel, and options, of all sorts: strided, dilated, grouped, depthwise, padded unevenly."""
    rng = random.Random(0)
    found = []
    for i in range(count):
        groups = rng.choice([1, 1, 2, 4])
        inputs, outputs = groups * rng.randint(1, 9), groups * rng.randint(1, 9)
        if i % 6 == 0:  # depthwise
            groups, outputs = inputs, inputs * rng.choice([1, 2])
        kernel = (rng.randint(1, 5), rng.randint(1, 5), inputs // groups, outputs)
        images = (rng.randint(1, 5), rng.randint(9, 20), rng.randint(9, 20), inputs)
        options = {
            "strides": (rng.randint(1, 3), rng.randint(1, 3)),
            "padding": tuple((rng.randint(0, 3), rng.randint(0, 3)) for _ in range(2)),
            "dilation": (rng.randint(1, 2), rng.randint(1, 2)),
            "groups": groups,
        }
        found.append((images, kernel, options))
    return found


def products(f: Callable[..., jax.Array], x: jax.Array, w: jax.Array) -> tuple[jax.Array, ...]:
    """The output, and the gradients of some function of it by both operands."""
    return (f(x, w), *jax.grad(lambda x, w: jnp.sum(jnp.sin(f(x, w))), (0, 1))(x, w))


def assert_near(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        a, b = (np.asarray(value, np.float32) for value in (a, b))
        assert np.abs(a - b).max() <= tolerance * max(1e-3, np.abs(b).max())


# Pairs of its groups are computed as one.
RESNEXT = (
    (2, 9, 8, 32),
    (3, 3, 4, 32),
    {"strides": (2, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 8},
)
LOWERINGS: dict[str, Callable[..., Any]] = {"plain": convolution._by_plain_xla, "onednn": convolution._by_onednn}


@pytest.mark.parametrize("name", ["plain", pytest.param("onednn", marks=needs_onednn)])
@pytest.mark.parametrize("part", range(4))
def test_all_three_products_are_those_of_jax(part: int, name: str) -> None:
    for images, kernel, options in [*some_convolutions(31), RESNEXT][part::4]:
        x, w = draw(1, *images), draw(2, *kernel)
        g = draw(3, *convolution._xla(x, w, **options).shape)
        for role, (a, b), shape in (
            ("output", (x, w), g.shape),
            ("images", (g, w), x.shape),
            ("kernel", (x, g), w.shape),
        ):
            run = jax.jit(lambda a, b, by, r=role, s=shape, o=options: by(a, b, role=r, shape=s, **o), static_argnums=2)
            assert_near(run(a, b, LOWERINGS[name]), run(a, b, convolution._by_xla))


@needs_onednn
@pytest.mark.parametrize("channels", [1, 3, 4, 6, 8])
def test_the_gradient_of_a_strided_1x1_kernel_is_right_each_time(channels: int) -> None:
    """oneDNN's own choice lets two threads write to the same place."""
    options: Any = {"strides": (2, 2), "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": 1}
    x, w = draw(1, 2, 12, 12, channels), draw(2, 1, 1, channels, 8)
    g = draw(3, 2, 6, 6, 8)
    gradient = jax.jit(lambda x, g: convolution._by_onednn(x, g, role="kernel", shape=w.shape, **options))
    for _ in range(12):
        assert_near(gradient(x, g)[0, 0], jnp.einsum("nhwc,nhwo->co", x[:, ::2, ::2], g))


@needs_onednn
@pytest.mark.parametrize("rows", [1, 3, 32, 33])
@pytest.mark.parametrize(("inputs", "outputs"), [(7, 17), (30001, 70), (2101, 1003), (513, 4097)])
def test_products_of_few_rows_are_rounded_once(rows: int, inputs: int, outputs: int) -> None:
    """Up to 32 rows and a large kernel are multiplied by our own code, in blocks."""
    pixels = {"w": (1, 1, inputs, outputs), "x": (rows, 1, 1, inputs), "g": (rows, 1, 1, outputs)}
    half = {name: draw(seed, *shape).astype(jnp.bfloat16) for seed, (name, shape) in enumerate(pixels.items())}
    w, x, g = (np.asarray(array, np.float64).reshape(-1, array.shape[-1]) for array in half.values())
    product = jax.jit(functools.partial(convolution._by_onednn, **PLAIN), static_argnames=("role", "shape"))
    for role, operands, result, expected in [
        ("output", "xw", "g", x @ w),
        ("images", "gw", "x", g @ w.T),
        ("kernel", "xg", "w", x.T @ g),
    ]:
        found = product(*(half[name] for name in operands), role=role, shape=pixels[result])
        # Half a unit in the last of 8 bits, and the rounding of sums in float32, which may cancel.
        tolerance = 2.0**-8 * np.abs(expected) + 1e-5 * np.abs(expected).max()
        assert (np.abs(np.asarray(found, np.float64).reshape(expected.shape) - expected) <= tolerance).all(), role


@needs_onednn
def test_programs_of_several_threads_take_turns() -> None:
    """Each thread's program has branches, which XLA may run at once, too; some are of two devices."""

    def branches(x: jax.Array, w: jax.Array) -> jax.Array:
        ones = jnp.ones(w.shape[-1])
        convolved = [convolution.convolution(x, scale * w, (1, 1), ((1, 1), (1, 1))) for scale in (1.0, 2.0, 3.0)]
        return jnp.stack([batch_norm(y, ones, ones, 1e-3, True)[0] for y in convolved]).sum(axis=0)

    mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,))
    x, w = draw(1, 8, 12, 12, 16), draw(2, 3, 3, 16, 16)
    arguments = [x, jax.device_put(x, jax.NamedSharding(mesh, jax.P("data")))] * 4
    gradient = jax.jit(jax.grad(lambda w, x: jnp.sum(branches(x, w) ** 2)))
    expected = [gradient(w, x) for x in arguments]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for found, alone in zip(pool.map(lambda x: gradient(w, x), arguments), expected, strict=True):
                assert_near(found, alone)


@needs_onednn
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("strides", "groups"), [((1, 1), 1), ((2, 3), 1), ((1, 1), 2)])
def test_images_of_one_pixel_are_rows_of_a_matrix(strides: tuple[int, int], groups: int, dtype: Any) -> None:
    """oneDNN gets them as one image."""
    options: Any = {"strides": strides, "padding": ((0, 0), (0, 0)), "dilation": (1, 1), "groups": groups}
    x, w, g = (draw(i, *shape).astype(dtype) for i, shape in enumerate([(5, 6), (6 // groups, 4), (5, 4)]))
    one = {"x": x[:, None, None], "w": w[None, None], "g": g[:, None, None]}
    for role, (a, b, result) in {"output": "xwg", "images": "gwx", "kernel": "xgw"}.items():
        shape = one[result].shape
        args, options = (one[a], one[b]), options | {"role": role, "shape": shape}
        ours = jax.jit(functools.partial(convolution._by_onednn, **options))(*args)
        assert_near(ours, jax.jit(functools.partial(convolution._by_xla, **options))(*args), 0.01)


@pytest.mark.parametrize(
    ("status", "dtype", "name"),
    [
        ((True, "oneDNN", onednn.BY_INSTRUCTIONS), "bfloat16", "oneDNN"),
        ((True, "oneDNN", onednn.BY_CONVERSION), "float32", "oneDNN"),
        ((True, "oneDNN", onednn.BY_CONVERSION), "bfloat16",
         "oneDNN in float32 (this processor has no instructions for bfloat16)"),
        ((False, "XLA (a reason)", onednn.NONE), "bfloat16", "XLA (a reason)"),
    ],
)  # fmt: skip
def test_a_run_names_what_computes_its_convolutions(
    status: tuple[bool, str, int], dtype: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, "load", lambda: onednn.Status(*status))
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert convolution.implementation_name(dtype) == name


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_products_of_rows_are_those_of_jax(dtype: Any, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds whether the processor is `fast` in bfloat16 or not."""
    monkeypatch.setattr(onednn, "compute_dtype", lambda dtype: jnp.dtype(dtype) if fast else jnp.dtype(jnp.float32))
    x, w = draw(1, 5, 6).astype(dtype), draw(2, 6, 4).astype(dtype)
    multiply = functools.partial(convolution.matmul)  # new for JAX, which keeps what it traced
    as_convolution = "convolution" in str(jax.make_jaxpr(multiply)(x, w))
    assert as_convolution == (fast and dtype == jnp.bfloat16 and jax.default_backend() == "cpu")
    assert_near(products(multiply, x, w), products(jnp.matmul, x, w), 0.02)
    xs = jnp.stack([x, -x])
    assert_near(jax.vmap(multiply, (0, None))(xs, w), xs @ w, 0.02)
    assert_near(multiply(xs, w), xs @ w, 0.02)


@needs_onednn
@pytest.mark.parametrize(("size", "channels"), [(3, (40, 48)), (1, (256, 512)), (5, (16, 96))])
def test_the_gradient_of_a_kernel_with_much_work_is_right(size: int, channels: tuple[int, int]) -> None:
    """With AVX2 alone it is computed on copies of the images in another layout."""
    options: Any = {"strides": (1, 1), "padding": ((size // 2,) * 2, (0, 1)), "dilation": (1, 1), "groups": 1}
    x, w = draw(1, 3, 7, 9, channels[0]), draw(2, size, size, *channels)
    y, of_xla = jax.vjp(lambda w: convolution._xla(x, w, **options), w)
    g = draw(3, *y.shape)
    ours = jax.jit(lambda x, g: convolution._by_onednn(x, g, role="kernel", shape=w.shape, **options))(x, g)
    assert_near(ours, of_xla(g)[0])


def all_of(f: Callable[..., jax.Array], x: jax.Array, w: jax.Array) -> Any:
    """What can be asked of a function of two arrays: its values and gradients, of one and of many, and second ones."""
    xs, ws = jnp.stack([x, x + 1, -x]), jnp.stack([w, w - 1, 2 * w])
    several = [
        jax.vmap(lambda x, w: products(f, x, w), axes)(xs if axes[0] == 0 else x, ws if axes[1] == 0 else w)
        for axes in ((0, None), (None, 0), (0, 0))
    ]
    gradient = jax.grad(lambda pair: jnp.sum(jnp.square(f(*pair))) / 100)
    pair, change = (x, w), (jnp.cos(x), jnp.sin(w))
    second = jax.jvp(gradient, (pair,), (change,))[1], jax.vjp(gradient, pair)[1](change)
    return products(jax.checkpoint(f), x, w), several, second


CASES = some_convolutions(4)


@pytest.mark.parametrize(("images", "kernel", "options"), CASES, ids=lambda value: str(value)[:40])
def test_a_convolution_is_that_of_jax_under_every_transform(images: Any, kernel: Any, options: Any) -> None:
    ours, jaxs = (functools.partial(f, **options) for f in (convolution.convolution, convolution._xla))
    x, w = draw(1, *images), draw(2, *kernel)
    expected = jax.jit(functools.partial(all_of, jaxs))(x, w)
    assert_near(jax.jit(functools.partial(all_of, ours))(x, w), expected)
    assert_near(products(ours, x, w), expected[0])  # eagerly
    half = [value.astype(jnp.bfloat16) for value in (x, w)]
    assert_near(products(ours, *half), products(jaxs, *half), 0.05)


takes_bfloat16 = pytest.mark.skipif(HERE.bfloat16 == onednn.NONE, reason="oneDNN has no bfloat16 on this processor")


@takes_bfloat16
@pytest.mark.parametrize("part", range(4))
def test_products_in_bfloat16_are_rounded_once(part: int) -> None:
    for images, kernel, options in [*some_convolutions(31), RESNEXT][part::4]:
        x, w = (draw(seed, *shape).astype(jnp.bfloat16) for seed, shape in ((1, images), (2, kernel)))
        g = draw(3, *jax.eval_shape(functools.partial(convolution._xla, **options), x, w).shape).astype(jnp.bfloat16)
        for role, (a, b), shape in (
            ("output", (x, w), g.shape),
            ("images", (g, w), x.shape),
            ("kernel", (x, g), w.shape),
        ):
            run = jax.jit(
                functools.partial(convolution._by_onednn, role=role, shape=shape, **options, dtype=jnp.bfloat16)
            )
            wide = jax.jit(functools.partial(convolution._by_xla, role=role, shape=shape, **options))
            exact = wide(a.astype(jnp.float32), b.astype(jnp.float32))
            found = np.asarray(run(a, b), np.float32)
            np.testing.assert_allclose(found, exact, rtol=2**-8, atol=2**-10 * np.abs(exact).max())


@needs_onednn
@pytest.mark.parametrize("precision", ["bfloat16", "float32", None])
def test_the_precision_of_products_reaches_onednn_through_all_derivatives(precision: str | None) -> None:
    images, kernel, options = some_convolutions(1)[0]
    x, w = draw(1, *images), draw(2, *kernel)

    def f(x: jax.Array, w: jax.Array) -> jax.Array:
        return convolution.convolution(x, w, **options)

    with convolution.matmul_precision(precision or ""):
        run = jax.jit(functools.partial(products, f))
        text, found = run.lower(x, w).as_text(), run(x, w)
    fast = str(precision == "bfloat16").lower()
    assert text.count(f"fast = {fast}") == text.count(onednn.CONVOLVE) >= 3
    assert_near(found, products(functools.partial(convolution._xla, **options), x, w), 0.02 if fast == "true" else 1e-5)


@needs_onednn
def test_what_onednn_refuses_is_an_error_of_xla() -> None:
    call = jax.ffi.ffi_call(onednn.CONVOLVE, jax.ShapeDtypeStruct((1, 9, 9, 8), jnp.float32))
    pair = np.array([1, 1], np.int64)
    with pytest.raises(jax.errors.JaxRuntimeError, match="oneDNN"):  # 4 channels, and a kernel for 3
        call(
            draw(1, 1, 9, 9, 4), draw(2, 3, 3, 3, 8), role=np.int64(0), strides=pair,
            padding=np.array([1, 1, 1, 1], np.int64), dilation=pair, groups=np.int64(1), fast=False,
            devices=np.int64(1),
        )  # fmt: skip


# ------------------------------------------------------------------------------------------------- where there is none


def status(tmp_path: pathlib.Path, **env: str) -> str:
    """What another process with that environment says convolutions are by, after one."""
    code = """if True:
        import jax.numpy as jnp
        from cnnjax.ops import onednn
        from cnnjax.models import layers
        assert layers.convolve(jnp.ones((1, 5, 5, 1)), jnp.ones((3, 3, 1, 1))).sum() == 81
        print(onednn.load().text)
    """
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)} | env, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    (line,) = done.stdout.splitlines()
    return line


def test_it_compiles_where_there_are_a_compiler_and_wheels() -> None:
    """Without this, tests of a library that does not compile would be skipped in silence."""
    if (sys.platform, os.uname().machine) != ("linux", "x86_64") or not compiler.is_enabled():
        pytest.skip("oneDNN is not for this machine")
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no C++ compiler")
    assert HERE.ok or "not installed" in HERE.text, HERE.text


def test_a_person_can_do_without(tmp_path: pathlib.Path) -> None:
    assert status(tmp_path, CNNJAX_NATIVE="0") == "XLA (CNNJAX_NATIVE=0)"


@needs_onednn
@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"CXX": "/nowhere/g++"}, "XLA (no C++ compiler"),
        ({"CXX": "/bin/false"}, "XLA (the C++ compiler failed"),
        ({"XDG_CACHE_HOME": "/dev/null"}, "XLA ([Errno 17] File exists"),
    ],
)
def test_what_is_missing_is_said_and_xla_goes_on(env: dict[str, str], says: str, tmp_path: pathlib.Path) -> None:
    assert status(tmp_path, **env).startswith(says)


@pytest.mark.parametrize(
    ("system", "machine", "says"),
    [("darwin", "arm64", "not darwin on arm64"), ("linux", "aarch64", "not linux on aarch64")],
)
def test_other_machines_have_xlas(system: str, machine: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    found = onednn.load.__wrapped__()
    assert not found.ok
    assert says in found.text


def test_without_the_wheels_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    if (sys.platform, os.uname().machine) != ("linux", "x86_64"):
        pytest.skip("no wheels for this machine")
    monkeypatch.setattr(onednn, "RUNTIME", "no-such-package")
    found = onednn.load.__wrapped__()
    assert not found.ok
    assert found.text.startswith("XLA (no-such-package is not installed")


# --------------------------------------------------------------------------------------------------------------- pools

POOLS = [
    ((3, 9, 8, 4), 2, 2, ((0, 0), (0, 0))),
    ((3, 9, 8, 4), 2, 2, ((0, 1), (0, 0))),
    ((2, 11, 12, 3), 3, 2, ((1, 1), (0, 1))),
    ((2, 11, 7, 3), 3, 1, ((1, 1), (1, 1))),
    ((2, 11, 7, 3), 2, 3, ((0, 0), (1, 1))),
    ((2, 11, 9, 3), 5, 3, ((2, 2), (1, 1))),
    ((2, 11, 9, 3), 1, 2, ((0, 0), (0, 0))),
]
LARGE = (1, 18, 19, 2), 17, 1, ((0, 0), (1, 1))


@pytest.fixture(scope="module", params=["oneDNN", "shifts"])
def by(request: pytest.FixtureRequest) -> Iterator[str]:
    """Sets what computes the pools, once for all tests of one: JAX has to forget what it compiled for the other."""
    if request.param == "oneDNN" and not HERE.ok:
        pytest.skip(HERE.text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pooling, "uses_onednn", lambda context: request.param == "oneDNN")
        jax.clear_caches()
        yield request.param
    jax.clear_caches()


@pytest.mark.parametrize("kind", ["max", "sum"])
@pytest.mark.parametrize(("shape", "window", "stride", "padding"), [*POOLS, LARGE])
def test_pools_are_those_of_jax(shape: Any, window: int, stride: int, padding: Any, kind: str, by: str) -> None:
    pool, start, join = {
        "max": (pooling.max_pool, -np.inf, jax.lax.max),
        "sum": (pooling.sum_pool, np.float32(0), jax.lax.add),
    }[kind]

    def ours(x: jax.Array) -> jax.Array:
        return pool(x, window, stride, padding)

    def jaxs(x: jax.Array) -> jax.Array:
        sizes, steps = (1, window, window, 1), (1, stride, stride, 1)
        return jax.lax.reduce_window(x, start, join, sizes, steps, ((0, 0), *padding, (0, 0)))

    def everything(f: Callable[[jax.Array], jax.Array], x: jax.Array, change: jax.Array, tied: jax.Array) -> Any:
        cubes = jax.grad(lambda x: jnp.sum(f(x) ** 3))
        second = jax.jvp(cubes, (x,), (change,))[1], jax.vjp(cubes, x)[1](change)
        return (
            jax.vmap(f)(jnp.stack([x, tied])),
            jax.vmap(cubes)(jnp.stack([x, tied])),
            second,
            jax.jvp(f, (x,), (change,)),
        )

    x, change = draw(1, *shape), draw(2, *shape)
    tied = jnp.round(2 * x)  # of equals, the first gets the gradient
    found, expected = (jax.jit(functools.partial(everything, f))(x, change, tied) for f in (ours, jaxs))
    assert_near(found, expected)
    assert_near(ours(tied), jaxs(tied), 1e-6 if (by, kind) == ("oneDNN", "sum") else 0)  # eagerly; its sum is a mean
    if kind == "max":
        half = x.astype(jnp.bfloat16)
        found, expected = (jax.jit(jax.grad(lambda x, f=f: jnp.sum(f(x) ** 3)))(half) for f in (ours, jaxs))
        assert_near(found, expected, 0.02)


def test_a_pool_that_nothing_comes_back_to_has_no_gradient() -> None:
    x = draw(1, 1, 4, 4, 2)
    for pool in (pooling.max_pool, pooling.sum_pool):
        two = jax.grad(lambda x, pool=pool: jnp.sum(x) + jax.lax.stop_gradient(pool(x, 2, 2, ((0, 0), (0, 0)))).sum())
        np.testing.assert_array_equal(two(x), jnp.ones_like(x))


@takes_bfloat16
@pytest.mark.parametrize("is_max", [True, False])
@pytest.mark.parametrize(("shape", "window", "stride", "padding"), POOLS)
def test_pools_in_bfloat16_are_those_of_jax(shape: Any, window: int, stride: int, padding: Any, is_max: bool) -> None:
    x = draw(1, *shape).astype(jnp.bfloat16)
    options = pooling._options(x, window, stride, padding)
    g = draw(2, *options["shape"]).astype(jnp.bfloat16)
    for role, operands in (("output", (x,)), ("images", (g, x) if is_max else (g,))):
        options["shape"] = g.shape if role == "output" else x.shape
        run = functools.partial(pooling._by_onednn, role=role, is_max=is_max, **options, dtype=jnp.bfloat16)
        wide = functools.partial(pooling._by_xla, role=role, is_max=is_max, **options)
        found = np.asarray(jax.jit(run)(*operands), np.float32)
        exact = jax.jit(wide)(*(value.astype(jnp.float32) for value in operands))
        np.testing.assert_allclose(found, exact, rtol=2**-7, atol=2**-8 * np.abs(exact).max())
