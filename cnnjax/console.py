"""The console of every command: a rich console that shows foreign text as it is."""

from typing import Any

import rich.console
import rich.table
from rich.text import Text

from cnnjax import tables
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

    def print_list(self, title: str, table: tables.Table, form: str, min_width: int, where: str) -> None:
        """Prints a list in the format `form`, one of tables.FORMATS, or as a table of the terminal if it is ''.

        In less than `min_width` columns, prints the first four columns of the table, and `where` the others are shown.
        """
        if form:
            lines = tables.FORMATS[form](table)
        elif self.width < min_width:  # room for the numbers only
            numbers = tables.Table(table.headings[:4], [row[:4] for row in table.rows], table.names)
            lines = [title, "", *tables.as_text(numbers, self.width), "", where]
        else:
            view = rich.table.Table(title=title, title_justify="left")
            for heading in table.headings:
                align = "left" if heading in table.names else "right"
                view.add_column(heading, justify=align, no_wrap=heading != table.headings[-1], overflow="fold")
            for row in table.rows:
                view.add_row(*row)
            self.print(view)
            return
        for line in lines:
            self.print_line(line)

    def on_broken_pipe(self) -> None:
        """Raises BrokenPipeError when the reader of the output has exited; rich would end the process with status 1."""
        self.quiet = True
        raise BrokenPipeError
