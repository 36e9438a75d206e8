"""Transfer: which arrays of a run start from other weights."""

import dataclasses
import functools
import pathlib
import re
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnjax import pretrained
from cnnjax.data import build, images
from cnnjax.errors import InputError
from cnnjax.models import create_model
from tests import exported, tiny

SMALL: dict[str, Any] = {
    "model": "mlp(features=(16, 8))",
    "test_split": "test[:64]",
    "val_split": "",
    "checkpoint_every": "1 steps",
}
run = functools.partial(tiny.run, **SMALL)

# ------------------------------------------------------------------------------------------ what it is started from


@pytest.fixture(scope="module")
def source(digits_dir: str, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("source") / "run"
    run(folder, digits_dir, ema=0.9, duration="5 steps")
    return folder


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("two")
    for split in ("train", "test"):
        for label in ("dark", "light"):
            for i in range(8):
                path = folder / "source" / split / label / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(images.encode_png(np.full((8, 8), i + 200 * (label == "light"), np.uint8)))
    build.build("two", str(folder / "source"), str(folder), log=lambda line: None)
    return str(folder)


TWO = {
    "dataset": "two",
    "train_split": "train",
    "test_split": "test",
    "batch_size": 8,
    "lr": 0.0,
    "duration": "1 steps",
}


def test_the_head_is_new_for_other_classes_and_that_is_said(
    source: pathlib.Path, two_classes: str, tmp_path: pathlib.Path
) -> None:
    lines: list[str] = []
    run(tmp_path / "run", two_classes, lines=lines, init=str(source), **TWO)
    text = f"4 of 6 arrays are initialized from {source}; the head, 'output', is new: 2 classes here, 10 there"
    assert text in lines
    theirs, ours = tiny.eval_variables(source), tiny.eval_variables(tmp_path / "run")
    for name in ours.keys() - {"params/output/kernel", "params/output/bias"}:
        assert np.array_equal(ours[name], theirs[name]), name
    assert ours["params/output/kernel"].shape == (8, 2)


def test_weights_of_the_same_network_are_taken_whole(
    source: pathlib.Path, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    lines: list[str] = []
    run(tmp_path / "run", digits_dir, lines=lines, init=str(source), lr=0.0)
    assert f"6 of 6 arrays are initialized from {source}" in lines
    theirs, ours = tiny.eval_variables(source), tiny.eval_variables(tmp_path / "run")
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("model", "classes", "message"),
    [
        ("mlp(features=(16, 9))", 10, "hidden2/bias is [8] there and [9] here; hidden2/kernel is [16, 8] there and"),
        ("mlp(features=(16, 9))", 2, "hidden2/bias is [8] there and [9] here; hidden2/kernel is [16, 8] there and"),
        ("mlp(features=(16,))", 10, "hidden2/bias is [8] there and missing here; "),
        ("mlp(features=(16, 8, 4))", 2, "hidden3/bias is missing there and [4] here; "),
        ("lenet5", 10, " and 7 more"),
    ],
)
def test_any_other_difference_is_an_error_unless_the_start_is_staged(
    model: str, classes: int, message: str, source: pathlib.Path
) -> None:
    init, side = functools.partial(create_model(model, classes).init, train=False), 8 if "mlp" in model else 32
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, side, side, 1)))
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        pretrained.match_for_transfer(shapes, pretrained.load(source), str(source), list("0123456789")[:classes])
    assert str(caught.value).startswith(f"config.init = '{source}' has another network: ")
    if "mlp" in model:
        assert pretrained.match_for_transfer(
            shapes, pretrained.load(source), str(source), list("0123456789")[:classes], partial=True
        ).paths
    else:
        with pytest.raises(InputError, match="has another network"):
            pretrained.match_for_transfer(
                shapes, pretrained.load(source), str(source), list("0123456789"), partial=True
            )


@pytest.mark.parametrize(
    ("classes", "named", "taken", "text"),
    [
        ("0123456789", True, 6, ""),
        ("0123456798", True, 4, "; the head, 'output', is new: '9' here is '8' there"),
        ("abcdefghij", True, 4, "; the head, 'output', is new: 'a' here is '0' there"),
        (
            "abcdefghij",
            False,
            6,
            "; the source has no class names: its head is used for the classes here, in their order",
        ),
        ("ab", False, 4, "; the head, 'output', is new: 2 classes here, 10 there"),
    ],
)
def test_a_head_is_taken_for_the_same_classes_as_far_as_they_are_known(
    classes: str, named: bool, taken: int, text: str, source: pathlib.Path
) -> None:
    init = functools.partial(create_model(SMALL["model"], len(classes)).init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    network = pretrained.load(source)
    network = network.replace(data=dataclasses.replace(network.data, has_class_names=named))
    found = pretrained.match_for_transfer(shapes, network, str(source), list(classes))
    assert found.description == f"{taken} of 6 arrays are initialized from {source}{text}"
    assert len(found.paths) == taken


class Fixed(nn.Module):
    """A network from outside, for ten classes."""

    @nn.compact
    def __call__(self, images: Any, *, train: bool) -> Any:
        return nn.Dense(10)(images.reshape(len(images), -1))


@pytest.mark.parametrize(("model", "count"), [(create_model("lenet5_1998"), 12), (Fixed(), 2)])
def test_a_network_of_one_number_of_classes_is_taken_whole_for_other_classes(model: nn.Module, count: int) -> None:
    network = exported.network("lenet5_1998", (32, 32, 1)).replace(model=model)
    shapes = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
    found = pretrained.match_for_transfer(shapes, network, "it", list("0123456789"))
    assert found.description == (
        f"{count} of {count} arrays are initialized from it; "
        "the classes are others, but no layer depends on their number, so none is new"
    )


def test_a_staged_start_takes_the_layers_that_agree(digits_dir: str, tmp_path: pathlib.Path) -> None:
    """As VGG's deeper networks did. What does not agree is new, and lines; afterwards the first run is not needed."""
    shallow, deep, again = (tmp_path / name for name in ("shallow", "deep", "again"))
    run(shallow, digits_dir, model="mlp(features=(32, 16))", ema=0.9, duration="5 steps")
    model: dict[str, Any] = {"model": "mlp(features=(32, 16, 8))", "ema": 0.9, "lr": 0.0, "duration": "1 steps"}
    changes: dict[str, Any] = {**model, "init": str(shallow), "init_partial": True}
    lines: list[str] = []
    run(deep, digits_dir, lines=lines, **changes)
    line = f"4 of 8 arrays are initialized from {shallow}; new: hidden3/bias, hidden3/kernel, output/bias, "
    assert f"{line}output/kernel; not used: output/bias, output/kernel" in lines
    run(again, digits_dir, **model)
    first, from_it, new = (tiny.eval_variables(folder) for folder in (shallow, deep, again))
    for name in new:
        wanted = first[name] if re.search("hidden[12]", name) else new[name]
        np.testing.assert_allclose(from_it[name], wanted, rtol=1e-6, err_msg=name)
    shutil.rmtree(shallow)
    run(deep, digits_dir, **changes)
    with pytest.raises(InputError, match=f"{shallow} does not exist"):
        run(tmp_path / "other", digits_dir, **changes)
    assert not (tmp_path / "other").exists()
