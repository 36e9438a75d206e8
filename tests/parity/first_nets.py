"""References of the networks before AlexNet, of plain layers: no library has them."""

import importlib
from collections.abc import Sequence
from functools import partial
from typing import Any

from tests.parity.harness import Reference


def scaled_tanh() -> Any:
    nn = importlib.import_module("torch").nn

    class Scaled(nn.Module):
        def forward(self, x: Any) -> Any:
            return 1.7159 * nn.functional.tanh(x * 2 / 3)

    return Scaled()


def mlp(features: Sequence[int]) -> Any:
    nn = importlib.import_module("torch").nn
    layers: list[Any] = [nn.Flatten()]
    for size in features:
        layers += [nn.LazyLinear(size), scaled_tanh()]
    return nn.Sequential(*layers, nn.LazyLinear(10))


def lenet5(act: Any, pool: Any, padding: int) -> Any:
    nn = importlib.import_module("torch").nn
    convs: list[Any] = []
    for maps, features, pad in ((1, 6, padding), (6, 16, 0), (16, 120, 0)):
        convs += [nn.Conv2d(maps, features, 5, padding=pad), act(), pool(2)]
    return nn.Sequential(*convs[:-1], nn.Flatten(), nn.LazyLinear(84), act(), nn.Linear(84, 10))


def lenet_caffe() -> Any:
    nn = importlib.import_module("torch").nn
    convs = [nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2)]
    return nn.Sequential(*convs, nn.Flatten(), nn.LazyLinear(500), nn.ReLU(), nn.Linear(500, 10))


def taught() -> Any:
    nn = importlib.import_module("torch").nn
    return lenet5(nn.ReLU, nn.MaxPool2d, 2)


def averaging() -> Any:
    nn = importlib.import_module("torch").nn
    return lenet5(nn.Tanh, nn.AvgPool2d, 0)


Row = partial(Reference, source="torch layers", num_classes=10, channels=1)

ROWS = [
    Row("perceptron", lambda: mlp(()), sizes=((28, 28), (27, 29))),
    Row("mlp", lambda: mlp((300,)), sizes=((28, 28), (27, 29))),
    Row("deep_mlp", lambda: mlp((2500, 2000, 1500, 1000, 500)), sizes=((29, 29), (28, 27))),
    Row("lenet5", taught, sizes=((28, 28), (29, 31))),
    Row("lenet5_tanh", averaging, sizes=((32, 32), (33, 35))),
    Row("lenet_caffe", lenet_caffe, sizes=((28, 28), (31, 35))),
]

_LENET = {name: name for name in ("c1", "s2", "c3", "s4", "c5")}

PUBLISHED: dict[str, tuple[str, dict[str, str]]] = {
    "perceptron_784_10": ("perceptron", {}),
    "mlp_784_300_10": ("mlp", {}),
    "dmlp_ciresan_2010": ("deep_mlp", {}),
    "lenet5_1998": ("lenet5_1998", _LENET),
    "lenet5_pad2_28_maxpool": ("lenet5", _LENET),
    "lenet5_32_tanh_avgpool": ("lenet5_tanh", _LENET),
    "lenet_caffe_20_50_500": ("lenet_caffe", {name: name for name in ("conv1", "pool1", "conv2", "pool2")}),
}

ALONE = {"lenet5_1998": "the paper's equations in numpy, its Table I, and its numbers of parameters and connections"}
