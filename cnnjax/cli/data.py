"""`cnnjax data`: lists, builds and removes data sets, previews augmentations, finds duplicates and label errors."""

import argparse
import pathlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from cnnjax.cli import shared
from cnnjax.errors import InputError, matching, unknown

USES = {  # flag -> the actions that use it; all use --data_dir
    "source": ("build",),
    "overwrite": ("build",),
    "yes": ("remove",),
    "augment": ("preview",),
    "count": ("preview",),
    "seed": ("preview",),
    "against": ("duplicates",),
    "similarity": ("duplicates",),
    "split": ("preview", "duplicates", "label_errors"),
    "out": ("preview", "duplicates", "label_errors"),
}

if TYPE_CHECKING:
    from cnnjax.console import Console


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax data` to its parser."""
    parser.usage = """cnnjax data list [NAME|PATTERN] [--data_dir=DIR]
       cnnjax data build NAME [--source=DIR] [--data_dir=DIR] [--overwrite]
       cnnjax data remove NAME [--data_dir=DIR] [--yes]
       cnnjax data preview NAME [--augment=...] [--split=train] [--count=8] [--seed=0] [--out=FILE.png]
       cnnjax data duplicates NAME [--split=test] [--against=train] [--similarity=0.9] [--out=DIR]
       cnnjax data label_errors RUN [RUN ...] [--split=...] [--out=DIR]"""
    parser.epilog = (
        "duplicates finds images of one split that also occur in another, slightly changed or mirrored. label_errors "
        "finds labels that may be wrong, because networks confidently predict another class: train one run per fold "
        "(--config.fold=1/5 to 5/5, with --config.val_split=''), and give all their folders. Each judges the images "
        "that it was not trained on. Folders of evaluations (RUN/evaluations/...) are used as they are."
    )
    parser.add_argument("action", choices=tuple(ACTIONS), help="what to do")
    parser.add_argument(
        "names", nargs="*", metavar="NAME",
        help="a listed data set (list: a part or pattern of names); or a new name, for a tree of class folders given "
        "by --source; or folders of runs",
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
    parser.add_argument(
        "--split", default="",
        help="preview, duplicates, label_errors: split of the images (default: train, test, each run's validation "
        "split)",
    )  # fmt: skip
    parser.add_argument(
        "--against", metavar="SPLIT", default="train", help="duplicates: split to search them in (default: train)"
    )
    parser.add_argument(
        "--similarity", type=float, default=0.9, metavar="S",
        help="duplicates: smallest similarity of a pair, at most 1 (default: 0.9)",
    )  # fmt: skip
    parser.add_argument("--count", type=int, default=8, metavar="N", help="preview: number of images (default: 8)")
    parser.add_argument("--seed", type=int, default=0, help="preview: seed of the images and operations (default: 0)")
    parser.add_argument(
        "--out", metavar="PATH", default="",
        help="preview: picture to write (default: preview-NAME.png); duplicates, label_errors: folder of the results "
        "(default: duplicates-NAME, label_errors-NAME)",
    )  # fmt: skip


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs one of the ACTIONS of `cnnjax data`. `overrides` is empty. Returns the exit status."""
    if args.action not in ("list", "label_errors") and len(args.names) > 1:
        raise shared.UsageError(f"unexpected argument {args.names[1]!r}: expected cnnjax data {args.action} NAME")
    if args.action != "list" and not args.names:
        missing = "folder of a run is missing: cnnjax data label_errors RUN [RUN ...]"
        other = f"data set's name is missing: cnnjax data {args.action} NAME"
        raise shared.UsageError(f"the {missing if args.action == 'label_errors' else other}")
    defaults = shared.Parser()
    add_flags(defaults)
    for flag, actions in USES.items():
        if args.action not in actions and getattr(args, flag) != defaults.get_default(flag):
            raise shared.UsageError(f"--{flag} is a flag of {', '.join(actions)}; `data {args.action}` does not use it")
    args.name = args.names[0] if args.names else ""
    console = shared.setup_jax() if args.action == "label_errors" else shared.make_console()
    return ACTIONS[args.action](args, console)


def _list(args: argparse.Namespace, console: "Console") -> int:
    """Runs `cnnjax data list`: prints the data sets of these names, or all. Returns the exit status."""
    from rich.table import Column, Table

    from cnnjax.data import build

    columns = [Column(name, overflow="fold") for name in ("name", "splits", "folder", "description")]
    table = Table(*columns, title="Data sets", title_justify="left")
    rows = {row.name: row for row in build.available(args.data_dir)}
    names = matching(args.name, rows)
    if not names:
        raise unknown("data set", args.name, rows)
    for row in (rows[name] for name in names):
        splits = ", ".join(f"{name} {count:,}" for name, count in row.splits.items())
        table.add_row(row.name, splits, str(row.path or "not built yet"), row.note)
    console.print(table)
    return 0


def _build(args: argparse.Namespace, console: "Console") -> int:
    """Runs `cnnjax data build`. Returns the exit status."""
    from cnnjax.data import build

    path = build.build(args.name, args.source, args.data_dir, log=console.print_line, overwrite=args.overwrite)
    console.print_line(f"{args.name} is in {path}")
    return 0


def _preview(args: argparse.Namespace, console: "Console") -> int:
    """Runs `cnnjax data preview`. Returns the exit status."""
    from cnnjax.training import preview

    path = pathlib.Path(args.out or f"preview-{args.name}.png")
    preview.write(args.name, args.augment, path, split=args.split or "train", count=args.count, seed=args.seed,
                  data_dir=args.data_dir)  # fmt: skip
    console.print_line(f"the preview is in {path}")
    return 0


def _duplicates(args: argparse.Namespace, console: "Console") -> int:
    """Runs `cnnjax data duplicates`: prints how many there are; writes a table and a sheet. Returns the status."""
    from cnnjax.data import build, duplicates

    splits = (build.load(args.name, split, args.data_dir) for split in (args.split or "test", args.against))
    folder = pathlib.Path(args.out or f"duplicates-{args.name}")
    _check_folder(folder)
    found = duplicates.find_duplicates(*splits, similarity=args.similarity)
    found.save(folder)
    console.print_line(found.note)
    console.print_line(f"more in {folder}: duplicates.csv{', duplicates.png' if len(found.indices) else ''}")
    return 0


def _label_errors(args: argparse.Namespace, console: "Console") -> int:
    """Runs `cnnjax data label_errors`: prints how many there are; writes a table and a sheet. Returns the status."""
    import jax

    from cnnjax.evaluation.label_errors import label_errors

    is_leader = jax.process_index() == 0
    log = console.print_line if is_leader else lambda line: None
    _check_folder(pathlib.Path(args.out))
    found = label_errors(args.names, split=args.split, data_dir=args.data_dir, log=log)
    if is_leader:
        folder = pathlib.Path(args.out or f"label_errors-{found.scores.description['dataset']}")
        found.save(folder)
        log(found.note)
        log(f"more in {folder}: label_errors.csv{', label_errors.png' if found.images else ''}")
    return 0


def _check_folder(folder: pathlib.Path) -> None:
    """Raises InputError if `folder`, where the results of a search will go, is a file."""
    if folder.is_file():
        raise InputError(f"--out={folder}: expected the name of a folder, not of a file")


def _remove(args: argparse.Namespace, console: "Console") -> int:
    """Runs `cnnjax data remove`: asks unless --yes is given, and says what was freed. Returns the exit status."""
    from cnnjax.data import remove

    log = console.print_line
    paths = remove.find_removable(args.name, args.data_dir)
    for path in paths:
        log(f"{path} ({remove.size_of(path) / 1e6:,.1f} MB)")
    if not args.yes:
        if not sys.stdin.isatty():
            raise InputError(f"no terminal to confirm the removal of {args.name}: pass --yes")
        if input("Remove these folders? [y/N] ").strip().lower() not in ("y", "yes"):
            log("nothing was removed")
            return 1
    log(f"removed {args.name}: freed {remove.remove(args.name, args.data_dir) / 1e6:,.1f} MB")
    return 0


ACTIONS: dict[str, Callable[[argparse.Namespace, "Console"], int]] = {
    "list": _list,
    "build": _build,
    "remove": _remove,
    "preview": _preview,
    "duplicates": _duplicates,
    "label_errors": _label_errors,
}
