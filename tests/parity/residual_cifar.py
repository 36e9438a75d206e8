"""References of the residual networks for CIFAR."""

import importlib
from collections.abc import Callable
from typing import Any

from tests.parity.harness import Reference, torch_models, torch_module


def pytorchcv(family: str, **fields: Any) -> Any:
    """A network of their family, of any depth, with a last pool that takes any size."""
    torch = torch_module()
    torch_models("pytorchcv")
    module = importlib.import_module(f"pytorchcv.models.{family}_cifar")
    net = getattr(module, f"get_{family}_cifar")(10, **fields)
    net.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    return net


def shortcuts(net: Any, change: Callable[[Any], Any]) -> Any:
    """Every shortcut that projects becomes `change` of its input."""
    torch = torch_module()

    class Shortcut(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return change(x)

    for module in list(net.modules()):
        if getattr(module, "resize_identity", False):
            module.identity_conv = Shortcut()
    return net


def zeros_around(x: Any) -> Any:
    """Option A as in the well-known public weights: half the zeros on each side."""
    torch = torch_module()
    half = x.shape[1] // 2
    return torch.nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))


def zeros_after(x: Any) -> Any:
    """Option A as in fb.resnet.torch: zeros after the input's maps."""
    torch = torch_module()
    return torch.cat([x[:, :, ::2, ::2], 0 * x[:, :, ::2, ::2]], dim=1)


def plain() -> Any:
    """Theirs with nothing to add."""
    net = pytorchcv("resnet", blocks=20, bottleneck=False)
    for module in net.modules():
        if hasattr(module, "resize_identity"):
            module.resize_identity = True
    return shortcuts(net, lambda x: 0.0)


def preresnet20() -> Any:
    """Theirs as in the paper: the first unit's shortcut, too, begins after the first activation."""
    torch = torch_module()
    net = shortcuts(pytorchcv("preresnet", blocks=20, bottleneck=False), zeros_after)
    first = net.features.stage1.unit1
    first.resize_identity, first.identity_conv = True, torch.nn.Identity()
    return net


def stride_first() -> Any:
    """Theirs has strides in the 3x3 convolutions; the authors' code has them in the ones before."""
    net = pytorchcv("preresnet", blocks=29, bottleneck=True)
    for stage in (net.features.stage2, net.features.stage3):
        stage.unit1.body.conv1.conv.stride, stage.unit1.body.conv2.conv.stride = (2, 2), (1, 1)
    return net


_TEN: dict[str, Any] = {"num_classes": 10}
# Where their shortcut runs before the rest.
_POST: dict[str, Any] = {"last": "identity_conv", "unit": r"features\.stage\d+\.unit\d+"}
_SIZES = ((32, 32), (37, 33))
_SMALL = ((16, 16), (21, 17))

ROWS = [
    Reference(
        'cifar_resnet20(shortcut="B")',
        lambda: pytorchcv("resnet", blocks=20, bottleneck=False),
        "pytorchcv 0.0.74 resnet20_cifar10",
        _SIZES,
        10,
        **_POST,
    ),
    Reference(
        "cifar_resnet20",
        lambda: shortcuts(pytorchcv("resnet", blocks=20, bottleneck=False), zeros_around),
        "pytorchcv 0.0.74 resnet20_cifar10, shortcuts A",
        _SIZES,
        10,
    ),
    Reference("cifar_plain20", plain, "pytorchcv 0.0.74 resnet20_cifar10 without shortcuts", _SIZES, 10),
    Reference(
        'cifar_resnet20(shortcut="B", se=16)',
        lambda: pytorchcv("seresnet", blocks=20, bottleneck=False),
        "pytorchcv 0.0.74 seresnet20_cifar10",
        _SIZES,
        **_TEN,
        **_POST,
    ),
    Reference(
        "cifar_preresnet110(stage_sizes=(3, 3, 3))",
        preresnet20,
        "pytorchcv 0.0.74 preresnet20_cifar10, shortcuts A",
        _SIZES,
        **_TEN,
    ),
    Reference(
        'cifar_preresnet110(stage_sizes=(3, 3, 3), shortcut="B", layout="bare")',
        lambda: pytorchcv("preresnet", blocks=20, bottleneck=False),
        "pytorchcv 0.0.74 preresnet20_cifar10",
        _SIZES,
        **_TEN,
    ),
    Reference(
        "cifar_preresnet1001(stage_sizes=(3, 3, 3))",
        stride_first,
        "pytorchcv 0.0.74 preresnet1001_cifar10 with 29 layers, strides in the 1x1 convolutions",
        _SIZES,
        **_TEN,
    ),
    Reference(
        'cifar_preresnet164(stage_sizes=(3, 3, 3), stride="3x3")',
        lambda: pytorchcv("preresnet", blocks=29, bottleneck=True),
        "pytorchcv 0.0.74 preresnet164bn_cifar10 with 29 layers",
        _SIZES,
        **_TEN,
    ),
    *(
        Reference(
            f"wide_resnet{depth}_{width}",
            lambda depth=depth, width=width: pytorchcv("wrn", blocks=depth, width_factor=width),
            f"pytorchcv 0.0.74 wrn_cifar of {depth} layers, {width} times as wide",
            _SMALL,
            **_TEN,
        )
        for depth, width in ((16, 8), (28, 10), (40, 4))
    ),
    *(
        Reference(
            f"resnext29_{groups}x64d",
            lambda groups=groups: pytorchcv("resnext", blocks=29, cardinality=groups, bottleneck_width=64),
            f"pytorchcv 0.0.74 resnext_cifar of 29 layers, {groups} groups",
            _SMALL,
            **_TEN,
            **_POST,
        )
        for groups in (8, 16)
    ),
]

_STAGES = {name: name for name in ("conv1", "stage1", "stage2", "stage3")}
_GROUPS = {name: name for name in ("conv1", "conv2", "conv3", "conv4")}

PUBLISHED: dict[str, tuple[str, dict[str, str]]] = (
    {f"cifar_resnet{depth}": (f"cifar_resnet{depth}", _STAGES) for depth in (20, 32, 44, 56, 110, 1202)}
    | {f"cifar_plain{depth}": (f"cifar_plain{depth}", _STAGES) for depth in (20, 32, 44, 56, 110)}
    | {f"cifar_resnet{depth}_optionB": (f'cifar_resnet{depth}(shortcut="B")', _STAGES) for depth in (20, 56, 110)}
    | {
        f"wrn_{depth}_{width}_cifar10": (f"wide_resnet{depth}_{width}", _GROUPS)
        for depth, width in ((16, 8), (28, 10), (40, 4))
    }
    | {f"resnext29_{groups}x64d_cifar10": (f"resnext29_{groups}x64d", _STAGES) for groups in (8, 16)}
)

_TENER = "the class of {}, with longer stages: counts of parameters, statistics and multiplications, and shapes"

ALONE: dict[str, str] = (
    {f"cifar_resnet{depth}": _TENER.format("cifar_resnet20") for depth in (32, 44, 56, 110, 1202)}
    | {f"cifar_plain{depth}": _TENER.format("cifar_plain20") for depth in (32, 44, 56, 110, 1202)}
    | {
        "cifar_preresnet110": "its class with 20 layers; parameters and multiplications are those of cifar_resnet110",
        "cifar_preresnet164": "its class with 29 layers; parameters are those of pytorchcv preresnet164bn_cifar10",
        "cifar_preresnet1001": "its class with 29 layers; parameters are those of pytorchcv preresnet1001_cifar10",
    }
)
