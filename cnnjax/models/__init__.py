"""Every network by its published name, and the way to make one."""

import math
import types

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax import spec
from cnnjax.errors import InputError
from cnnjax.models import (
    airbench,
    alexnet,
    bn_inception,
    densenet,
    googlenet,
    inception_v3,
    inception_v4,
    lenet,
    mlp,
    mobilenet,
    nin,
    prelunet,
    resnet,
    resnet_cifar,
    resnet_v2,
    resnext_cifar,
    squeezenet,
    vgg,
    wide_resnet,
    xception,
    zfnet,
)
from cnnjax.models.network import Variant

# In the order of their time.
_FAMILIES: tuple[types.ModuleType, ...] = (
    mlp,
    lenet,
    alexnet,
    nin,
    zfnet,
    vgg,
    googlenet,
    prelunet,
    bn_inception,
    inception_v3,
    resnet,
    resnet_cifar,
    squeezenet,
    resnet_v2,
    wide_resnet,
    inception_v4,
    resnext_cifar,
    densenet,
    xception,
    mobilenet,
    airbench,
)


def _merge(families: tuple[types.ModuleType, ...]) -> dict[str, Variant]:
    """The families' VARIANTS in one table. Raises ValueError when two use one name."""
    models: dict[str, Variant] = {}
    for family in families:
        if clash := models.keys() & family.VARIANTS.keys():
            raise ValueError(f"{family.__name__} has a network named {min(clash)!r}, as a family before it has")
        models |= family.VARIANTS
    return models


MODELS: dict[str, Variant] = _merge(_FAMILIES)


def create_model(text: str, num_classes: int, dtype: str = "float32") -> nn.Module:
    """The network that a call string like 'cifar_resnet20(shortcut="B")' describes.

    Its fields are checked here, before anything is computed: InputError names the network or the field that is wrong.
    """
    call = spec.parse(text)
    if call.args:
        raise InputError(f"model {text!r}: expected its fields by name, as in name(field=value)")
    table = {name: variant.build for name, variant in MODELS.items()}
    # Flax adds `parent` and `name` to every module's fields; like the program's own, they are not for the call string.
    given = {"num_classes": num_classes, "dtype": jnp.dtype(dtype), "parent": None, "name": None}
    make = spec.find("model", call, table, **given)
    try:
        return make()
    except (TypeError, ValueError) as error:
        raise InputError(f"model {text!r}: {error}") from error


def count_params(model: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """The number of trainable parameters, for images of that height, width and channels. Computes shapes only."""
    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
