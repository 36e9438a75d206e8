"""Sanity checks: a map that depends on the weights changes when they are random, and one that does not is marked."""

from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from cnnjax.visualize import explain, sanity
from cnnjax.visualize.attribution import METHODS, Method
from tests.visualize.networks import images, trained

SMALL = "sequential(layers='conv(6, 3)|relu|max_pool(2)|conv(8, 3)|tanh|gap|dense')"


def test_a_map_that_depends_on_the_weights_changes_and_edges_of_the_image_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def edges(scorer: Any, variables: Any, x: jax.Array, classes: jax.Array) -> jax.Array:
        return abs(x[:, 1:, 1:] - x[:, :-1, :-1])

    monkeypatch.setitem(METHODS, "edges", Method("edges", edges))
    net = trained(SMALL)
    result = explain(net, images(net), method="edges")
    assert result.check is not None
    np.testing.assert_allclose(result.check.correlations, 1)
    assert result.check.unchanged.tolist() == [True, True]
    assert "2 of 2 hardly change: they show the image, not what was learned" in result.note
    texts = [text.get_text() for text in result.figure().axes[0].texts]
    assert texts.count("hardly changes") == 2

    result = explain(net, images(net), method="gradient")
    assert result.check is not None
    assert result.check.layers[0] == 1
    assert result.check.correlations.shape == (len(result.check.layers), 2)
    assert result.check.similarity.max() < 0.5
    assert "hardly" not in result.note
    assert explain(net, images(net), method="occlusion", options={"window": 4}, check=False).note == (
        "window 4, stride 2, baseline gray; without a sanity check"
    )


def test_maps_whose_signs_alone_change_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    net = trained(SMALL)

    def signed(scorer: Any, variables: Any, x: jax.Array, classes: jax.Array) -> jax.Array:
        alternating = np.where(np.arange(x.shape[2]) % 2, 1, -1)[None, None, :, None]
        return abs(x - x.mean()) * (1 if variables is net.variables else alternating)

    monkeypatch.setitem(METHODS, "signed", Method("signed", signed))
    result = explain(net, images(net), method="signed")
    assert result.check is not None
    np.testing.assert_allclose(result.check.absolute_correlations, 1)
    assert result.check.similarity.max() < 0.5
    assert not result.check.unchanged.any()
    assert result.check.only_signs_change.all()
    words = "of absolute values 1.00; 2 of 2 change in their signs alone: their strength shows the image"
    assert words in result.note
    texts = [text.get_text() for text in result.figure().axes[0].texts]
    assert texts.count("signs change") == 2


def test_weights_are_shuffled_from_the_top_down() -> None:
    net = trained("cifar_resnet20(depth=8)")
    changed = []
    for paths in (["head"], ["head", "conv1"]):
        variables = sanity.shuffled(net.variables, paths)
        pairs = zip(leaves(net.variables), leaves(variables), strict=True)
        changed.append({path for (path, a), (_, b) in pairs if not np.array_equal(a, b)})
        for (path, a), (_, b) in zip(leaves(net.variables), leaves(variables), strict=True):
            np.testing.assert_array_equal(np.sort(np.ravel(a)), np.sort(np.ravel(b)), path)
    assert changed[0] == {"['params']['head']['kernel']", "['params']['head']['bias']"}
    assert changed[1] - changed[0] == {"['params']['conv1']['kernel']"}


def leaves(tree: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3], [10, 20, 90], 1),
        ([1, 2, 3], [3, 2, 1], -1),
        ([1, 1, 1], [1, 2, 3], 0),
        ([1, 2, 3, 4], [2, 1, 4, 3], 0.6),
    ],
)
def test_ranks_are_correlated(a: list[float], b: list[float], expected: float) -> None:
    assert sanity.rank_correlation(np.array(a), np.array(b)) == pytest.approx(expected)


def test_a_deconvnet_without_switches_says_that_it_ignores_the_image() -> None:
    for text, ignores in ((SMALL, False), (SMALL.replace("max_pool", "avg_pool"), True)):
        net = trained(text)
        result = explain(net, images(net), method="deconvnet", check=False)
        assert result.ignores_image == ignores
        assert ("the same for all images" in result.note) == ignores
        assert isinstance(result.figure(), Figure)
