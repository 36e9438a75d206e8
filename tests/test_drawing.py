"""Drawings of networks: what is in them, that they agree with the table, and that all is legible."""

import functools
import itertools
import pathlib
from typing import Any

import flax.linen as nn
import jax
import pytest
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

from cnnjax import cli
from cnnjax.models import MODELS, create_model, layers
from cnnjax.summarize.drawing import drawing
from cnnjax.summarize.graph import INPUT, Node, _groups, graph
from cnnjax.summarize.outline import outline
from cnnjax.summarize.placing import Line, place
from cnnjax.summarize.trace import Flow, Layer, flow

FEW = ("perceptron", "lenet5_1998", "alexnet", "squeezenet1_0_complex", "cifar_resnet20", "densenet40_12")
SLIDE = (13.33, 7.5)  # inches
SMALLEST = 5.5  # points of the smallest letters on a slide, of the largest network; others are larger


@functools.cache
def traced(text: str) -> Flow:
    return flow(create_model(text), MODELS[text.partition("(")[0]].input_shape)


@functools.cache
def nodes(text: str) -> dict[str, Node]:
    return {node.name: node for node in graph(traced(text), MODELS[text.partition("(")[0]].input_shape)}


def chain(text: str) -> list[tuple[int, str, tuple[int, ...]]]:
    """(repetitions, first module, output) of each unit."""
    return [(unit.count, unit.names[0], unit.output) for unit in outline(list(nodes(text).values()))]


# ----------------------------------------------------------------------------------------------------------- the graph


def test_a_residual_block_adds_its_input_or_a_projection_of_it() -> None:
    found = nodes("resnet18")
    assert found["conv2_1/add"].inputs == ("conv2_1/conv2", "max_pool")
    assert found["conv3_1/add"].inputs == ("conv3_1/conv2", "conv3_1/shortcut_conv")
    assert found["conv3_1/shortcut_conv"].inputs == ("conv2_2/add",)
    assert found["head"].inputs == ("global_average_pool",)
    assert "norm1" not in found


def test_branches_are_concatenated_in_their_order() -> None:
    found = nodes("googlenet")
    last = [f"inception_3a/branch{end}/conv" for end in ("1_1", "2_2", "3_2", "4_2")]
    assert found["inception_3a/concat"].inputs == tuple(last)
    assert found["inception_3a/max_pool"].inputs == ("max_pool_2",)
    assert found["inception_3b/branch1_1/conv"].inputs == ("inception_3a/concat",)


def test_a_gate_multiplies_what_it_is_computed_from() -> None:
    found = nodes("se_resnet50(stage_sizes=(1,))")
    gate = next(node for node in found.values() if node.kind == "scale")
    assert gate.inputs[0] == "conv2_1/conv3"
    assert found[gate.inputs[1]].kind == "fully connected"


def test_every_layer_but_normalizations_is_a_node() -> None:
    for text in FEW:
        table = [row for row in traced(text).layers if row.kind != "normalization"]
        found = nodes(text)
        assert [row.name for row in table if row.name not in found] == []
        assert [found[row.name].output for row in table] == [row.output for row in table]


def test_groups_are_counted() -> None:
    found = nodes("alexnet")
    assert [found[f"conv{i}"].groups for i in range(1, 6)] == [1, 2, 1, 2, 2]
    assert nodes("lenet5_1998")["c3"].groups == 1  # it has a table of connections, 60 of 96
    few = Layer("c", "convolution", kernel=(5, 5), output=(10, 10, 16), macs=25 * 40 * 100)
    assert _groups(few, 6) == 1
    assert nodes("mobilenet_v1")["dw2/conv"].is_depthwise
    assert not nodes("mobilenet_v1")["pw2/conv"].is_depthwise


# --------------------------------------------------------------------------------------------------------- the outline


def test_repetitions_are_folded() -> None:
    assert chain("resnet50") == [
        (1, "conv1", (112, 112, 64)), (1, "max_pool", (56, 56, 64)), (3, "conv2_1", (56, 56, 256)),
        (4, "conv3_1", (28, 28, 512)), (6, "conv4_1", (14, 14, 1024)), (3, "conv5_1", (7, 7, 2048)),
        (1, "global_average_pool", (2048,)), (1, "head", (1000,)),
    ]  # fmt: skip
    assert [count for count, _, _ in chain("vgg16")] == [2, 1, 2, 1, 3, 1, 3, 1, 3, 1, 2, 1]
    assert [(n, name) for n, name, _ in chain("googlenet") if name[:4] == "ince"] == [
        (2, "inception_3a"), (5, "inception_4a"), (2, "inception_5a"),
    ]  # fmt: skip
    # conv3 of AlexNet sees all channels, conv4 and conv5 half of them, with other numbers of channels.
    assert [n for n, name, _ in chain("alexnet") if name.startswith("conv")] == [1] * 5


def test_dense_layers_add_to_their_input() -> None:
    units = [unit for unit in outline(list(nodes("densenet121(stage_sizes=(6, 12))").values())) if unit.is_dense]
    assert [(unit.count, unit.output[-1]) for unit in units] == [(6, 256), (12, 512)]
    assert [node.kind for node in units[0].inside] == ["convolution", "convolution", "concat"]
    assert INPUT in units[0].inside[-1].inputs
    first = next(unit for unit in outline(list(nodes("densenet40_12").values())) if unit.is_dense)
    assert first.names[0] == "block1_layer1"  # not the convolution before it


