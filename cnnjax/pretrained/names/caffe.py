"""Names of the networks that their authors published for Caffe: arrays are blobs, by number.

Images come with blue first, as OpenCV reads them; those of the CIFAR data sets do not. What is a BatchNorm and a Scale
layer there is one normalisation of ours: its name here is both of theirs.
"""

import re

from cnnjax.pretrained.library import Arrays, Layer, Library, rules, torch_layout

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

# Of squeeze-and-excitation networks (github.com/hujie-frank/SENet).
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


def _resnet(ours: list[Layer], arrays: Arrays) -> dict[str, str]:
    """He's names: res4b_branch2a, or in the stages of the deeper ones that have many blocks res4b1_branch2a."""
    if any("/se/" in layer.path for layer in ours):
        return rules(SE_RESNET)(ours, arrays)
    blocks = [re.match(r"conv(\d)_(\d+)/", layer.path) for layer in ours]
    sizes = {found[1]: int(found[2]) for found in blocks if found}
    names = rules({"conv1": "conv1", "norm1": "bn_conv1", "head": "fc1000"})(ours, arrays)
    for layer, found in zip(ours, blocks, strict=True):
        if not found:
            continue
        stage, number = found[1], int(found[2])
        deep = sum(sizes.values()) > 16 and stage in "34"
        block = f"b{number - 1}" if deep and number > 1 else chr(ord("a") + number - 1)
        kind = "res" if "conv" in layer.path.rpartition("/")[2] else "bn"
        branch = "1" if "shortcut" in layer.path else f"2{'abc'[int(layer.path[-1]) - 1]}"
        names[layer.path] = f"{kind}{stage}{block}_branch{branch}"
    return names


def _blob(layer: Layer, name: str, leaf: str) -> str:
    if not any(path.startswith("batch_stats/") for path in layer.arrays):
        return f"{name}/{('kernel', 'bias').index(leaf)}"
    if leaf in ("mean", "var"):
        return f"{name}/{('mean', 'var').index(leaf)}"
    scale = f"{name}/scale" if name.endswith("/bn") else re.sub("^bn", "scale", name)
    return f"{scale}/{('scale', 'bias').index(leaf)}"


_TORCH = torch_layout(convs="_(down|up)$")  # kernels are laid out alike

LIBRARY = Library(
    {
        "alexnet": rules(ALEXNET),
        "vgg": rules(VGG),
        "googlenet": rules(GOOGLENET),
        "nin": rules(NIN),
        "resnet": _resnet,
        "squeezenet": rules(SQUEEZENET),
    },
    array=_blob,
    to_theirs=_TORCH["to_theirs"],
    to_ours=_TORCH["to_ours"],
    aux="^loss[12]/",
    blue_first=lambda family, ours: not (family == "nin" and len(ours) == 9),  # CIFAR's network in network
    folded={"conv1/1": "bn_conv1/0"},  # of ResNet-50, whose other convolutions have none
)
