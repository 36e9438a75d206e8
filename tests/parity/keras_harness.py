"""Our networks against keras.applications: the same weights, the same images, the same numbers.

Layers are paired in the order of Keras's graph, among those of one shape: a wrong pairing gives wrong numbers.
"""

import os
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.models import create_model
from tests.parity.harness import LIMIT, Layer, _at, _ours, _pair, random_variables


class KerasReference(NamedTuple):
    """A network of keras.applications that the call string `ours` describes."""

    ours: str
    name: str
    sizes: tuple[tuple[int, int], ...]  # height and width of images
    options: dict[str, Any] | None = None
    num_classes: int = 10
    batch: int = 4
    last: str = ""  # a pattern of their layers that are before others of their `unit` and come after them with us
    unit: str = ""  # a pattern of the names' beginnings that layers of one unit share
    double: bool = True  # in float64: rounding in float32 switches a deep net's ReLUs, which changes its gradients


def applications() -> Any:
    """keras.applications, computed by JAX."""
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    return keras.applications


def build(row: KerasReference, size: tuple[int, int]) -> Any:
    make = getattr(applications(), row.name)
    options = {"weights": None, "classifier_activation": None, "classes": row.num_classes, "input_shape": (*size, 3)}
    return make(**options, **(row.options or {}))


# Ours -> theirs: the variables of one layer of ours, which may be half of one of theirs.
NAMES = {
    "DepthwiseConv2D": ({"kernel": "kernel", "bias": "bias"},),
    "SeparableConv2D": ({"kernel": "depthwise_kernel"}, {"kernel": "pointwise_kernel", "bias": "bias"}),
    "Conv2D": ({"kernel": "kernel", "bias": "bias"},),
    "Dense": ({"kernel": "kernel", "bias": "bias"},),
    "BatchNormalization": ({"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"},),
}


def _theirs(net: Any, row: KerasReference) -> tuple[list[Layer], dict[str, dict[str, str]]]:
    """Their layers that have variables, in the order of the graph, and the paths of these by our names."""
    layers, paths = [], {}
    for layer in net.layers:
        if not layer.weights:
            continue
        own = {variable.name: variable for variable in layer.weights}
        for i, names in enumerate(NAMES[type(layer).__name__]):
            mine = {ours: own[theirs] for ours, theirs in names.items() if theirs in own}
            first = tuple(next(iter(mine.values())).shape)
            if "depthwise" in next(iter(mine.values())).path or type(layer).__name__ == "DepthwiseConv2D":
                height, width, maps, multiplier = first
                shape = (maps * multiplier, height * width)
            else:
                shape = (first[-1], int(np.prod(first[:-1]))) if len(first) > 1 else first
            layers.append(Layer(f"{layer.name}:{i}", (shape,)))
            paths[f"{layer.name}:{i}"] = {ours: variable.path for ours, variable in mine.items()}
    if row.last:

        def unit(layer: Layer) -> str:
            found = re.match(row.unit, str(layer.name))
            return found.group() if found else ""

        ends = {unit(layer): i for i, layer in enumerate(layers) if unit(layer)}
        order = [ends[unit(one)] + 0.5 if re.search(row.last, str(one.name)) else i for i, one in enumerate(layers)]
        layers = [layer for _, layer in sorted(zip(order, layers, strict=True), key=lambda pair: pair[0])]
    return layers, paths


def compare(row: KerasReference, size: tuple[int, int]) -> dict[str, float]:
    """The largest relative differences: logits in evaluation and in training, statistics, gradients."""
    applications()
    import keras
    from keras.src.backend.common import dtypes

    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"  # Keras on JAX takes float32 instead, in BatchNorm
    dtype, before = "float64" if row.double else "float32", keras.config.floatx()
    keras.config.set_floatx(dtype)  # when layers are made, and when they are called
    keras.config.set_dtype_policy(dtype)
    try:
        with jax.enable_x64(row.double):
            return _compare(row, size, dtype)
    finally:
        keras.config.set_floatx(before)
        keras.config.set_dtype_policy(before)


