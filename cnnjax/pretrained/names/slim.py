"""Names of TF-Slim's published checkpoints (github.com/tensorflow/models, research/slim).

Networks with 1001 classes have a background class before ImageNet's 1000.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from cnnjax.pretrained.library import Arrays, Layer, Library, NameMapping, names_by_pattern
from cnnjax.pretrained.names.tensorflow import tensorflow_layout


def _with_scope(scope: Callable[[Sequence[Layer]], str], mapping: NameMapping) -> NameMapping:
    """Returns a function as `mapping`, but with a variable scope such as 'resnet_v1_50/' in front of each layer name.

    `scope` computes the scope from our layers.
    """
    return lambda layers, arrays: {path: f"{scope(layers)}/{name}" for path, name in mapping(layers, arrays).items()}


def _count(layers: Sequence[Layer], pattern: str) -> int:
    """Returns the number of layers in whose path the regular expression is found."""
    return sum(re.search(pattern, layer.path) is not None for layer in layers)


# --------------------------------------------------------------------------------- networks named layer by layer

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


def _resnet(version: int) -> Callable[[Sequence[Layer]], str]:
    """Returns a function from our layers to the scope of a ResNet of version 1 or 2, such as 'resnet_v2_101'."""
    return lambda layers: f"resnet_v{version}_{_count(layers, '_[0-9]+/conv[0-9]$') + 2}"


def _vgg(layers: Sequence[Layer]) -> str:
    """Returns the scope of a VGG: 'vgg_a', 'vgg_16' or 'vgg_19'."""
    depth = _count(layers, r"^conv\d_\d/conv$") + 3
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

# Our layers -> their layers or modules. Slim counts a pool as a stage's first module: the papers' 3a is Mixed_3b.
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
# In these reduction modules the last convolution of each branch is called 1a.
REDUCTION_MODULES = "InceptionV2/Mixed_[45]a|InceptionV4/Mixed_[4567]a|Inception(V3|ResnetV2)/Mixed_[67]a"

# Names that do not follow from a convolution's position in its branch and its kernel size.
EXCEPTIONS = {
    "(InceptionV1/Mixed_5b/Branch_2/Conv2d)_0b_3x3": "{}_0a_3x3",
    "(InceptionV3/Mixed_5c/Branch_1/Conv)2d_0b_5x5": "{}_1_0c_5x5",
    "(InceptionV3/Mixed_5c/Branch_1/Conv2d)_0a_1x1": "{}_0b_1x1",
    "(InceptionV3/Mixed_6a/Branch_./Conv2d)_1a_3x3": "{}_1a_1x1",
    "(InceptionV3/Mixed_7b/Branch_1/Conv2d)_0c_3x1": "{}_0b_3x1",
    "(InceptionResnetV2/(?:Mixed_5b|.*lock.*)/Branch_0/Conv2d)_0a_1x1": "{}_1x1",
}


def _inception(scope_of: Callable[[Sequence[Layer]], str]) -> NameMapping:
    """Returns a function from the layers of an Inception network to Slim's layer names, for `Library.families`.

    `scope_of` computes the variable scope, such as 'InceptionV3', from our layers. Slim names a convolution in a branch
    by its position, a letter, and its kernel size, as in Conv2d_0b_3x3.
    """

    def mapping(layers: Sequence[Layer], arrays: Arrays) -> dict[str, str]:
        """Returns Slim's layer names by our path. `arrays` is not used."""
        scope, branches = scope_of(layers), {}
        names = names_by_pattern(INCEPTIONS[scope])(
            [layer for layer in layers if not layer.path.endswith("/norm")], arrays
        )
        sizes = {layer.path: next(iter(layer.arrays.values()))[:2] for layer in layers}
        for path, name in names.items():
            names[path] = f"{scope}/{name}"
            if match := re.fullmatch(r"(.*?)/(?:branches/)?branch(\d)_(\d).*", name):
                branch = f"{scope}/{match[1]}/Branch_{int(match[2]) - 1}"
                branches.setdefault(branch, []).append((path, int(match[3])))
        for branch, convs in branches.items():
            for i, (path, _) in enumerate(convs):
                last = re.match(REDUCTION_MODULES, branch) and i == len(convs) - 1
                place = "1a" if last else f"0{'_abcdefg'[convs[0][1] + i]}"  # starts at b after a pool
                height, width = sizes[path]
                names[path] = f"{branch}/Conv2d_{place}_{height}x{width}"
        for old, new in EXCEPTIONS.items():
            names = {path: re.sub(f"^{old}$", new.replace("{}", r"\1"), name) for path, name in names.items()}
        return names | {
            layer.path: f"{names[conv]}/BatchNorm"
            for layer in layers
            if layer.path.endswith("/norm") and (conv := layer.path.removesuffix("norm") + "conv") in names
        }

    return mapping


FAMILIES: Mapping[str, NameMapping] = {
    "alexnet": _with_scope(lambda layers: "alexnet_v2", names_by_pattern(ALEXNET)),
    "vgg": _with_scope(_vgg, names_by_pattern(VGG)),
    "resnet": _with_scope(_resnet(1), names_by_pattern(RESNET)),
    "resnet_v2": _with_scope(_resnet(2), names_by_pattern(RESNET_V2)),
    "mobilenet": _with_scope(lambda layers: "MobilenetV1", names_by_pattern(MOBILENET)),
    "googlenet": _inception(lambda layers: "InceptionV1"),
    "bn_inception": _inception(lambda layers: "InceptionV2"),
    "inception_v3": _inception(lambda layers: "InceptionV3"),
    "inception_v4": _inception(lambda layers: "InceptionResnetV2" if _count(layers, "^block8_") else "InceptionV4"),
}

LIBRARY = Library(
    FAMILIES,
    **tensorflow_layout(
        "weights",
        "biases",
        fc_as_conv=r"/(logits|fc\d|Conv2d_\w+)$",
        depthwise=":depthwise",
        multipliers={"InceptionV2/Conv2d_1a_7x7:depthwise_weights": 8},
    ),
    ignored=r"^global_step$|/mean_rgb$|/(ExponentialMovingAverage|Momentum|RMSProp|Adam)(_\d)?$",
    background=r"/(logits|fc8|(Aux)?Logits/(Logits|Aux_logits|Conv2d_(0c|1c|2b)_1x1))/\w+$",
    default_ones="/gamma$",
    auxiliary="^Inception[^/]+/AuxLogits/",
)
