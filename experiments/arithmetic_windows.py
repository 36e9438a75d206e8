"""Windows: how many a convolution or a pool has, what padding keeps, and what a pool saves.

./launch.sh study experiments/arithmetic_windows.py
"""

import jax
import jax.numpy as jnp

from cnnjax.models import layers
from cnnjax.models.layers import output_size
from cnnjax.study.facts import Fact, Number, Numbers
from cnnjax.summarize import Layer, summary

LECTURES = "taught so in lectures"
ALEXNET = "Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks. NIPS 2012"


def rows(chain: str, side: int, channels: int) -> list[Layer]:
    """Lists the layers of a network, as `summary` does, for square images."""
    return list(summary(f"sequential('{chain}|gap|dense')", (side, side, channels)).layers)


def quiz() -> Numbers:
    """Counts the outputs and parameters of ten 5x5 filters on a color image."""
    conv = rows("conv(10, 5, padding=2)", 64, 3)[0]
    return {"output": conv.output, "parameters": conv.params}


def steps_on_seven() -> Numbers:
    """Counts the places of a 3x3 window along seven pixels."""
    return {f"places with stride {stride}": output_size(7, 3, stride, (0, 0)) for stride in (1, 2)}


def stride_three_on_seven() -> Numbers:
    """Counts the places of a 3x3 window with a stride of 3 along seven pixels, in four ways."""
    image, kernel = jnp.zeros((1, 7, 7, 1)), jnp.zeros((3, 3, 1, 1))
    same = jax.eval_shape(lambda x: layers.convolve(x, kernel, (3, 3), "SAME"), image)
    valid = jax.eval_shape(lambda x: jax.lax.conv(jnp.moveaxis(x, 3, 1), kernel.T, (3, 3), "VALID"), image)
    counts = {
        "places, rounded down (PyTorch)": output_size(7, 3, 3, (0, 0)),
        "places, rounded up (Caffe's pools)": output_size(7, 3, 3, (0, 0), ceil=True),
        "places, TensorFlow's SAME": same.shape[1],
        "places, TensorFlow's VALID": valid.shape[2],
    }
    return {"ways without an answer": sum(count < 1 for count in counts.values()), **counts}


