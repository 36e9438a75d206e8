"""`cnnjax data`: the data sets, and how they get here."""

import pathlib

from cnnjax.cli import shared


def run(parser: shared.Parser, argv: list[str]) -> int:
    parser.usage = """cnnjax data list [--data_dir=DIR]
       cnnjax data build NAME [--source=DIR] [--data_dir=DIR] [--overwrite]
       cnnjax data preview NAME [--augment=...] [--split=train] [--count=8] [--seed=0] [--out=FILE.png]"""
    parser.add_argument("action", choices=("list", "build", "preview"))
    parser.add_argument(
        "name", nargs="?", help="a listed data set; any other name makes one of a tree of class folders"
    )
    parser.add_argument("--source", default="", help="the folder of the original files (default: download them)")
    parser.add_argument("--data_dir", default="", help="where data sets are (default: TFDS's own)")
    parser.add_argument("--overwrite", action="store_true", help="build it again although it is there")
    parser.add_argument("--augment", default="", help="the operations to preview, as config.augment has them")
    parser.add_argument("--split", default="train", help="of the images to preview")
    parser.add_argument("--count", type=int, default=8, help="of images to preview")
    parser.add_argument("--seed", type=int, default=0, help="of the images to preview, and of the operations")
    parser.add_argument("--out", default="", help="the picture to write (default: preview-NAME.png)")
    args = parser.parse_args(argv)
    if args.action != "list" and not args.name:
        parser.error(f"the data set's name is missing: cnnjax data {args.action} NAME")
    console = shared.console()
    from rich.table import Table

    from cnnjax.data import build

    if args.action == "build":
        path = build.build(args.name, args.source, args.data_dir, say=console.print, overwrite=args.overwrite)
        console.print(f"{args.name} is in {path}", soft_wrap=True)
        return 0
    if args.action == "preview":
        from cnnjax.training import preview

        path = pathlib.Path(args.out or f"preview-{args.name}.png")
        preview.write(args.name, args.augment, path, split=args.split, count=args.count, seed=args.seed,
                      data_dir=args.data_dir)  # fmt: skip
        console.print(f"the preview is in {path}", soft_wrap=True)
        return 0
    table = Table("name", "splits", "where", "what", title="Data sets", title_justify="left")
    for row in build.available(args.data_dir):
        splits = ", ".join(f"{name} {count:,}" for name, count in row.splits.items())
        table.add_row(row.name, splits, str(row.path or "not built yet"), row.note)
    console.print(table)
    return 0
