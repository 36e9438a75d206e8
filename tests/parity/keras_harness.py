"""Our networks against keras.applications: the same weights, the same images, the same numbers.

Layers are paired, as in harness.py, in the order of Keras's graph, or in that in which its code makes them.
"""

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tests.parity.harness import (
    LIMITS,
    Differences,
    Layer,
    at,
    compare_both,
    cross_entropy,
    make_case,
    our_layers,
    our_results,
    pair,
    shortcuts_last,
)

os.environ["KERAS_BACKEND"] = "jax"  # read when keras is imported


class KerasReference(NamedTuple):
    """A network of keras.applications that the call string `ours` describes."""

    ours: str
    name: str
    sizes: tuple[tuple[int, int], ...]  # height and width of two images, one odd
    options: dict[str, Any] | None = None
    num_classes: int = 10
    batch: int = 4
    made: bool = False  # pairs by the order in which layers are made: the graph's mixes that of branches
    last: str = ""  # as in Reference
    unit: str = ""

    @property
    def source(self) -> str:
        options = ", ".join(f"{name}={value}" for name, value in (self.options or {}).items())
        return f"keras 3.15.1 {self.name}" + (f"({options})" if options else "")


@contextmanager
def keras_in(dtype: str) -> Iterator[Any]:
    """Keras with layers that compute in `dtype`; `JAX_NUMPY_RANK_PROMOTION=raise` is not for its code."""
    keras = importlib.import_module("keras")
    # Keras on JAX takes float32 for float64, in BatchNormalization.
    dtypes = importlib.import_module("keras.src.backend.common.dtypes").BIT64_TO_BIT32_DTYPE
    before, dtypes["float64"] = dtypes["float64"], "float64"
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        with jax.numpy_rank_promotion("allow"):
            yield keras
    finally:
        dtypes["float64"] = before
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


# Ours -> theirs: the variables of one layer of ours, which may be half of one of theirs.
NAMES = {
    "DepthwiseConv2D": ({"kernel": "kernel", "bias": "bias"},),
    "SeparableConv2D": ({"kernel": "depthwise_kernel"}, {"kernel": "pointwise_kernel", "bias": "bias"}),
    "Conv2D": ({"kernel": "kernel", "bias": "bias"},),
    "Dense": ({"kernel": "kernel", "bias": "bias"},),
    "BatchNormalization": ({"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"},),
}


def _theirs(net: Any, row: KerasReference) -> tuple[list[Layer], dict[str, dict[str, str]]]:
    """Their layers that have variables, and the paths of these by our names."""
    layers: list[Layer] = []
    paths: dict[str, dict[str, str]] = {}
    graph = net.layers
    if row.made:  # Keras counts its tensors: keras_tensor, keras_tensor_1...
        graph = sorted(graph, key=lambda layer: int(layer.output.name.rpartition("tensor")[2].strip("_") or 0))
    for layer in graph:
        own = {variable.name: variable for variable in layer.weights}
        if not own:
            continue
        for i, names in enumerate(NAMES[type(layer).__name__]):
            mine = {ours: own[theirs] for ours, theirs in names.items() if theirs in own}
            first = next(iter(mine.values()))
            shape = tuple(first.shape)
            if "depthwise" in first.path or type(layer).__name__ == "DepthwiseConv2D":
                shape = (shape[2] * shape[3], shape[0] * shape[1])
            elif len(shape) > 1:
                shape = (shape[-1], int(np.prod(shape[:-1])))
            layers.append(Layer(f"{layer.name}:{i}", (shape,)))
            paths[f"{layer.name}:{i}"] = {ours: variable.path for ours, variable in mine.items()}
    return shortcuts_last(layers, row.last, row.unit), paths


def compare(row: KerasReference, size: tuple[int, int]) -> tuple[Differences, Differences]:
    """Our network and theirs: see `compare_both`."""
    return compare_both(_compare, row, size)


def _compare(row: KerasReference, size: tuple[int, int], dtype: str, training: bool) -> Differences:
    case = make_case(row, (*size, 3), dtype)
    differences, ours = Differences(LIMITS[dtype]), our_results(case, training)
    with keras_in(dtype) as keras:
        options = {"weights": None, "classifier_activation": None, "classes": row.num_classes} | (row.options or {})
        net = getattr(keras.applications, row.name)(input_shape=(*size, 3), **options)
        layers, paths = _theirs(net, row)
        pairs = pair(our_layers(case), layers)

        # The same weights: Keras has ours up to the order of axes of size 1.
        values = {variable.path: variable.value for variable in net.variables}
        left = {path for own in paths.values() for path in own.values()}
        for layer, name in pairs:
            for collection in case.variables.values():
                for leaf_name, leaf in at(collection, layer.name).items():
                    path = paths[name][leaf_name]
                    assert values[path].dtype == leaf.dtype, path
                    values[path] = jnp.asarray(leaf.reshape(values[path].shape))
                    left.remove(path)
        assert not left, f"variables of theirs that ours lacks: {left}"

        # The same numbers.
        trained, state = (
            [one.path for one in group] for group in (net.trainable_variables, net.non_trainable_variables)
        )

        def run(params: list[Any], training: bool) -> tuple[Any, Any]:
            return net.stateless_call(params, [values[path] for path in state], case.images, training=training)

        def loss_fn(params: list[Any]) -> tuple[Any, Any]:
            logits, new = run(params, True)
            return cross_entropy(logits, case.labels), (logits, new)

        params = [values[path] for path in trained]
        evaluated, _ = jax.jit(lambda p: run(p, False))(params)
        differences.add("eval", ours.evaluated, evaluated)
        if not training:
            return differences
        grads, (logits, new) = jax.jit(jax.grad(loss_fn, has_aux=True))(params)

    assert len(ours.trained) == 1, "auxiliary classifiers: Keras has none"
    differences.add("train", ours.trained[0], logits)
    results: dict[str, Any] = dict(zip(state, new, strict=True))
    results |= dict(zip(trained, grads, strict=True))
    for layer, name in pairs:
        where = "/".join(layer.name)
        own = {leaf_name: results[path] for leaf_name, path in paths[name].items() if path in results}
        for leaf_name, leaf in at(ours.statistics, layer.name).items():
            differences.add("statistics", leaf, own[leaf_name], f"{where}/{leaf_name}")
        leaves = at(ours.gradients, layer.name)
        scale = max((float(jnp.abs(own[leaf_name]).max()) for leaf_name in leaves), default=0.0)
        for leaf_name, leaf in leaves.items():
            theirs = own[leaf_name]
            differences.add("gradient", leaf.reshape(theirs.shape), theirs, f"{where}/{leaf_name}", scale)
    return differences
