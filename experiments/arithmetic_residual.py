"""ResNet, DenseNet, SqueezeNet and SENet: their weights, operations and channels, counted.

./launch.sh study experiments/arithmetic_residual.py
"""

import functools
import itertools

from cnnjax.study.facts import Fact, Number, Numbers
from cnnjax.summarize import Layer, summary

LECTURES = "taught so in lectures"
RESNET = "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016"
DENSENET = "Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks. CVPR 2017"
SENET = "Hu, Shen, Sun: Squeeze-and-Excitation Networks. CVPR 2018"
SQUEEZENET = "Iandola et al.: SqueezeNet. arXiv:1602.07360, 2016"
DENSENET_121 = "densenet121(stage_sizes=(6, 12, 24, 1))"  # its last block shortened, to count faster
UNCOMPRESSED = "densenet121(stage_sizes=(6, 12, 1), compression=1.0)"

network = functools.cache(summary)


def rows(model: str, prefix: str, kind: str = "convolution") -> list[Layer]:
    """Lists the layers of a network of one kind whose names begin with `prefix`."""
    return [row for row in network(model).layers if row.name.startswith(prefix) and row.kind == kind]


def bottleneck() -> Numbers:
    """Compares a block of ResNet-34 of 64 channels to a bottleneck of ResNet-50 of 256."""
    plain, narrow = rows("resnet34", "conv2_2/"), rows("resnet50", "conv2_2/")
    return {
        "weights of two 3x3": sum(row.params for row in plain),
        "weights of the bottleneck": sum(row.params for row in narrow),
        "channels of the two": (plain[-1].output[2], narrow[-1].output[2]),
    }


def imagenet_work() -> Numbers:
    """Counts the multiply-accumulates of the ResNets for ImageNet."""
    return {f"{depth} layers": network(f"resnet{depth}").macs for depth in (18, 34, 50)}


def against_vgg() -> Numbers:
    """Compares the multiply-accumulates of ResNet-34 and VGG-19."""
    resnet, vgg = network("resnet34").macs, network("vgg19").macs
    return {"VGG-19": vgg, "ResNet-34 / VGG-19, %": 100 * resnet / vgg}


def strides() -> Numbers:
    """Counts the multiply-accumulates of ResNet-50 with the strides in 1x1 and in 3x3 convolutions."""
    return {"as published": network("resnet50").macs, "strides in the 3x3": network("resnet50_v1_5").macs}


def cifar_parameters() -> Numbers:
    """Counts the parameters of the ResNets for CIFAR-10."""
    return {f"{depth} layers": network(f"cifar_resnet{depth}").params for depth in (20, 32)}


def cifar_depth() -> Numbers:
    """Counts the layers with weights of the ResNets for CIFAR-10; shortcuts have none."""
    kinds = ("convolution", "fully connected")
    return {f"n = {n}": sum(row.kind in kinds for row in network(f"cifar_resnet{6 * n + 2}").layers) for n in (3, 5)}


