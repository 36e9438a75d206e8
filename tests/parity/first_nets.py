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


def listed() -> Any:
    """The example of `sequential`."""
    nn = importlib.import_module("torch").nn
    return nn.Sequential(
        nn.Conv2d(1, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5), nn.ReLU(), nn.Conv2d(64, 128, 5),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip


LIST_OF_ALL = (
    "conv(8, 5, padding=2)|batch_norm|leaky_relu(0.1)|max_pool(3, 2, ceil=True)|"
    "depthwise_conv(3, padding='same', multiplier=2, bias=False)|lrn|relu|"
    "conv(12, (3, 1), stride=2, padding=(1, 0), groups=4)|prelu|avg_pool(3, 2, padding=1)|group_norm(4)|tanh|"
    "conv(6, 2, dilation=2)|swish|flatten|dense(20, bias=False)|batch_norm(0.8, 1e-3)|gelu|dropout(0.0)|dense"
)


def listed_all() -> Any:
    """LIST_OF_ALL in PyTorch's words."""
    nn = importlib.import_module("torch").nn
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.BatchNorm2d(8), nn.LeakyReLU(0.1), nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(8, 16, 3, padding="same", groups=8, bias=False), nn.LocalResponseNorm(5), nn.ReLU(),
        nn.Conv2d(16, 12, (3, 1), stride=2, padding=(1, 0), groups=4), nn.PReLU(12), nn.AvgPool2d(3, 2, padding=1),
        nn.GroupNorm(4, 12), nn.Tanh(), nn.Conv2d(12, 6, 2, dilation=2), nn.SiLU(), nn.Flatten(),
        nn.LazyLinear(20, bias=False), nn.BatchNorm1d(20, 1e-3, 0.2), nn.GELU(), nn.Dropout(), nn.Linear(20, 10),
    )  # fmt: skip


Row = partial(Reference, source="torch layers", num_classes=10, channels=1)

ROWS = [
    Row("perceptron", lambda: mlp(()), sizes=((28, 28), (27, 29))),
    Row("mlp", lambda: mlp((300,)), sizes=((28, 28), (27, 29))),
    Row("deep_mlp", lambda: mlp((2500, 2000, 1500, 1000, 500)), sizes=((29, 29), (28, 27))),
    Row("lenet5", taught, sizes=((28, 28), (29, 31))),
    Row("lenet5_tanh", averaging, sizes=((32, 32), (33, 35))),
    Row("lenet_caffe", lenet_caffe, sizes=((28, 28), (31, 35))),
    Row("sequential", listed, sizes=((28, 28), (31, 35))),
    Row(f"sequential({LIST_OF_ALL!r})", listed_all, sizes=((28, 28), (37, 33))),
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
