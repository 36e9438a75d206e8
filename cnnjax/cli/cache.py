"""`cnnjax cache`: lists the cached files, or deletes them."""

import argparse
import os

from cnnjax.cli import shared
from cnnjax.errors import unknown


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax cache` to its parser."""
    parser.usage = "cnnjax cache [list]\n       cnnjax cache clear [NAME ...]"
    parser.epilog = "Deleted files are recreated or downloaded again when needed. Data sets and runs are not affected."
    parser.add_argument(
        "action", nargs="?", default="list", choices=("list", "clear"), help="list, or delete (default: list)"
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="caches to list or clear, as `cnnjax cache` names them (default: all)"
    )


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax cache`: lists the caches, or clears them. `overrides` is empty. Returns the exit status."""
    from cnnjax import cache

    for name in args.names:
        if name not in cache.CACHES:
            raise unknown("cache", name, cache.CACHES)
    names = list(dict.fromkeys(args.names)) or list(cache.CACHES)
    console = shared.make_console()
    if args.action == "clear":
        for name in names:
            freed, left = cache.clear(name), cache.usage(name)
            in_use = f"; {left.files:,} files in use were left" if left.files else ""
            console.print_line(f"{name}: freed {_size(freed.bytes)} in {freed.files:,} files{in_use}")
        return 0

    from rich.table import Table

    table = Table("name", "contents", title="Caches", title_justify="left")
    for heading in ("files", "size"):
        table.add_column(heading, justify="right")
    table.add_column("folder", overflow="fold")
    for name in names:
        used = cache.usage(name)
        table.add_row(name, cache.CACHES[name], f"{used.files:,}", _size(used.bytes), str(cache.folder(name)))
    console.print(table)
    if folder := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        console.print_line(
            f"compiled programs are in JAX_COMPILATION_CACHE_DIR={folder}, which is not listed or cleared"
        )
    return 0


def _size(count: float) -> str:
    """Formats a number of bytes: 1,500,000 as '1.5 MB' (10^6 bytes)."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB" if count < 1000 else f"{count:,.0f} GB"
