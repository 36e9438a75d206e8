"""Chooses the files of a run, or a weight file, for a repository, and lists these files with their digests.

The list, `MANIFEST`, is a file of the repository, too. Only files of `KINDS` are in it, so that whoever pulls a
repository gets data and no program: the copies of registered code in imports/ are never run from there.
"""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from cnnjax import __version__, sealed
from cnnjax.errors import InputError, missing
from cnnjax.evaluation import report
from cnnjax.paths import check_run_folder
from cnnjax.runs import checkpoint, workdir

MANIFEST, CARD = "cnnjax.json", "README.md"
WEIGHTS = "model.safetensors"
MAX_MANIFEST_BYTES = 10_000_000
ALL = "all"  # checkpoints
_PART = r"(?!\.)[^/\\\x00-\x1f\x7f]+"  # of a path: no hidden file, and no '..'


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of content.

    Attributes:
      folder: where `cnnjax pull` puts it, in a folder of the repository's name.
      names: pattern of the names of its files, relative to the folder.
      required: files that it cannot lack.
    """

    folder: str
    names: re.Pattern[str]
    required: tuple[str, ...]


# Pictures and TensorBoard files of a run are not sent: they show images of the data set, or can be regenerated. Nor are
# evaluations of other weights than the run's own.
KINDS = {
    "run": Kind(
        "runs",
        re.compile(
            r"(config|data|versions|result)\.json|statistics\.npz|metrics\.(jsonl|crc)"
            rf"|imports/{_PART}|evaluations/{_PART}/(metrics\.json|{_PART}\.csv)|checkpoints/\d{{8}}(/{_PART})+"
        ),
        ("config.json", "data.json"),
    ),
    "weights": Kind("weights", re.compile(re.escape(WEIGHTS)), (WEIGHTS,)),
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file of a repository: its name there, with '/' between folders, its bytes, and its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The list of the files that a repository holds: `kind` is a key of `KINDS`."""

    kind: str
    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Returns the bytes of all files together."""
        return sum(entry.size for entry in self.entries)

    def describe(self) -> str:
        """Returns how much there is: '47 files, 1.2 MB'."""
        count = len(self.entries)
        return f"{count} file{'s' * (count != 1)}, {max(self.size / 1e6, 0.1):,.1f} MB"

    def to_json(self) -> bytes:
        """Returns the list as the content of the file `MANIFEST`."""
        files = {entry.name: {"bytes": entry.size, "sha256": entry.sha256} for entry in self.entries}
        return (json.dumps({"kind": self.kind, "cnnjax": __version__, "files": files}, indent=2) + "\n").encode()


@dataclasses.dataclass(frozen=True)
class Content:
    """Files of a run or of weights on this machine: `files` has their paths by their names in a repository."""

    kind: str
    files: Mapping[str, pathlib.Path]

    def manifest(self) -> Manifest:
        """Returns the list of the files, after reading them for their digests."""
        return Manifest(self.kind, tuple(_entry(name, path) for name, path in self.files.items()))


def gather(source: pathlib.Path, step: str | int = ALL) -> Content:
    """Finds the files of a run's folder, or takes a .safetensors file.

    `step` selects the checkpoints of a run: 'all', 'last', 'best' or a number. Raises InputError for anything else,
    for a run that has no such checkpoint or trains at this moment, and for links in its folder.
    """
    if not source.is_dir():
        if not source.exists():
            raise InputError(missing(source))
        if not source.is_file() or source.suffix != ".safetensors":
            raise InputError(
                f"{source} is neither a run's folder nor a .safetensors file, as "
                "`cnnjax export RUN --to=net.safetensors` writes"
            )
        if step != ALL:
            raise InputError(f"--step={step} is only for a run, and {source} is a weight file")
        return Content("weights", {WEIGHTS: source})
    check_run_folder(source)
    workdir.read_json(source / "config.json")  # for its error: not the folder of a run, or damaged
    if workdir.is_locked(source):
        raise InputError(f"{source} is being trained at this moment; push it when that has ended or is stopped")
    for path in source.iterdir():
        sealed.check_no_link(path)
    chosen = _chosen(source, step)
    files = {}
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        folder, _, rest = name.partition("/")
        is_left_out = folder == checkpoint.FOLDER and rest.partition("/")[0] not in chosen
        if path.is_file() and KINDS["run"].names.fullmatch(name) and not is_left_out:
            sealed.check_no_link(path)
            files[name] = path
    reports = (path for name in ("metrics", "robustness") for path in source.glob(f"evaluations/*/{name}.json"))
    others = {path.parent for path in reports if not report.is_of_run(report.read(path))}
    return Content("run", {name: path for name, path in files.items() if path.parent not in others})


def _chosen(folder: pathlib.Path, step: str | int) -> set[str]:
    """Returns the names of the chosen checkpoints: '00000500'. Raises InputError if there is none."""
    steps = checkpoint.steps(folder)
    chosen = steps if step == ALL and steps else [checkpoint.find(folder, step, others=(ALL,))]
    return {f"{number:08d}" for number in chosen}


def _entry(name: str, path: pathlib.Path) -> Entry:
    """Reads a file, and returns its entry."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Entry(name, file.tell(), digest)


def parse_manifest(text: bytes, source: str) -> Manifest:
    """Parses the content of a file `MANIFEST`. `source` is its repository, for messages.

    Raises InputError if it is damaged, of a kind that this version does not know, or lists a file that does not belong
    to its kind.
    """
    try:
        content: dict[str, Any] = json.loads(text)
        kind, version = str(content["kind"]), str(content["cnnjax"])
        entries = tuple(Entry(name, int(e["bytes"]), str(e["sha256"])) for name, e in content["files"].items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{source}: its {MANIFEST} is damaged: {error!r}") from error
    if kind not in KINDS:
        raise InputError(
            f"{source}: {MANIFEST} is of kind {kind!r}, written by cnnjax {version}; this is {__version__}"
        )
    for entry in entries:
        if not KINDS[kind].names.fullmatch(entry.name):
            raise InputError(
                f"{source}: {MANIFEST} lists {entry.name!r}, which is not a file of a {kind}; nothing is copied"
            )
    if lacking := set(KINDS[kind].required) - {entry.name for entry in entries}:
        raise InputError(f"{source}: {MANIFEST} lists no {', '.join(sorted(lacking))}, which a {kind} requires")
    return Manifest(kind, entries)


def take(entry: Entry, path: pathlib.Path, folder: pathlib.Path) -> bool:
    """Copies a downloaded file into `folder` if it has the size and digest of its entry. Returns whether it has."""
    if path.stat().st_size != entry.size:
        return False
    target = folder / entry.name
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with path.open("rb") as file, target.open("wb") as copy:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            copy.write(chunk)
    return digest.hexdigest() == entry.sha256
