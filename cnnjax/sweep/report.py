"""A sweep's report: the leaderboard as rows and a CSV file, and plots."""

import copy
import csv
import io
import statistics
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from cnnjax import style
from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.metrics import METRICS
from cnnjax.runs import workdir
from cnnjax.sweep import figures
from cnnjax.sweep.record import Sweep, final_values, run_folders
from cnnjax.sweep.settings import Settings
from cnnjax.sweep.space import with_settings

STATES = {TrialState.FAIL: "failed"}


def ranked(sweep: Sweep) -> list[FrozenTrial]:
    """Returns all trials: first the complete ones, then the pruned, running, waiting and failed ones.

    Within each state, those with the best last value come first. A trial whose result does not count has failed.
    """
    sign = -METRICS[sweep.settings.metric].sign
    order = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING, TrialState.FAIL]

    def rank(trial: FrozenTrial) -> tuple:
        last = trial.value if trial.value is not None else (list(trial.intermediate_values.values()) or [0.0])[-1]
        return order.index(trial.state), sign * last, trial.number

    return sorted((_as_counted(sweep, trial) for trial in sweep.study.get_trials(deepcopy=False)), key=rank)


def _as_counted(sweep: Sweep, trial: FrozenTrial) -> FrozenTrial:
    """Returns the trial itself, or a failed one in its place if its result does not count."""
    if trial.number not in sweep.rejected:
        return trial
    trial = copy.deepcopy(trial)
    trial.values, trial.state = None, TrialState.FAIL
    trial.set_user_attr("failure", sweep.rejected[trial.number])
    return trial


def rows(sweep: Sweep) -> list[dict[str, Any]]:
    """Returns the leaderboard: a dict for each trial, in the order of `ranked`.

    Its keys are 'place' (from 1), 'trial' (number), 'state', the metric's name, 'sd' (over the seeds, if there are
    several), every setting of the space, 'evaluations' (number), 'seconds', 'folder' (of the first run) and 'failure'
    (reason, or ''). A value that is not known (yet) is None.
    """
    table, settings = [], sweep.settings
    for place, trial in enumerate(ranked(sweep), 1):
        # Read the runs' files only if there is a standard deviation: this is called every second.
        has_sd = settings.seeds > 1 and trial.state == TrialState.COMPLETE
        values = final_values(sweep, trial.number) if has_sd else []
        seconds = trial.duration.total_seconds() if trial.duration else None
        if seconds and seconds < 0:  # the clock was set back meanwhile
            seconds = None
        row = {
            "place": place,
            "trial": trial.number,
            "state": STATES.get(trial.state, trial.state.name.lower()),
            settings.metric: trial.value,
            **({"sd": statistics.stdev(values) if len(values) > 1 else None} if settings.seeds > 1 else {}),
            **{name: trial.params.get(name) for name in settings.space},
            "evaluations": len(trial.intermediate_values),
            "seconds": seconds and round(seconds, 1),
            "folder": str(run_folders(sweep.folder, settings, trial.number)[0]),
            "failure": trial.user_attrs.get("failure", ""),
        }
        table.append(row)
    return table


def over_folds(table: list[dict[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    """Averages the metric over the folds of cross-validation, for each combination of the other settings.

    `table` is the result of `rows`; only complete trials count, and several of one fold by their mean. Returns dicts of
    these settings, the metric's mean, 'sd' (None for one fold) and 'folds' (number of different ones); [] unless 'fold'
    is in the space. Those with most folds come first, and of these the best.
    """
    others = [name for name in settings.space if name != "fold"]
    groups: dict[tuple, dict[str, list[float]]] = {}
    for row in table if "fold" in settings.space else []:
        if row["state"] == "complete":
            by_fold = groups.setdefault(tuple(row[name] for name in others), {})
            by_fold.setdefault(row["fold"], []).append(row[settings.metric])
    means = []
    for choice, by_fold in groups.items():
        values = [statistics.fmean(of_fold) for of_fold in by_fold.values()]
        mean = {settings.metric: statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else None}
        means.append(dict(zip(others, choice, strict=True)) | mean | {"folds": len(values)})
    sign = -METRICS[settings.metric].sign
    return sorted(means, key=lambda row: (-row["folds"], sign * row[settings.metric]))


def best(sweep: Sweep) -> Config:
    """Returns the config of the best complete trial; with cross-validation, that of the best mean over all folds.

    In the latter, config.fold is '': the winner is trained on all of the training split. Raises InputError if there is
    none yet.
    """
    settings, config = sweep.settings, Config(**sweep.settings.config)
    if "fold" in settings.space:
        folds = len(sweep.space["fold"].choices)  # type: ignore[attr-defined]
        means = [row for row in over_folds(rows(sweep), settings) if row["folds"] >= folds]
        if not means:
            raise InputError(f"{sweep.folder} has no settings yet with a complete trial for each of the {folds} folds")
        return with_settings(config, {name: means[0][name] for name in settings.space if name != "fold"})
    trials = ranked(sweep)[:1]
    if not trials or trials[0].state != TrialState.COMPLETE:
        raise InputError(f"{sweep.folder} has no complete trial yet")
    return with_settings(config, trials[0].params)


def counted(sweep: Sweep) -> optuna.Study:
    """Returns Optuna's study of the sweep without the trials whose results do not count."""
    if not sweep.rejected:
        return sweep.study
    study = optuna.create_study(direction=sweep.study.direction)
    study.add_trials([trial for trial in ranked(sweep) if trial.number not in sweep.rejected])
    return study


def metric_name(sweep: Sweep) -> str:
    """Returns the name of the values of the trials: 'validation accuracy'."""
    return f"validation {METRICS[sweep.settings.metric].heading}"


def write(sweep: Sweep) -> list[str]:
    """Writes leaderboard.csv, and the figures for which there are enough trials, into the sweep's folder.

    Returns the file names.
    """
    table, text = rows(sweep), io.StringIO()
    writer = csv.DictWriter(text, list(table[0]) if table else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    workdir.write_atomically(sweep.folder / "leaderboard.csv", text.getvalue().encode(errors="surrogateescape"))
    drawn = figures.draw(counted(sweep), metric_name(sweep))
    files = [style.save(figure, sweep.folder / name) for name, figure in drawn.items()]
    return ["leaderboard.csv", *(path.name for pair in files for path in pair)]
