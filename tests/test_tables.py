"""Tables as text of any width, and as CSV, Markdown and LaTeX."""

import csv

import pytest

from cnnjax import tables

TABLE = tables.Table(
    ("layer", "receptive field", "MACs"),
    [["conv1/a|b", "3", "1,234,567"], ["100%_{x}\\", "", "8"]],
    frozenset(("layer",)),
)


def test_text_of_full_width_aligns_and_folds_headings() -> None:
    assert tables.as_text(TABLE, 80) == [
        "           receptive",
        "layer          field       MACs",
        "─────────  ─────────  ─────────",
        "conv1/a|b          3  1,234,567",
        "100%_{x}\\                     8",
    ]


@pytest.mark.parametrize("width", range(1, 40))
def test_columns_that_do_not_fit_follow_below_and_no_cell_is_cut(width: int) -> None:
    lines = tables.as_text(TABLE, width)
    words = " ".join(lines).split()
    assert all(cell in words for row in TABLE.rows for cell in row if cell)
    assert width < 20 or all(len(line) <= width for line in lines)
    assert "" not in (lines[0], lines[-1])
    assert words.count("conv1/a|b") == (1 if width >= 31 else 2)


def test_tables_stand_side_by_side_folded_or_below_each_other() -> None:
    one = tables.Table(("layer", "n"), [["block1/conv1/kernel", "123,456"], ["b", "7"]], frozenset(("layer",)))
    wide, narrow, below = (tables.side_by_side(one, one, width) for width in (80, 45, 20))
    assert wide[2] == "block1/conv1/kernel  123,456 | block1/conv1/kernel  123,456"
    assert narrow[2:4] == [
        "block1/  123,456 | block1/  123,456",
        "conv1/           | conv1/",
    ]
    assert max(map(len, narrow)) <= 45
    assert not any("|" in line for line in below)
    assert sum("123,456" in line for line in below) == 2


def test_a_table_without_rows_has_its_headings() -> None:
    empty = tables.Table(("layer", "MACs"), [], frozenset(("layer",)))
    assert tables.as_text(empty, 80)[0].split() == ["layer", "MACs"]
    assert tables.as_csv(empty) == ["layer,MACs"]


def test_other_formats_escape_what_they_would_read_otherwise() -> None:
    assert list(csv.reader(tables.as_csv(TABLE))) == [list(TABLE.headings), *map(list, TABLE.rows)]
    markdown = tables.as_markdown(TABLE)
    assert markdown[1:3] == ["| --- | ---: | ---: |", "| conv1/a\\|b | 3 | 1,234,567 |"]
    latex = tables.as_latex(TABLE)
    assert latex[0] == r"\begin{tabular}{lrr}"
    assert latex[5] == r"100\%\_\{x\}\textbackslash{} &  & 8 \\"


def test_joined_tables_fill_the_shorter_one() -> None:
    short = tables.Table(("a", "b"), [["1", "2"]])
    assert tables.joined(TABLE, short).rows == [[*TABLE.rows[0], "1", "2"], [*TABLE.rows[1], "", ""]]
