"""Sharding: one mesh over all devices of all processes, with the axes `data` and `model`.

Batches are sharded along `data`, large fully connected layers along `model`. Everything else is replicated, so devices
along `model` compute the same convolutions. XLA inserts the communication.
"""

import functools
import itertools
import math
import os
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnnjax.errors import InputError, nearest

AXES = ("data", "model")

# Parameters sharded along `model`; the first pattern that matches a parameter's path applies. Krizhevsky et al. 2012
# (sec. 3.5) split layers over two GPUs. Shoeybi et al. (Megatron-LM, arXiv:1909.08053, sec. 3) split pairs of layers:
# the first by its outputs, the second by its inputs, so that only the sums of the second are communicated.
RULES = (
    (r"\b(fc6|fc8|hidden\d*[13579])/kernel$", PartitionSpec(None, "model")),
    (r"\b(fc6|fc8|hidden\d*[13579])/bias$", PartitionSpec("model")),
    (r"\b(fc7|hidden\d*[02468])/kernel$", PartitionSpec("model", None)),
)


def make_mesh(devices: Sequence[Any] | None = None, text: str = "") -> Mesh:
    """Returns the mesh of `devices` (None: all) with the axes `data` and `model`.

    `text` gives the sizes of the axes, as in 'data=4,model=2'; an axis that is left out has size 1, and '' puts all
    devices along `data`. Raises InputError for an unknown axis, or if the product of the sizes is not the number of
    devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = dict.fromkeys(AXES, 1) | (_sizes(text) if text else {"data": len(devices)})
    if math.prod(sizes.values()) != len(devices):
        model = math.gcd(sizes["model"], len(devices))
        valid = f"data={len(devices) // model}" + f",model={model}" * (model > 1)
        raise InputError(
            f"config.mesh = {text!r} is for {math.prod(sizes.values())} devices, but there are {len(devices)}: "
            f"use {valid!r}"
        )
    return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def _sizes(text: str) -> dict[str, int]:
    """Parses 'data=4,model=2' into {'data': 4, 'model': 2}. Raises InputError for anything else."""
    sizes: dict[str, int] = {}
    for axis in text.split(","):
        name, _, size = map(str.strip, axis.partition("="))
        if name not in AXES:
            raise InputError(f"config.mesh = {text!r}: unknown axis {name!r}; {nearest(name, AXES)}")
        if name in sizes or not (size.isdecimal() and int(size)):
            raise InputError(f"config.mesh = {text!r}: expected each axis once, with its size, as in 'data=4,model=2'")
        sizes[name] = int(size)
    return sizes


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device holds in full."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: its first axis is divided along the mesh axis `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def state_sharding(shapes: Any, mesh: Mesh, zero: bool = False) -> Any:
    """Returns the sharding of each array of a training state, by `RULES`, as a tree like `shapes`.

    An array that no rule matches is replicated, and so is an axis whose size is not divisible. A parameter's moving
    average and optimizer state are sharded like the parameter, because their paths end alike.

    Args:
      shapes: a training state, or the variables of a network, as arrays or ShapeDtypeStructs.
      mesh: the devices.
      zero: also shards the optimizer state along `data`, each array by its first divisible axis (stage 1 of Rajbhandari
        et al., ZeRO, SC 2020, sec. 5.1).

    Raises InputError if the mesh has several devices along `model`, but nothing is sharded along that axis.
    """

    def sharding_of(path: tuple, x: Any) -> NamedSharding:
        """Returns the sharding of the array at `path`."""
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        rule = next((spec for pattern, spec in RULES if re.search(pattern, name)), ())
        axes = [
            axis if axis and mesh.shape[axis] > 1 and size % mesh.shape[axis] == 0 else None
            for size, axis in itertools.zip_longest(x.shape, rule)
        ]
        if zero and name.startswith("opt_state/"):
            divisible = (i for i, size in enumerate(x.shape) if not axes[i] and size % mesh.shape["data"] == 0)
            if (first := next(divisible, None)) is not None:
                axes[first] = "data"
        return NamedSharding(mesh, PartitionSpec(*axes))

    shardings = jax.tree_util.tree_map_with_path(sharding_of, shapes)
    if mesh.shape["model"] > 1 and not any("model" in sharding.spec for sharding in jax.tree.leaves(shardings)):
        raise InputError(
            f"config.mesh has model={mesh.shape['model']}, but no layer of this network is divisible among these "
            f"devices: use 'data={mesh.size}'"
        )
    return shardings


def with_sharding(shapes: Any, shardings: Any) -> Any:
    """Combines a tree of shapes and a tree of shardings into ShapeDtypeStructs, to restore a checkpoint into."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, shardings
    )


def local_bytes(tree: Any) -> int:
    """Returns the bytes that a tree of sharded arrays, or of ShapeDtypeStructs with shardings, takes on each device."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Raises InputError if the batch size is not divisible by the number of devices along `data`."""
    if batch_size % mesh.shape["data"]:
        raise InputError(f"a batch of {batch_size} is not divisible among {mesh.shape['data']} devices")


def local_rows(mesh: Mesh, count: int) -> np.ndarray:
    """Returns which rows of a global batch of `count` rows this process's devices hold: int [n], ascending indices."""
    slices = batch_sharding(mesh).addressable_devices_indices_map((count,)).values()
    return np.unique(np.concatenate([np.arange(count)[rows] for rows in slices if rows]))


def put_batch(mesh: Mesh, rows: np.ndarray) -> jax.Array:
    """Builds a global batch, sharded along `data`, from the `rows` of it that this process holds (see `local_rows`)."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), rows)


def put_replicated(mesh: Mesh, array: np.ndarray) -> jax.Array:
    """Builds a global array that every device holds in full. Every process passes the whole array."""
    return jax.make_array_from_process_local_data(replicated(mesh), array, array.shape)


@functools.cache
def compiler_options() -> dict[str, str] | None:
    """Returns the `compiler_options` for `jax.jit` on this backend; None for the defaults.

    On a CPU, the library YNNPACK is used for reductions only: its reductions in batch normalization are several times
    faster than XLA's own, but its weight gradients of convolutions are several times slower. The option is not set if
    this version of XLA does not have it, or if XLA_FLAGS sets it.
    """
    name = "xla_cpu_experimental_ynn_fusion_type"
    options = {name: "LIBRARY_FUSION_TYPE_REDUCE"}
    if jax.default_backend() != "cpu" or name in os.environ.get("XLA_FLAGS", ""):
        return None
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except Exception:  # a version without the option
        return None
    return options
