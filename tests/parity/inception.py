"""References of the Inception networks.

Images are such that the last maps are at least 2x2. Dropout is off: the harness compares training without chance.
"""

import importlib
from collections.abc import Callable
from typing import Any

from tests.parity.harness import Reference, torch_models, torch_module

# Table 1 of the paper, in the order of its columns from #1x1 on; 0 is a pool between modules.
TABLE = """
64 96 128 16 32 32
128 128 192 32 96 64
0
192 96 208 16 48 64
160 112 224 24 64 64
128 128 256 24 64 64
112 144 288 32 64 64
256 160 320 32 128 128
0
256 160 320 32 128 128
384 192 384 48 128 128
"""


def paper(batch_norm: bool, aux: bool) -> Any:
    """GoogLeNet of Table 1 and Fig. 3 in plain PyTorch: Caffe's pools and its local response normalisation."""
    torch = torch_module()
    nn = torch.nn

    class Joined(nn.ModuleList):
        def forward(self, x: Any) -> Any:
            return torch.cat([branch(x) for branch in self], 1)

    def conv(inputs: int, outputs: int, size: int = 1, stride: int = 1) -> list[Any]:
        layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=not batch_norm)
        return [layer, nn.BatchNorm2d(outputs, eps=1e-3), nn.ReLU()] if batch_norm else [layer, nn.ReLU()]

    def pool() -> Any:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    def lrn() -> Any:
        return nn.Identity() if batch_norm else nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)

    def classifier(inputs: int) -> Any:
        return nn.Sequential(
            nn.AvgPool2d(5, 3, ceil_mode=True), *conv(inputs, 128), nn.Flatten(),
            nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, 1000),
        )  # fmt: skip

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [*conv(3, 64, 7, 2), pool(), lrn(), *conv(64, 64), *conv(64, 192, 3), lrn(), pool()]
            self.stages, self.aux, maps = nn.ModuleList([nn.Sequential(*layers)]), nn.ModuleDict(), 192
            for row in TABLE.split("\n")[1:-1]:
                a, *rest = map(int, row.split())
                if not a:
                    self.stages.append(pool())
                    continue
                b, c, d, e, f = rest
                self.stages.append(
                    Joined([
                        nn.Sequential(*conv(maps, a)),
                        nn.Sequential(*conv(maps, b), *conv(b, c, 3)),
                        nn.Sequential(*conv(maps, d), *conv(d, e, 5)),
                        nn.Sequential(nn.MaxPool2d(3, 1, 1), *conv(maps, f)),
                    ])
                )  # fmt: skip
                maps = a + c + e + f
                if aux and len(self.stages) in (5, 8):  # 4a, 4d
                    self.aux[str(len(self.stages))] = classifier(maps)
            self.head = nn.Linear(maps, 1000)

        def forward(self, x: Any) -> Any:
            outputs = []
            for i, stage in enumerate(self.stages, start=1):
                x = stage(x)
                if self.training and str(i) in self.aux:
                    outputs.append(self.aux[str(i)](x))
            logits = self.head(x.mean((2, 3)))
            return (logits, *outputs) if outputs else logits

    return Net()


def torchvision(name: str, aux: bool = False, change: Callable[[Any], Any] = lambda net: net) -> Callable[[], Any]:
    return lambda: change(getattr(torch_models("torchvision"), name)(aux_logits=aux, init_weights=False))


def timm(name: str) -> Callable[[], Any]:
    return lambda: torch_models("timm").create_model(name)


def pytorchcv(name: str, change: Callable[[Any], Any] = lambda net: net) -> Callable[[], Any]:
    """Their network, with a last pool that takes any size."""

    def make() -> Any:
        torch = torch_module()
        net = torch_models("pytorchcv").get_model(name)
        net.features.final_pool = torch.nn.AdaptiveAvgPool2d(1)
        return change(net)

    return make


def layers(net: Any, kind: str) -> list[tuple[Any, str, Any]]:
    """Its layers of that kind, with the modules that have them and their names there."""
    return [
        (module, name, layer)
        for module in list(net.modules())
        for name, layer in module.named_children()
        if type(layer).__name__ == kind
    ]


