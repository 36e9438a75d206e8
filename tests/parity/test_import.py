"""Weights of other libraries as our networks take them, and back: with PyTorch's own files, and its own networks.

Each network of theirs that the parity tests compare and that has their names gets random weights and statistics.
`./launch.sh test -m slow tests/parity/test_import.py` needs PyTorch and the libraries of .ci/references.txt.
"""

import importlib
import importlib.util
import pathlib
import re
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from cnnjax.augment.normalize import imagenet, symmetric
from cnnjax.models import create_model
from cnnjax.pretrained import convert, export, files, formats
from cnnjax.pretrained.library import Arrays
from tests.parity import harness
from tests.parity.test_parity import COMPARED

# Sources whose layers are the library's: none that was made of plain layers, or that has layers of other shapes.
SOURCE = re.compile(
    r"(torchvision|timm|pytorchcv) [\d.]+ (\w+)"
    r"(\(aux_logits=True\)|, other pools|, conv10 padded|, shortcuts A| with fewer layers| with \d+ layers| of .*)?"
)


def timm(ours: str, theirs: str, size: tuple[int, int]) -> harness.Reference:
    make = harness.torch_models
    return harness.Reference(ours, lambda: make("timm").create_model(theirs), f"timm 1.0.31 {theirs}", (size,))


# Networks that timm has, too, with weights of its own.
TIMM = [
    timm("vgg_a_bn(dropout=0.0)", "vgg11_bn", (224, 224)),
    timm("densenet121", "densenet121", (64, 64)),
    timm("resnet50_v1_5", "resnet50", (64, 64)),
    timm("se_resnext50_32x4d", "seresnext50_32x4d", (64, 64)),
]
OTHERS = [row for row, _ in COMPARED if isinstance(row, harness.Reference) and SOURCE.fullmatch(row.source)]
ROWS = {f"{row.ours}-{row.source}": row for row in OTHERS + TIMM}


def library_of(row: harness.Reference) -> str:
    found = SOURCE.fullmatch(row.source)
    assert found
    return "timm_legacy" if found[2].startswith("legacy_se") else found[1]


def randomized(net: Any) -> Any:
    """Their network in evaluation, with scales, biases and statistics unlike those of a new one."""
    torch = harness.torch_module()
    for module in net.modules():
        if getattr(module, "running_mean", None) is not None:
            for value, low, high in (
                (module.weight, 0.5, 1.5),
                (module.bias, -0.2, 0.2),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.5, 1.5),
            ):
                torch.nn.init.uniform_(value, low, high)
    return net.eval()


def logits_of(net: Any, images: np.ndarray) -> np.ndarray:
    torch = harness.torch_module()
    with torch.no_grad():
        return net(torch.tensor(images.transpose(0, 3, 1, 2).copy()).to(next(net.parameters()))).numpy()


def numbers(state: Any) -> Arrays:
    return {name: value.numpy() for name, value in state.items()}


def ours_of(text: str, classes: int, variables: Arrays, images: np.ndarray) -> np.ndarray:
    tree = unflatten_dict(variables, sep="/")
    return np.asarray(jax.jit(lambda v, x: create_model(text, classes).apply(v, x, train=False))(tree, images))


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs.reshape(ours.shape)).max() / np.abs(theirs).max())


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("name", ROWS)
def test_their_weights_give_their_logits_and_ours_are_loaded_there(name: str, tmp_path: pathlib.Path) -> None:
    row, library = ROWS[name], library_of(ROWS[name])
    if importlib.util.find_spec(library.partition("_")[0]) is None:
        pytest.skip(f"{library} is not installed: see .ci/references.txt")
    torch = harness.torch_module()
    torch.manual_seed(0)
    net, shape = randomized(row.theirs()), (*row.sizes[0], row.channels)
    model = create_model(row.ours, row.num_classes)
    images = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    theirs = logits_of(net, images)
    safetensors = importlib.import_module("safetensors.torch")
    for suffix, save, load in (
        (".pth", torch.save, lambda path: torch.load(path, weights_only=True)),
        (".safetensors", safetensors.save_file, safetensors.load_file),
    ):
        path = tmp_path / f"weights{suffix}"
        save(net.state_dict(), path)
        kind, arrays = formats.read(path)
        assert kind == "torch"
        variables = convert.import_variables(model, shape, arrays, library).check(name)
        path.unlink()
        export.write(path, export.to_state_dict(model, shape, variables, library))
        for module in net.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        assert not np.array_equal(logits_of(net, images), theirs)
        net.load_state_dict(load(path), strict=True)
        path.unlink()
        assert np.array_equal(logits_of(net, images), theirs), "what was imported and exported is not the same"

    error = difference(ours_of(row.ours, row.num_classes, variables, images), theirs)
    exact = logits_of(net.double(), images)
    rounded = difference(theirs, exact)  # with strong gates, theirs in float32 is no closer to itself
    print(f"{error:.1e}, of theirs {rounded:.1e}")
    assert error <= max(1e-4, 3 * rounded)


