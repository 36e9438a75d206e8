"""Equalities: operations that give the same result, or do not, tested in exact arithmetic.

./launch.sh study experiments/arithmetic_equalities.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.signal

from cnnjax.models import layers
from cnnjax.study.facts import Fact, Number, Numbers

LECTURES = "taught so in lectures"


def integers(*shape: int) -> np.ndarray:
    """Returns random integers from -4 to 4 as float32: sums of their products are exact."""
    return np.random.default_rng(shape).integers(-4, 5, shape).astype(np.float32)


def convolve(image: np.ndarray, kernel: np.ndarray, stride: int = 1, padding: int = 0) -> np.ndarray:
    """Convolves one channel as the networks do: [H, W] with [h, w]."""
    images, kernels = jnp.asarray(image)[None, :, :, None], jnp.asarray(kernel)[:, :, None, None]
    pads = ((padding, padding), (padding, padding))
    return np.asarray(layers.convolve(images, kernels, (stride, stride), pads))[0, :, :, 0]


def linear_stack() -> Numbers:
    """Applies two 3x3 kernels in turn, and the 5x5 kernel that is their convolution."""
    image, first, second = integers(9, 9), integers(3, 3), integers(3, 3)[::-1]
    both = scipy.signal.convolve2d(first, second).astype(np.float32)
    hidden, one = convolve(image, first), convolve(image, both)
    return {
        "outputs that differ": int((convolve(hidden, second) != one).sum()),
        "outputs that differ with a ReLU between": int((convolve(np.maximum(hidden, 0), second) != one).sum()),
    }


def flipped_kernel() -> Numbers:
    """Compares a convolution layer to the convolution and to the cross-correlation of mathematics."""
    image, kernel = integers(6, 6), integers(3, 3)
    ours = convolve(image, kernel)
    return {
        "it equals a convolution": np.array_equal(ours, scipy.signal.convolve2d(image, kernel, "valid")),
        "it equals a cross-correlation": np.array_equal(ours, scipy.signal.correlate2d(image, kernel, "valid")),
    }


def relu_and_pool() -> Numbers:
    """Exchanges a ReLU with a max pool and with an average pool."""
    x = jnp.asarray(integers(1, 8, 8, 4))
    differ = {
        f"the order matters with {name} pools": bool((pool(jax.nn.relu(x), 2) != jax.nn.relu(pool(x, 2))).any())
        for name, pool in (("max", layers.max_pool), ("average", layers.avg_pool))
    }
    return differ | {"ReLUs if they come last, %": 100 * layers.max_pool(x, 2).size / x.size}


def fully_connected() -> Numbers:
    """Applies a fully connected layer to feature maps of 4x4, and as a convolution to these and to maps of 6x6."""
    large = integers(1, 6, 6, 3)
    maps = large[:, :4, :4]
    flat, sliding = layers.FullyConnected(5), layers.FullyConnected(5, window=4)
    variables = {"params": {"kernel": integers(48, 5), "bias": integers(5)}}
    once, slid = np.asarray(flat.apply(variables, maps)), np.asarray(sliding.apply(variables, large))
    return {
        "outputs that differ": int((once[0] != slid[0, 0, 0]).sum()),
        "places on maps of 6x6": slid.shape[1] * slid.shape[2],
    }


def views(shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns two images of a scene, the second one `shift` pixels further to the right."""
    scene = integers(12, 14)
    return scene[:, :12], scene[:, shift : shift + 12]


def equivariance() -> Numbers:
    """Compares the outputs of a padded 3x3 convolution where two images, one pixel apart, show the same."""
    first, second = (convolve(image, integers(3, 3), padding=1) for image in views(1))
    differ = (first[:, 1:] != second[:, :-1]).any(axis=0)
    return {
        "columns that differ inside": int(differ[1:-1].sum()),
        "columns that differ at the border": int(differ[[0, -1]].sum()),
    }


def moves_along(shift: int) -> bool:
    """Returns whether the output of a 3x3 convolution with stride 2 is the same, or moves, if the image moves.

    Leaves out the border, and tries moves of 0 and 1 output pixels.
    """
    first, second = (convolve(image, integers(3, 3), stride=2, padding=1) for image in views(shift))
    return any((first[:, 1 + move : 4 + move] == second[:, 1:4]).all() for move in (0, 1))


def broken_equivariance() -> Numbers:
    """Moves an image by one pixel and by two, and looks at a convolution with stride 2."""
    return {f"the output moves along with {shift} pixel{'s' * (shift > 1)}": moves_along(shift) for shift in (1, 2)}


def get_facts() -> tuple[Fact, ...]:
    """Returns the facts about operations that are equal."""
    return (
        Fact(
            name="linear_stack",
            chapter="activations",
            statement="Without an activation between them, two convolutions are only one larger convolution.",
            source=LECTURES,
            numbers=(
                Number("outputs that differ", right=0, taught=0),
                Number("outputs that differ with a ReLU between", right=25),
            ),
            compute=linear_stack,
            why="Two 3x3 kernels in a row equal one 5x5 kernel, their convolution. A ReLU between them changes that.",
        ),
        Fact(
            name="flipped_kernel",
            chapter="convolution",
            statement="A convolution layer convolves: it flips its kernel before it slides it over the image.",
            source=LECTURES,
            numbers=(
                Number("it equals a convolution", right=False, taught=True),
                Number("it equals a cross-correlation", right=True),
            ),
            compute=flipped_kernel,
            why="Every library computes a cross-correlation, without flipping. As the kernel is learned, nothing else "
            "changes.",
        ),
        Fact(
            name="relu_and_pool",
            chapter="pooling",
            statement="An activation has to come before the pool.",
            source=LECTURES,
            numbers=(
                Number("the order matters with max pools", right=False, taught=True),
                Number("the order matters with average pools", right=True, taught=True),
                Number("ReLUs if they come last, %", right=25),
            ),
            compute=relu_and_pool,
            why="ReLU and max pool can be exchanged, as for every increasing function. AlexNet's own program pools "
            "first, and computes fewer ReLUs. With an average pool the order matters.",
        ),
        Fact(
            name="fc_is_convolution",
            chapter="convolution",
            statement="A fully connected layer on feature maps is a convolution with a kernel as large as the maps, so "
            "it can slide over larger images.",
            source="Sermanet et al.: OverFeat. ICLR 2014, sec. 3.5",
            numbers=(
                Number("outputs that differ", right=0, taught=0),
                Number("places on maps of 6x6", right=(6 - 4 + 1) ** 2),
            ),
            compute=fully_connected,
            why="The same weights, the same sums. On larger maps it gives a score for each place.",
        ),
        Fact(
            name="equivariance",
            chapter="convolution",
            statement="A convolution is equivariant to shifts: if the image moves, the output moves along.",
            source=LECTURES,
            numbers=(
                Number("columns that differ inside", right=0, taught=0),
                Number("columns that differ at the border", right=2),
            ),
            compute=equivariance,
            why="Exactly so inside. At the border, zeros take the place of what has moved out of the image.",
        ),
        Fact(
            name="broken_equivariance",
            chapter="convolution",
            statement="A convolutional network is equivariant to shifts of every size.",
            source=LECTURES,
            numbers=(
                Number("the output moves along with 1 pixel", right=False, taught=True),
                Number("the output moves along with 2 pixels", right=True, taught=True),
            ),
            compute=broken_equivariance,
            why="With a stride of 2, only shifts of 2 pixels move the output. A network with a jump of 32 pixels is "
            "equivariant to shifts of 32.",
        ),
    )
