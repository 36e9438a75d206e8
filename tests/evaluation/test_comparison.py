"""Comparisons of runs: what differs, paired tests on the same images, and what cannot be compared."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnnjax import sealed
from cnnjax.errors import InputError
from cnnjax.evaluation import comparison_tables, image_scores, mistakes
from cnnjax.evaluation.comparison import compare, short_names, why_unpaired
from tests.evaluation import compared_runs
from tests.evaluation.compared_runs import CLASSES, right, scores_of


@pytest.fixture
def make_run(tmp_path: pathlib.Path, digits_dir: str) -> Callable[..., pathlib.Path]:
    """Returns a function that makes the folder of a run by its name. See `compared_runs.make_run`."""
    return lambda name, *args, **changes: compared_runs.make_run(tmp_path / name, digits_dir, *args, **changes)


def test_only_the_settings_that_differ_are_listed(make_run: Callable[..., pathlib.Path]) -> None:
    runs = [make_run("a", lr=0.1), make_run("b", lr=0.2, augment="flip_lr"), make_run("c", lr=0.1)]
    compared = compare(runs, with_evaluation=False)
    assert compared.settings == {"lr": (0.1, 0.2, 0.1), "augment": ("", "flip_lr", "")}
    table = comparison_tables.settings_table(compared)
    assert (table.headings, table.rows) == (
        ("setting", "A", "B", "C"), [["augment", "-", "flip_lr", "-"], ["lr", "0.1", "0.2", "0.1"]],
    )  # fmt: skip


def test_settings_that_are_wide_are_listed_below_each_other(make_run: Callable[..., pathlib.Path]) -> None:
    compared = compare([make_run("a", augment="flip_lr|pad_crop(1)"), make_run("b")], with_evaluation=False)
    assert comparison_tables.settings_lines(compared, 40)[-1] == "augment  flip_lr|pad_crop(1)  -"
    assert comparison_tables.settings_lines(compared, 30) == ["augment", "  A  flip_lr|pad_crop(1)", "  B  -"]


def test_a_setting_with_a_former_name_is_the_same_setting(make_run: Callable[..., pathlib.Path]) -> None:
    runs = [make_run("old", grad_clip_norm=1.0), make_run("new", grad_clip_norm=1.0), make_run("other")]
    values = sealed.read_json(runs[0] / "config.json")
    values["clip_norm"] = values.pop("grad_clip_norm")
    sealed.write_json(runs[0] / "config.json", values)
    assert compare(runs, with_evaluation=False).settings == {"grad_clip_norm": (1.0, 1.0, 0.0)}
    assert compare(runs[:2], with_evaluation=False).settings == {}


def test_times_are_those_of_the_steps(make_run: Callable[..., pathlib.Path]) -> None:
    first = compare([make_run("a"), make_run("b")], with_evaluation=False).runs[0]
    assert first.training_seconds == pytest.approx(16 * (2 / 100 + 2 / 50 + 4 / 100))
    assert first.images_per_second == 100


def test_runs_are_tested_image_by_image_on_their_evaluations(make_run: Callable[..., pathlib.Path]) -> None:
    runs = [make_run("a", right(*range(9), 20)), make_run("b", right(20)), make_run("c", right(21))]
    compared = compare(runs)
    assert [(pair.first, pair.second) for pair in compared.pairs] == [(0, 1), (0, 2), (1, 2)]
    first = compared.pairs[0].test
    assert (first.only_first, first.only_second, first.both, first.neither) == (0, 9, 27, 1)
    assert first.p == pytest.approx(3 * 2 / 2**9)  # corrected for three tests
    assert comparison_tables.sentences(compared) == [
        "B is better than A: 9 images only B has right, 0 only A (McNemar p = 0.012, corrected for 3 tests); "
        "+24.32 points, 95% interval +10.81 to +37.84",
        "C is better than A: 10 images only C has right, 1 only A (McNemar p = 0.023, corrected for 3 tests); "
        "+24.32 points, 95% interval +8.11 to +40.54",
        "No difference between C and B can be shown: 1 image only C has right, 1 only B (McNemar p = 1, corrected for "
        "3 tests); +0.00 points, 95% interval -8.11 to +8.11",
    ]
    assert compared.untested == ()


def test_of_many_runs_the_best_is_compared_with_each(make_run: Callable[..., pathlib.Path]) -> None:
    runs = [make_run(f"run{i}", right(*range(9 - i if i < 4 else 0, 9))) for i in range(6)]
    said = comparison_tables.sentences(compare(runs))
    assert len(said) == 5 + 1
    assert all("A" in sentence for sentence in said[:-1])
    assert said[-1].startswith("Only the tests of A, the most accurate run, are listed: 5 of 15")
    assert len(comparison_tables.sentences(compare(runs[:5]))) == 10


def test_the_better_run_comes_first_whichever_it_is(make_run: Callable[..., pathlib.Path]) -> None:
    good, bad = make_run("good", right()), make_run("bad", right(*range(8)))
    one, other = (comparison_tables.sentences(compare(runs))[0] for runs in ((good, bad), (bad, good)))
    assert one.startswith("A is better than B: 8 images only A has right, 0 only B (McNemar p = 0.0078); +21.62 points")
    assert other == one.replace("A", "x").replace("B", "A").replace("x", "B").replace("McNemBr", "McNemar")


def test_equal_answers_are_called_so(make_run: Callable[..., pathlib.Path]) -> None:
    runs = [make_run("a", right(3)), make_run("b", right(3))]
    assert comparison_tables.sentences(compare(runs)) == ["A and B classify the same 36 of 37 images correctly"]


def test_runs_on_other_images_are_compared_in_settings_and_curves_only(make_run: Callable[..., pathlib.Path]) -> None:
    runs = [
        make_run("a", right()),
        make_run("b", np.ones(30, bool), "test[:30]"),
        make_run("c", right(1)),
        make_run("d"),
    ]
    compared = compare(runs, with_evaluation=False)
    assert [(pair.first, pair.second, pair.test.tests) for pair in compared.pairs] == [(0, 2, 1)]
    assert compared.untested == (
        "A and B are compared in settings and curves only: their test splits are test[64:101] and test[:30]",
        "B and C are compared in settings and curves only: their test splits are test[:30] and test[64:101]",
        "No paired tests with D: no scores of single images",
    )


def test_runs_are_compared_at_steps_that_they_have(make_run: Any) -> None:
    runs = [make_run("a"), make_run("b")]
    assert compare(runs, step="8", with_evaluation=False).pairs == ()
    for step in ("7", "²"):
        with pytest.raises(InputError, match=f"a has no checkpoint of step '{step}'; valid: last, best, 8"):
            compare(runs, step=step, with_evaluation=False)


def test_the_same_images_under_another_name_of_the_split_are_compared(digits_dir: str) -> None:
    one, other = (scores_of(np.ones(359, bool), digits_dir, split) for split in ("test", "test[:100%]"))
    assert why_unpaired(one, other) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"description": {"dataset": "mnist", "split": "test", "step": 1}}, "their data sets are digits and mnist"),
        ({"identity": {"dataset": "digits/1.0.0", "bytes": 3}}, "the data set digits was rebuilt"),
        ({"classes": (*CLASSES[:9], "ten")}, "their classes differ"),
        ({"classes": CLASSES[::-1]}, "their classes differ"),
        ({"ranges": (("test", 0, 37),)}, "their test splits are"),
    ],
)
def test_why_two_evaluations_cannot_be_paired(changes: dict[str, Any], reason: str, digits_dir: str) -> None:
    scores = scores_of(right(), digits_dir)
    assert why_unpaired(scores, dataclasses.replace(scores, **changes)).startswith(reason)
    assert why_unpaired(scores, scores) == ""


def test_images_on_which_two_networks_disagree_are_shown_the_surest_first(digits_dir: str) -> None:
    a, b = scores_of(right(1, 2, 3), digits_dir), scores_of(right(3, 5), digits_dir)
    unsure = a.log_probabilities.copy()
    unsure[1] *= 2
    a = dataclasses.replace(a, log_probabilities=unsure)
    examples = image_scores.open_images(a, digits_dir)
    only_a, only_b = mistakes.disagreements(a, b, examples, ("A", "B"))
    assert (only_a.indices.tolist(), only_b.indices.tolist()) == ([5], [2, 1])
    images, labels = examples.read(np.array([5]))
    assert only_a.title == "Only A is right"
    assert only_a.captions == [f"A: {labels[0]} (69%)\nB: {(labels[0] + 1) % 10} (69%)"]
    np.testing.assert_array_equal(only_a.images[0], images[0])
    assert only_b.figure().get_size_inches()[0] > 0


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/r/a", "/r/b"], ["a", "b"]),
        (["/r/3x3/seed0", "/r/7x7/seed0"], ["3x3/seed0", "7x7/seed0"]),
        (["/r/a", "/r/a/b"], ["a", "a/b"]),
        (["/r/a", "/s/a"], ["r/a", "s/a"]),
    ],
)
def test_names_are_what_the_paths_do_not_have_in_common(paths: list[str], names: list[str]) -> None:
    assert short_names([pathlib.Path(path) for path in paths]) == names


def test_what_is_no_comparison_is_an_error(make_run: Callable[..., pathlib.Path], tmp_path: pathlib.Path) -> None:
    run = make_run("a", right())
    (tmp_path / "link").symlink_to(run)
    for runs, message in (
        ([run], "1 run: expected 2 to 26 folders of runs"),
        ([run] * 27, "27 runs: expected 2 to 26"),
        ([run, run], f"{run} is given twice: expected different runs"),
        ([run, tmp_path / "link"], f"{tmp_path / 'link'} is given twice, also as {run}"),
        ([run, tmp_path / "no"], f"{tmp_path / 'no'} does not exist"),
        ([run, tmp_path], f"{tmp_path} is not a run's folder: it has no config.json"),
    ):
        with pytest.raises(InputError) as caught:
            compare(runs)
        assert message in str(caught.value)
