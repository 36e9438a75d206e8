"""AlexNet, counted: its sizes, its parameters by layer, its crops, and what is often said of them.

./launch.sh study experiments/arithmetic_alexnet.py
"""

import jax
import numpy as np

from cnnjax import load_config
from cnnjax.augment import OPS
from cnnjax.data.views import corners_and_center, crops_of_squares
from cnnjax.models.layers import output_size
from cnnjax.spec import parse_pipeline
from cnnjax.study.facts import Fact, Number, Numbers
from cnnjax.summarize import Summary, summary

LECTURES = "taught so in lectures"
ALEXNET = "Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks. NIPS 2012"
GOOGLENET = "Szegedy et al.: Going Deeper with Convolutions. CVPR 2015"
WEIRD = "Krizhevsky: One Weird Trick for Parallelizing Convolutional Neural Networks. arXiv:1404.5997, 2014"


def total(network: Summary, kind: str, what: str = "params") -> int:
    """Adds up an attribute of a network's layers of one kind."""
    return sum(getattr(row, what) for row in network.layers if row.kind == kind)


def split() -> Numbers:
    """Divides AlexNet's parameters into those of convolutions and those of fully connected layers."""
    grouped, whole = summary("alexnet"), summary("alexnet_ungrouped")
    convs, dense = total(grouped, "convolution"), total(grouped, "fully connected")
    return {
        "in convolutions": convs,
        "in fully connected layers": dense,
        "ratio": dense / convs,
        "in convolutions, without groups": total(whole, "convolution"),
        "ratio, without groups": dense / total(whole, "convolution"),
    }


def parameters() -> Numbers:
    """Counts AlexNet's parameters with and without its groups."""
    return {"parameters": summary("alexnet").params, "without groups": summary("alexnet_ungrouped").params}


def shapes() -> Numbers:
    """Reads the sizes of AlexNet's feature maps."""
    convs = [row for row in summary("alexnet").layers if row.kind == "convolution"]
    pools = [row for row in summary("alexnet").layers if row.kind == "max pool"]
    return {
        "sides of the convolutions": tuple(row.output[0] for row in convs),
        "channels": tuple(row.output[2] for row in convs),
        "sides of the pools": tuple(row.output[0] for row in pools),
        "parameters of the pools": sum(row.params for row in pools),
    }


def first_layers() -> Numbers:
    """Counts the parameters of AlexNet's conv1 and conv2, with and without groups."""
    grouped, whole = (summary(name).layers for name in ("alexnet", "alexnet_ungrouped"))
    conv1, conv2, conv2_whole = (
        next(row.params for row in rows if row.name == name)
        for rows, name in ((grouped, "conv1"), (grouped, "conv2"), (whole, "conv2"))
    )
    return {"conv1": conv1, "conv2, 5x5x48 in two groups": conv2, "conv2, 5x5x96": conv2_whole}


def sides_of_conv1() -> Numbers:
    """Counts the places of conv1's 11x11 window with stride 4 along images of 224 and 227 pixels."""
    as_programmed = summary("alexnet_2012", (224, 224, 3)).layers[0]
    return {
        "224 gives 55 places in the authors' program": as_programmed.output[0] == 55,
        "places along 224, rounded up": output_size(224, 11, 4, (0, 0), ceil=True),
        "places along 224, rounded down": output_size(224, 11, 4, (0, 0)),
        "places along 227": output_size(227, 11, 4, (0, 0)),
        "places along 224 with padding 2": output_size(224, 11, 4, (2, 2)),
    }


def crops() -> Numbers:
    """Counts the crops of 224x224 out of 256x256, and their mirror images."""
    places = output_size(256, 224, 1, (0, 0))
    return {"images from one": 2 * places**2, "places along a side": places}


def color_noise() -> Numbers:
    """Reads from the recipe card to which images the PCA color noise is added."""
    config = load_config("imagenet_alexnet")
    names = [{call.name for call in parse_pipeline(text)} for text in (config.augment, config.preprocess)]
    return {"on training images": "pca_color" in names[0], "on test images": "pca_color" in names[1]}


