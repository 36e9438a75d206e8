"""The command line: finds the command and says what went wrong. Nothing heavy is imported for --help.

A command is a module of `cnnjax.commands`, imported when it is asked for; below are also the things they share.
"""

import argparse
import contextlib
import importlib
import importlib.util
import inspect
import logging
import os
import pathlib
import signal
import sys
import traceback
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cnnjax import __version__
from cnnjax.config import FIELDS, Config, check, load
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
    except Exception as error:
        if not (others := _others()):
            raise
        if not (reason := others.reason(error)):
            traceback.print_exc()
        return _fail(reason or f"{type(error).__name__}, as above")


def _fail(message: object, status: int = 1) -> int:
    if os.environ.get("CNNJAX_TRACEBACK"):
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    if others := _others():
        others.leave(status)
    return status


def _others() -> Any:
    """`cnnjax.processes` in a process that has joined others, else None."""
    processes = sys.modules.get("cnnjax.processes")
    return processes if processes and processes.several() else None


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, which name the nearest valid sub-command."""

    def error(self, message: str) -> Any:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


COMMANDS = {
    "train": "train a network from a config, or go on with a run",
    "sweep": "search for settings: trials of a space, several at a time",
    "study": "test a claim of the literature, and write the report",
    "evaluate": "score a checkpoint of a run on a split of a data set",
    "predict": "say what is on images: files and folders",
    "probe": "test a network's features on a data set: nearest neighbours and a linear classifier",
    "export": "write a trained network as a file for other programs",
    "data": "list data sets, or build one from its original files",
    "models": "list the networks",
    "weights": "list published weights of the networks",
    "summary": "print a network's layers: shapes, parameters, multiplications, memory, receptive fields",
    "configs": "list the configs, or show one",
    "bench": "measure speed and memory, beside PyTorch's and against what was kept",
}


def _run(argv: list[str]) -> int:
    parser = Parser(
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
    parser.add_argument("--dry-run", action="store_true", help="before a command: only say where it would run, as what")
    dry = argv[:1] == ["--dry-run"]
    argv = argv[dry:]
    if not argv or argv[0].startswith("-"):
        parser.parse_args(argv)
        parser.print_help()
        return 0
    name, rest = argv[0], argv[1:]
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    if dry:
        from cnnjax import processes

        print(processes.describe([program(), *argv]))
        return 0
    text = COMMANDS[name]
    parser = Parser(prog=f"cnnjax {name}", description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    return importlib.import_module(f"cnnjax.commands.{name}").run(parser, rest)


# -------------------------------------------------------------------------------------- for commands: the config


def read_config(
    location: str, overrides: Sequence[str] = (), known: Iterable[str] = ("config", "workdir", "data_dir")
) -> Config:
    """The config of 'FILE[:arg]', with '--config.FIELD=VALUE' flags on top, as ml_collections reads them.

    A run's config.json works like a config file. `known` are the command's own flags, for the error about another.
    Raises InputError for a file, field or value that is not one.
    """
    from absl import flags
    from ml_collections import config_flags

    path, _, arg = location.partition(":")
    if not pathlib.Path(path).is_file():
        raise InputError(f"there is no config file {path!r}; {nearest(path, map(str, config_files()))}")
    config = load(pathlib.Path(path)) if path.endswith(".json") else _call_config_file(path, arg)
    values = flags.FlagValues()
    words = ["cnnjax", *overrides]
    try:
        config_flags.DEFINE_config_dataclass("config", config, flag_values=values, sys_argv=words)
        rest = values(words)[1:]
    except InputError:
        raise
    except Exception as error:  # absl's and config_flags' errors have no common base
        raise _flag_error(error, overrides, known) from error
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}; settings are given as --config.FIELD=VALUE")
    config: Any = values["config"].value
    return check(config)


def config_files() -> list[pathlib.Path]:
    return sorted(pathlib.Path("configs").glob("*.py"))


def read_space(location: str) -> dict[str, Any]:
    """What sweep() of the config file 'FILE[:arg]' returns; {} where there is none. Raises InputError as it fails."""
    path = location.partition(":")[0]
    if path.endswith(".json"):
        return {}
    with _of_file(path):
        space = getattr(_module(path), "sweep", dict)()
        if not isinstance(space, dict):
            raise InputError(f"sweep() returned a {type(space).__name__}, expected a dict of settings")
        return space


def _call_config_file(path: str, arg: str) -> Config:
    """What get_config() of the file returns, or get_config(arg)."""
    with _of_file(path + (arg and f":{arg}")):
        module = _module(path)
        if not hasattr(module, "get_config"):
            raise InputError("it has no get_config()")
        if arg and not inspect.signature(module.get_config).parameters:
            raise InputError(f"its get_config() takes no argument, got {arg!r}")
        config = module.get_config(*([arg] if arg else []))
    if not isinstance(config, Config):
        raise InputError(f"{path}: get_config() returned a {type(config).__name__}, expected a cnnjax.config.Config")
    return config


def read_study(path: str, budget: str) -> Any:
    """The `cnnjax.study.Study` that get_study(budget) of the file gives. Raises InputError when it gives none."""
    from cnnjax.study import Study

    if not pathlib.Path(path).is_file():
        files = map(str, sorted(pathlib.Path("experiments").glob("*.py")))
        raise InputError(f"there is no study {path!r}; {nearest(path, files)}")
    with _of_file(path, "study"):
        module = _module(path)
        if not hasattr(module, "get_study"):
            raise InputError("it has no get_study(budget)")
        study = module.get_study(budget)
        if not isinstance(study, Study):
            raise InputError(f"get_study() returned a {type(study).__name__}, expected a cnnjax.study.Study")
    return study


def _module(path: str) -> types.ModuleType:
    """A Python file of a person's own, which may raise anything."""
    module_spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    if module_spec is None or module_spec.loader is None:
        raise InputError("expected a .py file with get_config()")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _of_file(where: str, what: str = "config") -> Iterator[None]:
    try:
        yield
    except Exception as error:
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        raise InputError(f"{where} gives no {what}: {kind}{error}") from error


