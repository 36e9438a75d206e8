"""Tables as text that fits a terminal, and as CSV, Markdown and LaTeX. Numbers are never cut."""

import csv
import dataclasses
import io
import itertools
import textwrap
from collections.abc import Callable, Iterable, Sequence

GAP = "  "  # between columns
SIDE = " | "  # between tables that stand side by side
MIN_NAME_WIDTH = 8  # of a first column that is folded


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text: `headings`, and `rows` as long as these. `names` are the headings of left-aligned columns."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    names: frozenset[str] = frozenset()

    def columns(self) -> list[list[str]]:
        """Returns the cells of each column, without the heading."""
        return [list(column) for column in zip(*self.rows, strict=True)] if self.rows else [[] for _ in self.headings]


# ---------------------------------------------------------------------------------------------------------------- text


def as_text(table: Table, width: int) -> list[str]:
    """Lays out a table in lines of at most `width` characters.

    Columns that do not fit beside the others follow below, in further tables that begin with the first column again. A
    line is longer than `width` only if the first column and one more do not fit.
    """
    first, *columns = _layout(table)
    lines: list[str] = []
    while columns:
        block = [first, columns.pop(0)]
        while columns and _width([*block, columns[0]]) <= width:
            block.append(columns.pop(0))
        shown = _lines(block)
        lines += [*([""] if lines else []), *shown[not shown[0] :]]  # no blank line where no heading is folded
    return lines


def side_by_side(left: Table, right: Table, width: int) -> list[str]:
    """Lays out two tables beside each other in `width` characters, with the first column of each folded if need be.

    If even that does not fit, the second stands below the first.
    """
    room = width - len(SIDE)
    for tables in ((left, right), (_folded(left, room // 2), _folded(right, room // 2))):
        layouts = [_layout(table) for table in tables]
        if sum(map(_width, layouts)) <= room:
            one, other = map(_lines, layouts)
            pairs = itertools.zip_longest(one, other, fillvalue="")
            return [f"{a:{_width(layouts[0])}}{SIDE}{b}".rstrip() for a, b in pairs]
    return [*as_text(left, width), "", *as_text(right, width)]


def _folded(table: Table, width: int) -> Table:
    """Returns the table with the first column folded into several rows where that makes it fit `width` characters."""
    room = max(width - _width(_layout(table)[1:]) - len(GAP), MIN_NAME_WIDTH)
    rows: list[Sequence[str]] = []
    for name, *cells in table.rows:
        parts = [part.replace("/ ", "/") for part in textwrap.wrap(name.replace("/", "/ "), room)] or [""]
        rows += [[parts[0], *cells], *([part, *("" for _ in cells)] for part in parts[1:])]
    return Table(table.headings, rows, table.names)


def _layout(table: Table) -> list[list[str]]:
    """Returns the lines of each column: its heading, a rule and its cells, padded to one width.

    A heading that is wider than the cells is folded at its spaces; all columns have as many lines of headings.
    """
    columns = table.columns()
    headings = [
        heading.split(" ") if len(heading) > max(map(len, column), default=0) else [heading]
        for heading, column in zip(table.headings, columns, strict=True)
    ]
    height = max(map(len, headings))
    layout = []
    for heading, lines, column in zip(table.headings, headings, columns, strict=True):
        lines = [""] * (height - len(lines)) + lines
        width = max(map(len, [*lines, *column]))
        align = str.ljust if heading in table.names else str.rjust
        layout.append([align(line, width) for line in lines] + ["─" * width] + [align(cell, width) for cell in column])
    return layout


def _width(columns: Sequence[Sequence[str]]) -> int:
    """Returns the width of columns of `_layout` beside each other."""
    return sum(len(column[0]) for column in columns) + len(GAP) * (len(columns) - 1)


def _lines(columns: Sequence[Sequence[str]]) -> list[str]:
    """Returns columns of `_layout` beside each other, line by line."""
    return [GAP.join(cells).rstrip() for cells in zip(*columns, strict=True)]


# -------------------------------------------------------------------------------------------------------- other formats


def as_csv(table: Table) -> list[str]:
    """Returns the table as comma-separated values."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([table.headings, *table.rows])
    return buffer.getvalue().splitlines()


def as_markdown(table: Table) -> list[str]:
    """Returns the table in GitHub's Markdown."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    rule = ["---" if heading in table.names else "---:" for heading in table.headings]
    return [line(table.headings), line(rule), *map(line, table.rows)]


_LATEX = str.maketrans(
    {sign: f"\\{sign}" for sign in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)


def as_latex(table: Table) -> list[str]:
    r"""Returns the table as a LaTeX tabular with the rules of \usepackage{booktabs}."""

    def line(cells: Sequence[str]) -> str:
        return f"{' & '.join(cell.translate(_LATEX) for cell in cells)} \\\\"

    alignment = "".join("l" if heading in table.names else "r" for heading in table.headings)
    return [
        f"\\begin{{tabular}}{{{alignment}}}",
        "\\toprule", line(table.headings), "\\midrule", *map(line, table.rows), "\\bottomrule",
        "\\end{tabular}",
    ]  # fmt: skip


FORMATS: dict[str, Callable[[Table], list[str]]] = {"csv": as_csv, "markdown": as_markdown, "latex": as_latex}


def comments(lines: Iterable[str], form: str) -> list[str]:
    """Formats lines of text to accompany a table: as a list in Markdown, as comments in LaTeX."""
    return [f"- {line.strip()}" if form == "markdown" else f"% {line}" for line in lines]


def joined(left: Table, right: Table) -> Table:
    """Returns the columns of two tables in one table, row by row; the shorter one ends in empty cells."""
    blank = [[""] * len(table.headings) for table in (left, right)]
    pairs = itertools.zip_longest(left.rows, right.rows)
    rows = [[*(one or blank[0]), *(other or blank[1])] for one, other in pairs]
    return Table([*left.headings, *right.headings], rows, left.names | right.names)
