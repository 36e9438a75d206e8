"""`cnnjax evaluate`: a checkpoint's numbers."""

import pathlib
import re
from typing import TYPE_CHECKING, Any

from cnnjax.cli import shared
from cnnjax.config import load
from cnnjax.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console


def run(parser: shared.Parser, argv: list[str]) -> int:
    parser.epilog = "With --init the evaluation is left in --workdir, or in runs/NAME."
    shared.add_network_flags(parser)
    parser.add_argument("--ensemble", default="", help="DIR,DIR,...: the scores of these runs are averaged")
    parser.add_argument("--dataset", default="", help="default: the run's own")
    parser.add_argument(
        "--split", default="", help="TFDS split syntax, as in test[:10%%] (default: the run's test_split)"
    )
    shared.add_view_flags(parser)
    parser.add_argument(
        "--protocol",
        default="",
        help="single, flip, center(S), five_crop(S), ten_crop(S), crop144(S), resize(S), dense(S) or "
        "multiscale(256, 384, 512) (default: the run's own)",
    )
    parser.add_argument("--average", default="", help="probabilities or logits (default: the run's own)")
    parser.add_argument("--data_dir", default="", help="where data sets are (default: TFDS's own)")
    args = parser.parse_args(argv)
    if args.batch_size < 0:
        raise InputError(f"--batch_size={args.batch_size}: expected at least 1")
    runs = [pathlib.Path(name.strip()) for name in args.ensemble.split(",") if name.strip()]
    if args.workdir and not args.init:
        runs.insert(0, pathlib.Path(args.workdir))
    if not runs and not args.init:
        raise InputError(
            "give a run's folder as --workdir=DIR, or several as --ensemble=DIR,DIR, or weights as --init=NAME"
        )
    for run in runs:
        load(run / "config.json")
    if args.init:
        short = re.sub(r"[^\w.-]+", "-", args.init).strip("-.")
        workdir, ensemble = pathlib.Path(args.workdir or f"runs/{short}"), runs
    else:
        workdir, *ensemble = runs

    console = shared.start()
    import jax

    from cnnjax.evaluation.evaluate import evaluate

    options = vars(args) | {"workdir": workdir, "ensemble": ensemble}
    leader = jax.process_index() == 0
    result = evaluate(**options, log=console.print if leader else lambda line: None)
    if leader:
        _print_evaluation(console, result)
    return 0


def _print_evaluation(console: "Console", result: dict[str, Any]) -> None:
    from rich.table import Table

    from cnnjax.evaluation import report

    table = Table(title=report.title(result), title_justify="left")
    shown = {
        "images": f"{result['count']:,}",
        "accuracy": f"{result['accuracy']:.2%}",
        "top-5": f"{result['top5']:.2%}",
        "loss": f"{result['loss']:.4f}",
        "macro F1": _number(result["f1_macro"], ".4f"),
        "ROC AUC": _number(result["roc_auc_macro"], ".4f"),
        "mean AP": _number(result["average_precision_macro"], ".4f"),
        "ECE": _number(result["ece"], ".2%"),
    }
    for name in shown:
        table.add_column(name, justify="right")
    table.add_row(*shown.values())
    console.print(table)
    shown = sorted((a, name) for name, a in result["per_class"].items() if a is not None)
    if len(shown) > 20:
        console.print("the ten hardest classes:")
        shown = shown[:10]
    classes = Table("class", "accuracy")
    for accuracy, name in shown:
        classes.add_row(name, f"{accuracy:.2%}")
    console.print(classes)
    console.print(
        f"more in {result['folder']}: metrics.json, per_class.csv, confusion.csv, calibration.csv, confusion.png, "
        "roc.png, precision_recall.png, calibration.png",
        soft_wrap=True,
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
