"""Where a run comes from, on its page: settings, software, and the commands that make and use it."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from cnnjax.config import FIELDS, Config, field_help
from cnnjax.register import command_line
from cnnjax.tables import Table


def changed_settings(config: Config) -> Table:
    """Returns a row for each setting that differs from its default: its value, the default, and its meaning."""
    texts = field_help()
    rows = [
        [name, _text(value), _text(FIELDS[name].default), texts[name]]
        for name, value in dataclasses.asdict(config).items()
        if value != FIELDS[name].default
    ]
    columns = ("setting", "value", "default", "meaning")
    return Table(columns, rows, frozenset(columns))


def versions(content: Mapping[str, Any]) -> Table:
    """Returns a row for each entry of versions.json but the command and the folder of data sets."""
    rows = [[name, str(value)] for name, value in content.items() if name not in ("command", "data_dir")]
    return Table(["software, device", "version"], rows, frozenset(("version",)))


def commands(folder: pathlib.Path, data_dir: str, is_resumable: bool = False) -> tuple[tuple[str, str], ...]:
    """Returns pairs of a purpose and the command for it, of a run in `folder` whose data are in `data_dir`.

    `is_resumable` is whether the run has stopped before its end.
    """
    run, with_data = str(folder), functools.partial(command_line, data_dir=data_dir)
    resume = {"Resume it:": with_data("train", f"--workdir={folder}")} if is_resumable else {}
    lines = resume | {
        "Train it again, in another folder:": with_data(
            "train", f"--config={folder / 'config.json'}", f"--workdir={folder}-again"
        ),
        "Evaluate it, with pictures of its mistakes:": with_data("evaluate", run, "--mistakes"),
        "Classify photographs of your own:": command_line("predict", run, "photograph.jpg"),
        "Look inside, at filters and feature maps:": with_data("visualize", run),
        "Use it in another program:": command_line("export", run, "--to=network.stablehlo"),
    }
    return tuple(lines.items())


def _text(value: Any) -> str:
    """Returns the value of a setting as text; a text that is empty as '' in quotes."""
    return "''" if value == "" else str(value)
