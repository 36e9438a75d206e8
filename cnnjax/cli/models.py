"""`cnnjax models`: lists the networks by name."""

import argparse

from cnnjax.cli import shared
from cnnjax.errors import unknown


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax models` to its parser."""
    parser.add_argument(
        "pattern", nargs="?", default="", metavar="PATTERN",
        help="list only names that contain or match this, as in 'vgg*_bn' (default: all)",
    )  # fmt: skip


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax models`: prints a table of the networks. `overrides` is empty. Returns the exit status."""
    console = shared.make_console()
    from rich.table import Table

    from cnnjax.models import MODELS
    from cnnjax.summarize import summary

    names = shared.matching(args.pattern, MODELS)
    if not names:
        raise unknown("model", args.pattern, MODELS)
    table = Table(title=f"Networks: {len(names)}", title_justify="left")
    table.add_column("name", no_wrap=True)
    for heading in ("parameters", "MACs", "input"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("paper", no_wrap=True)
    table.add_column("published result")
    for name in names:
        variant = MODELS[name]
        size = "x".join(map(str, variant.input_shape))
        paper = f"{variant.paper.partition(',')[0]} {variant.year}" if variant.year else variant.paper
        params, macs = variant.params, variant.macs
        if not params:  # registered from outside
            network = summary(name)
            params, macs = network.params, network.macs
        table.add_row(name, f"{params:,}", _with_unit(macs), size, paper, variant.published)
    console.print(table)
    return 0


def _with_unit(number: float) -> str:
    """Formats a number with three digits and the unit k, M or G: 1,582,671,872 as '1.58 G'."""
    for unit in ("", " k", " M"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} G" if number < 1000 else f"{number:,.0f} G"
