"""`cnnjax export`: a trained network as a file."""

import pathlib
from typing import Any

from cnnjax import cli
from cnnjax.errors import InputError


def run(parser: cli.Parser, argv: list[str]) -> int:
    parser.usage = "cnnjax export --workdir=DIR|--init=NAME --to=FILE.stablehlo [--input=HxW]"
    parser.epilog = (
        "A .stablehlo is the whole network, from uint8 images [b, H, W, C] to logits [b, classes], for any b: "
        "jax.export.deserialize(bytearray(data)).call(images) runs it, on a CPU, GPU or TPU. FILE.json says the rest."
    )
    cli.add_network_flags(parser)
    parser.add_argument("--to", default="", metavar="FILE", help="the file to write; the end of its name says as what")
    parser.add_argument("--input", metavar="HxW", help="of a .stablehlo: the images' size (default: as in evaluation)")
    args = parser.parse_args(argv)
    source, path = cli.network(args), pathlib.Path(args.to)
    if not args.to:
        raise InputError("--to=FILE is missing, as in --to=network.stablehlo")

    console = cli.start()
    from cnnjax import export, weights

    export.check_name(path)
    network = weights.find(source)
    options: dict[str, Any] = {}
    if args.input:
        options["shape"] = cli.image_shape(args.input, network.known["shape"])
    for file, size in export.write(network, path, args.step, console.print, **options).items():
        console.print(f"{file}: {size:,} bytes", soft_wrap=True, markup=False)
    return 0
