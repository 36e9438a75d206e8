"""References of the residual networks for ImageNet."""

from collections.abc import Callable, Iterator
from typing import Any

from tests.parity.harness import Reference, torch_models, torch_module

SIZES = ((64, 64), (71, 71))


def torchvision(name: str, change: Callable[[Any], Any] = lambda net: net) -> Callable[[], Any]:
    return lambda: change(getattr(torch_models("torchvision"), name)())


def pytorchcv(name: str, change: Callable[[Any], Any] = lambda net: net) -> Callable[[], Any]:
    """Their network, with a last pool that takes any size."""

    def make() -> Any:
        torch = torch_module()
        net = torch_models("pytorchcv").get_model(name)
        net.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
        return change(net)

    return make


def legacy(name: str) -> Callable[[], Any]:
    """timm's SE networks as their Caffe originals."""
    return lambda: torch_models("timm").create_model(name, drop_rate=0.0)


def blocks(net: Any) -> Iterator[tuple[Any, int, int, int]]:
    """torchvision's blocks, with the maps before and after each, and its stride."""
    maps = net.conv1.out_channels
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        for block in layer:
            out = block.bn3.num_features if hasattr(block, "bn3") else block.bn2.num_features
            yield block, maps, out, block.stride
            maps = out


def plain(net: Any) -> Any:
    """No shortcuts."""
    torch = torch_module()

    class Zero(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.zeros(())

    for block, *_ in blocks(net):
        block.downsample = Zero()
    return net


def option_a(net: Any) -> Any:
    """Zeros after the maps of the shortcut, as fb.resnet.torch has them."""
    torch = torch_module()
    for block, maps, out, stride in blocks(net):
        if block.downsample is not None:
            pad = torch.nn.ConstantPad3d((0, 0, 0, 0, 0, out - maps), 0.0)
            block.downsample = torch.nn.Sequential(torch.nn.AvgPool2d(1, stride), pad)
    return net


def option_c(net: Any) -> Any:
    """Every shortcut a projection."""
    nn = torch_module().nn
    for block, maps, out, stride in blocks(net):
        block.downsample = nn.Sequential(nn.Conv2d(maps, out, 1, stride, bias=False), nn.BatchNorm2d(out))
    return net


def slim(net: Any) -> Any:
    """torchvision's network (v1.5) in TF-Slim's layout: each stage's last block has the next one's stride."""
    nn = torch_module().nn

    class Same(nn.Module):
        def forward(self, x: Any) -> Any:
            height, width = (max((-(-side // 2) - 1) * 2 + 3 - side, 0) for side in x.shape[2:])
            pads = (width // 2, width - width // 2, height // 2, height - height // 2)
            return nn.functional.max_pool2d(nn.functional.pad(x, pads, value=-float("inf")), 3, 2)

    net.maxpool = Same()
    for layer in (net.layer2, net.layer3, net.layer4):
        layer[0].conv2.stride = layer[0].downsample[0].stride = (1, 1)
    for layer in (net.layer1, net.layer2, net.layer3):
        layer[-1].conv2.stride = (2, 2)
        layer[-1].downsample = nn.MaxPool2d(1, 2)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1 - 0.997
    return net


def keras(net: Any) -> Any:
    """Biases before the normalisations, and their constants."""
    torch = torch_module()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.bias = torch.nn.Parameter(torch.zeros(module.out_channels))
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.eps, module.momentum = 1.001e-5, 0.01
    return net


def row(ours: str, theirs: Callable[[], Any], source: str) -> Reference:
    if source.startswith("pytorchcv"):  # there a unit's shortcut runs first
        unit = r"features\.stage\d+\.unit\d+"
        return Reference(ours, theirs, source, SIZES, last="identity_conv", unit=unit)
    return Reference(ours, theirs, source, SIZES)


ROWS = [
    *(row(name, torchvision(name), f"torchvision 0.28.0 {name}") for name in ("resnet18", "resnet34")),
    *(
        row(f"{name}_v1_5", torchvision(name), f"torchvision 0.28.0 {name}")
        for name in ("resnet50", "resnet101", "resnet152")
    ),
    *(
        row(name, torchvision(name), f"torchvision 0.28.0 {name}")
        for name in ("wide_resnet50_2", "resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")
    ),
    *(row(name, pytorchcv(name), f"pytorchcv 0.0.74 {name}") for name in ("resnet50", "resnet101", "resnet152")),
    row(
        "resnext101_32x4d",
        lambda: torch_models("timm").create_model("resnext101_32x4d"),
        "timm 1.0.31 resnext101_32x4d",
    ),
    *(
        row(f"se_{name}(ceil_pool=True)", legacy(f"legacy_se{name}"), f"timm 1.0.31 legacy_se{name}")
        for name in ("resnet50", "resnet101", "resnet152", "resnext50_32x4d")
    ),
    *(row(f"plain{n}", torchvision(f"resnet{n}", plain), f"torchvision 0.28.0 resnet{n}, patched") for n in (18, 34)),
    *(
        row(f'resnet{n}(shortcut="A")', torchvision(f"resnet{n}", option_a), f"torchvision 0.28.0 resnet{n}, patched")
        for n in (18, 34)
    ),
    row('resnet18(shortcut="C")', torchvision("resnet18", option_c), "torchvision 0.28.0 resnet18, patched"),
    *(
        row(f"resnet{n}_slim", torchvision(f"resnet{n}", slim), f"torchvision 0.28.0 resnet{n}, patched")
        for n in (50, 101, 152)
    ),
    row(
        "resnet50(use_bias=True, norm_epsilon=1.001e-5, norm_momentum=0.99)",
        pytorchcv("resnet50", keras),
        "pytorchcv 0.0.74 resnet50, patched",
    ),
]

# Stages of the published table -> end points.
_STAGES = {name: name for name in ("conv1", "pool1", "conv2_x", "conv3_x", "conv4_x", "conv5_x")}


def _slim(depth: int) -> tuple[str, dict[str, str]]:
    """Of TF-Slim's end points: the stem and the stages."""
    ends = {f"resnet_v1_{depth}/block{i}": f"conv{i + 1}_x" for i in range(1, 5)}
    return f"resnet{depth}_slim", {f"resnet_v1_{depth}/conv1": "conv1"} | ends


def _keras(depth: int) -> tuple[str, dict[str, str]]:
    return f"resnet{depth}(use_bias=True, norm_epsilon=1.001e-5, norm_momentum=0.99)", {}


PUBLISHED: dict[str, tuple[str, dict[str, str]]] = {
    **{f"resnet{depth}_v1": (f"resnet{depth}", _STAGES) for depth in (18, 34, 50, 101, 152)},
    **{f"resnet{depth}_v1.5": (f"resnet{depth}_v1_5", _STAGES) for depth in (50, 101, 152)},
    **{f"resnet{depth}_v1_optionA": (f'resnet{depth}(shortcut="A")', _STAGES) for depth in (18, 34)},
    **{
        name: (name, _STAGES)
        for name in (
            "plain18",
            "plain34",
            "wide_resnet50_2",
            "resnext50_32x4d",
            "resnext101_32x4d",
            "resnext101_32x8d",
            "se_resnet50",
            "se_resnet101",
            "se_resnet152",
            "se_resnext50_32x4d",
        )
    },
    **{f"tfslim_resnet_v1_{depth}": _slim(depth) for depth in (50, 101, 152, 200)},
    **{f"keras_ResNet{depth}": _keras(depth) for depth in (50, 101, 152)},
}

ALONE: dict[str, str] = {
    "resnet200_slim": "differs from resnet50_slim in stage_sizes alone; counts and shapes of TF-Slim's own graph",
}
