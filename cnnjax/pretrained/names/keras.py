"""Names of the layers of keras.applications, as `cnnjax.pretrained.formats.keras` returns them for any Keras version.

VGG and the ResNets of version 1 take BGR images, as Caffe's do.
"""

import re
from collections.abc import Sequence

from cnnjax.pretrained.library import Arrays, Layer, Library, NameMapping, names_by_pattern
from cnnjax.pretrained.names.tensorflow import tensorflow_layout

VGG = {r"conv(\d)_(\d)/conv": "block{}_conv{}", r"fc([67])": "fc{-5}", "fc8": "predictions"}

_UNIT = r"conv(\d)_(\d+)/"

RESNET = {
    "conv1": "conv1_conv",
    "norm1": "conv1_bn",
    _UNIT + r"conv(\d)": "conv{}_block{}_{}_conv",
    _UNIT + r"norm(\d)": "conv{}_block{}_{}_bn",
    _UNIT + "shortcut_conv": "conv{}_block{}_0_conv",
    _UNIT + "shortcut_norm": "conv{}_block{}_0_bn",
    "head": "predictions",
}

RESNET_V2 = {
    "conv1": "conv1_conv",
    _UNIT + r"conv(\d)": "conv{}_block{}_{}_conv",
    _UNIT + "norm1": "conv{}_block{}_preact_bn",
    _UNIT + r"norm(\d)": "conv{}_block{}_{-1}_bn",
    _UNIT + "shortcut_conv": "conv{}_block{}_0_conv",
    "last_norm": "post_bn",
    "head": "predictions",
}

DENSENET = {
    "conv0": "conv1_conv",
    "norm0": "conv1_bn",
    r"block(\d)_layer(\d+)/norm(\d)": "conv{+1}_block{}_{-1}_bn",
    r"block(\d)_layer(\d+)/conv(\d)": "conv{+1}_block{}_{}_conv",
    r"trans(\d)/(conv)": "pool{+1}_{}",
    r"trans(\d)/norm": "pool{+1}_bn",
    "last_norm": "bn",
    "head": "predictions",
}

XCEPTION = {
    r"conv([12])/conv": "block1_conv{}",
    r"conv([12])/norm": "block1_conv{}_bn",
    r"conv([34])/depthwise": "block14_sepconv{-2}:depthwise_kernel",
    r"conv([34])/pointwise": "block14_sepconv{-2}:pointwise_kernel",
    r"norm([34])": "block14_sepconv{-2}_bn",
    r"block(\d+)/sepconv(\d)/depthwise": "block{+1}_sepconv{}:depthwise_kernel",
    r"block(\d+)/sepconv(\d)/pointwise": "block{+1}_sepconv{}:pointwise_kernel",
    r"block(\d+)/norm(\d)": "block{+1}_sepconv{}_bn",
    "head": "predictions",
}

MOBILENET = {
    "conv0/conv": "conv1",
    "conv0/norm": "conv1_bn",
    r"dw(\d+)/conv": "conv_dw_{}",
    r"pw(\d+)/conv": "conv_pw_{}",
    r"([dp]w)(\d+)/norm": "conv_{}_{}_bn",
    "head": "conv_preds",
}

INCEPTION_V3 = {"head": "predictions"}

INCEPTION_RESNET_V2 = {
    "conv_7b/conv": "conv_7b",
    "conv_7b/norm": "conv_7b_bn",
    r"(block\d+_\d+)/project": "{}_conv",
    "head": "predictions",
}


def _keras(table: dict[str, str]) -> NameMapping:
    """Returns a function from our layers to Keras's layer names, for `Library.families`.

    `table` is as in `names_by_pattern`. The layers that it does not name are matched, in order, to Keras's automatic
    names, such as conv2d_5. The head is matched to the file's last fully connected layer if the file has no head of
    that name.
    """

    def mapping(layers: Sequence[Layer], arrays: Arrays) -> dict[str, str]:
        """Returns Keras's layer names by our path. `arrays` are those of the file; {} for an export."""
        names = names_by_pattern(table)(layers, arrays)
        for class_name in ("conv2d", "batch_normalization"):
            # Automatic names count all layers of a Python program, so a second network's start anywhere.
            automatic = {name.partition("/")[0] for name in arrays if re.match(rf"{class_name}(_\d+)?/", name)}
            numbers = sorted(int(name.removeprefix(class_name).strip("_") or 0) for name in automatic)
            nameless = [
                layer.path
                for layer in layers
                if layer.path not in names
                and (class_name == "conv2d") == any(p.endswith("kernel") for p in layer.arrays)
            ]
            numbers += range(len(numbers), len(nameless))  # when exporting, the file has none
            names |= {
                path: f"{class_name}_{n}" if n else class_name for path, n in zip(nameless, numbers, strict=False)
            }
        dense = [name for name, array in arrays.items() if name.endswith("/kernel") and array.ndim == 2]
        if dense and "head" in names and f"{names['head']}/kernel" not in arrays:
            names["head"] = dense[-1].removesuffix("/kernel")
        return names

    return mapping


FAMILIES = {
    "vgg": VGG,
    "resnet": RESNET,
    "resnet_v2": RESNET_V2,
    "densenet": DENSENET,
    "xception": XCEPTION,
    "mobilenet": MOBILENET,
    "inception_v3": INCEPTION_V3,
    "inception_v4": INCEPTION_RESNET_V2,
}

LIBRARY = Library(
    {family: _keras(table) for family, table in FAMILIES.items()},
    **tensorflow_layout("kernel", "bias", fc_as_conv="^conv_preds$", depthwise="^conv_dw_|:depthwise"),
    takes_bgr=lambda family, layers: family in ("vgg", "resnet"),
    default_ones="/gamma$",
)
