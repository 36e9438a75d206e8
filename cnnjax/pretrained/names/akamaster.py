"""The names of the well-known weights of CIFAR's ResNets: github.com/akamaster/pytorch_resnet_cifar10."""

from cnnjax.pretrained.library import Library, rewrite, torch_layout

_RESNET = {
    r"^stage(\d)_block(\d+)/": "layer{}/{-1}/",
    "shortcut_conv$": "shortcut/0",
    "shortcut_norm$": "shortcut/1",
    "norm": "bn",
    "^head$": "linear",
}

LIBRARY = Library({"resnet_cifar": rewrite(_RESNET)}, **torch_layout())
