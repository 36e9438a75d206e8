"""GoogLeNet and Network in Network, counted: parameters, 1x1 reductions, and the global mean.

./launch.sh study experiments/arithmetic_inception.py
"""

import functools

from cnnjax.models.googlenet import MODULES
from cnnjax.study.facts import Fact, Number, Numbers
from cnnjax.summarize import Layer, summary

LECTURES = "taught so in lectures"
GOOGLENET = "Szegedy et al.: Going Deeper with Convolutions. CVPR 2015"
NIN = "Lin, Chen, Yan: Network In Network. ICLR 2014"
TABLE_1 = (2.7, 112, 159, 380, 364, 437, 463, 580, 840, 1072, 1388, 1000)  # thousands: column '#params'

network = functools.cache(summary)


def against_alexnet() -> Numbers:
    """Compares the parameters of AlexNet and GoogLeNet."""
    alexnet, googlenet = network("alexnet").params, network("googlenet").params
    return {"AlexNet": alexnet, "GoogLeNet": googlenet, "ratio": alexnet / googlenet}


def parameters() -> Numbers:
    """Counts GoogLeNet's parameters, with and without the auxiliary classifiers."""
    return {
        "parameters": network("googlenet").params,
        "with auxiliary classifiers": network("googlenet_aux").params,
        "sum of Table 1, thousands": sum(TABLE_1),
    }


def classifiers() -> Numbers:
    """Compares the fully connected layers of GoogLeNet and VGG-16."""
    googlenet, vgg = (
        sum(row.params for row in network(name).layers if row.kind == "fully connected")
        for name in ("googlenet", "vgg16")
    )
    return {"GoogLeNet": googlenet, "VGG-16": vgg, "GoogLeNet / VGG-16, %": 100 * googlenet / vgg}


def depth() -> Numbers:
    """Counts the layers with parameters along GoogLeNet's longest path, and all of them."""
    rows = [row for row in network("googlenet").layers if row.params]
    inside = [row for row in rows if row.name.startswith("inception")]
    return {"along the longest path": len(rows) - len(inside) + 2 * len(MODULES), "in all": len(rows)}


def convs(chain: str, channels: int) -> list[Layer]:
    """Lists the convolutions of a chain without biases on feature maps of 28x28."""
    words = "|".join(f"conv({word}, bias=False)" for word in chain.split("|"))
    rows = network(f"sequential('{words}|gap|dense')", (28, 28, channels)).layers
    return [row for row in rows if row.kind == "convolution"]


def macs(*chains: str, channels: int) -> int:
    """Adds up the multiplications of parallel chains of convolutions on feature maps of 28x28."""
    return sum(row.macs for chain in chains for row in convs(chain, channels))


def five_by_five() -> Numbers:
    """Compares a 5x5 convolution from 192 to 32 channels with and without a reduction to 16 before it."""
    plain, reduced = "32, 5, padding=2", "16, 1|32, 5, padding=2"
    return {
        "multiplications": macs(plain, channels=192),
        "multiplications with the reduction": macs(reduced, channels=192),
        "weights": sum(row.params for row in convs(plain, 192)),
        "weights with the reduction": sum(row.params for row in convs(reduced, 192)),
        "same output and receptive field": all(
            getattr(convs(plain, 192)[-1], what) == getattr(convs(reduced, 192)[-1], what)
            for what in ("output", "receptive_field")
        ),
    }


def module() -> Numbers:
    """Counts the multiplications of an Inception module of 128, 192 and 96 channels, with and without reductions."""
    one, three, five = "128, 1", "192, 3, padding=1", "96, 5, padding=2"
    reduced = macs(one, f"64, 1|{three}", f"64, 1|{five}", "64, 1", channels=256)
    return {
        "multiplications": macs(one, three, five, channels=256),
        "multiplications with reductions": reduced,
        "with reductions, 3x3 counted twice": reduced + macs(three, channels=64),
    }


def channels() -> Numbers:
    """Counts the channels that GoogLeNet's first module gives, and how many it would without a 1x1 after its pool."""
    one, _, three, _, five, projected = MODULES["3a"]
    inputs = network("googlenet").layers[6].output[2]
    return {"channels": one + three + five + projected, "without a 1x1 after the pool": one + three + five + inputs}


def mean_head() -> Numbers:
    """Counts the parameters that Network in Network's head adds, as a global mean and as a fully connected layer."""
    mean, dense = network("nin_cifar10"), network("nin_cifar10(head='fc')")
    return {
        "parameters of the global mean": sum(row.params for row in mean.layers if "average" in row.kind),
        "parameters of a fully connected layer instead": dense.params - mean.params,
    }


