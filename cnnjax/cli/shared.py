"""Shared by the commands: the argument parser, common flags, the console, and the setup of JAX."""

import argparse
import logging
import os
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cnnjax.errors import InputError, nearest, shorten, visible
from cnnjax.shell import command_line as command_line  # for the commands
from cnnjax.shell import program_name as program_name

if TYPE_CHECKING:
    from cnnjax.console import Console
    from cnnjax.pretrained import FileOptions
    from cnnjax.runs.supervise import Run


EXECUTOR_DEFAULTS = {"workers": 1, "executor": "local", "stall_timeout": 60.0}  # of `add_executor_flags`


class UsageError(InputError):
    """A missing or unexpected command-line argument: exit status 2, and a message that points to --help."""


class Parser(argparse.ArgumentParser):
    """An argparse parser with one-line errors and without abbreviated flags.

    Attributes:
        accepts_overrides: set to True by a command that takes arguments which the parser does not know, such as
            --config.lr=0.1; for other commands these are an error.
    """

    accepts_overrides = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options | {"allow_abbrev": False})

    def flag_names(self) -> list[str]:
        """Returns the names of the flags without dashes ('batch_size'). Hidden and short flags are left out."""
        actions = [action for action in self._actions if action.help != argparse.SUPPRESS]
        flags = [flag for action in actions for flag in action.option_strings]
        return [flag.removeprefix("--") for flag in flags if flag.startswith("--")]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raises ArgumentError for a value that is not among the choices of `action`, with the nearest valid one."""
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"invalid choice: {value!r}; {nearest(str(value), action.choices)}")

    def error(self, message: str) -> Any:
        """Prints an error in one line, and exits with status 2."""
        self.exit(2, f"error: {visible(shorten(message))} (see {self.prog} --help)\n")


def add_hidden_alias(parser: argparse.ArgumentParser, flag: str, dest: str, kind: Any) -> None:
    """Adds `flag`, a former name of another flag, without listing it in --help.

    Its value is converted by `kind` and stored in `dest`.
    """
    parser.add_argument(flag, dest=dest, type=kind, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


# ------------------------------------------------------------------------------------------- flags of several commands


def add_config_flag(parser: argparse.ArgumentParser, description: str) -> None:
    """Adds --config=FILE[:arg]. `description` is its help."""
    parser.add_argument("--config", metavar="FILE[:arg]", help=f"{description}; or a bare NAME before the flags")


def take_config_name(args: argparse.Namespace, overrides: list[str]) -> list[str]:
    """Sets `args.config` to the first of `overrides` if it is not a flag, as in `cnnjax train mnist_lenet5`.

    Returns the remaining overrides. With --config, `overrides` is returned as it is.
    """
    if args.config is not None or not overrides or overrides[0].startswith("-"):
        return overrides
    args.config = overrides[0]
    return overrides[1:]


def add_data_dir_flag(parser: argparse.ArgumentParser) -> None:
    """Adds --data_dir=DIR, '' by default."""
    parser.add_argument("--data_dir", metavar="DIR", default="", help="folder of the data sets (default: TFDS's own)")


def add_format_flags(parser: argparse.ArgumentParser, forms: Sequence[str] = ("csv", "markdown", "latex")) -> None:
    """Adds a flag for each of `forms`, such as --csv. At most one may be given: `args.format` is its name, or ''."""
    words = {
        "csv": "comma-separated values, numbers without units",
        "markdown": "a Markdown table",
        "latex": "a LaTeX table, for the package booktabs",
    }
    group = parser.add_mutually_exclusive_group()
    for form in forms:
        group.add_argument(
            f"--{form}", action="store_const", const=form, dest="format", default="", help=f"print {words[form]}"
        )


def add_network_flags(parser: argparse.ArgumentParser, images: str = "") -> None:
    """Adds the arguments that select a trained network: the first word or else --workdir or --init, and --step.

    Also adds the flags that describe a weight file. `images` is the help text of images that follow the network; '' for
    a command that takes none.
    """
    network = (
        "folder of a run, name of `cnnjax weights`, or weight file; FILE#KEY selects one of several sets of weights in "
        "it, as in FILE#ema"
    )
    if images:
        parser.add_argument("words", nargs="*", metavar="IMAGE", help=f"first the network: {network}; then {images}")
    else:
        parser.add_argument("words", nargs="*", metavar="NETWORK", help=network)
    parser.add_argument("--workdir", metavar="DIR", default="", help="folder of a run: another way to name the network")
    parser.add_argument(
        "--init", metavar="NAME|FILE[#KEY]", default="",
        help="published weights or a weight file: another way to name the network",
    )  # fmt: skip
    parser.add_argument(
        "--like", metavar="NAME", default="",
        help="for a weight file: the name of published weights with the same network and preprocessing",
    )  # fmt: skip
    parser.add_argument("--model", metavar="MODEL", default="", help="for a weight file: its network, as in resnet18")
    parser.add_argument(
        "--normalize", metavar="CALL", default="",
        help="for a weight file: how images were normalized: imagenet, symmetric, none or "
        "'constants((0.49, 0.48, 0.45), (0.25, 0.24, 0.26))'",
    )  # fmt: skip
    parser.add_argument(
        "--classes", metavar="A,B,...|FILE|DATASET", default="",
        help="for a weight file: class names, a file with one name per line, or a data set with the same classes",
    )  # fmt: skip
    parser.add_argument(
        "--match", metavar="order", default="",
        help="for a weight file with unknown names: 'order' matches arrays by order and shape, and prints the matches",
    )  # fmt: skip
    parser.add_argument("--step", default="last", help="checkpoint of the run: last, best or a number (default: last)")


def add_preprocessing_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --preprocess (default: None) and --batch_size (default: 0), for commands that feed images to a network."""
    parser.add_argument("--preprocess", metavar="OPS", help="operations on each image (default: as in the run)")
    parser.add_argument(
        "--batch_size", type=int, default=0, metavar="N", help="images per batch (default: the run's eval_batch_size)"
    )


