"""The command line: `main`, what commands share, and one module a command."""

from cnnjax.cli.main import COMMANDS, main

__all__ = ["COMMANDS", "main"]
