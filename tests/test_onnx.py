"""ONNX files: which operations the graph of a network has, and what OpenCV, which reads them, computes from them."""

import json
import pathlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnjax import cli, export, onnx, summarize
from cnnjax.errors import InputError
from cnnjax.onnx.convert import OPERATORS
from cnnjax.onnx.file import model_proto
from tests import tiny
from tests.exported import images_of, logits, network
from tests.models import zoo
from tests.primitives import FUNCTIONS, SHAPE, flat


def computed(content: bytes, images: np.ndarray) -> list[np.ndarray]:
    """The logits and probabilities of an ONNX file."""
    if int(cv2.__version__.partition(".")[0]) < 5:
        pytest.skip("OpenCV reads open batch sizes from its version 5 on")
    net = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))
    net.setInput(images, "images")
    return list(net.forward(["logits", "probabilities"]))


# Of each kind of network one, and between them most operations.
NETWORKS = (
    'lenet5(pool="average", norm="batch")',
    'resnet18(small_images=True, se=16, stage_sizes=(1,), features=16, width=16, padding_mode="edge")',
    "sequential(layers='conv(8, 3)|lrn|relu|max_pool(2)|conv(8, 3)|prelu|gap|dense(16)|tanh|dense')",
)


@pytest.mark.parametrize("text", NETWORKS)
def test_a_network_computes_the_same_for_any_batch(text: str) -> None:
    shape = zoo.intended(text)
    trained = network(text, shape, drawn=True)
    content = export.export_onnx(trained, "last", print)
    images = images_of(5, shape)
    expected = np.asarray(logits(trained, images))
    tolerance = 1e-4 * max(1.0, float(np.abs(expected).max()))
    for count in (5, 1):
        scores, probabilities = computed(content, images[:count])
        np.testing.assert_allclose(scores, expected[:count], atol=tolerance, rtol=0)
        np.testing.assert_allclose(probabilities, jax.nn.softmax(scores), atol=1e-5)


def nodes_of(content: bytes) -> list[Any]:
    return list(model_proto().FromString(content).graph.node)


def test_normalization_is_in_the_weights_and_axes_are_moved_once() -> None:
    text, shape = "cifar_resnet20(depth=8)", (32, 32, 3)
    trained = network(text, shape, drawn=True)
    nodes = nodes_of(export.export_onnx(trained, "last", print))
    counts = Counter(node.op_type for node in nodes)
    rows = Counter(row.kind for row in summarize.layers(trained.model, shape))
    assert (counts["Conv"], counts["Gemm"]) == (rows["convolution"], rows["fully connected"])
    assert [node.op_type for node in nodes[:5]] == ["Cast", "Mul", "Sub", "Transpose", "Conv"]
    assert all(counts[op] == 1 for op in ("Cast", "Mul", "Sub", "Transpose", "ReduceMean", "Gemm"))
    assert counts.keys() - {"Cast", "Mul", "Sub", "Transpose", "ReduceMean", "Gemm", "Softmax"} == {
        "Conv", "Relu", "Slice", "Pad", "Add",
    }  # fmt: skip
    assert [node.name for node in nodes[4:6]] == ["conv1/Conv", "norm1/Relu"]


def primitives(jaxpr: Any) -> set[str]:
    """The names of the primitives in a jaxpr, and in those that it calls."""
    inner = [value for equation in jaxpr.eqns for value in equation.params.values()]
    names = {equation.primitive.name for equation in jaxpr.eqns}
    return names.union(*(primitives(jaxpr) for one in inner if hasattr(jaxpr := getattr(one, "jaxpr", one), "eqns")))


@pytest.mark.parametrize("primitive", FUNCTIONS)
def test_every_primitive_computes_the_same(primitive: str) -> None:
    function = flat(FUNCTIONS[primitive])
    images = images_of(3, SHAPE)
    assert primitive in primitives(jax.make_jaxpr(function)(images).jaxpr)
    content = onnx.serialize(onnx.network_graph(function, SHAPE, np.uint8), "function", {}, "0")
    for count in (3, 1):
        values, _ = computed(content, images[:count])
        np.testing.assert_allclose(values, function(jnp.asarray(images[:count])), atol=2e-5, rtol=2e-5)


def test_there_is_a_function_for_every_row_of_the_table() -> None:
    assert OPERATORS.keys() - FUNCTIONS.keys() == {"add_any", "copy_p"}  # of derivatives; of other versions of JAX


# What has no counterpart, and what the error says of it.
IMPOSSIBLE: dict[str, tuple[Callable[[jax.Array], Any], str]] = {
    "primitive": (
        lambda x: jnp.sort(x),
        "'sort' in the network has no counterpart in ONNX here: it is not in the table",
    ),
    "form": (lambda x: lax.pad(x, 0.0, [(0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0)]), "'pad' in the network .*between"),
    "random": (lambda x: x + jax.random.normal(jax.random.key(0), x.shape), "'random_bits' in the network"),
    "loop": (
        lambda x: lax.scan(lambda sums, row: (sums + row, None), x[:, 0], x.swapaxes(0, 1))[0],
        r"a loop \(scan\)",
    ),
    "batch": (lambda x: x / x.shape[0], "'dim_as_value' in the network"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_has_no_counterpart_is_named(case: str) -> None:
    function, said = IMPOSSIBLE[case]
    with pytest.raises(InputError, match=said):
        onnx.network_graph(flat(function), SHAPE, np.uint8)


def test_the_file_says_what_it_is(tmp_path: pathlib.Path) -> None:
    trained = network("mlp", (28, 28, 1), preprocess="resize(32)|center_crop(28)", normalize="mean_std")
    (path,) = export.write(trained, tmp_path / "net.onnx", log=lambda line: None)
    model = model_proto().FromString(path.read_bytes())
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert (model.graph.name, model.producer_name, facts["model"], facts["step"]) == ("mlp", "cnnjax", "mlp", "7")
    assert (facts["before"], facts["normalize"]) == ("resize(32)|center_crop(28)", "mean_std")
    assert json.loads(facts["classes"]) == list("abcdefghij")
    assert facts["weights_crc32"] == export.export_program(trained, "last", print).facts["weights_crc32"]
    sizes = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert sizes == {"images": ["b", 28, 28, 1], "logits": ["b", 10], "probabilities": ["b", 10]}


def test_a_network_of_bfloat16_is_written_in_float32() -> None:
    said: list[str] = []
    trained = network("lenet5", (28, 28, 1), dtype="bfloat16")
    content = export.export_onnx(trained, "last", said.append)
    assert said == ["the file computes in float32, not in bfloat16"]
    images = images_of(2, (28, 28, 1))
    np.testing.assert_allclose(computed(content, images)[0], logits(trained, images), atol=0.05)


def test_the_command_exports_a_run(digits_dir: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.run(tmp_path / "run", digits_dir, duration="2 steps")
    assert cli.main(["export", f"--workdir={tmp_path / 'run'}", f"--to={tmp_path / 'net.onnx'}"]) == 0
    assert f"{tmp_path / 'net.onnx'}: " in capsys.readouterr().out
    assert computed((tmp_path / "net.onnx").read_bytes(), images_of(2, (8, 8, 1)))[0].shape == (2, 10)
