"""The console of every command: a rich console that shows foreign text as it is."""

from typing import Any

import rich.console
from rich.text import Text

from cnnjax.errors import visible


class Console(rich.console.Console):
    """A rich console without markup, emoji codes and highlighting, as paths and class names may contain anything.

    '[red]' and ':smile:' are printed as such, in tables and progress bars, too. Control characters are printed as
    escapes, such as '\\x1b'.
    """

    def __init__(self, **options: Any) -> None:
        plain: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
        super().__init__(**plain | options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Renders a string as rich does, once its control characters are escaped."""
        return super().render_str(visible(text), **options)

    def print_line(self, text: str, style: str = "") -> None:
        """Prints a text without line breaks of its own: paths and commands in it stay whole, to be copied."""
        self.print(text, style=style, soft_wrap=True)

    def on_broken_pipe(self) -> None:
        """Raises BrokenPipeError when the reader of the output has exited; rich would end the process with status 1."""
        self.quiet = True
        raise BrokenPipeError
