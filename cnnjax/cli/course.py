"""`cnnjax course`: writes the course, a folder of pages in English and Korean on the claims of the studies."""

import argparse
import pathlib

from cnnjax.cli import shared
from cnnjax.errors import InputError


def add_flags(parser: shared.Parser) -> None:
    """Adds the flags of `cnnjax course` to its parser."""
    parser.usage = "cnnjax course --to=DIR"
    parser.epilog = (
        "Open DIR/index.html in a browser: each page is self-contained and makes no network requests. Korean pages are "
        "in DIR/ko. Files of an earlier course in DIR are replaced."
    )
    parser.add_argument("--to", metavar="DIR", required=True, help="folder of the pages")


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax course`: writes the pages, and prints their number. `overrides` is empty. Returns the status."""
    console = shared.make_console()
    from cnnjax import config_files
    from cnnjax.pages import course

    if not (files := config_files.config_files("experiments")):
        raise InputError("there are no studies in ./experiments, and none came with the package")
    folder = pathlib.Path(args.to)
    pages = course.build(folder, files)
    size = sum(path.stat().st_size for path in pages) / 1e6
    console.print_line(f"the course is {folder / 'index.html'}: {len(pages)} pages, {size:.1f} MB")
    return 0
