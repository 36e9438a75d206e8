"""Helpers for the tests of all networks: reduced forms, image sizes, random variables."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import spec
from cnnjax.models import MODELS, create_model
from cnnjax.models.network import limits

# The networks that tests compute in full: small forms of deep networks. A class that is not here is computed as its
# variant with the fewest MACs.
REDUCED = (
    "mlp",
    "lenet5",
    "lenet5_tanh",
    "alexnet_2012(features=(8, 8, 8, 8, 8), hidden=(16, 16))",
    "cifar_resnet20(depth=8)",
    'cifar_resnet20(depth=8, shortcut="B")',
    "cifar_plain20(depth=8)",
    "cifar_preresnet110(stage_sizes=(1, 1, 1))",
    "wide_resnet16_8(depth=10, width=1)",
    "resnet18(stage_sizes=(1, 1), features=16, width=16, small_images=True)",
    "se_resnext50_32x4d(stage_sizes=(1, 1), features=16, groups=4, small_images=True)",
    "densenet40_12(stage_sizes=(2, 2), growth_rate=4)",
    'vgg11(features=(8, 8, 16, 16, 16), head="gap")',
    "sequential(layers='conv(8, 3)|batch_norm|relu|max_pool(2)|conv(8, 3)|prelu|gap|dense(16)|tanh|dense')",
)


def key(seed: int = 0) -> jax.Array:
    return jax.random.key(seed, impl="rbg")  # much faster than the default where a network has hundreds of layers


def choices(model: Any, name: str) -> tuple[str, ...]:
    """The values that a network's field accepts."""
    return limits(type(model), name)["choices"] if hasattr(model, name) else ()


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
    """The smallest image shape that leaves feature maps of at least 2x2."""
    own = MODELS[spec.parse(text).name].input_shape
    if own[0] <= 32 or "features_only" not in fields_of(text):
        return own
    for side in (16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192):
        try:
            shaped(text, (1, side, side, own[2]), train=True)
            features, _ = shaped(with_fields(text, features_only=True), (1, side, side, own[2]))
        except ValueError:
            continue
        if min(min(maps.shape[1:3]) for maps in features.values()) > 1:
            return side, side, own[2]
    return own


def intended(text: str) -> tuple[int, int, int]:
    """The image shape for which the fully connected layers are made."""
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
    """Whether head='conv' exists for a network whose call string does not set the head."""
    return "conv" in choices(create_model(text, 10), "head") and "head" not in spec.parse(text).kwargs


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


def drawn(text: str, shape: tuple[int, ...] = ()) -> tuple[Any, dict[str, Any]]:
    """The network with random variables, in which no bias, statistic or slope hides behind a 0 or a 1.

    `shape` is that of its images, () for `smallest`. Kernels keep the variance of activations; some papers'
    initializations make them vanish for small images.
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

    image = jax.ShapeDtypeStruct((1, *(shape or smallest(text))), jnp.float32)
    shapes = jax.eval_shape(lambda x: model.init(key(), x, train=False), image)
    return model, jax.tree_util.tree_map_with_path(draw, shapes)


made = functools.cache(drawn)


def size(tree: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def layer_outputs(model: Any, variables: Any, x: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The logits, and the output of each layer that the network itself names; of several arrays the last."""
    apply = jax.jit(functools.partial(model.apply, train=False, capture_intermediates=True, mutable=["intermediates"]))
    logits, seen = jax.device_get(apply(variables, x))
    inner = {
        name: jax.tree.leaves(value["__call__"]) for name, value in seen["intermediates"].items() if name[:2] != "__"
    }
    return logits, {name: values[-1] for name, values in inner.items()}