def mirror() -> Numbers:
    """Mirrors an image as the recipe card does."""
    (name,) = (call.name for call in parse_pipeline(load_config("imagenet_alexnet").augment) if "flip" in call.name)
    image = np.arange(4.0).reshape(2, 2, 1)
    mirrored = np.asarray(OPS[name](jax.random.key(0), image, probability=1.0))
    return {
        "top and bottom change places": np.array_equal(mirrored, image[::-1]),
        "left and right change places": np.array_equal(mirrored, image[:, ::-1]),
    }


def views() -> Numbers:
    """Counts the views that the test protocols cut out of an image, with their mirror images."""
    image = np.zeros((30, 40, 3), np.uint8)
    return {"AlexNet": 2 * len(corners_and_center(image, 28)), "GoogLeNet": 2 * len(crops_of_squares(image, 28))}


def work() -> Numbers:
    """Divides work and parameters of the AlexNet of 2014 between the two kinds of layers."""
    network = summary("alexnet_owt")
    share = 100 * total(network, "convolution", "macs") / network.macs
    return {
        "convolutions do 90 to 95 % of the work": 90 <= share <= 95,
        "their share of the work, %": share,
        "their share of the parameters, %": 100 * total(network, "convolution") / network.params,
    }


def get_facts() -> tuple[Fact, ...]:
    """Returns the facts about AlexNet."""
    dense = (4096 * (6 * 6 * 256 + 1), 4096 * 4097, 1000 * 4097)
    return (
        Fact(
            name="alexnet_shapes",
            chapter="convolution",
            statement="AlexNet's feature maps have sides of 55, 27, 13, 13 and 13, and of 27, 13 and 6 after "
            "its pools.",
            source=f"{ALEXNET}, Fig. 2",
            numbers=(
                Number("sides of the convolutions", right=(55, 27, 13, 13, 13), taught=(55, 27, 13, 13, 13)),
                Number("channels", right=(96, 256, 384, 384, 256), taught=(96, 256, 384, 384, 256)),
                Number("sides of the pools", right=(27, 13, 6), taught=(27, 13, 6)),
                Number("parameters of the pools", right=0, taught=0),
            ),
            compute=shapes,
            why="All three pools are 3x3 with stride 2, so their windows overlap.",
        ),
        Fact(
            name="alexnet_input",
            chapter="convolution",
            statement="AlexNet's 224x224 images are a mistake of the paper: only 227x227 gives maps of 55x55.",
            source=LECTURES,
            numbers=(
                Number("224 gives 55 places in the authors' program", right=True, taught=False),
                Number("places along 224, rounded up", right=-(-(224 - 11) // 4) + 1),
                Number("places along 224, rounded down", right=(224 - 11) // 4 + 1),
                Number("places along 227", right=(227 - 11) // 4 + 1),
                Number("places along 224 with padding 2", right=(224 + 4 - 11) // 4 + 1),
            ),
            compute=sides_of_conv1,
            why="The authors' program of 2012 rounds the number of windows up, 54.25 to 55, and the last ones reach "
            "over the border. Programs that round down need 227 pixels, or a padding of 2.",
        ),
        Fact(
            name="alexnet_parameters",
            chapter="convolution",
            statement="AlexNet has 60 million parameters.",
            source=f"{ALEXNET}, abstract",
            numbers=(
                Number("parameters", right=2_334_080 + sum(dense), taught="60 M"),
                Number("without groups", right=3_747_200 + sum(dense)),
            ),
            compute=parameters,
            why="60,965,224 with the two groups of conv2, conv4 and conv5, one for each GPU.",
        ),
        Fact(
            name="alexnet_without_groups",
            chapter="convolution",
            statement="AlexNet has 62.4 million parameters.",
            source=LECTURES,
            numbers=(
                Number("parameters", right=2_334_080 + sum(dense), taught="62.4 M"),
                Number("without groups", right=3_747_200 + sum(dense)),
            ),
            compute=parameters,
            why="That is the network without groups, in which every kernel sees all channels. The published one has "
            "60,965,224.",
        ),
        Fact(
            name="alexnet_split",
            chapter="convolution",
            statement="AlexNet's convolutions have 2 million parameters, and its fully connected layers 65 million: 30 "
            "times as many.",
            source=LECTURES,
            numbers=(
                Number("in convolutions", right=34_944 + 307_456 + 885_120 + 663_936 + 442_624, taught="2 M"),
                Number("in fully connected layers", right=sum(dense), taught="65 M"),
                Number("ratio", right="25.1 times", taught="30 times"),
                Number("in convolutions, without groups", right=34_944 + 614_656 + 885_120 + 1_327_488 + 884_992),
                Number("ratio, without groups", right="15.6 times"),
            ),
            compute=split,
            why="58.6 million in three fully connected layers, 25 times the 2.3 million of the convolutions. 65 "
            "million would be more than the whole network has.",
        ),
        Fact(
            name="alexnet_work",
            chapter="convolution",
            statement="AlexNet's convolutions do 90 to 95 % of the work with 5 % of the parameters.",
            source=WEIRD,
            numbers=(
                Number("convolutions do 90 to 95 % of the work", right=True, taught=True),
                Number("their share of the work, %", right="91.8 %"),
                Number("their share of the parameters, %", right="4.04 %", taught="5 %"),
            ),
            compute=work,
            why="A weight of a convolution is used at every position, one of a fully connected layer once.",
        ),
        Fact(
            name="alexnet_conv1",
            chapter="convolution",
            statement="AlexNet's first layer has 34,944 parameters.",
            source=LECTURES,
            numbers=(
                Number("conv1", right=96 * (11 * 11 * 3 + 1), taught=34_944),
                Number("conv2, 5x5x48 in two groups", right=256 * (5 * 5 * 48 + 1)),
                Number("conv2, 5x5x96", right=256 * (5 * 5 * 96 + 1)),
            ),
            compute=first_layers,
            why="96 kernels of 11 * 11 * 3 weights and a bias.",
        ),
        Fact(
            name="alexnet_conv2",
            chapter="convolution",
            statement="AlexNet's second layer, 256 kernels of 5x5x48, has 614,656 parameters.",
            source=LECTURES,
            numbers=(
                Number("conv1", right=96 * (11 * 11 * 3 + 1)),
                Number("conv2, 5x5x48 in two groups", right=256 * (5 * 5 * 48 + 1), taught=614_656),
                Number("conv2, 5x5x96", right=256 * (5 * 5 * 96 + 1)),
            ),
            compute=first_layers,
            why="Kernels of 5x5x48 have half as many: 307,456. The number taught is that of kernels which see all 96 "
            "channels.",
        ),
        Fact(
            name="alexnet_crops",
            chapter="augmentation",
            statement="Crops of 224x224 out of 256x256, with their mirror images, turn one image into 2,048.",
            source=f"{ALEXNET}, sec. 4.1",
            numbers=(
                Number("images from one", right=2 * 33 * 33, taught=2_048),
                Number("places along a side", right=256 - 224 + 1),
            ),
            compute=crops,
            why="A crop has 33 places along a side, not 32: from 0 to 32 pixels. The authors' program draws all 33.",
        ),
        Fact(
            name="alexnet_mirror",
            chapter="augmentation",
            statement="AlexNet's training images are mirrored vertically: top and bottom change places.",
            source=LECTURES,
            numbers=(
                Number("top and bottom change places", right=False, taught=True),
                Number("left and right change places", right=True),
            ),
            compute=mirror,
            why="Horizontally (sec. 4.1): left and right change places. Few photographs are upside down.",
        ),
        Fact(
            name="alexnet_color_noise",
            chapter="augmentation",
            statement="AlexNet adds PCA color noise to its test images.",
            source=LECTURES,
            numbers=(
                Number("on training images", right=True),
                Number("on test images", right=False, taught=True),
            ),
            compute=color_noise,
            why="It adds noise to training images only (sec. 4.1). Tests average five crops and their mirror images.",
        ),
        Fact(
            name="views_of_tests",
            chapter="evaluation",
            statement="AlexNet's test sees 10 views of each image, and GoogLeNet's 144.",
            source=f"{ALEXNET}, sec. 4.1; {GOOGLENET}, sec. 7",
            numbers=(
                Number("AlexNet", right=(4 + 1) * 2, taught=10),
                Number("GoogLeNet", right=4 * 3 * 6 * 2, taught=144),
            ),
            compute=views,
            why="Four corners and the center, mirrored; and 4 scales, 3 squares of each, 6 views of each square, "
            "mirrored.",
        ),
    )
