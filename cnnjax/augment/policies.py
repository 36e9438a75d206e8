"""Policies: each image gets a few operations of a list, as drawn, with the strengths that torchvision gives them.

Where every branch of a choice is computed (`draws.in_turn`), fewer branches are less work. So an operation is one pass
of three stages, whatever it is, of which all but one leave the image alone: an affine map, a blend with another image,
a change of levels. A strength is one of `bins`, from none to the most; fills are of the mean colour.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.augment import color
from cnnjax.augment.geometry import affine, warp
from cnnjax.augment.random import sequential_on_cpu, uniform_index
from cnnjax.errors import InputError

Array = jax.Array

# An operation is its number here.
MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
BLENDS: dict[str, Callable[[Array], Array]] = {  # with what
    "brightness": jnp.zeros_like,
    "color": color.luma,
    "contrast": lambda image: color.luma(image).mean(),
    "sharpness": color.blurred,
}
CHANGES: dict[str, Callable[[Array, Array], Array]] = {
    "posterize": lambda image, bits: color.posterized(image, jnp.round(bits).astype(jnp.int32)),
    "solarize": color.solarized,
    "autocontrast": lambda image, _: color.stretched(image),
    "equalize": lambda image, _: color.equalized(image),
    "invert": lambda image, _: 1 - image,
}
NAMES = ("identity", *MOVES, *BLENDS, *CHANGES)
NUMBER = {name: number for number, name in enumerate(NAMES)}


class Space(NamedTuple):
    """Strengths of the operations in a policy."""

    most: dict[str, float]  # shears in pixels per pixel, translations in sides or `pixels`, degrees, factors, bits lost
    pixels: bool = False
    bits: int = 8  # that posterize begins with

    def table(self, shape: tuple[int, ...], bins: int) -> Array:
        """The strength of each of `NAMES` by its bin, float32 [15, bins]: for translations in pixels of this image."""
        share = np.linspace(0, 1, bins)
        sides = {"translate_x": shape[1], "translate_y": shape[0]}
        rows = [self.most.get(name, 0.0) * (1 if self.pixels else sides.get(name, 1)) * share for name in NAMES]
        rows[NUMBER["posterize"]] = self.bits - np.round(rows[NUMBER["posterize"]])
        rows[NUMBER["solarize"]] = 255 * (1 - share)
        return jnp.array(np.stack(rows), jnp.float32)


def _space(shear: float, translate: float, degrees: float, factor: float, lost: int, **more: Any) -> Space:
    most = {"shear_x": shear, "shear_y": shear, "translate_x": translate, "translate_y": translate, "rotate": degrees}
    factors = dict.fromkeys(("brightness", "color", "contrast", "sharpness"), factor)
    return Space({**most, **factors, "posterize": lost}, **more)


USUAL = _space(0.3, 150 / 331, 30, 0.9, 4)
WIDE = _space(0.99, 32, 135, 0.99, 6, pixels=True)
AUGMIX = _space(0.3, 1 / 3, 30, 0.9, 4, bits=4)


def apply(image: Array, numbers: Array, strengths: Array, mean: Array, interpolation: str) -> Array:
    """The image after operations of `NAMES`, one after the other: `numbers` and `strengths` are [M]."""

    def all_of(image: Array, numbers: Array, strengths: Array, mean: Array) -> Array:
        def then(image: Array, one: tuple[Array, Array]) -> tuple[Array, None]:
            return _one(image, *one, mean, interpolation), None

        return jax.lax.scan(then, image, (numbers, strengths))[0]

    return sequential_on_cpu(all_of)(image, numbers, strengths, mean)


def _one(image: Array, number: Array, strength: Array, mean: Array, interpolation: str) -> Array:
    def chosen(names: Sequence[str]) -> Array:
        """The place of the operation among `names`, or their number."""
        return jnp.array([names.index(name) if name in names else len(names) for name in NAMES])[number]

    def moved(image: Array) -> Array:  # shears are about the upper left corner, rotations about the middle
        x, y, right, down, angle = jnp.where(jnp.arange(len(MOVES)) == chosen(MOVES), strength, 0.0)
        height, width, _ = image.shape
        sine, cosine = jnp.sin(jnp.deg2rad(angle)), jnp.cos(jnp.deg2rad(angle))
        offset = jnp.stack([x * height / 2 - jnp.trunc(right), y * width / 2 - jnp.trunc(down)])
        matrix = affine(cosine, x - sine, y + sine, cosine).at[:, 2].set(offset)
        return warp(image, mean, matrix, interpolation)

    def unchanged(image: Array) -> Array:
        return image

    image = jax.lax.cond(chosen(MOVES) < len(MOVES), moved, unchanged, image)
    blends = [lambda image, other=other: color.blend(other(image), image, 1 + strength) for other in BLENDS.values()]
    image = jax.lax.switch(chosen(tuple(BLENDS)), [*blends, unchanged], image)
    changes = [lambda image, change=change: change(image, strength) for change in CHANGES.values()]
    return jax.lax.switch(chosen(tuple(CHANGES)), [*changes, unchanged], image)


def drawn(shares: Array, table: Array, names: Sequence[str], first: int, bins: int = 1) -> tuple[Array, Array]:
    """Operations out of `names`, and their strengths, of one of so many bins from the `first`.

    By draws from [0, 1): `shares` [M, 3], the last of which is the sign of a strength that may be negative.
    """
    number = jnp.array([NUMBER[name] for name in names])[uniform_index(shares[:, 0], len(names))]
    return number, signed(shares[:, 2], number, table[number, first + uniform_index(shares[:, 1], bins)])


def signed(share: Array, number: Array, strength: Array) -> Array:
    """The strength, negative for the lower half of [0, 1), if it is one of those that may be."""
    mirrored = jnp.array([name in (*MOVES, *BLENDS) for name in NAMES])[number]
    return jnp.where(mirrored & (share < 0.5), -strength, strength)


def rand_augment(
    key: Array,
    image: Array,
    mean: Array,
    num_ops: int = 2,
    magnitude: int = 9,
    bins: int = 31,
    interpolation: str = "nearest",
) -> Array:
    """`num_ops` operations of 14, each at the strength `magnitude` of 0 to `bins` - 1 (Cubuk et al. 2020)."""
    _at_least("rand_augment", num_ops=(num_ops, 0), bins=(bins, 2))
    if not 0 <= magnitude < bins:
        raise InputError(f"rand_augment: magnitude = {magnitude!r}: expected 0 to {bins - 1}, of bins = {bins}")
    table = USUAL.table(image.shape, bins)
    numbers, strengths = drawn(jax.random.uniform(key, (num_ops, 3)), table, NAMES[:-1], magnitude)
    return apply(image, numbers, strengths, mean, interpolation)


def trivial_augment(key: Array, image: Array, mean: Array, bins: int = 31, interpolation: str = "nearest") -> Array:
    """One operation of 14, at any strength, of a wide range (TrivialAugment Wide: Mueller & Hutter 2021)."""
    _at_least("trivial_augment", bins=(bins, 2))
    table = WIDE.table(image.shape, bins)
    numbers, strengths = drawn(jax.random.uniform(key, (1, 3)), table, NAMES[:-1], 0, bins)
    return apply(image, numbers, strengths, mean, interpolation)


def augmix(
    key: Array,
    image: Array,
    mean: Array,
    severity: int = 3,
    width: int = 3,
    depth: int = 0,
    alpha: float = 1.0,
    all_ops: bool = True,
    interpolation: str = "bilinear",
) -> Array:
    """Mixes the image with `width` chains of operations on it (Hendrycks et al. 2020, Algorithm 1).

    A chain is of `depth` operations, 1 to 3 for depth=0, with strengths of the first `severity` of ten bins; without
    `all_ops` none of brightness, color, contrast and sharpness. Weights are of Dirichlet and Beta distributions with
    the parameter `alpha`. The paper's loss on how far three such images differ is not here.
    """
    _at_least("augmix", severity=(severity, 1), width=(width, 1), depth=(depth, 0))
    if severity > 10:
        raise InputError(f"augmix: severity = {severity!r}: expected at most 10")
    if alpha <= 0:
        raise InputError(f"augmix: alpha = {alpha!r}: expected more than 0")
    names = [n for n in NAMES[1:-1] if all_ops or n not in BLENDS]
    table = AUGMIX.table(image.shape, 10)
    chains_key, weights_key, share_key = jax.random.split(key, 3)

    def chain(shares: Array) -> Array:
        numbers, strengths = drawn(shares, table, names, 0, severity)
        taken = jnp.arange(len(shares)) < (depth or 1 + uniform_index(shares[0, 3], 3))
        return apply(image, jnp.where(taken, numbers, 0), strengths, mean, interpolation)

    chains = jax.vmap(chain)(jax.random.uniform(chains_key, (width, depth or 3, 4)))
    weights = jax.random.dirichlet(weights_key, jnp.full(width, alpha))
    share = jax.random.beta(share_key, alpha, alpha)
    return (1 - share) * image + share * jnp.tensordot(weights, chains, axes=1)


def _at_least(name: str, **values: tuple[int, int]) -> None:
    for argument, (value, least) in values.items():
        if value < least:
            raise InputError(f"{name}: {argument} = {value!r}: expected at least {least}")


OPS = {"rand_augment": rand_augment, "trivial_augment": trivial_augment, "augmix": augmix}
