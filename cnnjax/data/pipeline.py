"""Batches of a split: the same from device memory and from the host, on any number of devices.

A batch is a dict of arrays over the devices: "image" uint8 [B, H, W, C], "label" int32 [B], and "example" and "epoch"
int32 [B], as in `order.Indices`. `order` says which examples the batch of a step holds.
"""

import concurrent.futures
import dataclasses
import inspect
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax import spec
from cnnjax.augment import normalize
from cnnjax.data import images, split_cache, statistics, transforms
from cnnjax.data.operations import (
    ALL_HOST_OPS,
    Operations,
    is_random,
    parse_normalization,
    parse_operations,
    required_statistics,
)
from cnnjax.data.order import Indices, batch_indices, permutation
from cnnjax.data.store import Split
from cnnjax.distributed import sharding
from cnnjax.errors import InputError

__all__ = [
    "ALL_HOST_OPS", "Batch", "Indices", "Operations", "Source", "StepGroup", "batch_indices", "cores", "eval_batches",
    "gather_batch", "group_by_shape", "image_shapes", "is_random", "open_source", "parse_normalization",
    "parse_operations", "permutation", "read", "required_statistics", "train_batches",
    "train_groups",
]  # fmt: skip

Batch = dict[str, jax.Array]

AUTO_CACHE_BYTES = 2**30  # cache='auto' keeps a split of up to this size in device memory
STATISTICS_SAMPLE = 10_000  # images that give the statistics of a split that is not in device memory
IMAGES_PER_BLOCK = 1000

_reader = concurrent.futures.ThreadPoolExecutor(1, "cnnjax-reader")  # reads whole splits, one after the other


