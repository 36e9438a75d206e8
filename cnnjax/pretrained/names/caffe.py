"""Names of the networks that their authors published for Caffe; arrays are '<layer>/<blob number>'.

Images are BGR there, but for the CIFAR data sets. A BatchNorm and a Scale layer there are one BatchNorm here: our layer
is mapped to the BatchNorm's name, and `_blob_name` derives the Scale's.
"""

import re
from collections.abc import Sequence

from cnnjax.pretrained.library import Arrays, Layer, Library, names_by_pattern, torch_layout

ALEXNET = {r"(conv\d|fc\d)": "{}"}

VGG = {r"(conv\d_\d)/conv": "{}", r"(fc\d)": "{}"}

GOOGLENET = {
    "conv1/conv": "conv1/7x7_s2",
    "conv2_reduce/conv": "conv2/3x3_reduce",
    "conv2/conv": "conv2/3x3",
    r"(inception_\w+)/branch1_1/conv": "{}/1x1",
    r"(inception_\w+)/branch2_1/conv": "{}/3x3_reduce",
    r"(inception_\w+)/branch2_2/conv": "{}/3x3",
    r"(inception_\w+)/branch3_1/conv": "{}/5x5_reduce",
    r"(inception_\w+)/branch3_2/conv": "{}/5x5",
    r"(inception_\w+)/branch4_2/conv": "{}/pool_proj",
    "aux_4a/(conv|fc)(?:/conv)?": "loss1/{}",
    "aux_4d/(conv|fc)(?:/conv)?": "loss2/{}",
    "aux_4a/head": "loss1/classifier",
    "aux_4d/head": "loss2/classifier",
    "head": "loss3/classifier",
}

NIN = {
    "(conv4|cccp7)/conv": "{}-1024",
    "(cccp8)": "{}-1024",
    r"(conv\d|cccp\d)/conv": "{}",
    "(cccp6)": "{}",
}

SQUEEZENET = {
    "conv1/conv": "conv1",
    r"(fire\d)/squeeze/conv": "{}/squeeze1x1",
    r"(fire\d/expand\dx\d)/conv": "{}",
    "conv10": "conv10",
}

# Squeeze-and-excitation networks (github.com/hujie-frank/SENet).
_UNIT = r"(conv\d_\d+)/"
SE_RESNET = {
    "conv1": "conv1/7x7_s2",
    "norm1": "conv1/7x7_s2/bn",
    _UNIT + "conv1": "{}_1x1_reduce",
    _UNIT + "conv2": "{}_3x3",
    _UNIT + "conv3": "{}_1x1_increase",
    _UNIT + "shortcut_conv": "{}_1x1_proj",
    _UNIT + "norm1": "{}_1x1_reduce/bn",
    _UNIT + "norm2": "{}_3x3/bn",
    _UNIT + "norm3": "{}_1x1_increase/bn",
    _UNIT + "shortcut_norm": "{}_1x1_proj/bn",
    _UNIT + "se/squeeze": "{}_1x1_down",
    _UNIT + "se/excite": "{}_1x1_up",
    "head": "classifier",
}


def _resnet(layers: Sequence[Layer], arrays: Arrays) -> dict[str, str]:
    """Returns Caffe's layer names, by our path, of a ResNet, such as 'res4b_branch2a'. `arrays` is not used.

    From ResNet-101 on, stages 3 and 4 number their blocks: 'res4b1_branch2a'. SE-ResNets have names of their own.
    """
    if any("/se/" in layer.path for layer in layers):
        return names_by_pattern(SE_RESNET)(layers, arrays)
    matches = [re.match(r"conv(\d)_(\d+)/", layer.path) for layer in layers]
    stage_sizes = {match[1]: int(match[2]) for match in matches if match}
    names = names_by_pattern({"conv1": "conv1", "norm1": "bn_conv1", "head": "fc1000"})(layers, arrays)
    for layer, match in zip(layers, matches, strict=True):
        if not match:
            continue
        stage, number = match[1], int(match[2])
        deep = sum(stage_sizes.values()) > 16 and stage in "34"
        block = f"b{number - 1}" if deep and number > 1 else chr(ord("a") + number - 1)
        prefix = "res" if "conv" in layer.path.rpartition("/")[2] else "bn"
        branch = "1" if "shortcut" in layer.path else f"2{'abc'[int(layer.path[-1]) - 1]}"
        names[layer.path] = f"{prefix}{stage}{block}_branch{branch}"
    return names


def _blob_name(layer: Layer, name: str, leaf: str) -> str:
    """Returns '<layer>/<blob number>' of our array `leaf`, such as 'kernel', of the layer that Caffe calls `name`.

    The scale and bias of a BatchNorm are in a layer of their own, of the type Scale.
    """
    if not any(path.startswith("batch_stats/") for path in layer.arrays):
        return f"{name}/{('kernel', 'bias').index(leaf)}"
    if leaf in ("mean", "var"):
        return f"{name}/{('mean', 'var').index(leaf)}"
    scale = f"{name}/scale" if name.endswith("/bn") else re.sub("^bn", "scale", name)
    return f"{scale}/{('scale', 'bias').index(leaf)}"


_TORCH = torch_layout(fc_as_conv="_(down|up)$")  # Caffe has the same kernel layout

LIBRARY = Library(
    {
        "alexnet": names_by_pattern(ALEXNET),
        "vgg": names_by_pattern(VGG),
        "googlenet": names_by_pattern(GOOGLENET),
        "nin": names_by_pattern(NIN),
        "resnet": _resnet,
        "squeezenet": names_by_pattern(SQUEEZENET),
    },
    array_name=_blob_name,
    export_layout=_TORCH["export_layout"],
    import_layout=_TORCH["import_layout"],
    auxiliary="^loss[12]/",
    takes_bgr=lambda family, layers: (
        not (family == "nin" and len(layers) == 9)
    ),  # the nine-layer NIN is CIFAR's, which takes RGB
    folded_biases={"conv1/1": "bn_conv1/0"},  # ResNet-50 alone has a bias there
)
