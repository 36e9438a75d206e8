"""What a trained network says of image files: seen, batch by batch, as an evaluation sees them."""

import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax import pretrained, spec
from cnnjax.data import folders, images, pipeline
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation import protocols, scoring


class Prediction(NamedTuple):
    """Of one image: its likeliest classes, or why there are none."""

    path: pathlib.Path
    top: tuple[tuple[int, float], ...]  # (class, probability), the likeliest first
    error: str = ""


class Seen(NamedTuple):
    """An image file as the network is shown it, in each pass of the protocol, or why it cannot be."""

    path: pathlib.Path
    passes: tuple[np.ndarray, ...]  # uint8 [H, W, C] or, of several views, [V, H, W, C]
    error: str = ""

    @property
    def views(self) -> int:
        """How many images of the network's size this is, for memory's sake; one that is broken counts as one."""
        return sum(int(np.prod(image.shape[:-3])) for image in self.passes) or 1


def find_files(names: Iterable[str]) -> tuple[list[pathlib.Path], list[Prediction]]:
    """The image files that these names of files and folders stand for, in order, and those that stand for none."""
    found: list[pathlib.Path] = []
    missing: list[Prediction] = []
    for path in map(pathlib.Path, names):
        inside = folders.find_images(path) if path.is_dir() else [path]
        found += inside if path.exists() else []
        if not path.exists():
            missing.append(Prediction(path, (), "there is no such file or folder"))
        elif not inside:
            missing.append(Prediction(path, (), f"there are no images ({', '.join(folders.SUFFIXES)}) in this folder"))
    return found, missing


def predict(
    network: pretrained.LoadedNetwork,
    paths: Iterable[pathlib.Path],
    *,
    top: int = 5,
    step: str = "last",
    mesh: Mesh | None = None,
    say: Callable[[str], None] = print,
) -> Iterator[Prediction]:
    """The `top` likeliest classes of each image file, in order, as the network's settings have it scored.

    Files are read by threads, and a batch or two of them is in memory at a time. One that cannot be read, or does not
    fit the network, is a Prediction that says so, and the others go on. Raises InputError as `evaluate` does for
    settings or a checkpoint that do not exist.
    """
    settings, known, model, restore = network
    mesh = mesh or sharding.make_mesh()
    protocol = protocols.build(settings.protocol)
    host_ops, _ = pipeline.split_ops(settings.preprocess)
    passes = [[*host_ops, *views] for views in protocol.passes]
    if protocol.dense:
        model = scoring.as_fully_convolutional(settings, known, model)
    _, variables = restore(mesh, step, say)

    @functools.cache
    def of_shape(shape: tuple[int, ...]) -> tuple[int, Callable]:
        scoring.check_accepts(settings, known, model, shape[-3:])
        return scoring.make_batch_scores(settings, known, model, mesh, protocol, shape)

    def scores(batch: np.ndarray) -> list[jax.Array]:
        """In parts of the batch size, or of the power of two that holds fewer: so few programs are compiled."""
        size, of_batch = of_shape(batch.shape[1:])
        parts = []
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            rows = _rows(len(part), size, mesh.shape["data"])
            padded = np.pad(part, [(0, rows - len(part)), *[(0, 0)] * (part.ndim - 1)], mode="edge")
            shown = sharding.put_batch(mesh, padded[sharding.local_rows(mesh, rows)])
            parts.append(of_batch(variables, shown)[: len(part)])
        return parts

    @functools.partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def probabilities(each: list[list[jax.Array]]) -> jax.Array:
        joined = jnp.stack([jnp.concatenate(parts) for parts in each], axis=1)
        return jax.nn.softmax(protocols.average(joined, settings.average))

    def score(chunk: list[Seen]) -> dict[str, Any]:
        errors = {i: one.error for i, one in enumerate(chunk) if one.error}
        found = []
        for rows in _alike(chunk):
            try:
                each = [scores(np.stack(batch)) for batch in zip(*(chunk[i].passes for i in rows), strict=True)]
                found.append((rows, probabilities(each)))
            except InputError as error:
                errors |= dict.fromkeys(rows, str(error))
        return {"paths": [str(one.path) for one in chunk], "errors": errors, "found": found}

    see = functools.partial(_see, passes=passes, shape=tuple(known["shape"]), any_size=protocol.whole)
    for done in scoring.prefetch_to_host(map(score, _chunks(_read(list(paths), see), settings.eval_batch_size))):
        tops = {i: _top(row, top) for rows, each in done["found"] for i, row in zip(rows, each, strict=True)}
        for i, path in enumerate(done["paths"]):
            yield Prediction(pathlib.Path(path), tops.get(i, ()), done["errors"].get(i, ""))


def _read(paths: list[pathlib.Path], see: Callable[[pathlib.Path], Seen]) -> Iterator[Seen]:
    """As the pipeline reads a split, by threads and in order."""
    import grain  # costs half a second

    options = grain.ReadOptions(num_threads=pipeline.cores(), prefetch_buffer_size=max(8, pipeline.cores()))
    return iter(grain.MapDataset.source(paths).map(see).to_iter_dataset(options))


def _see(path: pathlib.Path, passes: list[list[spec.Call]], shape: tuple[int, ...], any_size: bool) -> Seen:
    """Reads an image and runs the host's operations of each pass. Raises nothing that is the file's fault."""
    try:
        data = path.read_bytes()
        images.verify(data)  # for `decode` may fill up what is missing
        image = images.decode(data, shape[-1])
        if not any_size and not any(passes) and image.shape != shape:
            size = f"resize({shape[0]})|center_crop({shape[0]})" if shape[0] == shape[1] else f"resize({shape[:2]})"
            raise InputError(
                f"the image is {image.shape[0]}x{image.shape[1]}, and the network learnt from {shape[0]}x{shape[1]}: "
                f"give --preprocess='{size}'"
            )
        return Seen(path, tuple(functools.reduce(_apply, calls, image) for calls in passes))
    except InputError as error:
        return Seen(path, (), str(error))
    except OSError as error:
        return Seen(path, (), error.strerror or str(error))


def _apply(image: np.ndarray, call: spec.Call) -> np.ndarray:
    """One operation; what is random of it is the same for every image, whatever others there are."""
    return spec.find("operation", call, pipeline.ALL_HOST_OPS, image=image, rng=np.random.default_rng(0))()


def _chunks(seen: Iterable[Seen], most: int) -> Iterator[list[Seen]]:
    """Parts of up to `most` views, or one image."""
    chunk: list[Seen] = []
    views = 0
    for one in seen:
        chunk, views = [*chunk, one], views + one.views
        if views >= most:
            yield chunk
            chunk, views = [], 0
    if chunk:
        yield chunk


def _alike(chunk: list[Seen]) -> list[list[int]]:
    """The places of images of the same sizes, without those that are broken."""
    groups: dict[tuple, list[int]] = {}
    for i, one in enumerate(chunk):
        if not one.error:
            groups.setdefault(tuple(image.shape for image in one.passes), []).append(i)
    return list(groups.values())


def _rows(count: int, most: int, devices: int) -> int:
    """The smallest power of two that holds `count`, no more than `most` holds, in full rows of all devices."""
    return -(-min(1 << (count - 1).bit_length(), most) // devices) * devices


def _top(probabilities: np.ndarray, count: int) -> tuple[tuple[int, float], ...]:
    """Of equals, the first class comes first."""
    order = np.argsort(-probabilities, kind="stable")[:count]
    return tuple((int(i), float(probabilities[i])) for i in order)
