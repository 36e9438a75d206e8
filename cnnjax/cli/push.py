"""`cnnjax push`: sends a run or weights to a repository on the Hugging Face Hub."""

import argparse
import pathlib

from cnnjax.cli import shared


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax push` to its parser."""
    parser.usage = "cnnjax push RUN|FILE.safetensors hf:OWNER/NAME [--dry-run] [FLAGS]"
    parser.epilog = (
        "Needs the extra `hub`, and a token with write access: `hf auth login`. For a run it sends settings, "
        "metrics, checkpoints and evaluation results, but no pictures, which may show images of your data. "
        "It also sends class names, and the paths in the commands that made the run: check with --dry-run, "
        "which needs neither a token nor an internet connection."
    )
    parser.add_argument(
        "source", metavar="RUN|FILE", help="folder of a run; or a file of `cnnjax export --to=net.safetensors`"
    )
    parser.add_argument("address", metavar="hf:OWNER/NAME", help="the repository; created if it does not exist")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the files and the card that would be sent, and send nothing"
    )
    parser.add_argument(
        "--public", action="store_true", help="create a repository that anybody can see (default: private)"
    )
    parser.add_argument(
        "--step", default="all", help="checkpoints of the run: all, last, best or a number (default: all)"
    )
    parser.add_argument(
        "--license", metavar="ID", default="", help="license, for the card: apache-2.0, mit, cc-by-4.0, ..."
    )
    parser.add_argument("--card", metavar="FILE.md", help="the card, README.md of the repository (default: generated)")


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax push`. `overrides` is empty. Returns the exit status."""
    from cnnjax.hub import address

    destination = address.parse(args.address)
    console = shared.setup_jax()
    from cnnjax.hub.push import push

    push(
        pathlib.Path(args.source),
        destination,
        step=args.step,
        public=args.public,
        license_id=args.license,
        card=pathlib.Path(args.card) if args.card else None,
        dry_run=args.dry_run,
        log=console.print_line,
    )
    return 0
