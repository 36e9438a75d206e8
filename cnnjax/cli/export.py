"""`cnnjax export`: writes a trained network as a file."""

import argparse
import pathlib

from cnnjax.cli import shared
from cnnjax.errors import InputError


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax export` to its parser."""
    parser.usage = "cnnjax export RUN|NAME|FILE --to=FILE [FLAGS]"
    parser.epilog = (
        "FILE.safetensors, .pth and .pt hold the weights as a PyTorch state dict. FILE.stablehlo holds the whole "
        "network, from uint8 images [b, H, W, C] to logits [b, classes], for any b; FILE.stablehlo.json describes it. "
        "Run it on a CPU, GPU or TPU by jax.export.deserialize(bytearray(data)).call(images). FILE.onnx holds it for "
        "ONNX Runtime, OpenCV and other programs, with the outputs logits and probabilities. FILE.html is a page that "
        "runs it in a browser, on a drawing or a photograph, and shows its layers. FILE.mlir holds it as text without "
        "the weights, to look at in Netron."
    )
    shared.add_network_flags(parser)
    parser.add_argument("--to", metavar="FILE", default="", help="file to write; its suffix selects the format")
    parser.add_argument(
        "--names", metavar="LIBRARY", default="",
        help="parameter names in a weight file: torchvision, timm, ..., or own for ours (default: the first that fits)",
    )  # fmt: skip
    parser.add_argument(
        "--preprocess",
        metavar="OPS",
        help="operations on each image, to be written into the export (default: the run's)",
    )
    parser.add_argument(
        "--input",
        metavar="HxW",
        help="image size of a .stablehlo, .onnx, .html or .mlir file (default: as in evaluation)",
    )
    card = parser.add_argument_group("a card beside a weight file: recipe, data, test results, machine and versions")
    card.add_argument(
        "--card", metavar="DIR,DIR,...", default="",
        help="write FILE's card as a .json file; DIR are runs of the same config with other seeds",
    )  # fmt: skip
    card.add_argument("--about", metavar="TEXT", default="", help="network, data and recipe in a sentence")
    card.add_argument("--license", metavar="NAME", default="", help="license of the weights, as in Apache-2.0")
    card.add_argument("--url", default="", help="where the file will be (default: it comes with the package)")
    shared.add_data_dir_flag(parser)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax export`: writes the network as a file. `overrides` is empty. Returns the exit status."""
    source, path = shared.take_network(args), pathlib.Path(args.to)
    if not args.to:
        raise InputError("--to=FILE is missing, as in --to=network.stablehlo")

    _check_card_flags(args)

    console = shared.setup_jax()
    from cnnjax import export, pretrained
    from cnnjax.evaluation.recipe import with_views

    export.check(path, args.names, args.input)
    network = pretrained.load(source, shared.file_options(args), console.print_line)
    if args.preprocess is not None:
        network = network.replace(config=with_views(network.config, preprocess=args.preprocess))
    shape = shared.parse_image_shape(args.input, network.data.shape) if args.input else ()
    for file in export.write(network, path, step=args.step, names=args.names, shape=shape, log=console.print_line):
        console.print_line(f"{file}: {file.stat().st_size:,} bytes")
    if args.card:
        from cnnjax.evaluation.card import make_card
        from cnnjax.pretrained import cards

        folders = [pathlib.Path(name) for name in (args.workdir, *args.card.split(",")) if name]
        card = make_card(
            path,
            folders,
            preprocess=network.config.preprocess,
            about=args.about,
            license=args.license,
            url=args.url,
            data_dir=args.data_dir,
            log=console.print_line,
        )
        cards.write(path.with_suffix(".json"), card)
        console.print_line(f"{path.with_suffix('.json')}: the card")
    return 0


def _check_card_flags(args: argparse.Namespace) -> None:
    """Raises InputError for a card without text or license, a card of anything but a run, and card flags without it."""
    if not args.card:
        if given := [name for name in ("about", "license", "url", "data_dir") if getattr(args, name)]:
            raise InputError(f"--{given[0]} is for a card: give --card=DIR,DIR as well")
        return
    if not args.workdir or args.step != "last" or not args.to.endswith((".safetensors", ".pth", ".pt")):
        raise InputError("--card is for a weight file of a run's last checkpoint: RUN --to=FILE.safetensors")
    if missing := [name for name in ("about", "license") if not getattr(args, name)]:
        raise InputError(f"--{missing[0]} is missing: a card needs it")