def _flag_error(error: Exception, overrides: Sequence[str], known: Iterable[str]) -> InputError:
    """The error of a flag that absl or config_flags refused, in our words."""
    for word in overrides:
        name = word.split("=")[0].lstrip("-")
        if name.startswith("config.") and name.removeprefix("config.") not in FIELDS:
            return unknown("config field", name.removeprefix("config."), FIELDS)
        if word.startswith("-") and not name.startswith("config."):
            return InputError(f"unknown flag {word!r}; {nearest(name, known)}")
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return InputError(lines[0].removeprefix("flag --"))


# -------------------------------------------------------------------------------- for commands: a trained network


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a command that takes a network with its weights."""
    parser.add_argument("--workdir", default="", help="a run's folder")
    parser.add_argument("--init", default="", help="in place of a run: one of `cnnjax weights`, or a file of weights")
    parser.add_argument("--like", default="", help="of the file: one of `cnnjax weights` that says how to use it")
    parser.add_argument("--step", default="last", help="of a run: last, best or a step's number (default: last)")


def add_view_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a command that shows images to a network."""
    parser.add_argument("--preprocess", help="operations on the images (default: the run's own)")
    parser.add_argument("--batch_size", type=int, default=0, help="views at once (default: the run's eval_batch_size)")


def network(args: argparse.Namespace) -> str:
    """What `weights.find` takes. Raises InputError unless these flags name one network, and a possible batch size."""
    if bool(args.workdir) == bool(args.init):
        raise InputError("give a run's folder as --workdir=DIR, or trained weights as --init=NAME, and not both")
    if getattr(args, "batch_size", 0) < 0:
        raise InputError(f"--batch_size={args.batch_size}: expected at least 1")
    return args.workdir or args.init


# ---------------------------------------------------------------------------------------- for commands: many runs


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a command that gives out runs."""
    parser.add_argument("--workers", type=int, default=1, help="runs at a time; they share the machine (default: 1)")
    parser.add_argument("--executor", default="local", help="local, ray(...) or slurm(...) (default: local)")
    parser.add_argument(
        "--silence", type=float, default=60.0, help="minutes without a word, to be given up (default: 60)"
    )


def executor(args: argparse.Namespace) -> Any:
    """The executor that these flags ask for. Raises InputError when they do not fit."""
    for name, least in (("workers", 1), ("silence", 0.01)):
        if not getattr(args, name) >= least:
            raise InputError(f"--{name}={getattr(args, name)}: expected at least {least}")
    from cnnjax import spec
    from cnnjax.runs.executors import EXECUTORS

    return spec.build("executor", args.executor, EXECUTORS, workers=args.workers)


# ----------------------------------------------------------------------------- for commands: the terminal, the machine


def console() -> "Console":
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)


def start(cached: bool = True) -> "Console":
    """Sets JAX up for a run: compilation cache, quiet logs, the other processes. Returns the console."""
    import absl.logging
    import jax

    from cnnjax import cache, processes

    absl.logging.set_verbosity(absl.logging.FATAL)  # what goes wrong is raised, and said once
    logging.getLogger("jax").setLevel(logging.ERROR)
    kept = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(cache.folder("xla"))
    jax.config.update("jax_compilation_cache_dir", kept if cached else None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # many small programs add up at every start
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    processes.initialize()
    return console()


def same_everywhere(text: str) -> str:
    """The text of process 0, in every process."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return text
    padded = np.frombuffer(text.encode().ljust(4096, b"\0"), np.uint8)
    return multihost_utils.broadcast_one_to_all(padded).tobytes().rstrip(b"\0").decode()


def program() -> str:
    """How this program was started, for commands that a person can repeat."""
    return os.environ.get("CNNJAX_COMMAND", "cnnjax")


def image_shape(text: str | None, default: tuple[int, int, int]) -> tuple[int, int, int]:
    """'HxW' or 'HxWxC' as numbers."""
    parts = text.lower().split("x") if text else list(map(str, default))
    if len(parts) not in (2, 3) or not all(part.isdecimal() and int(part) for part in parts):
        raise InputError(f"--input={text}: expected height, width and channels, as in {'x'.join(map(str, default))}")
    height, width, *channels = map(int, parts)
    return height, width, channels[0] if channels else default[2]


if __name__ == "__main__":
    sys.exit(main())
