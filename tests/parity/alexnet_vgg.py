"""References of AlexNet, ZFNet, VGG and the PReLU-nets.

Where a library's network is fixed to one size of the last maps, two sizes of images are chosen that give it.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from tests.parity.harness import Reference, torch_models, torch_module


def alexnet(features: Sequence[int], groups: int = 1, lrn: Any = None, pool_first: bool = False, side: int = 6) -> Any:
    """AlexNet of plain layers; `lrn` is (alpha times the 5 maps, as torch divides it, and k)."""
    torch = torch_module()

    layers: list[Any] = []
    maps = 3
    for i, (out, kernel) in enumerate(zip(features, (11, 5, 3, 3, 3), strict=True), start=1):
        split = groups if i in (2, 4, 5) else 1
        layers += [torch.nn.Conv2d(maps, out, kernel, 4 if i == 1 else 1, 0 if i == 1 else kernel // 2, groups=split)]
        layers += [torch.nn.ReLU()]
        norm = [torch.nn.LocalResponseNorm(5, lrn[0], 0.75, lrn[1])] if lrn and i <= 2 else []
        pool = [torch.nn.MaxPool2d(3, 2)] if i in (1, 2, 5) else []
        layers += pool + norm if pool_first else norm + pool
        maps = out
    layers += [torch.nn.Flatten(), torch.nn.Linear(maps * side**2, 4096), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(4096, 4096), torch.nn.ReLU(), torch.nn.Linear(4096, 10))


def alexnet_2012() -> Any:
    """AlexNet as its source code has it. Their pools and a padding below and to the right give its windows."""
    torch = torch_module()
    nn, functional = torch.nn, torch.nn.functional

    class SpatialNorm(nn.Module):
        def forward(self, x: Any) -> Any:
            return x / (1 + 1e-3 * functional.avg_pool2d(x**2, 5, 1, 2)) ** 0.75

    class Overhang(nn.Module):
        def forward(self, x: Any) -> Any:
            return functional.pad(x, (0, -(x.shape[3] - 11) % 4, 0, -(x.shape[2] - 11) % 4))

    def pool() -> Any:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    lrn = partial(nn.LocalResponseNorm, 5, 1e-4, 0.75, 2.0)
    conv = partial(nn.Conv2d, kernel_size=3, padding=1)
    return nn.Sequential(
        Overhang(), nn.Conv2d(3, 96, 11, 4), lrn(), pool(), nn.ReLU(),
        nn.Conv2d(96, 256, 5, 1, 2, groups=2), nn.ReLU(), lrn(), SpatialNorm(), pool(),
        conv(256, 384), nn.ReLU(), conv(384, 384, groups=2), nn.ReLU(), conv(384, 256, groups=2), pool(), nn.ReLU(),
        nn.Flatten(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 10),
    )  # fmt: skip


def zfnet(name: str) -> Any:
    """Their network with the response normalisation behind the pools, and with alpha undivided."""
    torch = torch_module()

    net = torch_models("pytorchcv").get_model(name, num_classes=10)
    for stage in (net.features.stage1, net.features.stage2):
        stage.unit1.use_lrn = False
        stage.append(torch.nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0))
    return net


def vgg(name: str, pointwise: Sequence[int] = (), lrn: bool = False) -> Any:
    """Their network for images that leave 2x3 maps; `pointwise` are its layers that C has with 1x1 kernels."""
    torch = torch_module()

    net = getattr(torch_models("torchvision"), name)(num_classes=10)
    for i in pointwise:
        net.features[i] = torch.nn.Conv2d(net.features[i].in_channels, net.features[i].out_channels, 1)
    if lrn:
        net.features.insert(2, torch.nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0))
    net.avgpool = torch.nn.Identity()
    net.classifier[0] = torch.nn.Linear(512 * 2 * 3, 4096)
    return net


def prelunet(
    stages: Sequence[int], features: Sequence[int], levels: Sequence[int], kernel: int = 3, pool: int = 2
) -> Any:
    """A PReLU-net of plain layers."""
    torch = torch_module()

    class Pyramid(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            pools = [torch.nn.functional.adaptive_max_pool2d(x, bins) for bins in levels]
            return torch.cat([maps.permute(0, 2, 3, 1).flatten(1) for maps in pools], dim=1)

    def act(maps: int) -> Any:
        return torch.nn.PReLU(maps)

    layers: list[Any] = [torch.nn.Conv2d(3, features[0], 7, 2, 3), act(features[0])]
    maps = features[0]
    for i, (size, out) in enumerate(zip(stages, features[1:], strict=True)):
        layers += [torch.nn.MaxPool2d(pool if i == 0 else 2)]
        for j in range(size):
            layers += [torch.nn.Conv2d(maps, out, kernel, 1, 1 if kernel == 3 else j % 2), act(out)]
            maps = out
    inputs = maps * sum(bins**2 for bins in levels)
    layers += [Pyramid(), torch.nn.Linear(inputs, 4096), act(4096), torch.nn.Linear(4096, 4096), act(4096)]
    return torch.nn.Sequential(*layers, torch.nn.Linear(4096, 10))


OLD, SLIM = (96, 256, 384, 384, 256), (64, 192, 384, 384, 256)
AT_227, AT_224 = ((227, 227), (230, 229)), ((224, 224), (225, 226))  # last maps of 6x6, of AlexNet
AT_ZF = ((224, 224), (225, 222))  # 6x6, with windows of pools that are complete and that are not
AT_VGG = ((64, 96), (75, 97))  # 2x3
AT_PYRAMID = ((64, 64), (81, 97))  # 4x4; and 5x6, where bins of a third overlap unevenly; of 'small' 5x5 and 6x8
BN_C, C = (20, 30, 40), (14, 21, 28)  # third convolutions of stages, in torchvision's lists of layers

Row = partial(Reference, num_classes=10, batch=2)

ROWS: list[Reference] = [
    Row("alexnet(dropout=0.0)", lambda: alexnet(OLD, 2, (5e-4, 2.0)), "torch layers", AT_227),
    Row("alexnet_2012(dropout=0.0)", alexnet_2012, "torch layers", ((224, 224), (217, 226))),
    Row("alexnet_caffe(dropout=0.0)", lambda: alexnet(OLD, 2, (1e-4, 1.0)), "torch layers", AT_227),
    Row("caffenet(dropout=0.0)", lambda: alexnet(OLD, 2, (1e-4, 1.0), True), "torch layers", AT_227),
    Row("alexnet_v2(dropout=0.0)", lambda: alexnet(SLIM, side=5), "torch layers", AT_224),
    Row('alexnet_v2(head="conv", dropout=0.0)', lambda: alexnet(SLIM, side=5), "torch layers", AT_224),
    Row(
        "alexnet_ungrouped(lrn_alpha=2e-5, dropout=0.0)",  # theirs is divided by the 5 maps
        lambda: torch_models("pytorchcv").get_model("alexnet", num_classes=10),
        "pytorchcv 0.0.74 alexnet",
        AT_227,
    ),
    Row(
        "alexnet_owt(dropout=0.0)",
        lambda: torch_models("torchvision").alexnet(num_classes=10),
        "torchvision 0.28 alexnet",
        AT_224,
    ),
    Row("zfnet(dropout=0.0)", lambda: zfnet("zfnet"), "pytorchcv 0.0.74 zfnet", AT_ZF),
    Row("zfnet_512_1024_512(dropout=0.0)", lambda: zfnet("zfnetb"), "pytorchcv 0.0.74 zfnetb", AT_ZF),
    *(
        Row(f"{ours}(dropout=0.0)", lambda theirs=theirs: vgg(theirs), f"torchvision 0.28 {theirs}", AT_VGG, batch=4)
        for letter, number in (("a", 11), ("b", 13), ("d", 16), ("e", 19))
        for ours, theirs in ((f"vgg_{letter}", f"vgg{number}"), (f"vgg_{letter}_bn", f"vgg{number}_bn"))
    ),
    Row("vgg_a_lrn(dropout=0.0)", lambda: vgg("vgg11", lrn=True), "torchvision 0.28 vgg11, with a layer", AT_VGG),
    Row("vgg_c(dropout=0.0)", lambda: vgg("vgg16", C), "torchvision 0.28 vgg16, with 1x1", AT_VGG),
    Row("vgg_c_bn(dropout=0.0)", lambda: vgg("vgg16_bn", BN_C), "torchvision 0.28 vgg16_bn, with 1x1", AT_VGG, batch=4),
    # Small pyramids spare the first full connection its 132 to 231 million weights.
    Row(
        "prelunet_small(dropout=0.0)",
        lambda: prelunet((4, 6), (64, 128, 256), (6, 3, 2, 1), 2, 3),
        "torch layers",
        AT_PYRAMID,
    ),
    Row(
        "prelunet_a(levels=(3, 2, 1), dropout=0.0)",
        lambda: prelunet((5, 5, 5), (96, 256, 512, 512), (3, 2, 1)),
        "torch layers",
        AT_PYRAMID,
    ),
    Row(
        "prelunet_b(levels=(3, 2, 1), dropout=0.0)",
        lambda: prelunet((6, 6, 6), (96, 256, 512, 512), (3, 2, 1)),
        "torch layers",
        AT_PYRAMID,
    ),
    Row(
        "prelunet_c(levels=(3, 2, 1), dropout=0.0)",
        lambda: prelunet((6, 6, 6), (96, 384, 768, 896), (3, 2, 1)),
        "torch layers",
        AT_PYRAMID,
    ),
]

_MAPS = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5")
_ALEX = {name: name for name in _MAPS}


def _vgg_ends(*sizes: int, scope: str = "") -> dict[str, str]:
    """Their names of a VGG's maps, in TF-Slim with the scopes, -> ours."""
    ends = {}
    for stage, size in enumerate(sizes, start=1):
        for i in range(1, size + 1):
            name = f"conv{stage}_{i}"
            ends[f"{scope}/conv{stage}/{name}" if scope else name] = name
        ends[f"{scope}/pool{stage}" if scope else f"pool{stage}"] = f"pool{stage}"
    return ends


