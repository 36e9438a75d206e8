"""`cnnjax predict`: what is on images."""

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnnjax.cli import shared
from cnnjax.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from cnnjax.evaluation.predict import Prediction


def run(parser: shared.Parser, argv: list[str]) -> int:
    parser.usage = "cnnjax predict --workdir=DIR|--init=NAME [FLAGS] IMAGE ..."
    parser.epilog = "The exit status is 1 when there is an image that cannot be scored; the others still are."
    parser.add_argument(
        "images", nargs="*", metavar="IMAGE", help="a JPEG or PNG, a folder with any, or - for a list of them on stdin"
    )
    shared.add_network_flags(parser)
    parser.add_argument("--top", type=int, default=5, help="classes that are shown, the likeliest first (default: 5)")
    parser.add_argument("--json", action="store_true", help="one JSON object per image, a line each")
    shared.add_view_flags(parser)
    parser.add_argument("--protocol", help="the views of an image, as in evaluate (default: the run's own)")
    parser.add_argument("--average", help="of the views: probabilities or logits (default: the run's own)")
    args = parser.parse_args(argv)
    source = shared.network(args)
    if args.top < 1:
        raise InputError(f"--top={args.top}: expected at least 1")
    if not (names := [name for word in args.images for name in (_listed() if word == "-" else [word])]):
        raise InputError("no image is given: expected files or folders, or - for a list on stdin")

    console = shared.start()
    import jax

    from cnnjax import pretrained
    from cnnjax.data import imagenet
    from cnnjax.evaluation import scoring
    from cnnjax.evaluation.predict import find_image_files, predict

    network = pretrained.load(source, args.like)
    scoring.with_views(network.settings, args.batch_size, args.preprocess, args.protocol, args.average)
    classes = imagenet.readable(network.known["classes"])
    paths, wrong = find_image_files(names)
    leader = jax.process_index() == 0
    for one in wrong:
        _print(console, one, classes, args.json, leader)
    if paths:
        for one in predict(network, paths, top=args.top, step=args.step, log=_say):
            _print(console, one, classes, args.json, leader)
            wrong += [one] if one.error else []
    return 1 if wrong else 0


def _listed() -> list[str]:
    """The paths on stdin, one per line, whatever bytes they are made of."""
    return [os.fsdecode(line) for line in sys.stdin.buffer.read().splitlines() if line.strip()]


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _print(console: "Console", one: "Prediction", classes: Sequence[str], as_json: bool, leader: bool) -> None:
    from rich.text import Text

    path = os.fsencode(one.path).decode(errors="backslashreplace")
    if not leader:
        return
    if one.error:
        _say(f"error: {path}: {one.error}")
    elif as_json:
        top = [{"class": classes[i], "index": i, "probability": probability} for i, probability in one.top]
        print(json.dumps({"path": path, "top": top}))
    else:
        console.print(Text(path, style="bold"), soft_wrap=True)
        for i, probability in one.top:
            console.print(Text(f"  {probability:8.2%}  {classes[i]}"), soft_wrap=True)
