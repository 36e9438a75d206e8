"""The page of several runs: who is better, curves over each other, and the images on which they disagree."""

import dataclasses
import pathlib

import numpy as np
import pytest

from cnnjax import cli
from cnnjax.evaluation.comparison import RunComparison, compare
from cnnjax.pages import comparison, page
from cnnjax.tables import Table
from tests.evaluation.compared_runs import CLASSES, make_run, right
from tests.pages import structure


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, digits_dir: str) -> list[pathlib.Path]:
    """Returns the folders of three runs: A has 9 images wrong that the others have right, and one is B's alone."""
    root = tmp_path_factory.mktemp("runs")
    wrong = {"a": [*range(9), 20], "b": [20], "c": [21]}
    return [make_run(root / name, digits_dir, right(*wrong[name]), lr=0.1 + i) for i, name in enumerate(wrong)]


@pytest.fixture(scope="module")
def compared(folders: list[pathlib.Path], digits_dir: str) -> RunComparison:
    return compare(folders, data_dir=digits_dir)


@pytest.fixture(scope="module")
def shown(compared: RunComparison, folders: list[pathlib.Path]) -> comparison.ComparisonPage:
    return comparison.comparison_page(compared, folders[0].parent / "page.html")


def parsed(shown: comparison.ComparisonPage) -> structure.Document:
    return structure.check(page.render(comparison.TEMPLATE, page=shown))


def test_the_page_says_who_is_better_and_what_differs(shown: comparison.ComparisonPage) -> None:
    document = parsed(shown)
    assert document.all("h1")[0].text == "Runs A, B and C compared"
    text = document.all("main")[0].text
    assert "B is better than A: 9 images only B has right, 0 only A (McNemar p = 0.012, corrected for 3 tests)" in text
    assert [each["id"] for each in document.all("section")] == [name for name, _ in shown.sections()]
    cells = [cell.text for cell in document.all("th", scope="row")]
    assert "lr" in cells
    assert "weight_decay" not in cells


def test_the_curves_of_all_runs_are_in_one_chart(shown: comparison.ComparisonPage) -> None:
    charts = parsed(shown).charts()
    assert [line["label"] for line in charts["Training loss"]["lines"]] == ["A a", "B b", "C c"]
    assert charts["Training loss"]["lines"][0]["y"] == [0.5, 0.25, 0.125]
    assert set(charts) == {"Training loss", "Speed"}


def test_images_on_which_two_runs_disagree_are_shown(shown: comparison.ComparisonPage) -> None:
    document = parsed(shown)
    assert [pair.title for pair in shown.disagreements] == ["A and C", "A and B", "B and C"]  # the most first
    assert [len(images.tiles) for images in shown.disagreements[0].images] == [1, 10]
    assert len(document.all("img")) == 1 + 10 + 9 + 2
    assert {image["alt"] for image in document.all("img")} >= {"Image 0 of the split", "Image 21 of the split"}
    assert shown.disagreements[1].counts.rows == [["A right", "27", "0"], ["A wrong", "9", "1"]]
    assert shown.gap == ""


def test_without_the_data_set_the_page_says_so(compared: RunComparison, tmp_path: pathlib.Path) -> None:
    runs = tuple(dataclasses.replace(run, data_dir=str(tmp_path / "nowhere")) for run in compared.runs)
    scores = [run.scores and dataclasses.replace(run.scores, identity={"dataset": "gone"}) for run in runs]
    runs = tuple(dataclasses.replace(run, scores=each) for run, each in zip(runs, scores, strict=True))
    shown = comparison.comparison_page(dataclasses.replace(compared, runs=runs), tmp_path / "page.html")
    assert shown.gap.startswith("The images are not shown: ")
    assert parsed(shown).all("img") == []


def test_runs_of_other_data_have_settings_and_curves(
    folders: list[pathlib.Path], tmp_path: pathlib.Path, digits_dir: str
) -> None:
    other = make_run(tmp_path / "other", digits_dir, np.ones(30, bool), "test[:30]")
    compared = compare([folders[0], other], data_dir=digits_dir)
    shown = comparison.comparison_page(compared, tmp_path / "page.html")
    assert shown.sentences == tuple(compared.untested)
    assert [name for name, _ in shown.sections()] == ["result", "settings", "curves", "classes", "runs"]
    parsed(shown)


def test_a_page_of_a_run_is_linked(
    compared: RunComparison, folders: list[pathlib.Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = folders[1] / "report.html"
    own.write_text("")
    shown = comparison.comparison_page(compared, folders[0].parent / "deeper" / "page.html")
    own.unlink()
    assert [run.page for run in shown.runs] == ["", "../b/report.html", ""]
    assert "../b/report.html" in [link["href"] for link in parsed(shown).all("a")]
    assert shown.runs[0].command == f"cnnjax report {folders[0]} --data_dir={compared.runs[0].data_dir}"


def test_the_command_writes_the_page(
    folders: list[pathlib.Path], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "page.html"
    assert cli.main(["report", *map(str, folders[:2]), f"--to={path}", "--no_evaluate"]) == 0
    assert capsys.readouterr().out == f"the page is {path} ({path.stat().st_size / 1e6:.1f} MB)\n"
    assert structure.check(path.read_text()).all("h1")[0].text == "Runs A and B compared"


@pytest.mark.parametrize("text", structure.HOSTILE)
def test_names_are_shown_as_they_are(text: str, shown: comparison.ComparisonPage) -> None:
    table = Table(("", text), [[text, text]])
    run = comparison.RunLink("A", text, text, f"{text}/report.html", text)
    pair, chart = shown.disagreements[0], shown.charts[0]
    tile = dataclasses.replace(pair.images[0].tiles[0], alt=text, lines=(text, text))
    images = dataclasses.replace(pair.images[0], title=text, note=text, tiles=(tile,))
    hostile = dataclasses.replace(
        shown,
        runs=(run, run),
        subject=text,
        sentences=(text,),
        results=table,
        settings=table,
        classes=table,
        charts=(dataclasses.replace(chart, title=text, lines=(dataclasses.replace(chart.lines[0], label=text),)),),
        disagreements=(dataclasses.replace(pair, title=text, sentence=text, counts=table, images=(images,)),),
        gap=text,
        command=text,
    )
    document = parsed(hostile)
    assert len(document.all("script")) == len(parsed(shown).all("script")) - len(shown.charts) + 1
    assert len(document.all("img")) == 1
    assert CLASSES[0] not in document.all("title")[0].text
