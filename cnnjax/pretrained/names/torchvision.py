"""torchvision's names.

Its published weights of GoogLeNet and Inception-v3 come with `transform_input`: what is normalised by ImageNet's
statistics is turned to [-1, 1]. For us they are weights for config.normalize="symmetric", which is the same numbers,
zeros of the padding included; a network of theirs that gets ours has transform_input=False.
"""

import re

from cnnjax.pretrained.library import Arrays, Layer, Library, rewrite, torch_layout

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

FORMER = {r"(denselayer\d+\.)(conv|norm)\.(\d)\.": "{}{}{}."}  # the published weights of DenseNets

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
    "/branch1_1/(conv|norm)$": "a/{}",  # of the crossed kernels of 7b and 7c
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


def vgg_features(ours: list[Layer]) -> dict[str, str]:
    """VGG's layers before the full connections, which there are one list: with ReLUs, and pools between stages."""
    places: list[str] = []
    stage = "1"
    for layer in ours:
        if found := re.fullmatch(r"conv(\d)_\d+/(conv|norm)", layer.path):
            if found[2] == "conv" and places:
                places += ["relu"] if found[1] == stage else ["relu", "pool"]
            places.append(layer.path)
            stage = found[1]
    return {path: f"features.{i}" for i, path in enumerate(places)}


def _vgg(ours: list[Layer], arrays: Arrays) -> dict[str, str]:
    return vgg_features(ours) | {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}


def _squeezenet(ours: list[Layer], arrays: Arrays) -> dict[str, str]:
    """Fires and pools are one list; version 1.1 has its pools earlier, and a smaller first kernel."""
    first = ours[0].arrays["params/conv1/conv/kernel"][0]
    fires = (3, 4, 5, 7, 8, 9, 10, 12) if first == 7 else (3, 4, 6, 7, 9, 10, 11, 12)
    table = {f"^fire{i}/(.+)/conv$": f"features/{place}/{{}}" for i, place in enumerate(fires, start=2)}
    return rewrite(table | {"^conv1/conv$": "features/0", "^conv10$": "classifier/1"})(ours, arrays)


LIBRARY = Library(
    {
        "alexnet": rewrite(_ALEXNET),
        "vgg": _vgg,
        "googlenet": rewrite(_GOOGLENET),
        "inception_v3": rewrite(INCEPTION_V3),
        "resnet": rewrite(RESNET),
        "squeezenet": _squeezenet,
        "densenet": rewrite(DENSENET),
    },
    **torch_layout(former=FORMER),
    aux=r"^aux\d\.|^AuxLogits\.",
)
