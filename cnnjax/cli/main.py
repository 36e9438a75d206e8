"""The command line: finds the command, builds its parser, and prints errors. Nothing heavy is imported for --help.

A command is a module of `cnnjax.cli` with `add_flags(parser)`, which declares its flags without importing anything
heavy, and `run(args, overrides) -> exit status`. It is imported when it is called.
"""

import argparse
import importlib
import os
import re
import signal
import sys
import traceback
import types
from collections.abc import Sequence
from typing import Any

from cnnjax import __version__, crash, register
from cnnjax.cli.shared import Parser, UsageError, program_name
from cnnjax.errors import InputError, nearest, shorten, unknown, visible

SETTING = re.compile(r"--(config|space)\.[^ =]+=")
COMMANDS = {
    "train": "train a network from a config, or resume a run",
    "sweep": "search for hyperparameters, with several trials in parallel",
    "study": "test a claim of the literature and write a report",
    "evaluate": "evaluate a checkpoint or published weights on a split of a data set",
    "compare": "compare runs: settings that differ, results, and paired tests on the same test images",
    "report": "write a one-file HTML page about a run, a comparison of runs, a sweep or a study",
    "course": "write the course: pages in English and Korean on all claims and the results of their studies",
    "predict": "classify images: files and folders",
    "probe": "evaluate a network's features on a data set: nearest neighbors and a linear classifier",
    "visualize": "draw a network's filters, its feature maps, and explanations of its decisions",
    "export": "export a trained network as a file for other programs",
    "push": "send a run or weights to a repository on the Hugging Face Hub",
    "pull": "fetch a run or weights from a repository on the Hugging Face Hub",
    "data": "list or build data sets, preview an augmentation, find duplicates and label errors",
    "models": "list the networks, with the published results",
    "weights": "list the published weights that can be downloaded",
    "reproduce": "retrain this package's weights from scratch, and compare the results",
    "summary": "print a network layer by layer: shapes, parameters, MACs, memory, receptive fields",
    "configs": "list the configs, or print one with the help of every field",
    "bench": "measure speed and memory; compare with PyTorch, and with a saved baseline",
    "cache": "list or clear the cached files: compiled programs, decoded splits, downloaded weights",
    "completion": "print the completion script for bash or zsh",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line and returns the exit status. `argv` is what follows 'cnnjax'; None reads sys.argv.

    The status is 0 for success, 1 for an error, 2 for a wrong flag, and 128 + n if signal n stopped the command. If the
    reader of the output has exited, as in `cnnjax models | head -1`, it is 128 + SIGPIPE.
    """
    if argv is None:
        _prepare_process()
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()
    except UsageError as error:
        return _fail(f"{error} (see cnnjax {' '.join(argv[:1])} --help)", 2)
    except InputError as error:
        return _fail(error)
    except FloatingPointError as error:
        return _fail(f"{error}; earlier checkpoints are intact. Try a smaller lr or grad_clip_norm")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's own flush at exit would complain
        return _end(128 + signal.SIGPIPE)
    except OSError as error:
        return _fail(": ".join(str(part) for part in (error.filename, error.strerror) if part) or error)
    except KeyboardInterrupt:
        return _fail("interrupted", 128 + signal.SIGINT)
    except Exception as error:
        processes = _distributed()
        return _fail((processes and processes.peer_failure(error)) or crash.describe(error, argv))


def _prepare_process() -> None:
    """Sets UTF-8 for text and file names, keeps output from failing, and limits what child processes can import.

    Under another locale, as in LC_ALL=C PYTHONUTF8=0, the process restarts itself with -X utf8, which is the default
    from Python 3.15 on (PEP 686). A closed stdout or stderr is replaced by the null device. The Pythons that a command
    starts, such as the runs of a sweep, import from the current folder only if this one does.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode and sys.executable:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    if sys.path[:1] not in ([""], [os.getcwd()]):
        os.environ.setdefault("PYTHONSAFEPATH", "1")
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        else:
            stream.reconfigure(errors="backslashreplace")


def _fail(message: object, status: int = 1) -> int:
    """Prints an error to stderr, ends the other processes of a distributed program, and returns the exit status."""
    if os.environ.get("CNNJAX_TRACEBACK"):
        traceback.print_exc()
    print(f"error: {visible(shorten(str(message)))}", file=sys.stderr)
    return _end(status)


def _end(status: int) -> int:
    """Returns the exit status. In a distributed program it exits at once instead, and the others follow."""
    if processes := _distributed():
        processes.exit_now(status)
    return status


def _distributed() -> Any:
    """Returns the module `cnnjax.distributed.processes` if this process is one of several, else None.

    Returns None, too, if the module is not imported yet.
    """
    processes = sys.modules.get("cnnjax.distributed.processes")
    return processes if processes and processes.is_distributed() else None


def main_parser() -> Parser:
    """Builds the parser for flags before a command: --help, --version and --dry-run."""
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
                "`cnnjax COMMAND --help` lists its flags. Errors are one line; set CNNJAX_TRACEBACK=1 for a traceback.",
            ]
        ),
    )
    parser.add_argument("--version", action="version", version=f"cnnjax {__version__}")
    parser.add_argument(
        "--dry-run", action="store_true", help="before COMMAND: print where it would run and with which processes"
    )
    return parser


