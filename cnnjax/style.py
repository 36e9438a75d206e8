"""The house style of pictures: labels, sheets of images, and the files they are saved to.

A picture of full width is FULL_WIDTH inches: 1,600 pixels of a slide at DPI. Its smallest text is then legible at half
that size. Draw inside `with house():` (or below the decorator `@house()`), label lines at their ends with
`label_lines`, put images on a `sheet`, and `save`. Colors and heat maps are in `cnnjax.colors`.
"""

import contextlib
import functools
import io
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cnnjax import sealed
from cnnjax.colors import COLORS, FAINT, INK, MUTED, as_rgb
from cnnjax.errors import visible

DPI = 200
FULL_WIDTH, SLIDE_HEIGHT = 8.0, 4.5  # inches; 1,600 x 900 pixels
FONT, SMALL = 10.0, 8.0  # points
DASHES = ("-", "--", ":", "-.")  # of the first len(COLORS) lines, of the next ones, ...
RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": FONT, "text.color": INK,
    "axes.titlesize": FONT, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.labelsize": FONT,
    "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.linewidth": 0.8, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "grid.color": FAINT, "grid.linewidth": 0.6,
    "xtick.labelsize": SMALL + 1, "ytick.labelsize": SMALL + 1, "xtick.color": MUTED, "ytick.color": MUTED,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "lines.linewidth": 1.8, "legend.frameon": False,
    "legend.fontsize": SMALL + 1, "image.interpolation": "nearest", "hatch.linewidth": 0.8,
    "svg.fonttype": "path", "svg.hashsalt": "cnnjax", "pdf.fonttype": 42,
}  # fmt: skip
METADATA: dict[str, dict[str, Any]] = {  # no dates and no versions: the same picture is the same file
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
HINTING = 1.03  # letters that are fitted to pixels are up to 3 % wider
GAP = 12  # pixels between the images of a sheet, and around it
FRAME = 0.8  # gray of the one-pixel frame of each image, so that white ones show
ROW_TITLE_WIDTH = 1.2  # inches, before it is broken into lines
MIN_TITLE_WIDTH = 3.0  # inches of a sheet that has a title


@contextlib.contextmanager
def house() -> Iterator[None]:
    """Draws in the house style inside this context. Settings of matplotlib outside stay as they are."""
    from cycler import cycler
    from matplotlib import rc_context  # costs half a second

    with rc_context({**RC, "axes.prop_cycle": cycler(color=COLORS)}):
        yield


def new_figure(width: float = FULL_WIDTH, height: float = SLIDE_HEIGHT, layout: Any = "constrained") -> Any:
    """Creates an empty figure of a size in inches, independent of pyplot, whose axes are laid out without overlaps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def plain_label(text: str) -> str:
    """Returns a label that matplotlib shows as `text`: it reads $...$ as a formula, and hides what begins with '_'."""
    text = visible(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def line_style(index: int) -> dict[str, Any]:
    """Returns the color and dashes of the line `index`; 28 lines differ."""
    return {"color": COLORS[index % len(COLORS)], "linestyle": DASHES[index // len(COLORS) % len(DASHES)]}


def set_title(figure: Any, title: str, note: str = "") -> None:
    """Writes a title above a figure of `new_figure`, and a note of small print below it. Long ones are wrapped."""
    width = figure.get_size_inches()[0] - 0.2
    if title:
        text = wrap(title, width, FONT + 1, bold=True)
        figure.suptitle(text, x=0.01, ha="left", fontsize=FONT + 1, fontweight="bold", parse_math=False)
    if note:
        text = wrap(note, width, SMALL)
        figure.supxlabel(text, x=0.01, ha="left", fontsize=SMALL, color=MUTED, parse_math=False)


def plain_log_ticks(axis: Any) -> None:
    """Writes the ticks of a logarithmic axis that spans few powers of 10 as 0.2, 0.5, 1, 2, ...; call it last."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.get_view_interval()
    if low > 0 and high / low < 300:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


@functools.lru_cache(10_000)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """Returns the width in inches of a line of text in letters of `size` points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=str(RC["font.family"]), size=size, weight="bold" if bold else "normal")
    return text_to_path.get_text_width_height_descent(visible(text).replace("$", "S"), font, False)[0] / 72 * HINTING


def fitted(text: str, width: float, size: float) -> str:
    """Returns a line of text, cut and ended with '…' if it is wider than `width` inches in letters of `size` points."""
    if text_width(text, size) <= width:
        return text
    kept = next((n for n in range(len(text) - 1, 0, -1) if text_width(f"{text[:n]}…", size) <= width), 0)
    return f"{text[:kept].rstrip()}…"


def wrap(text: str, width: float, size: float, bold: bool = False) -> str:
    """Breaks a text into lines of at most `width` inches in letters of `size` points; longer words stay whole."""
    lines: list[str] = []
    for paragraph in visible(text).splitlines():
        lines.append("")
        for word in paragraph.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and text_width(longer, size, bold) > width:
                lines.append(word)
            else:
                lines[-1] = longer
    return "\n".join(lines)


def label_lines(axes: Any, size: float = SMALL + 1) -> None:
    """Writes each line's label at its right end, in its color, in place of a legend. Call it last.

    Labels that would overlap are moved apart, each with a thin line to where it belongs. Lines whose label begins with
    '_' have none.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # gives the axes their limits and height
    height = axes.get_window_extent().height / figure.dpi * 72  # points
    ends = []
    for line in axes.lines:
        points = np.asarray(line.get_xydata(), float)
        points = points[np.isfinite(points).all(axis=1)]
        if len(points) and not str(line.get_label()).startswith("_"):
            x, y = axes.transAxes.inverted().transform(line.get_transform().transform(points[-1]))
            ends.append((min(max(float(y), 0.0), 1.0), min(float(x), 1.0), line))
    ends.sort(key=lambda end: end[0])
    places = spread([end[0] for end in ends], 1.25 * size / height)
    for (y, x, line), place in zip(ends, places, strict=True):
        moved = abs(place - y) * height > 2 or x < 0.98
        thin = {"arrowstyle": "-", "color": line.get_color(), "linewidth": 0.6, "relpos": (0, 0.5), "shrinkB": 0}
        axes.annotate(
            line.get_label(), (x, y), (1.04 if moved else 1.015, place), "axes fraction", va="center", fontsize=size,
            color=line.get_color(), annotation_clip=False, arrowprops=thin if moved else None,
        )  # fmt: skip


def legend_beside(axes: Any, size: float = SMALL + 1) -> None:
    """Puts a legend to the right of the axes, for areas, and lines that end at one place. Call it last."""
    if handles := axes.get_legend_handles_labels()[0]:
        axes.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(1.01, 1),
            borderaxespad=0,
            fontsize=size,
            handlelength=1.6,
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Moves ascending places at least `gap` apart, each as little as possible; inside [0, 1] if they fit there."""
    groups: list[tuple[float, int]] = []  # (mean of the places less their rank times the gap, how many)
    for rank, place in enumerate(places):
        groups.append((place - rank * gap, 1))
        while len(groups) > 1 and groups[-2][0] > groups[-1][0]:  # isotonic regression
            (a, n), (b, m) = groups[-2:]
            groups[-2:] = [((n * a + m * b) / (n + m), n + m)]
    bases = np.array([base for base, count in groups for _ in range(count)])
    highest = max(1 - (len(places) - 1) * gap, 0)
    return [float(base) + rank * gap for rank, base in enumerate(np.clip(bases, 0, highest))]


@house()
def sheet(
    images: Sequence[np.ndarray | None], captions: Sequence[str] = (), *, columns: int = 0, title: str = "",
    note: str = "", row_titles: Sequence[str] = (), column_titles: Sequence[str] = (),
    caption_colors: Sequence[str] = (), cell: float = 1.2,
) -> Any:  # fmt: skip
    """Draws images in a grid, row by row, each with a caption below it.

    Pixels of small images become squares of whole screen pixels; large images are reduced. All keep their aspect.

    Args:
      images: each as in `colors.as_rgb`, or None for an empty place.
      captions: a text below each image, of one line or, with line feeds, more. Lines that are too wide are cut.
      columns: images in a row; 0 chooses a number that fills a slide.
      title: above all.
      note: small print below all.
      row_titles: left of the rows.
      column_titles: above the columns.
      caption_colors: color of each caption (default: all INK).
      cell: largest width and height of an image, in inches; smaller if the sheet would be wider than FULL_WIDTH.

    Returns:
      A matplotlib Figure, as wide as its columns need and at most about FULL_WIDTH inches.
    """
    sides = [_lines(text, ROW_TITLE_WIDTH, SMALL + 1) for text in row_titles]
    left = GAP + (px(max(text_width(line, SMALL + 1) for lines in sides for line in lines)) + GAP if sides else 0)
    texts = [text.split("\n") for text in captions]
    below = GAP + max(map(len, texts), default=0) * _line(SMALL) + (GAP // 2 if texts else 0)
    columns = columns or _fitting_columns(len(images), cell, below / DPI)
    side = max(int(min(cell * DPI, (FULL_WIDTH * DPI - left) / columns - GAP)), 1)
    tiles = [None if image is None else _tile(as_rgb(image), side) for image in images]
    height, width = (max((tile.shape[i] for tile in tiles if tile is not None), default=1) for i in (0, 1))
    slot = max(width, min(px(max((text_width(line, SMALL) for lines in texts for line in lines), default=0)), side))
    full = left + columns * (slot + GAP)
    full = max(full, px(MIN_TITLE_WIDTH)) if title or note else full

    head = wrap(title, full / DPI - 0.2, FONT + 1, bold=True).splitlines()
    names = [_lines(text, (slot + GAP / 2) / DPI, SMALL + 1) for text in column_titles]
    foot = wrap(note, full / DPI - 0.2, SMALL).splitlines()
    names_at = GAP + len(head) * _line(FONT + 1) + (GAP // 2 if head else 0)
    first = names_at + max(map(len, names), default=0) * _line(SMALL + 1)
    step = height + below
    foot_at = first + -(-len(images) // columns) * step
    canvas = np.ones((foot_at + len(foot) * _line(SMALL) + (GAP if foot else 0), full, 3), np.float32)
    figure, axes = _pixel_figure(full, len(canvas))

    def write(x: float, y: float, lines: Sequence[str], size: float, **options: Any) -> None:
        for number, line in enumerate(lines):
            axes.text(x, y + number * _line(size), plain_label(line), fontsize=size, **{"va": "top", **options})

    write(GAP, GAP, head, FONT + 1, fontweight="bold")
    write(GAP, foot_at, foot, SMALL, color=MUTED)
    for column, lines in enumerate(names):
        write(left + column * (slot + GAP) + slot / 2, names_at, lines, SMALL + 1, ha="center", color=MUTED)
    for row, lines in enumerate(sides):
        middle = first + row * step + height / 2 - len(lines) * _line(SMALL + 1) / 2
        write(left - GAP, middle, lines, SMALL + 1, ha="right")
    for number, tile in enumerate(tiles):
        x, y = left + number % columns * (slot + GAP), first + number // columns * step
        if tile is not None:
            top, start = y + (height - len(tile)) // 2, x + (slot - tile.shape[1]) // 2
            canvas[top - 1 : top + len(tile) + 1, start - 1 : start + tile.shape[1] + 1] = FRAME
            canvas[top : top + len(tile), start : start + tile.shape[1]] = tile
        lines = [fitted(line, (slot + GAP / 2) / DPI, SMALL) for line in texts[number]] if number < len(texts) else []
        color = caption_colors[number] if caption_colors else INK
        write(x + slot / 2, y + height + GAP // 2, lines, SMALL, ha="center", color=color)
    axes.imshow(canvas, extent=(0, full, len(canvas), 0), interpolation="none", aspect="auto")
    return figure


def _lines(text: str, width: float, size: float) -> list[str]:
    """Breaks a text into lines of at most `width` inches, and cuts words that are wider."""
    return [fitted(line, width, size) for line in wrap(text, width, size).splitlines()]


def px(inches: float) -> int:
    """Returns a length in pixels at DPI."""
    return math.ceil(inches * DPI)


def _line(size: float) -> int:
    """Returns the height in pixels of a line of text in letters of `size` points."""
    return px(1.35 * size / 72)


def _pixel_figure(width: int, height: int) -> tuple[Any, Any]:
    """Returns a figure of this size in pixels, and its only axes, whose coordinates are pixels from the top left."""
    inch = DPI * (1 - 1e-9)  # else a product of rounded numbers could lack a pixel
    figure = new_figure(width / inch, height / inch, layout=None)
    figure.set_dpi(DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure, axes


def _fitting_columns(count: int, cell: float, below: float) -> int:
    """Returns the number of columns with which `count` images, at most `cell` inches large, are largest on a slide.

    `below` is the height in inches of a caption. Whole rows are preferred.
    """

    def score(columns: int) -> tuple[float, int]:
        height = (SLIDE_HEIGHT - 0.4) / -(-count // columns) - below
        return min(cell, FULL_WIDTH / columns, height) * (1 if count % columns == 0 else 0.8), columns

    return max(range(1, max(count, 1) + 1), key=score)


def _tile(image: np.ndarray, side: int) -> np.ndarray:
    """Resizes an image float32 [H, W, 3] to the largest that fits into `side` x `side` pixels.

    An image that is smaller is enlarged by a whole factor, each pixel a square; a larger one is reduced.
    """
    factor = side // max(image.shape[:2])
    if factor:
        return image.repeat(factor, axis=0).repeat(factor, axis=1)
    from PIL import Image

    scale = side / max(image.shape[:2])
    size = tuple(max(round(length * scale), 1) for length in image.shape[1::-1])
    return np.asarray(Image.fromarray(np.uint8(image * 255 + 0.5)).resize(size, Image.Resampling.BOX), np.float32) / 255


def save(figure: Any, path: pathlib.Path, formats: Sequence[str] = (".png", ".svg")) -> list[pathlib.Path]:
    """Saves a figure as `path`.png and `path`.svg, or in other `formats` of METADATA. Returns the files.

    Each is written atomically, and the same picture is the same file, byte for byte. Folders are created.
    """
    files = [path.with_name(path.name + suffix) for suffix in formats]
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, suffix in zip(files, formats, strict=True):
        data = io.BytesIO()
        with house():
            figure.savefig(data, format=suffix[1:], dpi=DPI, metadata=METADATA[suffix])
        sealed.write_atomically(file, data.getvalue())
    return files
