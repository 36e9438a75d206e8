"""Files of weights for Caffe against OpenCV's implementation of Caffe: the same .caffemodel gives the same logits.

Networks are written out here layer by layer, as their authors' deploy.prototxt files have them, and get random weights.
OpenCV 4 reads both files, OpenCV 5 none of Caffe's any more: .ci/references.txt has one that does.
"""

import math
import pathlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
import pytest

from cnnjax import pretrained
from cnnjax.distributed import sharding
from cnnjax.pretrained import catalog
from tests.pretrained.test_caffe_files import caffemodel

OPENCV: Any = cv2.dnn

FACTOR = 3.7  # BatchNorm's third blob: what its sums of means and variances are to be divided by


class Net:
    """The text of a deploy.prototxt, and random weights for it, layer by layer.

    A layer gets the last one's maps, or those of `of`. `strength` is that of the images, and of biases in proportion.
    """

    def __init__(self, size: tuple[int, int], strength: float = 1.0) -> None:
        self.rng = np.random.default_rng(0)
        self.text = f'input: "data" input_shape {{ dim: 2 dim: 3 dim: {size[0]} dim: {size[1]} }}\n'
        self.weights: list[tuple[str, str, list[np.ndarray]]] = []  # a layer's name, kind and blobs
        self.maps = {"data": 3}  # how many, by the name of what has them
        self.last, self.strength = "data", strength

    def layer(self, kind: str, name: str, fields: str = "", of: Sequence[str] = (), top: str = "") -> None:
        """Adds one to the text; `of` are its bottoms."""
        of, top = of or (self.last,), top or name
        bottoms = " ".join(f'bottom: "{one}"' for one in of)
        self.text += f'layer {{ name: "{name}" type: "{kind}" {bottoms} top: "{top}" {fields} }}\n'
        self.maps.setdefault(top, self.maps[of[0]])
        self.last = top

    def kernel(self, *shape: int, gain: float = 2.0) -> np.ndarray:
        return self.rng.standard_normal(shape, np.float32) * math.sqrt(gain / math.prod(shape[1:]))

    def bias(self, maps: int) -> np.ndarray:
        return self.rng.normal(0, 0.5 * self.strength, maps)

    def conv(
        self,
        name: str,
        maps: int,
        kernel: int = 1,
        stride: int = 1,
        pad: int = 0,
        group: int = 1,
        *,
        of: str = "",
        bias: bool = True,
        gain: float = 2.0,
    ) -> None:
        of = of or self.last
        fields = f"num_output: {maps} kernel_size: {kernel} stride: {stride} pad: {pad} group: {group}"
        fields += "" if bias else " bias_term: false"
        weights = self.kernel(maps, self.maps[of] // group, kernel, kernel, gain=gain)
        self.maps[name] = maps
        self.layer("Convolution", name, f"convolution_param {{ {fields} }}", (of,))
        self.weights.append((name, "Convolution", [weights, self.bias(maps)] if bias else [weights]))

    def fc(self, name: str, maps: int, window: int = 1) -> None:
        """A full connection to maps of window x window."""
        inputs = self.maps[self.last] * window**2
        self.maps[name] = maps
        self.layer("InnerProduct", name, f"inner_product_param {{ num_output: {maps} }}")
        self.weights.append((name, "InnerProduct", [self.kernel(maps, inputs), self.bias(maps)]))

    def norm(self, name: str, scale: str) -> None:
        """A BatchNorm layer, whose variances get 1e-5 more unless it says otherwise, and a Scale layer."""
        maps, draw = self.maps[self.last], self.rng.uniform
        self.layer("BatchNorm", name, "batch_norm_param { use_global_stats: true }", top=self.last)
        sums = [self.bias(maps) * FACTOR, draw(0.5, 1.5, maps) * FACTOR]
        self.weights.append((name, "BatchNorm", [*sums, np.array([FACTOR])]))
        self.layer("Scale", scale, "scale_param { bias_term: true }", top=self.last)
        self.weights.append((scale, "Scale", [draw(0.5, 1.5, maps), self.bias(maps)]))

    def relu(self) -> None:
        self.layer("ReLU", f"{self.last}/relu", top=self.last)

    def pool(self, name: str, kernel: int = 3, stride: int = 2, pad: int = 0, kind: str = "MAX", of: str = "") -> None:
        fields = f"pool: {kind} kernel_size: {kernel} stride: {stride} pad: {pad}"
        self.layer("Pooling", name, f"pooling_param {{ {fields} }}", (of or self.last,))

    def mean(self, name: str) -> None:
        """Of each map: authors have a window of all that their images leave."""
        self.layer("Pooling", name, "pooling_param { pool: AVE global_pooling: true }")

    def lrn(self, name: str) -> None:
        self.layer("LRN", name, "lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")

    def join(self, name: str, of: Sequence[str]) -> None:
        self.maps[name] = sum(self.maps[one] for one in of)
        self.layer("Concat", name, "", of)


# ------------------------------------------------------------------------------------------------------------ networks


def alexnet(net: Net, pool_first: bool = False) -> None:
    rows = (96, 11, 4, 0), (256, 5, 1, 2, 2), (384, 3, 1, 1), (384, 3, 1, 1, 2), (256, 3, 1, 1, 2)
    for i, row in enumerate(rows, start=1):
        net.conv(f"conv{i}", *row)
        net.relu()
        if i <= 2 and not pool_first:
            net.lrn(f"norm{i}")
        if i in (1, 2, 5):
            net.pool(f"pool{i}")
        if i <= 2 and pool_first:
            net.lrn(f"norm{i}")
    full_connections(net, 6)


def full_connections(net: Net, window: int) -> None:
    for name, maps, side in ("fc6", 4096, window), ("fc7", 4096, 1), ("fc8", 1000, 1):
        net.fc(name, maps, side)
        if name != "fc8":
            net.relu()


def vgg(net: Net, sizes: Sequence[int]) -> None:
    for stage, (size, maps) in enumerate(zip(sizes, (64, 128, 256, 512, 512), strict=True), start=1):
        for i in range(1, size + 1):
            net.conv(f"conv{stage}_{i}", maps, 3, pad=1)
            net.relu()
        net.pool(f"pool{stage}", 2)
    full_connections(net, 7)


INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(net: Net) -> None:
    """With its auxiliary classifiers, which are in the file that BVLC published, too."""

    def conv(name: str, maps: int, *row: int, of: str = "") -> str:
        net.conv(name, maps, *row, of=of)
        net.relu()
        return name

    conv("conv1/7x7_s2", 64, 7, 2, 3)
    net.pool("pool1/3x3_s2")
    net.lrn("pool1/norm1")
    conv("conv2/3x3_reduce", 64)
    conv("conv2/3x3", 192, 3, 1, 1)
    net.lrn("conv2/norm2")
    net.pool("pool2/3x3_s2")
    for module, (one, reduce3, three, reduce5, five, projected) in INCEPTIONS.items():
        name, before = f"inception_{module}", net.last
        branches = [conv(f"{name}/1x1", one)]
        conv(f"{name}/3x3_reduce", reduce3, of=before)
        branches.append(conv(f"{name}/3x3", three, 3, 1, 1))
        conv(f"{name}/5x5_reduce", reduce5, of=before)
        branches.append(conv(f"{name}/5x5", five, 5, 1, 2))
        net.pool(f"{name}/pool", 3, 1, 1, of=before)
        branches.append(conv(f"{name}/pool_proj", projected))
        net.join(f"{name}/output", branches)
        if module in ("4a", "4d"):
            loss = f"loss{1 if module == '4a' else 2}"
            net.pool(f"{loss}/ave_pool", 5, 3, kind="AVE")
            conv(f"{loss}/conv", 128)
            net.fc(f"{loss}/fc", 1024, 4)
            net.relu()
            net.fc(f"{loss}/classifier", 1000)
            net.last = f"{name}/output"
        elif module in ("3b", "4e"):
            net.pool(f"pool{module[0]}/3x3_s2")
    net.mean("pool5")
    net.fc("loss3/classifier", 1000)


def nin(net: Net, stages: Sequence[tuple[tuple[str, int, int, int, int], ...]], second: str = "MAX") -> None:
    """Convolutions by name, maps, kernel, stride and padding; the second pool's kind."""
    for i, convs in enumerate(stages, start=1):
        for row in convs:
            net.conv(*row)
            net.relu()
        if i < len(stages):
            net.pool(f"pool{i}", kind=second if i == 2 else "MAX")
    net.mean(f"pool{len(stages)}")


NIN_IMAGENET = (
    (("conv1", 96, 11, 4, 0), ("cccp1", 96, 1, 1, 0), ("cccp2", 96, 1, 1, 0)),
    (("conv2", 256, 5, 1, 2), ("cccp3", 256, 1, 1, 0), ("cccp4", 256, 1, 1, 0)),
    (("conv3", 384, 3, 1, 1), ("cccp5", 384, 1, 1, 0), ("cccp6", 384, 1, 1, 0)),
    (("conv4-1024", 1024, 3, 1, 1), ("cccp7-1024", 1024, 1, 1, 0), ("cccp8-1024", 1000, 1, 1, 0)),
)
NIN_CIFAR = (
    (("conv1", 192, 5, 1, 2), ("cccp1", 160, 1, 1, 0), ("cccp2", 96, 1, 1, 0)),
    (("conv2", 192, 5, 1, 2), ("cccp3", 192, 1, 1, 0), ("cccp4", 192, 1, 1, 0)),
    (("conv3", 192, 3, 1, 1), ("cccp5", 192, 1, 1, 0), ("cccp6", 10, 1, 1, 0)),
)


def squeezenet(net: Net, stem: tuple[int, int], pools: Sequence[int], pad: int) -> None:
    """`stem` are the maps and the kernel of conv1, `pad` is the padding of conv10."""
    net.conv("conv1", *stem, 2)
    net.relu()
    net.pool("pool1")
    for i, maps in enumerate((16, 16, 32, 32, 48, 48, 64, 64), start=2):
        squeeze = f"fire{i}/squeeze1x1"
        net.conv(squeeze, maps)
        net.relu()
        for kernel in (1, 3):
            net.conv(f"fire{i}/expand{kernel}x{kernel}", 4 * maps, kernel, pad=kernel // 2, of=squeeze)
            net.relu()
        net.join(f"fire{i}/concat", (f"fire{i}/expand1x1", f"fire{i}/expand3x3"))
        if i in pools:
            net.pool(f"pool{i}")
    net.conv("conv10", 1000, pad=pad)
    net.relu()
    net.mean("pool10")


def resnet(net: Net, sizes: Sequence[int]) -> None:
    def conv(name: str, *row: int, of: str = "") -> None:
        net.conv(f"res{name}", *row, of=of, bias=False, gain=1)  # so that what blocks add does not outgrow the rest
        net.norm(f"bn{name}", f"scale{name}")

    net.conv("conv1", 64, 7, 2, 3, bias=sum(sizes) == 16, gain=1)  # ResNet-50 has biases there, the deeper ones none
    net.norm("bn_conv1", "scale_conv1")
    net.relu()
    net.pool("pool1")
    for stage, size in enumerate(sizes, start=2):
        for i in range(size):
            letters = sum(sizes) == 16 or size == 3
            block, before = f"{stage}{'abcdef'[i] if letters or i == 0 else f'b{i}'}", net.last
            maps, stride = 2 ** (stage + 4), 2 if i == 0 and stage > 2 else 1
            if i == 0:
                conv(f"{block}_branch1", 4 * maps, 1, stride)
            conv(f"{block}_branch2a", maps, 1, stride, of=before)
            net.relu()
            conv(f"{block}_branch2b", maps, 3, 1, 1)
            net.relu()
            conv(f"{block}_branch2c", 4 * maps)
            shortcut = before if i else f"res{block}_branch1"
            net.layer("Eltwise", f"res{block}", "", (shortcut, f"res{block}_branch2c"))
            net.relu()
    net.mean("pool5")
    net.fc("fc1000", 1000)


def se_resnet(net: Net, sizes: Sequence[int], width: int = 64, group: int = 1) -> None:
    """Axpy of the authors' Caffe, which OpenCV lacks, is a Scale layer of two bottoms and a sum."""

    def conv(name: str, *row: int, of: str = "") -> None:
        net.conv(name, *row, of=of, bias=False, gain=1)
        net.norm(f"{name}/bn", f"{name}/bn/scale")

    conv("conv1/7x7_s2", 64, 7, 2, 3)
    net.relu()
    net.pool("pool1/3x3_s2")
    for stage, size in enumerate(sizes, start=2):
        for i in range(1, size + 1):
            block, before = f"conv{stage}_{i}", net.last
            maps, inner, stride = 2 ** (stage + 6), width * 2 ** (stage - 2), 2 if i == 1 and stage > 2 else 1
            conv(f"{block}_1x1_reduce", inner, 1, stride if group == 1 else 1)
            net.relu()
            conv(f"{block}_3x3", inner, 3, stride if group > 1 else 1, 1, group)
            net.relu()
            conv(f"{block}_1x1_increase", maps)
            net.mean(f"{block}_global_pool")
            net.conv(f"{block}_1x1_down", maps // 16)
            net.relu()
            net.conv(f"{block}_1x1_up", maps, gain=2 / 16)  # gates near 0 or 1 would amplify what float32 rounds
            net.layer("Sigmoid", f"{block}_prob", top=net.last)
            if i == 1:
                conv(f"{block}_1x1_proj", maps, 1, stride, of=before)
            gated = f"{block}_gated"
            net.layer("Scale", gated, "scale_param { axis: 0 }", (f"{block}_1x1_increase", f"{block}_1x1_up"))
            net.layer("Eltwise", block, "", (gated, before if i > 1 else f"{block}_1x1_proj"))
            net.relu()
    net.mean("pool5/7x7_s1")
    net.fc("classifier", 1000)


# ------------------------------------------------------------------------------------------------------------ the test


class Case(NamedTuple):
    """A network, and what it is compared with."""

    write: Callable[[Net], None]
    size: tuple[int, int]  # of the images
    of_2014: bool = True  # whether the published file is of Caffe's first format
    strength: float = 1.0  # of the images: of response normalisation a weak one would show little
    ours: str = ""  # our call string, where the catalogue has none
    aux: tuple[str, ...] = ()  # layers whose outputs are those of our auxiliary classifiers


strong, new = partial(Case, strength=100.0), partial(Case, of_2014=False)
MIXED = 75, 96  # where the head allows: a pool has an incomplete window at one side and none at the other
CATALOGUED = {
    "bvlc_alexnet": strong(alexnet, (227, 227)),
    "bvlc_reference_caffenet": strong(partial(alexnet, pool_first=True), (227, 227)),
    "bvlc_googlenet": strong(googlenet, (224, 224)),
    "vgg16": Case(partial(vgg, sizes=(2, 2, 3, 3, 3)), (224, 224)),
    "vgg19": Case(partial(vgg, sizes=(2, 2, 4, 4, 4)), (224, 224)),
    "nin_imagenet": Case(partial(nin, stages=NIN_IMAGENET), (124, 131)),
    "resnet50": new(partial(resnet, sizes=(3, 4, 6, 3)), MIXED),
    "squeezenet_v1.0": new(partial(squeezenet, stem=(96, 7), pools=(4, 8), pad=1), MIXED),
    "squeezenet_v1.1": new(partial(squeezenet, stem=(64, 3), pools=(3, 5), pad=0), MIXED),
}
LOSSES = "loss1/classifier", "loss2/classifier"
SE = partial(se_resnet, sizes=(3, 4, 6, 3))
OTHERS = {
    "googlenet_aux": strong(googlenet, (224, 224), ours="googlenet_aux(dropout=0, aux_dropout=0)", aux=LOSSES),
    "nin_cifar10": Case(
        partial(nin, stages=NIN_CIFAR, second="AVE"), (32, 37), ours='nin_cifar10(last_pool="average")'
    ),
    "resnet101": new(partial(resnet, sizes=(3, 4, 23, 3)), MIXED, ours="resnet101(ceil_pool=True)"),
    "resnet152": new(partial(resnet, sizes=(3, 8, 36, 3)), MIXED, ours="resnet152(ceil_pool=True)"),
    "se_resnet50": new(SE, MIXED, ours="se_resnet50(ceil_pool=True)"),
    "se_resnext50": new(partial(SE, width=128, group=32), MIXED, ours="se_resnext50_32x4d(ceil_pool=True)"),
}


def theirs(net: Net, file: bytes, images: np.ndarray, layers: Sequence[str]) -> list[np.ndarray]:
    """What these layers give in OpenCV, of images [batch, maps, height, width]."""
    made = OPENCV.readNetFromCaffe(*(np.frombuffer(one, np.uint8) for one in (net.text.encode(), file)))
    made.setPreferableBackend(OPENCV.DNN_BACKEND_OPENCV)
    made.enableFusion(False)  # layers as they are written
    made.enableWinograd(False)  # which rounds more
    made.setInput(images)
    return [one.reshape(len(images), -1) for one in made.forward(list(layers))]


def ours(network: pretrained.LoadedNetwork, images: np.ndarray, aux: bool) -> list[np.ndarray]:
    """The logits, behind those of auxiliary classifiers."""
    mesh = sharding.make_mesh(jax.devices()[:1])
    variables = network.load_variables(mesh, "last", lambda line: None).variables

    @jax.jit
    def logits(variables: Any, x: jax.Array) -> list[Any]:
        if not aux:
            return [network.model.apply(variables, x, train=False)]
        last, others = network.model.apply(variables, x, train=True, mutable="aux_logits")
        return [*jax.tree.leaves(others), last]

    return [np.asarray(one) for one in logits(variables, images)]


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.skipif(not hasattr(OPENCV, "readNetFromCaffe"), reason="needs OpenCV 4: see .ci/references.txt")
@pytest.mark.parametrize("name", CATALOGUED | OTHERS)
def test_a_file_for_caffe_gives_the_logits_of_opencv(name: str, tmp_path: pathlib.Path) -> None:
    case = (CATALOGUED | OTHERS)[name]
    net, path = Net(case.size, case.strength), tmp_path / "net.caffemodel"
    case.write(net)
    file = caffemodel(net.weights, case.of_2014)
    path.write_bytes(file)
    network = pretrained.load(path, pretrained.FileOptions("" if case.ours else f"caffe:{name}", case.ours))
    path.unlink()
    images = np.random.default_rng(1).normal(0, case.strength, (2, *case.size, 3)).astype(np.float32)
    colours = images if "cifar" in name else images[..., ::-1]  # blue first
    expected = theirs(net, file, colours.transpose(0, 3, 1, 2).copy(), (*case.aux, net.last))
    for got, one in zip(ours(network, images, bool(case.aux)), expected, strict=True):
        error = np.abs(got - one).max() / np.abs(one).max()
        print(f"{error:.1e}")
        assert error <= 1e-4


def lenet(net: Net) -> None:
    """LeNet of Caffe's MNIST example, under names of one's own."""
    for name, maps in ("my conv a", 20), ("my conv b", 50):
        net.conv(name, maps, 5)
        net.pool(f"{name} pool", 2)
    net.fc("my ip a", 500, 4)
    net.relu()
    net.fc("my ip b", 10)


def cifar_resnet(net: Net, size: int, bias: bool, shortcut_first: bool) -> None:
    """ResNet for CIFAR with projections, as people have written it for Caffe."""

    def conv(name: str, *row: int, of: str = "") -> str:
        net.conv(name, *row, of=of, bias=bias, gain=1)
        net.norm(f"{name}_bn", f"{name}_scale")
        return name

    conv("first_conv", 16, 3, 1, 1)
    net.relu()
    for group, maps in enumerate((16, 32, 64)):
        for i in range(size):
            name, before, stride = f"group{group}_block{i}", net.last, 2 if group and not i else 1
            project = partial(conv, f"{name}_proj", maps, 1, stride, 0, of=before)
            shortcut = project() if stride == 2 and shortcut_first else before
            conv(f"{name}_conv0", maps, 3, stride, 1, of=before)
            net.relu()
            last = conv(f"{name}_conv1", maps, 3, 1, 1)
            shortcut = project() if stride == 2 and not shortcut_first else shortcut
            net.layer("Eltwise", f"{name}_sum", "", (last, shortcut))
            net.relu()
    net.mean("global_pool")
    net.fc("fc", 10)


BY_ORDER = {
    "lenet": (lenet, (28, 28, 1), "lenet_caffe"),
    "cifar_resnet20": (partial(cifar_resnet, size=3, bias=False, shortcut_first=False), (32, 32, 3), "cifar_resnet20"),
    "with biases": (partial(cifar_resnet, size=3, bias=True, shortcut_first=False), (32, 32, 3), "cifar_resnet20"),
    "shortcuts first": (partial(cifar_resnet, size=9, bias=True, shortcut_first=True), (32, 32, 3), "cifar_resnet56"),
}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(OPENCV, "readNetFromCaffe"), reason="needs OpenCV 4: see .ci/references.txt")
@pytest.mark.parametrize("name", BY_ORDER)
def test_a_file_of_unknown_names_gives_the_logits_of_opencv(name: str, tmp_path: pathlib.Path) -> None:
    write, shape, model = BY_ORDER[name]
    net, path = Net(shape[:2]), tmp_path / "net.caffemodel"
    net.maps["data"], net.text = shape[2], net.text.replace("dim: 3", f"dim: {shape[2]}")
    write(net)
    path.write_bytes(file := caffemodel(net.weights))
    model = f'{model}(shortcut="B")' if "resnet" in model else model
    network = pretrained.load(path, pretrained.FileOptions(model=model, normalize="none", match="order"))
    images = np.random.default_rng(1).normal(0, 1, (2, *shape)).astype(np.float32)
    (expected,) = theirs(net, file, images.transpose(0, 3, 1, 2).copy(), (net.last,))
    (got,) = ours(network, images, aux=False)
    assert np.abs(got - expected).max() / np.abs(expected).max() <= 1e-4


def test_every_row_for_caffe_in_the_catalogue_is_compared() -> None:
    assert {f"caffe:{name}" for name in CATALOGUED} == {row for row in catalog.rows() if row.startswith("caffe:")}
