"""`cnnjax predict`: classifies image files."""

import argparse
import codecs
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnnjax.cli import shared
from cnnjax.errors import InputError, visible

if TYPE_CHECKING:
    from cnnjax.console import Console
    from cnnjax.evaluation.predict import Prediction


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax predict` to its parser."""
    parser.usage = "cnnjax predict RUN|NAME|FILE IMAGE ... [FLAGS]"
    parser.epilog = "The exit status is 1 if an image cannot be classified; all others are still classified."
    shared.add_network_flags(
        parser,
        images="images: files (JPEG, PNG, WebP, GIF, BMP, TIFF), folders, or - for a list of paths on stdin",
    )
    parser.add_argument("--top", type=int, default=5, metavar="N", help="number of classes to print (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per image, one per line")
    shared.add_preprocessing_flags(parser)
    parser.add_argument("--protocol", help="test protocol, as in evaluate (default: the run's)")
    parser.add_argument(
        "--average", help="what is averaged over views: probabilities or logits (default: the run's)"
    )  # fmt: skip


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax predict`: classifies and prints one image after another.

    `overrides` is empty. Returns the exit status, 1 if any image failed.
    """
    source = shared.take_network(args, takes_images=True)
    if args.top < 1:
        raise InputError(f"--top={args.top}: expected at least 1")
    names = [name for word in args.words for name in (_read_paths() if word == "-" else [word])]
    if not names:
        raise InputError("no image is given: expected files or folders, or - for a list on stdin")

    console = shared.setup_jax()
    import jax

    from cnnjax import pretrained
    from cnnjax.data import imagenet
    from cnnjax.evaluation.image_paths import find_image_files
    from cnnjax.evaluation.predict import predict
    from cnnjax.evaluation.recipe import with_views

    network = pretrained.load(source, shared.file_options(args), _log)
    views = {"preprocess": args.preprocess, "protocol": args.protocol, "average": args.average}
    network = network.replace(config=with_views(network.config, batch_size=args.batch_size, **views))
    classes = imagenet.readable(network.data.classes)
    paths, failures = find_image_files(names, _log)
    is_leader = jax.process_index() == 0
    for failure in failures:
        _print_prediction(console, failure, classes, args.json, is_leader)
    if paths:
        for prediction in predict(network, paths, top=args.top, step=args.step, log=_log):
            _print_prediction(console, prediction, classes, args.json, is_leader)
            failures += [prediction] if prediction.error else []
    return 1 if failures else 0


def _read_paths() -> list[str]:
    """Returns the paths on stdin, one per line, without a byte-order mark. Empty lines are skipped.

    Bytes of any encoding are kept.
    """
    lines = sys.stdin.buffer.read().removeprefix(codecs.BOM_UTF8).splitlines()
    return [os.fsdecode(line) for line in lines if line.strip()]


def _log(line: str) -> None:
    """Prints a line to stderr."""
    print(visible(line), file=sys.stderr)


def _print_prediction(
    console: "Console", prediction: "Prediction", classes: Sequence[str], as_json: bool, is_leader: bool
) -> None:
    """Prints the top classes of one image to stdout, as text or as a line of JSON, or its error to stderr.

    `classes` are the names by class index. Only the leader (process 0) prints.
    """
    path = os.fsencode(prediction.path).decode(errors="backslashreplace")
    if not is_leader:
        return
    if prediction.error:
        _log(f"error: {path}: {prediction.error}")
    elif as_json:
        top = [{"class": classes[i], "index": i, "probability": probability} for i, probability in prediction.top]
        print(json.dumps({"path": path, "top": top}))
    else:
        console.print_line(path, style="bold")
        for i, probability in prediction.top:
            console.print_line(f"  {probability:8.2%}  {classes[i]}")
