"""Every network: the ways to compute it, its fields, its errors; and the arithmetic of those that no library has."""

import ast
import functools
import inspect
import pathlib
import re
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import cnnjax.models
from cnnjax import spec
from cnnjax.errors import InputError
from cnnjax.models import MODELS, count_params, create_model, lenet

# What is computed in full: the smallest forms of deep networks. A class of networks that is not here is computed as its
# variant with the fewest multiplications.
REDUCED = (
    "mlp",
    "lenet5",
    "lenet5_tanh",
    "cifar_resnet20(depth=8)",
    'cifar_resnet20(depth=8, shortcut="B")',
    "cifar_plain20(depth=8)",
    "cifar_preresnet110(stage_sizes=(1, 1, 1))",
    "wide_resnet16_8(depth=10, width=1)",
    "resnet18(stage_sizes=(1, 1), features=16, width=16, small_images=True)",
    "se_resnext50_32x4d(stage_sizes=(1, 1), features=16, groups=4, small_images=True)",
    "densenet40_12(stage_sizes=(2, 2), growth_rate=4)",
    'vgg11(features=(8, 8, 16, 16, 16), head="gap")',
)


# Table I of LeCun 1998, as it is printed: rows are maps of S2, columns are maps of C3.
TABLE_I = """
X...XXX..XXXX.XX
XX...XXX..XXXX.X
XXX...XXX..X.XXX
.XXX..XXXX..X.XX
..XXX..XXXX.XX.X
...XXX..XXXX.XXX
"""

BAD_CALLS = {
    "lenet": "did you mean 'lenet5'?",
    "resnet20": "did you mean 'cifar_resnet20'?",
    "cifar_resnet20(scan=True, stochastic_depth=0.1)": "scan = True: the blocks of a loop are alike",
    "resnet50_v2(scan=True, layout='slim')": "scan = True: the units of a loop are alike",
    "lenet5(foo=1)": "has no argument 'foo'; did you mean 'pool'? valid",
    "lenet5(num_classes=3)": "has no argument 'num_classes'",
    "lenet5(parent=None)": "has no argument 'parent'",
    'lenet5("max")': "by name",
    'lenet5(pool="mean")': "unknown pool 'mean'; valid: max, average",
    'lenet5(activation="rel")': "unknown activation 'rel'; valid: relu,",
    "lenet5(activation=3)": "activation = 3: expected str",
    "lenet5(dropout=1.0)": "dropout = 1.0: expected at least 0 and less than 1",
    'lenet5(dropout="0.5")': "dropout = '0.5': expected float",
    "lenet5(padding=-1)": "padding = -1",
    "lenet5(padding=True)": "padding = True: expected int",
    "mlp(features=300)": "features = 300: expected tuple[int, ...]",
    "mlp(features=(300, 0))": "features = (300, 0)",
    "mlp(init_bound=-1)": "init_bound = -1",
    'cifar_resnet20(shortcut="C")': "unknown shortcut 'C'; valid: A, B, none",
    "cifar_resnet20(depth=21)": "depth = 21: expected 6n+2",
    "cifar_resnet20(depth=2)": "depth = 2: expected 6n+2",
    'cifar_resnet20(depth="20")': "depth = '20': expected int",
    "resnet51": "did you mean 'resnet50'?",
    'resnet50(norm="lrn")': "unknown norm 'lrn'; valid: batch, group, none",
    'resnet50(head="dense")': "unknown head 'dense'; valid: gap, fc, conv",
    'resnet50(padding_mode="same")': "unknown padding_mode 'same'; valid: zeros, edge",
    'resnet50(initializer="msra")': "unknown initializer 'msra'; valid: gaussian, truncated, xavier, he, lecun",
    "resnet50(stochastic_depth=1.0)": "stochastic_depth = 1.0: expected at least 0 and less than 1",
    "resnet50(stage_sizes=(3, 0))": "stage_sizes = (3, 0): expected at least 1 in each stage",
    "resnet50(width=0)": "width = 0: expected more than 0",
    "resnet50(se=-1)": "se = -1: expected the ratio of squeeze-and-excitation, or 0 for none",
    'resnet50(block="wide")': "unknown block 'wide'; valid: basic, bottleneck",
    'resnet50(stride="2x2")': "unknown stride '2x2'; valid: 1x1, 3x3, slim",
    "resnet18(groups=2)": "groups = 2: basic blocks have none",
    "plain18(stochastic_depth=0.1)": "shortcut = 'none': stochastic_depth and zero_init need shortcuts",
    'resnet50(zero_init=True, norm="none")': "zero_init = True: expected a normalisation with a scale",
    'resnet50_v2(layout="slimm")': "unknown layout 'slimm'; valid: paper, bare, both, slim, keras",
    "cifar_plain20(stochastic_depth=0.1)": "stochastic_depth = 0.1: a plain network has no shortcuts to go by",
    "wide_resnet28_10(depth=27)": "depth = 27: expected 6n+4",
    "resnext29_8x64d(depth=28)": "depth = 28: expected 9n+2",
    "densenet121(growth_rate=0)": "growth_rate = 0: expected more than 0",
    "densenet121(compression=1.5)": "compression = 1.5: expected more than 0 and at most 1",
    "mobilenet_v1(width=-0.5)": "width = -0.5: expected more than 0",
    "mobilenet_v1(repeats=-1)": "repeats = -1: expected at least 0",
    'mlp(head="gap")': "unknown head 'gap'; valid: fc",
    "alexnet(groups=5)": "groups = 5: expected to divide the maps",
    "alexnet(features=(96, 256))": "features = (96, 256): expected the maps of 5 convolutions",
    "alexnet(padding=-1)": "padding = -1, window = 6",
    "zfnet(features=(96, 256))": "features = (96, 256): expected the maps of 5 convolutions",
    "vgg16(stage_sizes=(1, 1))": "stage_sizes = (1, 1): expected at least 1 convolution for each",
    "vgg16(third_kernel=2)": "third_kernel = 2: expected 3, or 1",
    'vgg16(norm="instance")': "unknown norm 'instance'; valid: batch, group, none, lrn",
    "googlenet(kernel=4)": "kernel = 4: expected 5, or 3",
    "googlenet(last_pool=4)": "last_pool = 4: expected 3, or 2",
    "googlenet(aux_dropout=1.0)": "aux_dropout = 1.0: expected at least 0 and less than 1",
    "bn_inception(projected=0)": "projected = 0: expected maps",
    "inception_resnet_v2(stage_sizes=(1, 2))": "stage_sizes = (1, 2): expected three numbers",
    "prelunet_a(kernel=5)": "kernel = 5: expected 3, or 2",
    "prelunet_a(features=(96, 256))": "features = (96, 256): expected those of conv1 and of each of",
    "prelunet_a(levels=())": "levels = ()",
    'prelunet_a(head="conv")': "unknown head 'conv'; valid: fc, gap",
    'nin_cifar10(last_pool="mean")': "unknown last_pool 'mean'; valid: max, average",
    "squeezenet1_0(padding=-1)": "padding = -1: expected at least 0",
}


