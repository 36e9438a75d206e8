"""A sweep's report: the leaderboard as rows and a CSV file, and plots."""

import contextlib
import csv
import pathlib
import statistics
import warnings
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.metrics import METRICS
from cnnjax.sweep.search import Settings, final_values, run_folders
from cnnjax.sweep.space import with_settings

STATES = {TrialState.FAIL: "failed"}
MAX_LEGEND = 12  # trials; with more curves a plot has no legend
PLOTS = {  # file -> function of optuna.visualization.matplotlib
    "history.png": "plot_optimization_history",
    "importance.png": "plot_param_importances",
    "parallel.png": "plot_parallel_coordinate",
    "curves.png": "plot_intermediate_values",
}


def ranked(study: optuna.Study, settings: Settings) -> list[FrozenTrial]:
    """Returns all trials: first the complete ones, then the pruned, running, waiting and failed ones.

    Within each state, those with the best last value come first.
    """
    sign = -METRICS[settings.metric].sign
    order = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING, TrialState.FAIL]

    def rank(trial: FrozenTrial) -> tuple:
        last = trial.value if trial.value is not None else (list(trial.intermediate_values.values()) or [0.0])[-1]
        return order.index(trial.state), sign * last, trial.number

    return sorted(study.get_trials(deepcopy=False), key=rank)


def rows(folder: pathlib.Path, study: optuna.Study, settings: Settings) -> list[dict[str, Any]]:
    """Returns the leaderboard: a dict for each trial, in the order of `ranked`.

    Its keys are 'place' (from 1), 'trial' (number), 'state', the metric's name, 'sd' (over the seeds, if there are
    several), every setting of the space, 'evaluations' (number), 'seconds', 'folder' (of the first run) and 'failure'
    (reason, or ''). A value that is not known (yet) is None.
    """
    table = []
    for place, trial in enumerate(ranked(study, settings), 1):
        # Read the runs' files only if there is a standard deviation: this is called every second.
        has_sd = settings.seeds > 1 and trial.state == TrialState.COMPLETE
        values = final_values(folder, settings, trial.number) if has_sd else []
        seconds = trial.duration.total_seconds() if trial.duration else None
        row = {
            "place": place,
            "trial": trial.number,
            "state": STATES.get(trial.state, trial.state.name.lower()),
            settings.metric: trial.value,
            **({"sd": statistics.stdev(values) if len(values) > 1 else None} if settings.seeds > 1 else {}),
            **{name: trial.params.get(name) for name in settings.space},
            "evaluations": len(trial.intermediate_values),
            "seconds": seconds and round(seconds, 1),
            "folder": str(run_folders(folder, settings, trial.number)[0]),
            "failure": trial.user_attrs.get("failure", ""),
        }
        table.append(row)
    return table


def over_folds(table: list[dict[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    """Averages the metric over the folds of cross-validation, for each combination of the other settings.

    `table` is the result of `rows`; only complete trials count. Returns dicts of these settings, the metric's mean,
    'sd' (None for one fold) and 'folds' (number), best first; [] unless 'fold' is in the space.
    """
    others = [name for name in settings.space if name != "fold"]
    groups: dict[tuple, list[float]] = {}
    for row in table if "fold" in settings.space else []:
        if row["state"] == "complete":
            groups.setdefault(tuple(row[name] for name in others), []).append(row[settings.metric])
    means = [
        dict(zip(others, choice, strict=True))
        | {settings.metric: statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else None}
        | {"folds": len(values)}
        for choice, values in groups.items()
    ]
    return sorted(means, key=lambda row: row[settings.metric], reverse=METRICS[settings.metric].higher_is_better)


def best(folder: pathlib.Path, study: optuna.Study, settings: Settings) -> Config:
    """Returns the config of the best complete trial. Raises InputError if there is none."""
    trials = ranked(study, settings)[:1]
    if not trials or trials[0].state != TrialState.COMPLETE:
        raise InputError(f"{folder} has no complete trial yet")
    return with_settings(Config(**settings.config), trials[0].params)


def write(folder: pathlib.Path, study: optuna.Study, settings: Settings) -> list[str]:
    """Writes leaderboard.csv, and the plots in `PLOTS` for which there are enough trials, into `folder`.

    Returns the file names.
    """
    table = rows(folder, study, settings)
    with (folder / "leaderboard.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]) if table else [])
        writer.writeheader()
        writer.writerows(table)
    return [
        "leaderboard.csv",
        *(name for name, plot in PLOTS.items() if _draw(study, settings, plot, folder / name)),
    ]


def _draw(study: optuna.Study, settings: Settings, plot: str, path: pathlib.Path) -> bool:
    """Draws the function `plot` of optuna.visualization.matplotlib into a PNG file.

    Returns False, without a file, if there are too few trials.
    """
    if plot == "plot_intermediate_values" and not any(trial.intermediate_values for trial in study.trials):
        return False  # Optuna would draw an empty plot
    import matplotlib

    matplotlib.use("agg")
    import optuna.visualization.matplotlib as plots
    from matplotlib import pyplot

    options = {} if plot == "plot_intermediate_values" else {"target_name": f"validation {settings.metric}"}
    with warnings.catch_warnings(action="ignore"), contextlib.suppress(ValueError, RuntimeError):  # too few trials
        axes: Any = getattr(plots, plot)(study, **options)
        axes.figure.set_size_inches(9, 5)
        axes.set_title("")
        axes.grid(plot != "plot_parallel_coordinate")  # there it would cover the lines
        if plot == "plot_intermediate_values":
            axes.set(xlabel="evaluation", ylabel=f"validation {settings.metric}")
            axes.legend_.set_visible(len(study.trials) <= MAX_LEGEND)
        axes.figure.savefig(path, dpi=120, bbox_inches="tight")
        pyplot.close(axes.figure)
        return True
    return False
