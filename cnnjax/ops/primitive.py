"""Helpers shared by the primitives: creation, and the choice between oneDNN and XLA when they are lowered."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax._src import dispatch  # no public API tells a lowering the mesh
from jax.extend.core import Primitive

from cnnjax.ops import onednn


def primitive(name: str) -> Primitive:
    """Creates a JAX primitive whose result has the shape of its parameter `shape` and the dtype of its first operand.

    The caller registers derivatives, batching and lowerings. Outside jit, each call runs as its own jitted function,
    which is compiled once per set of parameters and shapes.
    """
    result = Primitive(name)

    @functools.cache
    def compiled(**params: Any) -> Any:
        """Returns the jitted function that binds the primitive with these parameters."""
        return jax.jit(functools.partial(result.bind, **params))

    needs_mesh(result)
    result.def_impl(lambda *operands, **params: compiled(**params)(*operands))
    result.def_abstract_eval(lambda first, *rest, shape, **params: first.update(shape=shape, weak_type=False))
    return result


def needs_mesh(primitive: Primitive) -> None:
    """Makes JAX give the lowerings of a primitive the mesh of the program."""
    dispatch.prim_requires_devices_during_lowering.add(primitive)


def device_count(context: Any) -> int:
    """Returns the number of devices of the program that is being lowered; `context` is its LoweringRuleContext."""
    return getattr(context.module_context.axis_context, "num_devices", 1)


def uses_onednn(context: Any) -> bool:
    """Returns whether a lowering for a CPU may call oneDNN; `context` is its LoweringRuleContext.

    False in an exported program, which must run without our library; on several devices that no mesh names; for a first
    operand other than float32 and bfloat16; and where oneDNN is not available.
    """
    no_mesh = device_count(context) > 1 and getattr(context.module_context.axis_context, "abstract_mesh", None) is None
    if no_mesh or context.module_context.lowering_parameters.for_export:
        return False
    return context.avals_in[0].dtype in (jnp.float32, jnp.bfloat16) and onednn.load().ok
