"""`cnnjax configs`: the recipes, and every setting of one."""

import ast
import pathlib

from cnnjax import config_files
from cnnjax.cli import shared
from cnnjax.config import Config, field_help
from cnnjax.errors import InputError


def run(parser: shared.Parser, argv: list[str]) -> int:
    parser.add_argument(
        "config", nargs="?", metavar="FILE[:arg]", help="show this one; without it, list those in configs/"
    )
    args, overrides = parser.parse_known_args(argv)
    console = shared.console()
    from rich.table import Column, Table

    if args.config:
        from rich.text import Text

        config, default = config_files.read_config(args.config, overrides), Config()
        console.print(
            ast.get_docstring(ast.parse(pathlib.Path(args.config.split(":")[0]).read_text())) or "", markup=False
        )
        whole = Column("value", overflow="fold")  # a pipeline is one long word
        table = Table("field", whole, "default, where it differs", "what it is", title="Settings", title_justify="left")
        what = field_help()
        for name, value in vars(config).items():
            usual = "" if value == getattr(default, name) else repr(getattr(default, name))
            table.add_row(name, repr(value), usual, Text(what[name]))
        console.print(table)
        return 0
    if not (files := config_files.config_files()):
        raise InputError("there is no folder configs/ with config files here")
    table = Table("config", "what it is", title="Configs", title_justify="left")
    for path in files:
        table.add_row(str(path), (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0])
    console.print(table)
    return 0
