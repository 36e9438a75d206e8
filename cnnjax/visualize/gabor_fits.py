"""Similarity of filters to Gabor functions: a least-squares fit to each, and to random filters as a control."""

import dataclasses
import itertools
from typing import Any

import numpy as np

from cnnjax import style
from cnnjax.colors import COLORS, MUTED, signed
from cnnjax.errors import InputError
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.visualize.kernels import find_convolution, kernel_of

PARAMETERS = ("x", "y", "orientation", "frequency", "width", "length")  # those in which the function is not linear
MIN_WEIGHTS = 25  # a filter of 3x3 has hardly more weights than a Gabor function has parameters
STARTS = 3
MAX_FITTED = 256  # filters
CONTROLS = 64  # random filters
MAX_DRAWN = 24
ABOVE = 95  # percentile of the random filters that a filter has to exceed


@dataclasses.dataclass(frozen=True)
class GaborFits:
    """Gabor functions fitted to the filters of a convolution, and to random filters.

    A filter of several input channels is fitted by its best approximation as a spatial pattern times a vector of
    channels, its first singular vectors. R^2 is the fraction of the pattern's variance that the function explains.

    Attributes:
      layer: path of the convolution.
      patterns: float32 [N, height, width], the spatial pattern of each filter.
      fits: float32 [N, height, width], the fitted functions.
      parameters: float32 [N, 6]: center x and y (pixels from the middle), orientation (radians, 0 for vertical
        stripes), frequency (cycles per pixel), and the standard deviations across and along the stripes (pixels).
      r2: float32 [N].
      random_r2: float32 [M], of random filters of the same size and variance, treated in the same way.
    """

    layer: str
    patterns: np.ndarray
    fits: np.ndarray
    parameters: np.ndarray
    r2: np.ndarray
    random_r2: np.ndarray

    @property
    def above(self) -> int:
        """Returns how many filters are fitted better than 95% of the random ones."""
        return int((self.r2 > np.percentile(self.random_r2, ABOVE)).sum())

    @property
    def note(self) -> str:
        """Returns the median R^2 of the filters and of the random ones, and how many filters stand out."""
        height, width = self.patterns.shape[1:]
        return (
            f"{self.layer}: Gabor functions explain {np.median(self.r2):.0%} of the variance of a filter of "
            f"{height}x{width} (median R²), {np.median(self.random_r2):.0%} of a random one; {self.above} of "
            f"{len(self.r2)} filters are above the {ABOVE}th percentile of random ones"
        )

    def figure(self) -> Any:
        """Draws the distribution of R^2 beside that of random filters, and filters of all R^2, each above its fit."""
        with style.house():
            figure = style.new_figure()
            left, right = figure.subplots(1, 2, width_ratios=(2, 3))
            left.set(
                xlabel="R² of the fitted Gabor function", ylabel="filters with less, %", xlim=(0, 1), ylim=(0, 100)
            )
            for values, name, color, percent, side in (
                (self.random_r2, "random", COLORS[1], 70, "right"), (self.r2, self.layer, COLORS[0], 30, "left"),
            ):  # fmt: skip
                x = np.sort(np.clip(values, 0, 1))
                left.step([0, *x, 1], [0, *np.arange(1, len(x) + 1) / len(x) * 100, 100], where="post", color=color)
                left.annotate(
                    style.plain_label(name), (np.percentile(x, percent), percent), (6 if side == "left" else -6, 0),
                    textcoords="offset points", ha=side, va="center", color=color,
                )  # fmt: skip
            self._draw_pairs(right)
            style.set_title(figure, f"Filters of {self.layer} and fitted Gabor functions", self.note)
        return figure

    def _draw_pairs(self, axes: Any) -> None:
        """Draws filters from the best-fitted to the worst, each above its fit, into axes with one unit per filter."""
        count = min(MAX_DRAWN, len(self.r2))
        chosen = np.argsort(-self.r2, kind="stable")[np.linspace(0, len(self.r2) - 1, count).round().astype(int)]
        columns = min(8, count)
        text = {"ha": "center", "fontsize": style.SMALL}
        for place, k in enumerate(chosen):
            limit = np.abs(self.patterns[k]).max()
            x, y = place % columns * 1.1, place // columns * 3
            for top, image in ((y, self.patterns[k]), (y + 1.05, self.fits[k])):
                axes.imshow(signed(image, limit), extent=(x, x + 1, top + 1, top))
            axes.text(x + 0.5, y - 0.08, str(k), va="bottom", **text)
            axes.text(x + 0.5, y + 2.12, f"{self.r2[k]:.2f}", va="top", color=MUTED, **text)
        rows = -(-count // columns)
        axes.set(xlim=(0, columns * 1.1 - 0.1), ylim=(rows * 3 - 0.5, -0.4), aspect="equal", anchor="N")
        axes.set_axis_off()
        axes.set_title("filter by number, its fit below, and R²", fontweight="normal")


def gabor(net: TrainedNetwork, *, layer: str = "", seed: int = 0) -> GaborFits:
    """Fits a Gabor function to each filter of a convolution, and to as many as 64 random filters.

    Args:
      net: the network.
      layer: path of the convolution; '' for the first.
      seed: of the random filters.

    Raises InputError for an unknown convolution, or filters with less than 25 weights per channel.
    """
    path = find_convolution(net, layer)
    kernels = kernel_of(net, path)
    height, width, inputs, _ = kernels.shape
    if height * width < MIN_WEIGHTS:
        raise InputError(
            f"the filters of {path!r} are {height}x{width}, too small for a Gabor function, which has 8 parameters: "
            "expected 5x5 or more"
        )
    patterns = spatial_patterns(kernels[..., :MAX_FITTED])
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, kernels.std(), (height, width, inputs, CONTROLS)).astype(np.float32)
    parameters, fits, r2 = fit(patterns)
    return GaborFits(path, patterns, fits, parameters, r2, fit(spatial_patterns(noise))[2])


