"""Image operations inside the training step, and the pipelines of them that a config names.

An operation is a pure function `(key, image, ...) -> image` on one image: float32 [H, W, C] in [0, 1]. It gives the
same result eagerly, under jit and under vmap. One that fills in pixels uses `mean` [1, 1, C], the mean colour of the
training split, which is zero once the image is normalised; one that has to know which image it has, and how often it
was seen, takes `example`, its number in the split, and `epoch`. Operations on whole batches and their targets come
last: `mixing`. Operations of changing size run on the host: `data.images`.
"""

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
# What the program gives an operation that asks for it.
GIVEN = ("key", "image", *normalize.STATISTICS, "example", "epoch", "images", "target")


def build(
    calls: Sequence[spec.Call], normalization: str, known: Mapping[str, Any], shape: tuple[int, ...]
) -> Callable[..., Array]:
    """The function `(key, images, example, epoch) -> images` that runs the calls and then normalises.

    It takes uint8 [N, H, W, C] to float32, with a key of its own for each image; `example` and `epoch` are int32 [N].
    `known` holds the statistics of the training split, as a run's data.json does; `shape` is one image's, to try the
    operations out at once.
    Raises InputError for an operation that does not exist, or does not fit its arguments or the image.
    """
    if mixing := [call.name for call in calls if call.name in MIXING]:
        raise InputError(f"{mixing[0]!r} mixes the images of a training batch: its place is config.augment")
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
        count = images.shape[0]  # also where it is a symbol, in an exported program
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


def build_mixing(calls: Sequence[spec.Call], classes: int) -> Callable[[Array, Array, Array], tuple[Array, Array]]:
    """The function `(key, images [N, H, W, C], label int32 [N]) -> (images, target float32 [N, classes])`.

    Of several calls each batch gets one, all with the same chance: mixup(0.8)|cutmix(1.0) is timm's switching at 0.5
    and torchvision's RandomChoice, for an image mixed twice is of no recipe. Without calls targets are one-hot.
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
