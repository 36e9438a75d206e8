"""Fetches a run or weights from a repository on the Hugging Face Hub, checked file by file."""

import os
import pathlib
from collections.abc import Callable

from cnnjax import config as configs
from cnnjax import register, sealed
from cnnjax.errors import InputError
from cnnjax.hub import content as contents
from cnnjax.hub import service
from cnnjax.hub.address import Address
from cnnjax.hub.content import CARD, KINDS, MANIFEST, WEIGHTS
from cnnjax.pretrained import description
from cnnjax.shell import command_line

Log = Callable[[str], None]


def pull(address: Address, to: str = "", log: Log = print) -> pathlib.Path:
    """Fetches a run or weights into a new folder, and returns the folder.

    Every file is checked against the digests in the repository's list. The folder appears once all match, so
    it is never incomplete. Code in it is not run.

    Args:
      address: the repository.
      to: the folder, which must not exist; '' for runs/NAME or weights/NAME.
      log: called with lines of text.

    Raises:
      InputError: no such repository, one that no `push` wrote, a folder that exists, a file that differs from its
        digest, or no network.
    """
    _check_new(to)
    snapshot = service.find(address)
    if MANIFEST not in snapshot.names:
        raise InputError(f"{address} was not written by `cnnjax push`: it has no {MANIFEST}{_weight_files(snapshot)}")
    listed = service.download(snapshot, MANIFEST)
    manifest = contents.parse_manifest(sealed.read(listed, contents.MAX_MANIFEST_BYTES), str(address))
    folder = pathlib.Path(to or f"{KINDS[manifest.kind].folder}/{address.name}")
    _check_new(str(folder))
    log(f"fetching {manifest.describe()} of {address}, commit {snapshot.commit[:12]}")
    with sealed.replacing_folder(folder) as new:
        for entry in manifest.entries:
            if not any(
                contents.take(entry, service.download(snapshot, entry.name, again), new) for again in (False, True)
            ):
                raise InputError(f"{address}: {entry.name} differs from its digest in {MANIFEST}; nothing was kept")
        if CARD in snapshot.names:
            (new / CARD).write_bytes(service.download(snapshot, CARD).read_bytes())
        _check(manifest.kind, new)
    return folder


def _check_new(folder: str) -> None:
    """Raises InputError if a file or folder of this name exists; '' passes."""
    if folder and os.path.lexists(folder):
        raise InputError(f"{folder} exists already; choose another folder with --to=DIR")


def _check(kind: str, folder: pathlib.Path) -> None:
    """Raises InputError if the fetched files are not what their kind says, although their digests are right."""
    if kind == "run":
        configs.load(folder / "config.json")
    elif description.read(folder / WEIGHTS) is None:
        raise InputError(f"{WEIGHTS} does not name its network")


def _weight_files(snapshot: service.Snapshot) -> str:
    """Returns the end of a message with the weight files of a repository; '' if it has none."""
    names = sorted(name for name in snapshot.names if name.endswith(".safetensors"))
    advice = "download one with `hf download`, and use it as in `cnnjax evaluate FILE --model=NAME`"
    return f"; its weight files: {', '.join(names[:3])} ({advice})" if names else ""


def next_steps(folder: pathlib.Path) -> list[str]:
    """Returns lines about what can be done with a fetched folder: commands, and the code of its own that it needs."""
    is_run = (folder / "config.json").exists()
    source = str(folder if is_run else folder / WEIGHTS)
    code = sorted((folder / register.FOLDER).glob("*.py"))
    lines = [f"it needs code of its own, which was not run: read {path}, and give it as --import=FILE" for path in code]
    return [*lines, command_line("evaluate", source), command_line("predict", source, "photograph.jpg")]
