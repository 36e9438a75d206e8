"""`cnnjax sweep`: a search for settings, or one that goes on; its leaderboard; its winner."""

import argparse
import collections
import dataclasses
import pathlib
import shlex
import time
from typing import TYPE_CHECKING, Any

from cnnjax import config_files
from cnnjax.cli import shared
from cnnjax.config import FIELDS, Config
from cnnjax.errors import InputError, nearest

if TYPE_CHECKING:
    import optuna
    from rich.console import Console, RenderableType
    from rich.table import Table

    from cnnjax.runs.supervise import Run
    from cnnjax.sweep.search import Settings

SHOWN = 10  # of the leaderboard, on the screen
ASKED = ("trials", "seeds", "sampler", "pruner", "metric", "storage", "data_dir")  # flags that are a sweep's settings


def add_flags(parser: shared.Parser) -> None:
    parser.usage = (
        "cnnjax sweep --config=FILE[:arg] [--space.FIELD=VALUES ...] [--config.FIELD=VALUE ...] [--trials=N] ...\n"
        "       cnnjax sweep show --workdir=DIR    the leaderboard\n"
        "       cnnjax sweep best --workdir=DIR    the command that trains the winner"
    )
    parser.epilog = (
        "VALUES: a list, [16, 32], or a range: log(1e-3, 1), uniform(0, 0.5), integer(1, 8). FIELD may be an argument "
        "in a call string: model.dropout. To go on with a sweep: --workdir=DIR alone, or with more --trials."
    )
    parser.accepts_overrides = True
    parser.add_argument("action", nargs="?", default="run", metavar="show|best", help="default: run the sweep")
    shared.add_config_flag(parser, "config file; its sweep() may return the space")
    parser.add_argument("--workdir", metavar="DIR", default="", help="sweep folder (default: a new one under sweeps/)")
    parser.add_argument("--trials", type=int, metavar="N", help="number of trials (default: 20)")
    parser.add_argument("--seeds", type=int, metavar="N", help="runs per trial, whose metric is averaged (default: 1)")
    parser.add_argument("--sampler", help="tpe, random, grid, cmaes or halton (default: tpe)")
    parser.add_argument("--pruner", help="stops unpromising trials early: none, median or hyperband (default: none)")
    parser.add_argument("--metric", help="of the validation split: accuracy, top5 or loss (default: accuracy)")
    shared.add_executor_flags(parser)
    parser.add_argument("--storage", help="URL of a database for the trials (default: a journal in the folder)")
    parser.add_argument("--data_dir", metavar="DIR", help="folder of the data sets (default: TFDS's own)")


def run(args: argparse.Namespace, rest: list[str]) -> int:
    action = args.action
    if action not in ("run", "show", "best"):
        raise InputError(f"cnnjax sweep {action!r}: {nearest(action, ['show', 'best'])}; or flags alone, to run one")
    if action != "run":
        if rest:
            raise InputError(f"unexpected argument {rest[0]!r}; cnnjax sweep {action} takes --workdir=DIR alone")
        if not args.workdir:
            raise shared.UsageError("--workdir=DIR is missing: the sweep's folder")
        if args.config:
            raise InputError(f"cnnjax sweep {action} takes --workdir=DIR alone, not --config={args.config}")
    given = {name: getattr(args, name) for name in ASKED if getattr(args, name) is not None}
    old = args.workdir and (pathlib.Path(args.workdir) / "sweep.json").exists()
    if action == "run" and args.config is None and not old:
        raise shared.UsageError(
            "--config=FILE is missing" + (f", and {args.workdir} is not a sweep's folder" if args.workdir else "")
        )
    settings = _settings(args.config, rest, given) if args.config else None

    # From here on slowly: Optuna and JAX are imported. This process computes nothing, so it leaves the GPUs alone.
    import jax

    jax.config.update("jax_platforms", "cpu")
    from cnnjax.runs import workdir
    from cnnjax.runs.signals import Interrupted
    from cnnjax.runs.supervise import OUTPUT
    from cnnjax.sweep import report, search

    console = shared.make_console()
    if settings is None:
        if rest:
            raise InputError(
                f"{rest[0]!r}: the sweep of {args.workdir} has its space and config; give --config as well"
            )
        stored = search.read(pathlib.Path(args.workdir))
        settings = dataclasses.asdict(stored) | given
    settled = search.Settings(**settings)
    folder = pathlib.Path(
        args.workdir or workdir.unique_path(pathlib.Path(settled.source.partition(":")[0]).stem, "sweeps")
    )
    if action == "run":
        search.check_settings(settled)
        start = shared.build_executor(args)
        try:
            study = _run(console, folder, settled, start, args.workers, 60 * args.stall_timeout)
        except Interrupted as stopped:
            again = f"{shared.program_name()} sweep --workdir={folder} --workers={args.workers}"
            console.print(f"{stopped}. To go on:\n  {again}", soft_wrap=True)
            return 128 + stopped.signal
        written = report.write(folder, study, settled)
    else:
        study, written = search.open_study(folder, settled), []
    if action == "best":
        config = report.best(folder, study, settled)
        changed = _overrides(settled.source, config)
        print(shared.program_name(), "train", f"--config={settled.source}", *map(_quoted, changed))
        return 0
    rows = report.rows(folder, study, settled)
    console.print(_leaderboard(rows, settled))
    for row in report.over_folds(rows, settled)[:SHOWN]:
        console.print(_cross_validated(row, settled), soft_wrap=True)
    if written and all(trial.state.name == "FAIL" for trial in study.get_trials(deepcopy=False)):
        raise InputError(f"all trials failed; what they said is in {folder}/trials/*/{OUTPUT}")
    if written:
        console.print(f"{', '.join(written)} are in {folder}", soft_wrap=True)
        console.print(f"the winner's command: {shared.program_name()} sweep best --workdir={folder}", soft_wrap=True)
        if not settled.storage:
            console.print(f"the same as web pages: optuna-dashboard {folder / search.JOURNAL}", soft_wrap=True)
    return 0


