"""`cnnjax configs`: lists the config files, or prints every field of one."""

import argparse
import ast
import pathlib

from cnnjax import config_files, paths
from cnnjax.cli import shared
from cnnjax.config import Config, field_help
from cnnjax.errors import InputError


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax configs` to its parser."""
    parser.accepts_overrides = True
    parser.add_argument("config", nargs="?", metavar="FILE[:arg]", help="config file to print (default: list them)")


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax configs`: lists the config files, or prints one.

    `overrides` are the --config.FIELD=VALUE arguments. Returns the exit status.
    """
    console = shared.make_console()
    from rich.table import Column, Table

    if args.config:
        config, default = config_files.read_config(args.config, overrides, args.flag_names), Config()
        name, _ = paths.split_argument(args.config)
        console.print(_docstring(config_files.find_file(name, "configs", "config")))
        names = "field", "value", "default, if different", "description"
        columns = [Column(name, overflow="fold") for name in names]  # a pipeline is one long word
        table = Table(*columns, title="Config fields", title_justify="left")
        descriptions = field_help()
        for name, value in vars(config).items():
            default_value = getattr(default, name)
            table.add_row(name, repr(value), "" if value == default_value else repr(default_value), descriptions[name])
        console.print(table)
        return 0
    if overrides:
        raise shared.UsageError(f"unexpected argument {overrides[0]!r} without a config file")
    if not (files := config_files.config_files()):
        raise InputError("there are no config files, neither in configs/ nor in the package")
    table = Table("config", "description", title="Configs", title_justify="left")
    for path in files:
        table.add_row(path.stem, _docstring(path).partition("\n")[0])
    console.print(table)
    return 0


def _docstring(path: pathlib.Path) -> str:
    """Returns the docstring of a Python file, '' if it has none. Does not execute the file."""
    return ast.get_docstring(ast.parse(path.read_bytes())) or ""
