"""Images on the host between reading and scoring: the views of a protocol, in chunks and groups of equal shapes."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from cnnjax import spec
from cnnjax.data import images, pipeline
from cnnjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class HostImage:
    """An image after the host's operations, or why these failed."""

    path: str
    passes: tuple[np.ndarray, ...]  # per pass of the protocol: uint8 [H, W, C], or [views, H, W, C]
    error: str = ""

    @property
    def view_count(self) -> int:
        """Returns the number of views in memory; 1 for an image with an error."""
        return sum(int(np.prod(views.shape[:-3])) for views in self.passes) or 1


def read_in_threads(paths: list[pathlib.Path], read: Callable[[pathlib.Path], HostImage]) -> Iterator[HostImage]:
    """Yields `read(path)` in the order of `paths`."""
    import grain  # costs half a second

    options = grain.ReadOptions(num_threads=pipeline.cores(), prefetch_buffer_size=max(8, pipeline.cores()))
    return iter(grain.MapDataset.source(paths).map(read).to_iter_dataset(options))


def read_views(path: pathlib.Path, prepare: Callable[[np.ndarray], tuple[np.ndarray, ...]], channels: int) -> HostImage:
    """Decodes a file and cuts its views. Errors that are the file's fault are returned, not raised."""
    try:
        data = path.read_bytes()
        images.verify(data)  # notices a truncated file, which `decode` may fill up
        return HostImage(str(path), prepare(images.decode(data, channels)))
    except InputError as error:
        return HostImage(str(path), (), str(error))
    except OSError as error:
        return HostImage(str(path), (), error.strerror or str(error))


def apply_operations(image: np.ndarray, calls: Sequence[spec.Call]) -> np.ndarray:
    """Applies host operations in order. Random ones draw the same for every image, so that others change nothing."""
    for call in calls:
        image = spec.find("operation", call, pipeline.ALL_HOST_OPS, image=image, rng=np.random.default_rng(0))()
    return image


def chunks(prepared: Iterable[HostImage], max_views: int) -> Iterator[list[HostImage]]:
    """Yields lists of consecutive images; each is complete as soon as it has `max_views` views or more."""
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
    """Returns the indices of images whose views have the same shapes, a list per group; none with an error."""
    groups: dict[tuple, list[int]] = {}
    for i, image in enumerate(chunk):
        if not image.error:
            groups.setdefault(tuple(views.shape for views in image.passes), []).append(i)
    return list(groups.values())