def key(seed: int = 0) -> jax.Array:
    return jax.random.key(seed, impl="rbg")  # much faster than the default where a network has hundreds of layers


def with_fields(text: str, **fields: Any) -> str:
    """The call string with these fields, in place of those of the same names."""
    call = spec.parse(text)
    return f"{call.name}({', '.join(f'{name}={value!r}' for name, value in (call.kwargs | fields).items())})"


def fields_of(text: str) -> set[str]:
    return set(inspect.signature(MODELS[spec.parse(text).name].build).parameters)


def shaped(text: str, shape: tuple[int, ...], train: bool = False) -> Any:
    """The shapes of what the network gives for a batch, and of its variables."""
    model, x = create_model(text, 10), jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(key(), x, train=False), x)
    rngs = {"dropout": key()}
    out = jax.eval_shape(
        lambda v, x: model.apply(v, x, train=train, rngs=rngs, mutable=[*v, "aux_logits"])[0], variables, x
    )
    return out, variables


@functools.cache
def smallest(text: str) -> tuple[int, int, int]:
    """Images that a network takes and leaves maps of at least 2x2, no larger than they need be."""
    own = MODELS[spec.parse(text).name].input_shape
    if own[0] <= 32 or "features_only" not in fields_of(text):
        return own
    for side in (16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192):
        try:
            shaped(text, (1, side, side, own[2]), train=True)
            ends, _ = shaped(with_fields(text, features_only=True), (1, side, side, own[2]))
        except ValueError:
            continue
        if min(min(end.shape[1:3]) for end in ends.values()) > 1:
            return side, side, own[2]
    return own


