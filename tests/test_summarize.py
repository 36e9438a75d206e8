"""The table of a network's layers: numbers that every course has, and every kind of layer worked out by hand."""

import csv
import io
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from cnnjax import cli, summarize, tables
from cnnjax.errors import InputError
from cnnjax.models import MODELS, blocks, create_model, layers
from cnnjax.models.network import Network
from cnnjax.models.normalization import local_response_norm


def table(text: str, shape: tuple[int, int, int] | None = None) -> dict[str, summarize.Layer]:
    variant = MODELS[text.partition("(")[0]]
    rows = summarize.layers(create_model(text, variant.num_classes), shape or variant.input_shape)
    return {row.name: row for row in rows}


class Net(nn.Module):
    """A function that makes layers, as a network."""

    function: Callable[..., Any]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> Any:
        return self.function(x)


def of(function: Callable[..., Any], shape: tuple[int, int, int]) -> list[summarize.Layer]:
    return summarize.layers(Net(function), shape)


# ------------------------------------------------------------------------------------------------- well-known numbers


def test_lenet5_has_the_parameters_of_every_textbook() -> None:
    rows = table("lenet5")
    assert [row.params for row in rows.values() if row.params] == [156, 2_416, 48_120, 10_164, 850]
    assert [row.output for row in rows.values()] == [
        (28, 28, 6), (14, 14, 6), (10, 10, 16), (5, 5, 16), (1, 1, 120), (84,), (10,),
    ]  # fmt: skip
    assert rows["c5"].receptive_field == (32, 32)


