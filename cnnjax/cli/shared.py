"""What the commands share: the parser, flags, the terminal, and the start of JAX."""

import argparse
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from cnnjax.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console


class Parser(argparse.ArgumentParser):
    """argparse with one-line errors, which name the nearest valid sub-command."""

    def error(self, message: str) -> Any:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


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
    """Adds the flags of a command that starts many runs."""
    parser.add_argument("--workers", type=int, default=1, help="runs in parallel (default: 1)")
    parser.add_argument("--executor", default="local", help="local, ray(...) or slurm(...) (default: local)")
    parser.add_argument(
        "--stall_timeout", type=float, default=60.0, metavar="MINUTES",
        help="give up a run after MINUTES without output (default: 60)",
    )  # fmt: skip
    hidden = argparse.SUPPRESS
    parser.add_argument("--silence", type=float, dest="stall_timeout", default=hidden, help=hidden)  # its former name


def executor(args: argparse.Namespace) -> Any:
    """The executor that these flags ask for. Raises InputError when they do not fit."""
    for name, least in (("workers", 1), ("stall_timeout", 0.01)):
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

    from cnnjax import cache
    from cnnjax.distributed import processes

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
