"""References of the densely connected networks."""

import importlib
from typing import Any

from tests.parity.harness import Reference, torch_models, torch_module


def torchvision(name: str, **fields: Any) -> Any:
    return getattr(torch_models("torchvision"), name)(**fields)


def pytorchcv(layers: int, growth_rate: int, bottleneck: bool = True) -> Any:
    """Their network for CIFAR, of any depth, with a last pool that takes any size."""
    torch = torch_module()
    torch_models("pytorchcv")
    make = importlib.import_module("pytorchcv.models.densenet_cifar").get_densenet_cifar
    net = make(10, blocks=layers, growth_rate=growth_rate, bottleneck=bottleneck)
    net.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    return net


def uncompressed() -> Any:
    """The paper's 40 layers out of their parts: their own network compresses, and starts with 24 maps."""
    torch = torch_module()
    torch_models("pytorchcv")
    theirs = importlib.import_module("pytorchcv.models.densenet_cifar")
    layers: list[Any] = [theirs.conv3x3(3, 16)]
    maps = 16
    for block in range(3):
        if block:
            layers.append(theirs.TransitionBlock(maps, maps))
        for _ in range(12):
            layers.append(theirs.DenseSimpleUnit(maps, maps + 12, 0.0))
            maps += 12
    layers += [theirs.PreResActivation(maps), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(maps, 10))


_IMAGENET: dict[str, Any] = {"sizes": ((64, 64), (97, 71))}
_CIFAR: dict[str, Any] = {"sizes": ((16, 16), (21, 17)), "num_classes": 10}

ROWS = [
    Reference("densenet121", lambda: torchvision("densenet121"), "torchvision 0.28.0 densenet121", **_IMAGENET),
    Reference(
        "densenet161(stage_sizes=(2, 3, 4, 2))",
        lambda: torchvision("DenseNet", growth_rate=48, block_config=(2, 3, 4, 2), num_init_features=96),
        "torchvision 0.28.0 densenet161 with fewer layers",
        **_IMAGENET,
    ),
    Reference("densenet40_12", uncompressed, "pytorchcv 0.0.74, parts of densenet40_k12_cifar10", **_CIFAR),
    Reference(
        "densenet40_12(features=24, compression=0.5)",
        lambda: pytorchcv(40, 12, bottleneck=False),
        "pytorchcv 0.0.74 densenet40_k12_cifar10",
        **_CIFAR,
    ),
    Reference("densenet_bc100_12", lambda: pytorchcv(100, 12), "pytorchcv 0.0.74 densenet100_k12_bc_cifar10", **_CIFAR),
    Reference(
        "densenet_bc190_40(stage_sizes=(6, 6, 6))",
        lambda: pytorchcv(40, 40),
        "pytorchcv 0.0.74 densenet190_k40_bc_cifar10 with 40 layers",
        **_CIFAR,
    ),
]

_BLOCKS = {name: name for name in ("stem", "block1", "trans1", "block2", "trans2", "block3")}
_STAGES = _BLOCKS | {name: name for name in ("trans3", "block4")}
_KERAS = "norm_epsilon=1.001e-5, norm_momentum=0.99"

PUBLISHED: dict[str, tuple[str, dict[str, str]]] = (
    {f"densenet{depth}": (f"densenet{depth}", _STAGES) for depth in (121, 169, 201, 161)}
    | {f"keras_DenseNet{depth}": (f"densenet{depth}({_KERAS})", {}) for depth in (121, 169, 201)}
    | {
        "densenet40_k12_cifar10": ("densenet40_12", _BLOCKS),
        "densenet40_k12_stem24_cifar10": ("densenet40_12(features=24)", _BLOCKS),
        "densenet100_k12_bc_cifar10": ("densenet_bc100_12", _BLOCKS),
        "densenet190_k40_bc_cifar10": ("densenet_bc190_40", _BLOCKS),
    }
)

_LONGER = "the class of densenet121, with other sizes: counts of parameters, statistics and multiplications, and shapes"

ALONE: dict[str, str] = {
    "densenet169": _LONGER,
    "densenet201": _LONGER,
    "densenet161": "its class with fewer layers; counts of parameters, statistics and multiplications, and shapes",
    "densenet_bc190_40": "its class with 40 layers; parameters, multiplications and shapes are those of pytorchcv",
}
