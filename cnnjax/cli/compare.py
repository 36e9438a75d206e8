"""`cnnjax compare`: compares runs in their settings and, image by image, in their results."""

import argparse
import sys

from cnnjax.cli import shared


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax compare` to its parser."""
    parser.usage = "cnnjax compare RUN RUN [RUN ...] [FLAGS]"
    parser.epilog = (
        "Runs that have no evaluation of their test split yet are evaluated first, which is kept in their folders."
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of a run; at least two")
    parser.add_argument(
        "--step", default="last", help="checkpoint of every run: last, best or a number (default: last)"
    )
    parser.add_argument("--split", default="", help="split to compare on (default: each run's test_split)")
    parser.add_argument(
        "--no_evaluate", action="store_true",
        help="evaluate nothing: compare by what the folders have, with tests only between runs already evaluated",
    )  # fmt: skip
    shared.add_format_flags(parser)
    shared.add_data_dir_flag(parser)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax compare`: prints tables and the outcome of the tests. `overrides` is empty. Returns the status."""
    console = shared.setup_jax()
    from cnnjax import tables
    from cnnjax.errors import visible
    from cnnjax.evaluation import comparison, comparison_tables

    compared = comparison.compare(
        args.runs,
        step=args.step,
        split=args.split,
        data_dir=args.data_dir,
        with_evaluation=not args.no_evaluate,
        log=lambda line: print(visible(line), file=sys.stderr),
    )
    if args.format == "csv":
        for line in tables.as_csv(comparison_tables.csv_table(compared)):
            console.print(line, soft_wrap=True)
        return 0
    form = args.format
    layout = tables.FORMATS[form] if form else lambda table: tables.as_text(table, console.width)
    settings, results = comparison_tables.settings_table(compared), comparison_tables.results_table(compared)
    runs = [f"{run.letter}: {run.folder}" for run in compared.runs]
    subject = comparison_tables.tested_on(compared)
    outcome = [*comparison_tables.sentences(compared), *([comparison_tables.CAVEAT] if compared.pairs else [])]
    lines = [
        *(tables.comments(runs, form) if form else runs),
        "",
        *(layout(settings) if settings.rows else ["no setting differs"]),
        "",
        *([subject, ""] if subject else []),
        *layout(results),
        *([""] if outcome else []),
        *(tables.comments(outcome, form) if form else outcome),
    ]
    for line in lines:
        console.print(line, soft_wrap=True)
    return 0
