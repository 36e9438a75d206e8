"""Where arrays live: one mesh over all devices of all processes, with axes `data` and `model`."""

import functools
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnnjax.errors import InputError


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """All devices, or the given ones, along `data`."""
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices), 1), ("data", "model"), axis_types=(AxisType.Auto,) * 2, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """Rows divided among the devices along `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def placed(shapes: Any, where: NamedSharding) -> Any:
    """The same tree of shapes, each said to live there: what a checkpoint is restored into."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes)


def check_batch(batch_size: int, mesh: Mesh) -> None:
    """Raises InputError when a batch cannot be divided evenly among the devices."""
    if batch_size % mesh.shape["data"]:
        raise InputError(f"a batch of {batch_size} does not divide among {mesh.shape['data']} devices")


def local_rows(count: int) -> slice:
    """The rows of a global batch of `count` that this process reads."""
    each = count // jax.process_count()
    return slice(jax.process_index() * each, (jax.process_index() + 1) * each)


def put_rows(mesh: Mesh, rows: np.ndarray) -> jax.Array:
    """A global array divided along `data`, from this process's rows of it."""
    return jax.make_array_from_process_local_data(split(mesh), rows)


def put_whole(mesh: Mesh, array: np.ndarray) -> jax.Array:
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
