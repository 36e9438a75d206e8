"""The skeleton of all pages: templates, styles and scripts become one self-contained HTML file.

A page is a template of `templates/` that extends base.html, filled with a frozen dataclass. All text is escaped, and
characters that a browser would obey instead of showing are shown as escapes. To add a page: write its dataclass and a
template; `macros.html` has tables, pictures, charts and commands.
"""

import dataclasses
import functools
import pathlib
import re
from typing import Any

import jinja2
from markupsafe import Markup

from cnnjax import sealed
from cnnjax.errors import InputError, visible

HERE = pathlib.Path(__file__).parent
SUFFIX = ".html"


@dataclasses.dataclass(frozen=True)
class Bar:
    """A row of a table with bars: `fraction` in [0, 1] is the length of its bar; `link` is of its name, '' for none."""

    name: str
    text: str
    fraction: float
    link: str = ""


def render(template: str, **values: Any) -> str:
    """Returns the HTML of a template in `templates/` with these values. A value that is missing is an error."""
    return _environment().get_template(template).render(**values)


def write(path: pathlib.Path, content: str) -> int:
    """Writes a page so that `path` has the whole page or the earlier one. Returns its size in bytes.

    Creates the folder. Raises InputError if the name does not end in .html, or the file cannot be written.
    """
    check_path(path)
    data = content.encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent} cannot be made: {error.strerror or error}") from error
    sealed.write_atomically(path, data)
    return len(data)


def check_path(path: pathlib.Path) -> None:
    """Raises InputError if `path` is not the name of a page: it has to end in .html, and not be a folder."""
    if path.suffix != SUFFIX or path.is_dir():
        raise InputError(f"{path}: expected the name of a file that ends in {SUFFIX}")


@functools.cache
def _environment() -> jinja2.Environment:
    """Returns the environment of the templates, which escapes every value that is not HTML already."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.globals["static"] = _static
    return environment


def _shown(value: Any) -> Any:
    """Prepares every text that a template shows.

    Control characters and marks that reorder text are replaced by escapes. A percent sign stays with its number.
    """
    if type(value) is not str:  # Markup is a subclass
        return value
    return re.sub(r"(?<=\d) (?=%)", "\N{NO-BREAK SPACE}", visible(value))


def _static(name: str) -> Markup:
    """Returns the content of a file of `static/` as it is, for a <style> or <script> of a page."""
    return Markup((HERE / "static" / name).read_text(encoding="utf-8"))
