"""Batches: a function of (seed, step), the same from device memory and from the host, on any number of devices.

The examples of a training are one endless stream: a new order of the whole split every epoch, cut into batches
without regard for where an epoch ends. So every example is used once per epoch, none is dropped, and the batch of
any step can be made from the step's number alone. With repeats, a batch has fewer examples, each several times, and
the stream goes through the split that much more slowly.
"""

import concurrent.futures
import functools
import inspect
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax import spec
from cnnjax.augment import MIXING, OPS, normalize
from cnnjax.data import images, split_cache, statistics
from cnnjax.data.images import HOST_OPS
from cnnjax.data.store import Split
from cnnjax.data.views import VIEWS
from cnnjax.distributed import sharding
from cnnjax.errors import InputError, unknown

Batch = dict[str, jax.Array]

AUTO_CACHE_BYTES = 2**30  # cache='auto' keeps a split of up to this size on the device
STATISTICS_SAMPLE = 10_000  # images that the statistics of a split too large to cache are computed from

ON_HOST = HOST_OPS | VIEWS  # of these, views are for evaluation alone: they come last, and of a protocol

_reader = concurrent.futures.ThreadPoolExecutor(1, "cnnjax-reader")  # of whole splits, in the order of their opening


class Indices(NamedTuple):
    """Which examples a batch is made of, each int32 [B]."""

    example: np.ndarray  # its number in the split
    epoch: np.ndarray  # in which each is seen, from 0: how often it was seen before


class Source(NamedTuple):
    """A split that batches can be made of. One for device memory is read in the background, and awaited where used."""

    fetch: Callable[[Sequence[int], Callable[[int], Indices]], Iterator[Batch]]
    whole: Callable[[], Batch] | None  # all of it, on every device; None for one that is read as it goes
    count: int  # examples
    shape: tuple[int, int, int]  # of an image after the host's operations; [V, H, W, C] where these make views of it
    statistics: Callable[[Collection[str]], dict[str, Any]]  # mean, std and those asked for: `data.statistics`


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def split_ops(text: str) -> tuple[list[spec.Call], list[spec.Call]]:
    """The operations of a pipeline that run on the host (they change sizes), and those in the step, in this order.

    Of the latter, those that mix whole batches come last: see `split_mixing`.
    """
    calls = spec.parse_pipeline(text)
    for call in calls:
        if call.name not in HOST_OPS | OPS | MIXING:
            raise unknown("operation", call.name, HOST_OPS | OPS | MIXING)
    on_host = [call.name in HOST_OPS for call in calls]
    host = on_host.index(False) if False in on_host else len(calls)
    if True in on_host[host:]:
        late = calls[on_host.index(True, host)].name
        raise InputError(f"{text!r}: {late!r} changes sizes on the host, so it must come before {calls[host].name!r}")
    for call in calls[:host]:
        spec.find("operation", call, HOST_OPS, image=None, rng=None)
    for call, after in itertools.pairwise(calls):
        if call.name in MIXING and after.name not in MIXING:
            raise InputError(f"{text!r}: {call.name!r} mixes whole batches, so it must come after {after.name!r}")
    return calls[:host], calls[host:]


def split_mixing(step_ops: Sequence[spec.Call]) -> tuple[list[spec.Call], list[spec.Call]]:
    """The operations in the step on single images, and those on batches, of which `augment.build_mixing` is made."""
    return ([call for call in step_ops if call.name not in MIXING], [call for call in step_ops if call.name in MIXING])


def required_statistics(*pipelines: str, normalization: str) -> set[str]:
    """The statistics, beside mean and std, that these operations and this normalisation take."""
    functions: list[Callable] = [(OPS | MIXING)[call.name] for text in pipelines for call in split_ops(text)[1]]
    functions.append(normalize.NORMALIZE[spec.parse(normalization).name])
    parameters = {name for function in functions for name in inspect.signature(function).parameters}
    return parameters & {*normalize.ON_DEMAND}


