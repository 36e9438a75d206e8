"""Stacks of small kernels: what they see, what they cost, and what 1x1 convolutions are.

./launch.sh study experiments/arithmetic_stacks.py
"""

import functools

from cnnjax.study.facts import Fact, Number, Numbers
from cnnjax.summarize import Layer, summary

LECTURES = "taught so in lectures"
VGG = "Simonyan, Zisserman: Very Deep Convolutional Networks. ICLR 2015"
MOBILENET = "Howard et al.: MobileNets. arXiv:1704.04861, 2017"


def rows(chain: str, channels: int, side: int = 32) -> list[Layer]:
    """Lists the convolutions of a network for square images."""
    network = summary(f"sequential('{chain}|gap|dense')", (side, side, channels))
    return [row for row in network.layers if row.kind == "convolution"]


def stack(size: int, depth: int, channels: int = 64) -> list[Layer]:
    """Lists `depth` convolutions of size x size to 64 channels, padded and without biases."""
    return rows("|".join([f"conv(64, {size}, padding={size // 2}, bias=False)"] * depth), channels)


def fields() -> Numbers:
    """Reads the receptive fields of two and three 3x3 convolutions."""
    _, two, three = (row.receptive_field or (0, 0) for row in stack(3, 3))
    return {"side seen by two": two[0], "side seen by three": three[0]}


def cost(size: int, depth: int) -> Numbers:
    """Compares one convolution of size x size to `depth` of 3x3, all from 64 channels to 64."""
    one, small = stack(size, 1), stack(3, depth)
    large, little = (sum(row.params for row in layers) // 64**2 for layers in (one, small))
    work = sum(row.macs for row in one) / sum(row.macs for row in small)
    return {
        f"weights of {size}x{size} / C^2": large,
        f"weights of {depth} of 3x3 / C^2": little,
        f"more weights in {size}x{size}, %": 100 * (large / little - 1),
        f"work of {size}x{size} / work of the stack": work,
    }


def stack_on_colors() -> Numbers:
    """Compares a first layer of 64 7x7 kernels to three layers of 64 3x3 kernels."""
    one, small = (sum(row.params for row in stack(size, depth, channels=3)) for size, depth in ((7, 1), (3, 3)))
    return {"the stack has fewer weights": small < one, "weights of 7x7": one, "weights of three of 3x3": small}


def one_by_one() -> Numbers:
    """Reads what a 1x1 convolution sees of an image."""
    row = rows("conv(8, 1)", channels=3)[0]
    return {"side seen": (row.receptive_field or (0, 0))[0], "output": row.output}


def separable() -> Numbers:
    """Compares a 3x3 convolution of 512 channels on 14x14 maps to a depthwise and a pointwise one."""
    full = rows("conv(512, 3, padding=1, bias=False)", 512, 14)
    parts = rows("depthwise_conv(3, padding=1, bias=False)|conv(512, 1, bias=False)", 512, 14)
    return {"work saved, times": full[0].macs / sum(row.macs for row in parts)}


def get_facts() -> tuple[Fact, ...]:
    """Returns the facts about stacks of convolutions."""
    return (
        Fact(
            name="stacked_fields",
            chapter="convolution",
            statement="Two 3x3 convolutions see 5x5 pixels, and three see 7x7.",
            source=f"{VGG}, sec. 2.3",
            numbers=(
                Number("side seen by two", right=1 + 2 * 2, taught=5),
                Number("side seen by three", right=1 + 3 * 2, taught=7),
            ),
            compute=fields,
            why="Each adds F - 1 = 2 pixels to what the layer before it sees.",
        ),
        Fact(
            name="stack_of_two",
            chapter="convolution",
            statement="For C channels, two 3x3 layers have 18 C^2 weights and one of 5x5 has 25 C^2. Their work is in "
            "the same ratio.",
            source=LECTURES,
            numbers=(
                Number("weights of 5x5 / C^2", right=5 * 5, taught=25),
                Number("weights of 2 of 3x3 / C^2", right=2 * 3 * 3, taught=18),
                Number("more weights in 5x5, %", right="38.9 %"),
                Number("work of 5x5 / work of the stack", right=25 / 18, taught=25 / 18),
            ),
            compute=functools.partial(cost, 5, 2),
            why="The stack has 28 % fewer. The price: it keeps two feature maps for the backward pass, not one.",
        ),
        Fact(
            name="stack_of_three",
            chapter="convolution",
            statement="For C channels, a 7x7 layer has 49 C^2 weights: 81 % more than the 27 C^2 of three 3x3 layers.",
            source=f"{VGG}, sec. 2.3",
            numbers=(
                Number("weights of 7x7 / C^2", right=7 * 7, taught=49),
                Number("weights of 3 of 3x3 / C^2", right=3 * 3 * 3, taught=27),
                Number("more weights in 7x7, %", right="81.5 %", taught="81 %"),
                Number("work of 7x7 / work of the stack", right=49 / 27),
            ),
            compute=functools.partial(cost, 7, 3),
            why="49 / 27 = 1.81. The work is in the same proportion, as all layers have the same size.",
        ),
        Fact(
            name="stack_on_colors",
            chapter="convolution",
            statement="A stack of 3x3 layers has fewer weights than one layer of 7x7 kernels.",
            source=LECTURES,
            numbers=(
                Number("the stack has fewer weights", right=False, taught=True),
                Number("weights of 7x7", right=7 * 7 * 3 * 64),
                Number("weights of three of 3x3", right=3 * 3 * 64 * (3 + 64 + 64)),
            ),
            compute=stack_on_colors,
            why="Only where input and output have equally many channels, as the VGG paper says. On color images with "
            "64 filters the stack has eight times as many: ResNet begins with a 7x7 layer.",
        ),
        Fact(
            name="one_by_one_field",
            chapter="convolution",
            statement="A 1x1 convolution has no receptive field, so it is of no use by itself.",
            source=LECTURES,
            numbers=(
                Number("side seen", right=1, taught=0),
                Number("output", right=(32, 32, 8)),
            ),
            compute=one_by_one,
            why="It sees one pixel in all channels: a fully connected layer at each position. Network in Network, "
            "Inception and ResNet's bottlenecks are made with it.",
        ),
        Fact(
            name="depthwise_work",
            chapter="convolution",
            statement="A depthwise separable 3x3 convolution needs 8 to 9 times less work than a full one.",
            source=f"{MOBILENET}, sec. 3.1",
            numbers=[Number("work saved, times", right=1 / (1 / 512 + 1 / 9), taught="8 times")],
            compute=separable,
            why="The work falls to 1 / N + 1 / 9 for N outputs. With 512 of them that is 8.84 times less, and never 9.",
        ),
    )
