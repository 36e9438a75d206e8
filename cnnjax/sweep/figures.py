"""Figures of a sweep: its history, the importance of the settings, which settings were good, and learning curves."""

import warnings
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from cnnjax import colors, style

HIGHLIGHTED = 3  # trials whose learning curves have a color and a label


@style.house()
def draw(study: optuna.Study, metric: str) -> dict[str, Any]:
    """Returns the matplotlib figures by name: 'history', 'importance', 'parallel' and 'curves'.

    Those for which there are too few trials are missing. `metric` is the name of the values, such as 'validation
    accuracy'.
    """
    best_first = complete(study)
    figures = {
        "history": _history(best_first, metric, study.direction),
        "importance": _importance(study, metric),
        "parallel": _parallel(best_first, metric),
        "curves": _curves(study, best_first, metric),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that have a value, the best first."""
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    sign = 1 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1
    return sorted(trials, key=lambda trial: sign * (trial.value or 0.0))


def _history(trials: list[FrozenTrial], metric: str, direction: Any) -> Any:
    """Draws the value of each trial over its number, and the best so far."""
    if not trials:
        return None
    from matplotlib.ticker import MaxNLocator

    trials = sorted(trials, key=lambda trial: trial.number)
    numbers, values = [trial.number for trial in trials], [float(trial.value or 0) for trial in trials]
    best = np.minimum if direction == optuna.study.StudyDirection.MINIMIZE else np.maximum
    figure = style.new_figure()
    axes = figure.add_subplot(xlabel="trial", ylabel=metric)
    axes.plot(numbers, values, "o", color=colors.SKY, markersize=5)
    axes.step(numbers, best.accumulate(values), where="post", color=colors.BLUE, label="best so far")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    axes.margins(x=0.01)
    style.set_title(figure, "", "a dot is a complete trial")
    style.label_lines(axes)
    return figure


def importances(study: optuna.Study) -> dict[str, float]:
    """Returns the share of the metric's variance that each setting explains, the largest first, from 0 to 1.

    That is fANOVA (Hutter et al. 2014). Returns {} for too few trials, or if all have the same value.
    """
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    try:
        with warnings.catch_warnings(action="ignore"):
            return optuna.importance.get_param_importances(study, evaluator=evaluator)
    except (ValueError, RuntimeError):
        return {}


def _importance(study: optuna.Study, metric: str) -> Any:
    """Draws the share of the metric's variance that each setting explains."""
    if not (shares_of := importances(study)):
        return None
    figure = style.new_figure(style.FULL_WIDTH, 1.2 + 0.4 * len(shares_of))
    axes = figure.add_subplot(xlabel=f"share of the variance of {metric} (%)", xlim=(0, 100))
    names, shares = list(shares_of), [100 * share for share in shares_of.values()]
    axes.barh(names, shares, color=colors.BLUE, height=0.6)
    for row, share in enumerate(shares):
        outside = share < 90
        axes.annotate(
            f"{share:.0f} %", (share, row), (4 if outside else -4, 0), textcoords="offset points", va="center",
            ha="left" if outside else "right", color=colors.INK if outside else "white",
        )  # fmt: skip
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    return figure


def _parallel(trials: list[FrozenTrial], metric: str) -> Any:
    """Draws each trial as a line through its settings and its value, colored by the value; the best is on top."""
    trials = [trial for trial in trials if trial.params]
    if len(trials) < 2:
        return None
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    axes_of = [
        coordinate([trial.params.get(name) for trial in trials], distribution_of(trials, name)) for name in names
    ]
    axes_of.append(coordinate([trial.value for trial in trials], None))
    figure = style.new_figure(max(style.FULL_WIDTH, 1.3 * len(axes_of)))
    axes = figure.add_subplot(xlim=(-0.1, len(axes_of) - 0.9), ylim=(-0.05, 1.05))
    shades = colors.color_map("sequential")(0.25 + 0.6 * axes_of[-1][0])
    for row in reversed(range(len(trials))):
        best = {"color": colors.VERMILION, "linewidth": 2.6} if row == 0 else {"color": shades[row], "linewidth": 1}
        axes.plot([positions[row] for positions, _ in axes_of], **best)
    for place, (_, ticks) in enumerate(axes_of):
        axes.axvline(place, color=colors.MUTED, linewidth=0.8)
        for position, text in ticks:
            axes.annotate(
                style.plain_label(text), (place, position), (3, 0), textcoords="offset points", va="center",
                fontsize=style.SMALL, bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
    axes.set_xticks(range(len(axes_of)), [style.wrap(name, 1.2, style.SMALL + 1) for name in (*names, metric)])
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    style.set_title(figure, "", f"a line is a trial; orange: trial {trials[0].number}, the best of {len(trials)}")
    return figure


def distribution_of(trials: list[FrozenTrial], name: str) -> Any:
    """Returns the distribution of a setting in the first of the trials that has it."""
    return next(trial.distributions[name] for trial in trials if name in trial.distributions)


def coordinate(values: list[Any], distribution: Any) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Returns the places of values on an axis from 0 to 1, NaN for None, and its ticks (place, text)."""
    if isinstance(distribution, CategoricalDistribution):
        choices = list(distribution.choices)
        places = np.arange(len(choices)) / max(len(choices) - 1, 1)
        positions = [
            np.nan if value is None and None not in choices else places[choices.index(value)] for value in values
        ]
        return np.array(positions, float), [
            (place, str(choice) or "''") for place, choice in zip(places, choices, strict=True)
        ]
    numbers = np.array([np.nan if value is None else value for value in values], float)
    scale, back = (np.log, np.exp) if getattr(distribution, "log", False) else (np.asarray, float)
    scaled = scale(numbers)
    low, high = np.nanmin(scaled), np.nanmax(scaled)
    ticks = [
        (share, f"{back(low + share * (high - low)):.3g}") for share in ((0.0, 0.5, 1.0) if high > low else (0.0,))
    ]
    return (scaled - low) / ((high - low) or 1), ticks


def _curves(study: optuna.Study, best_first: list[FrozenTrial], metric: str) -> Any:
    """Draws the metric of each trial over its evaluations; the best trials have a color and a label."""
    from matplotlib.ticker import MaxNLocator

    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.intermediate_values]
    if not trials:
        return None
    figure = style.new_figure()
    axes = figure.add_subplot(xlabel="evaluation", ylabel=metric)
    highlighted = {trial.number: place for place, trial in enumerate(best_first[:HIGHLIGHTED])}
    for trial in sorted(trials, key=lambda trial: -highlighted.get(trial.number, HIGHLIGHTED)):
        steps = sorted(trial.intermediate_values)
        curve = [trial.intermediate_values[step] for step in steps]
        if trial.number in highlighted:
            look = {**style.line_style(highlighted[trial.number]), "label": f"trial {trial.number}"}
        else:
            look = {"color": colors.MUTED, "linewidth": 0.8, "alpha": 0.6}
        axes.plot(steps, curve, marker="o" if len(steps) == 1 else "", markersize=4, **look)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y")
    axes.margins(x=0.01)
    style.set_title(figure, "", f"in color: the best {len(highlighted)} of {len(trials)} trials")
    style.label_lines(axes)
    return figure
