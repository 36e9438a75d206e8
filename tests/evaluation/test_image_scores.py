"""Scores of single images: kept beside the report, exact enough, and read back; mistakes, temperature and groups."""

import csv
import dataclasses
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

from cnnjax import cli
from cnnjax.data.build import load
from cnnjax.errors import InputError
from cnnjax.evaluation import groups, image_scores, mistakes, temperature
from cnnjax.evaluation.evaluate import evaluate
from tests import tiny

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def finished(digits_dir: str, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Returns the folder of a run that makes some mistakes."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    tiny.run(folder, digits_dir, duration="20 steps", val_split="test[:64]", test_split="test[64:]")
    return folder


@pytest.fixture(scope="module")
def evaluated(finished: pathlib.Path, digits_dir: str) -> dict[str, Any]:
    """Returns the result of an evaluation with all sections."""
    table = finished / "groups.csv"
    table.write_text("index,group\n" + "".join(f"{i},{'even' if i % 2 else 'odd'}\n" for i in range(290)))
    return evaluate(finished, data_dir=digits_dir, calibrate="val_split", groups=table, mistakes=True)


def scores_of(scores: np.ndarray, labels: np.ndarray, digits_dir: str) -> image_scores.ImageScores:
    """Returns the ImageScores of the first images of digits with other scores and labels."""
    examples = load("digits", f"test[:{len(labels)}]", digits_dir)
    description = {"dataset": "digits", "split": examples.split, "step": 1}
    classes = [f"class {k}" for k in range(scores.shape[1])]
    return image_scores.from_scores(scores, labels, classes, description, examples)


# ------------------------------------------------------------------------------------------------------ kept and read


def test_an_evaluation_keeps_the_scores_of_each_image(evaluated: dict[str, Any], digits_dir: str) -> None:
    scores = image_scores.read(evaluated["folder"])
    labels = image_scores.open_images(scores, digits_dir).read(np.arange(len(scores)))[1]
    np.testing.assert_array_equal(scores.labels, labels)
    assert scores.is_correct.sum() == evaluated["top1_right"]
    assert -scores.log_probabilities[np.arange(len(labels)), labels].mean() == pytest.approx(evaluated["nll"], rel=1e-3)
    np.testing.assert_allclose(scores.probabilities.sum(axis=1), 1, atol=2e-3)
    assert (scores.classes, scores.description) == (
        tuple(evaluated["per_class"]),
        {name: evaluated[name] for name in ("dataset", "split", "step")},
    )
    assert scores.ranges == (("test", 64, 359),)
    path = pathlib.Path(evaluated["folder"]) / "scores.npz"
    assert path.stat().st_size < 295 * (2 * 10 + 8) + 3000
    assert image_scores.read(path).labels.tolist() == scores.labels.tolist()


def test_probabilities_are_as_exact_as_is_said(tmp_path: pathlib.Path, digits_dir: str) -> None:
    exact = np.random.default_rng(0).uniform(1e-12, 1, 300)
    exact[:100] = 1 - np.geomspace(1e-7, 0.1, 100)
    both = np.stack([exact, 1 - exact], axis=1)
    kept = scores_of(np.log(both).astype(np.float32), np.zeros(300, int), digits_dir)
    image_scores.write(kept, tmp_path)
    read = image_scores.read(tmp_path).probabilities
    np.testing.assert_allclose(read, both, atol=2e-4)
    near = exact > 0.99
    np.testing.assert_allclose(1 - read[near, 0], 1 - exact[near], rtol=6e-4, atol=2e-7)


def test_scores_that_are_no_numbers_have_no_probability(digits_dir: str) -> None:
    scores = np.array([[NAN, 1, 1], [NAN, NAN, NAN], [3, NAN, INF], [-INF, -INF, 0]], np.float32)
    kept = scores_of(scores, np.array([1, 0, 0, 2]), digits_dir)
    assert kept.predictions.tolist() == [1, -1, 2, 2]
    assert kept.is_correct.tolist() == [True, False, False, True]
    np.testing.assert_allclose(kept.probabilities, [[0, 0.5, 0.5], [0, 0, 0], [0, 0, 1], [0, 0, 1]], atol=1e-3)
    np.testing.assert_allclose(kept.confidence, [0.5, 0, 1, 1], atol=1e-3)


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "link"])
def test_a_damaged_file_is_named(damage: str, tmp_path: pathlib.Path, digits_dir: str) -> None:
    path = image_scores.write(scores_of(np.zeros((40, 3), np.float32), np.zeros(40, int), digits_dir), tmp_path)
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.unlink()
    if damage == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif damage != "gone":
        path.write_bytes(content[:200] if damage == "cut" else content)
    with pytest.raises(InputError, match=r"scores\.npz"):
        image_scores.read(tmp_path)


