"""Images on the host between reading and scoring: the views of a protocol, in chunks and groups of equal shapes."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from cnnjax import spec
from cnnjax.data import image_formats, images, pipeline
from cnnjax.data.operations import SIZE_OPS
from cnnjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class HostImage:
    """An image after decoding and host operations, or the error that prevented this.

    Attributes:
      path: name of the image, for messages.
      passes: for each pass of the protocol, its views: uint8 [H, W, C], or [views, H, W, C]. () with an error.
      error: '' if there is none.
    """

    path: str
    passes: tuple[np.ndarray, ...]
    error: str = ""

    @property
    def view_count(self) -> int:
        """Returns how many views this image has, summed over the passes of the test protocol; flips are not counted.

        An image that could not be read has none, but counts as 1.
        """
        return sum(int(np.prod(views.shape[:-3])) for views in self.passes) or 1


def read_in_threads(paths: list[pathlib.Path], read: Callable[[pathlib.Path], HostImage]) -> Iterator[HostImage]:
    """Yields `read(path)` for each path, in order, read ahead by one thread per CPU core."""
    import grain  # costs half a second

    options = grain.ReadOptions(num_threads=pipeline.cores(), prefetch_buffer_size=max(8, pipeline.cores()))
    return iter(grain.MapDataset.source(paths).map(read).to_iter_dataset(options))


def read_views(
    path: pathlib.Path, prepare: Callable[[np.ndarray], tuple[np.ndarray, ...]], channels: int, bit_depth: int
) -> HostImage:
    """Decodes an image file, and applies `prepare`, which maps uint8 [H, W, C] to the views of each pass.

    `channels` is 1 or 3; other images are converted. `bit_depth` is that of the training images: see `images.decode`. A
    missing or damaged file, or an image that `prepare` rejects, gives a HostImage with an error; nothing is raised.
    """
    try:
        data = image_formats.read_file(path)
        images.verify(data)  # notices a truncated file, which `decode` may fill up
        return HostImage(str(path), prepare(images.decode(data, channels, bit_depth)))
    except InputError as error:
        return HostImage(str(path), (), str(error))


def apply_operations(image: np.ndarray, calls: Sequence[spec.Call]) -> np.ndarray:
    """Applies host operations in order to an image, uint8 [H, W, C].

    Random operations draw the same numbers for every image, so that a result does not depend on the other images.
    Returns uint8 [H', W', C], or [views, H', W', C] after an operation that cuts several views.
    """
    for call in calls:
        image = spec.find("operation", call, pipeline.ALL_HOST_OPS, image=image, rng=np.random.default_rng(0))()
    return image


def wrong_size(image: np.ndarray, passes: Sequence[Sequence[spec.Call]], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the (height, width) that an image has after a pass of host operations, if that size is wrong.

    Returns () if each of `passes` has an operation that sets the size, or yields that of `shape`, [H, W, C]. Judges an
    operation that a user registered by its output.
    """
    unset = [calls for calls in passes if not SIZE_OPS & {call.name for call in calls}]
    sizes = (apply_operations(image, calls).shape[-3:-1] for calls in unset)
    return next((size for size in sizes if size != shape[:2]), ())


def batch_rows(count: int, largest: int) -> int:
    """Returns how many rows a batch of `count` gets, so that few sizes are compiled: a power of two, or `largest`."""
    return min(1 << (count - 1).bit_length(), largest)


def padded(array: np.ndarray, rows: int) -> np.ndarray:
    """Repeats the last row of an array until it has `rows`."""
    return np.pad(array, [(0, rows - len(array)), *[(0, 0)] * (array.ndim - 1)], mode="edge")


def chunks(prepared: Iterable[HostImage], max_views: int) -> Iterator[list[HostImage]]:
    """Splits images into consecutive lists; a list ends as soon as its images have `max_views` views or more."""
    chunk: list[HostImage] = []
    views = 0
    for image in prepared:
        chunk, views = [*chunk, image], views + image.view_count
        if views >= max_views:
            yield chunk
            chunk, views = [], 0
    if chunk:
        yield chunk


def group_by_shapes(chunk: list[HostImage]) -> list[list[int]]:
    """Groups the images of a chunk by the shapes of their views, and returns a list of indices per group.

    Images with an error are left out.
    """
    groups: dict[tuple, list[int]] = {}
    for i, image in enumerate(chunk):
        if not image.error:
            groups.setdefault(tuple(views.shape for views in image.passes), []).append(i)
    return list(groups.values())
