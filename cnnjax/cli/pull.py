"""`cnnjax pull`: fetches a run or weights from a repository on the Hugging Face Hub."""

import argparse

from cnnjax.cli import shared


def add_flags(parser: shared.Parser) -> None:
    """Adds the arguments and flags of `cnnjax pull` to its parser."""
    parser.usage = "cnnjax pull hf:OWNER/NAME[@REVISION] [--to=DIR]"
    parser.epilog = (
        "Needs the extra `hub`; for a private repository also a token: `hf auth login`. Every file is checked against "
        "the digests that `cnnjax push` wrote. No code is ever run. A run that needs registered code of "
        "its own has a copy of it in imports/: read it, then pass --import=FILE."
    )
    parser.add_argument(
        "address", metavar="hf:OWNER/NAME[@REVISION]",
        help="the repository; REVISION is a branch, tag or commit (default: the newest commit)",
    )  # fmt: skip
    parser.add_argument("--to", metavar="DIR", default="", help="new folder (default: runs/NAME, or weights/NAME)")


def run(args: argparse.Namespace, overrides: list[str]) -> int:
    """Runs `cnnjax pull`, and prints the commands that use the files. `overrides` is empty. Returns the exit status."""
    from cnnjax.hub import address

    source = address.parse(args.address)
    console = shared.make_console()
    from cnnjax.hub.pull import next_steps, pull

    folder = pull(source, args.to, console.print_line)
    for line in next_steps(folder):
        console.print_line(line)
    return 0
