"""`cnnjax models`: lists the networks by name."""

import argparse

from cnnjax.cli import shared
from cnnjax.errors import unknown

HEADINGS = ("name", "parameters", "MACs", "input", "paper", "published result")
MIN_WIDTH = 110  # columns of a terminal that shows all of them
NAMES = frozenset(("name", "paper", "published result"))  # the columns of text


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax models` to its parser."""
    parser.add_argument(
        "pattern", nargs="?", default="", metavar="PATTERN",
        help="list only names that contain or match this, as in 'vgg*_bn' (default: all)",
    )  # fmt: skip
    shared.add_format_flags(parser)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax models`: prints a table of the networks. `overrides` is empty. Returns the exit status."""
    console = shared.make_console()
    from cnnjax import tables
    from cnnjax.models import MODELS, list_models

    names = list_models(args.pattern)
    if not names:
        raise unknown("model", args.pattern, MODELS)
    rows = [_cells(name, units=not args.format) for name in names]
    table = tables.Table(HEADINGS, rows, NAMES)
    where = f"papers and published results: in a terminal of {MIN_WIDTH} columns, or with --csv"
    console.print_list(f"Networks: {len(names)}", table, args.format, MIN_WIDTH, where)
    return 0


def _cells(name: str, units: bool) -> list[str]:
    """Returns a network's row of the table, in the order of HEADINGS. Without `units`, MACs are a plain number."""
    from cnnjax.models import MODELS
    from cnnjax.summarize import summary

    variant = MODELS[name]
    size = "x".join(map(str, variant.input_shape))
    paper = f"{variant.paper.partition(',')[0]} {variant.year}" if variant.year else variant.paper
    params, macs = variant.params, variant.macs
    if not params:  # registered from outside
        network = summary(name)
        params, macs = network.params, network.macs
    numbers = [f"{params:,}", _with_unit(macs)] if units else [str(params), str(macs)]
    return [name, *numbers, size, paper if units else variant.paper, variant.published]


def _with_unit(number: float) -> str:
    """Formats a number with three digits and the unit k, M or G: 1,582,671,872 as '1.58 G'."""
    for unit in ("", " k", " M"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} G" if number < 1000 else f"{number:,.0f} G"
