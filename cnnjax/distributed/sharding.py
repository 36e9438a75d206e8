"""Where arrays live: one mesh over all devices of all processes, with axes `data` and `model`.

Batches are divided along `data`, large full connections along `model`; everything else is whole on every device, and
devices along `model` compute their convolutions alike. XLA adds the communication.
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

# What is divided along `model`: the first pattern found in a parameter's path counts. The two GPUs of Krizhevsky et al.
# 2012 (sec. 3.5), as Shoeybi et al. (Megatron-LM, arXiv:1909.08053, sec. 3) divide a pair of layers: of one each device
# has some of the outputs, of the next it has the weights of these, and only the sums of that one are communicated.
RULES = (
    (r"\b(fc6|fc8|hidden\d*[13579])/kernel$", PartitionSpec(None, "model")),
    (r"\b(fc6|fc8|hidden\d*[13579])/bias$", PartitionSpec("model")),
    (r"\b(fc7|hidden\d*[02468])/kernel$", PartitionSpec("model", None)),
)


def make_mesh(devices: Sequence[Any] | None = None, text: str = "") -> Mesh:
    """All devices, or the given ones, as `text` has it: 'data=4,model=2', or '' for all along `data`.

    Raises InputError for an axis that does not exist, and when the sizes are not for so many devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = dict.fromkeys(AXES, 1) | (_sizes(text) if text else {"data": len(devices)})
    if math.prod(sizes.values()) != len(devices):
        model = math.gcd(sizes["model"], len(devices))
        fitting = f"data={len(devices) // model}" + f",model={model}" * (model > 1)
        raise InputError(
            f"config.mesh = {text!r} is for {math.prod(sizes.values())} devices, and there are {len(devices)}: "
            f"use {fitting!r}"
        )
    return jax.make_mesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def _sizes(text: str) -> dict[str, int]:
    """The axes that a config's `mesh` names, with their sizes."""
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = map(str.strip, part.partition("="))
        if name not in AXES:
            raise InputError(f"config.mesh = {text!r}: unknown axis {name!r}; {nearest(name, AXES)}")
        if name in sizes or not (size.isdecimal() and int(size)):
            raise InputError(f"config.mesh = {text!r}: expected each axis once, with its size, as in 'data=4,model=2'")
        sizes[name] = int(size)
    return sizes


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows divided among the devices along `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def state_sharding(shapes: Any, mesh: Mesh, zero: bool = False) -> Any:
    """Where the arrays of a state live, as a tree of its form: as RULES has it, and whole where a size does not divide.

    The rules hold for whatever is kept of a parameter, too, for its path ends alike. With `zero` what the optimiser
    keeps is also divided along `data`, by the first axis that divides: the first stage of Rajbhandari et al., ZeRO,
    SC 2020, sec. 5.1. Raises InputError when the mesh has more than one device along `model`, and nothing is divided.
    """

    def place(path: tuple, x: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        rule = next((spec for pattern, spec in RULES if re.search(pattern, name)), ())
        axes = [
            axis if axis and mesh.shape[axis] > 1 and size % mesh.shape[axis] == 0 else None
            for size, axis in itertools.zip_longest(x.shape, rule)
        ]
        if zero and name.startswith("opt_state/"):
            free = (i for i, size in enumerate(x.shape) if not axes[i] and size % mesh.shape["data"] == 0)
            if (first := next(free, None)) is not None:
                axes[first] = "data"
        return NamedSharding(mesh, PartitionSpec(*axes))

    where = jax.tree_util.tree_map_with_path(place, shapes)
    if mesh.shape["model"] > 1 and not any("model" in place.spec for place in jax.tree.leaves(where)):
        raise InputError(
            f"config.mesh has model={mesh.shape['model']}, and no layer of this network divides among so many devices: "
            f"use 'data={mesh.size}'"
        )
    return where


def with_sharding(shapes: Any, where: Any) -> Any:
    """The same tree of shapes, each said to live where the tree `where` says: what a checkpoint is restored into."""
    return jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes, where)


def local_bytes(tree: Any) -> int:
    """The bytes of a tree of arrays, or of `with_sharding` shapes, on each device."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Raises InputError when a batch cannot be divided evenly among the devices."""
    if batch_size % mesh.shape["data"]:
        raise InputError(f"a batch of {batch_size} does not divide among {mesh.shape['data']} devices")


def local_rows(mesh: Mesh, count: int) -> np.ndarray:
    """The rows of a global batch of `count` that this process reads: those that its devices hold, in order."""
    held = batch_sharding(mesh).addressable_devices_indices_map((count,)).values()
    return np.unique(np.concatenate([np.arange(count)[rows] for rows in held if rows]))


def put_batch(mesh: Mesh, rows: np.ndarray) -> jax.Array:
    """A global array divided along `data`, from this process's rows of it."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), rows)


def put_replicated(mesh: Mesh, array: np.ndarray) -> jax.Array:
    """A global array that every device holds whole, from the whole of it in every process."""
    return jax.make_array_from_process_local_data(replicated(mesh), array, array.shape)


@functools.cache
def compiler_options() -> dict[str, str] | None:
    """Compiler options for this backend, for `jax.jit`; None where it has none of its own.

    On a CPU, reductions alone go through YNNPACK: its convolutions' weight gradients are several times slower than
    XLA's own, and without it batch normalisation is. Tried out first, since options come and go with versions; what
    XLA_FLAGS says of it counts.
    """
    name = "xla_cpu_experimental_ynn_fusion_type"
    options = {name: "LIBRARY_FUSION_TYPE_REDUCE"}
    if jax.default_backend() != "cpu" or name in os.environ.get("XLA_FLAGS", ""):
        return None
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except Exception:  # whatever a version without the option raises
        return None
    return options
