"""A page in a real browser, from a file and without a network: no error, no request, nothing wider than the screen."""

import pathlib

import pytest

from cnnjax.pages import page, study, sweep
from cnnjax.pages.report import report
from tests import tiny
from tests.evaluation.compared_runs import make_run, right
from tests.pages.browser import find_browser, told
from tests.pages.sweeps import make_sweep

REPORT = pathlib.Path(__file__).resolve().parents[2] / "experiments" / "reports" / "kernel_size-standard.json"


@pytest.fixture(scope="module")
def browser() -> str:
    return find_browser()


def run_page(folder: pathlib.Path, digits_dir: str) -> pathlib.Path:
    """Writes the page of a run."""
    tiny.run(folder / "run", digits_dir, model="lenet5", augment="resize(28)|pad_crop(1)", preprocess="resize(28)")
    return report(folder / "run", data_dir=digits_dir, log=lambda line: None)


def comparison_page(folder: pathlib.Path, digits_dir: str) -> pathlib.Path:
    """Writes the page of three runs."""
    wrong = {"a": range(9), "b": range(3), "c": range(20, 22)}
    runs = [make_run(folder / name, digits_dir, right(*wrong[name])) for name in wrong]
    return report(runs, folder / "page.html", data_dir=digits_dir)


def sweep_page(folder: pathlib.Path, digits_dir: str) -> pathlib.Path:
    """Writes the page of a sweep."""
    shown = sweep.sweep_page(make_sweep(folder, 8), folder / "page.html")
    page.write(folder / "page.html", page.render(sweep.TEMPLATE, page=shown))
    return folder / "page.html"


def study_page(folder: pathlib.Path, digits_dir: str) -> pathlib.Path:
    """Writes the page of a study."""
    return report(REPORT, folder / "page.html")


PAGES = {"run": (run_page, 5), "comparison": (comparison_page, 2), "sweep": (sweep_page, 2), "study": (study_page, 0)}


@pytest.fixture(scope="module", params=PAGES)
def content(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, digits_dir: str
) -> tuple[str, int]:
    """Returns the HTML of a page, and its number of charts."""
    make, charts = PAGES[request.param]
    return make(tmp_path_factory.mktemp("pages"), digits_dir).read_text(), charts


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 768, 1440])
def test_a_page_loads_without_errors_and_requests_at_every_width(
    width: int, browser: str, content: tuple[str, int], tmp_path: pathlib.Path
) -> None:
    found = told(browser, content[0], width, tmp_path)
    assert (found["errors"], found["requests"], found["broken"]) == ([], [], 0)
    assert found["width"] == width
    assert found["scroll"] <= width
    assert found["plots"] == found["charts"] == content[1]


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_comparisons_of_a_study_need_no_scrolling(width: int, browser: str, tmp_path: pathlib.Path) -> None:
    shown = study.study_page(REPORT.with_name("batch_norm-standard.json"))  # has a long metric, a long verdict, points
    found = told(browser, page.render(study.TEMPLATE, page=shown), width, tmp_path)
    assert not any("differences" in name for name in found["wide"])


MATRIX = """<p id="told"></p><table class="confusion" data-told="told"><thead><tr><td></td><th>b</th></tr></thead>
<tbody><tr><th>a</th><td data-count="1" data-total="2"></td></tr></tbody></table>"""
POINT = """
const answer = [...document.querySelectorAll("td")].map(cell => {
  cell.dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
  return document.getElementById("told").textContent;
});"""


@pytest.mark.slow
def test_the_corner_of_a_confusion_matrix_is_no_cell(browser: str, tmp_path: pathlib.Path) -> None:
    script = (pathlib.Path(page.__file__).parent / "static" / "page.js").read_text()
    content = f"<html><head></head>{MATRIX}<script>{script}</script><script>{POINT}</script></html>"
    found = told(browser, content, 360, tmp_path)
    assert (found["errors"], found["answer"]) == ([], ["Point at a cell.", "a predicted as b: 1 of 2 images (50.0%)"])
