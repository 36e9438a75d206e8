"""The command line: each sub-command reads its flags and calls one function. Nothing heavy is imported for --help."""

import argparse
import ast
import fnmatch
import importlib.util
import inspect
import logging
import os
import pathlib
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cnnjax import __version__
from cnnjax.config import FIELDS, Config, check, load, meanings
from cnnjax.errors import InputError, nearest, unknown

if TYPE_CHECKING:
    from rich.console import Console


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns the exit status: 0, 1 for an error, 2 for a wrong flag, 128 + n for signal n."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(argv)
    except InputError as error:
        return _fail(error)
    except FloatingPointError as error:
        return _fail(f"{error}; the checkpoints from before are intact. Try a smaller lr or clip_norm")
    except BrokenPipeError:  # the reader of our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(error)
    except KeyboardInterrupt:
        return _fail("interrupted", 128 + signal.SIGINT)


def _fail(message: object, status: int = 1) -> int:
    if os.environ.get("CNNJAX_TRACEBACK"):
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """argparse with one-line errors, which name the nearest valid sub-command."""

    def error(self, message: str) -> Any:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


COMMANDS = {
    "train": "train a network from a config, or go on with a run",
    "evaluate": "score a checkpoint of a run on a split of a data set",
    "data": "list data sets, or build one from its original files",
    "models": "list the networks",
    "summary": "print a network's layers: shapes, parameters, multiplications, memory, receptive fields",
    "configs": "list the configs, or show one",
}


def _run(argv: list[str]) -> int:
    parser = _Parser(
        prog="cnnjax",
        description="Classical convolutional networks in JAX.",
        usage="cnnjax COMMAND [FLAGS]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(
            [
                "commands:",
                *(f"  {name:10} {text}" for name, text in COMMANDS.items()),
                "",
                "cnnjax COMMAND --help says more. An error comes without a traceback; CNNJAX_TRACEBACK=1 adds it.",
            ]
        ),
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"cnnjax {__version__}")
    if not argv or argv[0].startswith("-"):
        parser.parse_args(argv)
        parser.print_help()
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    parser = _Parser(prog=f"cnnjax {name}", description=COMMANDS[name].capitalize() + ".", allow_abbrev=False)
    return globals()[f"_{name}"](parser, rest)


# ------------------------------------------------------------------------------------------------------------- train


def _train(parser: _Parser, argv: list[str]) -> int:
    parser.usage = "cnnjax train --config=FILE[:arg] [--config.FIELD=VALUE ...] [--workdir=DIR]"
    parser.epilog = "Config fields and their meaning: cnnjax configs FILE. To go on with a run: --workdir=DIR alone."
    parser.add_argument("--config", metavar="FILE[:arg]", help="a file with get_config(), and its argument")
    parser.add_argument("--workdir", help="the run's folder (default: a new one under runs/)")
    parser.add_argument("--data_dir", default="", help="where data sets are (default: TFDS's own)")
    args, rest = parser.parse_known_args(argv)
    location = args.config or os.path.join(args.workdir or "", "config.json")
    if args.config is None and not (args.workdir and os.path.exists(location)):
        parser.error(
            "--config=FILE is missing" + (f", and {args.workdir} is not a run's folder" if args.workdir else "")
        )
    config = read_config(location, rest)

    console = _start()
    import jax

    from cnnjax import workdir
    from cnnjax.interrupt import Interrupted
    from cnnjax.train import train

    folder = args.workdir or workdir.new(pathlib.Path(location.partition(":")[0]).stem)
    folder = pathlib.Path(_same_everywhere(str(folder)))
    try:
        result = train(config, folder, data_dir=args.data_dir, console=console)
    except Interrupted as stopped:
        if jax.process_index() == 0:
            console.print(f"{stopped}. To go on:\n  {_command()} train --workdir={folder}", soft_wrap=True)
        return 128 + stopped.signal
    if jax.process_index() == 0:
        _print_result(console, result, folder)
    return 0


def read_config(location: str, overrides: Sequence[str] = ()) -> Config:
    """The config of 'FILE[:arg]', with '--config.FIELD=VALUE' flags on top, as ml_collections reads them.

    A run's config.json works like a config file. Raises InputError for a file, field or value that is not one.
    """
    from absl import flags
    from ml_collections import config_flags

    path, _, arg = location.partition(":")
    if not pathlib.Path(path).is_file():
        raise InputError(f"there is no config file {path!r}; {nearest(path, map(str, _config_files()))}")
    config = load(pathlib.Path(path)) if path.endswith(".json") else _call_config_file(path, arg)
    values = flags.FlagValues()
    words = ["cnnjax", *overrides]
    try:
        config_flags.DEFINE_config_dataclass("config", config, flag_values=values, sys_argv=words)
        rest = values(words)[1:]
    except InputError:
        raise
    except Exception as error:  # absl's and config_flags' errors have no common base
        raise _flag_error(error, overrides) from error
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}; settings are given as --config.FIELD=VALUE")
    config: Any = values["config"].value
    return check(config)


