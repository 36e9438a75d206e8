"""A check that a training can fit into memory at all, before anything is allocated."""

import math
import os
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from cnnjax.errors import InputError
from cnnjax.state import TrainState


def check_memory(shapes: TrainState, batch_size: int, image_shape: Sequence[int], mesh: Mesh) -> None:
    """Raises InputError if the training state and one batch of float32 images are larger than the devices' memory.

    That is less than a training needs, so one that passes may still lack memory. `shapes` are ShapeDtypeStructs,
    `batch_size` is the number of images per step, over all micro-batches, and `image_shape` is [H, W, C].
    """
    state = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes) if leaf.shape)
    batch = 4 * batch_size * math.prod(image_shape)
    memory = _device_memory(mesh.devices.flat[0])
    if memory and (state + batch) / mesh.size > memory:
        raise InputError(
            f"a state of {state / 1e9:,.3g} GB and a batch of {batch / 1e9:,.3g} GB do not fit into "
            f"{mesh.size} x {memory / 1e9:.3g} GB of memory; choose a smaller network or batch_size"
        )


def _device_memory(device: Any) -> int:
    """Returns the memory of a device in bytes: for a CPU that of the machine; 0 where it is not known."""
    if device.platform == "cpu":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (device.memory_stats() or {}).get("bytes_limit", 0)