def unbiased(net: Any) -> Any:
    """No biases before a normalisation: theirs change nothing in training."""
    for _, _, layer in layers(net, "Conv2d"):
        layer.bias = None
    return net


def unpadded(net: Any) -> Any:
    """The zeros around maps count in no mean, as in the authors' release."""
    for _, _, layer in layers(net, "AvgPool2d"):
        layer.count_include_pad = False
    return net


def same(net: Any) -> Any:
    """TensorFlow's padding, by timm's layers, where there are strides."""
    Conv2dSame = importlib.import_module("timm.layers.conv2d_same").Conv2dSame
    MaxPool2dSame = importlib.import_module("timm.layers.pool2d_same").MaxPool2dSame
    for module, name, old in layers(net, "Conv2d"):
        if old.stride[0] > 1:
            maps = old.in_channels, old.out_channels
            new = Conv2dSame(*maps, old.kernel_size, old.stride, groups=old.groups, bias=old.bias is not None)
            setattr(module, name, new)
    for module, name, old in layers(net, "MaxPool2d"):
        if old.stride > 1:
            setattr(module, name, MaxPool2dSame(old.kernel_size, old.stride))
    return unpadded(net)


def slim_v2(net: Any) -> Any:
    """TF-Slim's Inception-v2: a separable first convolution, 96 maps after the pools of 4c and 4d, other padding."""
    nn = torch_module().nn
    net = unbiased(net)
    first, fewer = net.features.init_block.conv1, {608: 576, 1056: 1024}
    first.conv = nn.Sequential(nn.Conv2d(3, 24, 7, 2, 3, groups=3, bias=False), nn.Conv2d(24, 64, 1))
    first.bn = nn.Identity()
    for unit in (net.features.stage2.unit4, net.features.stage2.unit5):
        pooled = unit.branches.branch4.conv
        pooled.conv, pooled.bn = nn.Conv2d(pooled.conv.in_channels, 96, 1, bias=False), nn.BatchNorm2d(96)
    for module, name, old in layers(net, "Conv2d"):
        if old.in_channels in fewer:
            setattr(module, name, nn.Conv2d(fewer[old.in_channels], old.out_channels, 1, bias=False))
    for _, _, layer in layers(net, "BatchNorm2d"):
        layer.eps = 1e-3
    return same(net)


SMALL = ((64, 64), (65, 96))
PADDED_LATE = ((107, 128), (139, 124))  # for the networks of 299x299, whose first layers are not padded
PAPER = "torch layers, from the paper's Table 1"


def row(ours: str, theirs: Callable[[], Any], source: str, sizes: Any = SMALL, aux: Any = None) -> Reference:
    return Reference(ours, theirs, source, sizes, batch=2, aux=aux)


