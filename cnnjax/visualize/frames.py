"""Animations of a training: one frame per checkpoint, all on one color scale."""

import inspect
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cnnjax import sealed, style
from cnnjax.colors import BLUE, FAINT, INK
from cnnjax.errors import InputError
from cnnjax.runs import checkpoint
from cnnjax.visualize.kinds import Result

Limit = float | Mapping[str, float]
SUFFIXES = (".gif", ".webp")
DPI = style.DPI // 2  # half the pixels of a slide: an animation of many frames is a large file
STRIP = 34  # pixels above a frame, for the step
SHOWN, LAST_SHOWN = 400, 2500  # milliseconds


def parse_steps(text: str, workdir: pathlib.Path) -> list[int]:
    """Returns the steps of a run's checkpoints that --steps names: 'all', or numbers joined by commas.

    Raises InputError for a step without a checkpoint, or fewer than two steps.
    """
    available = checkpoint.steps(workdir)
    words = [word.strip() for word in text.split(",")]
    steps = available if text == "all" else [int(word) for word in words if word.isdecimal()]
    valid = ", ".join(map(str, available)) or "none"
    if text != "all" and (len(steps) != len(words) or not set(steps) <= set(available)):
        raise InputError(f"--steps={text}: expected all, or some of {workdir}'s checkpoints: {valid}")
    if len(set(steps)) < 2:
        raise InputError(
            f"--steps={text}: frames need two checkpoints or more; {workdir} has {valid}. A training keeps more with "
            "--config.keep_checkpoints=N"
        )
    return sorted(set(steps))


def common_limit(results: Sequence[Result]) -> Limit | None:
    """Returns the largest `limit` of the results, for each name if it is a mapping; None if they have none."""
    limits: list[Any] = [getattr(result, "limit", None) for result in results]
    if not all(isinstance(limit, float | Mapping) for limit in limits):
        return None
    if isinstance(limits[0], Mapping):
        return {name: max(limit[name] for limit in limits if name in limit) for name in limits[0]}
    return max(limits)


def draw(results: Sequence[Result]) -> list[Any]:
    """Draws the figures of results of one kind on one color scale.

    A result with a field `limit`, the value at which its colors end, is drawn by `figure(limit=...)`. The heat maps
    that matplotlib colors, in any figure, get the range of all of them.
    """
    limit = common_limit(results)
    takes_limit = "limit" in inspect.signature(results[0].figure).parameters
    figures = [result.figure(**{"limit": limit} if takes_limit and limit else {}) for result in results]
    heat_maps = [[image for axes in figure.axes for image in axes.images] for figure in figures]
    if len({len(images) for images in heat_maps}) == 1:
        for images in zip(*heat_maps, strict=True):
            colored = [image for image in images if np.ndim(image.get_array()) == 2]
            ranges = [image.get_clim() for image in colored]
            for image in colored:
                image.set_clim(min(low for low, _ in ranges), max(high for _, high in ranges))
    return figures


def render(figures: Sequence[Any], steps: Sequence[int]) -> list[Image.Image]:
    """Renders figures to images of one size, each below a strip with its step and its place in the training."""
    from matplotlib.font_manager import findfont

    pictures = []
    for figure in figures:
        data = io.BytesIO()
        with style.house():
            figure.savefig(data, format="png", dpi=DPI)
        pictures.append(Image.open(data).convert("RGB"))
    width, height = (max(picture.size[i] for picture in pictures) for i in (0, 1))
    font = ImageFont.truetype(findfont(style.RC["font.family"]), 18)
    frames = []
    for picture, step in zip(pictures, steps, strict=True):
        frame = Image.new("RGB", (width, height + STRIP), "white")
        frame.paste(picture, (0, STRIP))
        pen = ImageDraw.Draw(frame)
        label = f"step {step:,}"
        start = 20 + round(pen.textlength(f"step {steps[-1]:,}", font))
        pen.text((10, 8), label, INK, font)
        pen.rectangle((start, 16, width - 10, 19), FAINT)
        pen.rectangle((start, 16, start + (width - 10 - start) * step / max(steps[-1], 1), 19), BLUE)
        frames.append(frame)
    return frames


def save(frames: Sequence[Image.Image], path: pathlib.Path) -> list[pathlib.Path]:
    """Writes frames as the animations `path`.gif and `path`.webp, which loop forever; returns the files.

    Each replaces an earlier one atomically. All frames of the GIF have the same 256 colors, so that none flickers.
    """
    durations = [SHOWN] * (len(frames) - 1) + [LAST_SHOWN]
    sample = Image.new("RGB", (frames[0].width, frames[0].height * len(frames)))
    for number, frame in enumerate(frames):
        sample.paste(frame, (0, number * frame.height))
    palette = sample.quantize(256, Image.Quantize.MEDIANCUT)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    files = []
    for suffix, images, options in (
        (".gif", indexed, {"optimize": False, "disposal": 1}),
        (".webp", list(frames), {"lossless": True, "quality": 60, "method": 2}),
    ):
        data = io.BytesIO()
        images[0].save(
            data, suffix[1:], save_all=True, append_images=images[1:], duration=durations, loop=0, **options
        )  # fmt: skip
        files.append(path.with_name(path.name + suffix))
        sealed.write_atomically(files[-1], data.getvalue())
    return files
