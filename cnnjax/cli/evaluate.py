"""`cnnjax evaluate`: evaluates a checkpoint, an ensemble of runs, or published weights."""

import argparse
import pathlib
from typing import TYPE_CHECKING, Any

from cnnjax.cli import shared
from cnnjax.config import load
from cnnjax.errors import InputError

if TYPE_CHECKING:
    from cnnjax.console import Console
    from cnnjax.evaluation.robustness_report import Robustness
    from cnnjax.pretrained import FileOptions

PROTOCOLS = (
    "single, flip, six_view, center(S), five_crop(S), ten_crop(S), crop144(S), resize(S), dense(S) or "
    "multiscale(256, 384, 512)"
)
MAX_CLASSES_SHOWN = 20
HARDEST_CLASSES = 10  # shown where there are more
MAX_PAIRS_SHOWN = 5  # of classes that are confused


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax evaluate` to its parser."""
    parser.usage = "cnnjax evaluate RUN|NAME|FILE [FLAGS]"
    parser.epilog = (
        "The results of published weights and weight files are written to --workdir or, by default, to runs/NAME. If "
        "that is the folder of a run, they do not count as results of the run."
    )
    shared.add_network_flags(parser)
    parser.add_argument(
        "--ensemble", metavar="DIR,DIR,...", default="", help="average the predictions of these runs, too"
    )
    parser.add_argument("--dataset", metavar="NAME", default="", help="data set (default: the run's)")
    parser.add_argument(
        "--split", default="", help="split, in TFDS syntax: test[:10%%] (default: the run's test_split)"
    )
    shared.add_preprocessing_flags(parser)
    parser.add_argument("--protocol", default="", help=f"test protocol: {PROTOCOLS} (default: the run's)")
    parser.add_argument(
        "--average", default="", help="what is averaged over views: probabilities or logits (default: the run's)"
    )
    parser.add_argument(
        "--match_classes",
        metavar="HOW",
        default="",
        help="how to match the classes if they are not the network's: 'name' matches equal names in any order, "
        "'position' ignores the names (default: an error)",
    )
    parser.add_argument(
        "--mistakes", action="store_true",
        help="show the most confident mistakes, the least confident hits and the most confused classes as pictures",
    )  # fmt: skip
    parser.add_argument(
        "--calibrate", metavar="SPLIT", default="",
        help="fit a temperature on this split, and report the calibration error before and after; val_split is the "
        "run's validation split",
    )  # fmt: skip
    parser.add_argument(
        "--groups", metavar="FILE|LABEL", default="",
        help="report the accuracy of each group of images: a CSV file with two columns, index in the split and group; "
        "or another label of the data set, such as cifar100's coarse_label",
    )  # fmt: skip
    robustness = parser.add_argument_group("robustness, instead of the usual report")
    robustness.add_argument(
        "--corrupt", metavar="NAME,...", default="",
        help="evaluate on corrupted images (Hendrycks & Dietterich 2019): all, a group (noise, blur, weather, digital, "
        "extra) or names such as fog",
    )  # fmt: skip
    robustness.add_argument("--severity", metavar="N,...", default="", help="severities 1 to 5 (default: all)")
    robustness.add_argument(
        "--reference", metavar="alexnet|CSV", default="",
        help="also divide the errors by another network's: its corruptions.csv, or AlexNet's published ones (ImageNet)",
    )  # fmt: skip
    robustness.add_argument(
        "--shift", type=int, default=0, metavar="N", help="evaluate on images shifted by up to N pixels"
    )
    shared.add_data_dir_flag(parser)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax evaluate`: evaluates, writes the results and prints them.

    `overrides` is empty. Returns the exit status.
    """
    folders = _folders(args)
    options = shared.file_options(args)  # for a run, an error
    _check_flags(args)
    console = shared.setup_jax()
    if args.corrupt or args.shift:
        return _run_robustness(args, folders, options, console)
    import jax

    from cnnjax.evaluation.evaluate import evaluate

    is_leader = jax.process_index() == 0
    result = evaluate(
        folders[0],
        ensemble=folders[1:],
        init=args.init,
        like=args.like,
        model=args.model,
        normalize=args.normalize,
        classes=args.classes,
        match=args.match,
        step=args.step,
        dataset=args.dataset,
        split=args.split,
        protocol=args.protocol,
        average=args.average,
        batch_size=args.batch_size,
        preprocess=args.preprocess,
        match_classes=args.match_classes,
        calibrate=args.calibrate,
        groups=args.groups,
        mistakes=args.mistakes,
        data_dir=args.data_dir,
        log=console.print_line if is_leader else lambda line: None,
    )
    if is_leader:
        _print_evaluation(console, result)
    return 0


def _folders(args: argparse.Namespace) -> list[pathlib.Path]:
    """Returns the folders of the runs; the first takes the report. Raises InputError if no network is given.

    Sets --workdir or --init to the first word.
    """
    if not args.init:
        shared.take_first_word(args)
    shared.check_words(args, args.init or args.workdir)
    shared.check_batch_size(args)
    folders = [pathlib.Path(name.strip()) for name in args.ensemble.split(",") if name.strip()]
    if args.workdir and not args.init:
        folders.insert(0, pathlib.Path(args.workdir))
    if not folders and not args.init:
        raise shared.no_network(", or several runs as --ensemble=DIR,DIR")
    for folder in folders:
        load(folder / "config.json")
    if args.init:
        folders.insert(0, shared.results_folder(args))
    return folders


def _check_flags(args: argparse.Namespace) -> None:
    """Raises InputError for flags that do not go together, and for a wrong name or severity of --corrupt.

    So these fail before anything is loaded.
    """
    if unused := [name for name in ("severity", "reference") if getattr(args, name) and not args.corrupt]:
        raise InputError(f"--{unused[0]} is for corrupted images: give --corrupt=all as well")
    if (args.corrupt or args.shift) and (
        unused := [name for name in ("mistakes", "calibrate", "groups") if getattr(args, name)]
    ):
        raise InputError(f"--{unused[0]} cannot be combined with --corrupt or --shift, which report only errors")
    if args.corrupt:
        from cnnjax.data import corruptions

        corruptions.select(args.corrupt)
        corruptions.parse_severities(args.severity)


def _run_robustness(
    args: argparse.Namespace, folders: list[pathlib.Path], options: "FileOptions", console: "Console"
) -> int:
    """Evaluates one network on corrupted or shifted images, and prints the result. Returns the exit status."""
    import jax

    from cnnjax import pretrained
    from cnnjax.evaluation.evaluate import changed_settings
    from cnnjax.evaluation.recipe import with_views
    from cnnjax.evaluation.robustness_report import evaluate_robustness

    if len(folders) > 1:
        raise InputError("--corrupt and --shift take a single network, not an ensemble")
    is_leader = jax.process_index() == 0
    log = console.print_line if is_leader else lambda line: None
    network = pretrained.load(args.init or folders[0], options, log)
    views = {"preprocess": args.preprocess, "protocol": args.protocol or None, "average": args.average or None}
    settings = changed_settings([network.config], views, args.init, options, args.match_classes)
    network = network.replace(config=with_views(network.config, batch_size=args.batch_size, **views))
    result = evaluate_robustness(
        network,
        folders[0],
        corrupt=args.corrupt,
        severity=args.severity,
        shift=args.shift,
        reference=args.reference,
        dataset=args.dataset,
        split=args.split,
        match_classes=args.match_classes,
        step=args.step,
        data_dir=args.data_dir,
        description=settings,
        log=log,
    )
    if is_leader:
        _print_robustness(console, result)
    return 0


def _print_robustness(console: "Console", result: "Robustness") -> None:
    """Prints the errors by corruption and severity, their means, and the consistency under shifts."""
    from rich.table import Table

    if errors := result.corruptions:
        table = Table("corruption", title=f"error; clean: {errors.clean:.2%}", title_justify="left")
        headings = [*(f"severity {severity}" for severity in errors.severities), "mean"]
        for heading in headings + (["/ reference"] if result.relative else []):
            table.add_column(heading, justify="right")
        for row, name in enumerate(errors.names):
            cells = [f"{value:.2%}" for value in (*errors.errors[row], errors.errors[row].mean())]
            table.add_row(name, *cells, *([f"{result.relative.ratios[row]:.3f}"] if result.relative else []))
        console.print(table)
        console.print(f"mean corruption error (not normalized): {errors.mean:.2%} of {errors.count:,} images")
    if relative := result.relative:
        console.print_line(
            f"relative to {relative.reference}: mCE {relative.mce:.1%}, relative mCE {relative.relative_mce:.1%}"
        )
    if shifts := result.shifts:
        table = Table("pixels", "accuracy", "same class as unshifted")
        for pixels, values in enumerate(zip(shifts.accuracy, shifts.agreement, strict=True)):
            table.add_row(str(pixels), *(f"{value:.2%}" for value in values))
        console.print(table)
        console.print(f"consistency over all pairs of shifts: {shifts.consistency:.2%} of {shifts.count:,} images")
    console.print_line(f"figures and tables are in {result.folder}")


def _print_evaluation(console: "Console", result: dict[str, Any]) -> None:
    """Prints the metrics and the accuracy of each class or, with many classes, of the hardest ones.

    `result` is what `evaluate` returns.
    """
    from rich.table import Table

    from cnnjax.evaluation import report
    from cnnjax.metrics import METRICS

    table = Table(title=report.title(result), title_justify="left")
    metrics = {
        "images": f"{result['count']:,}",
        **{row.heading: row.format(result[name]) for name, row in METRICS.items()},
        "macro F1": _format(result["f1_macro"], ".4f"),
        "ROC AUC": _format(result["roc_auc_macro"], ".4f"),
        "mean AP": _format(result["average_precision_macro"], ".4f"),
        "ECE": _format(result["ece"], ".2%"),
    }
    for name in metrics:
        table.add_column(name, justify="right")
    table.add_row(*metrics.values())
    console.print(table)
    classes = sorted((accuracy, name) for name, accuracy in result["per_class"].items() if accuracy is not None)
    if len(classes) > MAX_CLASSES_SHOWN:
        console.print(f"the {HARDEST_CLASSES} classes with the lowest accuracy:")
        classes = classes[:HARDEST_CLASSES]
    table = Table("class", "accuracy")
    for accuracy, name in classes:
        table.add_row(name, f"{accuracy:.2%}")
    console.print(table)
    if "per_group" in result:
        table = Table("group", "accuracy")
        for name, accuracy in result["per_group"].items():
            table.add_row(name, f"{accuracy:.2%}")
        console.print(table)
    if "temperature" in result:
        console.print(
            f"temperature {result['temperature']:.3f}, fitted on {result['temperature_split']}: ECE "
            f"{_format(result['ece'], '.2%')} -> {result['ece_scaled']:.2%}, negative log-likelihood "
            f"{_format(result['nll'], '.4f')} -> {result['nll_scaled']:.4f}",
        )
    if pairs := result.get("confused_pairs"):
        shown = (f"{pair['label']} as {pair['prediction']} {pair['images']:,}" for pair in pairs[:MAX_PAIRS_SHOWN])
        console.print_line(f"confused most: {', '.join(shown)}")
    console.print_line(f"more in {result['folder']}: {_file_names(pathlib.Path(result['folder']))}")


def _file_names(folder: pathlib.Path) -> str:
    """Returns the names of the files in a folder, those that differ in their suffix as one: 'roc (.png, .svg), ...'."""
    suffixes: dict[str, list[str]] = {}
    for path in sorted(folder.iterdir()):
        suffixes.setdefault(path.stem, []).append(path.suffix)
    return ", ".join(
        f"{stem} ({', '.join(found)})" if len(found) > 1 else stem + found[0] for stem, found in suffixes.items()
    )


def _format(value: float | None, form: str) -> str:
    """Formats a number with the format specification `form`; None as '-'."""
    return "-" if value is None else format(value, form)
