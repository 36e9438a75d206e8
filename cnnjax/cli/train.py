"""`cnnjax train`: a new run, or a run that goes on."""

import os
import pathlib
from typing import TYPE_CHECKING, Any

from cnnjax import config_files
from cnnjax.cli import shared

if TYPE_CHECKING:
    from rich.console import Console


def run(parser: shared.Parser, argv: list[str]) -> int:
    parser.usage = "cnnjax train --config=FILE[:arg] [--config.FIELD=VALUE ...] [--workdir=DIR]"
    parser.epilog = "Config fields and their meaning: cnnjax configs FILE. To go on with a run: --workdir=DIR alone."
    parser.add_argument("--config", metavar="FILE[:arg]", help="a file with get_config(), and its argument")
    parser.add_argument("--workdir", help="the run's folder (default: a new one under runs/)")
    parser.add_argument("--data_dir", default="", help="where data sets are (default: TFDS's own)")
    args, rest = parser.parse_known_args(argv)
    location = args.config or os.path.join(args.workdir or "", "config.json")
    if args.config is None and not (args.workdir and os.path.exists(location)):
        parser.error(
            "--config=FILE is missing" + (f", and {args.workdir} is not a run's folder" if args.workdir else "")
        )
    config = config_files.read_config(location, rest)

    console = shared.start()
    import jax

    from cnnjax.runs import workdir
    from cnnjax.runs.signals import Interrupted
    from cnnjax.training.loop import train

    folder = args.workdir or workdir.unique_path(pathlib.Path(location.partition(":")[0]).stem)
    folder = pathlib.Path(shared.same_everywhere(str(folder)))
    try:
        result = train(config, folder, data_dir=args.data_dir, console=console)
    except Interrupted as stopped:
        if jax.process_index() == 0:
            console.print(f"{stopped}. To go on:\n  {shared.program()} train --workdir={folder}", soft_wrap=True)
        return 128 + stopped.signal
    if jax.process_index() == 0:
        _print_result(console, result.metrics, folder)
    return 0


def _print_result(console: "Console", result: dict[str, Any], folder: pathlib.Path) -> None:
    from rich.table import Table

    minutes, seconds = divmod(result["seconds"], 60)
    rows = {}
    if "accuracy" in result:
        rows |= {"split": result["split"], "accuracy": f"{result['accuracy']:.2%}", "top-5": f"{result['top5']:.2%}"}
        rows |= {"loss": f"{result['loss']:.4f}"}
    rows |= {"time": f"{minutes:.0f} min {seconds:.0f} s", "folder": str(folder)}
    rows |= {"evaluate": f"{shared.program()} evaluate --workdir={folder}"}
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for row in rows.items():
        table.add_row(*row)
    console.print(table)