ROWS = [
    row("googlenet(dropout=0)", lambda: paper(False, False), PAPER),
    row(
        "googlenet_aux(dropout=0, aux_dropout=0)",
        lambda: paper(False, True),
        PAPER,
        ((192, 192), (193, 208)),  # the auxiliary classifiers need 4x4 windows: maps of 12x12 to 14x14
        tuple,
    ),
    row("googlenet_bn(dropout=0)", lambda: paper(True, False), PAPER),
    row(
        "googlenet_bn_aux(dropout=0, aux_dropout=0)", lambda: paper(True, True), PAPER, ((192, 192), (193, 208)), tuple
    ),
    row("googlenet_torchvision(dropout=0)", torchvision("googlenet"), "torchvision 0.28.0 googlenet"),
    row(
        "googlenet_torchvision_aux(dropout=0, aux_dropout=0)",
        torchvision("googlenet", aux=True),
        "torchvision 0.28.0 googlenet(aux_logits=True)",
        ((96, 96), (95, 113)),
        lambda out: (out.logits, out.aux_logits1, out.aux_logits2),
    ),
    row(
        "inception_v1(dropout=0)",
        torchvision("googlenet", change=same),
        "torchvision 0.28.0 googlenet, padded by timm 1.0.31 as TensorFlow does",
    ),
    row(
        "bn_inception(dropout=0, norm_epsilon=1e-5)",  # pytorchcv's epsilon
        pytorchcv("bninception", unbiased),
        "pytorchcv 0.0.74 bninception",
    ),
    row(
        "inception_v2(dropout=0)",
        pytorchcv("bninception", slim_v2),
        "pytorchcv 0.0.74 bninception, changed to TF-Slim's, padded by timm 1.0.31 as TensorFlow does",
    ),
    row(
        "inception_v3(dropout=0, count_padding=True)",
        timm("inception_v3"),
        "timm 1.0.31 inception_v3",
        PADDED_LATE,
    ),
    row("inception_v3(dropout=0)", pytorchcv("inceptionv3", unpadded), "pytorchcv 0.0.74 inceptionv3", PADDED_LATE),
    row(
        "inception_v3_aux(dropout=0, count_padding=True)",
        torchvision("inception_v3", aux=True),
        "torchvision 0.28.0 inception_v3(aux_logits=True)",
        ((299, 299), (299, 347)),
        lambda out: (out.logits, out.aux_logits),
    ),
    row("inception_v4(dropout=0)", timm("inception_v4"), "timm 1.0.31 inception_v4", PADDED_LATE),
    row("inception_v4(dropout=0)", pytorchcv("inceptionv4"), "pytorchcv 0.0.74 inceptionv4", PADDED_LATE),
    row("inception_resnet_v2(dropout=0)", timm("inception_resnet_v2"), "timm 1.0.31 inception_resnet_v2", PADDED_LATE),
    row(
        "inception_resnet_v2(dropout=0)",
        pytorchcv("inceptionresnetv2"),
        "pytorchcv 0.0.74 inceptionresnetv2",
        PADDED_LATE,
    ),
]


def pairs(theirs: str, ours: str) -> dict[str, str]:
    return dict(zip(theirs.split(), ours.split(), strict=True))


_V1 = (
    "conv1 pool1 conv2_reduce conv2 pool2 inception_3a inception_3b pool3 inception_4a inception_4b inception_4c "
    "inception_4d inception_4e pool4 inception_5a inception_5b"
)
_V2 = (
    "conv1 pool1 conv2_reduce conv2 pool2 inception_3a inception_3b inception_3c inception_4a inception_4b "
    "inception_4c inception_4d inception_4e inception_5a inception_5b"
)
_V3 = (
    "conv_1a conv_2a conv_2b pool_3a conv_3b conv_4a pool_5a mixed_5b mixed_5c mixed_5d mixed_6a mixed_6b mixed_6c "
    "mixed_6d mixed_6e mixed_7a mixed_7b mixed_7c"
)
_V4 = (
    "conv_1a conv_2a conv_2b mixed_3a mixed_4a mixed_5a mixed_5b mixed_5c mixed_5d mixed_5e mixed_6a mixed_6b mixed_6c "
    "mixed_6d mixed_6e mixed_6f mixed_6g mixed_6h mixed_7a mixed_7b mixed_7c mixed_7d"
)
_RESNET = "conv_1a conv_2a conv_2b pool_3a conv_3b conv_4a pool_5a mixed_5b"

