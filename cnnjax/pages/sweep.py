"""The page of a sweep: the best trial, the leaderboard, which settings matter, and every trial as a line."""

import collections
import dataclasses
import datetime
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from cnnjax import __version__, tables
from cnnjax.config import Config
from cnnjax.metrics import METRICS
from cnnjax.pages import page
from cnnjax.pages.charts import Chart, Line
from cnnjax.pages.page import Bar
from cnnjax.pages.parallel import Axis, ParallelLines
from cnnjax.register import command_line
from cnnjax.runs import workdir
from cnnjax.runs.duration import format_duration
from cnnjax.sweep import figures, record
from cnnjax.sweep import report as leaderboard
from cnnjax.sweep.record import Sweep
from cnnjax.sweep.settings import Settings, read

FILE, TEMPLATE = "report.html", "sweep.html"
MAX_CURVES = 14  # trials whose learning curves are drawn, the best ones


@dataclasses.dataclass(frozen=True)
class SweepPage:
    """Holds what the page of a sweep shows.

    Attributes:
      folder: the sweep's folder.
      metric: name of what is optimized: 'validation accuracy'.
      best: the value of the best complete trial; '' without one.
      best_settings: setting -> its value in the best trial, or, over folds, in the best mean.
      best_run: name of the page of the best trial's run relative to this page; '' without one.
      counts: 'complete' and other states -> the number of trials.
      leaderboard: table of all trials, the best first.
      over_folds: table of the means over the folds of a cross-validation; None otherwise.
      importance: the share of the variance that each setting explains, the largest first; () for too few trials.
      parallel: all complete trials as lines; None for fewer than two.
      charts: the values in the order of the trials, and learning curves.
      failures: a sentence for each trial that failed.
      search: table of the settings that are searched, and of the search's own.
      commands: purpose and shell command.
      version: of cnnjax.
      written: date and time.
    """

    folder: str
    metric: str
    best: str
    best_settings: tuple[tuple[str, str], ...]
    best_run: str
    counts: tuple[tuple[str, int], ...]
    leaderboard: tables.Table
    over_folds: tables.Table | None
    importance: tuple[Bar, ...]
    parallel: ParallelLines | None
    charts: tuple[Chart, ...]
    failures: tuple[str, ...]
    search: tables.Table
    commands: tuple[tuple[str, str], ...]
    version: str
    written: str

    @property
    def title(self) -> str:
        """Returns the title, which has the name of the folder."""
        return f"Sweep: {pathlib.Path(self.folder).resolve().name}"

    def sections(self) -> Iterator[tuple[str, str]]:
        """Yields the id and name of each section."""
        yield "result", "Result"
        yield "trials", "Trials"
        if self.importance or self.parallel:
            yield "matters", "What matters"
        if self.charts:
            yield "curves", "Progress"
        yield "search", "The search"


def report(
    folder: pathlib.Path | str, to: pathlib.Path | str = "", *, log: Callable[[str], None] = print
) -> pathlib.Path:
    """Writes the page of a sweep, finished or not, and returns the path of the file.

    `to` is the file, whose name ends in .html; '' for report.html in the folder. Raises InputError for a folder that is
    not a sweep's or is damaged, and for a name that cannot be written.
    """
    folder = pathlib.Path(folder)
    path = pathlib.Path(to or folder / FILE)
    page.check_path(path)
    sweep = record.open_sweep(folder, read(folder), log)
    page.write(path, page.render(TEMPLATE, page=sweep_page(sweep, path)))
    return path


def sweep_page(sweep: Sweep, path: pathlib.Path) -> SweepPage:
    """Gathers what the page of a sweep shows. `path` is where it will be, for the link to the best run's page."""
    rows, study, metric = leaderboard.rows(sweep), leaderboard.counted(sweep), METRICS[sweep.settings.metric]
    trials, space = figures.complete(study), sweep.settings.space
    best = next((row for row in rows if row["state"] == "complete"), None)
    folds = leaderboard.over_folds(rows, sweep.settings)
    needed = len(sweep.space["fold"].choices) if folds else 0  # type: ignore[attr-defined]
    winner = next((row for row in folds if row["folds"] >= needed), None) if folds else best  # as `leaderboard.best`
    return SweepPage(
        folder=str(sweep.folder),
        metric=leaderboard.metric_name(sweep),
        best=metric.format(winner[sweep.settings.metric]) if winner else "",
        best_settings=tuple((name, _shown(winner[name])) for name in space if winner and name in winner),
        best_run=_run_page(pathlib.Path(best["folder"]), path) if best else "",
        counts=tuple(collections.Counter(row["state"] for row in rows).items()),
        leaderboard=_leaderboard(rows, sweep.settings),
        over_folds=_folds(folds, needed, sweep.settings) if folds else None,
        importance=tuple(Bar(name, f"{share:.0%}", share) for name, share in figures.importances(study).items()),
        parallel=_parallel(trials, leaderboard.metric_name(sweep), metric),
        charts=tuple(_charts(study, trials, sweep)),
        failures=tuple(f"trial {row['trial']}: {row['failure'].splitlines()[0]}" for row in rows if row["failure"]),
        search=_search(sweep.settings),
        commands=tuple(_commands(sweep, best, has_winner=winner is not None)),
        version=__version__,
        written=f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
    )


def _commands(sweep: Sweep, best: dict[str, Any] | None, has_winner: bool) -> Iterator[tuple[str, str]]:
    """Yields the purpose of each command and its line. `best` is the row of the best complete trial."""
    folder = str(sweep.folder)  # its sweep.json has the folder of data sets
    if best:
        page_of_best = command_line("report", best["folder"], data_dir=sweep.settings.data_dir)
        yield "Write the page of the best run", page_of_best
    if has_winner:
        yield "Print the command that trains the winner", command_line("sweep", "best", folder)
    yield "Resume the search", command_line("sweep", f"--workdir={folder}")


