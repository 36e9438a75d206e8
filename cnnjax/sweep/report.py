"""What a sweep found: the trials from the best on, as a table, a CSV file and pictures."""

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
from cnnjax.sweep.search import Settings, run_folders, values_of
from cnnjax.sweep.space import configured

STATES = {TrialState.FAIL: "failed"}
LEGEND = 12  # trials whose curves are told apart by a legend
PICTURES = {  # each from a function of optuna.visualization.matplotlib
    "history.png": "plot_optimization_history",
    "importance.png": "plot_param_importances",
    "parallel.png": "plot_parallel_coordinate",
    "curves.png": "plot_intermediate_values",
}


def ranked(study: optuna.Study, settings: Settings) -> list[FrozenTrial]:
    """All trials: the complete ones from the best on, then the others."""
    order = [TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING, TrialState.FAIL]

    def rank(trial: FrozenTrial) -> tuple:
        last = trial.value if trial.value is not None else (list(trial.intermediate_values.values()) or [0.0])[-1]
        return order.index(trial.state), -METRICS[settings.metric].sign * last, trial.number

    return sorted(study.get_trials(deepcopy=False), key=rank)


def rows(folder: pathlib.Path, study: optuna.Study, settings: Settings) -> list[dict[str, Any]]:
    """The leaderboard, as plain values: a row for each trial."""
    found = []
    for place, trial in enumerate(ranked(study, settings), 1):
        # Only several seeds have a spread: the files of all trials are not read for nothing, each second of a sweep.
        several = settings.seeds > 1 and trial.state == TrialState.COMPLETE
        values = values_of(folder, settings, trial.number) if several else []
        took = trial.duration.total_seconds() if trial.duration else None
        row = {
            "place": place,
            "trial": trial.number,
            "state": STATES.get(trial.state, trial.state.name.lower()),
            settings.metric: trial.value,
            **({"sd": statistics.stdev(values) if len(values) > 1 else None} if settings.seeds > 1 else {}),
            **{name: trial.params.get(name) for name in settings.space},
            "validations": len(trial.intermediate_values),
            "seconds": took and round(took, 1),
            "folder": str(run_folders(folder, settings, trial.number)[0]),
            "failure": trial.user_attrs.get("failure", ""),
        }
        found.append(row)
    return found


def over_folds(table: list[dict[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    """Of cross-validation, with "fold" in the space: for each choice of the other settings, from the best on, the mean
    and the standard deviation over its complete folds, and how many of them there are.
    """
    others = [name for name in settings.space if name != "fold"]
    groups: dict[tuple, list[float]] = {}
    for row in table if "fold" in settings.space else []:
        if row["state"] == "complete":
            groups.setdefault(tuple(row[name] for name in others), []).append(row[settings.metric])
    found = [
        dict(zip(others, choice, strict=True))
        | {settings.metric: statistics.fmean(values), "sd": statistics.stdev(values) if len(values) > 1 else None}
        | {"folds": len(values)}
        for choice, values in groups.items()
    ]
    return sorted(found, key=lambda row: row[settings.metric], reverse=METRICS[settings.metric].higher_is_better)


def best(folder: pathlib.Path, study: optuna.Study, settings: Settings) -> Config:
    """The config of the best trial. Raises InputError while none is complete."""
    trials = ranked(study, settings)[:1]
    if not trials or trials[0].state != TrialState.COMPLETE:
        raise InputError(f"{folder} has no complete trial yet")
    return configured(Config(**settings.config), trials[0].params)


def write(folder: pathlib.Path, study: optuna.Study, settings: Settings) -> list[str]:
    """Writes leaderboard.csv and the pictures that there are enough trials for; returns their names."""
    table = rows(folder, study, settings)
    with (folder / "leaderboard.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]) if table else [])
        writer.writeheader()
        writer.writerows(table)
    return [
        "leaderboard.csv",
        *(name for name, plot in PICTURES.items() if _draw(study, settings, plot, folder / name)),
    ]


def _draw(study: optuna.Study, settings: Settings, plot: str, path: pathlib.Path) -> bool:
    import matplotlib

    matplotlib.use("agg")
    import optuna.visualization.matplotlib as plots
    from matplotlib import pyplot

    named = {} if plot == "plot_intermediate_values" else {"target_name": f"validation {settings.metric}"}
    with warnings.catch_warnings(action="ignore"), contextlib.suppress(ValueError, RuntimeError):  # too few trials
        axes: Any = getattr(plots, plot)(study, **named)
        axes.figure.set_size_inches(9, 5)
        axes.set_title("")
        axes.grid(plot != "plot_parallel_coordinate")  # there it would lie over the lines
        if plot == "plot_intermediate_values":
            axes.set(xlabel="validation", ylabel=f"validation {settings.metric}")
            axes.legend_.set_visible(len(study.trials) <= LEGEND)
        axes.figure.savefig(path, dpi=120, bbox_inches="tight")
        pyplot.close(axes.figure)
        return True
    return False
