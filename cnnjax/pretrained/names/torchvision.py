"""Names of torchvision.

Its GoogLeNet and Inception-v3 weights have transform_input=True, which maps images normalized by ImageNet's statistics
to [-1, 1]. Here that is config.normalize="symmetric", with equal zero padding. Load our exported weights there with
transform_input=False.
"""

import re
from collections.abc import Sequence

from cnnjax.pretrained.library import Arrays, Layer, Library, names_by_substitution, torch_layout

RESNET = {
    r"^conv(\d)_(\d+)/": "layer{-1}/{-1}/",
    "shortcut_conv$": "downsample/0",
    "shortcut_norm$": "downsample/1",
    "norm": "bn",
    "^head$": "fc",
}

DENSENET = {
    r"^block(\d)_layer(\d+)": "features/denseblock{}/denselayer{}",
    r"^trans(\d)": "features/transition{}",
    "^(conv0|norm0)$": "features/{}",
    "^last_norm$": "features/norm5",
    "^head$": "classifier",
}

LEGACY_NAMES = {r"(denselayer\d+\.)(conv|norm)\.(\d)\.": "{}{}{}."}  # in the published weights of DenseNets

INCEPTION_V3 = {
    "^conv_(1a|2a|2b|4a)": "Conv2d_{}_3x3",
    "^conv_3b": "Conv2d_3b_1x1",
    "^mixed": "Mixed",
    r"(_5./branch)2": "{}5x5",
    r"(_5./branch)3": "{}3x3dbl",
    "(_6a/branch)1_1": "{}3x3",
    "(_6a/branch)2": "{}3x3dbl",
    "(_6[b-e]/branch)2": "{}7x7",
    "(_6[b-e]/branch)3": "{}7x7dbl",
    "(_7a/branch)1": "{}3x3",
    "(_7a/branch)2": "{}7x7x3",
    "(_7[bc]/branch)3": "{}3x3dbl",
    "(_7[bc]/branch)2": "{}3x3",
    "^(Mixed_..)/branch1_1": "{}/branch1x1",
    "/branch1_1/(conv|norm)$": "a/{}",  # the parallel 1x3 and 3x1 of 7b and 7c
    "/branch2_1/(conv|norm)$": "b/{}",
    "/branch4_2/": "/branch_pool/",
    r"^aux/conv(\d)": "AuxLogits/conv{-1}",
    "^aux/head$": "AuxLogits/fc",
    "/norm$": "/bn",
    "^head$": "fc",
}

_GOOGLENET = {
    "^conv2/": "conv3/",
    "^conv2_reduce/": "conv2/",
    "^inception_": "inception",
    "/branch1_1/": "/branch1/",
    r"/branch(\d)_(\d)/": "/branch{}/{-1}/",
    "^aux_4a/": "aux1/",
    "^aux_4d/": "aux2/",
    "^(aux./)fc$": "{}fc1",
    "^(aux./)head$": "{}fc2",
    "/norm$": "/bn",
    "^head$": "fc",
}

_ALEXNET = {f"^conv{i}$": f"features/{place}" for i, place in enumerate((0, 3, 6, 8, 10), start=1)} | {
    "^fc6$": "classifier/1",
    "^fc7$": "classifier/4",
    "^fc8$": "classifier/6",
}


def vgg_features(layers: Sequence[Layer]) -> dict[str, str]:
    """Returns torchvision's names of VGG's convolutions and BatchNorms, by our path, such as 'features.10'.

    The numbers are indices in a list of modules that also counts ReLUs and pools.
    """
    modules: list[str] = []
    stage = "1"
    for layer in layers:
        if match := re.fullmatch(r"conv(\d)_\d+/(conv|norm)", layer.path):
            if match[2] == "conv" and modules:
                modules += ["relu"] if match[1] == stage else ["relu", "pool"]
            modules.append(layer.path)
            stage = match[1]
    return {path: f"features.{i}" for i, path in enumerate(modules)}


def _vgg(layers: Sequence[Layer], arrays: Arrays) -> dict[str, str]:
    """Returns torchvision's layer names, by our path, of a VGG. `arrays` is not used."""
    return vgg_features(layers) | {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}


def _squeezenet(layers: Sequence[Layer], arrays: Arrays) -> dict[str, str]:
    """Returns torchvision's layer names, by our path, of a SqueezeNet: 'features.3.squeeze', ... `arrays` is not used.

    The size of the first kernel tells version 1.0 (7x7) from 1.1, which pools earlier.
    """
    first = layers[0].arrays["params/conv1/conv/kernel"][0]
    fires = (3, 4, 5, 7, 8, 9, 10, 12) if first == 7 else (3, 4, 6, 7, 9, 10, 11, 12)
    table = {f"^fire{i}/(.+)/conv$": f"features/{place}/{{}}" for i, place in enumerate(fires, start=2)}
    return names_by_substitution(table | {"^conv1/conv$": "features/0", "^conv10$": "classifier/1"})(layers, arrays)


LIBRARY = Library(
    {
        "alexnet": names_by_substitution(_ALEXNET),
        "vgg": _vgg,
        "googlenet": names_by_substitution(_GOOGLENET),
        "inception_v3": names_by_substitution(INCEPTION_V3),
        "resnet": names_by_substitution(RESNET),
        "squeezenet": _squeezenet,
        "densenet": names_by_substitution(DENSENET),
    },
    **torch_layout(legacy_names=LEGACY_NAMES),
    auxiliary=r"^aux\d\.|^AuxLogits\.",
)
