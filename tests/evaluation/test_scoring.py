"""Evaluation of a finished run: every image once, and files that agree with one another."""

import csv
import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from flax import linen as nn

from cnnjax.data import build, images
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation import scoring
from cnnjax.evaluation.evaluate import evaluate
from tests import tiny


@pytest.fixture(scope="module")
def finished(digits_dir: str, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    tiny.run(folder, digits_dir, ema=0.9, duration="20 steps", val_split="test[:64]", test_split="test[:101]")
    return folder


def files(result: dict[str, Any]) -> dict[str, Any]:
    return json.loads((pathlib.Path(result["folder"]) / "metrics.json").read_text())


def test_evaluation_counts_every_image_once_whatever_the_batch_and_devices(
    finished: pathlib.Path, digits_dir: str
) -> None:
    expected = files(evaluate(finished, data_dir=digits_dir))
    assert expected["count"] == np.sum(expected["confusion"]) == 101
    for batch_size, devices in ((7, 1), (128, 1), (1000, 1), (7, 8), (1000, 8)):
        mesh = sharding.make_mesh(jax.devices()[:devices])
        got = files(evaluate(finished, batch_size=batch_size, data_dir=digits_dir, mesh=mesh))
        exact = {name for name, value in expected.items() if not isinstance(value, float)}
        assert {name: got[name] for name in exact} == {name: expected[name] for name in exact}
        for name in expected.keys() - exact:
            assert got[name] == pytest.approx(expected[name], rel=1e-5), name


@pytest.mark.parametrize("protocol", ["single", "flip"])
def test_random_operations_draw_the_same_whatever_the_batch_and_devices(
    protocol: str, finished: pathlib.Path, digits_dir: str
) -> None:
    losses = []
    for batch_size, devices in ((7, 1), (1000, 1), (24, 8)):
        mesh = sharding.make_mesh(jax.devices()[:devices])
        options: dict[str, Any] = {"preprocess": "noise(0.5)", "protocol": protocol, "batch_size": batch_size}
        losses.append(evaluate(finished, data_dir=digits_dir, mesh=mesh, **options)["loss"])
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=1e-5)


@pytest.mark.parametrize(("step", "split", "group"), [("last", "", "test"), ("12", "test[:64]", "val")])
def test_evaluation_agrees_with_what_the_training_wrote(
    step: str, split: str, group: str, finished: pathlib.Path, digits_dir: str
) -> None:
    got = evaluate(finished, step=step, split=split, data_dir=digits_dir)
    line = next(line for line in tiny.metrics_of(finished) if line["step"] == got["step"] and f"{group}/loss" in line)
    assert got["loss"] == pytest.approx(line[f"{group}/loss"], rel=1e-5)
    assert {name: got[name] for name in ("accuracy", "top5")} == {
        name: line[f"{group}/{name}"] for name in ("accuracy", "top5")
    }


def test_the_files_of_an_evaluation_agree_with_one_another(finished: pathlib.Path, digits_dir: str) -> None:
    result = evaluate(finished, data_dir=digits_dir)
    written, folder = files(result), pathlib.Path(result["folder"])
    matrix = np.array(written.pop("confusion"))
    assert written == result
    with (folder / "confusion.csv").open() as file:
        rows = list(csv.reader(file))
    assert rows[0][1:] == [row[0] for row in rows[1:]] == list(result["per_class"])
    assert np.array_equal([[int(x) for x in row[1:]] for row in rows[1:]], matrix)
    with (folder / "per_class.csv").open() as file:
        for number, row in enumerate(csv.DictReader(file)):
            assert (int(row["images"]), int(row["right"])) == (matrix[number].sum(), matrix[number, number])
            assert float(row["accuracy"]) == result["per_class"][row["class"]]
    assert result["top1_right"] == np.trace(matrix) == round(result["accuracy"] * 101)
    assert (folder / "confusion.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "ten_of_two", "split": "train"}, "ten_of_two has 2 classes, but the network of .* has 10"),
        ({"split": "nothing"}, "'nothing'"),
        ({"dataset": "large_digits", "split": "test"}, r"does not take images of \(9, 9, 1\): "),
        ({"step": "3"}, "no checkpoint of step '3'; valid: last, best, "),
    ],
)
def test_what_cannot_be_evaluated_is_named(
    options: dict[str, Any], message: str, finished: pathlib.Path, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    if name := options.get("dataset"):
        side, classes = {"ten_of_two": (8, ("no", "yes")), "large_digits": (9, "0123456789")}[name]
        for split in ("train", "test"):
            for label in classes:
                path = tmp_path / "source" / split / label / "image.png"
                path.parent.mkdir(parents=True)
                path.write_bytes(images.encode_png(np.full((side, side), 7, np.uint8)))
        build.build(name, str(tmp_path / "source"), str(tmp_path), log=lambda line: None)
        digits_dir = str(tmp_path)
    with pytest.raises(InputError, match=message):
        evaluate(finished, data_dir=digits_dir, **options)


def test_images_are_evaluated_as_other_operations_make_them(finished: pathlib.Path, digits_dir: str) -> None:
    plain, moved = (evaluate(finished, data_dir=digits_dir, preprocess=ops) for ops in (None, "shift(3, 3)"))
    assert moved["accuracy"] < plain["accuracy"]
    assert moved["preprocess"] == "shift(3, 3)"
    assert moved["folder"] == plain["folder"] + "-preprocess=shift_3_3_"  # the evaluation of before is still there
    assert pathlib.Path(plain["folder"]).exists()


def test_another_split_is_evaluated_by_its_name(finished: pathlib.Path, digits_dir: str) -> None:
    result = evaluate(finished, dataset="digits", split="train[96:196]", data_dir=digits_dir)
    assert (result["count"], result["split"], result["dataset"]) == (100, "train[96:196]", "digits")


def test_an_error_in_the_code_of_a_network_has_its_line(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "jax" / "net.py"  # a folder of that name is not the library
    path.parent.mkdir()
    path.write_text("def call(x):\n    return x + undefined\n")
    names: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), names)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
            return names["call"](nn.Dense(3)(x))

    with pytest.raises(InputError) as caught, scoring.input_errors("net", (4, 4, 1)):
        scoring.variable_shapes(Net(), (4, 4, 1))
    reason = f"NameError in {path}, line 2: name 'undefined' is not defined"
    assert str(caught.value) == f"'net' does not take images of (4, 4, 1): {reason}"