def test_images_of_another_data_set_are_not_shown(digits_dir: str) -> None:
    kept = scores_of(np.zeros((4, 3), np.float32), np.zeros(4, int), digits_dir)
    kept.identity["digests"]["test"] = "0"  # pyright: ignore[reportIndexIssue]
    with pytest.raises(InputError, match="'digits' is not the one evaluated: evaluate the network again"):
        image_scores.open_images(kept, digits_dir)


def _change(folder: pathlib.Path, change: str) -> None:
    """Changes the report in `folder` as if it were of other weights, of other data, ..."""
    scores = image_scores.read(folder)
    p, shift = scores.probabilities, {"rounding": 2e-4, "weights": 0.01}.get(change, 0.0)
    moved = np.log(p + shift * (0.5 - p)).astype(np.float32)
    identity = {**scores.identity, "digests": {}} if change == "data" else scores.identity
    image_scores.write(dataclasses.replace(scores, log_probabilities=moved, identity=identity), folder)
    if change in ("scores.npz", "metrics.json"):
        (folder / change).write_bytes(b"damaged")


@pytest.mark.parametrize("change", ["nothing", "rounding", "weights", "data", "scores.npz", "metrics.json"])
def test_what_an_earlier_evaluation_of_the_same_scores_wrote_is_kept(
    change: str, evaluated: dict[str, Any], finished: pathlib.Path, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    run = pathlib.Path(shutil.copytree(finished, tmp_path / "run"))
    folder = run / pathlib.Path(evaluated["folder"]).relative_to(finished)
    before = {path.name for path in folder.iterdir()}
    _change(folder, change)
    result = evaluate(run, data_dir=digits_dir)
    assert result["folder"] == str(folder)
    after, content = {path.name for path in folder.iterdir()}, json.loads((folder / "metrics.json").read_text())
    asked = {"temperature", "temperature_split", "ece_scaled", "nll_scaled", "per_group", "confused_pairs"}
    assert not asked & result.keys()
    assert {name: content[name] for name in result} == result
    if change in ("nothing", "rounding"):
        assert after == before
        assert {name: content[name] for name in asked} == {name: evaluated[name] for name in asked}
    else:
        assert {path.partition(".")[0] for path in before - after} == {
            "temperature", "per_group", "mistakes", "unsure_hits", "confused_pairs",
        }  # fmt: skip
        assert not asked & content.keys()


# ------------------------------------------------------------------------------------------------------------ mistakes


def test_mistakes_are_ranked_by_confidence_and_pairs_by_count(digits_dir: str) -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    probabilities = np.array([[.2, .8, 0], [.05, .95, 0], [.6, .4, 0], [.1, .9, 0], [.7, .3, 0],
                              [.25, .2, .55], [0, .2, .8], [.99, 0, .01]])  # fmt: skip
    with np.errstate(divide="ignore"):
        scores = scores_of(np.log(probabilities).astype(np.float32), labels, digits_dir)
    examples = image_scores.open_images(scores, digits_dir)
    wrong, hits = mistakes.confident_mistakes(scores, examples, 3), mistakes.unsure_hits(scores, examples, 2)
    assert wrong.indices.tolist() == [7, 1, 0]
    assert wrong.captions[0] == "class 2\n→ class 0\n99.00%"
    assert "4 of 8 images are classified wrongly" in wrong.note
    assert (hits.indices.tolist(), hits.captions[0]) == ([5, 2], "class 2: 55%\nclass 0: 25%")
    np.testing.assert_array_equal(wrong.images[1], examples.read(np.array([1]))[0][0])
    pairs = mistakes.confused_pairs(scores, examples, pairs=2)
    assert [pairs.name(i) for i in range(3)] == ["class 0 → class 1", "class 1 → class 0", "class 2 → class 0"]
    assert (pairs.counts.tolist(), pairs.fractions.tolist()) == ([2, 1, 1], pytest.approx([2 / 3, 1 / 2, 1 / 3]))
    assert [each.tolist() for each in pairs.indices] == [[1, 0], [4]]
    assert all(len(shown.figure().axes) == 1 for shown in (wrong, hits, pairs))


def test_the_report_shows_mistakes_where_there_are_any(
    evaluated: dict[str, Any], finished: pathlib.Path, digits_dir: str
) -> None:
    folder = pathlib.Path(evaluated["folder"])
    with (folder / "mistakes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == evaluated["count"] - evaluated["top1_right"] > 0
    confidences = [float(row["confidence"]) for row in rows]
    assert confidences == sorted(confidences, reverse=True)
    pairs = evaluated["confused_pairs"]
    matrix = np.array(json.loads((folder / "metrics.json").read_text())["confusion"])
    assert pairs[0]["images"] == (matrix - np.diag(np.diag(matrix))).max()
    for name in ("mistakes", "unsure_hits", "confused_pairs", "temperature"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"{name}.svg").read_bytes().startswith(b"<?xml")
    right = int(np.flatnonzero(image_scores.read(folder).is_correct)[0])
    result = evaluate(finished, split=f"test[{64 + right}:{65 + right}]", data_dir=digits_dir, mistakes=True)
    assert (result["accuracy"], result["confused_pairs"]) == (1, [])
    assert not (pathlib.Path(result["folder"]) / "mistakes.png").exists()


# --------------------------------------------------------------------------------------------- temperature and groups


@pytest.mark.parametrize("truth", [0.3, 1.0, 2.5])
def test_the_temperature_of_scores_is_found(truth: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(scale=2, size=(20_000, 5))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1)
    found = temperature.fit_temperature((truth * logits).astype(np.float32), labels)
    assert found == pytest.approx(truth, rel=0.05)
    entries = temperature.temperature_section(found, "val", truth * logits, labels).entries
    assert entries["ece_scaled"] < 0.012
    assert entries["nll_scaled"] == pytest.approx(-np.log(p[np.arange(len(p)), labels]).mean(), abs=1e-3)


def test_a_temperature_stays_finite_without_mistakes_and_with_impossible_labels() -> None:
    scores = np.array([[5, 0], [0, 5]], np.float32)
    assert temperature.LIMITS[0] <= temperature.fit_temperature(scores, np.array([0, 1])) < 0.2
    assert np.isfinite(temperature.fit_temperature(np.array([[0, -INF], [NAN, 1]], np.float32), np.array([1, 0])))


def test_a_temperature_is_fitted_on_other_images_and_kept(
    evaluated: dict[str, Any], finished: pathlib.Path, digits_dir: str
) -> None:
    assert evaluated["temperature_split"] == "test[:64]"
    val = image_scores.read(evaluate(finished, split="test[:64]", data_dir=digits_dir)["folder"])
    grid = np.geomspace(0.1, 5, 2000)
    losses = [-np.log(_power(val.probabilities, t)[np.arange(64), val.labels]).mean() for t in grid]
    assert evaluated["temperature"] == pytest.approx(grid[np.argmin(losses)], rel=0.01)
    assert pathlib.Path(evaluated["folder"]).name == "digits-test_64-_-step20"  # another one than of test[:64]
    with pytest.raises(InputError, match=r"'test\[:80\]': expected images outside the evaluated 'test\[64:\]'"):
        evaluate(finished, data_dir=digits_dir, calibrate="test[:80]")


def test_the_command_prints_the_temperature_the_groups_and_the_confused_pairs(
    evaluated: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr("cnnjax.evaluation.evaluate.evaluate", lambda *_, **options: asked.update(options) or evaluated)
    run = str(pathlib.Path(evaluated["folder"]).parents[1])
    flags = ["--mistakes", "--calibrate=val_split", "--groups=g.csv"]
    assert cli.main(["evaluate", f"--workdir={run}", *flags]) == 0
    assert (asked["mistakes"], asked["calibrate"], asked["groups"]) == (True, "val_split", "g.csv")
    shown = capsys.readouterr().out
    pair = evaluated["confused_pairs"][0]
    assert f"confused most: {pair['label']} as {pair['prediction']} {pair['images']}, " in shown
    assert f"temperature {evaluated['temperature']:.3f}, fitted on test[:64]: ECE {evaluated['ece']:.2%} -> " in shown
    assert shown.splitlines()[-1] == (
        f"more in {evaluated['folder']}: calibration (.csv, .png, .svg), confused_pairs (.csv, .png, .svg), "
        "confusion (.csv, .png, .svg), metrics.json, mistakes (.csv, .png, .svg), per_class.csv, per_group.csv, "
        "precision_recall (.png, .svg), roc (.png, .svg), scores.npz, temperature (.png, .svg), "
        "unsure_hits (.png, .svg)"
    )
    assert f"{evaluated['per_group']['even']:.2%}" in shown


def _power(p: np.ndarray, t: float) -> np.ndarray:
    """Returns probabilities [N, K] at another temperature."""
    q = p.astype(np.float64) ** (1 / t)
    return q / q.sum(axis=1, keepdims=True)


def test_the_accuracy_of_each_group_is_reported(evaluated: dict[str, Any]) -> None:
    correct = image_scores.read(evaluated["folder"]).is_correct
    rest = np.arange(len(correct)) >= 290
    odd = np.arange(len(correct)) % 2 == 0
    members = {"even": ~odd & ~rest, "odd": odd & ~rest, "(no group)": rest}
    assert evaluated["per_group"] == pytest.approx({name: correct[mask].mean() for name, mask in members.items()})
    assert evaluated["worst_group_accuracy"] == min(evaluated["per_group"].values())
    with (pathlib.Path(evaluated["folder"]) / "per_group.csv").open() as file:
        rows = {row["group"]: row for row in csv.DictReader(file)}
    assert (int(rows["even"]["images"]), int(rows["(no group)"]["images"])) == (145, 5)
    assert all(float(row["low"]) <= float(row["accuracy"]) <= float(row["high"]) for row in rows.values())


def test_intervals_of_groups_are_wilsons() -> None:
    table = groups.accuracy_by_group(groups.Groups(("a",), np.zeros(10, int)), np.arange(10) < 8)
    assert (table["low"][0], table["high"][0]) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # scipy's binomtest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,a\n9,b\n", "line 2: index 9; the split has 3 images, 0 to 2"),
        ("0,a\n0,b\n", "line 2: index 0 is listed twice"),
        ("0,a\nx,b\n", "line 2: 'x,b'; expected an image's index and its group"),
        ("0,\n", "line 1: '0,'"),
        ("index,group\n", "lists no image"),
        (b"\xff\xfe0,a", "expected a CSV file with two columns"),
        (None, "No such file or directory; expected a CSV file"),
    ],
)
def test_a_wrong_table_of_groups_is_named_with_its_line(text: Any, message: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "groups.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        groups.read_groups(path, 3)


def test_groups_are_in_the_order_of_numbers_or_names(tmp_path: pathlib.Path) -> None:
    (tmp_path / "groups.csv").write_text("\ufeffimage,site\n2,10\n\n0,9\n")
    found = groups.read_groups(tmp_path / "groups.csv", 3)
    assert (found.names, found.members.tolist()) == (("9", "10"), [0, -1, 1])
