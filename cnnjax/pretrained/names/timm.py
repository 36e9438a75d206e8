"""Names of timm, and of its `legacy_` SE networks, whose weights were converted from Caffe's."""

from collections.abc import Sequence

from cnnjax.pretrained.library import Arrays, Layer, Library, names_by_substitution, torch_layout
from cnnjax.pretrained.names.torchvision import DENSENET, INCEPTION_V3, RESNET, vgg_features

_SE_RESNET = RESNET | {"se/squeeze$": "se/fc1", "se/excite$": "se/fc2"}

_LEGACY_SE_RESNET = RESNET | {
    "^(conv1|bn1)$": "layer0/{}",
    "se/squeeze$": "se_module/fc1",
    "se/excite$": "se_module/fc2",
    "^fc$": "last_linear",
}

_RESNET_V2 = {
    "^conv1$": "stem/conv",
    "^norm1$": "stem/norm",
    r"^conv(\d)_(\d+)/": "stages/{-2}/blocks/{-1}/",
    "shortcut_conv$": "downsample/conv",
    "^last_norm$": "norm",
    "^head$": "head/fc",
}

_V4 = (
    "conv_1a conv_2a conv_2b mixed_3a mixed_4a mixed_5a mixed_5b mixed_5c mixed_5d mixed_5e mixed_6a mixed_6b mixed_6c "
    "mixed_6d mixed_6e mixed_6f mixed_6g mixed_6h mixed_7a mixed_7b mixed_7c mixed_7d"
)
_INCEPTION_V4 = {
    "^(mixed_[35]a)/branch._1": "{}/conv",
    r"^(mixed_[47]a)/branch(\d)_(\d)": "{}/branch{-1}/{-1}",
    r"/branch(\d)_(\d)/branch1_1": "/branch{-1}_{-1}a",
    r"/branch(\d)_(\d)/branch2_1": "/branch{-1}_{-1}b",
    "/branch1_1/": "/branch0/",
    "/branch4_2": "/branch3/1",
    r"^(mixed_[56].)/branch([23])_(\d)": "{}/branch{-1}/{-1}",
    r"^(mixed_7[b-d])/branch([23])_(\d)(?=/)": "{}/branch{-1}_{-1}",
    **{f"^{name}/": f"features/{i}/" for i, name in enumerate(_V4.split())},
    "/norm$": "/bn",
    "^head$": "last_linear",
}

_INCEPTION_RESNET_V2 = {
    "^conv_": "conv2d_",
    "^block8_10/": "block8/",
    r"^block35_(\d+)/": "repeat/{-1}/",
    r"^block17_(\d+)/": "repeat_1/{-1}/",
    r"^block8_(\d+)/": "repeat_2/{-1}/",
    "/branches/": "/",
    "/project$": "/conv2d",
    "(mixed_7a)/branch1_(.)": "{}/branch0/{-1}",
    "/branch1_1/": "/branch0/",
    r"/branch(\d)_(\d)/": "/branch{-1}/{-1}/",
    "/norm$": "/bn",
    "^head$": "classif",
}

_BLOCKS = [(stage, block) for stage, size in enumerate((1, 2, 2, 6, 2)) for block in range(size)]
_MOBILENET = {f"^(dw|pw){i}/": f"blocks/{s}/{b}/{{}}/" for i, (s, b) in enumerate(_BLOCKS, start=1)} | {
    "^conv0/conv$": "conv_stem",
    "^conv0/norm$": "bn1",
    "/dw/conv$": "/conv_dw",
    "/dw/norm$": "/bn1",
    "/pw/conv$": "/conv_pw",
    "/pw/norm$": "/bn2",
    "^head$": "classifier",
}

# A block is a list of activations, separable convolutions and BatchNorms; the first block has no leading activation.
_XCEPTION = (
    {f"^(block1)/sepconv{i}": f"{{}}/rep/{3 * i - 3}" for i in (1, 2)}
    | {f"^(block1)/norm{i}": f"{{}}/rep/{3 * i - 2}" for i in (1, 2)}
    | {rf"^(block\d+)/sepconv{i}": f"{{}}/rep/{3 * i - 2}" for i in (1, 2, 3)}
    | {rf"^(block\d+)/norm{i}": f"{{}}/rep/{3 * i - 1}" for i in (1, 2, 3)}
    | {
        "/depthwise$": "/conv1",
        "/shortcut/conv$": "/skip",
        "/shortcut/norm$": "/skipbn",
        r"^conv(\d)/norm$": "bn{}",
        r"^norm(\d)$": "bn{}",
        r"^(conv\d)/conv$": "{}",
        "^head$": "fc",
    }
)


def _vgg(layers: Sequence[Layer], arrays: Arrays) -> dict[str, str]:
    """Returns timm's layer names, by our path, of a VGG. `arrays` is not used."""
    return vgg_features(layers) | {"fc6": "pre_logits.fc1", "fc7": "pre_logits.fc2", "fc8": "head.fc"}


def _inception_v4(layers: Sequence[Layer], arrays: Arrays) -> dict[str, str]:
    """Returns timm's layer names, by our path, of an Inception-v4 or Inception-ResNet-v2. `arrays` is not used."""
    residual = any(layer.path.startswith("block35") for layer in layers)
    return names_by_substitution(_INCEPTION_RESNET_V2 if residual else _INCEPTION_V4)(layers, arrays)


LIBRARY = Library(
    {
        "vgg": _vgg,
        "inception_v3": names_by_substitution(INCEPTION_V3),
        "inception_v4": _inception_v4,
        "resnet": names_by_substitution(_SE_RESNET),
        "resnet_v2": names_by_substitution(_RESNET_V2),
        "densenet": names_by_substitution(DENSENET),
        "xception": names_by_substitution(_XCEPTION),
        "mobilenet": names_by_substitution(_MOBILENET),
    },
    **torch_layout(fc_as_conv=r" pre_logits\.|\.se\.fc|^head head\.fc$"),  # but VGG's head.fc, our fc8
    auxiliary=r"^AuxLogits\.",
)

LEGACY = Library({"resnet": names_by_substitution(_LEGACY_SE_RESNET)}, **torch_layout(fc_as_conv=r"\.se_module\."))
