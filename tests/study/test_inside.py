"""Checks what layers tell about the class, and what they see, in cases whose answer is clear."""

import pathlib

import numpy as np
import pytest

from cnnjax.evaluation import probe
from cnnjax.evaluation.trained import load
from cnnjax.study import inside
from cnnjax.visualize import gabor_fits
from tests import tiny


def test_the_selectivity_of_a_channel_compares_its_strongest_class_with_the_others() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    features = np.array(
        [[2.0, 1, 0, 4], [4, 1, 0, 2], [0, 1, 0, 1], [0, 1, 0, 3], [0, 1, 0, 0], [0, 1, 0, 0]]
    )  # for one class only; the same for all; never active; means of 3, 2 and 0
    np.testing.assert_allclose(inside.class_selectivity(features, labels), [1, 0, 0, 0.5], atol=1e-9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, digits_dir: str) -> pathlib.Path:
    """A run of two 3x3 convolutions, which together see 5x5 pixels, and a third layer that sees more."""
    folder = tmp_path_factory.mktemp("inside") / "run"
    model = "sequential('conv(4, 5, padding=2)|relu|conv(4, 3)|relu|max_pool(2)|conv(6, 2)|relu|gap|dense')"
    tiny.run(folder, digits_dir, model=model, duration="2 steps", test_split="test[:50]")
    return folder


def test_the_effective_field_is_that_of_the_last_layer_within_the_limit(folder: pathlib.Path, digits_dir: str) -> None:
    large = inside.effective_fields(folder, digits_dir, 7)
    small = inside.effective_fields(folder, digits_dir, 5)
    for time in ("start", "end"):
        assert large[f"share_{time}"] == pytest.approx(large[f"pixels_{time}"] / 49)
        assert small[f"share_{time}"] == pytest.approx(small[f"pixels_{time}"] / 25)
        assert small[f"share_{time}"] > 0.8  # one kernel of random weights looks at all of its window
        assert large[f"share_{time}"] < small[f"share_{time}"]  # a stack looks at the middle


def test_each_layer_with_feature_maps_is_probed(
    folder: pathlib.Path, digits_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside, "PROBED", 60)
    monkeypatch.setattr(probe, "INVERSE_REGULARIZATION", (1.0,))
    monkeypatch.setattr(gabor_fits, "CONTROLS", 2)
    result = inside.by_depth(folder, digits_dir)
    for metric in ("probe", "selectivity"):
        assert len(result[metric]) == 4
        assert all(0 <= value <= 1 for value in result[metric])
        assert result[f"{metric}_rise"] == result[metric][-1] - result[metric][0]
    assert result["probe_last"] > 0.2  # chance is 0.1
    assert 0 < inside.gabor_likeness(folder)["gabor_r2"] < 1


def test_layers_are_in_the_order_of_the_network(folder: pathlib.Path) -> None:
    """Not in that of the alphabet, in which the pool would be the last."""
    features = inside._pooled_features(load(folder), np.zeros((2, 8, 8, 1), np.uint8))
    assert list(features) == ["conv1", "conv2", "max_pool1", "conv3"]