def test_vgg16_has_the_numbers_of_every_course(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(table("vgg16").values())
    connected = [row for row in rows if row.kind == "fully connected"]
    assert [row.params for row in connected] == [102_764_544, 16_781_312, 4_097_000]
    # Each layer's outputs as courses list them: 3.2M, 3.2M, 800K, 1.6M, 1.6M, 400K, 800K (three times), 200K, ...
    thousands = [round(row.activations / 1000) for row in rows]
    assert thousands == [
        3211, 3211, 803, 1606, 1606, 401, 803, 803, 803, 201, 401, 401, 401, 100, 100, 100, 100, 25, 4, 4, 1,
    ]  # fmt: skip
    out = shown(capsys, "vgg16")
    assert "fully connected    123,642,856 parameters, 89.4%" in out
    assert "138,357,544 parameters; 15,470,264,320 MACs per image" in out
    # The list sums to 15.2M with the image's 150K. The 24M and 93 MB that often stand under it are not its sum.
    assert "15,237,608 activations per image (incl. 150,528 inputs)" in out
    assert "58.1 MiB forward, 116.3 MiB with gradients" in out


def test_residual_blocks_of_two_kinds_cost_nearly_the_same() -> None:
    """He et al. 2016, Fig. 5: two 3x3 of 64 channels, and 1x1, 3x3, 1x1 with 256 outside: 73,728 and 69,632 weights."""

    def weights(text: str, block: str) -> int:
        rows = [row for row in table(text).values() if row.name.startswith(block) and row.kind == "convolution"]
        return sum(row.params for row in rows)

    assert weights("resnet18", "conv2_1/") == 73_728
    assert weights("resnet50", "conv2_2/") == 69_632


# --------------------------------------------------------------------------------------------- kinds of layers, by hand


def test_a_convolution() -> None:
    (row,) = of(lambda x: layers.conv(8, (3, 5), 2, name="c")(x), (11, 10, 4))
    assert (row.name, row.kind, row.output) == ("c", "convolution", (6, 5, 8))
    assert (row.kernel, row.stride, row.padding) == ((3, 5), (2, 2), ((1, 1), (2, 2)))
    assert (row.params, row.macs) == (3 * 5 * 4 * 8 + 8, 3 * 5 * 4 * 8 * 6 * 5)
    assert (row.receptive_field, row.jump) == ((3, 5), (2, 2))


def test_groups_and_dilation() -> None:
    (row,) = of(lambda x: layers.conv(8, 3, groups=4, dilation=2, name="c")(x), (9, 9, 4))
    assert (row.params, row.macs, row.receptive_field) == (3 * 3 * 1 * 8 + 8, 9 * 8 * 81, (5, 5))


def test_fields_grow_by_strides() -> None:
    def net(x: jax.Array) -> jax.Array:
        x = layers.max_pool(layers.conv(4, 7, 2, name="a")(x), 3, 2, 1)
        return layers.conv(4, 3, name="b")(x)

    rows = of(net, (64, 64, 3))
    assert [(row.receptive_field, row.jump) for row in rows] == [
        ((7, 7), (2, 2)),
        ((11, 11), (4, 4)),
        ((19, 19), (4, 4)),
    ]


def test_pools_of_flax_are_layers() -> None:
    def net(x: jax.Array) -> jax.Array:
        x = nn.max_pool(layers.conv(4, 3, name="a")(x), (2, 2), (2, 2))
        x = nn.avg_pool(local_response_norm(layers.conv(4, 3, name="b")(x)), (2, 2), (2, 2))
        return layers.conv(4, 3, name="c")(x)

    rows = of(net, (32, 32, 3))
    assert [row.kind for row in rows[1::2]] == ["max pool", "response norm", "convolution"]
    assert [(row.kernel, row.stride) for row in rows if "pool" in row.kind] == [((2, 2), (2, 2))] * 2
    assert [(row.name, row.receptive_field, row.jump) for row in rows] == [
        ("a", (3, 3), (1, 1)),
        ("max_pool", (4, 4), (2, 2)),
        ("b", (8, 8), (2, 2)),
        ("local_response_norm", (8, 8), (2, 2)),
        ("average_pool", (10, 10), (4, 4)),
        ("c", (18, 18), (4, 4)),
    ]


def test_the_field_of_branches_is_the_largest() -> None:
    def net(x: jax.Array) -> jax.Array:
        x = jnp.concatenate([layers.conv(2, 1, name="a")(x), layers.conv(2, 5, name="b")(x)], axis=-1)
        return layers.conv(2, 3, name="c")(x)

    assert of(net, (9, 9, 1))[-1].receptive_field == (7, 7)


def test_a_gate_of_the_whole_image_does_not_change_the_field() -> None:
    def net(x: jax.Array) -> jax.Array:
        x = blocks.SqueezeExcite(nn.Dense, 2, name="se")(layers.conv(4, 3, name="a")(x))
        return layers.conv(4, 3, name="b")(x)

    rows = {row.name: row for row in of(net, (9, 9, 1))}
    assert list(rows) == ["a", "se/global_average_pool", "se/squeeze", "se/excite", "b"]
    assert (rows["se/squeeze"].receptive_field, rows["b"].receptive_field) == (None, (5, 5))
    assert rows["se/squeeze"].macs == 4 * 2


def test_every_second_pixel_counts_as_a_stride() -> None:
    assert of(lambda x: layers.conv(1, 3, name="a")(x[:, ::2, ::2]), (9, 9, 1))[0].receptive_field == (5, 5)


def test_norms_pools_and_others_have_rows() -> None:
    def net(x: jax.Array) -> jax.Array:
        made = Network(norm="batch", activation="prelu").layers(train=False)
        x = made.act(made.norm(name="n")(x))
        x = layers.avg_pool(local_response_norm(local_response_norm(x)), 2)
        return layers.max_pool(layers.global_avg_pool(x)[:, None, None], 1)

    rows = of(net, (8, 8, 6))
    assert [(row.name, row.kind) for row in rows] == [
        ("n", "normalization"),
        ("PReLU_0", "PReLU"),
        ("local_response_norm", "response norm"),
        ("average_pool", "average pool"),
        ("global_average_pool", "global average pool"),
        ("max_pool", "max pool"),
    ]
    assert [row.params for row in rows] == [12, 6, 0, 0, 0, 0]
    assert [row.activations for row in rows] == [384, 384, 384, 96, 6, 6]


def test_a_batch_norm_without_parameters_has_a_row_of_its_statistics() -> None:
    def net(x: jax.Array) -> jax.Array:
        x = layers.conv(4, 3, name="c")(x)
        return nn.BatchNorm(use_running_average=True, use_bias=False, use_scale=False, name="bn")(x)

    rows = of(net, (8, 8, 1))
    assert [(row.name, row.kind, row.params, row.stats) for row in rows] == [
        ("c", "convolution", 40, 0),
        ("bn", "normalization", 0, 8),
    ]


def test_recomputed_blocks_are_counted_once() -> None:
    plain, remat = (table(f"resnet18(remat={remat}, small_images=True)", (16, 16, 3)) for remat in (False, True))
    assert {name: (row.macs, row.receptive_field) for name, row in plain.items()} == {
        name: (row.macs, row.receptive_field) for name, row in remat.items()
    }


def test_padding_on_one_side_shows() -> None:
    (row,) = of(lambda x: layers.conv(1, 3, 2, "SAME", name="c")(x), (8, 8, 1))
    assert summarize.cells(row, 4) == ["c", "convolution", "4x4x1", "3", "2", "0+1", "10", "1", "144", "64", "3", "2"]


@pytest.mark.parametrize("text", ["lenet5_1998", "alexnet", "googlenet", "cifar_preresnet110", "densenet40_12"])
def test_rows_add_up_to_the_network(text: str) -> None:
    rows = table(text)
    assert sum(row.params for row in rows.values()) == MODELS[text].params
    assert all(math.prod(row.output) > 0 for row in rows.values())


# ------------------------------------------------------------------------------------------------------ unseen pixels


@pytest.mark.parametrize(
    ("make", "size", "expected"),
    [
        # The quiz of many lectures: 3x3 filters on 7x7 images fit with stride 1 and 2, and not with 3.
        (lambda x: layers.conv(1, 3, 1, 0, name="c")(x), (7, 7), ""),
        (lambda x: layers.conv(1, 3, 2, 0, name="c")(x), (7, 7), ""),
        (
            lambda x: layers.conv(1, 3, 3, 0, name="c")(x),
            (7, 7),
            "c does not see row 7 and column 7 of its 7x7 input: (7 - 3) / 3 + 1 = 2.33, rounded down to 2 outputs",
        ),
        (lambda x: layers.conv(1, 3, 3, 1, name="c")(x), (7, 7), ""),  # (7 - 3 + 2) / 3 + 1 = 3
        (lambda x: layers.conv(1, 7, 2, 3, name="c")(x), (224, 224), ""),  # padding alone is left over
        (
            lambda x: layers.max_pool(x, 2),
            (5, 6),
            "max_pool does not see row 5 of its 5x6 input: (5 - 2) / 2 + 1 = 2.50, rounded down to 2 outputs",
        ),
        (lambda x: layers.max_pool(x, 2, ceil=True), (5, 6), ""),
        (
            lambda x: layers.conv(1, 2, 4, 0, name="c")(x),
            (12, 5),
            "c does not see rows 3 to 4, 7 to 8, 11 to 12 and columns 3 to 5 of its 12x5 input: (12 - 2) / 4 + 1 = "
            "3.50, rounded down to 3 outputs and (5 - 2) / 4 + 1 = 1.75, rounded down to 1 output",
        ),
        (lambda x: layers.conv(1, 1, 2, 0, name="c")(x), (8, 8), ""),  # as in the shortcuts of a ResNet
        (
            lambda x: layers.conv(1, 3, 3, 0, dilation=2, name="c")(x),
            (9, 5),
            "c does not see rows 2, 7, 9 and columns 2, 4 of its 9x5 input: (9 - 5) / 3 + 1 = 2.33, rounded down to 2 "
            "outputs and (5 - 5) / 3 + 1 = 1 output",
        ),
    ],
)
def test_pixels_that_a_layer_does_not_see_are_named(make: Any, size: tuple[int, int], expected: str) -> None:
    (row,) = of(make, (*size, 1))
    assert summarize.unseen(row) == expected


def test_unseen_pixels_stand_below_the_table_and_many_layers_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "sequential('conv(1, 3, stride=3)|dense(10)')", "--input=7x7")
    assert "note: conv1 does not see row 7 and column 7 of its 7x7 input: (7 - 3) / 3 + 1 = 2.33, rounded down" in out
    assert "note" not in shown(capsys, "resnet50")
    many = summarize.summary(f"sequential('{'conv(1, 2, 2)|' * 7}gap|dense')", (382, 382, 1)).notes()
    assert len(many) == 5
    assert many[-1] == "note: and more pixels in 2 later layers"


