"""`cnnjax sweep`: starts or resumes a hyperparameter search, shows its leaderboard and its winner."""

import argparse
import collections
import dataclasses
import pathlib
import sys
import time
from typing import TYPE_CHECKING, Any

from cnnjax import config_files, paths, register
from cnnjax.cli import shared
from cnnjax.config import ALIASES, FIELDS, Config
from cnnjax.errors import InputError, nearest, visible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cnnjax.console import Console
    from cnnjax.runs.supervise import Run
    from cnnjax.sweep.record import Sweep
    from cnnjax.sweep.settings import Settings

ACTIONS = ("run", "show", "best")
MAX_ROWS = 10  # of the leaderboard, in the terminal
SETTINGS = ("trials", "seeds", "sampler", "pruner", "metric", "storage", "data_dir")  # flags stored in sweep.json


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax sweep` to its parser."""
    parser.usage = (
        "cnnjax sweep NAME[:arg] [--space.FIELD=VALUES ...] [--config.FIELD=VALUE ...] [--trials=N] ...\n"
        "       cnnjax sweep show DIR    the leaderboard\n"
        "       cnnjax sweep best DIR    the command that trains the winner"
    )
    parser.epilog = (
        "VALUES: a list, [16, 32], or a range: log(1e-3, 1), uniform(0, 0.5), integer(1, 8). FIELD may be an argument "
        'in a call string: model.dropout. Cross-validation: --space.fold=\'["1/3", "2/3", "3/3"]\' --sampler=grid. '
        "To resume a sweep, pass --workdir=DIR alone, or with more --trials. To watch one: `optuna-dashboard "
        "DIR/journal.log` (pip install optuna-dashboard) has its trials, `tensorboard --logdir=DIR/trials` curves."
    )
    parser.accepts_overrides = True
    parser.add_argument("action", nargs="?", default="run", metavar="show|best", help="default: run the sweep")
    shared.add_config_flag(parser, "config file; its sweep() may return the space")
    parser.add_argument("--workdir", metavar="DIR", default="", help="sweep folder (default: a new one under sweeps/)")
    parser.add_argument(
        "--trials", type=int, metavar="N", help="number of trials (default: 20; for a grid, all combinations)"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="runs per trial, whose metric is averaged (default: 1)")
    parser.add_argument("--sampler", help="tpe, random, grid, cmaes or halton (default: tpe)")
    parser.add_argument("--pruner", help="stops unpromising trials early: none, median or hyperband (default: none)")
    parser.add_argument("--metric", help="validation metric to optimize: accuracy, top5, loss, ... (default: accuracy)")
    shared.add_executor_flags(parser)
    parser.add_argument("--storage", help="URL of a database for the trials (default: a journal in the folder)")
    parser.add_argument("--data_dir", metavar="DIR", help="folder of the data sets (default: TFDS's own)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    """Runs `cnnjax sweep`, `cnnjax sweep show` or `cnnjax sweep best`. Returns the exit status.

    `rest` are the --config.FIELD=VALUE and --space.FIELD=VALUES arguments.
    """
    action = args.action
    if action not in ACTIONS:
        hint = nearest(action, ["show", "best"])
        misspelled = hint.startswith("did you mean") and not config_files.is_config(action)
        if (pathlib.Path(action) / "sweep.json").exists():
            raise shared.UsageError(f"{action} is a sweep, not a config: resume it with --workdir={action}")
        if args.config is not None or misspelled:
            raise InputError(f"cnnjax sweep {action!r}: {hint}; or the name of a config, or --config=FILE, to run one")
        args.config, action = action, "run"  # a wrong name is an error below
    values = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    if action != "run":
        _take_folder(args, rest, action)
    elif args.config:
        values = _read_settings(args.config, rest, values, args.flag_names)
    elif not (args.workdir and (pathlib.Path(args.workdir) / "sweep.json").exists()):
        overrides = [word for word in rest if not word.startswith("--space.")]
        if unknown := config_files.unknown_flag(overrides, args.flag_names):
            raise unknown
        raise shared.UsageError(
            "--config=FILE is missing" + (f", and {args.workdir} is not a sweep's folder" if args.workdir else "")
        )

    # Import Optuna and JAX only now, after the cheap checks. This process computes nothing, so it needs no GPU.
    import jax

    jax.config.update("jax_platforms", "cpu")
    from cnnjax.runs import workdir
    from cnnjax.sweep import record, report
    from cnnjax.sweep.settings import Settings, read

    if "space" not in values:  # the sweep is resumed, or shown
        if rest:
            raise InputError(f"{rest[0]!r}: {args.workdir} has a space and a config already; pass --config as well")
        values = dataclasses.asdict(read(pathlib.Path(args.workdir))) | values
    settings = Settings(**values)
    if not args.workdir:
        with workdir.new_folder(pathlib.Path(paths.split_argument(settings.source)[0]).stem, "sweeps") as folder:
            return _run(args, folder, settings)
    folder = pathlib.Path(args.workdir)
    if action == "run":
        return _run(args, folder, settings)
    sweep = record.open_sweep(folder, settings, log=lambda line: print(visible(line), file=sys.stderr))
    if action == "show":
        _show(shared.make_console(), report.rows(sweep), settings)
        return 0
    overrides = _overrides(settings.source, report.best(sweep))
    print(register.command_line("train", f"--config={settings.source}", *overrides, data_dir=settings.data_dir))
    return 0


def _take_folder(args: argparse.Namespace, rest: list[str], action: str) -> None:
    """Moves the sweep's folder from `rest`, the words that the parser does not know, to --workdir.

    Raises UsageError if there is none, and for any other word or --config: `action`, 'show' or 'best', takes the folder
    alone.
    """
    if rest and not args.workdir and not rest[0].startswith("-"):
        args.workdir = rest.pop(0)
    if others := [*rest, *([f"--config={args.config}"] if args.config else [])]:
        raise shared.UsageError(f"unexpected argument {others[0]!r}: sweep {action} takes a sweep's folder alone")
    if not args.workdir:
        raise shared.UsageError(f"the sweep's folder is missing, as in cnnjax sweep {action} DIR")


def _run(args: argparse.Namespace, folder: pathlib.Path, settings: "Settings") -> int:
    """Runs or resumes the search in `folder`, writes its report and prints the leaderboard. Returns the exit status."""
    from cnnjax.runs.signals import Interrupted
    from cnnjax.sweep import record, report
    from cnnjax.sweep.settings import check_settings, grid_size

    console = shared.make_console()
    combinations = grid_size(settings, check_settings(settings))
    if combinations and args.config and args.trials is None:
        settings.trials = combinations
    start = shared.build_executor(args)
    count = f"{settings.trials} trials"
    if combinations:
        count = f"{min(settings.trials, combinations)} of {combinations} combinations"
    console.print_line(f"{count} of {', '.join(settings.space)}, {args.workers} in parallel, in {folder}")
    try:
        sweep = _search(console, folder, settings, start, args.workers, 60 * args.stall_timeout)
    except Interrupted as interrupted:
        command = register.command_line("sweep", f"--workdir={folder}", *shared.executor_flags(args))
        console.print_line(f"{interrupted}; to resume:\n  {command}")
        return 128 + interrupted.signal
    written, rows = report.write(sweep), report.rows(sweep)
    _show(console, rows, settings)
    if all(row["state"] == "failed" for row in rows):
        raise InputError(_all_failed(folder, rows))
    console.print_line(f"wrote {', '.join(written)} to {folder}")
    command = register.command_line("sweep", "best", str(folder))
    console.print_line(f"to train the winner: {command}")
    if not settings.storage:
        console.print_line(f"to browse the trials: optuna-dashboard {folder / record.JOURNAL}")
    return 0


def _all_failed(folder: pathlib.Path, rows: list[dict[str, Any]]) -> str:
    """Returns the error for a sweep whose trials, with these `rows` of the report, have all failed."""
    from cnnjax.runs.supervise import OUTPUT, summarize

    first = min(rows, key=lambda row: row["trial"])
    output = pathlib.Path(first["folder"]) / OUTPUT
    where = f" (output: {output})" if output.exists() else ""
    return f"all trials failed; trial {first['trial']}: {summarize(first['failure'])}{where}"


def _show(console: "Console", rows: list[dict[str, Any]], settings: "Settings") -> None:
    """Prints the leaderboard and, for a sweep over folds, the best settings by their mean over the folds."""
    from cnnjax.sweep import report

    console.print_line(_leaderboard(rows, settings, console.width))
    for row in report.over_folds(rows, settings)[:MAX_ROWS]:
        console.print_line(_cross_validated(row, settings))


def _read_settings(location: str, rest: list[str], flags: dict[str, Any], flag_names: list[str]) -> dict[str, Any]:
    """Returns the fields of a sweep's `Settings`, to be passed as keyword arguments.

    `location` is that of the config file, FILE[:arg]; `rest` are the --config.FIELD=VALUE and --space.FIELD=VALUES
    arguments; `flags` are other fields, from the command's flags; `flag_names` are all its flags, for an error.
    """
    spaces = [word for word in rest if word.startswith("--space.")]
    overrides = [word for word in rest if not word.startswith("--space.")]
    config = config_files.read_config(location, overrides, [*flag_names, "space.FIELD"])
    space = config_files.read_space(location)
    for word in spaces:
        name, equals, values = word.removeprefix("--space.").partition("=")
        if not equals:
            raise InputError(f"{word!r}: expected --space.FIELD=VALUES, as in --space.lr='log(1e-3, 1)'")
        field = name.partition(".")[0]
        if field not in FIELDS and field not in ALIASES:
            raise InputError(f"{word!r}: config has no field {name!r}; {nearest(field, FIELDS)}")
        space[name] = values
    if "fold" in space and config.val_split and not any(word.startswith("--config.val_split=") for word in overrides):
        shared.make_console().print_line(
            f"cross-validation: each fold is cut from {config.train_split!r}, and config.val_split = "
            f"{config.val_split!r} is not used",
        )
        config.val_split = ""
    return {"config": dataclasses.asdict(config), "source": location, "space": space, **flags}


def _overrides(source: str, config: Config) -> list[str]:
    """Returns the --config.FIELD=VALUE flags that turn the config of the file `source` into `config`."""
    old, new = dataclasses.asdict(config_files.read_config(source)), dataclasses.asdict(config)
    return [f"--config.{name}={value}" for name, value in new.items() if value != old[name]]


def _search(
    console: "Console", folder: pathlib.Path, settings: "Settings", start: Any, workers: int, stall_timeout: float
) -> "Sweep":
    """Runs the search and returns the sweep.

    Prints a line for each trial that ends, and a live leaderboard if stdout is a terminal.
    """
    from rich.live import Live

    from cnnjax.sweep import report, search

    printed: set[int] = set()
    with Live(console=console, auto_refresh=False, transient=True) as live:
        state: dict[str, Any] = {"next": 0.0}

        def show(sweep: "Sweep", active: "list[Run]") -> None:
            if time.monotonic() < state["next"] and active:
                return
            state["next"] = time.monotonic() + 1.0
            rows = report.rows(sweep)
            for row in sorted(rows, key=lambda row: row["trial"]):
                if row["state"] in ("complete", "pruned", "failed") and row["trial"] not in printed:
                    printed.add(row["trial"])
                    console.print_line(_line(row, settings))
            if console.is_terminal:
                live.update(_progress(rows, active, settings, console.width), refresh=True)

        sweep = search.sweep(
            folder, settings, start, workers=workers, stall_timeout=stall_timeout, show=show, log=console.print_line
        )
        show(sweep, [])
    return sweep


def _line(row: dict[str, Any], settings: "Settings") -> str:
    """Formats a trial that ended, a row of `report.rows`, as in 'trial 3: accuracy 98.20% (lr = 0.05)'."""
    params = ", ".join(f"{name} = {_short(row[name])}" for name in settings.space)
    outcome = row["state"]
    if outcome == "complete":
        outcome = f"{settings.metric} {_with_spread(row, settings)}"
    elif outcome == "pruned":
        outcome = f"pruned after {row['evaluations']} evaluations"
    elif outcome == "failed":
        outcome = "failed: " + row["failure"].replace("\n", "\n    ")
    return f"trial {row['trial']}: {outcome} ({params})"


def _cross_validated(row: dict[str, Any], settings: "Settings") -> str:
    """Formats a row of `report.over_folds`: the metric's mean over the folds, and the settings."""
    params = ", ".join(f"{name} = {_short(row[name])}" for name in settings.space if name != "fold")
    outcome = f"{settings.metric} {_with_spread(row, settings)}, the mean over {row['folds']} folds"
    return f"{outcome} ({params})" if params else outcome


def _with_spread(row: dict[str, Any], settings: "Settings") -> str:
    """Formats the metric of a row, with '± standard deviation' if the row has one."""
    from cnnjax.metrics import METRICS

    metric = METRICS[settings.metric]
    return metric.format(row[settings.metric]) + (f" ± {metric.format(row['sd'])}" if row.get("sd") is not None else "")


def _short(value: Any) -> str:
    """Formats a value as text, a float with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cells(row: dict[str, Any], settings: "Settings") -> list[str]:
    """Returns the cells of a row for the leaderboard: trial, state, metric, settings, evaluations and time."""
    from cnnjax.runs.duration import format_duration

    metric = "" if row[settings.metric] is None else _with_spread(row, settings)
    params = [_short(row[name]) for name in settings.space]
    time_taken = format_duration(row["seconds"]) if row["seconds"] else ""
    return [str(row["trial"]), row["state"], metric, *params, str(row["evaluations"]), time_taken]


def _leaderboard(rows: list[dict[str, Any]], settings: "Settings", width: int) -> str:
    """Returns a table of the best trials, the first MAX_ROWS of `rows`, in `width` characters.

    Its title counts all trials by state.
    """
    from cnnjax import tables

    counts = collections.Counter(row["state"] for row in rows)
    title = f"{len(rows)} trials: " + ", ".join(f"{count} {state}" for state, count in counts.items())
    headings = ("trial", "state", settings.metric, *settings.space, "evaluations", "time")
    table = tables.Table(headings, [_cells(row, settings) for row in rows[:MAX_ROWS]], frozenset(("state",)))
    return "\n".join([title, "", *tables.as_text(table, width)])


def _progress(rows: list[dict[str, Any]], active: "list[Run]", settings: "Settings", width: int) -> "RenderableType":
    """Returns the leaderboard so far and, below it, a line for each run in progress with its last metrics."""
    from rich.console import Group

    return Group(_leaderboard(rows, settings, width), *map(shared.describe_run, active))