def dense_channels() -> Numbers:
    """Reads how many channels the layers of DenseNet-121's first block see."""
    seen = tuple(row.params // 128 for row in rows(DENSENET_121, "block1_") if row.kernel == (1, 1))
    return {
        "each layer adds equally many": len({b - a for a, b in itertools.pairwise(seen)}) == 1,
        "channels that the layers see": seen,
    }


def transitions() -> Numbers:
    """Reads the channels after DenseNet-121's transitions, with and without compression."""
    models = {"channels after the transitions": DENSENET_121, "channels without compression": UNCOMPRESSED}
    return {name: tuple(row.output[2] for row in rows(model, "trans")) for name, model in models.items()}


def fire_and_gate() -> Numbers:
    """Counts the 3x3 convolutions of a squeeze-and-excitation block and of a fire module."""
    gate = [row for row in network("se_resnet50").layers if row.name.startswith("conv2_1/se/")]
    fire = rows("squeezenet1_0", "fire2/")
    return {
        "3x3 convolutions of a squeeze-and-excitation block": sum(row.kernel == (3, 3) for row in gate),
        "3x3 convolutions of a fire module": sum(row.kernel == (3, 3) for row in fire),
        "fully connected layers of a squeeze-and-excitation block": sum(row.kind == "fully connected" for row in gate),
    }


def gate_cost() -> Numbers:
    """Compares ResNet-50 with and without squeeze-and-excitation."""
    plain, gated = network("resnet50"), network("se_resnet50")
    return {
        "parameters added": gated.params - plain.params,
        "parameters added, %": 100 * (gated.params / plain.params - 1),
        "work added, %": 100 * (gated.macs / plain.macs - 1),
    }


def squeezenet() -> Numbers:
    """Compares the parameters of SqueezeNet and AlexNet."""
    squeezed, alexnet = network("squeezenet1_0").params, network("alexnet").params
    return {"SqueezeNet": squeezed, "SqueezeNet / AlexNet, %": 100 * squeezed / alexnet}


def get_facts() -> tuple[Fact, ...]:
    """Returns the facts about residual networks and those after them."""
    plain = [9 * (3 * 16 + 2 * n * 16**2 + 16 * 32 + (2 * n - 1) * 32**2 + 32 * 64 + (2 * n - 1) * 64**2)
             + 2 * (16 * (2 * n + 1) + 2 * n * 32 + 2 * n * 64) + 10 * 65 for n in (3, 5)]  # fmt: skip
    work = (1_814_073_344, 3_663_761_408, 3_857_973_248)
    added = sum(
        blocks * (2 * channels * channels // 16 + channels // 16 + channels)
        for blocks, channels in ((3, 256), (4, 512), (6, 1024), (3, 2048))
    )
    return (
        Fact(
            name="bottleneck_weights",
            chapter="residuals",
            statement="A bottleneck of 1x1, 3x3 and 1x1 convolutions on 256 channels has 69,632 weights: less than the "
            "73,728 of two 3x3 convolutions on 64.",
            source=f"{RESNET}, Fig. 5",
            numbers=(
                Number("weights of two 3x3", right=2 * 9 * 64 * 64, taught=73_728),
                Number("weights of the bottleneck", right=256 * 64 + 9 * 64 * 64 + 64 * 256, taught=69_632),
                Number("channels of the two", right=(64, 256), taught=(64, 256)),
            ),
            compute=bottleneck,
            why="The 1x1 convolutions take 256 channels to 64 and back, so that the 3x3 works on 64.",
        ),
        Fact(
            name="resnet_work",
            chapter="residuals",
            statement="ResNets of 18, 34 and 50 layers need 1.8, 3.6 and 3.8 G operations.",
            source=f"{RESNET}, Table 1",
            numbers=[
                Number(f"{depth} layers", right=right, taught=taught)
                for depth, right, taught in zip((18, 34, 50), work, ("1.8 G", "3.6 G", "3.8 G"), strict=True)
            ],
            compute=imagenet_work,
            why="These are multiply-accumulates. Counted as multiplications and additions they are twice as many.",
        ),
        Fact(
            name="resnet50_work",
            chapter="residuals",
            statement="ResNet-50 needs 4.1 G multiply-accumulates.",
            source=LECTURES,
            numbers=(
                Number("as published", right=work[2], taught="4.1 G"),
                Number("strides in the 3x3", right=4_089_184_256),
            ),
            compute=strides,
            why="3.86 G as published. 4.09 G is a later variant, which many libraries also call ResNet-50: it moves "
            "the strides from 1x1 to 3x3 convolutions.",
        ),
        Fact(
            name="resnet_against_vgg",
            chapter="residuals",
            statement="ResNet-34 needs 18 % of the operations of VGG-19, which needs 19.6 G.",
            source=f"{RESNET}, sec. 3.3",
            numbers=(
                Number("VGG-19", right=19_632_062_464, taught="19.6 G"),
                Number("ResNet-34 / VGG-19, %", right=100 * work[1] / 19_632_062_464, taught="18 %"),
            ),
            compute=against_vgg,
            why="It has fewer channels at each size, and a stride in its first layer.",
        ),
        Fact(
            name="cifar_resnet_depth",
            chapter="depth",
            statement="A ResNet for CIFAR-10 with 2n layers at each of three sizes has 6n + 2 layers.",
            source=f"{RESNET}, sec. 4.2",
            numbers=[Number(f"n = {n}", right=6 * n + 2, taught=6 * n + 2) for n in (3, 5)],
            compute=cifar_depth,
            why="6n convolutions in blocks, one before them, and a fully connected layer. Shortcuts have no weights.",
        ),
        Fact(
            name="cifar_resnet_parameters",
            chapter="residuals",
            statement="ResNets for CIFAR-10 of 20 and 32 layers have 0.27 and 0.46 million parameters.",
            source=f"{RESNET}, Table 6",
            numbers=[
                Number(f"{depth} layers", right=right, taught=taught)
                for depth, right, taught in zip((20, 32), plain, ("0.27 M", "0.46 M"), strict=True)
            ],
            compute=cifar_parameters,
            why="With shortcuts that have no parameters (option A). Plain networks have exactly as many.",
        ),
        Fact(
            name="densenet_growth",
            chapter="residuals",
            statement="Concatenation makes a DenseNet's channels grow exponentially.",
            source=LECTURES,
            numbers=(
                Number("each layer adds equally many", right=True, taught=False),
                Number("channels that the layers see", right=tuple(64 + 32 * i for i in range(6))),
            ),
            compute=dense_channels,
            why="They grow linearly: each layer adds k = 32 (sec. 3). It would be exponential if a layer gave as many "
            "channels as it takes.",
        ),
        Fact(
            name="densenet_transitions",
            chapter="residuals",
            statement="DenseNet-121's transitions halve the channels, from 256, 512 and 1,024 to 128, 256 and 512.",
            source=f"{DENSENET}, sec. 3 and Table 1",
            numbers=(
                Number("channels after the transitions", right=(256 // 2, 512 // 2, 1024 // 2), taught=(128, 256, 512)),
                Number("channels without compression", right=(64 + 6 * 32, 256 + 12 * 32)),
            ),
            compute=transitions,
            why="A compression of 0.5. Without it, the next block would begin with all 640 channels.",
        ),
        Fact(
            name="fire_and_gate",
            chapter="inside",
            statement="SENet's squeeze-and-excitation block is the same as the fire module.",
            source=LECTURES,
            numbers=(
                Number("3x3 convolutions of a squeeze-and-excitation block", right=0, taught=1),
                Number("3x3 convolutions of a fire module", right=1),
                Number("fully connected layers of a squeeze-and-excitation block", right=2),
            ),
            compute=fire_and_gate,
            why="The fire module is SqueezeNet's: a 1x1 convolution, then 1x1 and 3x3 side by side. "
            "Squeeze-and-excitation multiplies channels by gates, from their means through two fully connected layers.",
        ),
        Fact(
            name="gate_cost",
            chapter="inside",
            statement="Squeeze-and-excitation adds 2.5 million parameters, 10 %, to ResNet-50, and less than 1 % "
            "of work.",
            source=f"{SENET}, sec. 4",
            numbers=(
                Number("parameters added", right=added, taught="2.5 M"),
                Number("parameters added, %", right=100 * ((25_557_032 + added) / 25_557_032 - 1), taught="10 %"),
                Number("work added, %", right="0.07 %", taught="0 %"),
            ),
            compute=gate_cost,
            why="Its fully connected layers work on one value per channel. More than half of the parameters are in the "
            "last three blocks, with 2,048 channels.",
        ),
        Fact(
            name="squeezenet_parameters",
            chapter="convolution",
            statement="SqueezeNet has a fiftieth of AlexNet's parameters, 2 %.",
            source=f"{SQUEEZENET}, abstract",
            numbers=(
                Number("SqueezeNet", right=1_248_424),
                Number("SqueezeNet / AlexNet, %", right="2.05 %", taught="2 %"),
            ),
            compute=squeezenet,
            why="1.2 against 61.0 million: a 49th. It has no fully connected layers.",
        ),
    )