def _run_page(folder: pathlib.Path, to: pathlib.Path) -> str:
    """Returns the path of a run's page relative to the folder of this page; '' if there is none."""
    own = folder / "report.html"
    return os.path.relpath(own.resolve(), to.resolve().parent) if own.exists() else ""


def _shown(value: Any) -> str:
    """Formats the value of a setting: numbers with four digits, '' as '-'."""
    if value is None or value == "":
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _leaderboard(rows: list[dict[str, Any]], settings: Settings) -> tables.Table:
    """Builds the table of all trials, the best first."""
    metric = METRICS[settings.metric]
    headings = ["trial", "state", metric.heading, *settings.space, "evaluations", "time"]
    cells = []
    for row in rows:
        spread = f" ± {metric.format(row['sd'])}" if row.get("sd") is not None else ""
        value = metric.format(row[settings.metric]) + spread
        time = format_duration(row["seconds"]) if row["seconds"] else "-"
        shown = (row["state"], value, *(_shown(row[name]) for name in settings.space))
        cells.append([str(row["trial"]), *shown, str(row["evaluations"]), time])
    return tables.Table(headings, cells, frozenset(("trial", "state")))


def _folds(means: list[dict[str, Any]], needed: int, settings: Settings) -> tables.Table:
    """Builds the table of the means over folds, the best first; settings with fewer than `needed` come last."""
    means = sorted(means, key=lambda row: row["folds"] < needed)
    metric, others = METRICS[settings.metric], [name for name in settings.space if name != "fold"]
    rows = [
        [
            str(place) if row["folds"] >= needed else "-", *(_shown(row[name]) for name in others),
            metric.format(row[settings.metric]), metric.format(row["sd"]), f"{row['folds']} of {needed}",
        ]
        for place, row in enumerate(means, 1)
    ]  # fmt: skip
    return tables.Table(("place", *others, f"mean {metric.heading}", "standard deviation", "folds"), rows)


def _parallel(trials: list[Any], metric: str, row: Any) -> ParallelLines | None:
    """Returns the complete trials as lines, the best first; None for fewer than two."""
    trials = [trial for trial in trials if trial.params]
    if len(trials) < 2:
        return None
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    axes = []
    for name in names:
        values = [trial.params.get(name) for trial in trials]
        axes.append(_axis(name, values, figures.distribution_of(trials, name)))
    values = [float(trial.value) for trial in trials]
    axis, low, high = _axis(metric, values, None), min(values), max(values)
    axes.append(Axis(metric, axis.places, [(place, row.format(low + place * (high - low))) for place, _ in axis.ticks]))
    titles = [
        f"trial {trial.number}: {row.format(trial.value)} "
        f"({', '.join(f'{name} {_shown(value)}' for name, value in trial.params.items())})"
        for trial in trials
    ]
    summary = f"{len(trials)} trials as lines through {', '.join(names)} and {metric}. The best: {titles[0]}."
    return ParallelLines(tuple(axes), tuple(titles), summary)


def _axis(name: str, values: list[Any], distribution: Any) -> Axis:
    """Returns the axis of a setting that has these values in the trials."""
    places, ticks = figures.coordinate(values, distribution)
    return Axis(name, places.tolist(), ticks)


def _charts(study: Any, trials: list[Any], sweep: Sweep) -> Iterator[Chart]:
    """Yields the values in the order of the trials with the best so far, and the learning curves of the best trials."""
    row, name = METRICS[sweep.settings.metric], leaderboard.metric_name(sweep)
    form = "percent" if row.format_spec.endswith("%") else "number"
    if len(trials) > 1:
        in_order = sorted(trials, key=lambda trial: trial.number)
        numbers, values = [trial.number for trial in in_order], [float(trial.value) for trial in in_order]
        better = max if row.higher_is_better else min
        so_far = [better(values[: i + 1]) for i in range(len(values))]
        lines = (Line("of the trial", numbers, values), Line("best so far", numbers, so_far))
        yield Chart("In the order of the trials", "trial", name, lines, y_format=form)
    everyone = [*trials, *(t for t in study.get_trials(deepcopy=False) if t.number not in {x.number for x in trials})]
    curves = [trial for trial in everyone if len(trial.intermediate_values) > 1]
    lines = []
    for trial in curves[:MAX_CURVES]:
        steps = sorted(trial.intermediate_values)
        lines.append(Line(f"trial {trial.number}", steps, [trial.intermediate_values[step] for step in steps]))
    if lines:
        note = f"the best {len(lines)} of {len(curves)} trials" if len(curves) > len(lines) else ""
        yield Chart("During the training", "evaluation", name, tuple(lines), y_format=form, note=note)


def _search(settings: Settings) -> tables.Table:
    """Builds the table of what is searched, how, and from which config the trials start."""
    config = workdir.comparable(Config(**settings.config))
    space = [
        [name, ", ".join(map(_shown, values)) if isinstance(values, list) else str(values)]
        for name, values in settings.space.items()
    ]
    others = [
        ["network", config["model"]],
        ["data set", config["dataset"]],
        ["duration", config["duration"]],
        ["trials", f"{settings.trials:,}"],
        ["seeds of each trial", str(settings.seeds)],
        ["sampler", settings.sampler],
        ["pruner", settings.pruner],
    ]
    return tables.Table(("setting", "searched, or fixed"), space + others, frozenset(("setting", "searched, or fixed")))
