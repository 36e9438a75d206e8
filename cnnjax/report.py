"""What an evaluation leaves behind: numbers, tables and pictures in the run's folder."""

import csv
import pathlib
import re
import zlib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import metrics
from cnnjax import workdir as workdirs


def write(
    scores: np.ndarray, label: np.ndarray, loss: float, workdir: pathlib.Path, of: dict[str, Any], classes: list[str]
) -> dict[str, Any]:
    """Writes metrics.json, per_class.csv, confusion.csv and confusion.png; returns what metrics.json holds."""
    logits, labels = jnp.asarray(scores), jnp.asarray(label)
    total = metrics.add([jax.device_get(metrics.sums(logits, labels, jnp.full(len(label), loss)))])
    matrix = np.asarray(metrics.confusion(logits, labels, jnp.ones(len(label), bool)))
    counts = {"count": int(total["count"]), "top1_right": int(total["top1"]), "top5_right": int(total["top5"])}
    folder = workdir / "evaluations" / _name(**of)
    right, images = matrix.diagonal(), matrix.sum(axis=1)
    per_class = {c: int(r) / int(n) if n else None for c, r, n in zip(classes, right, images, strict=True)}
    result = {**of, **metrics.means(total), **counts, "per_class": per_class, "folder": str(folder)}
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        workdirs.write_json(folder / "metrics.json", result | {"confusion": matrix.tolist()})
        _write_csv(folder / "per_class.csv", ["class", "images", "right", "accuracy"],
                   [(c, n, r, per_class[c]) for c, n, r in zip(classes, images, right, strict=True)])  # fmt: skip
        _write_csv(folder / "confusion.csv", ["label \\ prediction", *classes],
                   [(c, *row) for c, row in zip(classes, matrix.tolist(), strict=True)])  # fmt: skip
        _draw(matrix, classes, f"{of['dataset']} {of['split']}, step {of['step']}: {result['accuracy']:.2%}",
              folder / "confusion.png")  # fmt: skip
    return result


def _name(dataset: str, split: str, step: int, **seen: str) -> str:
    """The folder of an evaluation, by all that it is of: nothing overwrites what another left."""
    name = "-".join([dataset, split, f"step{step}", *(f"{key}={value}" for key, value in seen.items())])
    short = re.sub(r"[^\w.=-]+", "_", name)
    return short if len(short) <= 120 else f"{short[:110]}-{zlib.crc32(name.encode()):08x}"


def _write_csv(path: pathlib.Path, header: list[str], rows: Iterable[Iterable]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _draw(matrix: np.ndarray, classes: list[str], title: str, path: pathlib.Path) -> None:
    """The confusion matrix, each row as shares of its class; with numbers where there is room for them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    few = len(classes) <= 30
    side = 2.5 + 0.5 * len(classes) if few else 12
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    FigureCanvasAgg(figure)
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
