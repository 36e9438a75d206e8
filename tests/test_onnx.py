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
from cnnjax.models import layers
from cnnjax.onnx.convert import OPERATORS
from cnnjax.onnx.file import model_proto
from tests import tiny
from tests.exported import images_of, logits, network
from tests.models import zoo

SHAPE = (6, 5, 4)  # of the images of the functions below


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


# A function of images for each primitive in the table; arrays that depend on no image are computed before.
WEIGHTS: Any = np.random.default_rng(0).normal(size=(3, 2, 4, 7)).astype(np.float32)
EVEN = np.arange(6 * 5 * 4).reshape(6, 5, 4) % 2 == 0
FUNCTIONS: dict[str, Callable[[jax.Array], Any]] = {
    "add": lambda x: x + x[:, :1],
    "sub": lambda x: 1 - x,
    "mul": lambda x: x * x.mean((1, 2), keepdims=True),
    "div": lambda x: x / (1 + x[..., :1]),
    "min": lambda x: jnp.minimum(x, x[:, ::-1]),
    "max": lambda x: jnp.maximum(x, 0.5) + jax.nn.relu(x - 0.5),
    "pow": lambda x: x**1.5 + (1 + x) ** x,
    "integer_pow": lambda x: x**2 + x**3,
    "square": lambda x: jnp.square(x),
    "neg": lambda x: -x,
    "abs": lambda x: jnp.abs(x - 0.5),
    "sign": lambda x: jnp.sign(x - 0.5),
    "exp": lambda x: jnp.exp(x),
    "log": lambda x: jnp.log(x + 0.1),
    "sqrt": lambda x: jnp.sqrt(x),
    "rsqrt": lambda x: lax.rsqrt(x + 0.1),
    "tanh": lambda x: jnp.tanh(x),
    "logistic": lambda x: jax.nn.sigmoid(x),
    "erf": lambda x: lax.erf(x),
    "erfc": lambda x: layers.gelu(x - 0.5),
    "expm1": lambda x: jax.nn.elu(x - 0.5),
    "log1p": lambda x: jax.nn.mish(x),
    "floor": lambda x: jnp.floor(3 * x),
    "ceil": lambda x: jnp.ceil(3 * x),
    "sin": lambda x: jnp.sin(x),
    "cos": lambda x: jnp.cos(x),
    "eq": lambda x: jnp.floor(3 * x) == 1,
    "ne": lambda x: jnp.floor(3 * x) != 1,
    "gt": lambda x: x > 0.5,
    "ge": lambda x: x >= 0.5,
    "lt": lambda x: x < x[:, ::-1],
    "le": lambda x: x <= 0.5,
    "and": lambda x: (x > 0.21) & (x < 0.81),
    "or": lambda x: (x > 0.81) | (x < 0.21),
    "not": lambda x: ~(x > 0.81),
    "select_n": lambda x: jnp.where(EVEN, x, 1 - x),
    "clamp": lambda x: lax.clamp(0.2, x, 0.8),
    "convert_element_type": lambda x: (2 * x).astype(jnp.int32),
    "copy": lambda x: lax.copy_p.bind(x),
    "stop_gradient": lambda x: lax.stop_gradient(x),
    "reduce_precision": lambda x: lax.reduce_precision(x, 8, 23),
    "broadcast_in_dim": lambda x: jnp.concatenate([x, jnp.broadcast_to(x.mean((1, 2))[:, None, None], x.shape)], 1),
    "reshape": lambda x: x.reshape(x.shape[0], 3, 2, 5, 4).sum(2),
    "squeeze": lambda x: jnp.squeeze(x[:, :1] * x[:, 1:2], 1),
    "transpose": lambda x: x.transpose(0, 2, 1, 3) * np.arange(6).reshape(1, 1, 6, 1),
    "concatenate": lambda x: jnp.concatenate([x, 2 * x[..., 1:]], -1),
    "split": lambda x: jnp.multiply(*jnp.split(x, 2, axis=1)),
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 3), (1, 0)), constant_values=0.3),
    "slice": lambda x: lax.slice(x, (0, 1, 0, 2), (x.shape[0], 6, 5, 4), (1, 2, 1, 1)),
    "rev": lambda x: x[:, ::-1, :, ::-1],
    "gather": lambda x: x[:, np.array([[0, 5], [2, 2]])],
    "reduce_sum": lambda x: x.sum((1, 3)) - x.mean((1, 2, 3))[:, None],
    "reduce_max": lambda x: x.max(2),
    "reduce_min": lambda x: x.min((1, 2)),
    "reduce_prod": lambda x: x.prod(3),
    "dot_general": lambda x: jnp.einsum("bhwc,ih,jw->bijc", x, WEIGHTS[:, 0, :1, :6].squeeze(1), WEIGHTS[0, 0, :, :5]),
    "convolution": lambda x: layers.convolve(x, WEIGHTS, (2, 1), ((1, 0), (2, 1)), rhs_dilation=(1, 2)),
    "conv_general_dilated": lambda x: lax.conv(x.transpose(0, 3, 1, 2), WEIGHTS.transpose(3, 2, 0, 1), (1, 2), "SAME"),
    "max_pool": lambda x: layers.max_pool(x, 2, 2, padding="SAME"),
    "sum_pool": lambda x: layers.avg_pool(x, 3, 2, padding="SAME"),
    "reduce_window_max": lambda x: lax.reduce_window(x, -np.inf, lax.max, (1, 2, 3, 1), (1, 2, 1, 1), "SAME"),
    "reduce_window_sum": lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "VALID"),
}


def flat(function: Callable[[jax.Array], Any]) -> Callable[[jax.Array], jax.Array]:
    """The function of uint8 images, as vectors."""
    return lambda images: function(images.astype(jnp.float32) / 255).astype(jnp.float32).reshape(images.shape[0], -1)


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
    assert said == ["the ONNX file computes in float32, not in bfloat16"]
    images = images_of(2, (28, 28, 1))
    np.testing.assert_allclose(computed(content, images)[0], logits(trained, images), atol=0.05)


def test_the_command_exports_a_run(digits_dir: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.run(tmp_path / "run", digits_dir, duration="2 steps")
    assert cli.main(["export", f"--workdir={tmp_path / 'run'}", f"--to={tmp_path / 'net.onnx'}"]) == 0
    assert f"{tmp_path / 'net.onnx'}: " in capsys.readouterr().out
    assert computed((tmp_path / "net.onnx").read_bytes(), images_of(2, (8, 8, 1)))[0].shape == (2, 10)