def is_random(calls: Sequence[spec.Call]) -> bool:
    """Whether any of the host's operations draws random numbers."""
    return any("rng" in inspect.signature(ON_HOST[call.name]).parameters for call in calls)


@functools.lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of the examples in an epoch. Philox's raw bits are the same in every version of NumPy."""
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(count)
    return np.argsort(bits, kind="stable")


def batch_indices(seed: int, step: int, batch_size: int, count: int, repeats: int = 1) -> Indices:
    """The examples in the batch of a step: `batch_size` / `repeats` of them, and then the same again.

    Each time with randomness of its own, as Hoffer et al. (2020, Augment Your Batch) have it.
    """
    distinct = batch_size // repeats
    position = np.arange(step * distinct, (step + 1) * distinct)
    epoch, offset = position // count, position % count
    example = np.empty(distinct, np.int32)
    for e in np.unique(epoch):
        example[epoch == e] = permutation(seed, int(e), count)[offset[epoch == e]]
    seen = repeats * epoch + np.arange(repeats)[:, None]
    return Indices(np.tile(example, repeats), seen.astype(np.int32).ravel())


def read(split: Split, calls: Sequence[spec.Call], indices: np.ndarray, positions: np.ndarray, seed: int) -> dict:
    """Reads examples and runs the host's operations: {"image": uint8 [N, H, W, C], "label": int32 [N]}.

    With views the images are [N, V, H, W, C]. `positions` are the examples' places in the stream, which with the seed
    determine what is random.
    """
    encoded, labels = split.read_encoded(indices)
    ops = [spec.find("operation", call, ON_HOST, image=None, rng=None) for call in calls]
    decode = images.for_windows if calls and calls[0].name in images.WINDOWS else images.decode
    batch = np.empty((0,), np.uint8)
    for i, (index, data, position) in enumerate(zip(indices, encoded, positions, strict=True)):
        with split.naming(index):
            image = split.decode(data, decode)  # one after the other: the same memory serves them all
            rng = np.random.Generator(np.random.Philox(key=np.array([seed, position], np.uint64))) if ops else None
            for op in ops:
                given = {"image": image, "rng": rng}
                image = op(**{name: given[name] for name in given.keys() & op.keywords.keys()})
        if i == 0:
            batch = np.empty((len(indices), *image.shape), np.uint8)
        if image.shape != batch.shape[1:]:
            few = ", ".join(map(str, sorted({image.shape, batch.shape[1:]})))
            raise InputError(
                f"the images of {split.name} have different sizes ({few} ...): add an operation that gives them one, "
                "such as resize((224, 224)), at the start of config.augment and config.preprocess"
            )
        batch[i] = image
    return {"image": batch, "label": labels.astype(np.int32)}


def open_source(split: Split, calls: Sequence[spec.Call], *, cache: str, seed: int, mesh: Mesh) -> Source:
    """The split, in device memory or read from the host as it goes: the batches are the same, bit for bit.

    Raises InputError when cache='device' is asked for operations whose result differs from epoch to epoch.
    """
    if cache == "device" and is_random(calls):
        name = next(call.name for call in calls if is_random([call]))
        raise InputError(f"config.cache = 'device' does not go with {name!r}, which differs in each epoch; use 'auto'")
    first = read(split, calls, np.array([0]), np.array([0]), seed)["image"]
    if cache == "auto":
        cache = "device" if not is_random(calls) and first.nbytes * len(split) <= AUTO_CACHE_BYTES else "host"
    if cache == "device":
        return _cached(split, calls, first.shape[1:], mesh)
    return _streamed(split, calls, first.shape[1:], seed, mesh)


