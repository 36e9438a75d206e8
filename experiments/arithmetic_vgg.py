"""VGG, counted: parameters, memory, where they are, and what its 1x1 convolutions and its recipe really are.

./launch.sh study experiments/arithmetic_vgg.py
"""

import functools

from cnnjax import load_config
from cnnjax.spec import parse_pipeline
from cnnjax.study.facts import Fact, Number, Numbers
from cnnjax.summarize import Summary, summary

network = functools.cache(summary)
LECTURES = "taught so in lectures"
VGG = "Simonyan, Zisserman: Very Deep Convolutional Networks. ICLR 2015"
FC6, FC7, FC8 = 4096 * (7 * 7 * 512 + 1), 4096 * 4097, 1000 * 4097
STAGES = ((2, 64, 224), (2, 128, 112), (3, 256, 56), (3, 512, 28), (3, 512, 14))  # convolutions, channels, side
MAPS = sum(convs * channels * side**2 + channels * (side // 2) ** 2 for convs, channels, side in STAGES)
ACTIVATIONS = 224 * 224 * 3 + MAPS + 4096 + 4096 + 1000
RELUS = sum(convs * channels * side**2 for convs, channels, side in STAGES) + 4096 + 4096


def total(counted: Summary, kind: str) -> int:
    """Counts the parameters of a network's layers of one kind."""
    return sum(row.params for row in counted.layers if row.kind == kind)


def parameters() -> Numbers:
    """Counts the parameters of configurations A to E."""
    return {f"configuration {letter}": network(f"vgg_{letter.lower()}").params for letter in "ABCDE"}


def largest_and_smallest() -> Numbers:
    """Counts the parameters of the smallest and the largest configuration, and of the one that is mostly used."""
    names = {"VGG-16": "vgg16", "smallest (A)": "vgg_a", "largest (E, VGG-19)": "vgg_e"}
    return {name: network(model).params for name, model in names.items()}


def fc7() -> Numbers:
    """Counts the weights of the second fully connected layer."""
    row = next(row for row in network("vgg16").layers if row.name == "fc7")
    return {"weights": row.params - row.biases}


def memory() -> Numbers:
    """Counts VGG-16's activations for an image, as numbers and as bytes of float32."""
    counted = network("vgg16")
    relus = sum(row.activations for row in counted.layers if "pool" not in row.kind and row.name != "fc8")
    return {
        "activations": counted.activations,
        "bytes": 4 * counted.activations,
        "activations, ReLUs counted apart": counted.activations + relus,
    }


def batch_memory() -> Numbers:
    """Counts the bytes of VGG-16's activations and their gradients for 32 images."""
    counted = network("vgg16", batch=32)
    return {"bytes": 2 * counted.activations * counted.scale}


def where() -> Numbers:
    """Finds VGG-16's parameters and activations in its layers."""
    counted = network("vgg16")
    convs = [row.activations for row in counted.layers if row.kind == "convolution"]
    fc6 = next(row.params for row in counted.layers if row.name == "fc6")
    return {
        "parameters in fully connected layers, %": 100 * total(counted, "fully connected") / counted.params,
        "parameters in the first of them, %": 100 * fc6 / counted.params,
        "most activations are in the first four layers": sum(convs[:4]) > counted.activations / 2,
        "their share of the activations, %": 100 * sum(convs[:4]) / counted.activations,
    }


def dense_testing() -> Numbers:
    """Counts the fully connected layers of VGG-16, and those of its form for dense testing."""
    trained, dense = network("vgg16"), network("vgg16(head='conv')")
    return {
        "fully connected layers as trained": sum(row.kind == "fully connected" for row in trained.layers),
        "parameters as trained": trained.params,
        "parameters as convolutions": dense.params,
        "1x1 convolutions of configuration C": sum(row.kernel == (1, 1) for row in network("vgg_c").layers),
    }


def first_fully_connected() -> Numbers:
    """Counts the weights of VGG-16's fc6, of the convolution that equals it, and of a 1x1 convolution."""
    (fc6,) = (row for row in network("vgg16").layers if row.name == "fc6")
    (equal,) = (row for row in network("vgg16(head='conv')").layers if row.name == "fc6")
    small = network("sequential('conv(4096, 1)|gap|dense')", (7, 7, 512)).layers[0]
    return {
        "weights of the fully connected layer": fc6.params - fc6.biases,
        "weights of the equal 7x7 convolution": equal.params - equal.biases,
        "weights of a 1x1 convolution": small.params - small.biases,
        "1x1 / fully connected, %": 100 * (small.params - small.biases) / (fc6.params - fc6.biases),
    }


def larger_image() -> Numbers:
    """Applies VGG-16 as a convolution to an image of 384x384."""
    last = network("vgg16(head='conv')", (384, 384, 3)).layers[-1]
    return {"predictions": last.output[0] * last.output[1], "parameters": network("vgg16(head='conv')").params}


def response_norm() -> Numbers:
    """Compares configuration A with and without local response normalization."""
    plain, normalized = network("vgg_a"), network("vgg_a_lrn")
    return {
        "it takes more memory": normalized.activations > plain.activations,
        "more activations, %": 100 * (normalized.activations / plain.activations - 1),
        "more parameters": normalized.params - plain.params,
    }


def scales() -> Numbers:
    """Reads the shorter sides of training images from the recipe card."""
    resize = parse_pipeline(load_config("imagenet_vgg").augment)[0]
    return {"shorter sides in training": tuple(map(int, resize.args))}


def get_facts() -> tuple[Fact, ...]:
    """Returns the facts about VGG."""
    convs = sum(
        (9 * inputs + 1) * outputs
        for inputs, outputs in zip(
            (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512),
            (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512),
            strict=True,
        )
    )
    d = convs + FC6 + FC7 + FC8
    a = d - (9 * 64 + 1) * 64 - (9 * 128 + 1) * 128 - (9 * 256 + 1) * 256 - 2 * (9 * 512 + 1) * 512
    b = a + (9 * 64 + 1) * 64 + (9 * 128 + 1) * 128
    c = b + (256 + 1) * 256 + 2 * (512 + 1) * 512
    e = d + (9 * 256 + 1) * 256 + 2 * (9 * 512 + 1) * 512
    return (
        Fact(
            name="vgg_parameters",
            chapter="convolution",
            statement="VGG's configurations A to E have 133, 133, 134, 138 and 144 million parameters.",
            source=f"{VGG}, Table 2",
            numbers=[
                Number(f"configuration {letter}", right=right, taught=taught)
                for letter, right, taught in zip(
                    "ABCDE", (a, b, c, d, e), ("133 M", "133 M", "134 M", "138 M", "144 M"), strict=True
                )
            ],
            compute=parameters,
            why="Depth adds little: 9 C^2 for each layer, where the fully connected layers have 123.6 million.",
        ),
        Fact(
            name="vgg_110_million",
            chapter="convolution",
            statement="VGG has 110 million parameters.",
            source=LECTURES,
            numbers=(
                Number("VGG-16", right=d, taught="110 M"),
                Number("smallest (A)", right=a),
                Number("largest (E, VGG-19)", right=e),
            ),
            compute=largest_and_smallest,
            why="138 million for VGG-16, 144 million for VGG-19. Even the smallest has 133 million.",
        ),
        Fact(
            name="vgg_fc7",
            chapter="convolution",
            statement="VGG's second fully connected layer, 4096 by 4096, has 1.6 million weights.",
            source=LECTURES,
            numbers=[Number("weights", right=4096 * 4096, taught="1.6 M")],
            compute=fc7,
            why="16.8 million: a digit was lost on the way.",
        ),
        Fact(
            name="vgg_memory",
            chapter="convolution",
            statement="VGG-16 keeps 24 million activations for an image: 93 MB.",
            source=LECTURES,
            numbers=(
                Number("activations", right=ACTIVATIONS, taught="24 M"),
                Number("bytes", right=4 * ACTIVATIONS, taught="93 MB"),
                Number("activations, ReLUs counted apart", right=ACTIVATIONS + RELUS),
            ),
            compute=memory,
            why="The rows of the usual table add up to 15.2 million, 61 MB. With a copy for each ReLU it would be 28.8 "
            "million: no way of counting gives 24.",
        ),
        Fact(
            name="vgg_batch_memory",
            chapter="convolution",
            statement="Activations and gradients of 32 images take 6 GB in VGG-16.",
            source=LECTURES,
            numbers=[Number("bytes", right=32 * 2 * 4 * ACTIVATIONS, taught="6 GB")],
            compute=batch_memory,
            why="3.9 GB: the 6 GB are 32 times twice the 93 MB that are wrong.",
        ),
        Fact(
            name="vgg_where",
            chapter="convolution",
            statement="89 % of VGG-16's parameters are in fully connected layers, and most of its memory is in the "
            "first convolutions.",
            source=LECTURES,
            numbers=(
                Number("parameters in fully connected layers, %", right=100 * (FC6 + FC7 + FC8) / d, taught="89 %"),
                Number("parameters in the first of them, %", right=100 * FC6 / d),
                Number("most activations are in the first four layers", right=True, taught=True),
                Number("their share of the activations, %", right="63.2 %"),
            ),
            compute=where,
            why="fc6 alone has three quarters of the parameters. Feature maps shrink by four at each pool, while "
            "channels only double.",
        ),
        Fact(
            name="vgg_one_by_one",
            chapter="convolution",
            statement="VGG has 1x1 convolutions in place of fully connected layers.",
            source=LECTURES,
            numbers=(
                Number("fully connected layers as trained", right=3, taught=0),
                Number("parameters as trained", right=d),
                Number("parameters as convolutions", right=d),
                Number("1x1 convolutions of configuration C", right=3),
            ),
            compute=dense_testing,
            why="It is trained with three fully connected layers. For tests on whole images (sec. 3.2) the same "
            "weights serve as a 7x7 and two 1x1 convolutions. Only configuration C has 1x1 convolutions of its own.",
        ),
        Fact(
            name="fc_as_one_by_one",
            chapter="convolution",
            statement="A 1x1 convolution replaces a fully connected layer of 25,000 inputs and 4,096 outputs, 102.4 "
            "million weights, by 4,096 weights.",
            source=LECTURES,
            numbers=(
                Number("weights of the fully connected layer", right=7 * 7 * 512 * 4096, taught="102 M"),
                Number("weights of the equal 7x7 convolution", right=7 * 7 * 512 * 4096),
                Number("weights of a 1x1 convolution", right=512 * 4096, taught=4096),
                Number("1x1 / fully connected, %", right=100 / 49),
            ),
            compute=first_fully_connected,
            why="The convolution that equals it is 7x7 and has as many weights. A 1x1 convolution to 4,096 channels "
            "has 2.1 million, 2 %, because it does not see the 7x7 positions together.",
        ),
        Fact(
            name="vgg_on_384",
            chapter="convolution",
            statement="As a convolution, VGG-16 gives 36 predictions on an image of 384x384, with the same weights.",
            source=LECTURES,
            numbers=(
                Number("predictions", right=(384 // 32 - 7 + 1) ** 2, taught=36),
                Number("parameters", right=d),
            ),
            compute=larger_image,
            why="Five pools leave 12x12 positions, on which the 7x7 window of fc6 has 6x6 places. They share all "
            "convolutions below.",
        ),
        Fact(
            name="response_norm_memory",
            chapter="normalization",
            statement="Local response normalization takes more memory and time.",
            source=f"{VGG}, sec. 2.1",
            numbers=(
                Number("it takes more memory", right=True, taught=True),
                Number("more activations, %", right="35.2 %"),
                Number("more parameters", right=0),
            ),
            compute=response_norm,
            why="One such layer makes configuration A keep a third more activations: it is at the largest feature "
            "maps. It has no parameters.",
        ),
        Fact(
            name="vgg_scales",
            chapter="augmentation",
            statement="VGG's training images have shorter sides of 256 to 384 pixels.",
            source=LECTURES,
            numbers=[Number("shorter sides in training", right=(256, 512), taught=(256, 384))],
            compute=scales,
            why="256 to 512 pixels (sec. 3.1). 384 is the one size of another of the paper's networks.",
        ),
    )
