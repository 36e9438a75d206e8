"""Every network in every way to compute it: eager and jit, training and evaluation, bfloat16, remat, shared fields."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import spec
from cnnjax.models import MODELS, create_model
from tests.models import zoo


@pytest.mark.parametrize("text", zoo.computed())
def test_eager_jit_and_one_by_one_agree(text: str) -> None:
    model, variables = zoo.made(text)
    x = zoo.example(text, 3)
    apply = functools.partial(model.apply, train=False)
    eager = apply(variables, x)
    np.testing.assert_allclose(jax.jit(apply)(variables, x), eager, rtol=1e-4, atol=1e-4)
    one = jax.jit(jax.vmap(lambda variables, image: apply(variables, image[None])[0], in_axes=(None, 0)))
    np.testing.assert_allclose(one(variables, x), eager, rtol=1e-4, atol=1e-4)
    assert np.ptp(eager, axis=0).max() > 1e-4  # the images do get different answers


@pytest.mark.parametrize("text", zoo.computed())
def test_every_parameter_learns(text: str) -> None:
    model, variables = zoo.made(text)
    x, labels = zoo.example(text, 8), jnp.arange(8)
    rest = {name: value for name, value in variables.items() if name != "params"}

    @jax.jit
    @jax.grad
    def gradient(params: Any) -> jax.Array:
        logits, updated = model.apply(
            {"params": params, **rest}, x, train=True, rngs={"dropout": zoo.key()}, mutable=[*rest, "aux_logits"]
        )
        logits = logits + sum(jax.tree.leaves(updated.get("aux_logits", {})))
        return -jnp.mean(jax.nn.log_softmax(logits)[labels, labels])

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables["params"])):
        assert np.isfinite(leaf).all(), path
        assert np.any(leaf != 0), path


@pytest.mark.parametrize("text", zoo.computed(lambda text: getattr(create_model(text, 10), "norm", "") == "batch"))
def test_training_moves_the_statistics_and_uses_the_batch(text: str) -> None:
    model, variables = zoo.made(text)
    x = zoo.example(text, 4)
    rngs = {"dropout": zoo.key()}
    run = jax.jit(functools.partial(model.apply, train=True, rngs=rngs, mutable=["batch_stats"]))
    logits, updated = run(variables, x)
    moved = jax.tree.map(lambda new, old: bool(np.any(new != old)), updated, {"batch_stats": variables["batch_stats"]})
    assert all(jax.tree.leaves(moved))
    others, _ = run(variables, np.concatenate([x[:1], zoo.example(text, 3, seed=1)]))
    assert np.abs(logits[0] - others[0]).max() > 1e-3


@pytest.mark.parametrize("text", zoo.computed())
def test_bfloat16_is_close_and_keeps_float32_state(text: str) -> None:
    (model, variables), half, x = zoo.made(text), create_model(text, 10, "bfloat16"), zoo.example(text, 4)
    exact, _ = zoo.layer_outputs(model, variables, x)
    rough, inner = zoo.layer_outputs(half, variables, x)
    assert rough.dtype == np.float32
    assert 0 < np.abs(exact - rough).max() / np.ptp(exact) < 0.05
    assert {value.dtype for value in inner.values()} == {jnp.dtype("bfloat16")}
    rngs = {"dropout": zoo.key()}
    _, state = jax.eval_shape(lambda x: half.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"]), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} <= {np.dtype("float32")}


TERMS = 16  # of a sum that may be rounded after each


def sums(jaxpr: Any) -> Iterator[tuple[str, Any]]:
    """The sums of more than `TERMS` values in a jaxpr, and in those inside of it: where, and the operand."""
    for equation in jaxpr.eqns:
        operand = equation.invars[0].aval if equation.primitive.name == "reduce_sum" else None
        if operand is not None and math.prod(operand.shape[axis] for axis in equation.params["axes"]) > TERMS:
            yield str(equation.source_info.name_stack), operand
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda value: hasattr(value, "eqns")):
            if hasattr(inner := getattr(value, "jaxpr", value), "eqns"):
                yield from sums(inner)


@pytest.mark.parametrize("text", zoo.computed())
def test_nothing_is_summed_in_bfloat16(text: str) -> None:
    """XLA for CPUs rounds such a sum after each term: gradients of biases were wrong by up to a third."""
    (_, variables), half, x = zoo.made(text), create_model(text, 10, "bfloat16"), zoo.example(text, 2 * TERMS)
    rest = {name: value for name, value in variables.items() if name != "params"}

    def loss(params: Any) -> Any:
        out = half.apply({"params": params, **rest}, x, train=True, rngs={"dropout": zoo.key()}, mutable=True)
        return sum(jnp.sum(value.astype(jnp.float32)) for value in jax.tree.leaves(out))

    found = list(sums(jax.make_jaxpr(jax.grad(loss))(variables["params"]).jaxpr))
    assert found
    assert [(where, operand) for where, operand in found if operand.dtype == jnp.bfloat16] == []


@pytest.mark.parametrize("text", zoo.computed(lambda text: hasattr(create_model(text, 10), "norm")))
def test_fields_that_all_networks_share(text: str) -> None:
    """Every norm, head and padding mode that a network accepts, in a few combinations."""
    model: Any = create_model(text, 10)
    given, shape = spec.parse(text).kwargs, (2, *zoo.intended(text))
    for norm, head, padding_mode, activation in (
        ("group", "gap", "edge", "prelu"),
        ("none", "fc", "zeros", "mish"),
        ("batch", "conv", "reflect", "elu"),
    ):
        fields = {
            "norm": norm if norm in zoo.choices(model, "norm") else model.norm,
            "head": head if head in zoo.choices(model, "head") and "head" not in given else model.head,
            "padding_mode": padding_mode if padding_mode in zoo.choices(model, "padding_mode") else model.padding_mode,
            "activation": activation,
            "initializer": "xavier",
            "dropout": 0.1,
        }
        logits, variables = zoo.shaped(zoo.with_fields(text, **fields), shape, train=True)
        assert (logits.shape[0], logits.shape[-1], logits.dtype) == (2, 10, jnp.float32)
        assert logits.ndim == (4 if fields["head"] == "conv" else 2)
        assert ("batch_stats" in variables) == (fields["norm"] == "batch")
        names = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])}
        assert (
            "slope" in names or activation != "prelu" or text == "lenet_caffe"
        )  # which activates a classifier's layer


@pytest.mark.parametrize("text", zoo.computed(zoo.may_slide))
def test_the_same_weights_give_a_map_of_scores_for_a_larger_image(text: str) -> None:
    if "aux" in zoo.fields_of(text):
        text = zoo.with_fields(text, aux=False)  # an auxiliary classifier may be for one size of images
    height, width, channels = zoo.intended(text)
    logits, variables = zoo.shaped(text, (1, height, width, channels))
    scores, same = zoo.shaped(zoo.with_fields(text, head="conv"), (1, 2 * height, 2 * width, channels))
    assert logits.shape == (1, 10)
    assert scores.shape[-1] == 10
    assert min(scores.shape[1:3]) > 1
    assert jax.tree.map(lambda leaf: leaf.shape, same) == jax.tree.map(lambda leaf: leaf.shape, variables)


@pytest.mark.parametrize(
    "text", zoo.computed(lambda text: zoo.may_slide(text) and create_model(text, 10).head == "gap")
)
def test_the_mean_of_the_map_of_scores_is_the_logits(text: str) -> None:
    model, variables = zoo.made(text)
    x = zoo.example(text)
    slide: Any = create_model(zoo.with_fields(text, head="conv"), 10)
    logits, scores = (jax.jit(functools.partial(net.apply, train=False))(variables, x) for net in (model, slide))
    np.testing.assert_allclose(scores.mean((1, 2)), logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("text", zoo.computed(lambda text: "remat" in zoo.fields_of(text)))
def test_recomputing_changes_no_parameter_and_no_gradient(text: str) -> None:
    _, variables = zoo.made(text)
    x = zoo.example(text)
    rest = {name: value for name, value in variables.items() if name != "params"}

    def gradient(text: str) -> Any:
        def loss(params: Any) -> jax.Array:
            out, _ = create_model(text, 10).apply(
                {"params": params, **rest}, x, train=True, rngs=rngs, mutable=list(rest)
            )
            return jnp.sum(out**2)

        rngs = {"dropout": zoo.key()}
        return jax.jit(jax.grad(loss))(variables["params"])

    plain, again = (gradient(zoo.with_fields(text, remat=remat, dropout=0.0)) for remat in (False, True))
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(one).max(), err_msg=str(path))


@pytest.mark.parametrize(
    "text", zoo.computed(lambda text: "stochastic_depth" in zoo.fields_of(text) and "plain" not in text)
)
def test_stochastic_depth_acts_in_training_alone(text: str) -> None:
    _, variables = zoo.made(text)
    x = zoo.example(text, 4)
    model: Any = create_model(zoo.with_fields(text, stochastic_depth=0.9), 10)
    plain: Any = create_model(text, 10)
    run = jax.jit(
        lambda seed: model.apply(variables, x, train=True, rngs={"dropout": seed}, mutable=["batch_stats"])[0]
    )
    assert np.abs(run(zoo.key(1)) - run(zoo.key(2))).max() > 1e-3
    calm, usual = (net.apply(variables, x, train=False) for net in (model, plain))
    np.testing.assert_allclose(calm, usual, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_every_network_takes_a_step(name: str, dtype: str) -> None:
    """One step of training, and one evaluation after it: finite, and no parameter without a gradient."""
    text = zoo.with_fields(name, small_images=True) if "small_images" in zoo.fields_of(name) else name
    if "1202" in text or "1001" in text:
        pytest.skip("the same class as shallower ones; computing more than 1000 layers takes an hour here")
    model, x, labels = create_model(text, 10, dtype), zoo.example(text, 4), jnp.arange(4)
    _, variables = zoo.drawn(text)
    params, rest = variables["params"], {name: value for name, value in variables.items() if name != "params"}

    def loss(params: Any) -> Any:
        logits, new = model.apply(
            {"params": params, **rest}, x, train=True, rngs={"dropout": zoo.key()}, mutable=[*rest, "aux_logits"]
        )
        new = dict(new)
        outputs = [logits, *jax.tree.leaves(new.pop("aux_logits", {}))]
        return sum(-jnp.mean(jax.nn.log_softmax(one)[labels, labels]) for one in outputs), new

    @jax.jit
    def step(params: Any) -> Any:
        (value, new), grads = jax.value_and_grad(loss, has_aux=True)(params)
        params = jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads)
        return value, grads, model.apply({"params": params, **new}, x, train=False)

    value, grads, logits = step(params)
    assert np.isfinite(value)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all(), path
        assert np.any(leaf != 0), path
    assert (logits.shape, logits.dtype) == ((4, 10), jnp.float32)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("text", ["lenet5(dropout=0.5)", "mlp(dropout=0.5)"])
def test_dropout_acts_in_training_alone(text: str) -> None:
    model, variables = zoo.made(text)
    x = zoo.example(text)
    first, second = (model.apply(variables, x, train=True, rngs={"dropout": zoo.key(seed)}) for seed in (1, 2))
    assert np.abs(first - second).max() > 1e-3
    plain = create_model(text.partition("(")[0], 10).apply(variables, x, train=True)
    np.testing.assert_array_equal(model.apply(variables, x, train=False), plain)


@pytest.mark.parametrize("head", ["fc", "gap"])
@pytest.mark.parametrize("name", ["lenet5", "lenet_caffe", "mlp", "prelunet_small", "sequential"])
def test_an_empty_batch_has_no_logits(name: str, head: str) -> None:
    fields = {"sequential": f"layers='conv(4, 3)|{'flatten' if head == 'fc' else 'gap'}|dense'", "mlp": ""}
    model = create_model(f"{name}({fields.get(name, f'head={head!r}')})", 10)
    images = jnp.zeros((0, *MODELS[name].input_shape))
    logits, _ = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images, train=False))
    assert logits.shape == (0, 10)