_PAPER_V1 = pairs("conv1 pool1 conv2r conv2 pool2 i3a i3b pool3 i4a i4b i4c i4d i4e pool4 i5a i5b", _V1)
_PAPER_V2 = pairs("conv1 pool1 conv2r conv2 pool2 i3a i3b i3c i4a i4b i4c i4d i4e i5a i5b", _V2)
_TORCHVISION = pairs(
    "conv1 maxpool1 conv2 conv3 maxpool2 inception3a inception3b maxpool3 inception4a inception4b inception4c "
    "inception4d inception4e maxpool4 inception5a inception5b",
    _V1,
)
# TF-Slim counts a pool among the modules of its size: its Mixed_3b is the papers' 3a.
_SLIM_V1 = pairs(
    "Conv2d_1a_7x7 MaxPool_2a_3x3 Conv2d_2b_1x1 Conv2d_2c_3x3 MaxPool_3a_3x3 Mixed_3b Mixed_3c MaxPool_4a_3x3 Mixed_4b "
    "Mixed_4c Mixed_4d Mixed_4e Mixed_4f MaxPool_5a_2x2 Mixed_5b Mixed_5c",
    _V1,
)
_SLIM_V2 = pairs(
    "Conv2d_1a_7x7 MaxPool_2a_3x3 Conv2d_2b_1x1 Conv2d_2c_3x3 MaxPool_3a_3x3 Mixed_3b Mixed_3c Mixed_4a Mixed_4b "
    "Mixed_4c Mixed_4d Mixed_4e Mixed_5a Mixed_5b Mixed_5c",
    _V2,
)
_TORCH_V3 = pairs(
    "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 maxpool2 Mixed_5b Mixed_5c "
    "Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b Mixed_7c",
    _V3,
)
_SLIM_V3 = pairs(
    "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 MaxPool_3a_3x3 Conv2d_3b_1x1 Conv2d_4a_3x3 MaxPool_5a_3x3 Mixed_5b "
    "Mixed_5c Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b Mixed_7c",
    _V3,
)
_SLIM_V4 = pairs(
    "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 Mixed_3a Mixed_4a Mixed_5a Mixed_5b Mixed_5c Mixed_5d Mixed_5e Mixed_6a "
    "Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_6f Mixed_6g Mixed_6h Mixed_7a Mixed_7b Mixed_7c Mixed_7d",
    _V4,
)
_TIMM_RESNET = pairs(
    "conv2d_1a conv2d_2a conv2d_2b maxpool_3a conv2d_3b conv2d_4a maxpool_5a mixed_5b repeat mixed_6a repeat_1 "
    "mixed_7a block8 conv2d_7b",
    f"{_RESNET} block35 mixed_6a block17 mixed_7a block8 conv_7b",
)
_SLIM_RESNET = pairs(
    "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 MaxPool_3a_3x3 Conv2d_3b_1x1 Conv2d_4a_3x3 MaxPool_5a_3x3 Mixed_5b "
    "Mixed_6a PreAuxLogits Mixed_7a Conv2d_7b_1x1",
    f"{_RESNET} mixed_6a block17 mixed_7a conv_7b",
)

PUBLISHED: dict[str, tuple[str, dict[str, str]]] = {
    "googlenet": ("googlenet", _PAPER_V1),
    "googlenet_bn_5x5": ("googlenet_bn", _PAPER_V1),
    "googlenet_torchvision": ("googlenet_torchvision", _TORCHVISION),
    "tfslim_inception_v1": ("inception_v1", _SLIM_V1),
    "bninception_paper_table": ("bn_inception", _PAPER_V2),
    "bninception_slim": ("inception_v2(norm_scale=True)", _PAPER_V2),
    "tfslim_inception_v2": ("inception_v2", _SLIM_V2),
    "inception_v3": ("inception_v3", _TORCH_V3),
    # With the auxiliary classifiers: of these rows `params_total_with_aux` and `state` count them.
    "tfslim_inception_v3": ("inception_v3_aux(norm_scale=False)", _SLIM_V3),
    "keras_InceptionV3": ("inception_v3(norm_scale=False)", {}),
    "inception_v4": ("inception_v4", {f"features.{i}": end for i, end in enumerate(_V4.split())}),
    "tfslim_inception_v4": ("inception_v4_aux(norm_scale=False)", _SLIM_V4),
    "inception_resnet_v2": ("inception_resnet_v2", _TIMM_RESNET),
    "tfslim_inception_resnet_v2": ("inception_resnet_v2_aux(norm_scale=False)", _SLIM_RESNET),
    "keras_InceptionResNetV2": ("inception_resnet_v2(norm_scale=False)", {}),
}

ALONE: dict[str, str] = {
    "inception_v4_aux": "inception_v4 without its auxiliary classifier, which is that of inception_v3_aux",
    "inception_resnet_v2_aux": "inception_resnet_v2 without its auxiliary classifier, that of inception_v3_aux",
}
