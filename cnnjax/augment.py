"""Image operations inside the training step, and the pipelines of them that a config names.

An operation is a pure function `(key, image, ...) -> image` on one image: float32 [H, W, C] in [0, 1]. It gives the
same result eagerly, under jit and under vmap. One that fills in pixels uses `mean` [1, 1, C], the mean colour of the
training split, which is zero once the image is normalised; one that has to know which image it has, and how often it
was seen, takes `example`, its number in the split, and `epoch`. Operations of changing size run on the host:
`data.images`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cnnjax import normalize, spec
from cnnjax.errors import InputError

Array = jax.Array


def flip_lr(key: Array, image: Array, probability: float = 0.5) -> Array:
    """Mirrors the image left to right."""
    if not 0 <= probability <= 1:
        raise InputError(f"flip_lr: probability = {probability!r}: expected 0 to 1")
    return jnp.where(jax.random.bernoulli(key, probability), image[:, ::-1], image)


def flip_alternating(image: Array, example: Array, epoch: Array) -> Array:
    """Mirrors half of the images in even epochs and the other half in odd ones, the same halves in every run.

    So each two epochs show both sides of every image (Jordan 2024, arXiv:2404.00498, sec. 3.6).
    """
    half = jax.random.bits(jax.random.fold_in(jax.random.key(0), example)) + epoch.astype(jnp.uint32)
    return jnp.where(half % 2 == 1, image[:, ::-1], image)


def pad_crop(key: Array, image: Array, mean: Array, pad: int, fill: str = "mean") -> Array:
    """Adds `pad` pixels on every side and cuts the old size out anywhere (He et al. 2016, 4.2).

    The pixels are of the mean colour, or with fill='reflect' those of the image, mirrored at its border.
    """
    height, width, channels = image.shape
    if fill not in ("mean", "reflect"):
        raise InputError(f"pad_crop: fill = {fill!r}; valid: mean, reflect")
    if not 0 <= pad < (min(height, width) if fill == "reflect" else math.inf):
        most = f" and less than the image's sides, {height}x{width}" if pad > 0 else ""
        raise InputError(f"pad_crop: pad = {pad!r}: expected at least 0{most}")
    if fill == "reflect":
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    else:
        frame = jnp.broadcast_to(mean, (height + 2 * pad, width + 2 * pad, channels))
        padded = jax.lax.dynamic_update_slice(frame.astype(image.dtype), image, (pad, pad, 0))
    top, left = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def cutout(key: Array, image: Array, mean: Array, size: int) -> Array:
    """Paints a square of `size` pixels, centred anywhere and cut off at the border (DeVries & Taylor 2017, 3.2)."""
    if size < 1:
        raise InputError(f"cutout: size = {size!r}: expected at least 1")
    height, width, _ = image.shape
    row, column = jax.random.randint(key, (2,), 0, jnp.array([height, width]))
    rows = jnp.arange(height)[:, None] - (row - size // 2)
    columns = jnp.arange(width)[None, :] - (column - size // 2)
    inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
    return jnp.where(inside[:, :, None], mean, image)


def shift(image: Array, mean: Array, rows: int = 0, columns: int = 0) -> Array:
    """Moves the image down by `rows` and right by `columns`; the pixels left free are of the mean colour."""
    height, width, _ = image.shape
    moved = jnp.roll(image, (rows, columns), axis=(0, 1))
    row, column = jnp.arange(height)[:, None, None] - rows, jnp.arange(width)[None, :, None] - columns
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return jnp.where(inside, moved, mean)


OPS = {"flip_lr": flip_lr, "flip_alternating": flip_alternating, "pad_crop": pad_crop, "cutout": cutout, "shift": shift}
GIVEN = ("key", "image", *normalize.STATISTICS, "example", "epoch")  # what the program gives an operation that asks


def build(
    calls: Sequence[spec.Call], normalization: str, known: Mapping[str, Any], shape: tuple[int, ...]
) -> Callable[..., Array]:
    """The function `(key, images, example, epoch) -> images` that runs the calls and then normalises.

    It takes uint8 [N, H, W, C] to float32, with a key of its own for each image; `example` and `epoch` are int32 [N].
    `known` holds the statistics of the training split, as a run's data.json does; `shape` is one image's, to try the
    operations out at once.
    Raises InputError for an operation that does not exist, or does not fit its arguments or the image.
    """
    statistics = normalize.statistics(known)
    final = spec.parse(normalization)

    def one(key: Array, image: Array, example: Array, epoch: Array) -> Array:
        image = image.astype(jnp.float32) / 255
        for i, call in enumerate(calls):
            operation_key = jax.random.fold_in(key, i)
            given = {"key": operation_key, "image": image, "example": example, "epoch": epoch, **statistics}
            image = spec.find("augmentation", call, OPS, **given)()
        return spec.find("normalization", final, normalize.NORMALIZE, image=image, **statistics)()

    def prepare(key: Array, images: Array, example: Array | None = None, epoch: Array | None = None) -> Array:
        count = len(images)
        example, epoch = (jnp.zeros(count, jnp.int32) if x is None else x for x in (example, epoch))
        return jax.vmap(one)(jax.random.split(key, count), images, example, epoch)

    image = jax.ShapeDtypeStruct((1, *shape), jnp.uint8)
    try:
        out = jax.eval_shape(prepare, jax.random.key(0), image)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        text = "|".join(call.name for call in calls) or normalization
        raise InputError(f"{text!r} does not fit an image of {shape}: {str(error).splitlines()[0]}") from error
    if out.shape != image.shape:
        raise InputError(f"{normalization!r} does not fit an image of {shape}: it makes {out.shape[1:]} of it")
    return prepare