@dataclasses.dataclass(frozen=True)
class Source:
    """Represents a split that is opened for batches. The first use of a split in device memory waits until it is read.

    Attributes:
        fetch: function (steps, step -> Indices) -> iterator over the batches of these steps.
        device_split: function that returns all images and labels as one batch, replicated in device memory. None if the
            split is read from the host, batch by batch.
        num_examples: number of examples of the split.
        shape: shape of an image after the host operations: [H, W, C], or [V, H, W, C] with V views.
        statistics: function (names) -> dict of 'mean', 'std' and the named statistics: see `statistics.derive`.
    """

    fetch: Callable[[Sequence[int], Callable[[int], Indices]], Iterator[Batch]]
    device_split: Callable[[], Batch] | None
    num_examples: int
    shape: tuple[int, ...]
    statistics: Callable[[Collection[str]], dict[str, Any]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepGroup:
    """Holds the input of one device call that runs up to K training steps, on a split in device memory.

    Attributes:
        num_steps: how many of the K steps to run, int32 [].
        indices: `example` and `epoch` of the `Indices` of each step, int32 [2, K, B]; zeros after `num_steps` steps.
        device_split: images and labels of the whole split, from which the batches are gathered.
    """

    num_steps: np.ndarray
    indices: jax.Array
    device_split: Batch


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read(split: Split, calls: Sequence[spec.Call], indices: np.ndarray, positions: np.ndarray, seed: int) -> dict:
    """Reads the examples at `indices` [N] of a split, and applies the host operations `calls` to each image.

    Returns {"image": uint8 [N, H, W, C], "label": int32 [N]}. With an operation that makes V views, images are
    [N, V, H, W, C]. `positions` [N] are the examples' places in the training stream; each place and `seed` seed the
    random numbers of one example. Raises InputError for images that end up with different sizes.
    """
    encoded, labels = split.read_encoded(indices)
    ops = [spec.find("operation", call, ALL_HOST_OPS, image=None, rng=None) for call in calls]
    decode = images.open_for_window if calls and calls[0].name in transforms.WINDOW_OPS else images.decode
    batch = np.empty((0,), np.uint8)
    for i, (index, data, position) in enumerate(zip(indices, encoded, positions, strict=True)):
        with split.input_errors(index):
            image = split.decode(data, decode)  # one at a time, so that all reuse the same memory
            rng = np.random.Generator(np.random.Philox(key=np.array([seed, position], np.uint64))) if ops else None
            for op in ops:
                provided = {"image": image, "rng": rng}
                image = op(**{name: provided[name] for name in provided.keys() & op.keywords.keys()})
        if i == 0:
            batch = np.empty((len(indices), *image.shape), np.uint8)
        if image.shape != batch.shape[1:]:
            sizes = ", ".join(map(str, sorted({image.shape, batch.shape[1:]})))
            raise InputError(
                f"the images of {split.name} have different sizes ({sizes} ...): add an operation that gives them the "
                "same one, such as resize((224, 224)), at the start of config.augment and config.preprocess"
            )
        batch[i] = image
    return {"image": batch, "label": labels.astype(np.int32)}


def open_source(split: Split, calls: Sequence[spec.Call], *, cache: str, seed: int, mesh: Mesh) -> Source:
    """Opens a split for batches of images after the host operations `calls`.

    `cache` is 'device' (the whole split in device memory), 'host' (read as needed) or 'auto': 'device' for at most
    AUTO_CACHE_BYTES without random operations. The batches are the same either way, bit for bit. `seed` is for random
    operations. Batches are distributed over the devices of `mesh`. Raises InputError for cache='device' with random
    operations, whose results differ from epoch to epoch.
    """
    if cache == "device" and is_random(calls):
        name = next(call.name for call in calls if is_random([call]))
        raise InputError(f"config.cache = 'device' cannot keep the results of {name!r}, which is random; use 'auto'")
    first = read(split, calls, np.array([0]), np.array([0]), seed)["image"]
    if cache == "auto":
        cache = "device" if not is_random(calls) and first.nbytes * len(split) <= AUTO_CACHE_BYTES else "host"
    if cache == "device":
        return _open_on_device(split, calls, first.shape[1:], mesh)
    return _open_on_host(split, calls, first.shape[1:], seed, mesh)


def _read_split(split: Split, calls: Sequence[spec.Call]) -> dict[str, np.ndarray]:
    """Reads a whole split, in parallel, and applies the host operations `calls`.

    Returns "image" and "label" as `read` does, and "histogram", int64 [C, 256]: see `statistics.histogram`.
    """

    def read_block(indices: np.ndarray) -> dict[str, np.ndarray]:
        block = read(split, calls, indices, indices, 0)
        return block | {"histogram": statistics.histogram(block["image"])}

    with concurrent.futures.ThreadPoolExecutor(cores()) as pool:  # more would only contend for the GIL
        blocks = list(pool.map(read_block, _in_blocks(np.arange(len(split)))))
    arrays = {name: np.concatenate([block[name] for block in blocks]) for name in ("image", "label")}
    return arrays | {"histogram": np.sum([block["histogram"] for block in blocks], axis=0)}


def _open_on_device(split: Split, calls: Sequence[spec.Call], shape: tuple, mesh: Mesh) -> Source:
    """Opens a split that a background thread reads into device memory; `shape` is after the host operations."""

    def load() -> tuple[Batch, np.ndarray]:
        arrays = split_cache.cached_arrays(split, calls, lambda: _read_split(split, calls))
        device_split = {name: sharding.put_replicated(mesh, arrays[name]) for name in ("image", "label")}
        return device_split, arrays["histogram"]

    loading = _reader.submit(load)
    gather = jax.jit(
        gather_batch,
        in_shardings=(sharding.replicated(mesh), sharding.batch_sharding(mesh), sharding.batch_sharding(mesh)),
        out_shardings=sharding.batch_sharding(mesh),
    )

    def fetch(steps: Sequence[int], indices_of: Callable[[int], Indices]) -> Iterator[Batch]:
        for step in steps:
            indices = indices_of(step)
            local = sharding.local_rows(mesh, len(indices.example))
            values = (indices.example[local], indices.epoch[local])
            yield gather(loading.result()[0], *(sharding.put_batch(mesh, value) for value in values))

    def measure(names: Collection[str]) -> dict[str, Any]:
        device_split, histogram = loading.result()
        pixels = np.asarray(device_split["image"].addressable_data(0))
        blocks = (pixels[rows] for rows in _in_blocks(np.arange(len(pixels))))
        return statistics.derive(statistics.accumulate(blocks, names, {"histogram": histogram}), shape)

    def cached_measure(names: Collection[str]) -> dict[str, Any]:
        if not names:  # mean and std come from the histogram at once
            return measure(names)
        code = [inspect.getsource(module) for module in (statistics, normalize)]
        return split_cache.cached_arrays(split, calls, lambda: measure(names), sorted(names), code)

    return Source(fetch, lambda: loading.result()[0], len(split), shape, cached_measure)


def gather_batch(device_split: Batch, example: jax.Array, epoch: jax.Array) -> Batch:
    """Gathers a batch from a split in device memory: its images and labels at the indices `example`, int32 [B].

    The batch also holds `example` and `epoch`, int32 [B], themselves. For use inside `jax.jit`.
    """
    return {name: array[example] for name, array in device_split.items()} | {"example": example, "epoch": epoch}


def _in_blocks(indices: np.ndarray) -> list[np.ndarray]:
    """Cuts an array into equal consecutive blocks of at least IMAGES_PER_BLOCK; a shorter array is one block."""
    return np.array_split(indices, max(1, len(indices) // IMAGES_PER_BLOCK))


def _open_on_host(split: Split, calls: Sequence[spec.Call], shape: tuple, seed: int, mesh: Mesh) -> Source:
    """Opens a split that is read batch by batch, in as many threads as cores; `shape` is after the host operations.

    Its statistics are those of at most STATISTICS_SAMPLE evenly spaced images.
    """

    def fetch(steps: Sequence[int], indices_of: Callable[[int], Indices]) -> Iterator[Batch]:
        import grain  # costs half a second

        def read_step(step: int) -> dict:
            indices = indices_of(step)
            size = len(indices.example)
            local = sharding.local_rows(mesh, size)
            positions = step * size + np.arange(size) if indices.position is None else indices.position
            example, positions = indices.example[local], positions[local]
            return read(split, calls, example, positions, seed) | {"example": example, "epoch": indices.epoch[local]}

        # As many threads as cores: with twice as many, a CPU-second reads a tenth fewer photographs.
        options = grain.ReadOptions(num_threads=cores(), prefetch_buffer_size=max(8, cores()))
        for batch in grain.MapDataset.source(steps).map(read_step).to_iter_dataset(options):
            yield {name: sharding.put_batch(mesh, array) for name, array in batch.items()}

    def measure(names: Collection[str]) -> dict[str, Any]:
        sample = np.linspace(0, len(split) - 1, min(len(split), STATISTICS_SAMPLE)).astype(np.int64)
        blocks = (read(split, calls, rows, rows, seed)["image"] for rows in _in_blocks(sample))
        return statistics.derive(statistics.accumulate(blocks, names), shape)

    return Source(fetch, None, len(split), shape, measure)


def train_batches(
    source: Source, *, seed: int, batch_size: int, repeats: int = 1, start: int, stop: int
) -> Iterator[Batch]:
    """Yields the batches of the training steps `start` to `stop` - 1, shuffled anew in each epoch.

    `seed`, `batch_size` and `repeats` are as in `batch_indices`, which chooses the examples.
    """
    return source.fetch(
        range(start, stop), lambda step: batch_indices(seed, step, batch_size, source.num_examples, repeats)
    )


def train_groups(
    source: Source, groups: Iterable[range], *, seed: int, batch_size: int, repeats: int, max_steps: int, mesh: Mesh
) -> Iterator[tuple[int, StepGroup]]:
    """Yields (end, StepGroup) for each range of consecutive training steps in `groups`.

    `end` is the step after the last one of the range. A range has at most `max_steps` steps, the K of StepGroup. All
    groups have the same shapes, so that one compiled program takes any of them. The source has to be in device memory.
    `seed`, `batch_size` and `repeats` are as in `batch_indices`.
    """
    assert source.device_split is not None
    for steps in groups:
        indices = np.zeros((2, max_steps, batch_size), np.int32)
        for i, step in enumerate(steps):
            batch = batch_indices(seed, step, batch_size, source.num_examples, repeats)
            indices[:, i] = batch.example, batch.epoch
        device_indices = sharding.put_replicated(mesh, indices)
        yield steps.stop, StepGroup(np.asarray(len(steps), np.int32), device_indices, source.device_split())


def image_shapes(split: Split) -> np.ndarray:
    """Returns the (height, width, channels) of each image of a split, without decoding any: int [N, 3].

    If the split records no common size, the headers of all images are read.
    """
    if None not in split.shape:
        return np.tile(np.array(split.shape), (len(split), 1))
    shapes = []
    for indices in _in_blocks(np.arange(len(split))):
        for index, data in zip(indices, split.read_encoded(indices)[0], strict=True):
            with split.input_errors(index):
                shapes.append((*images.read_shape(data)[:2], split.shape[2]))
    return np.array(shapes)


def group_by_shape(shapes: np.ndarray, calls: Sequence[spec.Call]) -> dict[tuple[int, ...], np.ndarray]:
    """Groups images by their shape after the host operations `calls`: {shape: int32 [n], ascending indices}.

    `shapes`, int [N, 3], are the shapes before. The operations run on one blank image of each distinct shape.
    """
    groups: dict[tuple[int, ...], list[np.ndarray]] = {}
    distinct, inverse = np.unique(shapes, axis=0, return_inverse=True)
    for number, shape in enumerate(distinct):
        image, rng = np.zeros(shape, np.uint8), np.random.default_rng(0)
        for call in calls:
            image = spec.find("operation", call, ALL_HOST_OPS, image=image, rng=rng)()
        groups.setdefault(image.shape, []).append(np.flatnonzero(inverse.ravel() == number))
    return {shape: np.sort(np.concatenate(rows)).astype(np.int32) for shape, rows in groups.items()}


def eval_batches(
    source: Source, *, batch_size: int, mesh: Mesh, groups: Iterable[np.ndarray] | None = None
) -> Iterator[Batch]:
    """Yields batches that together hold every example once, in order, without shuffling.

    The last batch of a group is filled up with copies of its last example. The additional array "mask", bool [B], is
    False for these copies. A batch has examples of one group only. `groups` are int32 arrays of indices that together
    hold each example once, for instance those of images of one size. None: all examples are one group. The random
    numbers of host operations depend on the seed and the example alone.
    """
    devices = mesh.shape["data"]
    chunks: list[np.ndarray] = []
    sizes: list[int] = []
    for group in [np.arange(source.num_examples, dtype=np.int32)] if groups is None else groups:
        size = -(-min(batch_size, len(group)) // devices) * devices
        group_chunks = [group[start : start + size] for start in range(0, len(group), size)]
        chunks, sizes = chunks + group_chunks, sizes + [size] * len(group_chunks)

    def padded_indices(step: int) -> Indices:
        example = np.pad(chunks[step], (0, sizes[step] - len(chunks[step])), mode="edge")
        return Indices(example, np.zeros(sizes[step], np.int32), position=example)

    steps = range(len(chunks))
    for step, batch in zip(steps, source.fetch(steps, padded_indices), strict=True):
        mask = np.arange(sizes[step]) < len(chunks[step])
        yield batch | {"mask": sharding.put_batch(mesh, mask[sharding.local_rows(mesh, sizes[step])])}