def spatial_patterns(kernels: np.ndarray) -> np.ndarray:
    """Returns the spatial pattern [outputs, height, width] of each filter [height, width, inputs, outputs].

    Its product with a unit vector over the inputs is the best least-squares approximation, by a singular value
    decomposition.
    """
    height, width, inputs, count = kernels.shape
    matrices = kernels.reshape(height * width, inputs, count).transpose(2, 0, 1)
    left, values, right = np.linalg.svd(matrices, full_matrices=False)
    sign = np.sign(right[:, 0].sum(axis=1))  # as most inputs have it
    patterns = left[:, :, 0] * (values[:, :1] * np.where(sign, sign, 1)[:, None])
    return patterns.reshape(count, height, width).astype(np.float32)


def fit(patterns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fits Gabor functions to patterns [N, height, width]: returns parameters [N, 6], fits and R^2 [N].

    The amplitude and the phase are the solution of a linear problem, given the other parameters. These start from the
    best of a grid of functions, and are improved by SciPy's least squares.
    """
    from scipy.optimize import least_squares

    height, width = patterns.shape[1:]
    side = max(height, width)
    low = np.array([-width / 2, -height / 2, -np.inf, 0.0, 0.4, 0.4])
    high = np.array([width / 2, height / 2, np.inf, 0.5, side, side])
    grid = _starts(height, width)
    waves = np.stack([_waves(start, height, width) for start in grid])  # [G, 2, P]
    orthogonal = np.linalg.qr(waves.transpose(0, 2, 1))[0]  # [G, P, 2]
    results = []

    def improved(start: np.ndarray, pattern: np.ndarray) -> Any:
        return least_squares(
            _residual, np.clip(start, low + 1e-6, high - 1e-6), bounds=(low, high), args=(pattern, height, width),
            x_scale=(1, 1, 0.3, 0.05, 1, 1), ftol=1e-4, xtol=1e-4, max_nfev=40,
        )  # fmt: skip

    for pattern in patterns.reshape(len(patterns), -1).astype(np.float64):
        total = float(((pattern - pattern.mean()) ** 2).sum())
        energy = ((pattern @ orthogonal) ** 2).sum(axis=1)  # that each function of the grid explains
        starts = grid[np.argsort(-energy, kind="stable")[:STARTS]]
        best = min((improved(start, pattern) for start in starts), key=lambda solved: solved.cost)
        parameters = best.x.copy()
        parameters[2] = (parameters[2] + np.pi / 2) % np.pi - np.pi / 2
        results.append((parameters, pattern - best.fun, 1 - 2 * best.cost / total if total else 0.0))
    parameters, fits, r2 = (np.array(values, np.float32) for values in zip(*results, strict=True))
    return parameters, fits.reshape(patterns.shape), r2


def _starts(height: int, width: int) -> np.ndarray:
    """Returns the parameters [G, 6] of a grid of Gabor functions."""
    side = max(height, width)
    places = (-side / 5, 0.0, side / 5)
    orientations = np.arange(8) * np.pi / 8
    frequencies = np.array([0.0, 0.75, 1.25, 1.75, 2.5]) / side
    sizes = ((side / 6, side / 6), (side / 4, side / 4), (side / 6, side / 3), (side / 3, side / 3))
    rows = itertools.product(places, places, orientations, frequencies, sizes)
    return np.array([(x, y, angle, frequency, *size) for x, y, angle, frequency, size in rows])


def _waves(parameters: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a Gaussian times the cosine and the sine of a wave, [2, height * width]."""
    x, y, angle, frequency, across, along = parameters
    rows, columns = np.mgrid[:height, :width]
    dx, dy = columns - (width - 1) / 2 - x, rows - (height - 1) / 2 - y
    u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    envelope = np.exp(-0.5 * ((u / across) ** 2 + (v / along) ** 2))
    phase = 2 * np.pi * frequency * u
    return np.stack([envelope * np.cos(phase), envelope * np.sin(phase)]).reshape(2, -1)


def _residual(parameters: np.ndarray, pattern: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns a pattern [P] less the best combination of the two waves of these parameters."""
    a, b = _waves(parameters, height, width)
    aa, ab, bb = a @ a, a @ b, b @ b
    pa, pb = a @ pattern, b @ pattern
    determinant = aa * bb - ab * ab
    if determinant <= 1e-10 * aa * bb or bb == 0:  # the sine is 0, or nearly the cosine
        return pattern - (pa / aa if aa else 0.0) * a
    return pattern - ((pa * bb - pb * ab) * a + (pb * aa - pa * ab) * b) / determinant
