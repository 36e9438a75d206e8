"""What the primitives of convolutions and pools share: how they run outside jit, and what they return."""

import functools
from typing import Any

import jax
from jax.extend.core import Primitive


def primitive(name: str) -> Primitive:
    """A primitive that returns an array of its parameter `shape`, with the dtype of its first operand.

    Derivatives, vmap and lowerings are left to register. Outside jit each set of parameters is compiled once.
    """
    made = Primitive(name)

    @functools.cache
    def compiled(**params: Any) -> Any:
        return jax.jit(functools.partial(made.bind, **params))

    made.def_impl(lambda *operands, **params: compiled(**params)(*operands))
    made.def_abstract_eval(lambda first, *rest, shape, **params: first.update(shape=shape, weak_type=False))
    return made