def intended(text: str) -> tuple[int, int, int]:
    """Images that leave maps of the size that full connections to them are for."""
    shape = MODELS[spec.parse(text).name].input_shape
    if getattr(create_model(text, 10), "head", "") == "gap":
        return smallest(text)
    return (32, 32, shape[2]) if "small_images" in spec.parse(text).kwargs else shape


def _computed() -> list[str]:
    done = {type(create_model(text, 10)) for text in REDUCED}
    cheapest: dict[type, str] = {}
    for name in sorted(MODELS, key=lambda name: MODELS[name].macs, reverse=True):
        small = {"small_images": True} if "small_images" in fields_of(name) else {}
        cheapest[type(create_model(name, 10))] = with_fields(name, **small) if small else name
    return [*REDUCED, *(text for kind, text in cheapest.items() if kind not in done)]


def may_slide(text: str) -> bool:
    """Whether a network has a form that gives maps of scores; what a call string asks for is left as it is."""
    return "conv" in getattr(create_model(text, 10), "heads", ()) and "head" not in spec.parse(text).kwargs


COMPUTED = _computed()


def computed(fits: Callable[[str], bool] = lambda text: True) -> list[Any]:
    """The networks to compute, as parameters of a test; those that cannot be made small take long."""
    marks = [pytest.mark.slow, pytest.mark.zoo]
    return [pytest.param(text, marks=[] if text in REDUCED else marks) for text in COMPUTED if fits(text)]


def example(text: str, batch: int = 2, seed: int = 0) -> np.ndarray:
    """Random images that the network takes."""
    return np.random.default_rng(seed).normal(size=(batch, *smallest(text))).astype(np.float32)


def started(text: str) -> tuple[Any, dict[str, Any]]:
    """The network and its variables as training starts with them."""
    model = create_model(text, 10)
    return model, jax.device_get(jax.jit(lambda x: model.init(key(), x, train=False))(example(text, 1)))


