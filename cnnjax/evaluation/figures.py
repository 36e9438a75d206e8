"""Figures of an evaluation: confusion matrix, ROC and precision-recall curves, reliability diagram."""

import pathlib
from typing import Any

import numpy as np

from cnnjax.errors import visible
from cnnjax.evaluation.classification import CURVE_GRID, ClassificationMetrics

MAX_CLASS_CURVES = 12  # with more classes, only the worst have a curve of their own
WORST_CURVES_SHOWN = 3
CHANCE = "random guessing"  # the diagonal of a ROC curve
BAND_QUANTILES = (0.1, 0.9)  # of the classes' curves, with more than MAX_CLASS_CURVES
MAX_CLASSES_ANNOTATED = 30  # in the confusion matrix


def save_figures(result: ClassificationMetrics, class_names: list[str], title: str, folder: pathlib.Path) -> None:
    """Draws confusion.png, roc.png, precision_recall.png and calibration.png into an existing folder.

    `title` begins the title of each figure.
    """
    overall = result.overall
    class_names, title = [*map(plain_label, class_names)], plain_label(title)
    _save_confusion(result.confusion, class_names, f"{title}: {overall['accuracy']:.2%}", folder / "confusion.png")
    curves = {
        "roc.png": (result.roc, "AUC", "roc_auc", "false positive rate", "recall (true positive rate)"),
        "precision_recall.png": (result.precision_recall, "AP", "average_precision", "recall", "precision"),
    }
    for file, (values, short_name, metric, x_label, y_label) in curves.items():
        mean = overall[f"{metric}_macro"]
        figure = new_figure(6, 6)
        axes = figure.add_subplot(title=f"{title}: mean {short_name} {mean:.4f}", xlabel=x_label, ylabel=y_label)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        grid = CURVE_GRID
        if file == "roc.png":  # from (0, 0) to (1, 1), as the diagonal
            axes.plot([0, 1], [0, 1], color="tab:gray", linestyle=":", linewidth=1, label=CHANCE)
            grid, values = np.insert(grid, 0, 0.0), np.insert(values, 0, 0.0, axis=1)
        plot_class_curves(axes, grid, values, result.per_class[metric], short_name, mean, class_names)
        figure.savefig(folder / file, dpi=110, bbox_inches="tight")
    _save_calibration(
        result.calibration, f"{title}: calibration error {overall['ece']:.2%}", folder / "calibration.png"
    )


def new_figure(width: float, height: float) -> Any:
    """Creates an empty matplotlib figure of a size in inches, independent of pyplot and its backend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # costs half a second
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain_label(text: str) -> str:
    """Returns a text that matplotlib shows as `text`: it reads $...$ as a formula, and hides what begins with '_'."""
    text = visible(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _save_confusion(matrix: np.ndarray, class_names: list[str], title: str, path: pathlib.Path) -> None:
    """Draws a confusion matrix, int [K, K], with each row divided by its sum.

    Cells show the counts if there are at most MAX_CLASSES_ANNOTATED classes.
    """
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    annotate = len(class_names) <= MAX_CLASSES_ANNOTATED
    side = 2.5 + 0.5 * len(class_names) if annotate else 12
    figure = new_figure(side + 1, side)
    axes = figure.add_subplot(title=title, xlabel="prediction", ylabel="label")
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, fraction=0.046, label="fraction of the label's images")
    if annotate:
        axes.set_xticks(range(len(class_names)), class_names, rotation=45, ha="right")
        axes.set_yticks(range(len(class_names)), class_names)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                color = "white" if fractions[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=8)
    figure.savefig(path, dpi=110, bbox_inches="tight")  # class names of any length fit


def plot_class_curves(
    axes: Any,
    grid: np.ndarray,
    curves: np.ndarray,
    areas: np.ndarray,
    short_name: str,
    mean: float,
    class_names: list[str],
) -> None:
    """Plots a curve per class over `grid`, in ascending order of area, and the mean of the curves.

    With more than MAX_CLASS_CURVES classes, plots the WORST_CURVES_SHOWN classes of the smallest areas and a band
    between the BAND_QUANTILES of all.

    Args:
      axes: matplotlib axes.
      grid: float [P], the points at which the curves are given.
      curves: float [K, P]; classes whose area is NaN are left out.
      areas: float [K], the area under each curve.
      short_name: name of the area in the legend, such as "AUC".
      mean: mean area, for the legend.
      class_names: K names.
    """
    order = [k for k in np.argsort(areas, kind="stable") if not np.isnan(areas[k])]
    if not order:
        return
    if len(order) > MAX_CLASS_CURVES:
        low, high = np.quantile(curves[order], BAND_QUANTILES, axis=0)
        axes.fill_between(grid, low, high, alpha=0.2, linewidth=0, label="10th to 90th percentile of the classes")
    shown = order if len(order) <= MAX_CLASS_CURVES else order[:WORST_CURVES_SHOWN]
    for k in shown:
        axes.plot(grid, curves[k], linewidth=1, label=f"{class_names[k]} ({short_name} {areas[k]:.4f})")
    axes.plot(grid, curves[order].mean(axis=0), "k--", linewidth=2, label=f"mean ({short_name} {mean:.4f})")
    for line in axes.lines:
        line.set_clip_on(False)  # a perfect curve lies on the frame
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)


def _save_calibration(bins: dict[str, np.ndarray], title: str, path: pathlib.Path) -> None:
    """Draws a reliability diagram (Guo et al. 2017, fig. 1) above a histogram of the confidences.

    `bins` is `ClassificationMetrics.calibration`.
    """
    width, center = bins["high"] - bins["low"], (bins["low"] + bins["high"]) / 2
    figure = new_figure(6.4, 6)
    diagram, histogram = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    diagram.bar(center, bins["accuracy"], width, edgecolor="white", label="accuracy")
    gap = bins["confidence"] - bins["accuracy"]
    hatched = {"facecolor": "none", "edgecolor": "tab:red", "hatch": "////"}
    diagram.bar(center, gap, 0.6 * width, bins["accuracy"], label="gap", **hatched)
    diagram.plot([0, 1], [0, 1], "k--", linewidth=1, label="perfect calibration")
    diagram.set(title=title, ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    diagram.legend(loc="upper left", fontsize=8)
    histogram.bar(center, bins["images"], width, color="tab:gray", edgecolor="white")
    histogram.set(
        xlabel="confidence (probability of the predicted class)", ylabel="images", yscale="log", ylim=(0.7, None)
    )
    figure.savefig(path, dpi=110, bbox_inches="tight")
