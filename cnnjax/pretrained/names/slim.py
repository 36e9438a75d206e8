"""TF-Slim's names, as in its published checkpoints (github.com/tensorflow/models, research/slim).

What was trained on ImageNet with 1001 classes has one of background before the others.
"""

import re
from collections.abc import Callable, Mapping

from cnnjax.pretrained.library import Arrays, Layer, Library, rules
from cnnjax.pretrained.names.tensorflow import tensorflow_layout

Pair = Callable[[list[Layer], Arrays], dict[str, str]]


def _inside(scope: Callable[[list[Layer]], str], pair: Pair) -> Pair:
    """The names that `pair` gives, inside of the network's scope."""
    return lambda ours, arrays: {path: f"{scope(ours)}/{name}" for path, name in pair(ours, arrays).items()}


def _count(ours: list[Layer], pattern: str) -> int:
    return sum(re.search(pattern, layer.path) is not None for layer in ours)


# --------------------------------------------------------------------------------- those that are named layer by layer

_UNIT = r"conv(\d)_(\d+)/"
_V1 = "block{-1}/unit_{}/bottleneck_v1/"
_V2 = "block{-1}/unit_{}/bottleneck_v2/"

RESNET = {
    "conv1": "conv1",
    "norm1": "conv1/BatchNorm",
    _UNIT + r"conv(\d)": _V1 + "conv{}",
    _UNIT + r"norm(\d)": _V1 + "conv{}/BatchNorm",
    _UNIT + "shortcut_conv": _V1 + "shortcut",
    _UNIT + "shortcut_norm": _V1 + "shortcut/BatchNorm",
    "head": "logits",
}

RESNET_V2 = {
    "conv1": "conv1",
    _UNIT + r"conv(\d)": _V2 + "conv{}",
    _UNIT + "norm1": _V2 + "preact",
    _UNIT + r"norm(\d)": _V2 + "conv{-1}/BatchNorm",
    _UNIT + "shortcut_conv": _V2 + "shortcut",
    "last_norm": "postnorm",
    "head": "logits",
}

ALEXNET = {r"(conv\d|fc\d)": "{}"}

VGG = {r"(?=(conv\d))(conv\d_\d)/conv": "{}/{}", r"(fc\d)": "{}"}

MOBILENET = {
    "conv0/conv": "Conv2d_0",
    "conv0/norm": "Conv2d_0/BatchNorm",
    r"dw(\d+)/conv": "Conv2d_{}_depthwise:depthwise_weights",
    r"dw(\d+)/norm": "Conv2d_{}_depthwise/BatchNorm",
    r"pw(\d+)/conv": "Conv2d_{}_pointwise",
    r"pw(\d+)/norm": "Conv2d_{}_pointwise/BatchNorm",
    "head": "Logits/Conv2d_1c_1x1",
}


def _resnet(version: int) -> Callable[[list[Layer]], str]:
    return lambda ours: f"resnet_v{version}_{_count(ours, '_[0-9]+/conv[0-9]$') + 2}"


def _vgg(ours: list[Layer]) -> str:
    depth = _count(ours, r"^conv\d_\d/conv$") + 3
    return "vgg_a" if depth == 11 else f"vgg_{depth}"


# -------------------------------------------------------------------------------------------------- Inception networks

_STEM = {
    "conv1_depthwise": "Conv2d_1a_7x7:depthwise_weights",
    "conv1_pointwise": "Conv2d_1a_7x7:pointwise_weights",
    "conv1/conv": "Conv2d_1a_7x7",
    "conv2_reduce/conv": "Conv2d_2b_1x1",
    "conv2/conv": "Conv2d_2c_3x3",
    "conv_(1a|2a|2b|4a)/conv": "Conv2d_{}_3x3",
    "conv_(3b|7b)/conv": "Conv2d_{}_1x1",
    "aux/conv1/conv": "AuxLogits/Conv2d_1b_1x1",
    "mixed_(.*)": "Mixed_{}",
}
_LATER = {
    f"inception_{stage}{a}/(.*)": f"Mixed_{stage}{b}/{{}}"
    for stage in "345"
    for a, b in zip("abcde", "bcdef", strict=True)
}
_AUX = "AuxLogits/Conv2d_2a_5x5"

