"""The command line: finds the command and says what went wrong. Nothing heavy is imported for --help.

A command is a module of `cnnjax.cli`, imported when it is asked for; below are also the things they share.
"""

import argparse
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from cnnjax import __version__
from cnnjax.cli.shared import Parser, program
from cnnjax.errors import InputError, unknown


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
        if not (reason := others.peer_failure(error)):
            traceback.print_exc()
        return _fail(reason or f"{type(error).__name__}, as above")


def _fail(message: object, status: int = 1) -> int:
    if os.environ.get("CNNJAX_TRACEBACK"):
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    if others := _others():
        others.exit_now(status)
    return status


def _others() -> Any:
    """`cnnjax.distributed.processes` in a process that has joined others, else None."""
    processes = sys.modules.get("cnnjax.distributed.processes")
    return processes if processes and processes.is_distributed() else None


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
        from cnnjax.distributed import processes

        print(processes.describe([program(), *argv]))
        return 0
    text = COMMANDS[name]
    parser = Parser(prog=f"cnnjax {name}", description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
    return importlib.import_module(f"cnnjax.cli.{name}").run(parser, rest)
