"""`cnnjax summary`: prints a network layer by layer, or several side by side."""

import argparse
import os
import pathlib
from collections.abc import Container
from typing import TYPE_CHECKING, NamedTuple

from cnnjax.cli import shared
from cnnjax.errors import InputError, unknown

if TYPE_CHECKING:
    from cnnjax.summarize import Summary

MAX_NETWORKS = 26  # they are labeled A to Z
DRAWINGS = (".svg", ".png", ".pdf")


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax summary` to its parser."""
    parser.add_argument(
        "models", metavar="MODEL|RUN", nargs="+",
        help="network, or its call string: 'vgg16(norm=\"batch\")', or a run's folder; two are shown side by side; "
        "three or more as totals only",
    )  # fmt: skip
    parser.add_argument("--input", metavar="HxW[xC]", help="image size (default: the paper's or the run's)")
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="batch size for the memory columns (default: 1)"
    )
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"),
        help="dtype for the memory columns (default: float32)",
    )  # fmt: skip
    parser.add_argument(
        "--num_classes", type=int, default=0, metavar="N", help="number of classes (default: the paper's or the run's)"
    )
    parser.add_argument(
        "--draw", metavar="FILE", default="", help="draw the network, for a slide: FILE.svg, FILE.png or FILE.pdf"
    )
    shared.add_format_flags(parser)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax summary`: prints tables as text, or in another format. `overrides` is empty. Returns the status."""
    if args.batch < 1:
        raise InputError(f"--batch={args.batch}: expected at least 1")
    drawn = pathlib.Path(args.draw)
    if args.draw and drawn.suffix not in DRAWINGS:
        raise InputError(f"--draw={args.draw}: expected a name that ends in .svg, .png or .pdf")
    if args.draw and len(args.models) > 1:
        raise InputError(f"--draw draws one network; {len(args.models)} are given")
    console = shared.make_console()
    from cnnjax import spec, summarize
    from cnnjax.models import MODELS

    if len(args.models) > MAX_NETWORKS:
        raise InputError(f"{len(args.models)} networks: expected at most {MAX_NETWORKS}")
    networks = [_network_of_run(text) if _is_run(text, MODELS) else _Network(text) for text in args.models]
    results = []
    for network in networks:
        name = spec.parse(network.model).name
        if name not in MODELS:
            raise unknown("model", name, MODELS)
        shape = shared.parse_image_shape(args.input, network.shape or MODELS[name].input_shape)
        num_classes = args.num_classes or network.num_classes
        results.append(summarize.summary(network.model, shape, args.batch, args.dtype, num_classes))
    if len(results) == 1:
        lines = _one(results[0], MODELS[name].paper, args.format, console.width)
    else:
        lines = _several(args.models, results, args.format, console.width)
    for line in lines:
        console.print_line(line)
    if args.draw:
        from cnnjax import style
        from cnnjax.summarize.drawing import drawing

        figure = drawing(networks[0].model, results[0].input_shape, num_classes).figure()
        style.save(figure, drawn.with_suffix(""), [drawn.suffix])
        if not args.format:
            console.print_line(f"the drawing is {drawn}")
    return 0


class _Network(NamedTuple):
    """Names a network to summarize.

    Attributes:
      model: its call string.
      shape: height, width and channels of its images; None for the paper's.
      num_classes: its number of classes; 0 for the paper's.
    """

    model: str
    shape: tuple[int, int, int] | None = None
    num_classes: int = 0


def _is_run(text: str, models: Container[str]) -> bool:
    """Returns whether an argument is a run's folder: it has a '/', or is a folder without the name of a network."""
    return os.sep in text.partition("(")[0] or (text not in models and os.path.isdir(text))


def _network_of_run(folder: str) -> _Network:
    """Returns the network of the run in `folder`. Raises InputError if there is no run."""
    from cnnjax.config import load
    from cnnjax.runs import workdir

    path = pathlib.Path(folder)
    config, data = load(path / "config.json"), workdir.read_data_info(path)
    return _Network(config.model, data.shape, len(data.classes))


def _one(result: "Summary", paper: str, form: str, width: int) -> list[str]:
    """Formats one network as lines: its title and table, the paper and the totals. CSV has only the table."""
    from cnnjax import tables

    if not form:
        return [result.title, "", *tables.as_text(result.table(), width), "", *filter(None, [paper]), *result.totals()]
    if form == "csv":
        return tables.as_csv(result.table("plain"))
    lines = [result.title, paper, *result.totals(legend=False)]
    return [*tables.FORMATS[form](result.table("separated")), "", *tables.comments(filter(None, lines), form)]


def _several(names: list[str], results: list["Summary"], form: str, width: int) -> list[str]:
    """Formats several networks as lines: a table of their totals and, for two networks, their layers side by side.

    `names` are the arguments that name them. CSV has the layers of all networks, with the name in the first column.
    """
    from cnnjax import summarize, tables

    if form == "csv":
        layers = [result.table("plain").rows for result in results]
        rows = [[name, *row] for name, network in zip(names, layers, strict=True) for row in network]
        return tables.as_csv(tables.Table(("network", *summarize.COLUMNS), rows))
    totals = summarize.compare(results)
    legend = [f"{letter}: {result.title}" for letter, result in zip(totals.headings[1:], results, strict=False)]
    pair = [result.short_table() for result in results] if len(results) == 2 else []
    if form:
        both = [tables.FORMATS[form](table) for table in (totals, *([tables.joined(*pair)] if pair else []))]
        return [*tables.comments(legend, form), *(line for lines in both for line in ("", *lines))]
    beside = ["", *tables.side_by_side(pair[0], pair[1], width)] if pair else []
    return [*legend, "", *tables.as_text(totals, width), *beside]
