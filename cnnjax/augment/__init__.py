"""Augmentation inside the training step: tables of operations, and pipelines of them built from call strings.

An operation is a pure function `(key, image, ...) -> image` of one image, float32 [H, W, C] in [0, 1], with the same
result eagerly, under jit and under vmap. It may also take, as parameters of these names, `mean` [1, 1, C] of the
training split (to fill pixels: zero after normalization) and its other statistics, and `example` and `epoch`, the
index of the image in the split and how often it was used before. Operations on whole batches and their targets come
last: `mixing`. Operations that change the size of images run on the host: `data.transforms`.

To add an operation, from here or elsewhere: a row `name -> function` in `OPS` or `MIXING`.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cnnjax import spec
from cnnjax.augment import auto_augment, color, erasing, geometry, normalize, policies
from cnnjax.augment.mixing import MIXING
from cnnjax.errors import InputError

Array = jax.Array

OPS: dict[str, Callable[..., Array]] = {
    **geometry.OPS, **erasing.OPS, **color.OPS, **policies.OPS, **auto_augment.OPS
}  # fmt: skip
# Parameters of operations and normalizations that the program provides; a call string cannot set them.
PROVIDED_ARGUMENTS = ("key", "image", *normalize.STATISTICS, "example", "epoch", "images", "target")


def build(
    calls: Sequence[spec.Call],
    normalization: spec.Call | str,
    training_statistics: Mapping[str, Any],
    shape: tuple[int, ...],
    normalization_statistics: Mapping[str, Any] | None = None,
) -> Callable[..., Array]:
    """Builds the function `(key, images, example=None, epoch=None) -> images` that augments and normalizes a batch.

    The function maps uint8 [N, H, W, C] to float32 [N, H, W, C]: it scales pixels to [0, 1], applies `calls` (of `OPS`)
    in order, and then `normalization` (of `normalize.NORMALIZE`). It splits `key` into one key per image, or takes an
    array of N keys as it is. `example` and `epoch` are int32 [N]: the index of each image in its split, and how often
    it was used before; None is all zeros.

    `training_statistics` are those of the training split by name: see `data.statistics.derive`. `normalization` uses
    `normalization_statistics` if these are given, as for another network on the same images. `shape` is [H, W, C]; the
    function is traced once with it, as a check. Raises InputError for an unknown name, for a statistic that is missing,
    for arguments that do not fit the operation, and for an operation that does not fit the shape.
    """
    if mixing := [call.name for call in calls if call.name in MIXING]:
        raise InputError(f"{mixing[0]!r} mixes the images of a training batch: use it in config.augment")
    statistics = normalize.statistics(training_statistics)
    has_own = normalization_statistics is not None
    final_statistics = normalize.statistics(normalization_statistics) if has_own else statistics
    final = spec.parse(normalization) if isinstance(normalization, str) else normalization

    def prepare_image(key: Array, image: Array, example: Array, epoch: Array) -> Array:
        image = image.astype(jnp.float32) / 255
        for i, call in enumerate(calls):
            operation_key = jax.random.fold_in(key, i)
            _check_statistics(call, OPS, statistics)
            provided = {"key": operation_key, "image": image, "example": example, "epoch": epoch, **statistics}
            image = spec.find("augmentation", call, OPS, **provided)()
        _check_statistics(final, normalize.NORMALIZE, final_statistics)
        return spec.find("normalization", final, normalize.NORMALIZE, image=image, **final_statistics)()

    def prepare(key: Array, images: Array, example: Array | None = None, epoch: Array | None = None) -> Array:
        count = images.shape[0]  # a symbol when a program is exported
        example, epoch = (jnp.zeros(count, jnp.int32) if x is None else x for x in (example, epoch))
        keys = key if key.ndim else jax.random.split(key, count)
        return jax.vmap(prepare_image)(keys, images, example, epoch)

    images = jax.ShapeDtypeStruct((1, *shape), jnp.uint8)
    try:
        out = jax.eval_shape(prepare, jax.random.key(0), images)
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        text = "|".join(call.name for call in calls) or spec.render(final)
        raise InputError(f"{text!r} does not fit an image of {shape}: {str(error).splitlines()[0]}") from error
    if out.shape != images.shape:
        raise InputError(f"{spec.render(final)!r} does not fit an image of {shape}: its result is {out.shape[1:]}")
    return prepare


def _check_statistics(call: spec.Call, table: Mapping[str, Callable[..., Array]], given: Mapping[str, Array]) -> None:
    """Raises InputError if the function of a call takes a statistic that is not given: the call would set it."""
    taken = inspect.signature(table[call.name]).parameters if call.name in table else {}
    for name in normalize.STATISTICS:
        if name in taken and name not in given:
            raise InputError(f"{call.name!r} needs {name!r} of the training split, which its statistics lack")


def build_mixing(calls: Sequence[spec.Call], classes: int) -> Callable[[Array, Array, Array], tuple[Array, Array]]:
    """Builds the function `(key, images, label) -> (images, target)` that mixes the images and targets of a batch.

    `calls` are of `MIXING`. `images` are float32 [N, H, W, C], `label` is int32 [N], and `target` float32 [N, classes]
    is a distribution over the classes. With several calls, each batch gets one of them with equal probability:
    'mixup(0.8)|cutmix(1.0)' is timm's switching at 0.5 and torchvision's RandomChoice. Without calls, images are
    unchanged and targets one-hot. Raises InputError for an unknown name or arguments that do not fit.
    """

    def branch(call: spec.Call) -> Callable[..., tuple[Array, Array]]:
        return lambda key, images, target: spec.find(
            "augmentation", call, MIXING, key=key, images=images, target=target
        )()

    branches = [branch(call) for call in calls]

    def mix(key: Array, images: Array, label: Array) -> tuple[Array, Array]:
        target = jax.nn.one_hot(label, classes)
        if not branches:
            return images, target
        choice_key, mix_key = jax.random.split(key)
        choice = jax.random.randint(choice_key, (), 0, len(branches))
        return jax.lax.switch(choice, branches, mix_key, images, target)

    image, label = jax.ShapeDtypeStruct((2, 1, 1, 3), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.int32)
    jax.eval_shape(mix, jax.random.key(0), image, label)
    return mix