# Our layers -> theirs, or their modules. They count a pool among the modules of its size: the papers' 3a is Mixed_3b.
INCEPTIONS = {
    "InceptionV1": {**_STEM, **_LATER, "head": "Logits/Conv2d_0c_1x1"},
    "InceptionV2": {
        **_STEM,
        **_LATER,
        "inception_3c/(.*)": "Mixed_4a/{}",
        "inception_4e/(.*)": "Mixed_5a/{}",
        "head": "Logits/Conv2d_1c_1x1",
    },
    "InceptionV3": {
        **_STEM,
        "head": "Logits/Conv2d_1c_1x1",
        "aux/conv2/conv": _AUX,
        "aux/head": "AuxLogits/Conv2d_2b_1x1",
    },
    "InceptionV4": {
        **_STEM,
        "head": "Logits/Logits",
        "aux/conv2/conv": "AuxLogits/Conv2d_2a",
        "aux/head": "AuxLogits/Aux_logits",
    },
    "InceptionResnetV2": {
        r"block8_10/project": "Block8/Conv2d_1x1",
        r"block8_10/(.*)": "Block8/{}",
        r"(block35_\d+)/project": "Repeat/{}/Conv2d_1x1",
        r"(block17_\d+)/project": "Repeat_1/{}/Conv2d_1x1",
        r"(block8_\d+)/project": "Repeat_2/{}/Conv2d_1x1",
        r"(block35_.*)": "Repeat/{}",
        r"(block17_.*)": "Repeat_1/{}",
        r"(block8_.*)": "Repeat_2/{}",
        **_STEM,
        "head": "Logits/Logits",
        "aux/conv2/conv": _AUX,
        "aux/head": "AuxLogits/Logits",
    },
}
# In these each branch ends in a convolution that is called 1a, whatever comes before.
HALVING = "InceptionV2/Mixed_[45]a|InceptionV4/Mixed_[4567]a|Inception(V3|ResnetV2)/Mixed_[67]a"

# Names that do not follow from a convolution's place in its branch and its size.
ODD = {
    "(InceptionV1/Mixed_5b/Branch_2/Conv2d)_0b_3x3": "{}_0a_3x3",
    "(InceptionV3/Mixed_5c/Branch_1/Conv)2d_0b_5x5": "{}_1_0c_5x5",
    "(InceptionV3/Mixed_5c/Branch_1/Conv2d)_0a_1x1": "{}_0b_1x1",
    "(InceptionV3/Mixed_6a/Branch_./Conv2d)_1a_3x3": "{}_1a_1x1",
    "(InceptionV3/Mixed_7b/Branch_1/Conv2d)_0c_3x1": "{}_0b_3x1",
    "(InceptionResnetV2/(?:Mixed_5b|.*lock.*)/Branch_0/Conv2d)_0a_1x1": "{}_1x1",
}


def _inception(net: Callable[[list[Layer]], str]) -> Pair:
    """In a module there are branches, and in each its convolutions, by letters in their order and by their sizes."""

    def pair(ours: list[Layer], arrays: Arrays) -> dict[str, str]:
        scope, branches = net(ours), {}
        names = rules(INCEPTIONS[scope])([layer for layer in ours if not layer.path.endswith("/norm")], arrays)
        sizes = {layer.path: next(iter(layer.arrays.values()))[:2] for layer in ours}
        for path, name in names.items():
            names[path] = f"{scope}/{name}"
            if found := re.fullmatch(r"(.*?)/(?:branches/)?branch(\d)_(\d).*", name):
                branch = f"{scope}/{found[1]}/Branch_{int(found[2]) - 1}"
                branches.setdefault(branch, []).append((path, int(found[3])))
        for branch, convs in branches.items():
            for i, (path, _) in enumerate(convs):
                last = re.match(HALVING, branch) and i == len(convs) - 1
                place = "1a" if last else f"0{'_abcdefg'[convs[0][1] + i]}"  # b where a pool is first
                height, width = sizes[path]
                names[path] = f"{branch}/Conv2d_{place}_{height}x{width}"
        for old, new in ODD.items():
            names = {path: re.sub(f"^{old}$", new.replace("{}", r"\1"), name) for path, name in names.items()}
        return names | {
            layer.path: f"{names[conv]}/BatchNorm"
            for layer in ours
            if layer.path.endswith("/norm") and (conv := layer.path.removesuffix("norm") + "conv") in names
        }

    return pair


FAMILIES: Mapping[str, Pair] = {
    "alexnet": _inside(lambda ours: "alexnet_v2", rules(ALEXNET)),
    "vgg": _inside(_vgg, rules(VGG)),
    "resnet": _inside(_resnet(1), rules(RESNET)),
    "resnet_v2": _inside(_resnet(2), rules(RESNET_V2)),
    "mobilenet": _inside(lambda ours: "MobilenetV1", rules(MOBILENET)),
    "googlenet": _inception(lambda ours: "InceptionV1"),
    "bn_inception": _inception(lambda ours: "InceptionV2"),
    "inception_v3": _inception(lambda ours: "InceptionV3"),
    "inception_v4": _inception(lambda ours: "InceptionResnetV2" if _count(ours, "^block8_") else "InceptionV4"),
}

LIBRARY = Library(
    FAMILIES,
    **tensorflow_layout(
        "weights",
        "biases",
        convs=r"/(logits|fc\d|Conv2d_\w+)$",
        depthwise=":depthwise",
        multipliers={"InceptionV2/Conv2d_1a_7x7:depthwise_weights": 8},
    ),
    no_weights=r"^global_step$|/mean_rgb$|/(ExponentialMovingAverage|Momentum|RMSProp|Adam)(_\d)?$",
    background=r"/(logits|fc8|(Aux)?Logits/(Logits|Aux_logits|Conv2d_(0c|1c|2b)_1x1))/\w+$",
    ones="/gamma$",
    aux="^Inception[^/]+/AuxLogits/",
)