def drawn(text: str) -> tuple[Any, dict[str, Any]]:
    """The network with random variables, in which no bias, statistic or slope hides behind a 0 or a 1.

    Kernels are Gaussians that keep the size of maps: of those that some papers start from, small images are lost in.
    """
    model, rng = create_model(text, 10), np.random.default_rng(0)

    def draw(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
        match path[-1].key:
            case "kernel":
                values = rng.normal(0, np.sqrt(2 / np.prod(leaf.shape[:-1])), leaf.shape)
            case "scale" | "var":
                values = rng.uniform(0.5, 1.5, leaf.shape)
            case "coefficient":  # of the sum of four pixels
                values = rng.uniform(0.1, 0.4, leaf.shape)
            case _:
                values = rng.normal(0, 0.1, leaf.shape)
        return values.astype(np.float32)

    shapes = jax.eval_shape(lambda x: model.init(key(), x, train=False), example(text, 1))
    return model, jax.tree_util.tree_map_with_path(draw, shapes)


made = functools.cache(drawn)


def size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def layer_outputs(model: Any, variables: Any, x: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The logits, and the output of each layer that the network itself names."""
    apply = jax.jit(functools.partial(model.apply, train=False, capture_intermediates=True, mutable=["intermediates"]))
    logits, seen = jax.device_get(apply(variables, x))
    return logits, {name: value["__call__"][0] for name, value in seen["intermediates"].items() if name != "__call__"}


# ------------------------------------------------------------------------------------------------------------ numbers


def test_count_params_counts_for_other_classes_and_images() -> None:
    assert count_params(create_model("lenet5", 10), (28, 28, 1)) == 61_706
    assert count_params(create_model("cifar_resnet20", 100), (32, 32, 3)) == 269_722 + 90 * 65
    assert count_params(create_model("perceptron", 3), (4, 4, 2)) == 33 * 3


# ------------------------------------------------------------------------------------------- ways to compute a network


@pytest.mark.parametrize("text", computed())
def test_eager_jit_and_one_by_one_agree(text: str) -> None:
    model, variables = made(text)
    x = example(text, 3)
    apply = functools.partial(model.apply, train=False)
    eager = apply(variables, x)
    np.testing.assert_allclose(jax.jit(apply)(variables, x), eager, rtol=1e-4, atol=1e-4)
    one = jax.jit(jax.vmap(lambda variables, image: apply(variables, image[None])[0], in_axes=(None, 0)))
    np.testing.assert_allclose(one(variables, x), eager, rtol=1e-4, atol=1e-4)
    assert np.ptp(eager, axis=0).max() > 1e-4  # the images do get different answers


@pytest.mark.parametrize("text", computed())
def test_every_parameter_learns(text: str) -> None:
    model, variables = made(text)
    x, labels = example(text, 8), jnp.arange(8)
    rest = {name: value for name, value in variables.items() if name != "params"}

    @jax.jit
    @jax.grad
    def gradient(params: Any) -> jax.Array:
        logits, updated = model.apply(
            {"params": params, **rest}, x, train=True, rngs={"dropout": key()}, mutable=[*rest, "aux_logits"]
        )
        logits = logits + sum(jax.tree.leaves(updated.get("aux_logits", {})))
        return -jnp.mean(jax.nn.log_softmax(logits)[labels, labels])

    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(variables["params"])):
        assert np.isfinite(leaf).all(), path
        assert np.any(leaf != 0), path


@pytest.mark.parametrize("text", computed(lambda text: getattr(create_model(text, 10), "norm", "") == "batch"))
def test_training_moves_the_statistics_and_uses_the_batch(text: str) -> None:
    model, variables = made(text)
    x = example(text, 4)
    rngs = {"dropout": key()}
    run = jax.jit(functools.partial(model.apply, train=True, rngs=rngs, mutable=["batch_stats"]))
    logits, updated = run(variables, x)
    moved = jax.tree.map(lambda new, old: bool(np.any(new != old)), updated, {"batch_stats": variables["batch_stats"]})
    assert all(jax.tree.leaves(moved))
    others, _ = run(variables, np.concatenate([x[:1], example(text, 3, seed=1)]))
    assert np.abs(logits[0] - others[0]).max() > 1e-3


@pytest.mark.parametrize("text", computed())
def test_bfloat16_is_close_and_keeps_float32_state(text: str) -> None:
    (model, variables), half, x = made(text), create_model(text, 10, "bfloat16"), example(text, 4)
    exact, _ = layer_outputs(model, variables, x)
    rough, inner = layer_outputs(half, variables, x)
    assert rough.dtype == np.float32
    assert 0 < np.abs(exact - rough).max() / np.ptp(exact) < 0.05
    assert {value.dtype for value in inner.values()} == {jnp.dtype("bfloat16")}
    rngs = {"dropout": key()}
    _, state = jax.eval_shape(lambda x: half.apply(variables, x, train=True, rngs=rngs, mutable=["batch_stats"]), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(state)} <= {np.dtype("float32")}


@pytest.mark.parametrize("text", computed(lambda text: hasattr(create_model(text, 10), "norm")))
def test_fields_that_all_networks_share(text: str) -> None:
    """Every normalisation, form of classifier and way to pad that a network takes, in a few of their combinations."""
    model: Any = create_model(text, 10)
    given, shape = spec.parse(text).kwargs, (2, *intended(text))
    for norm, head, padding_mode, activation in (
        ("group", "gap", "edge", "prelu"),
        ("none", "fc", "zeros", "mish"),
        ("batch", "conv", "edge", "elu"),
    ):
        fields = {
            "norm": norm if norm in model.norms else model.norm,
            "head": head if head in model.heads and "head" not in given else model.head,
            "padding_mode": padding_mode if padding_mode in model.padding_modes else model.padding_mode,
            "activation": activation,
            "initializer": "xavier",
            "dropout": 0.1,
        }
        logits, variables = shaped(with_fields(text, **fields), shape, train=True)
        assert (logits.shape[0], logits.shape[-1], logits.dtype) == (2, 10, jnp.float32)
        assert logits.ndim == (4 if fields["head"] == "conv" else 2)
        assert ("batch_stats" in variables) == (fields["norm"] == "batch")
        names = {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])}
        assert (
            "slope" in names or activation != "prelu" or text == "lenet_caffe"
        )  # which activates a classifier's layer


@pytest.mark.parametrize("text", computed(lambda text: may_slide(text)))
def test_the_same_weights_give_a_map_of_scores_for_a_larger_image(text: str) -> None:
    if "aux" in fields_of(text):
        text = with_fields(text, aux=False)  # an auxiliary classifier may be for one size of images
    height, width, maps = intended(text)
    logits, variables = shaped(text, (1, height, width, maps))
    scores, same = shaped(with_fields(text, head="conv"), (1, 2 * height, 2 * width, maps))
    assert logits.shape == (1, 10)
    assert scores.shape[-1] == 10
    assert min(scores.shape[1:3]) > 1
    assert jax.tree.map(lambda leaf: leaf.shape, same) == jax.tree.map(lambda leaf: leaf.shape, variables)


@pytest.mark.parametrize("text", computed(lambda text: may_slide(text) and create_model(text, 10).head == "gap"))
def test_the_mean_of_the_map_of_scores_is_the_logits(text: str) -> None:
    model, variables = made(text)
    x = example(text)
    slide: Any = create_model(with_fields(text, head="conv"), 10)
    logits, scores = (jax.jit(functools.partial(net.apply, train=False))(variables, x) for net in (model, slide))
    np.testing.assert_allclose(scores.mean((1, 2)), logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("text", computed(lambda text: "remat" in fields_of(text)))
def test_recomputing_changes_no_parameter_and_no_gradient(text: str) -> None:
    _, variables = made(text)
    x = example(text)
    rest = {name: value for name, value in variables.items() if name != "params"}

    def gradient(text: str) -> Any:
        def loss(params: Any) -> jax.Array:
            out, _ = create_model(text, 10).apply(
                {"params": params, **rest}, x, train=True, rngs=rngs, mutable=list(rest)
            )
            return jnp.sum(out**2)

        rngs = {"dropout": key()}
        return jax.jit(jax.grad(loss))(variables["params"])

    plain, again = (gradient(with_fields(text, remat=remat, dropout=0.0)) for remat in (False, True))
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(one).max(), err_msg=str(path))


@pytest.mark.parametrize("text", computed(lambda text: "stochastic_depth" in fields_of(text) and "plain" not in text))
def test_stochastic_depth_acts_in_training_alone(text: str) -> None:
    _, variables = made(text)
    x = example(text, 4)
    model: Any = create_model(with_fields(text, stochastic_depth=0.9), 10)
    plain: Any = create_model(text, 10)
    run = jax.jit(
        lambda seed: model.apply(variables, x, train=True, rngs={"dropout": seed}, mutable=["batch_stats"])[0]
    )
    assert np.abs(run(key(1)) - run(key(2))).max() > 1e-3
    calm, usual = (net.apply(variables, x, train=False) for net in (model, plain))
    np.testing.assert_allclose(calm, usual, rtol=1e-5, atol=1e-5)


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
    (single, variables), x = made(with_fields(text, remat=remat)), example(text, 2)
    loop = create_model(with_fields(text, remat=remat, scan=True), 10)
    shapes = jax.eval_shape(lambda: loop.init(key(), x, train=False))

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


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", MODELS)
def test_every_network_takes_a_step(name: str, dtype: str) -> None:
    """One step of training, and one evaluation after it: finite, and no parameter without a gradient."""
    text = with_fields(name, small_images=True) if "small_images" in fields_of(name) else name
    if "1202" in text or "1001" in text:
        pytest.skip("the same class as shallower ones; computing more than 1000 layers takes an hour here")
    model, x, labels = create_model(text, 10, dtype), example(text, 4), jnp.arange(4)
    _, variables = drawn(text)
    params, rest = variables["params"], {name: value for name, value in variables.items() if name != "params"}

    def loss(params: Any) -> Any:
        logits, new = model.apply(
            {"params": params, **rest}, x, train=True, rngs={"dropout": key()}, mutable=[*rest, "aux_logits"]
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
    model, variables = made(text)
    x = example(text)
    first, second = (model.apply(variables, x, train=True, rngs={"dropout": key(seed)}) for seed in (1, 2))
    assert np.abs(first - second).max() > 1e-3
    plain = create_model(text.partition("(")[0], 10).apply(variables, x, train=True)
    np.testing.assert_array_equal(model.apply(variables, x, train=False), plain)


# ------------------------------------------------------------------------------------------------- the parts, in numpy


def conv_numpy(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("bhwcij,ijco->bhwo", windows, kernel) + bias


def squash_numpy(x: np.ndarray) -> np.ndarray:
    return 1.7159 * np.tanh(2 / 3 * x)


def subsample_numpy(x: np.ndarray, layer: dict[str, np.ndarray]) -> np.ndarray:
    sums = x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]
    return sums * layer["coefficient"] + layer["bias"]


def printed_table() -> np.ndarray:
    return np.array([[cell == "X" for cell in row] for row in TABLE_I.split()])


def test_c3_has_the_connections_of_table_1() -> None:
    table = printed_table()
    assert sorted(table.sum(0)) == [3] * 6 + [4] * 9 + [6]
    model: Any = lenet.TableConv()
    variables = model.init(key(), np.zeros((1, 14, 14, 6), np.float32))
    assert size(variables["params"]) == 1_516
    for source in range(6):
        x = np.zeros((1, 14, 14, 6), np.float32)
        x[..., source] = 1
        touched = (
            np.ptp(np.concatenate([model.apply(variables, x), model.apply(variables, 0 * x)]), axis=0).max((0, 1))
            > 1e-6
        )
        assert touched.tolist() == table[source].tolist()


def test_lenet_of_1998_has_the_paper_s_number_of_connections() -> None:
    """Sec. II.B: 340,908 in all, each unit's bias counted, and the 84 of each output unit."""
    model, variables = made("lenet5_1998")
    _, outputs = layer_outputs(model, variables, example("lenet5_1998", 1))
    pixels = {name: value.shape[1] * value.shape[2] if value.ndim == 4 else 1 for name, value in outputs.items()}
    per_pixel = {name: size(layer) for name, layer in variables["params"].items()}
    for name in ("s2", "s4"):  # four inputs share the coefficient
        per_pixel[name] = 5 * variables["params"][name]["bias"].size
    assert sum(per_pixel[name] * pixels[name] for name in per_pixel) + 84 * 10 == 340_908


def test_lenet_of_1998_computes_what_the_paper_says() -> None:
    model, variables = made("lenet5_1998")
    params, x = variables["params"], example("lenet5_1998", 4)
    kernel, column = np.zeros((5, 5, 6, 16)), 0
    for target, sources in enumerate(printed_table().T):
        for source in np.flatnonzero(sources):
            kernel[:, :, source, target] = params["c3"]["kernel"][:, :, column]
            column += 1
    y = squash_numpy(conv_numpy(x, params["c1"]["kernel"], params["c1"]["bias"]))
    y = squash_numpy(subsample_numpy(y, params["s2"]))
    y = squash_numpy(conv_numpy(y, kernel, params["c3"]["bias"]))
    y = squash_numpy(subsample_numpy(y, params["s4"]))
    y = squash_numpy(conv_numpy(y, params["c5"]["kernel"], params["c5"]["bias"]))[:, 0, 0]
    y = squash_numpy(y @ params["f6"]["kernel"] + params["f6"]["bias"])
    expected = [[-sum((a - b) ** 2 for a, b in zip(row, code, strict=True)) for code in lenet.codes()] for row in y]
    np.testing.assert_allclose(model.apply(variables, x, train=False), expected, rtol=1e-5, atol=1e-4)


def test_codes_are_ten_legible_bitmaps_far_from_each_other() -> None:
    codes = lenet.codes()
    assert codes.shape == (10, 84)
    assert set(np.unique(codes)) == {-1.0, 1.0}
    apart = (codes[:, None] != codes[None]).sum(-1) + 84 * np.eye(10, dtype=int)
    assert apart.min() >= 8
    assert "".join(".#"[int(pixel > 0)] for pixel in codes[7][:14]) == "#########...##"  # the top of the seven


def test_lenet_of_1998_is_for_ten_digits_of_32x32() -> None:
    with pytest.raises(InputError, match=r"num_classes = 100: .*10 digits"):
        create_model("lenet5_1998", 100)
    with pytest.raises(ValueError, match=r"images of 28x28: .* takes 32x32"):
        jax.eval_shape(lambda x: create_model("lenet5_1998", 10).init(key(), x, train=False), jnp.zeros((1, 28, 28, 1)))


def test_lenet_refuses_images_that_are_too_small() -> None:
    with pytest.raises(ValueError, match="images of 8x8: LeNet-5 needs at least 28x28"):
        jax.eval_shape(lambda x: create_model("lenet5", 10).init(key(), x, train=False), jnp.zeros((1, 8, 8, 1)))


def test_lenet_of_1998_learns_with_plain_cross_entropy() -> None:
    model, variables = started("lenet5_1998")
    params, x, labels = variables["params"], example("lenet5_1998", 10), jnp.arange(10)

    @jax.jit
    def step(params: Any) -> tuple[Any, jax.Array]:
        def loss(params: Any) -> jax.Array:
            logits = model.apply({"params": params}, x, train=True)
            return -jnp.mean(jax.nn.log_softmax(logits)[labels, labels])

        value, gradient = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.01 * g, params, gradient), value

    losses = []
    for _ in range(100):
        params, value = step(params)
        losses.append(float(value))
    assert losses[0] < 5
    assert losses[-1] < 0.1


@pytest.mark.parametrize("text", ["cifar_resnet20", "cifar_plain20"])
def test_without_residuals_only_shortcuts_remain(text: str) -> None:
    """With every F(x) = 0, option A leaves every second pixel between zeros, and a plain network forgets its input."""
    model, variables = made(text)
    variables = jax.tree.map(np.copy, variables)
    for name, block in variables["params"].items():
        if name.startswith("stage"):
            block["norm2"] = jax.tree.map(np.zeros_like, block["norm2"])
    logits, outputs = layer_outputs(model, variables, example(text))
    y = np.maximum(outputs["norm1"], 0)
    for stage, maps in ((2, 32), (3, 64)):
        wide = np.zeros((2, y.shape[1] // 2, y.shape[2] // 2, maps), np.float32)
        for row in range(wide.shape[1]):
            for column in range(wide.shape[2]):
                wide[:, row, column, maps // 4 : maps // 4 + maps // 2] = y[:, 2 * row, 2 * column]
        y = wide if text == "cifar_resnet20" else np.zeros_like(wide)
        np.testing.assert_array_equal(outputs[f"stage{stage}_block1"], y)
    head = variables["params"]["head"]
    np.testing.assert_allclose(logits, y.mean((1, 2)) @ head["kernel"] + head["bias"], rtol=1e-5, atol=1e-5)


def test_initial_weights_are_drawn_as_published() -> None:
    params = started("cifar_resnet20")[1]["params"]
    assert np.std(params["stage3_block2"]["conv1"]["kernel"]) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)
    assert np.std(params["stage3_block1"]["conv1"]["kernel"]) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)
    params = started("lenet5_1998")[1]["params"]
    bounds = {"c1": 2.4 / 25, "c5": 2.4 / 400, "f6": 2.4 / 120}
    for name, bound in bounds.items():
        assert 0.95 * bound < np.abs(params[name]["kernel"]).max() <= bound
    largest = np.abs(params["c3"]["kernel"]).max((0, 1))
    assert 0.9 * 2.4 / 75 < largest[:18].max() <= 2.4 / 75  # three maps in
    assert 0.9 * 2.4 / 150 < largest[-6:].max() <= 2.4 / 150  # six maps in
    params = started("deep_mlp")[1]["params"]
    assert np.abs(params["hidden5"]["kernel"]).max() == pytest.approx(0.05, rel=1e-3)


# ---------------------------------------------------------------------------------------------------- making a network


@pytest.mark.parametrize("text", BAD_CALLS)
def test_a_wrong_call_is_one_line_that_says_what_is_right(text: str) -> None:
    with pytest.raises(InputError) as caught:
        create_model(text, 10)
    assert BAD_CALLS[text] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fields_of_the_call_string_reach_the_network() -> None:
    model = create_model('lenet5(pool="average", activation="mish", dropout=0, padding=1)', 7, "bfloat16")
    assert (model.pool, model.activation, model.dropout, model.padding) == ("average", "mish", 0, 1)
    assert (model.num_classes, model.dtype) == (7, jnp.dtype("bfloat16"))
    assert create_model("cifar_resnet20(depth=26)", 10).depth == 26


def test_two_families_cannot_use_one_name() -> None:
    row = MODELS["lenet5"]
    families = types.ModuleType("one"), types.ModuleType("two")
    for family in families:
        family.__dict__["VARIANTS"] = {"net": row}
    with pytest.raises(ValueError, match="two has a network named 'net'"):
        cnnjax.models._merge(families)


FAMILY_FILES = [
    path
    for path in pathlib.Path(cnnjax.models.__file__).parent.glob("*.py")
    if path.stem not in ("__init__", "layers", "network", "convolution", "pooling", "primitive")
]


@pytest.mark.parametrize("path", FAMILY_FILES, ids=lambda path: path.stem)
def test_a_family_imports_only_layers_and_takes_its_convolutions_there(path: pathlib.Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    modules = {node.module or "." for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
    assert {module for module in modules if module.startswith("cnnjax")} <= {
        "cnnjax.models.layers",
        "cnnjax.models.network",
    }
    made_elsewhere = {"Conv", "ConvTranspose", "ConvLocal", "conv_general_dilated"}
    assert not [
        node for node in nodes if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in made_elsewhere
    ]