def half_padding() -> Numbers:
    """Pads images of 32x32 by half the kernel; the stride is 1."""
    return {f"side after {size}x{size}": output_size(32, size, 1, (size // 2, size // 2)) for size in (3, 5, 7)}


def shrinking() -> Numbers:
    """Applies 5x5 convolutions without padding to images of 32x32, as many as fit."""
    sides = [32]
    while sides[-1] >= 5:
        sides.append(output_size(sides[-1], 5, 1, (0, 0)))
    return {"first sides": tuple(sides[:3]), "convolutions that fit": len(sides) - 1, "last side": sides[-1]}


def pool_saves() -> Numbers:
    """Compares the second of two convolutions with and without a pool before it."""
    convs = "conv(16, 3, padding=1)|{}conv(16, 3, padding=1)"
    (_, plain, *_), (first, pool, pooled, *_) = (rows(convs.format(pool), 32, 3) for pool in ("", "max_pool(2)|"))
    return {
        "activations kept, %": 100 * pool.activations / first.activations,
        "parameters of the pool": pool.params,
        "work of the next convolution, %": 100 * pooled.macs / plain.macs,
        "parameters of the next convolution, %": 100 * pooled.params / plain.params,
    }


def overlapping() -> Numbers:
    """Compares AlexNet's pools, 3x3 with a stride of 2, to pools of 2x2 on AlexNet's sides and an even one."""

    def sides(window: int, *inputs: int) -> tuple[int, ...]:
        return tuple(output_size(side, window, 2, (0, 0)) for side in inputs)

    return {
        "55, 27, 13 become by 3x3": sides(3, 55, 27, 13),
        "55, 27, 13 become by 2x2": sides(2, 55, 27, 13),
        "56 becomes by 3x3": sides(3, 56)[0],
        "56 becomes by 2x2": sides(2, 56)[0],
    }


def get_facts() -> tuple[Fact, ...]:
    """Returns the facts about windows, padding and pools."""
    return (
        Fact(
            name="window_quiz",
            chapter="convolution",
            statement="Ten 5x5 filters with stride 1 and padding 2 turn a 64x64x3 image into 64x64x10, with 760 "
            "parameters.",
            source=LECTURES,
            numbers=(
                Number("output", right=((64 - 5 + 2 * 2) // 1 + 1, 64, 10), taught=(64, 64, 10)),
                Number("parameters", right=10 * (5 * 5 * 3 + 1), taught=760),
            ),
            compute=quiz,
            why="A side has (N - F + 2P) / S + 1 outputs. Each filter has 5 * 5 * 3 weights and a bias.",
        ),
        Fact(
            name="windows_on_seven",
            chapter="convolution",
            statement="A 3x3 window has 5 places along 7 pixels with stride 1, and 3 with stride 2.",
            source=LECTURES,
            numbers=(
                Number("places with stride 1", right=7 - 3 + 1, taught=5),
                Number("places with stride 2", right=(7 - 3) // 2 + 1, taught=3),
            ),
            compute=steps_on_seven,
            why="(N - F) / S + 1 is a whole number for both.",
        ),
        Fact(
            name="stride_three_on_seven",
            chapter="convolution",
            statement="A 3x3 window with stride 3 does not fit 7 pixels: it is an error.",
            source=LECTURES,
            numbers=(
                Number("ways without an answer", right=0, taught=4),
                Number("places, rounded down (PyTorch)", right=(7 - 3) // 3 + 1),
                Number("places, rounded up (Caffe's pools)", right=-(-(7 - 3) // 3) + 1),
                Number("places, TensorFlow's SAME", right=-(-7 // 3)),
                Number("places, TensorFlow's VALID", right=-(-(7 - 3 + 1) // 3)),
            ),
            compute=stride_three_on_seven,
            why="(7 - 3) / 3 + 1 = 2.33, and every library rounds. Rounding down ignores the last pixel. Rounding "
            "up, as AlexNet's own code does, lets the last window reach over the border.",
        ),
        Fact(
            name="half_padding",
            chapter="padding",
            statement="With stride 1, zero padding by half of an odd kernel keeps the size of the feature maps.",
            source=LECTURES,
            numbers=[
                Number(f"side after {size}x{size}", right=32 - size + 2 * padding + 1, taught=32)
                for size, padding in ((3, 1), (5, 2), (7, 3))
            ],
            compute=half_padding,
            why="Padding of (F - 1) / 2 on both sides gives back the F - 1 pixels that the kernel takes.",
        ),
        Fact(
            name="shrinking",
            chapter="padding",
            statement="Without padding, feature maps shrink too fast for a deep network: 32, 28, 24 with 5x5 kernels.",
            source=LECTURES,
            numbers=(
                Number("first sides", right=(32, 32 - 4, 32 - 8), taught=(32, 28, 24)),
                Number("convolutions that fit", right=(32 - 4) // 4),
                Number("last side", right=32 - 7 * 4),
            ),
            compute=shrinking,
            why="Each convolution takes F - 1 = 4 pixels, so after seven of them there is no room for another.",
        ),
        Fact(
            name="pool_saves",
            chapter="pooling",
            statement="A 2x2 pool keeps a quarter of the activations, has no parameters, and leaves the next "
            "convolution a quarter of its work.",
            source=LECTURES,
            numbers=(
                Number("activations kept, %", right=25, taught="25 %"),
                Number("parameters of the pool", right=0, taught=0),
                Number("work of the next convolution, %", right=25, taught="25 %"),
                Number("parameters of the next convolution, %", right=100),
            ),
            compute=pool_saves,
            why="Work and memory follow the size of the feature maps. Parameters of a convolution do not.",
        ),
        Fact(
            name="overlapping_pools",
            chapter="pooling",
            statement="Overlapping 3x3 pools with stride 2 give feature maps of the same size as 2x2 pools.",
            source=f"{ALEXNET}, sec. 3.4",
            numbers=(
                Number("55, 27, 13 become by 3x3", right=(52 // 2 + 1, 24 // 2 + 1, 10 // 2 + 1), taught=(27, 13, 6)),
                Number("55, 27, 13 become by 2x2", right=(55 // 2, 27 // 2, 13 // 2), taught=(27, 13, 6)),
                Number("56 becomes by 3x3", right=53 // 2 + 1),
                Number("56 becomes by 2x2", right=56 // 2),
            ),
            compute=overlapping,
            why="This holds for AlexNet's sides, all of them odd. On an even side, the 3x3 pool gives one value less.",
        ),
    )
