"""What the primitives of convolutions and pools share: how they run outside jit, what they return,
and whether oneDNN computes them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive

from cnnjax.ops import onednn


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


def devices_of(context: Any) -> int:
    """How many devices the program is for that is being lowered."""
    return getattr(context.module_context.axis_context, "num_devices", 1)


def by_native(context: Any) -> bool:
    """Whether a lowering for a CPU may call oneDNN.

    Of several devices XLA divides the work, and can do so with its own operations alone; and a program that is exported
    runs where there is no library of ours.
    """
    if devices_of(context) > 1 or context.module_context.lowering_parameters.for_export:
        return False
    return context.avals_in[0].dtype in (jnp.float32, jnp.bfloat16) and onednn.load().ok
