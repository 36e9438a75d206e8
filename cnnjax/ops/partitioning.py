"""Custom calls on several devices: XLA can partition only its own operations, so each call declares how to shard it."""

import dataclasses
import functools
import hashlib
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax._src import sharding_impls  # no public API names the axes of the mesh in a sharding of XLA
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from cnnjax.ops.primitive import device_count

KEY_AXIS = "z"  # axis of the operand that makes calls differ in the compilation cache
_FILES = sorted(path for path in pathlib.Path(__file__).parent.glob("*.*") if path.is_file())
CODE = hashlib.sha256(b"".join(path.read_bytes() for path in _FILES)).digest()  # of this folder, C++ included


@dataclasses.dataclass(frozen=True)
class Axes:
    """The axes of an operation, one letter each, as in `jax.numpy.einsum`.

    Attributes:
      operands: the axes of each operand, such as ('nhwc', 'ijco').
      result: the axes of the result, such as 'npqo'.
      divisible: letters of the axes along which the operation may be sharded. If the result lacks such an axis, the
          devices' partial results are combined.
    """

    operands: tuple[str, ...]
    result: str
    divisible: str

    @property
    def reduced(self) -> tuple[str, ...]:
        """Returns the divisible axes that the result lacks."""
        return tuple(letter for letter in self.divisible if letter not in self.result)


def on_each_device(
    context: Any,
    compute: Callable[..., jax.Array],
    axes: Axes,
    combine: Callable[[jax.Array, tuple[str, ...]], jax.Array] = lax.psum,
) -> Callable[..., jax.Array]:
    """Returns a function with the result of `compute`, for which each of several devices computes its own shard.

    Args:
      context: the LoweringRuleContext of the program (Shardy). The returned function can be used only there.
      compute: compute(*operands, shape=..., devices=..., **options) returns an array of this shape. `devices` is the
        number of devices of this process that compute at the same time.
      axes: the axes of the operands and the result. Operands that are sharded along an axis that is not divisible are
        gathered first.
      combine: combine(partial, names) combines the devices' partial results, where a divisible axis that the result
        lacks is sharded. `names` are the axes of the mesh that shard it. All shards have the same size.
    """
    count = device_count(context)
    if count == 1:
        return compute

    def compute_on_shards(*operands: jax.Array, shape: tuple[int, ...], **options: Any) -> jax.Array:
        """Computes an array of the given shape."""
        options = options | {"devices": min(count, jax.local_device_count())}
        local = functools.partial(compute, **options)
        call = custom_partitioning(lambda *operands: local(*operands[:-1], shape=shape))
        letters = dict.fromkeys("".join((*axes.operands, KEY_AXIS, axes.result)))
        call.def_partition(
            functools.partial(_partition, local, axes, combine),
            sharding_rule=f"{', '.join(map(' '.join, axes.operands))}, {KEY_AXIS} -> {' '.join(axes.result)}",
            decode_shardings=False,  # see `_axes_of_mesh`
            reduction_factors=axes.reduced,
            need_replication_factors=tuple(letter for letter in letters if letter not in axes.divisible),
        )
        # Before partitioning, the program does not show what is called: JAX's compilation cache would mix up programs
        # that differ in options or in our code. So a digest of both is an operand, which no device reads.
        text = repr((compute.__module__, sorted(options.items())))
        digest = hashlib.sha256(text.encode() + CODE).digest()
        return call(*operands, np.frombuffer(digest, np.int32))

    return compute_on_shards


def _axes_of_mesh(mesh: Any, array: Any) -> Sequence[Any]:
    """Returns the axes of the mesh that shard each axis of an array, as in a PartitionSpec.

    Returns () if only a part of a mesh axis shards an axis, which a PartitionSpec cannot express. Such an array is
    gathered.
    """
    sharding = array.sharding._to_xla_hlo_sharding(array.ndim)
    try:
        return tuple(sharding_impls.parse_flatten_op_sharding(sharding, mesh)[0])
    except (AssertionError, NotImplementedError, ValueError):
        return ()


def _partition(
    compute: Callable[..., jax.Array], axes: Axes, combine: Callable[..., jax.Array], mesh: Any, operands: Any,
    result: Any,
) -> Any:  # fmt: skip
    """Implements the `partition` callback of custom_partitioning, for `compute` and `combine` of `on_each_device`.

    `operands` and `result` have shapes and the shardings that XLA proposes. The first array with a divisible axis in
    equal shards decides how this axis is sharded. Returns the mesh, the function that computes a device's shard, the
    sharding of the result and those of the operands.
    """
    sharded: dict[str, Any] = {}
    for letters, array in zip((*axes.operands, axes.result), (*operands[:-1], result), strict=True):
        for letter, size, axis in zip(letters, array.shape, _axes_of_mesh(mesh, array), strict=False):
            names = (axis,) if isinstance(axis, str) else tuple(axis or ())
            taken = {name for names in sharded.values() for name in names}
            devices = math.prod(mesh.shape[name] for name in names)
            is_free = letter in axes.divisible and letter not in sharded and not taken & {*names}
            if names and is_free and size % devices == 0:
                sharded[letter] = names

    def sharding(letters: str) -> NamedSharding:
        """Returns the sharding of an array with these axes."""
        return NamedSharding(mesh, PartitionSpec(*(sharded.get(letter) or None for letter in letters)))

    local_shape = sharding(axes.result).shard_shape(result.shape)
    reduced = tuple(name for letter in axes.reduced for name in sharded.get(letter, ()))

    def compute_shard(*shards: jax.Array) -> jax.Array:
        """Computes a device's shard of the result."""
        out = compute(*shards[:-1], shape=local_shape)
        return combine(out, reduced) if reduced else out

    return mesh, compute_shard, sharding(axes.result), (*map(sharding, axes.operands), sharding(KEY_AXIS))