def file_options(args: argparse.Namespace) -> "FileOptions":
    """Returns the options of a weight file, from the flags. Raises InputError if a run has any but --preprocess."""
    from cnnjax.pretrained import FileOptions

    names = ("like", "model", "normalize", "classes", "match")
    if not args.init and (given := [name for name in names if getattr(args, name)]):
        raise InputError(f"--{given[0]} describes a weight file: give that file as the network")
    return FileOptions(preprocess=args.preprocess, **{name: getattr(args, name) for name in names})


def take_network(args: argparse.Namespace, takes_images: bool = False) -> str:
    """Returns the network: the value of --workdir or --init, or else the first of `args.words`, which it removes.

    Stores it in `args.workdir` (a run's folder) or `args.init` (published weights or a weight file). If the command
    `takes_images`, the remaining words are images. Raises UsageError if there is no network or more than one, or if
    there are words that the command does not take. Raises InputError if --batch_size is negative.
    """
    if args.workdir and args.init:
        raise UsageError(f"--workdir={args.workdir} and --init={args.init}: expected one of them, and not both")
    if not (args.workdir or args.init):
        take_first_word(args)
    network = args.workdir or args.init
    if not network:
        raise no_network()
    check_words(args, network, takes_images)
    check_batch_size(args)
    return network


def take_first_word(args: argparse.Namespace) -> None:
    """Moves the first of `args.words`, if there is one, to `args.workdir` if it is a folder, else to `args.init`.

    Raises UsageError if the word is an image, or if that flag is given, too.
    """
    from cnnjax.data.image_formats import SUFFIXES

    if not args.words:
        return
    word = args.words.pop(0)
    flag = "workdir" if os.path.isdir(word) else "init"
    if flag == "init" and os.path.splitext(word)[1].lower() in SUFFIXES:
        raise no_network(f", before the image {word}")
    if network := getattr(args, flag):
        raise _unexpected(word, network)
    setattr(args, flag, word)


def check_words(args: argparse.Namespace, network: str, takes_images: bool = False) -> None:
    """Raises UsageError for a word after the network: for any word or, with `takes_images`, only for a run's folder."""
    for word in args.words:
        if not takes_images or os.path.exists(os.path.join(word, "config.json")):
            raise _unexpected(word, network)


def no_network(where: str = "") -> UsageError:
    """Returns the error for a command line without a network. `where` is appended to the message."""
    return UsageError(
        f"the network is missing: expected a run's folder, a name of `cnnjax weights` or a weight file{where}"
    )


def _unexpected(word: str, network: str) -> UsageError:
    """Returns the error for a `word` that the command does not take, although it has its `network`."""
    return UsageError(f"unexpected argument {word!r}: the network is {network}")


def results_folder(args: argparse.Namespace) -> pathlib.Path:
    """Returns the folder of results: --workdir or, for published weights and weight files, runs/NAME."""
    name = re.sub(r"[^\w.-]+", "-", args.init).strip("-.")
    return pathlib.Path(args.workdir or f"runs/{name}")