def test_depthwise_and_pointwise_convolutions_are_one_block() -> None:
    units = outline(list(nodes("mobilenet_v1").values()))
    blocks = [unit for unit in units if not unit.is_layer]
    assert sum(unit.count for unit in blocks) == 13
    assert max(unit.count for unit in blocks) == 5
    assert len({unit.structure for unit in blocks}) == 1


def test_the_first_block_of_a_stage_has_a_projection() -> None:
    units = outline(list(nodes("resnet18").values()))
    assert [unit.has_projection for unit in units if unit.is_residual] == [False, True, True, True]


# --------------------------------------------------------------------------------------------------------- the drawing


def test_branches_have_lanes_and_shortcuts_pass_beside() -> None:
    block = [
        Node("a", "convolution", (8,), (INPUT,)),
        Node("b", "convolution", (8,), (INPUT,)),
        Node("c", "convolution", (8,), ("b",)),
        Node("d", "concat", (8,), ("a", "c")),
        Node("e", "add", (8,), ("d", INPUT)),
    ]
    places = place(block)
    assert places.row == {INPUT: 0, "a": 1, "b": 1, "c": 2, "d": 3, "e": 4}
    assert places.lane == {INPUT: 0, "a": 0, "b": 1, "c": 1, "d": 0, "e": 0}
    assert [line for line in places.lines if line.side] == [Line(INPUT, "e", 1)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18(stage_sizes=(2, 2))", "as in conv2_2; in conv3_1, a layer is on the shortcut"),
        ("resnet18(stage_sizes=(2,))", "as in conv2_2"),
        ("resnet50(stage_sizes=(1,))", "as in conv2_1"),  # whose shortcut is drawn with its layer
    ],
)
def test_a_block_says_which_one_it_is_and_how_others_differ(name: str, expected: str) -> None:
    texts = [text.get_text() for text in drawing(name).figure().axes[0].texts if text.get_text()]
    (start,) = (i for i, text in enumerate(texts) if text.startswith("as in"))
    assert " ".join(texts[start : texts.index("input")]) == expected


def check_is_legible(figure: Any, width: float = SLIDE[0]) -> None:
    """Checks that texts are inside of their boxes, boxes and texts apart, all on the page, and large on a slide."""
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = [patch.get_window_extent() for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    texts = [text for text in axes.texts if text.get_text()]
    for text in texts:
        extent = Text.get_window_extent(text)
        assert extent.x0 >= 0, text
        assert extent.x1 <= figure.bbox.x1 + 1, text
        center = ((extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2)
        around = [box for box in boxes if box.contains(*center)]
        if around:
            box = min(around, key=lambda box: box.width * box.height)
            assert box.x0 <= extent.x0, text
            assert extent.x1 <= box.x1, text
    for one, two in itertools.combinations(boxes, 2):
        inner, outer = sorted((one, two), key=lambda box: box.width * box.height)
        overlaps = one.x0 < two.x1 and two.x0 < one.x1 and one.y0 < two.y1 and two.y0 < one.y1
        assert not overlaps or (outer.contains(inner.x0, inner.y0) and outer.contains(inner.x1, inner.y1))
    for one, two in itertools.combinations([Text.get_window_extent(text) for text in texts], 2):
        assert not (one.x0 < two.x1 and two.x0 < one.x1 and one.y0 + 1 < two.y1 and two.y0 + 1 < one.y1)
    wide, high = figure.get_size_inches()
    scale = min(SLIDE[0] / wide, SLIDE[1] / high, 1)
    assert scale * min(text.get_fontsize() for text in texts) >= SMALLEST


@pytest.mark.parametrize("name", FEW)
def test_networks_are_drawn_legibly(name: str) -> None:
    check_is_legible(drawing(name).figure())


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("name", MODELS)
def test_every_network_is_drawn_legibly(name: str) -> None:
    picture = drawing(name)
    check_is_legible(picture.figure())
    table = [row for row in picture.summary.layers if row.kind not in ("normalization", "PReLU", "training only")]
    assert {node.name for node in picture.nodes if node.layer} == {row.name for row in table}


def test_a_network_from_outside_is_drawn() -> None:
    class Mine(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
            x = layers.conv(4, 3, name="a")(x)
            x = x + layers.conv(4, 3, name="b")(x)
            return nn.Dense(3, name="out")(x.mean((1, 2)))

    picture = drawing(Mine(), (8, 8, 1))
    kinds = ["image", "convolution", "convolution", "add", "global average pool", "fully connected"]
    assert [node.kind for node in picture.nodes] == kinds
    check_is_legible(picture.figure())


@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_the_command_writes_a_drawing(suffix: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"net.v1.{suffix}"
    assert cli.main(["summary", "lenet5", f"--draw={path}"]) == 0
    assert f"the drawing is {path}" in capsys.readouterr().out.replace("\n", "")
    start = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lenet5", "--draw=net.gif"], "--draw=net.gif: expected a name that ends in .svg, .png or .pdf"),
        (["lenet5", "vgg16", "--draw=net.svg"], "--draw draws one network"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["summary", *arguments]) == 1
    assert message in capsys.readouterr().err
