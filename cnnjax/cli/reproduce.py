"""`cnnjax reproduce`: retrains weights of the catalog from scratch, and says whether the result is the same."""

import argparse
import pathlib

from cnnjax.cli import shared


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax reproduce` to its parser."""
    parser.usage = "cnnjax reproduce cnnjax:NAME [--workdir=DIR]"
    parser.epilog = (
        "With the same versions on the same kind of processor, the result is bit-identical. Otherwise its test "
        "accuracy has to lie in the interval that the card's runs of several seeds predict. The exit status is 0 for "
        "either, and 1 otherwise."
    )
    parser.add_argument(
        "name", metavar="cnnjax:NAME", help="weights of this package: `cnnjax weights cnnjax` lists them"
    )
    parser.add_argument(
        "--workdir", metavar="DIR", default="",
        help="folder of the run; a stopped run is resumed (default: runs/reproduce-NAME)",
    )  # fmt: skip
    shared.add_data_dir_flag(parser)


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax reproduce`. `overrides` is empty.

    Returns the exit status, 1 if the result is not within the spread, and 128 + n if signal n stopped the training.
    """
    from cnnjax.pretrained import catalog

    catalog.find_card(args.name)
    console = shared.setup_jax()
    import jax

    from cnnjax.runs.signals import Interrupted
    from cnnjax.training.reproduce import reproduce

    folder = pathlib.Path(args.workdir or f"runs/reproduce-{args.name.partition(':')[2]}")
    log = console.print_line
    try:
        result = reproduce(args.name, folder, data_dir=args.data_dir, console=console)
    except Interrupted as interruption:
        if jax.process_index() == 0:
            log(f"{interruption}; rerun the command to resume")
        return 128 + interruption.signal
    if jax.process_index() == 0:
        log(result.describe(), style="bold")
    return 0 if result.has_same_bits or result.is_within_spread else 1