def _cached(split: Split, calls: Sequence[spec.Call], shape: tuple, mesh: Mesh) -> Source:
    def read_all() -> dict[str, np.ndarray]:
        def read_part(indices: np.ndarray) -> dict[str, np.ndarray]:
            part = read(split, calls, indices, indices, 0)
            return part | {"histogram": statistics.histogram(part["image"])}

        with concurrent.futures.ThreadPoolExecutor(cores()) as pool:  # more would only contend for the GIL
            parts = list(pool.map(read_part, _chunks(np.arange(len(split)))))
        whole = {name: np.concatenate([part[name] for part in parts]) for name in ("image", "label")}
        return whole | {"histogram": np.sum([part["histogram"] for part in parts], axis=0)}

    def read_whole() -> tuple[Batch, np.ndarray]:
        whole = split_cache.arrays(split, calls, read_all)
        return {name: sharding.put_replicated(mesh, whole[name]) for name in ("image", "label")}, whole["histogram"]

    reading = _reader.submit(read_whole)
    gather = jax.jit(
        gather_batch,
        in_shardings=(sharding.replicated(mesh), sharding.batch_sharding(mesh), sharding.batch_sharding(mesh)),
        out_shardings=sharding.batch_sharding(mesh),
    )

    def fetch(steps: Sequence[int], places: Callable[[int], Indices]) -> Iterator[Batch]:
        for step in steps:
            each = places(step)
            mine = sharding.local_rows(mesh, len(each.example))
            yield gather(reading.result()[0], *(sharding.put_batch(mesh, values[mine]) for values in each))

    def measure(asked: Collection[str]) -> dict[str, Any]:
        whole, histogram = reading.result()
        images = np.asarray(whole["image"].addressable_data(0))
        blocks = (images[part] for part in _chunks(np.arange(len(images))))
        return statistics.derive(statistics.add_up(blocks, asked, {"histogram": histogram}), shape)

    def known(asked: Collection[str]) -> dict[str, Any]:
        code = [inspect.getsource(module) for module in (statistics, normalize)]
        return (
            split_cache.arrays(split, calls, lambda: measure(asked), sorted(asked), code) if asked else measure(asked)
        )

    return Source(fetch, lambda: reading.result()[0], len(split), shape, known)


def gather_batch(whole: Batch, example: jax.Array, epoch: jax.Array) -> Batch:
    """The batch of these `Indices` of a split in device memory."""
    return {name: array[example] for name, array in whole.items()} | {"example": example, "epoch": epoch}


