"""Names of pytorchcv, which divides every network into stages and these into units."""

from collections.abc import Sequence

from cnnjax.pretrained.library import Arrays, Layer, Library, names_by_substitution, torch_layout


def _units(names: str, *sizes: int) -> dict[str, str]:
    """Returns substitutions that rename modules of ours to 'features/stageS/unitU', in order.

    `names` are our modules, separated by spaces; `sizes` are the numbers of units in stage 1, 2, ...
    """
    places = [(stage, unit) for stage, size in enumerate(sizes, start=1) for unit in range(1, size + 1)]
    pairs = zip(names.split(), places, strict=True)
    return {f"^{name}(?=/|$)": f"features/stage{stage}/unit{unit}" for name, (stage, unit) in pairs}


# Residual networks with the activation after the addition (_POST), and before the convolutions (_PRE).
_POST = {
    r"/(conv\d)$": "/body/{}/conv",
    r"/norm(\d)$": "/body/conv{}/bn",
    "/shortcut_conv$": "/identity_conv/conv",
    "/shortcut_norm$": "/identity_conv/bn",
    "/se/squeeze$": "/se/conv1",
    "/se/excite$": "/se/conv2",
    "^head$": "output",
}
_PRE = _POST | {"/shortcut_conv$": "/identity_conv", "^last_norm$": "features/post_activ/bn"}
_STAGES = {r"^conv(\d)_(\d+)/": "features/stage{-1}/unit{}/"}
_CIFAR_STAGES = {r"^stage(\d)_block(\d+)/": "features/stage{}/unit{}/"}

_RESNET = _STAGES | _POST | {"^conv1$": "features/init_block/conv/conv", "^norm1$": "features/init_block/conv/bn"}
_CIFAR_RESNET = _CIFAR_STAGES | _POST | {"^conv1$": "features/init_block/conv", "^norm1$": "features/init_block/bn"}
_WIDE_RESNET = _STAGES | _PRE | {"^conv1$": "features/init_block"}


def _resnet_v2(layers: Sequence[Layer], arrays: Arrays) -> dict[str, str]:
    """Returns pytorchcv's layer names, by our path, of a pre-activation ResNet.

    ImageNet's networks have a BatchNorm in the stem, CIFAR's do not. `arrays` is not used.
    """
    both = {"norm1", "conv2_1/norm1"} <= {layer.path for layer in layers}
    stem = {"^conv1$": "features/init_block/conv", "^norm1$": "features/init_block/bn"}
    bare = {"^conv1$": "features/init_block", "^norm1$": "features/stage1/unit1/body/conv1/bn"}
    return names_by_substitution(_STAGES | _PRE | (stem if both else bare))(layers, arrays)


_DENSENET = {
    r"^block(\d)_layer(\d+)/": "features/stage{}/unit{}/",
    r"^trans(?=(\d))(\d)/": "features/stage{+1}/trans{+1}/conv/",
    "^conv0$": "features/init_block",
    "^last_norm$": "features/post_activ/norm",
    "/norm$": "/bn",
    "^head$": "output",
}


def _densenet(layers: Sequence[Layer], arrays: Arrays) -> dict[str, str]:
    """Returns pytorchcv's layer names, by our path, of a CIFAR DenseNet. `arrays` is not used.

    The only convolution of a unit without bottleneck has no number.
    """
    if any(layer.path.endswith("/norm2") for layer in layers):
        return names_by_substitution(_DENSENET | {r"/(conv\d)$": "/{}/conv", r"/norm(\d)$": "/conv{}/bn"})(
            layers, arrays
        )
    return names_by_substitution(_DENSENET | {"/conv1$": "/conv/conv", "/norm1$": "/conv/bn"})(layers, arrays)


_ALEXNET = _units("conv1 conv2 conv3 conv4 conv5", 1, 1, 3) | {
    r"(unit\d)$": "{}/conv",
    "^fc([67])$": "output/fc{-5}/fc",
    "^fc8$": "output/fc3",
}

_NIN = _units("conv1 cccp1 cccp2 conv2 cccp3 cccp4 conv3 cccp5", 3, 3, 2) | {"^cccp6$": "output/final_conv/conv"}

_FIRES = " ".join(f"fire{i}" for i in range(2, 10))


def _squeezenet(layers: Sequence[Layer], arrays: Arrays) -> dict[str, str]:
    """Returns pytorchcv's layer names, by our path, of a SqueezeNet. `arrays` is not used.

    The size of the first kernel tells version 1.0 (7x7) from 1.1, which pools earlier.
    """
    first = layers[0].arrays["params/conv1/conv/kernel"][0]
    units = _units(_FIRES, 3, 4, 1) if first == 7 else _units(_FIRES, 2, 2, 4)
    return names_by_substitution(units | {"^conv1/": "features/init_block/", "^conv10$": "output/final_conv"})(
        layers, arrays
    )


_PAIRS = range(1, 14)
_MOBILENET = {f"^(d|p)w{i}/": f"unit{i}/{{}}w_conv/" for i in _PAIRS} | {
    **_units(" ".join(f"unit{i}" for i in _PAIRS), 1, 2, 2, 6, 2),
    "^conv0/": "features/init_block/",
    "/norm$": "/bn",
    "^head$": "output",
}

