"""References of NIN, SqueezeNet, MobileNet and Xception."""

from collections.abc import Callable
from typing import Any

from tests.parity.harness import Reference, torch_models, torch_module

Make = Callable[[], Any]

# What PyTorch's ports have, where ours have TensorFlow's; and no dropout, which differs from run to run.
TORCH_NORM = "dropout=0.0, norm_epsilon=1e-5, norm_momentum=0.9"


def pytorchcv(name: str, change: Callable[[Any], Any] = lambda net: net) -> Make:
    """Their network, with a last pool that takes any size, changed."""

    def make() -> Any:
        torch = torch_module()
        net = torch_models("pytorchcv").get_model(name)
        for part in net.modules():
            if hasattr(part, "final_pool"):
                part.final_pool = torch.nn.AdaptiveAvgPool2d(1)
        return change(net)

    return make


def timm(name: str) -> Make:
    return lambda: torch_models("timm").create_model(name)


def torchvision(name: str) -> Make:
    return lambda: getattr(torch_models("torchvision"), name)(weights=None)


def nin_pools(second: str) -> Callable[[Any], Any]:
    """Pools as in the authors' files: from the first pixel on, to a last, incomplete window. Theirs pad both sides."""

    def change(net: Any) -> Any:
        torch = torch_module()
        net.features.stage2.pool2 = torch.nn.MaxPool2d(3, 2, ceil_mode=True)
        net.features.stage3.pool3 = getattr(torch.nn, second)(3, 2, ceil_mode=True)
        return net

    return change


