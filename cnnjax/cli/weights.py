"""`cnnjax weights`: published weights of the networks, by name."""

import fnmatch
from typing import TYPE_CHECKING

from cnnjax.cli import shared
from cnnjax.errors import unknown

if TYPE_CHECKING:
    from cnnjax.pretrained.catalog import PublishedWeights


def run(parser: shared.Parser, argv: list[str]) -> int:
    parser.add_argument(
        "name", nargs="?", default="", help="one, to see all of it; or what names contain, or match: 'keras:*'"
    )
    args = parser.parse_args(argv)
    console = shared.console()
    from rich.table import Table

    from cnnjax.pretrained import catalog

    rows = catalog.rows()
    if args.name in rows:
        table = Table(title=args.name, title_justify="left", show_header=False)
        for name, value in _facts(rows[args.name]).items():
            table.add_row(name, value)
        console.print(table, soft_wrap=True)
        return 0
    pattern = args.name if any(sign in args.name for sign in "*?[") else f"*{args.name}*"
    chosen = fnmatch.filter(rows, pattern)
    if not chosen:
        raise unknown("weights", args.name, rows)
    table = Table(title=f"Published weights: {len(chosen)}", title_justify="left")
    for name in ("name", "network", "top-1", "top-5", "parameters", "here", "license"):
        table.add_column(name, justify="right" if name in ("top-1", "top-5", "parameters") else "left")
    table.columns[0].no_wrap = table.columns[-1].no_wrap = True
    table.columns[1].overflow = "fold"  # a call string is of use when it is whole
    for row in (rows[name] for name in chosen):
        here = "yes" if row.path.is_file() else ""
        table.add_row(row.name, row.model, _share(row.top1), _share(row.top5), f"{row.params:,}", here, row.license)
    console.print(table)
    return 0


def _facts(row: "PublishedWeights") -> dict[str, str]:
    """All that is known of weights, in words."""
    return {
        "of": row.about,
        "network": row.model,
        "parameters": f"{row.params:,}",
        "classes": row.classes,
        "preprocess": row.preprocess or "none",
        "normalize": row.normalize,
        "top-1, top-5": f"{_share(row.top1)}, {_share(row.top5)}, as published",
        "license": row.license,
        "file": row.url,
        "digest": row.digest or "none was published",
        "here": str(row.path) if row.path.is_file() else f"not yet; its place is {row.path}",
        "to train from": f'--config.init="{row.name}"',
        "to evaluate": f"{shared.program()} evaluate --init={row.name}",
    }


def _share(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.2f} %"
