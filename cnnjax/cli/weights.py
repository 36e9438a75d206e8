"""`cnnjax weights`: lists the published weights by name, those trained here first."""

import argparse
from typing import TYPE_CHECKING

from cnnjax.cli import shared
from cnnjax.config import FIELDS
from cnnjax.errors import matching, unknown

HEADINGS = ("name", "top-1", "top-5", "parameters", "on disk", "license", "network")
NAMES = frozenset(("name", "on disk", "license", "network"))  # the columns of text
MIN_WIDTH = 140  # columns of a terminal that shows all of them

if TYPE_CHECKING:
    from cnnjax.pretrained.cards import Card
    from cnnjax.pretrained.catalog import PublishedWeights


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax weights` to its parser."""
    parser.add_argument(
        "name", nargs="?", default="", metavar="NAME|PATTERN",
        help="a full name, to print the details of these weights; or a part or pattern of names, as in 'keras:*'",
    )  # fmt: skip
    shared.add_format_flags(parser)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax weights`: prints a table of published weights, or all about one entry.

    `overrides` is empty. Returns the exit status.
    """
    console = shared.make_console()
    from rich.table import Table

    from cnnjax import tables
    from cnnjax.pretrained import catalog

    rows = catalog.rows()
    if args.name in rows:
        table = Table(title=args.name, title_justify="left", show_header=False)
        for name, value in _details(rows[args.name]).items():
            table.add_row(name, value)
        table.columns[1].overflow = "fold"  # digests, paths and commands stay complete, to be copied
        console.print(table)
        return 0
    names = matching(args.name, rows)
    if not names:
        raise unknown("weights", args.name, rows)
    cells = [_cells(rows[name], units=not args.format) for name in names]
    table = tables.Table(HEADINGS, cells, NAMES)
    where = f"networks and licenses: `{shared.command_line('weights', 'NAME')}`, or in {MIN_WIDTH} columns"
    console.print_list(f"Published weights: {len(names)}", table, args.format, MIN_WIDTH, where)
    return 0


def _cells(row: "PublishedWeights", units: bool) -> list[str]:
    """Returns the row of an entry, in the order of HEADINGS. Without `units`, numbers are plain and '' is unknown."""
    downloaded = "with cnnjax" if not row.url else "yes" if row.path.is_file() else ""
    if units:
        numbers = [_percent(row.top1), _percent(row.top5), f"{row.params:,}"]
    else:
        numbers = ["" if value is None else str(value) for value in (row.top1, row.top5, row.params)]
    return [row.name, *numbers, downloaded, row.license, row.model]


def _details(row: "PublishedWeights") -> dict[str, str]:
    """Returns all about an entry of the catalog: heading -> text."""
    published = {"top-1, top-5": f"{_percent(row.top1)}, {_percent(row.top5)}, as published"}
    return {
        "description": row.about,
        "network": row.model,
        "parameters": f"{row.params:,}",
        "classes": row.classes,
        "preprocess": row.preprocess or "none",
        "normalize": row.normalize,
        **(_card_details(row.card) if row.card else published),
        "license": row.license,
        "URL": row.url or "none: the file comes with cnnjax",
        "digest": row.digest or "none published",
        "file": str(row.path) if row.path.is_file() else f"not downloaded yet; will be {row.path}",
        "fine-tune": f'--config.init="{row.name}"',
        "evaluate": shared.command_line("evaluate", row.name),
        **({"train again": shared.command_line("reproduce", row.name)} if row.card else {}),
    }


def _card_details(card: "Card") -> dict[str, str]:
    """Returns what a card says of the training and its results: heading -> text."""
    details = {
        f"test accuracy, {protocol}": f"{correct[card.config.seed]:,} of {card.images:,} images, "
        f"{correct[card.config.seed] / card.images:.2%}; seeds "
        + ", ".join(f"{seed}: {count:,}" for seed, count in correct.items())
        for protocol in card.protocols
        if (correct := card.correct(protocol))
    }
    from cnnjax.runs.duration import format_duration

    low, high = card.interval()
    settings = (name for name, field in FIELDS.items() if getattr(card.config, name) != field.default)
    return details | {
        "one more run": f"{low:,} to {high:,} images, with 95 % probability",
        "trained": f"{card.date}, {format_duration(60 * card.minutes)}",
        "on": ", ".join(f"{name} {version}" for name, version in card.stack.items()),
        "settings": "; ".join(f"{name}={getattr(card.config, name)!r}" for name in settings),
    }


def _percent(value: float | None) -> str:
    """Formats an accuracy in percent: 76.13 as '76.13 %', None as '-'."""
    return "-" if value is None else f"{value:.2f} %"
