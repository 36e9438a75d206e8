"""`cnnjax export`: a trained network as a file."""

import pathlib

from cnnjax.cli import shared
from cnnjax.errors import InputError


def run(parser: shared.Parser, argv: list[str]) -> int:
    parser.usage = "cnnjax export --workdir=DIR|--init=NAME --to=FILE [FLAGS]"
    parser.epilog = (
        "FILE.safetensors, .pth and .pt hold weights that a library for PyTorch loads. FILE.stablehlo is the whole "
        "network, from uint8 images [b, H, W, C] to logits [b, classes], for any b; what else there is to know is in "
        "FILE.stablehlo.json. jax.export.deserialize(bytearray(data)).call(images) runs it, on a CPU, GPU or TPU."
    )
    shared.add_network_flags(parser)
    parser.add_argument("--to", default="", metavar="FILE", help="the file to write; the end of its name says what")
    parser.add_argument("--names", default="", help="of weights: torchvision, timm, ..., or own for ours")
    parser.add_argument("--input", metavar="HxW", help="of a .stablehlo: the images' size (default: as in evaluation)")
    args = parser.parse_args(argv)
    source, path = shared.network(args), pathlib.Path(args.to)
    if not args.to:
        raise InputError("--to=FILE is missing, as in --to=network.stablehlo")

    console = shared.start()
    from cnnjax import export, pretrained

    export.check(path, args.names, args.input)
    network = pretrained.load(source, args.like)
    shape = shared.image_shape(args.input, network.data.shape) if args.input else ()
    for file in export.write(network, path, step=args.step, names=args.names, shape=shape, log=console.print):
        console.print(f"{file}: {file.stat().st_size:,} bytes", soft_wrap=True, markup=False)
    return 0
