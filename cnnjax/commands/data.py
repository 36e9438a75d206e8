"""`cnnjax data`: the data sets, and how they get here."""

from cnnjax import cli


def run(parser: cli.Parser, argv: list[str]) -> int:
    parser.usage = "cnnjax data {list,build NAME} [--source=DIR] [--data_dir=DIR] [--overwrite]"
    parser.add_argument("action", choices=("list", "build"))
    parser.add_argument(
        "name", nargs="?", help="a listed data set; any other name makes one of a tree of class folders"
    )
    parser.add_argument("--source", default="", help="the folder of the original files (default: download them)")
    parser.add_argument("--data_dir", default="", help="where data sets are (default: TFDS's own)")
    parser.add_argument("--overwrite", action="store_true", help="build it again although it is there")
    args = parser.parse_args(argv)
    if args.action == "build" and not args.name:
        parser.error("the data set's name is missing: cnnjax data build NAME")
    console = cli.console()
    from rich.table import Table

    from cnnjax.data import build

    if args.action == "build":
        path = build.build(args.name, args.source, args.data_dir, say=console.print, overwrite=args.overwrite)
        console.print(f"{args.name} is in {path}", soft_wrap=True)
        return 0
    table = Table("name", "splits", "where", "what", title="Data sets", title_justify="left")
    for row in build.available(args.data_dir):
        splits = ", ".join(f"{name} {count:,}" for name, count in row.splits.items())
        table.add_row(row.name, splits, str(row.path or "not built yet"), row.note)
    console.print(table)
    return 0
