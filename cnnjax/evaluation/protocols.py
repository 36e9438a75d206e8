"""What a network is shown of an image when it is scored, and how the scores of these views become one.

A protocol is a row of `PROTOCOLS`, a function from the arguments of its call string to a `Protocol`. The views are cut
out on the host, behind the host's operations of config.preprocess; any other operations and the normalisation are of
each view, and its mirror image comes last.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import spec
from cnnjax.errors import InputError


class Protocol(NamedTuple):
    """How images are seen. In each pass, all that the operations there make of an image; as many in each."""

    passes: Sequence[tuple[spec.Call, ...]] = ((),)  # of host operations, the last of which may be of `VIEWS`
    mirror: bool = False  # each view left to right, too
    whole: bool = False  # views have the images' own aspects: a batch is of those of one size
    dense: bool = False  # the classifier is at every position of the last maps
    instead_of: tuple[str, ...] = ()  # operations that a run's own preprocess has for what the protocol does itself


# ------------------------------------------------------------------------------------------------------ the protocols


def _pass(name: str, size: int) -> tuple[spec.Call, ...]:
    if size < 1:
        raise InputError(f"protocol size = {size!r}: expected at least 1 pixel")
    return (spec.Call(name, (size,), {}),)


def single() -> Protocol:
    """The image as it is preprocessed."""
    return Protocol()


def flip() -> Protocol:
    """The image and its mirror image."""
    return Protocol(mirror=True)


def center(size: int) -> Protocol:
    """The middle."""
    return Protocol((_pass("center_crop", size),), instead_of=("center_crop",))


def five_crop(size: int) -> Protocol:
    """The four corners and the middle."""
    return Protocol((_pass("corners_and_center", size),), instead_of=("center_crop",))


def ten_crop(size: int) -> Protocol:
    """The four corners, the middle and their mirror images (Krizhevsky et al. 2012, sec. 4.1)."""
    return five_crop(size)._replace(mirror=True)


def crop144(size: int = 224) -> Protocol:
    """`crops_of_squares` and their mirror images (Szegedy et al. 2015, sec. 7)."""
    return Protocol((_pass("crops_of_squares", size),), mirror=True, instead_of=("resize", "center_crop"))


def resized(size: int) -> Protocol:
    """The whole image, its shorter side of that length; for networks that take images of any size."""
    return Protocol((_pass("resize", size),), whole=True, instead_of=("resize", "center_crop"))


def dense(*sizes: int, flip: bool = True) -> Protocol:
    """The network over the whole image, its full connections as convolutions (Simonyan, Zisserman 2015, sec. 3.2).

    The scores of all positions are averaged before the softmax. Of the image as it is preprocessed, or with its
    shorter side of each length in `sizes`; and with `flip` of its mirror image.
    """
    passes = tuple(_pass("resize", size) for size in sizes) or ((),)
    instead_of = ("resize", "center_crop") if sizes else ("center_crop",)
    return Protocol(passes, mirror=flip, whole=True, dense=True, instead_of=instead_of)


def multiscale(*sizes: int, flip: bool = True) -> Protocol:
    """`dense` in several sizes, as in Table 4 there: multiscale(256, 384, 512)."""
    if not sizes:
        raise InputError("protocol 'multiscale': expected the shorter sides, as in multiscale(256, 384, 512)")
    return dense(*sizes, flip=flip)


PROTOCOLS: dict[str, Callable[..., Protocol]] = {
    "single": single,
    "flip": flip,
    "center": center,
    "five_crop": five_crop,
    "ten_crop": ten_crop,
    "crop144": crop144,
    "resize": resized,
    "dense": dense,
    "multiscale": multiscale,
}


def build(text: str) -> Protocol:
    """The protocol that a call string names. Raises InputError when there is none."""
    return spec.build("protocol", text, PROTOCOLS)


def average(each: jax.Array | np.ndarray, how: str) -> jax.Array:
    """One row of scores for several: float32 [N, M, K] -> [N, K], the M of an image alike.

    The mean of the logits, or the logarithm of the mean of the probabilities, which stays finite where they are too
    small for float32. A single row stays what it is.
    """
    each = jnp.asarray(each)
    if each.shape[1] == 1:
        return each[:, 0]
    if how == "logits":
        return each.mean(axis=1)
    return jax.nn.logsumexp(jax.nn.log_softmax(each), axis=1) - jnp.log(each.shape[1])


def check_preprocess(text: str, preprocess: Sequence[spec.Call]) -> None:
    """Raises InputError where a run's own `preprocess` has what the protocol `text` does itself."""
    rest = [call for call in preprocess if call.name not in build(text).instead_of]
    if len(rest) < len(preprocess):
        had, left = ("|".join(map(spec.render, calls)) for calls in (preprocess, rest))
        raise InputError(
            f"protocol {text!r} would see of the images what the run's preprocess {had!r} leaves: give --preprocess as "
            f"well, perhaps --preprocess={left!r}"
        )
