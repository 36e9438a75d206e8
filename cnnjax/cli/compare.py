"""`cnnjax compare`: compares runs in their settings and, image by image, in their results."""

import argparse
import sys
from typing import TYPE_CHECKING

from cnnjax.cli import shared

if TYPE_CHECKING:
    from cnnjax.evaluation.comparison import RunComparison


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax compare` to its parser."""
    parser.usage = "cnnjax compare RUN RUN [RUN ...] [FLAGS]"
    parser.epilog = (
        "Runs without an evaluation of their test split are evaluated first; the results are kept in their folders."
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of a run; at least two")
    parser.add_argument(
        "--step", default="last", help="checkpoint of every run: last, best or a number (default: last)"
    )
    parser.add_argument("--split", default="", help="split to compare on (default: each run's test_split)")
    parser.add_argument(
        "--no_evaluate", action="store_true",
        help="evaluate nothing: compare what the folders contain, with tests only between runs already evaluated",
    )  # fmt: skip
    shared.add_format_flags(parser)
    shared.add_data_dir_flag(parser)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax compare`: prints tables and the outcome of the tests. `overrides` is empty. Returns the status."""
    console = shared.setup_jax()
    from cnnjax.errors import visible
    from cnnjax.evaluation import comparison

    compared = comparison.compare(
        args.runs,
        step=args.step,
        split=args.split,
        data_dir=args.data_dir,
        with_evaluation=not args.no_evaluate,
        log=lambda line: print(visible(line), file=sys.stderr),
    )
    for line in _in_format(compared, args.format) if args.format else _as_text(compared, console.width):
        console.print_line(line)
    return 0


def _as_text(compared: "RunComparison", width: int) -> list[str]:
    """Returns the lines of a comparison for a terminal of `width` characters."""
    from cnnjax import tables
    from cnnjax.evaluation import comparison_tables as parts

    subject = parts.tested_on(compared)
    return [
        *(f"{run.letter}: {run.folder}" for run in compared.runs),
        "",
        *parts.settings_lines(compared, width),
        "",
        *([subject, ""] if subject else []),
        *tables.as_text(parts.results_table(compared), width),
        "",
        *parts.sentences(compared),
        *([parts.CAVEAT] if compared.pairs else []),
    ]


def _in_format(compared: "RunComparison", form: str) -> list[str]:
    """Returns the lines of a comparison as Markdown or LaTeX; as CSV, a row of plain numbers for each run."""
    from cnnjax import tables
    from cnnjax.evaluation import comparison_tables as parts

    if form == "csv":
        return tables.as_csv(parts.csv_table(compared))
    runs = [f"{run.letter}: {run.folder}" for run in compared.runs]
    settings = parts.settings_table(compared)
    return [
        *tables.comments(runs, form),
        "",
        *([*tables.FORMATS[form](settings), ""] if settings.rows else []),
        *tables.FORMATS[form](parts.results_table(compared)),
        "",
        *tables.comments([*parts.sentences(compared), *([parts.CAVEAT] if compared.pairs else [])], form),
    ]
