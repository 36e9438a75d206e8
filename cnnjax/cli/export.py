"""`cnnjax export`: writes a trained network as a file."""

import argparse
import pathlib

from cnnjax.cli import shared
from cnnjax.errors import InputError


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax export` to its parser."""
    parser.usage = "cnnjax export --workdir=DIR|--init=NAME --to=FILE [FLAGS]"
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
        "--preprocess", metavar="OPS", help="for a weight file: operations on each image, to be written into the export"
    )
    parser.add_argument(
        "--input",
        metavar="HxW",
        help="image size of a .stablehlo, .onnx, .html or .mlir file (default: as in evaluation)",
    )


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax export`: writes the network as a file. `overrides` is empty. Returns the exit status."""
    source, path = shared.network_source(args), pathlib.Path(args.to)
    if not args.to:
        raise InputError("--to=FILE is missing, as in --to=network.stablehlo")

    console = shared.setup_jax()
    from cnnjax import export, pretrained

    export.check(path, args.names, args.input)
    network = pretrained.load(source, shared.file_options(args), console.print)
    shape = shared.parse_image_shape(args.input, network.data.shape) if args.input else ()
    for file in export.write(network, path, step=args.step, names=args.names, shape=shape, log=console.print):
        console.print(f"{file}: {file.stat().st_size:,} bytes", soft_wrap=True)
    return 0