@pytest.mark.slow
@pytest.mark.parametrize(("ours", "theirs", "size"), [
    ("googlenet_torchvision(dropout=0.0)", "googlenet", (64, 65)),
    ("inception_v3(dropout=0.0, count_padding=True)", "inception_v3", (107, 128)),
])  # fmt: skip
def test_transform_input_is_another_normalisation(ours: str, theirs: str, size: tuple[int, int]) -> None:
    """Of published weights: they have auxiliary classifiers, too."""
    harness.torch_module().manual_seed(0)
    make = getattr(harness.torch_models("torchvision"), theirs)
    net = randomized(make(aux_logits=True, transform_input=True, init_weights=False, num_classes=10))
    images = jax.random.uniform(jax.random.key(0), (2, *size, 3))
    found = convert.import_variables(create_model(ours, 10), (*size, 3), numbers(net.state_dict()), "torchvision")
    mine = ours_of(ours, 10, found.check("published"), np.asarray(jax.vmap(symmetric)(images)))
    assert difference(mine, logits_of(net, np.asarray(jax.vmap(imagenet)(images)))) <= 1e-4


def test_every_family_of_a_library_is_compared() -> None:
    compared = {(library_of(row), convert.family(create_model(row.ours, 10))) for row in ROWS.values()}
    for library in ("torchvision", "timm", "timm_legacy", "pytorchcv"):
        assert {(library, family) for family in convert.find_library(library).families} <= compared


def akamaster() -> Any:
    """CIFAR's ResNet-20 under the names of its well-known weights."""
    nn = harness.torch_module().nn

    class Block(nn.Module):
        def __init__(self, maps: int, features: int) -> None:
            super().__init__()
            self.stride = features // maps
            self.conv1 = nn.Conv2d(maps, features, 3, self.stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(features)
            self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(features)

        def forward(self, x: Any) -> Any:
            y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            extra = (y.shape[1] - x.shape[1]) // 2
            x = nn.functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, extra, extra))
            return (x + y).relu()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
            self.layer1 = nn.Sequential(Block(16, 16), Block(16, 16), Block(16, 16))
            self.layer2 = nn.Sequential(Block(16, 32), Block(32, 32), Block(32, 32))
            self.layer3 = nn.Sequential(Block(32, 64), Block(64, 64), Block(64, 64))
            self.linear = nn.Linear(64, 10)

        def forward(self, x: Any) -> Any:
            x = self.layer3(self.layer2(self.layer1(self.bn1(self.conv1(x)).relu())))
            return self.linear(x.mean((2, 3)))

    return Net().eval()


@pytest.mark.slow
def test_real_weights_come_and_go(shared: pathlib.Path, tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch")
    path, model, shape = shared / "weights" / "resnet20-12fca82f.th", create_model("cifar_resnet20", 10), (32, 32, 3)
    images = np.random.default_rng(0).normal(size=(64, *shape)).astype(np.float32)
    net = akamaster()
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    net.load_state_dict({name.removeprefix("module."): value for name, value in state.items()}, strict=True)
    theirs = logits_of(net, images)
    variables = files.read(path, model, shape, "akamaster")
    assert difference(ours_of("cifar_resnet20", 10, variables, images), theirs) <= 1e-5
    export.write(tmp_path / "resnet20.pth", export.to_state_dict(model, shape, variables, "akamaster"))
    net = akamaster()
    net.load_state_dict(torch.load(tmp_path / "resnet20.pth", weights_only=True), strict=True)
    assert np.array_equal(logits_of(net, images), theirs)