def _config_files() -> list[pathlib.Path]:
    return sorted(pathlib.Path("configs").glob("*.py"))


def _call_config_file(path: str, arg: str) -> Config:
    """What get_config() of the file returns, or get_config(arg)."""
    module_spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    if module_spec is None or module_spec.loader is None:
        raise InputError(f"{path!r} is not a config file; expected a .py file with get_config()")
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise InputError("it has no get_config()")
        if arg and not inspect.signature(module.get_config).parameters:
            raise InputError(f"its get_config() takes no argument, got {arg!r}")
        config = module.get_config(*([arg] if arg else []))
    except Exception as error:
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        raise InputError(f"{path}{arg and ':' + arg} gives no config: {kind}{error}") from error
    if not isinstance(config, Config):
        raise InputError(f"{path}: get_config() returned a {type(config).__name__}, expected a cnnjax.config.Config")
    return config


def _flag_error(error: Exception, overrides: Sequence[str]) -> InputError:
    """The error of a flag that absl or config_flags refused, in our words."""
    for word in overrides:
        name = word.split("=")[0].lstrip("-")
        if name.startswith("config.") and name.removeprefix("config.") not in FIELDS:
            return unknown("config field", name.removeprefix("config."), FIELDS)
        if word.startswith("-") and not name.startswith("config."):
            return InputError(f"unknown flag {word!r}; {nearest(name, ('config', 'workdir', 'data_dir'))}")
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return InputError(lines[0].removeprefix("flag --"))


def _print_result(console: "Console", result: dict[str, Any], folder: pathlib.Path) -> None:
    from rich.table import Table

    minutes, seconds = divmod(result["seconds"], 60)
    rows = {}
    if "accuracy" in result:
        rows |= {"split": result["split"], "accuracy": f"{result['accuracy']:.2%}", "top-5": f"{result['top5']:.2%}"}
        rows |= {"loss": f"{result['loss']:.4f}"}
    rows |= {"time": f"{minutes:.0f} min {seconds:.0f} s", "folder": str(folder)}
    rows |= {"evaluate": f"{_command()} evaluate --workdir={folder}"}
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for row in rows.items():
        table.add_row(*row)
    console.print(table)


# ---------------------------------------------------------------------------------------------------------- evaluate


def _evaluate(parser: _Parser, argv: list[str]) -> int:
    parser.add_argument("--workdir", required=True, help="a run's folder")
    parser.add_argument("--step", default="last", help="last, best or a step's number (default: last)")
    parser.add_argument("--dataset", default="", help="default: the run's own")
    parser.add_argument(
        "--split", default="", help="TFDS split syntax, as in test[:10%%] (default: the run's test_split)"
    )
    parser.add_argument("--batch_size", type=int, default=0, help="default: the run's eval_batch_size")
    parser.add_argument("--data_dir", default="", help="where data sets are (default: TFDS's own)")
    args = parser.parse_args(argv)
    if args.batch_size < 0:
        raise InputError(f"--batch_size={args.batch_size}: expected at least 1")
    load(pathlib.Path(args.workdir) / "config.json")

    console = _start()
    import jax

    from cnnjax.evaluate import evaluate

    options = {name: value for name, value in vars(args).items() if name != "workdir"}
    result = evaluate(pathlib.Path(args.workdir), **options, say=console.print)
    if jax.process_index() == 0:
        _print_evaluation(console, result)
    return 0


def _print_evaluation(console: "Console", result: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title=f"{result['dataset']} {result['split']}, step {result['step']}", title_justify="left")
    for name in ("images", "accuracy", "top-5", "loss"):
        table.add_column(name, justify="right")
    table.add_row(f"{result['count']:,}", f"{result['accuracy']:.2%}", f"{result['top5']:.2%}", f"{result['loss']:.4f}")
    console.print(table)
    shown = sorted((a, name) for name, a in result["per_class"].items() if a is not None)
    if len(shown) > 20:
        console.print("the ten hardest classes:")
        shown = shown[:10]
    classes = Table("class", "accuracy")
    for accuracy, name in shown:
        classes.add_row(name, f"{accuracy:.2%}")
    console.print(classes)
    console.print(
        f"more in {result['folder']}: metrics.json, per_class.csv, confusion.csv, confusion.png", soft_wrap=True
    )


# --------------------------------------------------------------------------------------------- data, models, configs


def _data(parser: _Parser, argv: list[str]) -> int:
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
    console = _console()
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


