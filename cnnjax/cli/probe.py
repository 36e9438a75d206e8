"""`cnnjax probe`: how good a network's features are for another data set."""

import pathlib
from typing import TYPE_CHECKING, Any

from cnnjax.cli import shared

if TYPE_CHECKING:
    from rich.console import Console


def run(parser: shared.Parser, argv: list[str]) -> int:
    shared.add_network_flags(parser)
    parser.add_argument("--dataset", default="", help="whose images are told apart (default: the run's own)")
    parser.add_argument("--train_split", default="", help="learnt from (default: train, or the run's own)")
    parser.add_argument("--split", default="", help="scored (default: test, or the run's own)")
    parser.add_argument("--layer", default="", help="the means of this map (default: what its classifier is given)")
    parser.add_argument("--k", type=int, default=20, help="nearest neighbours that vote (default: 20)")
    parser.add_argument("--temperature", type=float, default=0.07, help="of their votes (default: 0.07)")
    shared.add_view_flags(parser)
    parser.add_argument("--out", default="", help="where the results go (default: the run's folder, or this one)")
    parser.add_argument("--data_dir", default="", help="where data sets are (default: TFDS's own)")
    args = parser.parse_args(argv)
    source = shared.network(args)

    console = shared.start()
    import jax

    from cnnjax import pretrained
    from cnnjax.evaluation import scoring
    from cnnjax.evaluation.probe import probe

    network = pretrained.load(source, args.like)
    scoring.with_views(network.settings, args.batch_size, args.preprocess, None, None)
    names = ("dataset", "train_split", "split", "layer", "k", "temperature", "step", "data_dir")
    of = {name: value for name in ("init", "preprocess") if (value := getattr(args, name))}
    folder = pathlib.Path(args.out or args.workdir)
    leader = jax.process_index() == 0
    options: dict[str, Any] = {name: getattr(args, name) for name in names}
    found = probe(network, folder, description=of, log=console.print if leader else lambda line: None, **options)
    if leader:
        _print(console, found)
    return 0


def _print(console: "Console", found: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from cnnjax.metrics import METRICS

    first, second = found
    table = Table(title=f"{first['dataset']}: {first['train_split']} to {first['split']}", title_justify="left")
    for name in ("classifier", *(row.heading for row in METRICS.values())):
        table.add_column(name, justify="left" if name == "classifier" else "right")
    for name, one in {"nearest neighbours": first, f"linear, C = {second['C']:g}": second}.items():
        table.add_row(name, *(row.format(one[metric]) for metric, row in METRICS.items()))
    console.print(table)
    for one in found:
        console.print(f"more in {one['folder']}", soft_wrap=True, markup=False)
