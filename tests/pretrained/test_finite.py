"""Weights that are NaN or infinite, or no real numbers: one error that names the array."""

import pathlib
import shutil
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest

from cnnjax import pretrained
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.models import create_model
from cnnjax.pretrained import convert, export, files
from cnnjax.pretrained.finite import check_finite
from cnnjax.pretrained.library import Arrays, list_layers
from cnnjax.runs import checkpoint

NAN, INF = float("nan"), float("inf")
ARRAYS = {
    "fine": ({"a": np.ones(3), "n": np.arange(3), "flags": np.array([True]), "empty": np.zeros((0, 3))}, ""),
    "NaN": ({"a": np.ones(3), "b": np.array([1, NAN, NAN])}, "the weights b have 2 of 3 values that are NaN or"),
    "infinite": ({"a": np.array([-INF])}, "the weights a have 1 of 1 values"),
    "a scalar": ({"a": np.array(NAN, np.float32)}, "the weights a have 1 of 1 values"),
    "bfloat16": ({"a": np.array([1, INF], ml_dtypes.bfloat16)}, "the weights a have 1 of 2 values"),
    "8 bits": ({"a": np.array([1, NAN], ml_dtypes.float8_e5m2)}, "the weights a have 1 of 2 values"),
    "several": ({"a": np.array([NAN]), "b": np.array([INF]), "c": np.array([INF])}, "and 2 more arrays have some"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_the_first_array_that_is_not_finite_is_named(name: str) -> None:
    arrays, words = ARRAYS[name]
    if not words:
        check_finite(arrays, "net.pth")
        return
    with pytest.raises(InputError, match=f"^net.pth: .*{words}"):
        check_finite(arrays, "net.pth")


@pytest.fixture
def theirs() -> Arrays:
    """The arrays of a CIFAR ResNet, with PyTorch's names."""
    model, shape, rng = create_model("cifar_resnet20", 10), (32, 32, 3), np.random.default_rng(0)
    sizes = {path: size for layer in list_layers(model, shape) for path, size in layer.arrays.items()}
    ours = {path: rng.normal(size=size).astype(np.float32) for path, size in sizes.items()}
    return convert.export_variables(model, shape, ours, "akamaster")


WRONG = {
    "NaN": (np.float32, NAN, "linear.weight have 1 of 640 values that are NaN or infinite"),
    "above float32": (np.float64, 1e300, "linear.weight have 1 of 640 values that are NaN or infinite"),
    "complex": (np.complex64, 1j, "'linear.weight' has complex"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_with_other_weights_than_finite_real_numbers_is_refused(
    name: str, theirs: Arrays, tmp_path: pathlib.Path
) -> None:
    dtype, value, words = WRONG[name]
    weights = theirs["linear.weight"].astype(dtype)
    weights[0, 0] = value
    path = tmp_path / "net.safetensors"
    export.write(path, theirs | {"linear.weight": weights})
    with pytest.raises(InputError, match=f"net.safetensors: .*{words}") as error:
        files.read(path, create_model("cifar_resnet20", 10), (32, 32, 3))
    assert "\n" not in str(error.value)


def test_counters_and_arrays_that_are_not_used_may_be_anything(theirs: Arrays, tmp_path: pathlib.Path) -> None:
    theirs |= {name: array.astype(np.float32) * NAN for name, array in theirs.items() if "num_batches" in name}
    export.write(tmp_path / "net.safetensors", theirs)
    found = files.read(tmp_path / "net.safetensors", create_model("cifar_resnet20", 10), (32, 32, 3))
    assert all(np.isfinite(array).all() for array in found.values())


def test_a_run_whose_weights_are_not_finite_is_named_with_its_step(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = pathlib.Path(__file__).parents[1] / "runs" / "kept" / "whitened" / "run"
    folder = pathlib.Path(shutil.copytree(kept, tmp_path / "run"))
    network, restore = pretrained.load(folder), checkpoint.restore_model

    def damaged(*args: Any) -> Any:
        step, items = restore(*args)
        params = jax.tree.map(lambda array: array * NAN, items["params"])
        return step, items | {"params": params, "ema": {}}

    monkeypatch.setattr(checkpoint, "restore_model", damaged)
    with pytest.raises(InputError, match=r"/run, step \d+: the weights params/.* NaN or infinite, and"):
        network.load_variables(sharding.make_mesh(), "last", print)
