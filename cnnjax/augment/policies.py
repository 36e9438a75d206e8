"""RandAugment, TrivialAugment and AugMix: a few random operations per image, with torchvision's strengths.

Under vmap an accelerator computes every branch of a `switch` (see `random.sequential_on_cpu`), so fewer branches are
less work. Therefore each operation is a pass through three stages, of which all but one leave the image alone: an
affine map, a blend with another image, a function of the levels. Strengths are `bins` equal steps from none to the
maximum; new pixels get the mean color.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.augment import color
from cnnjax.augment.geometry import affine, warp
from cnnjax.augment.random import sequential_on_cpu, uniform_index
from cnnjax.errors import InputError
from cnnjax.spec import Positive, Range

Array = jax.Array
Bins = Annotated[int, Range(2, 1000)]

# An operation is represented by its index in `OP_NAMES`.
AFFINE_OPS = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BLEND_OPS: dict[str, Callable[[Array], Array]] = {  # image -> the image to blend with
    "brightness": jnp.zeros_like,
    "color": color.luma,
    "contrast": lambda image: color.luma(image).mean(),
    "sharpness": color.blur,
}
LEVEL_OPS: dict[str, Callable[[Array, Array], Array]] = {  # (image, strength) -> image
    "posterize": lambda image, bits: color.keep_bits(image, jnp.round(bits).astype(jnp.int32)),
    "solarize": color.invert_above,
    "autocontrast": lambda image, _: color.stretch_contrast(image),
    "equalize": lambda image, _: color.equalize_histogram(image),
    "invert": lambda image, _: 1 - image,
}
OP_NAMES = ("identity", *AFFINE_OPS, *BLEND_OPS, *LEVEL_OPS)
OP_INDEX = {name: number for number, name in enumerate(OP_NAMES)}


@dataclasses.dataclass(frozen=True)
class StrengthSpace:
    """Defines how strong each operation of a policy is at each bin, from none to a maximum.

    Attributes:
        maximum: operation name -> strength at the last bin. Shears: pixels per pixel. Translations: a fraction of the
            side, or pixels. rotate: degrees. brightness, color, contrast, sharpness: factor - 1. posterize: bits
            removed. solarize is not listed: its threshold goes from 255 to 0.
        translate_in_pixels: True if the maximum of translations is in pixels, not a fraction of the side.
        bits: number of bits that posterize keeps at the first bin.
    """

    maximum: dict[str, float]
    translate_in_pixels: bool = False
    bits: int = 8

    def table(self, shape: tuple[int, ...], bins: int) -> Array:
        """Returns the strength of each operation of `OP_NAMES` at each bin: float32 [15, bins], in equal steps.

        Strengths go from 0 at the first bin to the maximum at the last; operations without a strength have 0. `shape`
        is that of the images, [H, W, C], because translations are in pixels. posterize is in bits to keep, from `bits`
        down; solarize in thresholds, from 255 down to 0.
        """
        fraction = np.linspace(0, 1, bins)
        sides = {"translate_x": shape[1], "translate_y": shape[0]}
        units = {} if self.translate_in_pixels else sides
        rows = [self.maximum.get(name, 0.0) * units.get(name, 1) * fraction for name in OP_NAMES]
        rows[OP_INDEX["posterize"]] = self.bits - np.round(rows[OP_INDEX["posterize"]])
        rows[OP_INDEX["solarize"]] = 255 * (1 - fraction)
        return jnp.array(np.stack(rows), jnp.float32)


def _space(
    shear: float, translate: float, degrees: float, factor: float, bits_removed: int, **options: Any
) -> StrengthSpace:
    """Builds a StrengthSpace from the maxima of all operations.

    `shear` and `translate` are for both x and y. `factor` is the largest factor of brightness, color, contrast and
    sharpness, minus 1. `options` are the other fields of StrengthSpace.
    """
    maximum = {
        "shear_x": shear,
        "shear_y": shear,
        "translate_x": translate,
        "translate_y": translate,
        "rotate": degrees,
    }
    factors = dict.fromkeys(("brightness", "color", "contrast", "sharpness"), factor)
    return StrengthSpace({**maximum, **factors, "posterize": bits_removed}, **options)


STANDARD_SPACE = _space(0.3, 150 / 331, 30, 0.9, 4)
WIDE_SPACE = _space(0.99, 32, 135, 0.99, 6, translate_in_pixels=True)
AUGMIX_SPACE = _space(0.3, 1 / 3, 30, 0.9, 4, bits=4)


def apply(image: Array, numbers: Array, strengths: Array, mean: Array, interpolation: str) -> Array:
    """Applies M operations in sequence to an image, float32 [H, W, C] in [0, 1].

    `numbers`, int32 [M], are indices into `OP_NAMES` (0 is the identity), and `strengths`, float32 [M], are in the
    units of `StrengthSpace.table`. `mean` [1, 1, C] fills pixels from outside the image. `interpolation`, 'nearest' or
    'bilinear', is for shears, translations and rotations.
    """

    def apply_all(image: Array, numbers: Array, strengths: Array, mean: Array) -> Array:
        def body(image: Array, operation: tuple[Array, Array]) -> tuple[Array, None]:
            return _apply_one(image, *operation, mean, interpolation), None

        return jax.lax.scan(body, image, (numbers, strengths))[0]

    return sequential_on_cpu(apply_all)(image, numbers, strengths, mean)


def _apply_one(image: Array, number: Array, strength: Array, mean: Array, interpolation: str) -> Array:
    """Applies the operation of index `number` in `OP_NAMES`, int32 [], at `strength`, float32 []: see `apply`."""

    def index_among(names: Sequence[str]) -> Array:
        """Returns the index of the operation in `names`, or len(names) if it is none of them: int32 []."""
        return jnp.array([names.index(name) if name in names else len(names) for name in OP_NAMES])[number]

    def warped(image: Array) -> Array:  # shears are about the upper left corner, rotations about the center
        x, y, right, down, angle = jnp.where(jnp.arange(len(AFFINE_OPS)) == index_among(AFFINE_OPS), strength, 0.0)
        height, width, _ = image.shape
        sine, cosine = jnp.sin(jnp.deg2rad(angle)), jnp.cos(jnp.deg2rad(angle))
        offset = jnp.stack([x * height / 2 - jnp.trunc(right), y * width / 2 - jnp.trunc(down)])
        matrix = affine(cosine, x - sine, y + sine, cosine).at[:, 2].set(offset)
        return warp(image, mean, matrix, interpolation)

    def unchanged(image: Array) -> Array:
        return image

    image = jax.lax.cond(index_among(AFFINE_OPS) < len(AFFINE_OPS), warped, unchanged, image)
    blends = [lambda image, other=other: color.blend(other(image), image, 1 + strength) for other in BLEND_OPS.values()]
    image = jax.lax.switch(index_among(tuple(BLEND_OPS)), [*blends, unchanged], image)
    changes = [lambda image, change=change: change(image, strength) for change in LEVEL_OPS.values()]
    return jax.lax.switch(index_among(tuple(LEVEL_OPS)), [*changes, unchanged], image)


def choose_operations(
    units: Array, table: Array, names: Sequence[str], first_bin: int, num_bins: int = 1
) -> tuple[Array, Array]:
    """Chooses M operations at random from `names`, and the strength of each at random from `num_bins` bins.

    The bins are `first_bin` to `first_bin + num_bins - 1` of `table`, a `StrengthSpace.table`. `units` [M, 3], uniform
    draws from [0, 1), select the operation, the bin and the sign; further columns are ignored. Returns (numbers,
    strengths) for `apply`: int32 [M] indices into `OP_NAMES` and float32 [M].
    """
    number = jnp.array([OP_INDEX[name] for name in names])[uniform_index(units[:, 0], len(names))]
    return number, signed(units[:, 2], number, table[number, first_bin + uniform_index(units[:, 1], num_bins)])


def signed(unit: Array, number: Array, strength: Array) -> Array:
    """Negates each strength whose `unit` is below 0.5, if its operation has a sign.

    `number` are indices into `OP_NAMES`. Shears, translations, rotations, brightness, color, contrast and sharpness
    have a sign. `unit` is uniform in [0, 1), so half of their strengths are negated. The arguments have one shape.
    """
    has_sign = jnp.array([name in (*AFFINE_OPS, *BLEND_OPS) for name in OP_NAMES])[number]
    return jnp.where(has_sign & (unit < 0.5), -strength, strength)


def rand_augment(
    key: Array,
    image: Array,
    mean: Array,
    num_ops: Annotated[int, Range(0, 100)] = 2,
    magnitude: Annotated[int, Range(0, 999)] = 9,
    bins: Bins = 31,
    interpolation: str = "nearest",
) -> Array:
    """Applies `num_ops` random operations in sequence, all at the same strength (RandAugment, Cubuk et al. 2020).

    `image` is float32 [H, W, C] in [0, 1]. Each operation is drawn from 14: all of `OP_NAMES` but invert. `magnitude`
    is the strength: a bin, from 0 (none) to `bins` - 1 (the maximum). `mean` [1, 1, C] fills pixels from outside the
    image. `interpolation`, 'nearest' or 'bilinear', is for shears, translations and rotations.
    """
    if magnitude >= bins:
        raise InputError(f"rand_augment: magnitude = {magnitude!r}: expected 0 to {bins - 1}, as bins = {bins}")
    table = STANDARD_SPACE.table(image.shape, bins)
    numbers, strengths = choose_operations(jax.random.uniform(key, (num_ops, 3)), table, OP_NAMES[:-1], magnitude)
    return apply(image, numbers, strengths, mean, interpolation)


def trivial_augment(key: Array, image: Array, mean: Array, bins: Bins = 31, interpolation: str = "nearest") -> Array:
    """Applies one random operation at a random strength (TrivialAugment Wide, Müller & Hutter 2021).

    `image` is float32 [H, W, C] in [0, 1]. The operation is drawn from 14 (all of `OP_NAMES` but invert), the strength
    from `bins` equal steps between none and the maximum. `mean` [1, 1, C] fills pixels from outside the image.
    `interpolation`, 'nearest' or 'bilinear', is for shears, translations and rotations.
    """
    table = WIDE_SPACE.table(image.shape, bins)
    numbers, strengths = choose_operations(jax.random.uniform(key, (1, 3)), table, OP_NAMES[:-1], 0, bins)
    return apply(image, numbers, strengths, mean, interpolation)


def augmix(
    key: Array,
    image: Array,
    mean: Array,
    severity: Annotated[int, Range(1, 10)] = 3,
    width: Annotated[int, Range(1, 100)] = 3,
    depth: Annotated[int, Range(0, 100)] = 0,
    alpha: Positive = 1.0,
    all_ops: bool = True,
    interpolation: str = "bilinear",
) -> Array:
    """Averages the image with `width` chains of random operations on it (AugMix, Hendrycks et al. 2020, Algorithm 1).

    A chain applies `depth` operations in sequence (0: 1 to 3 at random), with strengths from the first `severity` of
    ten bins. all_ops=False excludes brightness, color, contrast and sharpness. The chains are averaged with weights
    from Dirichlet(alpha), and their average with the image by a weight from Beta(alpha, alpha). `mean` [1, 1, C] fills
    pixels from outside the image. `interpolation`, 'nearest' or 'bilinear', is for shears, translations and rotations.
    The paper's Jensen-Shannon loss is not implemented.
    """
    names = [n for n in OP_NAMES[1:-1] if all_ops or n not in BLEND_OPS]
    table = AUGMIX_SPACE.table(image.shape, 10)
    chains_key, weights_key, lam_key = jax.random.split(key, 3)

    def chain(units: Array) -> Array:
        numbers, strengths = choose_operations(units, table, names, 0, severity)
        used = jnp.arange(len(units)) < (depth or 1 + uniform_index(units[0, 3], 3))
        return apply(image, jnp.where(used, numbers, 0), strengths, mean, interpolation)

    chains = jax.vmap(chain)(jax.random.uniform(chains_key, (width, depth or 3, 4)))
    weights = jax.random.dirichlet(weights_key, jnp.full(width, alpha))
    lam = jax.random.beta(lam_key, alpha, alpha)
    return (1 - lam) * image + lam * jnp.tensordot(weights, chains, axes=1)


OPS = {"rand_augment": rand_augment, "trivial_augment": trivial_augment, "augmix": augmix}