_XCEPTION = _units(" ".join(f"block{i}" for i in range(1, 13)), 1, 1, 9, 1) | {
    r"/sepconv(\d)/": "/body/block{}/conv/",
    r"/norm(\d)$": "/body/block{}/bn",
    "/shortcut/": "/identity_conv/",
    "^conv([12])/": "features/init_block/conv{}/",
    r"^conv(\d)/": "features/final_block/conv{-2}/conv/",
    r"^norm(\d)$": "features/final_block/conv{-2}/bn",
    "/depthwise$": "/dw_conv",
    "/pointwise$": "/pw_conv",
    "/norm$": "/bn",
    "^head$": "output",
}

# Inception networks. Convolutions are numbered in branches of several, and in all branches of reduction modules.
_BRANCHES = {r"/branch(\d)_(\d)/": "/branches/branch{}/conv{}/", "/norm$": "/bn"}

_BN_INCEPTION = {
    "^conv1/": "features/init_block/conv1/",
    "^conv2_reduce/": "features/init_block/conv2/conv1/",
    "^conv2/": "features/init_block/conv2/conv2/",
    r"^(inception_(?:3[ab]|4[a-d]|5[ab])/)branch1_1": "{}branches/branch1",
    "/branch4_2": "/branches/branch4/conv",
    "^inception_": "",
    **_units("3a 3b 3c 4a 4b 4c 4d 4e 5a 5b", 2, 5, 3),
    **_BRANCHES,
    "^head$": "output",
}

_LISTS = {
    r"^(mixed_(?:4a|6a|7a)/)branch(\d)_(\d)": "{}branches/branch{}/conv_list/conv{}",
    "^mixed_3a/branch2_1": "mixed_3a/branches/branch2/conv",
    r"/branch(\d)_\d/branch1_1": "/branches/branch{}/conv1x3",
    r"/branch(\d)_\d/branch2_1": "/branches/branch{}/conv3x1",
    "/branch(1(?=_1/)|4(?=_2/))_./": "/branches/branch{}/conv/",
    r"/branch(\d)_(\d)/": "/branches/branch{}/conv_list/conv{}/",
    "/norm$": "/bn",
    "^head$": "output/fc",
}
_CONVS = ("1a", "2a", "2b", "3b", "4a")
_STEM = {f"^conv_{name}/": f"features/init_block/conv{i}/" for i, name in enumerate(_CONVS, start=1)}

_INCEPTION_V3 = _STEM | _LISTS | {"^mixed_": ""} | _units("5b 5c 5d 6a 6b 6c 6d 6e 7a 7b 7c", 3, 5, 3)
_INCEPTION_V4 = {
    **_STEM,
    **_LISTS,
    **{f"^mixed_{name}/": f"features/init_block/block{i}/" for i, name in enumerate(["3a", "4a", "5a"], start=1)},
    "^mixed_": "",
    **_units("5b 5c 5d 5e 6a 6b 6c 6d 6e 6f 6g 6h 7a 7b 7c 7d", 4, 8, 4),
}
_INCEPTION_RESNET_V2 = {
    "/branches/": "/",
    "/project$": "/conv",
    **_STEM,
    **_LISTS,
    "^mixed_5b/": "features/init_block/block/",
    "^mixed_6a/": "features/stage2/unit1/",
    "^mixed_7a/": "features/stage3/unit1/",
    r"^block35_(\d+)/": "features/stage1/unit{}/",
    r"^block17_(\d+)/": "features/stage2/unit{+1}/",
    r"^block8_(\d+)/": "features/stage3/unit{+1}/",
    "^conv_7b/": "features/final_conv/",
}


def _inception_v4(layers: Sequence[Layer], arrays: Arrays) -> dict[str, str]:
    """Returns pytorchcv's layer names, by our path, of an Inception-v4 or Inception-ResNet-v2. `arrays` is not used."""
    residual = any(layer.path.startswith("block35") for layer in layers)
    return names_by_substitution(_INCEPTION_RESNET_V2 if residual else _INCEPTION_V4)(layers, arrays)


LIBRARY = Library(
    {
        "alexnet": names_by_substitution(_ALEXNET),
        "nin": names_by_substitution(_NIN),
        "zfnet": names_by_substitution(_ALEXNET),
        "bn_inception": names_by_substitution(_BN_INCEPTION),
        "inception_v3": names_by_substitution(_INCEPTION_V3),
        "inception_v4": _inception_v4,
        "resnet": names_by_substitution(_RESNET),
        "resnet_cifar": names_by_substitution(_CIFAR_RESNET),
        "resnext_cifar": names_by_substitution(_CIFAR_RESNET),
        "resnet_v2": _resnet_v2,
        "wide_resnet": names_by_substitution(_WIDE_RESNET),
        "squeezenet": _squeezenet,
        "densenet": _densenet,
        "xception": names_by_substitution(_XCEPTION),
        "mobilenet": names_by_substitution(_MOBILENET),
    },
    **torch_layout(fc_as_conv=r"\.se\.conv"),
)