def check_batch_size(args: argparse.Namespace) -> None:
    """Raises InputError when --batch_size is negative. 0 stands for the run's eval_batch_size."""
    if getattr(args, "batch_size", 0) < 0:
        raise InputError(f"--batch_size={args.batch_size}: expected at least 1")


def add_executor_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a command that starts training runs: --workers, --executor and --stall_timeout."""
    parser.add_argument("--workers", type=int, metavar="N", help="runs in parallel (default: 1)")
    parser.add_argument("--executor", help="local, ray(...) or slurm(...) (default: local)")
    parser.add_argument(
        "--stall_timeout", type=float, metavar="MINUTES",
        help="stop a run after this many minutes without output (default: 60)",
    )  # fmt: skip
    add_hidden_alias(parser, "--silence", "stall_timeout", float)
    parser.set_defaults(**EXECUTOR_DEFAULTS)


def executor_flags(args: argparse.Namespace) -> list[str]:
    """Returns the flags of `add_executor_flags` that are not at their defaults, for a command that is printed."""
    given = {name: getattr(args, name) for name in EXECUTOR_DEFAULTS}
    return [f"--{name}={value}" for name, value in given.items() if value != EXECUTOR_DEFAULTS[name]]


def build_executor(args: argparse.Namespace) -> Any:
    """Builds the executor of --executor, for --workers runs in parallel: a function that starts a run's command.

    Raises InputError for invalid values, also of --stall_timeout.
    """
    for name, minimum in (("workers", 1), ("stall_timeout", 0.01)):
        if not getattr(args, name) >= minimum:
            raise InputError(f"--{name}={getattr(args, name)}: expected at least {minimum}")
    from cnnjax import spec
    from cnnjax.runs.executors import EXECUTORS

    return spec.build("executor", args.executor, EXECUTORS, workers=args.workers)


def parse_image_shape(text: str | None, default: tuple[int, int, int]) -> tuple[int, int, int]:
    """Parses --input, 'HxW' or 'HxWxC', to (height, width, channels). None gives `default`.

    Without C, the channels are those of `default`. Raises InputError for any other text.
    """
    words = text.lower().split("x") if text else list(map(str, default))
    if len(words) not in (2, 3) or not all(word.isdecimal() and int(word) for word in words):
        raise InputError(f"--input={text}: expected height, width and channels, as in {'x'.join(map(str, default))}")
    height, width, *channels = map(int, words)
    return height, width, channels[0] if channels else default[2]


def describe_run(run: "Run") -> str:
    """Returns a line about a run in progress: its folder, epoch and last metrics."""
    from cnnjax.metrics import METRICS, format_value

    last = run.metrics[-1] if run.metrics else {}
    shown = [name for name in last if (row := METRICS.get(name.rpartition("/")[2])) and row.in_progress]
    values = ", ".join(f"{name} {format_value(name, last[name])}" for name in shown)
    return f"{run.folder}: epoch {last.get('epoch', 0):.1f} of {run.config.duration} {values}"


# -------------------------------------------------------------------------------------------------- console and JAX


def make_console() -> "Console":
    """Returns a console for stdout, as wide as COLUMNS or the terminal; 140 columns if there is neither."""
    from cnnjax.console import Console

    columns = os.environ.get("COLUMNS", "")
    has_width = sys.stdout.isatty() or (columns.isdecimal() and int(columns))
    return Console(width=None if has_width else 140)


def setup_jax(use_cache: bool = True) -> "Console":
    """Configures JAX for a command: memory, logging and compilation cache. Connects the processes of a distributed run.

    The cache is in JAX_COMPILATION_CACHE_DIR or, by default, in a folder of the user. Without `use_cache` it is off.
    Returns a console for the output.
    """
    import absl.logging
    import jax

    from cnnjax import compilation_cache, host_memory
    from cnnjax.distributed import processes

    host_memory.keep_freed()
    absl.logging.set_verbosity(absl.logging.FATAL)  # failures are raised, and printed once
    logging.getLogger("jax").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # Orbax's other tasks, when one fails and raises
    if not use_cache:
        jax.config.update("jax_compilation_cache_dir", None)
    elif reason := compilation_cache.enable():
        print(f"compiled programs are not cached: {visible(reason)}", file=sys.stderr)
    processes.initialize()
    return make_console()


def broadcast_text(text: str) -> str:
    """Returns the `text` of process 0 in every process. It may have up to 4096 bytes in UTF-8."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return text
    padded = np.frombuffer(text.encode().ljust(4096, b"\0"), np.uint8)
    return multihost_utils.broadcast_one_to_all(padded).tobytes().rstrip(b"\0").decode()