# --------------------------------------------------------------------------------------------------------- the command


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["summary", *words]) == 0
    return capsys.readouterr().out


def test_the_table_marks_what_costs_most(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "lenet5", "--batch=10")
    line = {
        name: next(line for line in out.splitlines() if line.startswith(f"{name} ")) for name in ("c1", "c5", "output")
    }
    assert "48,120 *" in line["c5"]
    assert f"{28 * 28 * 6 * 4 * 10:,} *" in line["c1"]
    assert "*" not in line["output"]
    assert "61,706 parameters; 416,520 MACs per image" in out
    assert "LeCun et al." in out


def test_csv_holds_plain_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(shown(capsys, "lenet5", "--csv", "--dtype=bfloat16"))))
    assert [row["layer"] for row in rows][:2] == ["c1", "max_pool"]
    assert sum(int(row["parameters"]) for row in rows) == 61_706
    assert int(rows[0]["bytes"]) == 28 * 28 * 6 * 2


def test_input_and_classes_can_be_others(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "cifar_resnet20", "--input=64x48", "--num_classes=3", "--csv")
    assert out.splitlines()[1].startswith("conv1,convolution,")
    assert "64x48x16" in out.splitlines()[1]
    assert out.splitlines()[-1].split(",")[2] == "3"


def test_biases_are_counted_apart(capsys: pytest.CaptureFixture[str]) -> None:
    lecture = (
        "sequential('conv(32, 5)|relu|max_pool(2)|conv(64, 5)|relu|conv(128, 5)|relu|gap|dense(500)|relu|dense(10)')"
    )
    out = shown(capsys, lecture)
    assert "326,534 parameters; " in out
    assert "325,800 parameters without the 734 biases" in out
    rows = list(csv.DictReader(io.StringIO(shown(capsys, lecture, "--csv"))))
    assert [int(row["biases"]) for row in rows] == [32, 0, 64, 128, 0, 500, 10]


