"""`cnnjax summary`: prints a network, layer by layer."""

import argparse
import sys

from cnnjax.cli import shared
from cnnjax.errors import InputError, unknown


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax summary` to its parser."""
    parser.add_argument("model", metavar="MODEL", help="network, or its call string: 'vgg16(norm=\"batch\")'")
    parser.add_argument("--input", metavar="HxW[xC]", help="image size (default: the paper's)")
    parser.add_argument(
        "--batch", type=int, default=1, metavar="N", help="images that memory is given for (default: 1)"
    )
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"),
        help="type that memory is given for (default: float32)",
    )  # fmt: skip
    parser.add_argument(
        "--num_classes", type=int, default=0, metavar="N", help="number of classes (default: the paper's)"
    )
    parser.add_argument("--csv", action="store_true", help="print comma-separated values, numbers without units")


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax summary`: prints a table of the layers, or CSV. `overrides` is empty. Returns the exit status."""
    if args.batch < 1:
        raise InputError(f"--batch={args.batch}: expected at least 1")
    console = shared.make_console()
    import csv

    from cnnjax import spec, summarize
    from cnnjax.models import MODELS

    name = spec.parse(args.model).name
    if name not in MODELS:
        raise unknown("model", name, MODELS)
    shape = shared.parse_image_shape(args.input, MODELS[name].input_shape)
    result = summarize.summary(args.model, shape, args.batch, args.dtype, args.num_classes)
    if args.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(summarize.COLUMNS)
        writer.writerows(summarize.cells(row, result.scale) for row in result.layers)
        return 0
    console.print(result.table())
    for line in (MODELS[name].paper, *result.totals()):
        console.print(line, soft_wrap=True)
    return 0
