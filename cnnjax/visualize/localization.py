"""Where a network looks, measured: boxes around heat maps against true boxes, and the pointing game.

A heat map becomes a box as in Zhou et al. 2016 ("Learning Deep Features for Discriminative Localization", sec. 3.2):
around the largest connected region above a fraction of the maximum. ILSVRC counts a box whose intersection over union
(IoU) with the true one is at least 0.5. The pointing game (Zhang et al. 2016, "Top-down Neural Attention by
Excitation Backprop", sec. 4.1) counts maps whose maximum lies in the true box.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from cnnjax import colors, style
from cnnjax.data.build import Split
from cnnjax.errors import InputError
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.pretrained.library import list_layers
from cnnjax.visualize import sanity
from cnnjax.visualize.attribution import METHODS, Explanation, attribute
from cnnjax.visualize.inputs import equally_spaced

FRACTIONS = tuple(np.arange(1, 20) / 20)  # of the maximum, that are tried as a threshold
TUNE_EVERY = 4  # every 4th image chooses each method's fraction, and does not count in the scores
IOU_NEEDED = 0.5
SMOOTHING = 1 / 32  # standard deviation of the blur of every map, as a fraction of the image's shorter side
TRUE, FOUND = colors.GREEN, colors.VERMILION  # boxes
PIXELS = 192  # of the larger side of an image, at least, on which boxes are drawn
CHANCE = ("center", "random")
DEFAULT_METHODS = ("cam", "gradient", "guided", "smoothgrad", "occlusion")


@dataclasses.dataclass(frozen=True)
class Scores:
    """Localization scores of several methods. Each field is float64 [methods].

    Attributes:
      iou: mean intersection over union of the boxes.
      located: fraction of images whose IoU is at least 0.5.
      pointing: fraction of images whose map has its maximum in the true box.
    """

    iou: np.ndarray
    located: np.ndarray
    pointing: np.ndarray


@dataclasses.dataclass(frozen=True)
class Localization:
    """The scores of methods of attribution on images with boxes, and what they found.

    Boxes are top, left, bottom and right in pixels, the last two exclusive. M images are shown.

    Attributes:
      methods: keys of `attribution.METHODS`.
      trained: scores of the network.
      shuffled: scores of the same network with its weights in random order.
      chance: scores of a box of the mean size in the middle of the image, and anywhere: see CHANCE.
      fractions: of the maximum, above which the maps of a method are in its boxes, float64 [methods].
      images: uint8 [M, H, W, C], as the network sees them.
      true_boxes: float64 [M, 4].
      maps: heat maps, float32 [methods, M, H, W].
      boxes: float64 [methods, M, 4].
      count: number of images that were scored.
    """

    methods: tuple[str, ...]
    trained: Scores
    shuffled: Scores
    chance: Scores
    fractions: np.ndarray
    images: np.ndarray
    true_boxes: np.ndarray
    maps: np.ndarray
    boxes: np.ndarray
    count: int

    @property
    def note(self) -> str:
        """Returns the IoU and the pointing game of the best method, trained and shuffled, and of chance."""
        best = int(self.trained.iou.argmax())
        name = METHODS[self.methods[best]].name
        return (
            f"{self.count:,} images. Best: {name}, IoU {self.trained.iou[best]:.2f}, pointing "
            f"{self.trained.pointing[best]:.0%}; with shuffled weights {self.shuffled.iou[best]:.2f}, "
            f"{self.shuffled.pointing[best]:.0%}; box in the middle {self.chance.iou[0]:.2f}, "
            f"{self.chance.pointing[0]:.0%}; anywhere {self.chance.iou[1]:.2f}, {self.chance.pointing[1]:.0%}"
        )

    def figure(self) -> Any:
        """Draws the images with their true boxes, and the map and box of each method beside them."""
        titles, cells = ["image"], []
        for name, overlap, pointing in zip(self.methods, self.trained.iou, self.trained.pointing, strict=True):
            titles.append(f"{name.replace('_', ' ')}\nIoU {overlap:.2f}\npoints {pointing:.0%}")
        for number, (image, true) in enumerate(zip(self.images, self.true_boxes, strict=True)):
            cells.append(_with_boxes(colors.as_rgb(image), {TRUE: true}))
            for maps, boxes in zip(self.maps, self.boxes, strict=True):
                picture = colors.overlay(image, maps[number])
                cells.append(_with_boxes(picture, {TRUE: true, FOUND: boxes[number]}))
        note = f"Green: true box. Vermilion: around the map's largest region. {self.note}."
        return style.sheet(cells, columns=len(titles), column_titles=titles, title="Localization", note=note)


def localize(
    net: TrainedNetwork,
    split: Split,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    count: int = 200,
    shown: int = 3,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Localization:
    """Scores attribution of the true classes by the boxes of a data set, as `digits_clutter` has them.

    Every map is blurred a little (SMOOTHING), as maps of single pixels would otherwise fall to pieces. Every
    TUNE_EVERY-th image is used to choose the threshold of each method that gives the best mean IoU; the others are
    scored. Boxes are fractions of the sides: config.preprocess has to keep the whole image.

    Args:
      net: the network.
      split: images with boxes.
      methods: keys of `attribution.METHODS`.
      count: number of images, equally spaced in the split.
      shown: how many of them the figure shows.
      progress: called with the number of maps done and the total.

    Raises InputError for a data set without boxes, for an unknown method, and for too few images.
    """
    if not TUNE_EVERY <= count <= len(split):
        raise InputError(f"images = {count}: expected {TUNE_EVERY} to {len(split):,}, the images of {split.name}")
    indices = equally_spaced(len(split), count)
    fractions_of_sides = split.read_boxes(indices)
    images, labels = split.read(indices)
    paths = [layer.path for layer in list_layers(net.model, tuple(net.data.shape))]
    variables = [net.variables, sanity.shuffled(net.variables, paths)]
    explained: list[list[Explanation]] = [[], []]
    for number, (method, weights) in enumerate((m, w) for m in methods for w in (0, 1)):
        explained[weights].append(attribute(net, images, method, classes=labels, variables=variables[weights]))
        progress(number + 1, 2 * len(methods))
    views = explained[0][0].views
    trained, shuffled = (np.stack([explanation.maps for explanation in row]) for row in explained)
    true_boxes = fractions_of_sides.astype(np.float64) * np.tile(views.shape[1:3], 2)
    return score_maps(tuple(methods), views, true_boxes, trained, shuffled, shown)


def score_maps(
    methods: tuple[str, ...],
    views: np.ndarray,
    true_boxes: np.ndarray,
    trained: np.ndarray,
    shuffled: np.ndarray,
    shown: int = 3,
) -> Localization:
    """Scores heat maps [methods, N, H, W] of a trained and of a shuffled network on `views`, uint8 [N, H, W, C].

    `true_boxes`, float64 [N, 4], are in pixels. See `localize`.
    """
    tunes = np.arange(len(views)) % TUNE_EVERY == TUNE_EVERY - 1
    first, true = np.flatnonzero(~tunes)[:shown], true_boxes[~tunes]
    size = np.array(views.shape[1:3])

    def scored(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, float, float]]:
        maps = prepare_maps(maps)
        fraction = max(FRACTIONS, key=lambda value: iou(boxes_of(maps[tunes], value), true_boxes[tunes]).mean())
        found = boxes_of(maps, fraction)
        return fraction, maps[first], found[first], _score(found[~tunes], points_of(maps)[~tunes], true)

    ours, others = [scored(maps) for maps in trained], [scored(maps) for maps in shuffled]
    return Localization(
        methods,
        Scores(*np.array([row[3] for row in ours]).T),
        Scores(*np.array([row[3] for row in others]).T),
        Scores(*np.array([_score(boxes, points, true) for boxes, points in _chance(true, size)]).T),
        np.array([row[0] for row in ours]),
        views[first],
        true_boxes[first],
        np.stack([row[1] for row in ours]),
        np.stack([row[2] for row in ours]),
        int((~tunes).sum()),
    )


def _score(found: np.ndarray, points: np.ndarray, true: np.ndarray) -> tuple[float, float, float]:
    """Returns the `Scores` of one method, from boxes [N, 4] and points [N, 2]."""
    overlap = iou(found, true)
    inside = ((points >= true[:, :2]) & (points < true[:, 2:])).all(axis=1)
    return float(overlap.mean()), float((overlap >= IOU_NEEDED).mean()), float(inside.mean())


def _chance(true: np.ndarray, size: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns boxes and points for each of CHANCE: of the mean size of the true ones, in the middle or anywhere."""
    extent = np.minimum((true[:, 2:] - true[:, :2]).mean(axis=0), size)
    results = []
    for place in (np.full((len(true), 2), 0.5), np.random.default_rng(0).random((len(true), 2))):
        corner = place * (size - extent)
        results.append((np.concatenate([corner, corner + extent], axis=1), place * size))
    return results