@pytest.mark.parametrize("columns", [40, 80, 120, 200])
@pytest.mark.parametrize("text", ["lenet5", "vgg16", "resnet18", "sequential"])
def test_no_number_is_cut_at_any_width(
    text: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    out = shown(capsys, text)
    assert "…" not in out
    words, result = set(out.split()), summarize.summary(text)
    for row in result.layers:
        numbers = [f"{n:,}" for n in (row.params, row.biases, row.macs, row.activations * 4) if n]
        assert {"x".join(map(str, row.output)), *numbers} <= words
    lines = tables.as_text(result.table(), columns)
    assert set(lines) <= set(out.splitlines())
    assert columns < 80 or max(map(len, lines)) <= columns


def test_two_networks_stand_side_by_side(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = shown(capsys, "resnet18", "resnet34")
    assert "A: resnet18, 224x224x3, float32" in out
    assert re.search(r"^parameters +11,689,512 +21,797,672 +1.86$", out, re.M)
    assert re.search(r"^parameters without biases +11,683,712 +21,788,160 +1.86$", out, re.M)
    assert re.search(r"^conv1 +112x112x64 +9,408 \| conv1 +112x112x64 +9,408$", out, re.M)
    assert max(map(len, out.splitlines())) <= 80
    for row in summarize.summary("resnet34").layers:
        assert not row.params or f"{row.params:,}" in out


def test_of_more_networks_the_totals_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    out = shown(capsys, "vgg11", "vgg13", "vgg16", "lenet5")
    assert re.search(r"^parameters +132,863,336 +133,047,848 +138,357,544 +61,706$", out, re.M)
    assert "conv1_1" not in out


def test_several_networks_in_other_formats(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(csv.DictReader(io.StringIO(shown(capsys, "lenet5", "mlp", "--csv"))))
    assert sum(int(row["parameters"]) for row in rows if row["network"] == "mlp") == 238_510
    markdown = shown(capsys, "lenet5", "mlp", "--markdown")
    assert "| parameters | 61,706 | 238,510 | 3.87 |" in markdown
    assert "| f6 | 84 | 10,164 |  |  |  |" in markdown
    assert r"parameters & 61,706 & 238,510 & 3.87 \\" in shown(capsys, "lenet5", "mlp", "--latex")


def test_a_network_as_markdown_and_latex(capsys: pytest.CaptureFixture[str]) -> None:
    markdown = shown(capsys, "lenet5", "--markdown").splitlines()
    assert markdown[2] == "| c1 | convolution | 28x28x6 | 5 | 1 | 2 | 156 | 6 | 117,600 | 18,816 | 5 | 1 |"
    assert {line.count("|") for line in markdown if line.startswith("|")} == {13}
    assert "- 61,706 parameters; 416,520 MACs per image; 0 running statistics" in markdown
    latex = shown(capsys, "lenet5", "--latex").splitlines()
    assert r"max\_pool\_2 & max pool & 5x5x16 & 2 & 2 & 0 &  &  &  & 1,600 & 16 & 4 \\" in latex
    assert all(line.startswith("% ") for line in latex[latex.index("\\end{tabular}") + 2 :])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lenet6"], "unknown model 'lenet6'; did you mean 'lenet5'?"),
        (["lenet5", "--input=28"], "--input=28: expected height, width and channels, as in 28x28x1"),
        (["lenet5", "--input=0x28"], "--input=0x28: expected height"),
        (["lenet5", "--batch=0"], "--batch=0: expected at least 1"),
        (["lenet5(pool=3)"], "pool = 3: expected str"),
        (
            ["alexnet", "--input=20x20"],
            "images of 20x20x3 do not fit: a window of 3 does not fit a side of 1: (N - F + 2 pad) / stride + 1",
        ),
        (["lenet_caffe", "--input=9x9"], "do not fit, at conv2: a window of 5 does not fit a side of 2"),
    ],
)
def test_wrong_words_get_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["summary", *words]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_images_that_do_not_fit_raise_with_the_numbers() -> None:
    with pytest.raises(InputError, match=r"images of 8x8x3 do not fit"):
        table("alexnet", (8, 8, 3))


# ------------------------------------------------------------------------------------------------------- from Python


def test_a_summary_prints_as_the_table_and_knows_the_totals() -> None:
    result = summarize.summary("lenet5", batch=10)
    assert (result.params, result.macs) == (61_706, 416_520)
    text = repr(result)
    assert "lenet5, 10 x 28x28x1, float32" in text
    assert "48,120 *" in text
    assert "8,878 activations per image (incl. 784 inputs)" in text
    assert summarize.summary(create_model("lenet5", 10), (28, 28, 1)).params == 61_706


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "lenet6"}, "unknown model 'lenet6'; did you mean 'lenet5'?"),
        ({"model": "lenet5", "batch": 0}, "batch = 0, dtype = 'float32': expected at least 1"),
        ({"model": "lenet5", "dtype": "float64"}, "one of float32, bfloat16"),
        ({"model": Net(lambda x: x)}, "input_shape = None: expected (height, width, channels)"),
    ],
)
def test_wrong_arguments_of_summary_are_input_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        summarize.summary(**arguments)
    assert message in str(error.value)