def get_facts() -> tuple[Fact, ...]:
    """Returns the facts about GoogLeNet and Network in Network."""
    widths = [one + three + five + projected for one, _, three, _, five, projected in MODULES.values()]
    modules = sum(
        (inputs + 1) * (one + reduce3 + reduce5 + projected) + (9 * reduce3 + 1) * three + (25 * reduce5 + 1) * five
        for inputs, (one, reduce3, three, reduce5, five, projected) in zip(
            (192, *widths), MODULES.values(), strict=False
        )
    )
    googlenet = 64 * (49 * 3 + 1) + 64 * 65 + 192 * (9 * 64 + 1) + modules + 1000 * 1025
    auxiliary = sum(128 * (inputs + 1) + 1024 * (4 * 4 * 128 + 1) + 1000 * 1025 for inputs in (widths[2], widths[5]))
    return (
        Fact(
            name="googlenet_against_alexnet",
            chapter="inception",
            statement="GoogLeNet has 12 times fewer parameters than AlexNet.",
            source=f"{GOOGLENET}, sec. 1",
            numbers=(
                Number("AlexNet", right=60_965_224),
                Number("GoogLeNet", right=googlenet),
                Number("ratio", right=60_965_224 / googlenet, taught="12 times"),
            ),
            compute=against_alexnet,
            why="8.7 times fewer. For 12 it would have to have 5 million; its convolutions alone have 6.0 million.",
        ),
        Fact(
            name="googlenet_parameters",
            chapter="inception",
            statement="GoogLeNet has 6.8 million parameters.",
            source=f"{GOOGLENET}, Table 1, added up; {LECTURES}",
            numbers=(
                Number("parameters", right=googlenet, taught="6.8 M"),
                Number("with auxiliary classifiers", right=googlenet + auxiliary),
                Number("sum of Table 1, thousands", right=sum(TABLE_1)),
            ),
            compute=parameters,
            why="7.0 million. 6.8 is the sum of the paper's Table 1, whose rows are rounded, in part count in units of "
            "1,024, and leave out biases. In training, the auxiliary classifiers nearly double it.",
        ),
        Fact(
            name="googlenet_four_million",
            chapter="inception",
            statement="GoogLeNet has 4 million parameters.",
            source=LECTURES,
            numbers=(
                Number("parameters", right=googlenet, taught="4 M"),
                Number("with auxiliary classifiers", right=googlenet + auxiliary),
                Number("sum of Table 1, thousands", right=sum(TABLE_1)),
            ),
            compute=parameters,
            why="7.0 million. No way of counting gives 4.",
        ),
        Fact(
            name="googlenet_classifier",
            chapter="inception",
            statement="GoogLeNet's only fully connected layer has 1 million parameters: 1 % of VGG's.",
            source=LECTURES,
            numbers=(
                Number("GoogLeNet", right=1000 * 1025, taught="1 M"),
                Number("VGG-16", right=4096 * (7 * 7 * 512 + 1) + 4096 * 4097 + 1000 * 4097),
                Number("GoogLeNet / VGG-16, %", right="0.83 %", taught="1 %"),
            ),
            compute=classifiers,
            why="A mean over the 7x7 positions leaves 1,024 values where VGG flattens 25,088.",
        ),
        Fact(
            name="googlenet_depth",
            chapter="inception",
            statement="GoogLeNet is 22 layers deep, counting those with parameters.",
            source=f"{GOOGLENET}, sec. 5",
            numbers=(
                Number("along the longest path", right=3 + 9 * 2 + 1, taught=22),
                Number("in all", right=3 + 9 * 6 + 1),
            ),
            compute=depth,
            why="Three convolutions, nine modules of two, and the classifier. As a module has six convolutions, there "
            "are 58 layers in all.",
        ),
        Fact(
            name="one_by_one_reduction",
            chapter="inception",
            statement="A 1x1 reduction from 192 to 16 channels cuts a 5x5 convolution to 32 channels on 28x28 maps "
            "from 120 to 12.4 million multiplications. Size and receptive field stay.",
            source=LECTURES,
            numbers=(
                Number("multiplications", right=28 * 28 * 32 * 25 * 192, taught="120 M"),
                Number(
                    "multiplications with the reduction",
                    right=28 * 28 * (16 * 192 + 32 * 25 * 16),
                    taught="12.4 M",
                ),
                Number("weights", right=32 * 25 * 192),
                Number("weights with the reduction", right=16 * 192 + 32 * 25 * 16),
                Number("same output and receptive field", right=True, taught=True),
            ),
            compute=five_by_five,
            why="Ten times less work, with a tenth of the weights. It is the first module of GoogLeNet.",
        ),
        Fact(
            name="inception_module_work",
            chapter="inception",
            statement="An Inception module with 128, 192 and 96 channels on 28x28x256 maps needs 854 million "
            "multiplications without 1x1 reductions to 64 channels, and 358 million with them.",
            source=LECTURES,
            numbers=(
                Number("multiplications", right=784 * 256 * (128 + 192 * 9 + 96 * 25), taught="854 M"),
                Number(
                    "multiplications with reductions",
                    right=784 * (256 * (128 + 64 + 64 + 64) + 64 * (192 * 9 + 96 * 25)),
                    taught="358 M",
                ),
                Number(
                    "with reductions, 3x3 counted twice",
                    right=784 * (256 * (128 + 64 + 64 + 64) + 64 * (2 * 192 * 9 + 96 * 25)),
                ),
            ),
            compute=module,
            why="271 million: less than a third. 358 counts the 3x3 convolution twice.",
        ),
        Fact(
            name="inception_channels",
            chapter="inception",
            statement="Concatenation in an Inception module makes channels grow, even without any convolution, for its "
            "pool keeps them all: a 1x1 convolution after the pool prevents this.",
            source=f"{GOOGLENET}, sec. 4",
            numbers=(
                Number("channels", right=64 + 128 + 32 + 32),
                Number("without a 1x1 after the pool", right=64 + 128 + 32 + 192, taught=416),
            ),
            compute=channels,
            why="Module 3a takes 192 channels and gives 256. With the bare pool it would be 416, and more after each "
            "module.",
        ),
        Fact(
            name="mean_head",
            chapter="pooling",
            statement="Network in Network's global mean has no parameters, so it cannot overfit by itself.",
            source=f"{NIN}, sec. 3.2",
            numbers=(
                Number("parameters of the global mean", right=0, taught=0),
                Number("parameters of a fully connected layer instead", right=8 * 8 * 10 * 10 + 10),
            ),
            compute=mean_head,
            why="Its last convolution has a channel for each class, and the mean of a channel is the score.",
        ),
    )
