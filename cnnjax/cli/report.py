"""`cnnjax report`: writes a page, one HTML file to open in a browser, of a run, several runs, a sweep or a study."""

import argparse

from cnnjax.cli import shared


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax report` to its parser."""
    parser.usage = "cnnjax report RUN [RUN ...]|SWEEP|STUDY [--to=FILE.html] [--data_dir=DIR] [--no_evaluate]"
    parser.epilog = (
        "The page is self-contained and makes no network requests: mail it, copy it to a USB stick, print it. "
        "`cnnjax train --report` writes it while the run trains, and at the end."
    )
    parser.add_argument(
        "sources", metavar="RUN|SWEEP|STUDY", nargs="+",
        help="folder of a run or of a sweep; several folders of runs, which are compared; or a study: the folder of "
        "its runs, its file in experiments/, or one of its reports; or a file or report of facts",
    )  # fmt: skip
    parser.add_argument(
        "--to", metavar="FILE.html", default="",
        help="file to write (default: report.html in the folder; for several runs comparison.html; for a study report "
        "the same name with .html)",
    )  # fmt: skip
    parser.add_argument(
        "--no_evaluate", action="store_true",
        help="do not evaluate the last checkpoint (default: evaluate it, if it is not yet and its data set is on disk)",
    )  # fmt: skip
    shared.add_data_dir_flag(parser)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax report`: writes the page, and prints its path and size. `overrides` is empty. Returns the status."""
    console = shared.setup_jax()
    from cnnjax.pages.report import report

    path = report(args.sources, args.to, data_dir=args.data_dir, evaluate=not args.no_evaluate, log=console.print_line)
    console.print_line(f"the page is {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0
