"""The network of a run on its page: size, drawing, layers, first filters, and feature maps of an image."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import numpy as np

from cnnjax.config import Config
from cnnjax.data.info import DataInfo
from cnnjax.errors import InputError
from cnnjax.evaluation.trained import load
from cnnjax.pages import pictures
from cnnjax.pages.page import Bar
from cnnjax.pages.pictures import Picture
from cnnjax.runs import checkpoint
from cnnjax.summarize import LEGEND, Summary, summary
from cnnjax.summarize.drawing import drawing
from cnnjax.summarize.parts import TIMES
from cnnjax.tables import Table

LARGEST = 8  # layers of the most parameters, each with a bar


@dataclasses.dataclass(frozen=True)
class NetworkSection:
    """The network of a run.

    Attributes:
      facts: pairs of a name and a formatted value.
      drawing: the network, as `cnnjax summary --draw` draws it; None without pictures.
      largest: the layers with the most parameters, in the order of the network.
      layers: a row for each layer, as `cnnjax summary` prints them.
      notes: the legend, and layers that do not see all of their input.
      inside: the filters of the first convolution, and the feature maps of an image; () without a checkpoint.
    """

    facts: tuple[tuple[str, str], ...]
    drawing: Picture | None
    largest: tuple[Bar, ...]
    layers: Table
    notes: tuple[str, ...]
    inside: tuple[Picture, ...]


def describe(
    folder: pathlib.Path,
    config: Config,
    data: DataInfo,
    with_pictures: bool,
    image: np.ndarray | None,
    log: Callable[[str], None],
) -> NetworkSection:
    """Returns the section of a run's network.

    `image`, uint8 [H, W, C], is one whose feature maps are drawn; None draws none. Raises InputError if the network
    is not registered here.
    """
    table = _summary(config.model, data.shape, config.dtype, len(data.classes))
    return NetworkSection(
        _facts(table),
        _drawing(config, data) if with_pictures else None,
        _largest(table),
        table.table("separated"),
        (LEGEND[0].upper() + LEGEND[1:] + ".", *table.notes()),
        _inside(folder, image, log) if with_pictures and checkpoint.steps(folder) else (),
    )


@functools.lru_cache(maxsize=4)  # the page of a run in progress is written every minute
def _summary(model: str, shape: tuple[int, int, int], dtype: str, num_classes: int) -> Summary:
    """Summarizes a network, as `cnnjax summary` does."""
    return summary(model, shape, dtype=dtype, num_classes=num_classes)


def _facts(table: Summary) -> tuple[tuple[str, str], ...]:
    """Returns the totals of a network, and the receptive field of its last layer that has one."""
    fields = [row.receptive_field for row in table.layers if row.receptive_field]
    shown = [
        ("parameters", f"{table.params:,}"),
        ("multiply-accumulates per image", f"{table.macs:,}"),
        ("layers with parameters", f"{sum(row.params > 0 for row in table.layers)}"),
        ("activations per image", f"{table.activations:,}"),
    ]
    if fields:
        height, width = fields[-1]
        shown.append(("receptive field", f"{height} {TIMES} {width} pixels"))
    return tuple(shown)


def _drawing(config: Config, data: DataInfo) -> Picture:
    """Draws the network."""
    result = drawing(config.model, data.shape, len(data.classes))
    chain = ", then ".join(
        f"{unit.names[0]}{f' and {unit.count - 1} more' * (unit.count > 1)}" for unit in result.units
    )
    alt = f"The network as a chain of layers and blocks: {chain}"
    return pictures.from_figure(result.figure(), alt, vector=True, is_chart=True)


def _largest(table: Summary) -> tuple[Bar, ...]:
    """Returns the layers with the most parameters in the order of the network, and the rest in one row."""
    most = sorted(range(len(table.layers)), key=lambda i: -table.layers[i].params)[:LARGEST]
    rows = [table.layers[i] for i in sorted(most) if table.layers[i].params]
    bars = [(row.name, row.params) for row in rows]
    if rest := table.params - sum(row.params for row in rows):
        bars.append(("all others", rest))
    return tuple(Bar(name, f"{count:,} ({count / table.params:.1%})", count / table.params) for name, count in bars)


def _inside(folder: pathlib.Path, image: np.ndarray | None, log: Callable[[str], None]) -> tuple[Picture, ...]:
    """Draws the filters of the first convolution and, unless it is None, the feature maps of an image.

    Logs why if that is impossible: for a network without convolutions, or a damaged checkpoint.
    """
    from cnnjax.visualize.feature_maps import maps
    from cnnjax.visualize.kernels import filters

    shown = []
    try:
        net = load(folder, log=log)
        result = filters(net)
        shown.append(pictures.from_figure(result.figure(), f"The filters of the first convolution. {result.note}"))
        if image is not None:
            found = maps(net, image)
            shown.append(pictures.from_figure(found.figure(), f"The strongest feature maps of an image. {found.note}"))
    except InputError as error:
        log(f"not all pictures of the network are drawn: {error}")
    return tuple(shown)