def _compare(row: KerasReference, size: tuple[int, int], dtype: str) -> dict[str, float]:
    net = build(row, size)
    model = create_model(row.ours, row.num_classes, dtype)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(row.batch, *size, 3)).astype(dtype)
    labels = rng.integers(row.num_classes, size=row.batch)
    theirs, paths = _theirs(net, row)
    pairs = _pair(_ours(model, x), theirs)
    variables = random_variables(model, x)

    # The same weights: Keras has ours up to the order of axes of size 1.
    values = {variable.path: variable.value for variable in net.variables}
    left = {path for own in paths.values() for path in own.values()}
    for layer, name in pairs:
        for collection in ("params", "batch_stats"):
            for leaf_name, leaf in _at(variables.get(collection, {}), tuple(layer.name)).items():
                path = paths[name][leaf_name]
                values[path] = jnp.asarray(leaf.reshape(values[path].shape))
                left.remove(path)
    assert not left, f"variables of theirs that ours lacks: {left}"
    trained, state = (
        [variable.path for variable in group] for group in (net.trainable_variables, net.non_trainable_variables)
    )

    worst: dict[str, float] = {}

    def differ(what: str, mine: Any, other: Any, scale: float = 0.0) -> None:
        mine, other = np.asarray(mine, np.float64), np.asarray(other, np.float64)
        assert np.isfinite(mine).all(), what
        error = np.abs(mine.reshape(other.shape) - other).max() / max(np.abs(other).max(), scale, 1e-30)
        kind = what.split()[0]
        worst[kind] = max(worst.get(kind, 0.0), float(error))
        if error > LIMIT:
            worst[what] = float(error)

    def apply(params: list[Any], training: bool) -> tuple[Any, Any]:
        return net.stateless_call(params, [values[path] for path in state], jnp.asarray(x), training=training)

    params = [values[path] for path in trained]
    mine = jax.jit(lambda v: model.apply(v, x, train=False))(variables)
    differ("eval", mine.reshape(row.batch, -1), jax.jit(lambda p: apply(p, False)[0])(params))

    def loss_of(logits: Any) -> Any:
        return -jax.nn.log_softmax(logits)[jnp.arange(row.batch), labels].mean()

    rest = {name: value for name, value in variables.items() if name != "params"}

    def our_loss(params: Any) -> Any:
        logits, new = model.apply({"params": params, **rest}, x, train=True, mutable=[*rest])
        return loss_of(logits), (logits, new)

    def their_loss(params: Any) -> Any:
        logits, new = apply(params, True)
        return loss_of(logits), (logits, new)

    grads, (mine, updated) = jax.jit(jax.grad(our_loss, has_aux=True))(variables["params"])
    their_grads, (logits, new) = jax.jit(jax.grad(their_loss, has_aux=True))(params)
    differ("train", mine, logits)
    results = dict(zip(trained, their_grads, strict=True)) | dict(zip(state, new, strict=True))
    ours = {"params": grads, "batch_stats": updated.get("batch_stats", {})}
    for layer, name in pairs:
        scale = max(float(jnp.abs(results[path]).max()) for path in paths[name].values() if path in set(trained))
        for leaf_name, path in paths[name].items():
            kind = "statistics" if leaf_name in ("mean", "var") else "gradient"
            leaf = _at(ours["batch_stats" if kind == "statistics" else "params"], tuple(layer.name))[leaf_name]
            differ(
                f"{kind} {'/'.join(layer.name)}/{leaf_name}", leaf, results[path], scale if kind == "gradient" else 0.0
            )
    return worst


_MOBILENET = 'dropout=0.0, activation="relu6", same=True'

# Keras's MobileNet pads odd sides otherwise than TF-Slim: only its first layer meets one here.
ROWS = [
    KerasReference("xception(dropout=0.0)", "Xception", ((71, 71), (96, 85))),
    KerasReference(f"mobilenet_v1({_MOBILENET})", "MobileNet", ((64, 64), (63, 96)), {"dropout": 0.0}),
    KerasReference(
        f"mobilenet_v1_050({_MOBILENET})", "MobileNet", ((64, 64), (63, 96)), {"dropout": 0.0, "alpha": 0.5}
    ),
]
