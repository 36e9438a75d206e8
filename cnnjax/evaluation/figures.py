"""Figures of an evaluation: confusion matrix, ROC and precision-recall curves, reliability diagram."""

import pathlib
from typing import Any

import numpy as np

from cnnjax import colors, style
from cnnjax.evaluation.classification import CURVE_GRID, ClassificationMetrics

MAX_CLASS_CURVES = 12  # with more classes, only the worst have a curve of their own
WORST_CURVES_SHOWN = 3
CHANCE = "random guessing"  # the diagonal of a ROC curve
BAND_QUANTILES = (0.1, 0.9)  # of the classes' curves, with more than MAX_CLASS_CURVES
MAX_CLASSES_ANNOTATED = 30  # in the confusion matrix
CELL = 0.45  # inches of an annotated cell


def save_figures(result: ClassificationMetrics, class_names: list[str], title: str, folder: pathlib.Path) -> None:
    """Draws confusion, roc, precision_recall and calibration into an existing folder, each as .png and .svg.

    `title` begins the title of each figure.
    """
    for name, figure in draw(result, class_names, title).items():
        style.save(figure, folder / name)


@style.house()
def draw(result: ClassificationMetrics, class_names: list[str], title: str) -> dict[str, Any]:
    """Returns the matplotlib figures of an evaluation by name, in the order of `save_figures`."""
    overall, class_names = result.overall, [*map(style.plain_label, class_names)]
    figures = {"confusion": _confusion(result.confusion, class_names, f"{title}: accuracy {overall['accuracy']:.2%}")}
    curves = {
        "roc": (result.roc, "AUC", "roc_auc", "false positive rate", "recall (true positive rate)"),
        "precision_recall": (result.precision_recall, "AP", "average_precision", "recall", "precision"),
    }
    for name, (values, short_name, metric, x_label, y_label) in curves.items():
        mean = overall[f"{metric}_macro"]
        figures[name] = figure = style.new_figure(style.FULL_WIDTH, 5)
        style.set_title(figure, f"{title}: mean {short_name} {mean:.4f}")
        axes = figure.add_subplot(xlabel=x_label, ylabel=y_label, xlim=(0, 1), ylim=(0, 1), aspect="equal")
        grid = CURVE_GRID
        if name == "roc":  # from (0, 0) to (1, 1), as the diagonal
            axes.plot([0, 1], [0, 1], color=colors.MUTED, linestyle=":", linewidth=1, label=CHANCE)
            grid, values = np.insert(grid, 0, 0.0), np.insert(values, 0, 0.0, axis=1)
        plot_class_curves(axes, grid, values, result.per_class[metric], short_name, mean, class_names)
    figures["calibration"] = _calibration(result.calibration, f"{title}: calibration error {overall['ece']:.2%}")
    return figures


def _confusion(matrix: np.ndarray, class_names: list[str], title: str) -> Any:
    """Draws a confusion matrix, int [K, K], with each row divided by its sum.

    Colors scale with the square root, so that a mistake of 1 % of a class shows. Cells have counts if there are at most
    MAX_CLASSES_ANNOTATED classes.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import PercentFormatter

    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    annotate = len(class_names) <= MAX_CLASSES_ANNOTATED
    side = 2 + CELL * max(len(class_names), 6) if annotate else style.FULL_WIDTH
    figure = style.new_figure(side + 1, side)
    style.set_title(figure, title)
    axes = figure.add_subplot(xlabel="prediction", ylabel="label")
    image = axes.imshow(fractions, colors.color_map("sequential"), norm=PowerNorm(0.5, 0, 1))
    bar = figure.colorbar(image, ax=axes, shrink=0.8, label="fraction of the label's images")
    bar.set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 1], minor=False)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
    bar.outline.set_visible(False)
    if annotate:
        axes.set_xticks(range(len(class_names)), class_names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(class_names)), class_names)
        axes.tick_params(length=0)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                color = "white" if fractions[row, column] > 0.3 else colors.INK
                axes.text(column, row, f"{count:,}", ha="center", va="center", color=color, fontsize=style.SMALL)
    return figure


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
        label = "10th to 90th percentile\nof the classes"
        axes.fill_between(grid, low, high, color=colors.SKY, alpha=0.3, linewidth=0, label=label)
    shown = order if len(order) <= MAX_CLASS_CURVES else order[:WORST_CURVES_SHOWN]
    for i, k in enumerate(shown):
        name = style.fitted(class_names[k], 1.5, style.SMALL + 1)
        axes.plot(grid, curves[k], label=f"{name} ({short_name} {areas[k]:.4f})", **style.line_style(i), linewidth=1.2)
    label = f"mean ({short_name} {mean:.4f})"
    axes.plot(grid, curves[order].mean(axis=0), color=colors.INK, linewidth=2.4, label=label)
    for line in axes.lines:
        line.set_clip_on(False)  # a perfect curve lies on the frame
    axes.grid()
    style.legend_beside(axes)


def _calibration(bins: dict[str, np.ndarray], title: str) -> Any:
    """Draws a reliability diagram (Guo et al. 2017, fig. 1) above a histogram of the confidences.

    `bins` is `ClassificationMetrics.calibration`.
    """
    from matplotlib.ticker import PercentFormatter

    width, center = bins["high"] - bins["low"], (bins["low"] + bins["high"]) / 2
    figure = style.new_figure(style.FULL_WIDTH, 5)
    style.set_title(figure, title)
    diagram, histogram = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    diagram.bar(center, bins["accuracy"], width, color=colors.SKY, edgecolor="white", label="accuracy")
    gap = bins["confidence"] - bins["accuracy"]
    hatched = {"facecolor": "none", "edgecolor": colors.VERMILION, "hatch": "////"}
    diagram.bar(center, gap, 0.6 * width, bins["accuracy"], label="gap to confidence", **hatched)
    diagram.plot([0, 1], [0, 1], "--", color=colors.INK, linewidth=1, label="perfect calibration")
    diagram.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    diagram.yaxis.set_major_formatter(PercentFormatter(1))
    style.legend_beside(diagram)
    histogram.bar(center, bins["images"], width, color=colors.MUTED, edgecolor="white")
    histogram.set(
        xlabel="confidence (probability of the predicted class)", ylabel="images", yscale="log", ylim=(0.7, None)
    )
    histogram.xaxis.set_major_formatter(PercentFormatter(1))
    return figure
