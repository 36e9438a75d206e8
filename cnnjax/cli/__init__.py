"""The command line: `main`, helpers that the commands share, and one module per command."""

from cnnjax.cli.main import COMMANDS, main

__all__ = ["COMMANDS", "main"]
