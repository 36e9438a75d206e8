"""Test protocols: the views in which an evaluation shows each image, and how the views' scores are averaged.

`PROTOCOLS` has one function per protocol, from the arguments of its call string to a `Protocol`. Views are cut on the
host, after the host's operations of config.preprocess; the other operations and the normalization follow on each view.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import spec
from cnnjax.errors import InputError
from cnnjax.spec import Pixels


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A parsed test protocol: the views of each image that are scored. The scores of all views are averaged.

    Attributes:
      passes: for each pass, its host operations (names in `data.operations.ALL_HOST_OPS`), which follow those of
        config.preprocess. The last operation may cut several views. All passes give the same number of views.
      flip: whether the horizontal flip of each view is scored as well.
      weights: weight in the average of each view of a pass together with its flip. Their sum is 1; () for equal ones.
      variable_size: whether views keep the images' aspect ratios. Then a batch has images of one size only.
      fully_convolutional: whether fully connected layers are applied at every position of the feature map.
      replaces: names of operations that must not be in config.preprocess with this protocol.
    """

    passes: Sequence[tuple[spec.Call, ...]] = ((),)
    flip: bool = False
    weights: tuple[float, ...] = ()
    variable_size: bool = False
    fully_convolutional: bool = False
    replaces: tuple[str, ...] = ()


def _single_op(name: str, size: int, **options: str) -> tuple[spec.Call, ...]:
    """Returns a pass with one host operation, called with `size` in pixels and with `options`."""
    return (spec.Call(name, (size,), dict(options)),)


def single() -> Protocol:
    """Protocol of one view: the image as preprocessed."""
    return Protocol()


def flip() -> Protocol:
    """Protocol of two views: the image and its horizontal flip."""
    return Protocol(flip=True)


def six_view(pixels: Pixels = 1) -> Protocol:
    """Protocol of six views: the image, its shifts by `pixels` up and left and down and right, and their flips.

    The two shifts together weigh as much as the image (Jordan 2024, arXiv:2404.00498, sec. 3.5).
    """
    return Protocol((_single_op("diagonal_shifts", pixels),), flip=True, weights=(0.5, 0.25, 0.25))


def center(size: Pixels) -> Protocol:
    """Protocol of one view: the center crop of `size` x `size` pixels."""
    return Protocol((_single_op("center_crop", size),), replaces=("center_crop",))


def five_crop(size: Pixels) -> Protocol:
    """Protocol of five views of `size` x `size` pixels: the four corners and the center."""
    return Protocol((_single_op("corners_and_center", size),), replaces=("center_crop",))


def ten_crop(size: Pixels) -> Protocol:
    """Protocol of ten views: those of `five_crop` and their horizontal flips (Krizhevsky et al. 2012, sec. 4.1)."""
    return dataclasses.replace(five_crop(size), flip=True)


def crop144(size: Pixels = 224) -> Protocol:
    """Protocol of 144 views, `size` x `size` pixels each, at four scales of the image (Szegedy et al. 2015, sec. 7).

    These are the 72 crops of `data.views.crops_of_squares` and their horizontal flips.
    """
    return Protocol((_single_op("crops_of_squares", size),), flip=True, replaces=("resize", "center_crop"))


def resized(size: Pixels, filter: str = "area") -> Protocol:  # noqa: A002
    """Protocol of one view: the whole image, with its shorter side resized to `size` pixels and its aspect ratio kept.

    For networks that take images of any size. `filter` is that of the operation 'resize'. This protocol is called
    'resize' in call strings.
    """
    return Protocol(
        (_single_op("resize", size, filter=filter),), variable_size=True, replaces=("resize", "center_crop")
    )


def dense(*sizes: Pixels, flip: bool = True, filter: str = "area") -> Protocol:  # noqa: A002
    """Protocol that applies the network at every position of the whole image (Simonyan & Zisserman 2015, sec. 3.2).

    The fully connected layers become convolutions, and logits are averaged over the positions. `sizes` are lengths in
    pixels to which the shorter side is resized; each is a pass, and passes are averaged as config.average says. Without
    `sizes`, the image stays as preprocessed. With `flip`, the horizontal flip is scored as well. `filter` is that of
    the operation 'resize'.
    """
    passes = tuple(_single_op("resize", size, filter=filter) for size in sizes) or ((),)
    replaces = ("resize", "center_crop") if sizes else ("center_crop",)
    return Protocol(passes, flip=flip, variable_size=True, fully_convolutional=True, replaces=replaces)


def multiscale(*sizes: Pixels, flip: bool = True, filter: str = "area") -> Protocol:  # noqa: A002
    """Same protocol as `dense`, but at least one size is required: multiscale(256, 384, 512).

    The example is table 4 of Simonyan & Zisserman (2015, VGG). `sizes` are lengths of the shorter side in pixels, whose
    scores are averaged as config.average says. With `flip`, horizontal flips are scored as well.
    """
    if not sizes:
        raise InputError("protocol 'multiscale': expected the shorter sides, as in multiscale(256, 384, 512)")
    return dense(*sizes, flip=flip, filter=filter)


PROTOCOLS: dict[str, Callable[..., Protocol]] = {
    "single": single,
    "flip": flip,
    "six_view": six_view,
    "center": center,
    "five_crop": five_crop,
    "ten_crop": ten_crop,
    "crop144": crop144,
    "resize": resized,
    "dense": dense,
    "multiscale": multiscale,
}


def build(text: str) -> Protocol:
    """Builds the protocol of a call string such as 'ten_crop(224)'.

    Raises InputError for an unknown protocol or a wrong argument.
    """
    return spec.build("protocol", text, PROTOCOLS)


def average(scores: jax.Array | np.ndarray, mode: str, weights: np.ndarray | None = None) -> jax.Array:
    """Averages scores over the views of each image: float32 [N, views, K] -> [N, K].

    With `mode` "logits", returns the mean of the scores. With "probabilities", returns the logarithm of the mean
    softmax, which stays finite where probabilities underflow. A single view is returned unchanged. `weights`, [views]
    with a sum of 1, makes both a weighted mean.
    """
    scores = jnp.asarray(scores)
    if scores.shape[1] == 1:
        return scores[:, 0]
    if weights is not None:
        weights = weights[None, :, None].astype(np.float32)
        if mode == "logits":
            return (weights * scores).sum(axis=1)
        return jax.nn.logsumexp(jax.nn.log_softmax(scores), axis=1, b=weights)
    if mode == "logits":
        return scores.mean(axis=1)
    return jax.nn.logsumexp(jax.nn.log_softmax(scores), axis=1) - jnp.log(scores.shape[1])


def check_preprocess(text: str, preprocess: Sequence[spec.Call]) -> None:
    """Raises InputError if `preprocess`, the parsed host operations, has one that the protocol `text` replaces."""
    kept = [call for call in preprocess if call.name not in build(text).replaces]
    if len(kept) < len(preprocess):
        before, after = ("|".join(map(spec.render, calls)) for calls in (preprocess, kept))
        raise InputError(
            f"protocol {text!r} would cut its views out of images already preprocessed by the run's {before!r}: "
            f"pass --preprocess as well, perhaps --preprocess={after!r}"
        )