def _models(parser: _Parser, argv: list[str]) -> int:
    parser.add_argument("pattern", nargs="?", default="", help="only names that contain this, or match it: 'vgg*_bn'")
    args = parser.parse_args(argv)
    console = _console()
    from rich.table import Table

    from cnnjax.models import MODELS

    pattern = args.pattern if any(sign in args.pattern for sign in "*?[") else f"*{args.pattern}*"
    chosen = {name: MODELS[name] for name in fnmatch.filter(MODELS, pattern)}
    if not chosen:
        raise unknown("model", args.pattern, MODELS)
    table = Table(title=f"Networks: {len(chosen)}", title_justify="left")
    table.add_column("name", no_wrap=True)
    for name in ("parameters", "MACs", "input"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("paper", no_wrap=True)
    table.add_column("its result (not ours)")
    for name, variant in chosen.items():
        size = "x".join(map(str, variant.input_shape))
        paper = f"{variant.paper.partition(',')[0]} {variant.year}"
        table.add_row(name, f"{variant.params:,}", _short(variant.macs), size, paper, variant.published)
    console.print(table)
    return 0


def _short(number: float) -> str:
    """1,582,671,872 as '1.58 G'."""
    for unit in ("", " k", " M"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} G" if number < 1000 else f"{number:,.0f} G"


def _summary(parser: _Parser, argv: list[str]) -> int:
    parser.add_argument("model", help="a network, or its call string: 'vgg16(norm=\"batch\")'")
    parser.add_argument("--input", metavar="HxW[xC]", help="the images' size (default: the paper's)")
    parser.add_argument("--batch", type=int, default=1, help="images, for the memory (default: 1)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="for the memory")
    parser.add_argument("--num_classes", type=int, default=0, help="default: the paper's")
    parser.add_argument("--csv", action="store_true", help="comma-separated values, in plain numbers")
    args = parser.parse_args(argv)
    if args.batch < 1:
        raise InputError(f"--batch={args.batch}: expected at least 1")
    console = _console()
    import csv

    from cnnjax import spec, summary
    from cnnjax.models import MODELS, create_model

    name = spec.parse(args.model).name
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    shape = _image_shape(args.input, MODELS[name].input_shape)
    model = create_model(args.model, args.num_classes or MODELS[name].num_classes, args.dtype)
    rows = summary.layers(model, shape)
    scale = args.batch * {"float32": 4, "bfloat16": 2}[args.dtype]
    if args.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(summary.COLUMNS)
        writer.writerows(summary.cells(row, scale) for row in rows)
        return 0
    images = f"{args.batch} x " if args.batch > 1 else ""
    console.print(summary.table(rows, scale, f"{args.model}, {images}{'x'.join(map(str, shape))}, {args.dtype}"))
    for line in (MODELS[name].paper, *summary.totals(rows, shape, scale)):
        console.print(line, soft_wrap=True)
    return 0


def _image_shape(text: str | None, default: tuple[int, int, int]) -> tuple[int, int, int]:
    """'HxW' or 'HxWxC' as numbers."""
    parts = text.lower().split("x") if text else list(map(str, default))
    if len(parts) not in (2, 3) or not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"--input={text}: expected height, width and channels, as in {'x'.join(map(str, default))}")
    height, width, *channels = map(int, parts)
    return height, width, channels[0] if channels else default[2]


def _configs(parser: _Parser, argv: list[str]) -> int:
    parser.add_argument(
        "config", nargs="?", metavar="FILE[:arg]", help="show this one; without it, list those in configs/"
    )
    args, overrides = parser.parse_known_args(argv)
    console = _console()
    from rich.table import Table

    if args.config:
        from rich.text import Text

        config, default = read_config(args.config, overrides), Config()
        console.print(
            ast.get_docstring(ast.parse(pathlib.Path(args.config.split(":")[0]).read_text())) or "", markup=False
        )
        table = Table(
            "field", "value", "default, where it differs", "what it is", title="Settings", title_justify="left"
        )
        what = meanings()
        for name, value in vars(config).items():
            usual = "" if value == getattr(default, name) else repr(getattr(default, name))
            table.add_row(name, repr(value), usual, Text(what[name]))
        console.print(table)
        return 0
    if not (files := _config_files()):
        raise InputError("there is no folder configs/ with config files here")
    table = Table("config", "what it is", title="Configs", title_justify="left")
    for path in files:
        table.add_row(str(path), (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n")[0])
    console.print(table)
    return 0


# ----------------------------------------------------------------------------------------------------------- helpers


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def _start() -> "Console":
    """Sets JAX up for a run: compilation cache, quiet logs, the other processes. Returns the console."""
    import absl.logging
    import jax

    from cnnjax import sharding

    absl.logging.set_verbosity(absl.logging.FATAL)  # what goes wrong is raised, and said once
    logging.getLogger("jax").setLevel(logging.ERROR)
    cache = os.environ.get("JAX_COMPILATION_CACHE_DIR") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "cnnjax", "xla"
    )
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    sharding.initialize()
    return _console()


def _same_everywhere(text: str) -> str:
    """The text of process 0, in every process."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return text
    padded = np.frombuffer(text.encode().ljust(4096, b"\0"), np.uint8)
    return multihost_utils.broadcast_one_to_all(padded).tobytes().rstrip(b"\0").decode()


def _command() -> str:
    """How this program was started, for commands that a person can repeat."""
    return os.environ.get("CNNJAX_COMMAND", "cnnjax")


if __name__ == "__main__":
    sys.exit(main())