def _prelunet_ends(*sizes: int) -> dict[str, str]:
    names = ["conv1"]
    for stage, size in enumerate(sizes, start=2):
        names += [f"pool{stage - 1}", *(f"conv{stage}_{i}" for i in range(1, size + 1))]
    return {name: name for name in names}


# architectures.json's rows: our network, and the names of its maps with ours.
PUBLISHED: dict[str, tuple[str, dict[str, str]]] = {
    "alexnet_2group_227": ("alexnet", _ALEX),
    "alexnet_ungrouped_227": ("alexnet_ungrouped", _ALEX),
    "alexnet_torchvision_224": (
        "alexnet_owt",
        {f"features.{i}": name for i, name in zip((0, 2, 3, 5, 6, 8, 10, 12), _MAPS, strict=True)}
        | {"avgpool": "pool5"},
    ),
    "tfslim_alexnet_v2": ("alexnet_v2", {f"alexnet_v2/{name}": name for name in _ALEX}),
    "zfnet_384_384_256_224": ("zfnet", _ALEX),
    "zfnet_512_1024_512_224": ("zfnet_512_1024_512", _ALEX),
    "vgg_A": ("vgg_a", _vgg_ends(1, 1, 2, 2, 2)),
    "vgg_A_bn": ("vgg_a_bn", _vgg_ends(1, 1, 2, 2, 2)),
    "vgg_A-LRN": ("vgg_a_lrn", _vgg_ends(1, 1, 2, 2, 2)),
    "vgg_B": ("vgg_b", _vgg_ends(2, 2, 2, 2, 2)),
    "vgg_B_bn": ("vgg_b_bn", _vgg_ends(2, 2, 2, 2, 2)),
    "vgg_C": ("vgg_c", _vgg_ends(2, 2, 3, 3, 3)),
    "vgg_D": ("vgg_d", _vgg_ends(2, 2, 3, 3, 3)),
    "vgg_D_bn": ("vgg_d_bn", _vgg_ends(2, 2, 3, 3, 3)),
    "vgg_E": ("vgg_e", _vgg_ends(2, 2, 4, 4, 4)),
    "vgg_E_bn": ("vgg_e_bn", _vgg_ends(2, 2, 4, 4, 4)),
    "tfslim_vgg_a": ("vgg11", _vgg_ends(1, 1, 2, 2, 2, scope="vgg_a")),
    "tfslim_vgg_16": ('vgg16(head="conv")', _vgg_ends(2, 2, 3, 3, 3, scope="vgg_16")),
    "tfslim_vgg_19": ('vgg19(head="conv")', _vgg_ends(2, 2, 4, 4, 4, scope="vgg_19")),
    "keras_VGG16": ("vgg16", {}),
    "keras_VGG19": ("vgg19", {}),
    "prelunet_A": ("prelunet_a", _prelunet_ends(5, 5, 5)),
    "prelunet_B": ("prelunet_b", _prelunet_ends(6, 6, 6)),
    "prelunet_C": ("prelunet_c", _prelunet_ends(6, 6, 6)),
    "prelunet_small": ("prelunet_small", _prelunet_ends(4, 6)),
}

# What stands in for an independent implementation, where there is none.
ALONE: dict[str, str] = {
    "alexnet": "plain torch layers in two groups; parameters and MACs are those of Caffe's bvlc_alexnet",
    "alexnet_2012": "plain torch layers, and loops in NumPy, from the facts about its source code",
    "alexnet_caffe": "plain torch layers; parameters and MACs are those of Caffe's bvlc_alexnet",
    "caffenet": "plain torch layers; parameters and MACs are those of Caffe's bvlc_reference_caffenet",
    "alexnet_v2": "plain torch layers; parameters, MACs and maps are those of TF-Slim's graph",
    "vgg_a_lrn": "torchvision's vgg11 with the one layer added",
    "vgg_c": "torchvision's vgg16 with three kernels of 1x1",
    "vgg_c_bn": "torchvision's vgg16_bn with three kernels of 1x1",
    "prelunet_small": "plain torch layers, from the same unverified table",
    "prelunet_a": "plain torch layers, from the same unverified table, with a smaller pyramid",
    "prelunet_b": "plain torch layers, from the same unverified table, with a smaller pyramid",
    "prelunet_c": "plain torch layers, from the same unverified table, with a smaller pyramid",
}