def _chunks(indices: np.ndarray) -> list[np.ndarray]:
    return np.array_split(indices, max(1, len(indices) // 1000))


def _streamed(split: Split, calls: Sequence[spec.Call], shape: tuple, seed: int, mesh: Mesh) -> Source:
    def fetch(steps: Sequence[int], places: Callable[[int], Indices]) -> Iterator[Batch]:
        import grain  # costs half a second

        def rows_of(step: int) -> dict:
            example, epoch = places(step)
            mine = sharding.local_rows(mesh, len(example))
            part = read(split, calls, example[mine], (step * len(example) + np.arange(len(example)))[mine], seed)
            return part | {"example": example[mine], "epoch": epoch[mine]}

        # With as many threads as cores, for twice as many read a tenth fewer photographs in a CPU-second.
        options = grain.ReadOptions(num_threads=cores(), prefetch_buffer_size=max(8, cores()))
        for batch in grain.MapDataset.source(steps).map(rows_of).to_iter_dataset(options):
            yield {name: sharding.put_batch(mesh, array) for name, array in batch.items()}

    def measure(asked: Collection[str]) -> dict[str, Any]:
        sample = np.linspace(0, len(split) - 1, min(len(split), STATISTICS_SAMPLE)).astype(np.int64)
        blocks = (read(split, calls, part, part, seed)["image"] for part in _chunks(sample))
        return statistics.derive(statistics.add_up(blocks, asked), shape)

    return Source(fetch, None, len(split), shape, measure)


def train_batches(
    source: Source, *, seed: int, batch_size: int, repeats: int = 1, start: int, stop: int
) -> Iterator[Batch]:
    """The batches of steps `start` to `stop`, over the devices.

    Each is {"image": uint8 [B, H, W, C], "label", and "example" and "epoch", as `Indices`: int32 [B]}.
    """
    return source.fetch(range(start, stop), lambda step: batch_indices(seed, step, batch_size, source.count, repeats))


def train_groups(
    source: Source, groups: Iterable[range], *, seed: int, batch_size: int, repeats: int, most: int, mesh: Mesh
) -> Iterator[tuple[int, dict[str, Any]]]:
    """For each group of up to `most` steps the number of steps taken after it, and what `train.train_steps` needs:
    "whole", the split in device memory; "places", int32 [2, most, B], of each step; "count", its steps.

    The places after those are of no use: so one compiled program takes any group.
    """
    assert source.whole is not None
    for group in groups:
        each = np.zeros((2, most, batch_size), np.int32)
        for i, step in enumerate(group):
            each[:, i] = batch_indices(seed, step, batch_size, source.count, repeats)
        placed = sharding.put_replicated(mesh, each)
        yield group.stop, {"whole": source.whole(), "places": placed, "count": np.int32(len(group))}


def image_shapes(split: Split) -> np.ndarray:
    """The shape that each image of a split is decoded to, from the first bytes of its file: int [N, 3]."""
    if None not in split.shape:
        return np.tile(np.array(split.shape), (len(split), 1))
    shapes = []
    for part in _chunks(np.arange(len(split))):
        for index, data in zip(part, split.read_encoded(part)[0], strict=True):
            with split.naming(index):
                shapes.append((*images.header(data)[:2], split.shape[2]))
    return np.array(shapes)


def group_by_shape(shapes: np.ndarray, calls: Sequence[spec.Call]) -> dict[tuple[int, ...], np.ndarray]:
    """The examples of each size that the host's operations make of images of these shapes [N, 3].

    {shape: int32 [n]}, in order. The operations are tried on blank images, one of each shape.
    """
    groups: dict[tuple[int, ...], list[np.ndarray]] = {}
    each, where = np.unique(shapes, axis=0, return_inverse=True)
    for number, shape in enumerate(each):
        image, rng = np.zeros(shape, np.uint8), np.random.default_rng(0)
        for call in calls:
            image = spec.find("operation", call, ON_HOST, image=image, rng=rng)()
        groups.setdefault(image.shape, []).append(np.flatnonzero(where.ravel() == number))
    return {shape: np.sort(np.concatenate(parts)).astype(np.int32) for shape, parts in groups.items()}


def eval_batches(
    source: Source, *, batch_size: int, mesh: Mesh, groups: Iterable[np.ndarray] | None = None
) -> Iterator[Batch]:
    """Every example once, in order; "mask" is False for the examples that only fill a batch up.

    No batch has examples of two `groups`, which together hold each example's number once: they may differ in size.
    """
    devices = mesh.shape["data"]
    chunks: list[np.ndarray] = []
    sizes: list[int] = []
    for group in [np.arange(source.count, dtype=np.int32)] if groups is None else groups:
        size = -(-min(batch_size, len(group)) // devices) * devices
        parts = [group[start : start + size] for start in range(0, len(group), size)]
        chunks, sizes = chunks + parts, sizes + [size] * len(parts)

    def filled(step: int) -> Indices:
        example = np.pad(chunks[step], (0, sizes[step] - len(chunks[step])), mode="edge")
        return Indices(example, np.zeros(sizes[step], np.int32))

    steps = range(len(chunks))
    for step, batch in zip(steps, source.fetch(steps, filled), strict=True):
        mask = np.arange(sizes[step]) < len(chunks[step])
        yield batch | {"mask": sharding.put_batch(mesh, mask[sharding.local_rows(mesh, sizes[step])])}
