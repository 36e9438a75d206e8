"""`cnnjax probe`: evaluates a network's features on a data set, without training the network."""

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

from cnnjax.cli import shared

if TYPE_CHECKING:
    from cnnjax.console import Console


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax probe` to its parser."""
    parser.usage = "cnnjax probe RUN|NAME|FILE [FLAGS]"
    shared.add_network_flags(parser)
    parser.add_argument("--dataset", metavar="NAME", default="", help="data set to evaluate on (default: the run's)")
    parser.add_argument(
        "--train_split", metavar="SPLIT", default="", help="split to fit the classifiers on (default: the run's)"
    )
    parser.add_argument("--split", default="", help="split to evaluate on (default: the run's test_split)")
    parser.add_argument(
        "--layer", default="",
        help="feature map to use, averaged over positions (default: the input of the network's classifier)",
    )  # fmt: skip
    parser.add_argument("--k", type=int, default=20, help="number of nearest neighbors that vote (default: 20)")
    parser.add_argument("--temperature", type=float, default=0.07, help="temperature of their votes (default: 0.07)")
    shared.add_preprocessing_flags(parser)
    parser.add_argument(
        "--out", metavar="DIR", default="", help="folder of the results (default: the run's, or runs/NAME of weights)"
    )
    shared.add_data_dir_flag(parser)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax probe`: evaluates features, writes the results and prints them.

    `overrides` is empty. Returns the exit status.
    """
    source = shared.take_network(args)

    console = shared.setup_jax()
    import jax

    from cnnjax import pretrained
    from cnnjax.evaluation.probe import probe
    from cnnjax.evaluation.recipe import with_views

    is_leader = jax.process_index() == 0
    log = console.print_line if is_leader else lambda line: None
    network = pretrained.load(source, shared.file_options(args), log)
    views = with_views(network.config, batch_size=args.batch_size, preprocess=args.preprocess)
    network = network.replace(config=views)
    names = ("dataset", "train_split", "split", "layer", "k", "temperature", "step", "data_dir")
    of = {name: value for name in ("init", "preprocess") if (value := getattr(args, name))}
    options: dict[str, Any] = {name: getattr(args, name) for name in names}
    results = probe(
        network,
        pathlib.Path(args.out) if args.out else shared.results_folder(args),
        description=of,
        log=log,
        **options,
    )
    if is_leader:
        _print_results(console, results)
    return 0


def _print_results(console: "Console", results: list[dict[str, Any]]) -> None:
    """Prints the metrics of two classifiers on features.

    `results` are those of the nearest neighbors, then of the linear one.
    """
    from rich.table import Table

    from cnnjax.metrics import METRICS

    neighbors, linear = results
    title = f"{neighbors['dataset']}: {neighbors['train_split']} to {neighbors['split']}"
    table = Table(title=title, title_justify="left")
    for name in ("classifier", *(row.heading for row in METRICS.values())):
        table.add_column(name, justify="left" if name == "classifier" else "right")
    for name, result in {"nearest neighbors": neighbors, f"linear, C = {linear['C']:g}": linear}.items():
        table.add_row(name, *(row.format(result[metric]) for metric, row in METRICS.items()))
    console.print(table)
    for result in results:
        console.print_line(f"more in {result['folder']}")