def nin_imagenet() -> Any:
    """The authors' prototxt, layer by layer."""
    nn = torch_module().nn

    def mlpconv(inputs: int, features: tuple[int, int, int], *window: int) -> list[Any]:
        first, second, third = features
        layers: list[Any] = [nn.Conv2d(inputs, first, *window), nn.ReLU()]
        layers += [nn.Conv2d(first, second, 1), nn.ReLU(), nn.Conv2d(second, third, 1), nn.ReLU()]
        return layers

    def pool() -> Any:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    return nn.Sequential(
        *mlpconv(3, (96, 96, 96), 11, 4),
        pool(),
        *mlpconv(96, (256, 256, 256), 5, 1, 2),
        pool(),
        *mlpconv(256, (384, 384, 384), 3, 1, 1),
        pool(),
        nn.Dropout(0.5),
        *mlpconv(384, (1024, 1024, 1000), 3, 1, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def complex_bypass(net: Any) -> Any:
    """Where their fires have no shortcut, one by a 1x1 convolution."""
    torch = torch_module()

    class Bypass(torch.nn.Module):
        def __init__(self, fire: Any) -> None:
            super().__init__()
            features = fire.expand1x1.conv.out_channels + fire.expand3x3.conv.out_channels
            self.fire, self.conv = fire, torch.nn.Conv2d(fire.squeeze.conv.in_channels, features, 1)

        def forward(self, x: Any) -> Any:
            return self.fire(x) + self.conv(x)

    for stage in net.features:
        for name, unit in stage.named_children() if isinstance(stage, torch.nn.Sequential) else ():
            if not getattr(unit, "residual", True):
                setattr(stage, name, Bypass(unit))
    return net


def padded_conv10(net: Any) -> Any:
    net.output.final_conv.padding = (1, 1)
    return net


def shallow(net: Any) -> Any:
    for i in range(2, 7):
        delattr(net.features.stage4, f"unit{i}")
    return net


def full(net: Any) -> Any:
    """A 3x3 convolution in place of each pair."""
    torch = torch_module()
    for i in range(1, 6):
        stage = getattr(net.features, f"stage{i}")
        for name, unit in list(stage.named_children()):
            inputs, depthwise = unit.pw_conv.conv.in_channels, unit.dw_conv.conv
            unit.pw_conv.conv = torch.nn.Conv2d(
                inputs, unit.pw_conv.conv.out_channels, 3, depthwise.stride, padding=1, bias=False
            )
            setattr(stage, name, unit.pw_conv)
    return net


def any_size(net: Any) -> Any:
    """Their Xception has its last pool elsewhere."""
    torch = torch_module()
    net.features.final_block.pool = torch.nn.AdaptiveAvgPool2d(1)
    return net


def airbench() -> Any:
    """The layers of the author's listing, sec. 3 and appendix."""
    torch = torch_module()
    nn = torch.nn

    class Scaled(nn.Module):
        def forward(self, x: Any) -> Any:
            return x / 9

    def stage(inputs: int, features: int) -> list[Any]:
        def norm() -> Any:
            made = nn.BatchNorm2d(features, eps=1e-12, momentum=0.4)
            made.weight.requires_grad = False
            return made

        layers: list[Any] = [
            nn.Conv2d(inputs, features, 3, padding="same", bias=False),
            nn.MaxPool2d(2),
            norm(),
            nn.GELU(),
        ]
        return [*layers, nn.Conv2d(features, features, 3, padding="same", bias=False), norm(), nn.GELU()]

    whiten = nn.Conv2d(3, 24, 2)
    whiten.weight.requires_grad = False
    stages = [*stage(24, 64), *stage(64, 256), *stage(256, 256)]
    return nn.Sequential(
        whiten, nn.GELU(), *stages, nn.MaxPool2d(3), nn.Flatten(), nn.Linear(256, 10, bias=False), Scaled()
    )


ROWS = [
    Reference("airbench94", airbench, "torch layers", ((32, 32), (33, 37)), 10),
    Reference(
        "nin_cifar10(dropout=0.0)",
        pytorchcv("nin_cifar10", nin_pools("MaxPool2d")),
        "pytorchcv 0.0.74 nin_cifar10, other pools",
        ((32, 32), (27, 33)),
        10,
    ),
    Reference(
        'nin_cifar100(last_pool="average", dropout=0.0)',
        pytorchcv("nin_cifar100", nin_pools("AvgPool2d")),
        "pytorchcv 0.0.74 nin_cifar100, other pools",
        ((32, 32), (30, 25)),
        100,
    ),
    Reference("nin_imagenet(dropout=0.0)", nin_imagenet, "torch layers", ((96, 96), (113, 107))),
    Reference(
        "squeezenet1_0(dropout=0.0)",
        torchvision("squeezenet1_0"),
        "torchvision 0.28.0 squeezenet1_0",
        ((64, 64), (75, 67)),
    ),
    Reference(
        "squeezenet1_1(dropout=0.0)",
        torchvision("squeezenet1_1"),
        "torchvision 0.28.0 squeezenet1_1",
        ((64, 64), (75, 67)),
    ),
    Reference(
        "squeezenet1_0_simple(dropout=0.0)",
        pytorchcv("squeezeresnet_v1_0"),
        "pytorchcv 0.0.74 squeezeresnet_v1_0",
        ((64, 64), (75, 67)),
    ),
    Reference(
        'squeezenet1_1(bypass="simple", dropout=0.0)',
        pytorchcv("squeezeresnet_v1_1"),
        "pytorchcv 0.0.74 squeezeresnet_v1_1",
        ((64, 64), (75, 67)),
    ),
    Reference(
        "squeezenet1_0_complex(dropout=0.0)",
        pytorchcv("squeezeresnet_v1_0", complex_bypass),
        "pytorchcv 0.0.74 squeezeresnet_v1_0, with 1x1 convolutions around its other fires",
        ((64, 64), (75, 67)),
    ),
    Reference(
        "squeezenet1_0(padding=1, dropout=0.0)",
        pytorchcv("squeezenet_v1_0", padded_conv10),
        "pytorchcv 0.0.74 squeezenet_v1_0, conv10 padded",
        ((64, 64), (75, 67)),
    ),
    *(
        Reference(
            f"{ours}({TORCH_NORM})",
            pytorchcv(name, change),
            f"pytorchcv 0.0.74 {name}{note}",
            ((64, 64), (75, 67)),
        )
        for ours, name, change, note in (
            ("mobilenet_v1", "mobilenet_w1", lambda net: net, ""),
            ("mobilenet_v1_075", "mobilenet_w3d4", lambda net: net, ""),
            ("mobilenet_v1_050", "mobilenet_wd2", lambda net: net, ""),
            ("mobilenet_v1_025", "mobilenet_wd4", lambda net: net, ""),
            ("mobilenet_v1_shallow", "mobilenet_w1", shallow, ", without units 2 to 6 of stage 4"),
            ("mobilenet_v1_full", "mobilenet_w1", full, ", with 3x3 convolutions for its pairs"),
        )
    ),
    Reference(
        f'mobilenet_v1(activation="relu6", {TORCH_NORM})',
        timm("mobilenetv1_100"),
        "timm 1.0.31 mobilenetv1_100",
        ((64, 64), (75, 67)),
    ),
    # Sides of which every pool meets an odd one, where TensorFlow's padding and PyTorch's are the same.
    Reference(
        f"xception({TORCH_NORM})",
        timm("legacy_xception"),
        "timm 1.0.31 legacy_xception",
        ((72, 72), (71, 104)),
    ),
    Reference(
        f"xception({TORCH_NORM}, same=False)",
        pytorchcv("xception", any_size),
        "pytorchcv 0.0.74 xception",
        ((96, 96), (79, 67)),
        last="identity_conv",
        unit=r"features\.stage\d+\.unit\d+",
    ),
]


def _nin(stages: int, **renamed: str) -> dict[str, str]:
    names = [f"conv{i}" for i in range(1, stages + 1)] + [f"cccp{i}" for i in range(1, 2 * stages + 1)]
    return {name: name for name in names} | renamed


def _squeezenet(*pools: int) -> dict[str, str]:
    names = ["conv1", "pool1", "conv10", *(f"fire{i}" for i in range(2, 10)), *(f"pool{i}" for i in pools)]
    return {name: name for name in names}


_PAIRS = {f"{kind}{i}": f"{kind}{i}" for i in range(1, 14) for kind in ("dw", "pw")}
_PAPER_MOBILENET = {"conv0": "conv0"} | _PAIRS
_SLIM_MOBILENET = {"Conv2d_0": "conv0"} | {
    f"Conv2d_{i}_{kind}wise": f"{kind[0]}w{i}" for i in range(1, 14) for kind in ("depth", "point")
}
_XCEPTION = {name: name for name in [f"conv{i}" for i in range(1, 5)] + [f"block{i}" for i in range(1, 13)]}
_KERAS = 'activation="relu6", same=True'

PUBLISHED: dict[str, tuple[str, dict[str, str]]] = {
    "nin_cifar10": ("nin_cifar10", _nin(3, pool1="pool1", pool2="pool2")),
    "nin_cifar100": ("nin_cifar100", _nin(3, pool1="pool1", pool2="pool2")),
    "nin_imagenet_224": ("nin_imagenet", _nin(4, pool0="pool1", pool2="pool2", pool3="pool3")),
    "squeezenet_1.0": ("squeezenet1_0", _squeezenet(4, 8)),
    "squeezenet_1.1": ("squeezenet1_1", _squeezenet(3, 5)),
    "squeezenet_1.0_227": ("squeezenet1_0", _squeezenet(4, 8)),
    "squeezenet_1.1_227": ("squeezenet1_1", _squeezenet(3, 5)),
    "mobilenet_v1_1.0_224": ("mobilenet_v1", _PAPER_MOBILENET),
    "mobilenet_v1_0.5_160": ("mobilenet_v1_050", _PAPER_MOBILENET),
    "mobilenet_v1_0.25_128": ("mobilenet_v1_025", _PAPER_MOBILENET),
    "tfslim_mobilenet_v1_1.0_224": (f"mobilenet_v1({_KERAS})", _SLIM_MOBILENET),
    "tfslim_mobilenet_v1_0.5_160": (f"mobilenet_v1_050({_KERAS})", _SLIM_MOBILENET),
    "tfslim_mobilenet_v1_0.25_128": (f"mobilenet_v1_025({_KERAS})", _SLIM_MOBILENET),
    'keras_MobileNet{"alpha": 1.0, "input_shape": [224, 224, 3]}': (f"mobilenet_v1({_KERAS})", {}),
    'keras_MobileNet{"alpha": 0.5, "input_shape": [160, 160, 3]}': (f"mobilenet_v1_050({_KERAS})", {}),
    'keras_MobileNet{"alpha": 0.25, "input_shape": [128, 128, 3]}': (f"mobilenet_v1_025({_KERAS})", {}),
    "xception": ("xception", _XCEPTION),
    "keras_Xception": ("xception", {}),
}

ALONE = {"airbench94": "plain torch layers, from the paper's listing"}
