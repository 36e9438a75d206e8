"""Pipelines of operations: parsed and checked once, by where they run; rows may come from outside."""

import re
from typing import Any

import jax
import numpy as np
import pytest

from cnnjax import augment, spec
from cnnjax.augment import mixing
from cnnjax.config import Config
from cnnjax.data import operations
from cnnjax.data.transforms import HOST_OPS
from cnnjax.errors import InputError
from cnnjax.training.recipe import parse_recipe


@pytest.mark.parametrize(
    ("text", "host", "step"),
    [
        ("", [], []),
        ("resize(256)|center_crop(224)", ["resize", "center_crop"], []),
        ("flip_lr|cutout(8)", [], ["flip_lr", "cutout"]),
        ("random_resized_crop(224)|flip_lr", ["random_resized_crop"], ["flip_lr"]),
    ],
)
def test_operations_run_where_they_belong(text: str, host: list[str], step: list[str]) -> None:
    parsed = operations.parse_operations(text)
    assert [[call.name for call in calls] for calls in (parsed.host, parsed.step)] == [host, step]


@pytest.mark.parametrize("name", operations.ALL_HOST_OPS)
def test_an_operation_sets_the_size_or_keeps_it(name: str) -> None:
    arguments = {"random_resize": (8, 9), "pad": (40,), "rgb": (), "move": (1, 2), "corrupt": ("contrast", 1)}
    image = np.zeros((20, 24, 3), np.uint8)
    call = spec.Call(name, arguments.get(name, (8,)), {})
    function = spec.find("operation", call, operations.ALL_HOST_OPS, image=image, rng=np.random.default_rng(0))
    assert (function().shape[-3:-1] != (20, 24)) == (name in operations.SIZE_OPS)


@pytest.mark.parametrize("name", HOST_OPS)
def test_an_operation_is_random_if_it_draws(name: str) -> None:
    assert operations.is_random([spec.Call(name, (8,), {})]) == (name.startswith("random_") or name == "corrupt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fliplr", "unknown operation 'fliplr'; did you mean 'flip_lr'?"),
        ("flip_lr|resize(8)", "'resize' runs on the host, so it must come before 'flip_lr'"),
        (
            "resize(9)|flip_lr|random_crop(8)|cutout(2)",
            "'random_crop' runs on the host, so it must come before",
        ),
        ("resize", "operation 'resize': missing a required argument: 'size'"),
        ("resize(8, sise=8)", "operation 'resize' has no argument 'sise'; did you mean 'size'?"),
        ("resize('8')", "operation 'resize': size = '8': expected int of 1 to 65,535 or (int of 1 to"),
        ("random_crop(8, rng=None)", "has no argument 'rng'"),
        ("flip_lr|", "is not a pipeline"),
        ("flip_lr|pad_crop(pads=4)", "operation 'pad_crop' has no argument 'pads'; did you mean 'pad'?"),
        ("mixup", "operation 'mixup': missing a required argument: 'alpha'"),
    ],
)
def test_a_wrong_pipeline_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        operations.parse_operations(text)


def test_mixing_operations_are_a_group_of_their_own() -> None:
    parsed = operations.parse_operations("random_crop(8)|flip_lr|mixup(0.2)|cutmix")
    assert [call.name for call in parsed.mixing] == ["mixup", "cutmix"]
    assert [call.name for call in parsed.step] == ["flip_lr"]
    assert operations.parse_operations("") == operations.Operations()
    assert hash(operations.parse_operations("flip_lr").host) == hash(())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("meanstd", "unknown normalization 'meanstd'; did you mean 'mean_std'?"),
        ("range_to(1)", "missing a required argument: 'high'"),
        ("mean_image(mean_image=0)", "has no argument 'mean_image'"),
    ],
)
def test_a_wrong_normalization_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        operations.parse_normalization(text)


def test_statistics_are_those_of_the_operations_and_the_normalization() -> None:
    parsed = operations.parse_operations("resize(8)|pca_color")
    assert operations.required_statistics("resize(8)|pca_color", normalization="mean_std") == {"eigen"}
    assert operations.required_statistics(parsed, normalization=spec.parse("mean_image")) == {"eigen", "mean_image"}


def test_statistics_of_a_mixing_operation_and_of_the_preprocessing_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(operations.MIXING, "mix_by_mean", lambda key, images, target, mean_image: (images, target))
    assert operations.required_statistics("mix_by_mean", normalization="mean_std") == {"mean_image"}
    assert parse_recipe(Config(preprocess="pca_color")).statistics == {"eigen"}


def test_operations_from_outside_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def upside_down(image: np.ndarray) -> np.ndarray:
        return image[::-1]

    def darken(image: Any, by: float = 0.5) -> Any:
        return image * by

    def swap(key: Any, images: Any, target: Any) -> Any:
        return images[::-1], target[::-1]

    monkeypatch.setitem(HOST_OPS, "upside_down", upside_down)
    monkeypatch.setitem(augment.OPS, "darken", darken)
    monkeypatch.setitem(mixing.MIXING, "swap", swap)
    parsed = operations.parse_operations("upside_down|darken(0.25)|swap")
    assert operations.ALL_HOST_OPS["upside_down"] is upside_down
    image = np.full((2, 4, 4, 1), 255, np.uint8)
    prepare = jax.jit(augment.build(parsed.step, "none", {"mean": [0.0], "std": [1.0]}, (4, 4, 1)))
    np.testing.assert_allclose(prepare(jax.random.key(0), image), 0.25)
    mixed = jax.jit(augment.build_mixing(parsed.mixing, 2))(jax.random.key(0), image, np.array([0, 1]))
    np.testing.assert_array_equal(mixed[1], [[0, 1], [1, 0]])