def command_module(name: str) -> types.ModuleType:
    """Imports the module of a command: 'train' is `cnnjax.cli.train`."""
    return importlib.import_module(f"cnnjax.cli.{name}")


def add_command_flags(parser: argparse.ArgumentParser, module: types.ModuleType) -> None:
    """Adds the flags of a command (of `module.add_flags`) and those of all commands (--import) to its parser."""
    module.add_flags(parser)
    parser.add_argument(
        "--import", action="append", default=[], dest="imports", metavar="FILE",
        help="Python file or module that registers code of your own; may be repeated",
    )  # fmt: skip


def _as_typed(words: Sequence[str], chosen: Sequence[str]) -> list[str]:
    """Returns `chosen`, a subset of `words`, in the order of `words`; argparse moves unknown flags to the front."""
    left = list(chosen)
    return [left.pop(left.index(word)) for word in words if word in left]


def _run(argv: list[str]) -> int:
    """Finds the command, parses its flags and runs it; returns its exit status. Errors are raised."""
    dry_run = argv[:1] == ["--dry-run"]
    argv = argv[dry_run:]
    if not argv or argv[0].startswith("-"):
        parser = main_parser()
        parser.parse_args(argv)
        parser.print_help()
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    if dry_run:
        from cnnjax.distributed import processes

        print(processes.describe([program_name(), *argv]))
        return 0
    module, text = command_module(name), COMMANDS[name]
    parser = Parser(prog=f"cnnjax {name}", description=f"{text[0].upper()}{text[1:]}.")
    add_command_flags(parser, module)
    # argparse would take '--config.duration=4 steps', a flag that it does not know, for an argument: it has a space.
    settings = [word for word in rest if parser.accepts_overrides and SETTING.match(word)]
    # A word may come after a flag (RUN --what=maps IMAGE), but argparse loses "--" where it parses both intermixed.
    has_words = any(action.dest == "words" for action in parser._actions)
    end = rest.index("--") if has_words and "--" in rest else len(rest)
    in_order = parser.accepts_overrides or "--" in rest[:end]
    parse = parser.parse_known_args if in_order else parser.parse_known_intermixed_args
    args, others = parse([word for word in rest[:end] if word not in settings])
    if has_words:
        args.words += rest[end + 1 :]
    overrides = _as_typed(rest, [*settings, *others])
    if overrides and not parser.accepts_overrides:
        word = overrides[0]
        if not word.startswith("-"):
            parser.error(f"unexpected argument {word!r}")
        parser.error(f"unknown flag {word!r}; {nearest(word.partition('=')[0].lstrip('-'), parser.flag_names(), '--')}")
    args.flag_names = parser.flag_names()
    for code in args.imports:
        register.import_code(code)
    return module.run(args, overrides)
