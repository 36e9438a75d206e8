"""Our ONNX files against our own networks: ONNX Runtime computes every one, and ONNX's checker accepts it."""

import numpy as np
import pytest

from cnnjax import export
from cnnjax.models import MODELS
from tests.exported import images_of, logits, network
from tests.models import zoo

# What OpenCV computes wrongly, or networks of other kinds; every published network follows.
FORMS = (
    'resnet18(small_images=True, stage_sizes=(1, 1), features=16, width=16, norm="group")',
    'cifar_resnet20(depth=8, shortcut="B", scan=True)',
    "densenet40_12(stage_sizes=(2, 2), growth_rate=4)",
)
# Rounding errors grow from layer to layer. With random weights, and images that differ by 1e-7, the logits of these
# networks differ by a third of their size, or overflow: shorter ones of the same layers stand in for them.
SHORTER = {name: f"{name}(depth=56)" for name in MODELS if name.endswith("1202")} | {
    "cifar_preresnet1001": "cifar_preresnet1001(stage_sizes=(9, 9, 9))",
    "se_resnet101": "se_resnet101(stage_sizes=(3, 4, 8, 3))",
    "se_resnet152": "se_resnet152(stage_sizes=(3, 6, 4, 3))",
}


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("text", [*FORMS, *(SHORTER.get(name, name) for name in MODELS)])
def test_every_network_computes_the_same_in_onnx_runtime(text: str) -> None:
    checker = pytest.importorskip("onnx.checker")
    runtime = pytest.importorskip("onnxruntime")
    shape = zoo.intended(text)
    trained = network(text, shape, drawn=True)
    content = export.export_onnx(trained, "last", print)
    if len(content) < 2**28:
        checker.check_model(content, full_check=True)  # with the shapes that it infers
    images = images_of(5, shape)
    expected = np.asarray(logits(trained, images))
    tolerance = 1e-4 * max(1.0, float(np.abs(expected).max()))
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for count in (5, 1):
        scores, probabilities = session.run(None, {"images": images[:count]})
        np.testing.assert_allclose(scores, expected[:count], atol=tolerance, rtol=0)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
