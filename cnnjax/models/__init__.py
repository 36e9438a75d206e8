"""The networks by their published names, and `create_model`, which builds one from a call string."""

import contextlib
import math
import types

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax import spec
from cnnjax.errors import InputError, matching, nearest, unknown
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
    sequential,
    squeezenet,
    vgg,
    wide_resnet,
    xception,
    zfnet,
)
from cnnjax.models.layers import UnknownValueError
from cnnjax.models.network import Variant

# In chronological order; lists of layers come last.
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
    sequential,
)


MAX_TEXT_SHOWN = 80  # characters of a call string in an error about one of its arguments


def _merge(families: tuple[types.ModuleType, ...]) -> dict[str, Variant]:
    """Merges the families' VARIANTS tables to {name: variant}. Raises ValueError if two families share a name."""
    models: dict[str, Variant] = {}
    for family in families:
        if clash := models.keys() & family.VARIANTS.keys():
            raise ValueError(f"{family.__name__}: the name {min(clash)!r} is taken by another family")
        models |= family.VARIANTS
    return models


MODELS: dict[str, Variant] = _merge(_FAMILIES)


def list_models(pattern: str = "") -> list[str]:
    """Lists the names of networks that contain `pattern`, such as 'resnet'.

    A pattern with wildcards (* ? [) must match the whole name: 'vgg*_bn'. '' lists all.
    """
    return matching(pattern, MODELS)


# Arguments of call strings that have been renamed: (kind, function or '*', old name, new name).
ARGUMENT_ALIASES: tuple[tuple[str, str, str, str], ...] = (
    ("model", "*", "ghost", "ghost_batch_size"),
    *(("model", name, "dropout", "block_dropout") for name in (*wide_resnet.VARIANTS, *densenet.VARIANTS)),
)


def rename_arguments(call: spec.Call) -> spec.Call:
    """Returns a parsed call string of a model with old argument names replaced by today's (ARGUMENT_ALIASES).

    Raises InputError if both the old and the new name are given.
    """
    kwargs = dict(call.kwargs)
    for kind, function, old, new in ARGUMENT_ALIASES:
        if kind == "model" and function in ("*", call.name) and old in kwargs:
            if new in kwargs:
                raise InputError(f"model {call.name!r}: {old} is the old name of {new}; expected only one of them")
            kwargs = {new if name == old else name: value for name, value in kwargs.items()}
    return call._replace(kwargs=kwargs)


def create_model(text: str, num_classes: int = 0, dtype: str = "float32") -> nn.Module:
    """Builds the network that a call string describes, such as 'cifar_resnet20(shortcut="B")'.

    Returns a flax module without parameters; nothing is computed. `num_classes` 0 means that of the paper. `dtype` is
    the dtype of the computation, 'float32' or 'bfloat16'; parameters stay float32. Raises InputError for an unknown
    network, field or dtype, with the nearest valid name, and for a value outside of its field's range.
    """
    call = rename_arguments(spec.parse(text))
    if call.name not in MODELS:
        raise unknown("model", call.name, MODELS)
    if call.args[call.name in sequential.VARIANTS :]:
        raise InputError(f"model {text!r}: expected arguments by name, as in name(field=value)")
    table = {name: variant.build for name, variant in MODELS.items()}
    num_classes = num_classes or MODELS[call.name].num_classes
    # Flax adds `parent` and `name` to the fields of every module; like the given ones, call strings cannot set them.
    given = {"num_classes": num_classes, "dtype": _floating(dtype), "parent": None, "name": None}
    build = spec.find("model", call, table, **given)
    try:
        return build()
    except (TypeError, ValueError) as error:
        shown = text if len(text) <= MAX_TEXT_SHOWN else f"{call.name}(...)"
        reason = error
        if isinstance(error, UnknownValueError):
            reason = f"unknown {error.kind} {error.value!r}; {nearest(str(error.value), error.valid)}"
        raise InputError(f"model {shown!r}: {reason}") from error


def _floating(name: str) -> jnp.dtype:
    """Returns the floating-point dtype of this name. Raises InputError for any other name."""
    with contextlib.suppress(TypeError):
        if jnp.issubdtype(dtype := jnp.dtype(name), jnp.floating):
            return dtype
    raise unknown("dtype", name, ("float32", "bfloat16"))


def with_num_classes(model: nn.Module, num_classes: int) -> nn.Module:
    """Returns a copy of `model` with another number of classes, whatever number its call string had."""
    return model.clone(num_classes=num_classes) if hasattr(model, "num_classes") else model


def count_params(model: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Returns the number of trainable parameters of `model` for images [height, width, channels].

    Running statistics do not count. Only shapes are traced; no parameters are created.
    """
    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
