"""An evaluation as pictures: what is taken for what, what a threshold costs, and how far confidence can be trusted."""

import pathlib
from typing import Any

import numpy as np

from cnnjax.evaluation.classification import GRID, Measures

FEW = 12  # classes that have curves of their own
LOWEST = 3  # of more, those that are named
SHARES = (0.1, 0.9)  # of more, between which of the classes the band lies


def draw(found: Measures, classes: list[str], title: str, folder: pathlib.Path) -> None:
    """Writes confusion.png, roc.png, precision_recall.png and calibration.png."""
    overall, of = found.overall, found.classes
    _confusion(found.confusion, classes, f"{title}: {overall['accuracy']:.2%}", folder / "confusion.png")
    curves = {
        "roc.png": (found.roc, "AUC", "roc_auc", "fall-out (false positive rate)", "recall (true positive rate)"),
        "precision_recall.png": (found.precision, "AP", "average_precision", "recall", "precision"),
    }
    for name, (values, short, measure, x, y) in curves.items():
        mean = overall[f"{measure}_macro"]
        figure = new_figure(6.4, 5)
        axes = figure.add_subplot(title=f"{title}: mean {short} {mean:.4f}", xlabel=x, ylabel=y)
        draw_curves(axes, values, of[measure], short, mean, classes)
        figure.savefig(folder / name, dpi=110, bbox_inches="tight")
    _calibration(found, f"{title}: calibration error {overall['ece']:.2%}", folder / "calibration.png")


def new_figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # costs half a second
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _confusion(matrix: np.ndarray, classes: list[str], title: str, path: pathlib.Path) -> None:
    """Each row as shares of its class; with numbers where there is room for them."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    few = len(classes) <= 30
    side = 2.5 + 0.5 * len(classes) if few else 12
    figure = new_figure(side + 1, side)
    axes = figure.add_subplot(title=title, xlabel="prediction", ylabel="label")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, fraction=0.046, label="share of the label's images")
    if few:
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), classes)
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                shade = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=shade, fontsize=8)
    figure.savefig(path, dpi=110, bbox_inches="tight")  # however long the class names are


def draw_curves(axes: Any, values: np.ndarray, area: np.ndarray, short: str, mean: float, classes: list[str]) -> None:
    """A curve [K, len(GRID)] for each class, or for some of many, and their mean; the lowest of `area` [K] first."""
    order = [k for k in np.argsort(area, kind="stable") if not np.isnan(area[k])]
    if not order:
        return
    if len(order) > FEW:
        low, high = np.quantile(values[order], SHARES, axis=0)
        axes.fill_between(GRID, low, high, alpha=0.2, linewidth=0, label="eight in ten of the classes")
    shown = order if len(order) <= FEW else order[:LOWEST]
    for k in shown:
        axes.plot(GRID, values[k], linewidth=1, label=f"{classes[k]} ({short} {area[k]:.4f})")
    axes.plot(GRID, values[order].mean(axis=0), "k--", linewidth=2, label=f"mean ({short} {mean:.4f})")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    lowest = values[shown].min(axis=0)  # where they are all 1, there is nothing to see
    end = GRID[np.flatnonzero(lowest < 1).max(initial=0)]
    axes.set(xlim=(0, max(end, 0.02)), ylim=(np.floor(10 * lowest.min()) / 10, 1.005))


def _calibration(found: Measures, title: str, path: pathlib.Path) -> None:
    """Accuracy over confidence, with what is missing to the diagonal, and below it how often each confidence occurs."""
    bins = found.calibration
    width, middle = bins["high"] - bins["low"], (bins["low"] + bins["high"]) / 2
    figure = new_figure(6.4, 6)
    top, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    top.bar(middle, bins["accuracy"], width, edgecolor="white", label="accuracy")
    gap = bins["confidence"] - bins["accuracy"]
    hollow = {"facecolor": "none", "edgecolor": "tab:red", "hatch": "////"}
    top.bar(middle, gap, 0.6 * width, bins["accuracy"], label="from there to the confidence", **hollow)
    top.plot([0, 1], [0, 1], "k--", linewidth=1, label="as it should be")
    top.set(title=title, ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    top.legend(loc="upper left", fontsize=8)
    below.bar(middle, bins["images"], width, color="tab:gray", edgecolor="white")
    below.set(
        xlabel="confidence, the probability of what is predicted", ylabel="images", yscale="log", ylim=(0.7, None)
    )
    figure.savefig(path, dpi=110, bbox_inches="tight")
