"""References of the ImageNet ResNets with the activation before the convolutions."""

from typing import Any

from tests.parity.harness import Reference, torch_models, torch_module


def timm(stem_type: str = "") -> Any:
    return torch_models("timm").create_model("resnetv2_50", stem_type=stem_type)


def pytorchcv(name: str) -> Any:
    """Their network, with a last pool that takes any size."""
    torch = torch_module()
    net = torch_models("pytorchcv").get_model(name)
    net.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
    return net


def activated_once() -> Any:
    """Theirs normalises what the first unit gets a second time; the paper's does not."""
    torch = torch_module()
    net = pytorchcv("preresnet50b")
    net.features.stage1.unit1.body.conv1.bn = torch.nn.Identity()
    return net


def stride_last(stem_type: str) -> Any:
    """timm's units with the biases of TF-Slim's, and its strides, at the end of stages."""
    torch = torch_module()

    class Last(torch.nn.Module):
        """A unit whose shortcut is every second pixel; timm has none."""

        def __init__(self, unit: Any) -> None:
            super().__init__()
            self.unit = unit
            unit.conv2.stride = (2, 2)

        def forward(self, x: Any) -> Any:
            unit = self.unit
            y = unit.conv2(unit.norm2(unit.conv1(unit.norm1(x))))
            return unit.conv3(unit.norm3(y)) + x[:, :, ::2, ::2]

    net = timm(stem_type)
    for stage in net.stages:
        stage.blocks[0].conv2.stride = stage.blocks[0].downsample.conv.stride = (1, 1)
    for name, module in net.named_modules():
        if name.endswith(("stem.conv", "conv3", "downsample.conv")):
            module.bias = torch.nn.Parameter(torch.zeros(module.out_channels))
    for stage in net.stages[:-1]:
        stage.blocks[-1] = Last(stage.blocks[-1])
    return net


_TIMM: dict[str, Any] = {"last": r"downsample", "unit": r"stages\.\d+\.blocks\.\d+"}
_SIZES = ((64, 64), (97, 71))
_RESNET18 = 'resnet50_v2(stage_sizes=(2, 2, 2, 2), block="basic", layout="both"'

ROWS = [
    Reference("resnet50_v2", activated_once, "pytorchcv 0.0.74 preresnet50b, first norm removed", _SIZES),
    Reference('resnet50_v2(layout="bare")', timm, "timm 1.0.31 resnetv2_50", _SIZES, **_TIMM),
    Reference(
        'resnet50_v2(layout="both")',
        lambda: pytorchcv("preresnet50b"),
        "pytorchcv 0.0.74 preresnet50b",
        _SIZES,
    ),
    Reference(
        'resnet50_v2(layout="both", stride="1x1")',
        lambda: pytorchcv("preresnet50"),
        "pytorchcv 0.0.74 preresnet50",
        _SIZES,
    ),
    Reference(
        'resnet50_v2(layout="slim")',
        lambda: stride_last("same"),
        "timm 1.0.31 resnetv2_50, TF-Slim's strides and biases",
        _SIZES,
        **_TIMM,
    ),
    Reference(
        'resnet50_v2(layout="keras")',
        lambda: stride_last("fixed"),  # Keras pads the pool with zeros, as BiT does
        "timm 1.0.31 resnetv2_50, Keras' pool, strides and biases",
        _SIZES,
        **_TIMM,
    ),
    Reference(f"{_RESNET18})", lambda: pytorchcv("preresnet18"), "pytorchcv 0.0.74 preresnet18", _SIZES),
    Reference(f"{_RESNET18}, se=16)", lambda: pytorchcv("sepreresnet18"), "pytorchcv 0.0.74 sepreresnet18", _SIZES),
]

_STAGES = {name: name for name in ("conv1", "pool1", "conv2_x", "conv3_x", "conv4_x", "conv5_x")}
# At a block's end TF-Slim has already reduced, so its shapes are those of our stages in the same layout.
_BLOCKS = {"conv1": "conv1"} | {f"block{i}": f"conv{i + 1}_x" for i in (1, 2, 3, 4)}
_DEPTHS = (50, 101, 152, 200)

PUBLISHED: dict[str, tuple[str, dict[str, str]]] = (
    {f"resnet{depth}_v2": (f'resnet{depth}_v2(layout="bare")', _STAGES) for depth in _DEPTHS}
    | {f"resnet{depth}_v2_stembn": (f'resnet{depth}_v2(layout="both")', _STAGES) for depth in _DEPTHS}
    | {"resnet200_v2_fb": ("resnet200_v2", _STAGES)}
    | {
        f"tfslim_resnet_v2_{depth}": (
            f'resnet{depth}_v2(layout="slim", norm_momentum=0.997)',
            {f"resnet_v2_{depth}/{theirs}": ours for theirs, ours in _BLOCKS.items()},
        )
        for depth in _DEPTHS
    }
    | {
        f"keras_ResNet{depth}V2": (f'resnet{depth}_v2(layout="keras", norm_epsilon=1.001e-5, norm_momentum=0.99)', {})
        for depth in _DEPTHS[:-1]
    }
)

_DEEPER = (
    "the class of resnet50_v2, with longer stages: counts of parameters, statistics and multiplications, and shapes"
)

ALONE: dict[str, str] = {f"resnet{depth}_v2": _DEEPER for depth in _DEPTHS[1:]}