# -------------------------------------------------------------------------------------------------------- maps to boxes


def prepare_maps(maps: np.ndarray) -> np.ndarray:
    """Sets negative values of heat maps [N, H, W] to 0, as they speak against the class, and blurs them (SMOOTHING)."""
    maps = np.maximum(np.nan_to_num(np.asarray(maps, np.float32)), 0)
    sigma = SMOOTHING * min(maps.shape[1:])
    return ndimage.gaussian_filter(maps, (0, sigma, sigma), mode="nearest")


def points_of(maps: np.ndarray) -> np.ndarray:
    """Returns the row and column of the maximum of each map, at the middle of its pixel: float64 [N, 2]."""
    flat = maps.reshape(len(maps), -1).argmax(axis=1)
    return np.stack(np.unravel_index(flat, maps.shape[1:]), axis=1) + 0.5


def boxes_of(maps: np.ndarray, fraction: float) -> np.ndarray:
    """Returns the box of each map, float64 [N, 4], around its largest region of at least `fraction` of the maximum.

    Pixels that touch at a corner belong together. The box of a map without positive values is the whole image.
    """
    boxes = np.zeros((len(maps), 4))
    for number, values in enumerate(maps):
        labeled: Any = ndimage.label(values >= fraction * values.max(), structure=np.ones((3, 3)))
        regions, count = labeled
        largest = 1 + np.bincount(regions.ravel(), minlength=count + 1)[1:].argmax()
        rows, columns = ndimage.find_objects(regions)[largest - 1]
        boxes[number] = rows.start, columns.start, rows.stop, columns.stop
    return boxes


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of each pair of boxes, [N, 4] and [N, 4]: float64 [N] in [0, 1]."""
    sides = np.minimum(boxes[:, 2:], others[:, 2:]) - np.maximum(boxes[:, :2], others[:, :2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    areas = sum((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (boxes, others))
    return shared / (areas - shared)


def _with_boxes(image: np.ndarray, boxes: Mapping[str, np.ndarray]) -> np.ndarray:
    """Enlarges an image, float32 [H, W, 3], and draws boxes on it: {color: top, left, bottom, right}."""
    from matplotlib.colors import to_rgb

    factor = max(1, -(-PIXELS // max(image.shape[:2])))
    picture = image.repeat(factor, axis=0).repeat(factor, axis=1)
    width = max(2, max(picture.shape[:2]) // 90)
    for color, box in boxes.items():
        top, left, bottom, right = np.round(np.asarray(box) * factor).astype(int)
        inner = np.zeros(picture.shape[:2], bool)
        inner[top:bottom, left:right] = True
        inner[top + width : bottom - width, left + width : right - width] = False
        picture[inner] = to_rgb(color)
    return picture
