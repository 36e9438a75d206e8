"""`cnnjax data`: lists data sets, builds them from their original files, removes them, and previews augmentations."""

import argparse
import pathlib
import sys
from collections.abc import Callable

from cnnjax.cli import shared
from cnnjax.errors import InputError


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax data` to its parser."""
    parser.usage = """cnnjax data list [--data_dir=DIR]
       cnnjax data build NAME [--source=DIR] [--data_dir=DIR] [--overwrite]
       cnnjax data remove NAME [--data_dir=DIR] [--yes]
       cnnjax data preview NAME [--augment=...] [--split=train] [--count=8] [--seed=0] [--out=FILE.png]"""
    parser.add_argument("action", choices=("list", "build", "remove", "preview"), help="what to do")
    parser.add_argument(
        "name", nargs="?", metavar="NAME",
        help="a listed data set; or a new name, for a tree of class folders given by --source",
    )  # fmt: skip
    parser.add_argument(
        "--source", metavar="DIR", default="", help="build: folder of the original files (default: download them)"
    )
    shared.add_data_dir_flag(parser)
    parser.add_argument("--overwrite", action="store_true", help="build: replace an existing data set")
    parser.add_argument("--yes", action="store_true", help="remove: do not ask")
    parser.add_argument(
        "--augment", metavar="OPS", default="", help="preview: augmentation, as in config.augment (default: none)"
    )
    parser.add_argument("--split", default="train", help="preview: split of the images (default: train)")
    parser.add_argument("--count", type=int, default=8, metavar="N", help="preview: number of images (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="preview: seed of the images and operations (default: 0)")
    parser.add_argument(
        "--out", metavar="FILE", default="", help="preview: picture to write (default: preview-NAME.png)"
    )


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax data list`, `build`, `remove` or `preview`. `overrides` is empty. Returns the exit status."""
    if args.action != "list" and not args.name:
        raise shared.UsageError(f"the data set's name is missing: cnnjax data {args.action} NAME")
    console = shared.make_console()
    from rich.table import Column, Table

    from cnnjax.data import build

    if args.action == "build":
        log = lambda line: console.print(line, soft_wrap=True)  # noqa: E731
        path = build.build(args.name, args.source, args.data_dir, log=log, overwrite=args.overwrite)
        console.print(f"{args.name} is in {path}", soft_wrap=True)
        return 0
    if args.action == "remove":
        return _remove(args, lambda line: console.print(line, soft_wrap=True))
    if args.action == "preview":
        from cnnjax.training import preview

        path = pathlib.Path(args.out or f"preview-{args.name}.png")
        preview.write(args.name, args.augment, path, split=args.split, count=args.count, seed=args.seed,
                      data_dir=args.data_dir)  # fmt: skip
        console.print(f"the preview is in {path}", soft_wrap=True)
        return 0
    columns = [Column(name, overflow="fold") for name in ("name", "splits", "folder", "description")]
    table = Table(*columns, title="Data sets", title_justify="left")
    for row in build.available(args.data_dir):
        splits = ", ".join(f"{name} {count:,}" for name, count in row.splits.items())
        table.add_row(row.name, splits, str(row.path or "not built yet"), row.note)
    console.print(table)
    return 0


def _remove(args: argparse.Namespace, log: Callable[[str], None]) -> int:
    """Runs `cnnjax data remove`: asks unless --yes is given, and says what was freed. Returns the exit status."""
    from cnnjax.data import remove

    paths = remove.find_removable(args.name, args.data_dir)
    for path in paths:
        log(f"{path} ({remove.size_of(path) / 1e6:,.1f} MB)")
    if not args.yes:
        if not sys.stdin.isatty():
            raise InputError(f"nobody can be asked whether to remove {args.name}: give --yes")
        if input("Remove these folders? [y/N] ").strip().lower() not in ("y", "yes"):
            log("nothing is removed")
            return 1
    log(f"{args.name} is removed: {remove.remove(args.name, args.data_dir) / 1e6:,.1f} MB are free again")
    return 0
