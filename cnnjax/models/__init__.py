"""Every network by its published name, and the way to make one."""

import dataclasses
import functools
import inspect
import math
import types
from collections.abc import Callable
from typing import Any, get_args, get_origin

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax import spec
from cnnjax.errors import InputError
from cnnjax.models import lenet, mlp, resnet_cifar
from cnnjax.models.layers import Variant

_FAMILIES: tuple[types.ModuleType, ...] = (mlp, lenet, resnet_cifar)


def _merge(families: tuple[types.ModuleType, ...]) -> dict[str, Variant]:
    """The families' VARIANTS in one table. Raises ValueError when two use one name."""
    models: dict[str, Variant] = {}
    for family in families:
        if clash := models.keys() & family.VARIANTS.keys():
            raise ValueError(f"{family.__name__} has a network named {min(clash)!r}, as a family before it has")
        models |= family.VARIANTS
    return models


MODELS: dict[str, Variant] = _merge(_FAMILIES)


def _fits(value: Any, expected: Any) -> bool:
    """Whether a literal has the type of a field; True for a type that no literal has."""
    if expected is float:
        return type(value) in (int, float)
    if expected in (bool, int, str):
        return type(value) is expected
    if get_origin(expected) is tuple and get_args(expected)[1:] == (...,):
        return type(value) is tuple and all(_fits(item, get_args(expected)[0]) for item in value)
    return True


def _typed(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """`build`, with the same signature, raising TypeError for a value that has not its field's type."""
    module: Any = getattr(build, "func", build)  # the class itself, or what a functools.partial calls
    types_of: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(module)}

    @functools.wraps(build)
    def make(*args: Any, **kwargs: Any) -> nn.Module:
        values = inspect.signature(build).bind(*args, **kwargs).arguments
        for name, value in values.items():
            if not _fits(value, kind := types_of[name]):
                raise TypeError(f"{name} = {value!r}: expected {kind if get_origin(kind) else kind.__name__}")
        return build(**values)

    return make


def create_model(text: str, num_classes: int, dtype: str = "float32") -> nn.Module:
    """The network that a call string like 'cifar_resnet20(shortcut="B")' describes.

    Its fields are checked here, before anything is computed: InputError names the network or the field that is wrong.
    """
    call = spec.parse(text)
    if call.args:
        raise InputError(f"model {text!r}: expected its fields by name, as in name(field=value)")
    table = {name: _typed(variant.build) for name, variant in MODELS.items()}
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
