"""`cnnjax train`: starts a training run, or resumes one."""

import argparse
import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from cnnjax import config_files, paths, register
from cnnjax.cli import shared
from cnnjax.errors import InputError, missing

if TYPE_CHECKING:
    from cnnjax.config import Config
    from cnnjax.console import Console
    from cnnjax.runs.history import Metrics


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax train` to its parser."""
    parser.usage = (
        "cnnjax train NAME[:arg] [--config.FIELD=VALUE ...] [--workdir=DIR]\n"
        "       cnnjax train --workdir=DIR    resume a run; with --config.duration='30 epochs', extend it, if its\n"
        "                                     schedule does not depend on the duration"
    )
    parser.epilog = (
        "`cnnjax configs` lists the names of configs; `cnnjax configs NAME` explains every field of one. To watch a "
        "training: `tensorboard --logdir=runs` (pip install tensorboard) shows the curves of all runs."
    )
    parser.accepts_overrides = True
    shared.add_config_flag(parser, "config file with get_config(), and its argument")
    parser.add_argument("--workdir", metavar="DIR", help="folder of the run (default: a new one under runs/)")
    shared.add_data_dir_flag(parser)
    parser.add_argument(
        "--report", action="store_true",
        help="write report.html in the folder, a page for a browser: curves during training, the rest at the end",
    )  # fmt: skip
    parser.add_argument(
        "--track", metavar="TRACKER", default="",
        help="also send settings and metrics to trackio, wandb or mlflow, as in --track=wandb or "
        "--track=\"wandb(project='thesis')\"; pip install 'cnnjax[wandb]' first. Resumed runs continue there with the "
        "same flag",
    )  # fmt: skip


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax train`: starts or resumes a run.

    `overrides` are the --config.FIELD=VALUE arguments. Returns the exit status, 128 + n if signal n stopped it.
    """
    overrides = shared.take_config_name(args, overrides)
    location = args.config or os.path.join(args.workdir or "", "config.json")
    if args.config is None and not (args.workdir and os.path.exists(location)):
        if unknown := config_files.unknown_flag(overrides, args.flag_names):
            raise unknown
        not_a_run = ""
        if args.workdir:
            is_there = os.path.exists(args.workdir)
            not_a_run = f". {args.workdir} is not a run's folder" if is_there else f". {missing(args.workdir)}"
        raise shared.UsageError(
            f"--config=FILE is missing; a name will do, as in `cnnjax train digits_lenet5`{not_a_run}"
        )
    if not config_files.is_config(location):
        _check_location(location)
    config = config_files.read_config(location, overrides, args.flag_names)

    console = shared.setup_jax()
    import jax

    from cnnjax.runs import workdir

    with contextlib.ExitStack() as stack:
        folder = args.workdir or ""
        if not folder and jax.process_index() == 0:
            name = pathlib.Path(paths.split_argument(location)[0]).stem
            folder = stack.enter_context(workdir.new_folder(name))
        folder = pathlib.Path(shared.broadcast_text(str(folder)))
        return _train(args, config, folder, console)


def _check_location(location: str) -> None:
    """Raises UsageError for a run in the place of a config, and InputError for a path that does not exist."""
    config_of_run = os.path.join(location, "config.json")
    if os.path.exists(config_of_run):
        raise shared.UsageError(
            f"{location} is a run, not a config: resume it with --workdir={location}, or train it again with "
            f"--config={config_of_run}"
        )
    path, _ = paths.split_argument(location)
    if os.sep in path and not os.path.exists(path):
        raise InputError(missing(path))


def _train(args: argparse.Namespace, config: "Config", folder: pathlib.Path, console: "Console") -> int:
    """Trains in `folder`, and prints the result, or the command that resumes. Returns the exit status of `run`."""
    import jax

    from cnnjax.runs.signals import Interrupted
    from cnnjax.training.loop import train

    try:
        with _receiver(args, folder, config, console) as on_metrics:
            result = train(config, folder, data_dir=args.data_dir, console=console, on_metrics=on_metrics)
    except Interrupted as interruption:
        if jax.process_index() == 0:
            if args.report:
                _write_page(folder, args.data_dir, console, quick=True)
            flags = ["--report"] * args.report + ([f"--track={args.track}"] if args.track else [])
            resume = register.command_line("train", f"--workdir={folder}", *flags, data_dir=args.data_dir)
            console.print_line(f"{interruption}. To resume:\n  {resume}")
        return 128 + interruption.signal
    if jax.process_index() == 0:
        if args.report:
            _write_page(folder, args.data_dir, console, quick=jax.process_count() > 1)
        _print_result(console, result.metrics, folder, args.data_dir)
    return 0


@contextlib.contextmanager
def _receiver(
    args: argparse.Namespace, folder: pathlib.Path, config: "Config", console: "Console"
) -> "Iterator[Callable[[Metrics], None]]":
    """Context manager that gives a function to pass each line of metrics on to --report and --track."""
    log = console.print_line
    receivers: list[Callable[[Metrics], None]] = []
    with contextlib.ExitStack() as stack:
        if args.report:
            from cnnjax.pages.run import live_updates

            update = live_updates(folder, log)
            receivers.append(lambda metrics: update())
        if args.track:
            from cnnjax.runs.tracking import track

            receivers.append(stack.enter_context(track(args.track, folder, config, log)))

        def receive(metrics: "Metrics") -> None:
            for receiver in receivers:
                receiver(metrics)

        yield receive


def _write_page(folder: pathlib.Path, data_dir: str, console: "Console", quick: bool) -> None:
    """Writes the page of the run after training. `quick` skips the pictures and the evaluation.

    These need all processes of a distributed program, and take time when the run should exit.
    """
    from cnnjax.pages import run as pages

    log = console.print_line
    if quick:
        pages.write_quick(folder, log)
    else:
        pages.report(folder, data_dir=data_dir, log=log)
    log(f"the page is {folder / pages.FILE}")


def _print_result(console: "Console", result: dict[str, Any], folder: pathlib.Path, data_dir: str) -> None:
    """Prints the final metrics, the duration, the run's folder, and the command that evaluates it.

    `result` is the content of result.json; `data_dir` is the folder of data sets, '' for the default one.
    """
    from rich.table import Table

    from cnnjax.metrics import METRICS
    from cnnjax.runs.duration import format_duration

    rows = {}
    if "split" in result:
        rows = {"split": result["split"]}
        rows |= {row.heading: row.format(result[name]) for name, row in METRICS.items()}
    rows |= {"training time": format_duration(result["seconds"]), "folder": str(folder)}
    rows |= {"evaluate": register.command_line("evaluate", str(folder), data_dir=data_dir)}
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for row in rows.items():
        table.add_row(*row)
    console.print(table)
