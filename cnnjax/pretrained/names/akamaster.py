"""Names of the CIFAR ResNets of github.com/akamaster/pytorch_resnet_cifar10."""

from cnnjax.pretrained.library import Library, names_by_substitution, torch_layout

_RESNET = {
    r"^stage(\d)_block(\d+)/": "layer{}/{-1}/",
    "shortcut_conv$": "shortcut/0",
    "shortcut_norm$": "shortcut/1",
    "norm": "bn",
    "^head$": "linear",
}

LIBRARY = Library({"resnet_cifar": names_by_substitution(_RESNET)}, **torch_layout())
