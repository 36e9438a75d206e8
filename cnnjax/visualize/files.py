"""The files of pictures: PNG, SVG and arrays of each, and an index of what is in the folder."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnjax import sealed, style
from cnnjax.errors import InputError
from cnnjax.pages import gallery
from cnnjax.shell import command_line
from cnnjax.visualize import frames
from cnnjax.visualize.kinds import KINDS, Result

INDEX = "index"  # index.json lists the pictures, index.html shows them
SUFFIXES = (".png", ".svg", ".npz")
FRAMES_SUFFIXES = (*frames.SUFFIXES, ".npz")


@dataclasses.dataclass(frozen=True)
class Picture:
    """An entry of the index.

    Attributes:
      name: name of its files without suffix.
      kind: kind of picture, a key of `KINDS`.
      network: what was loaded, and the step of its checkpoint.
      note: the result's note.
      suffixes: of its files; the first is shown.
    """

    name: str
    kind: str
    network: str
    note: str
    suffixes: Sequence[str] = SUFFIXES


def arrays(result: Any) -> dict[str, np.ndarray]:
    """Returns the fields of a result as arrays for an .npz file, which loads without pickle.

    The arrays in a mapping, a sequence or another dataclass are named by path: 'maps/conv1'. A field of None is left
    out.
    """
    found: dict[str, np.ndarray] = {}

    def add(name: str, value: Any) -> None:
        if dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                add(f"{name}/{field.name}" if name else field.name, getattr(value, field.name))
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                add(f"{name}/{key}" if name else str(key), inner)
        elif value is not None:
            try:
                array = np.asarray(value)
            except ValueError:  # arrays of different shapes
                array = np.empty(0, object)
            if array.dtype.kind != "O":
                found[name] = array
            elif isinstance(value, list | tuple):
                for i, inner in enumerate(value):
                    add(f"{name}/{i}", inner)

    add("", result)
    return found


def make_folder(folder: pathlib.Path) -> None:
    """Makes the folder of the pictures, unless it exists. Raises InputError if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--to={folder}: the folder cannot be made: {error.strerror or error}") from error


def save(result: Result, folder: pathlib.Path, name: str) -> pathlib.Path:
    """Writes the picture of a result as `name`.png and `name`.svg, and its arrays as `name`.npz; returns the first.

    Each file replaces an earlier one atomically. Raises InputError if it cannot be written.
    """
    path, *_ = style.save(result.figure(), folder / name)
    _save_arrays(result, folder / f"{name}.npz")
    return path


def save_frames(results: Mapping[int, Result], folder: pathlib.Path, name: str) -> pathlib.Path:
    """Writes the results of several steps as animations, and their arrays as `name`.npz; returns the first animation.

    An array is named by its step and field: '400/kernels'.
    """
    path, *_ = frames.save(frames.render(frames.draw([*results.values()]), [*results]), folder / name)
    _save_arrays(results, folder / f"{name}.npz")
    return path


def _save_arrays(result: Any, path: pathlib.Path) -> None:
    """Writes the arrays of a result, or of results by name, as an .npz file."""
    with sealed.replacing(path) as file:
        np.savez_compressed(file, **arrays(result))  # pyright: ignore[reportArgumentType]


def write_index(folder: pathlib.Path, pictures: list[Picture]) -> pathlib.Path:
    """Adds pictures to index.json and index.html of a folder; returns the path of the latter.

    Pictures of earlier commands stay listed as long as their files exist.
    """
    new = {picture.name: picture for picture in pictures}
    earlier = [picture for picture in read_index(folder) if picture.name not in new]
    kept = [picture for picture in earlier if (folder / f"{picture.name}{picture.suffixes[0]}").is_file()]
    listed = [*kept, *new.values()]
    sealed.write_plain_json(folder / f"{INDEX}.json", [dataclasses.asdict(picture) for picture in listed])
    sealed.write_atomically(folder / f"{INDEX}.html", _page(folder, listed).encode())
    return folder / f"{INDEX}.html"


def read_index(folder: pathlib.Path) -> list[Picture]:
    """Returns the pictures that index.json of a folder lists; [] if there is none.

    Raises InputError if the file is no index, which is then not replaced.
    """
    path = folder / f"{INDEX}.json"
    try:
        return [Picture(**entry) for entry in json.loads(sealed.read(path))]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not an index of pictures: move it, or pass another folder") from error


def _page(folder: pathlib.Path, listed: list[Picture]) -> str:
    """Returns the HTML page of an index: each picture below its kind, with links to its files."""
    networks = list(dict.fromkeys(picture.network for picture in listed))
    shown = [name for name in KINDS if any(picture.kind == name for picture in listed)]
    others = tuple((name, kind.help) for name, kind in KINDS.items() if name not in shown)
    kinds = tuple(
        gallery.Kind(
            name, KINDS[name].help,
            tuple(
                gallery.drawn(folder, picture.name, picture.network, picture.note, picture.suffixes)
                for picture in listed
                if picture.kind == name
            ),
        )
        for name in shown
    )  # fmt: skip
    source = networks[-1].rpartition(", step ")[0] or networks[-1]
    command = command_line("visualize", source, f"--what={others[0][0]}", f"--to={folder}") if others else ""
    title = f"Pictures of {networks[0] if len(networks) == 1 else f'{len(networks)} networks'}"
    return gallery.html(gallery.Gallery(title, kinds, others, command))
