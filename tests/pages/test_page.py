"""The skeleton of pages: what is shown as text stays text, and a page on disk is always whole."""

import pathlib

import numpy as np
import pytest

from cnnjax import style
from cnnjax.errors import InputError
from cnnjax.pages import page, pictures
from cnnjax.tables import Table
from tests.pages import structure


def table_page(text: str) -> str:
    template = '{% import "macros.html" as parts %}{{ parts.table(table, text) }}{{ parts.command(text, text) }}'
    return page._environment().from_string(template).render(table=Table([text, "b"], [[text, text]]), text=text)


@pytest.mark.parametrize("text", structure.HOSTILE)
def test_text_is_shown_as_it_is(text: str) -> None:
    shown = structure.Document(table_page(text))
    assert [each.text for each in shown.all("td")] == [text]
    assert [each["aria-label"] for each in shown.all("pre")] == [text]
    assert {each.tag for each in shown.elements} <= {
        "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "p", "pre", "button",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\u202eevil", r"\u202eevil"),
        ("\x00\x1b[1m", r"\x00\x1b[1m"),
        ("a\udcffb", r"a\udcffb"),
        ("x\u2028y", r"x\u2028y"),
    ],
)
def test_characters_that_would_be_obeyed_are_shown_as_escapes(text: str, shown: str) -> None:
    assert structure.Document(table_page(text)).all("td")[0].text == shown


def test_a_percent_sign_stays_with_its_number() -> None:
    shown = structure.Document(table_page("a 95 % interval, a % b")).all("td")[0].text
    assert shown == "a 95\N{NO-BREAK SPACE}% interval, a % b"


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(Exception, match="'nothing' is undefined"):
        page._environment().from_string("{{ nothing }}").render()


def test_a_page_is_written_whole_or_not_at_all(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "page.html"
    assert page.write(path, "<p>ä</p>") == len(path.read_bytes()) == 9

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        page.write(path, "<p>another</p>")
    assert path.read_text() == "<p>ä</p>"
    assert [each.name for each in path.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize("name", ["page.htm", "page", "page.pdf", "folder.html"])
def test_a_page_needs_a_name_that_browsers_know(name: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(InputError, match=r"expected the name of a file that ends in \.html"):
        page.write(tmp_path / name, "")


def test_a_script_of_a_page_does_not_end_its_element() -> None:
    for path in (page.HERE / "static").glob("*.js"):
        assert "</script" not in path.read_text()


def test_the_library_comes_with_its_license() -> None:
    assert "MIT License" in (page.HERE / "static/uPlot.LICENSE").read_text()


@pytest.mark.parametrize(("vector", "kind"), [(True, "svg+xml"), (False, "png")])
def test_a_figure_becomes_a_picture_of_its_size(vector: bool, kind: str) -> None:
    figure = style.sheet([np.zeros((4, 4, 3))] * 3, title="three")
    picture = pictures.from_figure(figure, "three black squares", vector=vector)
    assert picture.uri.startswith(f"data:image/{kind};base64,")
    width, height = (inches * pictures.CSS_DPI for inches in figure.get_size_inches())
    assert (picture.width, picture.height) == (round(width), round(height))


def test_a_figure_with_very_many_paths_becomes_a_png(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_SVG_BYTES", 100)
    assert pictures.from_figure(style.sheet([np.zeros((4, 4))]), "a square", vector=True).uri.startswith(
        "data:image/png"
    )


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_saved_figure_has_the_size_it_was_drawn_in(suffix: str, tmp_path: pathlib.Path) -> None:
    figure = style.new_figure(4, 2)
    style.save(figure, tmp_path / "figure")
    picture = pictures.from_file(tmp_path / f"figure{suffix}", "nothing")
    assert (picture.width, picture.height) == (4 * 96, 2 * 96)
