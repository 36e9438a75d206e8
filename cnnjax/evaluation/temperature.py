"""Temperature scaling: calibrated probabilities softmax(scores / T), with T fitted on a validation split."""

import functools
import pathlib

import numpy as np

from cnnjax import style
from cnnjax.colors import BLUE, MUTED, VERMILION
from cnnjax.evaluation.classification import calibration_bins, calibration_error
from cnnjax.evaluation.image_scores import log_softmax
from cnnjax.evaluation.report import Section

LIMITS = (0.02, 50.0)  # of a temperature
LOWEST = -100.0  # log-probability; float32 has no smaller probability
ROWS_PER_CHUNK = 4096  # converted to float64 at a time


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature T at which softmax(scores / T) gives the labels the highest likelihood.

    `scores` are logits or log-probabilities float [N, K], `labels` are int [N]. T > 1 makes a network less confident,
    T < 1 more; no prediction changes (Guo et al. 2017, arXiv:1706.04599, sec. 4.2). T stays inside LIMITS: without a
    mistake among the images, the best T would be 0.
    """
    from scipy.optimize import minimize_scalar  # costs half a second

    shifted = np.empty(scores.shape, np.float32)  # the highest score of each example is 0
    for start in range(0, len(scores), ROWS_PER_CHUNK):
        part = np.maximum(log_softmax(scores[start : start + ROWS_PER_CHUNK]), LOWEST)
        shifted[start : start + ROWS_PER_CHUNK] = part - part.max(axis=1, keepdims=True)
    parts = np.array_split(shifted, -(-len(shifted) // ROWS_PER_CHUNK))
    label_scores = _label_scores(shifted, labels).astype(np.float64)

    def negative_log_likelihood(log_temperature: float) -> float:
        scale = np.float32(np.exp(-log_temperature))
        totals = np.concatenate([np.exp(scale * part).sum(axis=1, dtype=float) for part in parts])
        return float((np.log(totals) - scale * label_scores).mean())

    low, high = np.log(LIMITS)  # the likelihood has one maximum, for it is concave in 1 / T
    found = minimize_scalar(negative_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-5})
    return float(np.exp(found.x))


def scaled(scores: np.ndarray, temperature: float) -> np.ndarray:
    """Returns the log-probabilities log softmax(scores / temperature), float64 [N, K]."""
    return log_softmax(np.maximum(log_softmax(scores), LOWEST) / temperature)


def temperature_section(temperature: float, fitted_on: str, scores: np.ndarray, labels: np.ndarray) -> Section:
    """Returns the part of a report on a temperature that was fitted on the split `fitted_on`.

    `scores` [N, K] and `labels` [N] are those of the evaluated split. metrics.json gets "temperature",
    "temperature_split", and "ece_scaled" and "nll_scaled", which are "ece" and "nll" of the scaled scores.
    temperature.png shows the calibration before and after.
    """
    before, after = (_calibration(log_softmax(scores), labels), _calibration(scaled(scores, temperature), labels))
    entries = {
        "temperature": temperature,
        "temperature_split": fitted_on,
        "ece_scaled": calibration_error(after),
        "nll_scaled": -float(_label_scores(scaled(scores, temperature), labels).mean()),
    }
    title = f"Temperature {temperature:.3f}, fitted on {fitted_on}"
    return Section(entries, functools.partial(_save_diagrams, before, after, title))


def _calibration(log_probabilities: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the `calibration_bins` of log-probabilities [N, K]."""
    predictions = log_probabilities.argmax(axis=1)
    return calibration_bins(np.exp(_label_scores(log_probabilities, predictions)), predictions == labels)


def _label_scores(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the score of the label of each example, [N]."""
    return scores[np.arange(len(labels)), labels]


@style.house()
def _save_diagrams(
    before: dict[str, np.ndarray], after: dict[str, np.ndarray], title: str, folder: pathlib.Path
) -> None:
    """Draws temperature.png and .svg: the reliability diagrams (Guo et al. 2017, fig. 4) before and after scaling."""
    figure = style.new_figure()
    figure.get_layout_engine().set(h_pad=0.12)  # inches: a line between the title and those of the panels
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (name, bins) in zip(panels, {"before": before, "after": after}.items(), strict=True):
        filled = bins["images"] > 0
        confidence, accuracy, images = (bins[key][filled] for key in ("confidence", "accuracy", "images"))
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle=":", linewidth=1)
        axes.vlines(confidence, confidence, accuracy, color=VERMILION, linewidth=1.5)
        axes.scatter(confidence, accuracy, 12 + 250 * images / images.sum(), color=BLUE, clip_on=False, zorder=3)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="confidence (probability of the prediction)",
                 title=f"{name}: calibration error {calibration_error(bins):.2%}")  # fmt: skip
    panels[0].set_ylabel("accuracy")
    note = "A point is a bin of confidence; its area grows with the number of images. Dotted: perfect calibration."
    style.set_title(figure, title, note)
    style.save(figure, folder / "temperature")