def _settings(location: str, rest: list[str], given: dict[str, Any]) -> dict[str, Any]:
    """What is asked, of the config file and the flags."""
    spaces = [word for word in rest if word.startswith("--space.")]
    overrides = [word for word in rest if not word.startswith("--space.")]
    known = ("config", "workdir", "workers", "executor", "stall_timeout", "space.FIELD", *ASKED)
    config = config_files.read_config(location, overrides, known)
    space = config_files.read_space(location)
    for word in spaces:
        name, equals, values = word.removeprefix("--space.").partition("=")
        if not equals:
            raise InputError(f"{word!r}: expected --space.FIELD=VALUES, as in --space.lr='log(1e-3, 1)'")
        if name.partition(".")[0] not in FIELDS:
            raise InputError(f"{word!r}: config has no field {name!r}; {nearest(name.partition('.')[0], FIELDS)}")
        space[name] = values
    return {"config": dataclasses.asdict(config), "source": location, "space": space, **given}


def _overrides(source: str, config: Config) -> list[str]:
    """The flags that make this config of the one in the file."""
    old, new = (dataclasses.asdict(one) for one in (config_files.read_config(source), config))
    return [f"--config.{name}={value}" for name, value in new.items() if value != old[name]]


def _quoted(word: str) -> str:
    """For a shell; in double quotes where that is easier to read."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def _run(
    console: "Console", folder: pathlib.Path, settings: "Settings", start: Any, workers: int, silence: float
) -> "optuna.Study":
    """The search, with a live table of its trials on a terminal, and a line for each that ends elsewhere."""
    from rich.live import Live

    from cnnjax.sweep import report, search

    said: set[int] = set()
    console.print(
        f"{settings.trials} trials of {', '.join(settings.space)}, {workers} at a time, in {folder}", soft_wrap=True
    )
    with Live(console=console, auto_refresh=False, transient=True) as live:
        state: dict[str, Any] = {"next": 0.0}

        def show(study: "optuna.Study", active: "list[Run]") -> None:
            if time.monotonic() < state["next"] and active:
                return
            state["next"] = time.monotonic() + 1.0
            rows = report.rows(folder, study, settings)
            for row in sorted(rows, key=lambda row: row["trial"]):
                if row["state"] in ("complete", "pruned", "failed") and row["trial"] not in said:
                    said.add(row["trial"])
                    console.print(_line(row, settings), soft_wrap=True)
            if console.is_terminal:
                live.update(_now(rows, active, settings), refresh=True)

        study = search.sweep(folder, settings, start, workers=workers, silence=silence, show=show)
        show(study, [])
    return study


def _line(row: dict[str, Any], settings: "Settings") -> str:
    params = ", ".join(f"{name} = {_short(row[name])}" for name in settings.space)
    outcome = row["state"]
    if outcome == "complete":
        outcome = f"{settings.metric} {_with_spread(row, settings)}"
    elif outcome == "pruned":
        outcome = f"pruned after {row['validations']} validations"
    elif outcome == "failed":
        outcome = "failed: " + row["failure"].replace("\n", "\n    ")
    return f"trial {row['trial']}: {outcome} ({params})"


def _cross_validated(row: dict[str, Any], settings: "Settings") -> str:
    params = ", ".join(f"{name} = {_short(row[name])}" for name in settings.space if name != "fold")
    outcome = f"{settings.metric} {_with_spread(row, settings)}, the mean over {row['folds']} folds"
    return f"{outcome} ({params})" if params else outcome


def _with_spread(row: dict[str, Any], settings: "Settings") -> str:
    from cnnjax.metrics import METRICS

    metric = METRICS[settings.metric]
    return metric.format(row[settings.metric]) + (f" ± {metric.format(row['sd'])}" if row.get("sd") is not None else "")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cells(row: dict[str, Any], settings: "Settings") -> list[str]:
    shown = "" if row[settings.metric] is None else _with_spread(row, settings)
    params = [_short(row[name]) for name in settings.space]
    return [str(row["trial"]), row["state"], shown, *params, str(row["validations"]), _short(row["seconds"] or "")]


def _table(title: str, settings: "Settings") -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in ("trial", "state", settings.metric, *settings.space, "validations", "seconds"):
        table.add_column(name, justify="left" if name == "state" else "right")
    return table


def _leaderboard(rows: list[dict[str, Any]], settings: "Settings") -> "Table":
    """The best trials, and below them how the others ended."""
    counts = collections.Counter(row["state"] for row in rows)
    title = f"{len(rows)} trials: " + ", ".join(f"{count} {state}" for state, count in counts.items())
    table = _table(title, settings)
    for row in rows[:SHOWN]:
        table.add_row(*_cells(row, settings))
    return table


def _now(rows: list[dict[str, Any]], active: "list[Run]", settings: "Settings") -> "RenderableType":
    """The leaderboard so far, and under it the runs that go on."""
    from rich.console import Group

    from cnnjax.metrics import METRICS, format_value

    lines = []
    for run in active:
        last = run.lines[-1] if run.lines else {}
        shown = [name for name in last if (row := METRICS.get(name.rpartition("/")[2])) and row.in_progress]
        values = ", ".join(f"{name} {format_value(name, last[name])}" for name in shown)
        lines.append(f"{run.folder}: epoch {last.get('epoch', 0):.1f} of {run.config.duration} {values}")
    return Group(_leaderboard(rows, settings), *lines)
