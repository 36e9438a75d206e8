"""Attribution against captum and pytorch-grad-cam, on the same random weights and images.

Their hooks see modules only: a network that calls torch.nn.functional.relu, or one ReLU module twice, is first given a
module for each ReLU. Without that, captum's guided backpropagation and deconvolution are wrong, or an error:
`test_what_captum_does_not_see`.
"""

import importlib
import importlib.util
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.config import Config
from cnnjax.data.info import DataInfo
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.visualize import cam
from cnnjax.visualize.attribution import METHODS, Scorer
from tests.parity import harness
from tests.parity.alexnet_vgg import ROWS as VGG_ROWS
from tests.parity.densenet import ROWS as DENSENET_ROWS
from tests.parity.inception import ROWS as INCEPTION_ROWS
from tests.parity.resnet import ROWS as RESNET_ROWS

ROWS = {row.ours: row for row in (*VGG_ROWS, *DENSENET_ROWS, *INCEPTION_ROWS, *RESNET_ROWS)}
NETWORKS = {  # ours -> (their module whose output is our layer, our layer)
    "vgg_a(dropout=0.0)": ("features.20", "pool5"),
    "resnet18": ("layer4.1.relu2", "conv5_x"),
    "googlenet_torchvision(dropout=0)": ("inception5b", ""),
    "densenet121": ("last_relu", "last"),
}
WINDOW, STRIDE, STEPS = 16, 12, 24
OURS: dict[str, dict[str, Any]] = {
    "guided": {},
    "deconvnet": {},
    "integrated_gradients": {"baseline": "mean", "steps": STEPS, "max_steps": STEPS},
    "occlusion": {"baseline": "mean", "window": WINDOW, "stride": STRIDE},
    "grad_cam": {},
}


def library(name: str) -> Any:
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        pytest.skip(f"{name.partition('.')[0]} is not installed")
    return importlib.import_module(name)


def with_relu_modules(net: Any) -> Any:
    """Their network with a module of its own for each ReLU, none of which works in place."""
    torch = harness.torch_module()

    def basic_block(self: Any, x: Any) -> Any:
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu2(out + (x if self.downsample is None else self.downsample(x)))

    def basic_conv(self: Any, x: Any) -> Any:
        return self.relu2(self.bn(self.conv(x)))

    def dense_net(self: Any, x: Any) -> Any:
        return self.classifier(self.last_relu(self.features(x)).mean((2, 3)))

    forwards: dict[str, tuple[str, Callable[..., Any]]] = {
        "BasicBlock": ("relu2", basic_block),
        "BasicConv2d": ("relu2", basic_conv),
        "DenseNet": ("last_relu", dense_net),
    }
    for module in list(net.modules()):
        if isinstance(module, torch.nn.ReLU):
            module.inplace = False
        if type(module).__name__ in forwards:
            name, forward = forwards[type(module).__name__]
            setattr(module, name, torch.nn.ReLU())
            module.forward = types.MethodType(forward, module)
    return net


def theirs(net: Any, layer: str, x: Any, classes: Any, method: str) -> np.ndarray:
    """Their maps, [N, H, W, C]."""
    if method == "grad_cam":
        grad_cam = library("pytorch_grad_cam")
        targets = [library("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget(int(k)) for k in classes]
        with grad_cam.GradCAM(net, [net.get_submodule(layer)]) as compute:
            return compute(x, targets)[..., None]
    attr = library("captum.attr")
    if method == "integrated_gradients":
        found = attr.IntegratedGradients(net).attribute(x, 0 * x, classes, n_steps=STEPS, method="riemann_middle")
    elif method == "occlusion":
        window, stride = (x.shape[1], WINDOW, WINDOW), (x.shape[1], STRIDE, STRIDE)
        found = attr.Occlusion(net).attribute(x, window, stride, 0, classes)
    else:
        kind = {"guided": attr.GuidedBackprop, "deconvnet": attr.Deconvolution}[method]
        found = kind(net).attribute(x, classes)
    return found.detach().numpy().transpose(0, 2, 3, 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("text", NETWORKS)
def test_the_maps_are_those_of_captum_and_grad_cam(text: str) -> None:
    library("captum.attr")
    torch, row, (module, layer) = harness.torch_module(), ROWS[text], NETWORKS[text]
    case = harness.make_case(row, (*row.sizes[0], 3), "float32")
    net = with_relu_modules(harness.with_our_weights(row, case)[0]).eval()
    x = torch.tensor(case.images.transpose(0, 3, 1, 2).copy())
    names = tuple(map(str, range(row.num_classes)))
    data = DataInfo(names, case.images.shape[1:], {"mean": np.zeros(3), "std": np.ones(3)})
    ours = TrainedNetwork(Config(model=text, eval_batch_size=2), data, case.model, case.variables, 0)
    scorer = Scorer(ours, case.images.shape[1:], cam.last_maps(ours, layer))
    logits = np.asarray(scorer.logits(case.variables, case.images))
    np.testing.assert_allclose(net(x).detach().numpy(), logits, atol=1e-3 * np.abs(logits).max())
    classes = logits.argmax(-1)
    found = {}
    for method, options in OURS.items():
        mine = METHODS[method]
        values = mine.compute(scorer, case.variables, jnp.asarray(case.images), classes, **mine.fixed, **options)
        other = theirs(net, module, x, torch.tensor(classes), method)
        values = np.asarray(jax.image.resize(values, (*values.shape[:1], *other.shape[1:3], values.shape[3]), "linear"))
        values = np.broadcast_to(values, other.shape)
        found[method] = min(float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in zip(values, other, strict=True))
        print(text, method, f"{found[method]:.6f}", flush=True)
    assert {method: value for method, value in found.items() if not value >= 0.999} == {}


def test_what_captum_does_not_see() -> None:
    """A ReLU that is called as a function keeps its gradient in captum's guided backpropagation, in silence."""
    attr, torch = library("captum.attr"), harness.torch_module()

    class Functional(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return torch.nn.functional.relu(x) @ torch.tensor([[1.0], [-1.0]])

    class Module(Functional):
        def __init__(self) -> None:
            super().__init__()
            self.relu = torch.nn.ReLU()

        def forward(self, x: Any) -> Any:
            return self.relu(x) @ torch.tensor([[1.0], [-1.0]])

    x = torch.tensor([[2.0, 3.0]])
    with pytest.warns(UserWarning, match="backward hooks"):
        results = [attr.GuidedBackprop(net()).attribute(x, 0).tolist() for net in (Functional, Module)]
    assert results == [[[1.0, -1.0]], [[1.0, 0.0]]]  # the gradient; the definition
