"""Sends a run or weights to a repository on the Hugging Face Hub."""

import pathlib
from collections.abc import Callable

from cnnjax import pretrained, sealed
from cnnjax.errors import InputError
from cnnjax.hub import card as cards
from cnnjax.hub import content as contents
from cnnjax.hub import service
from cnnjax.hub.address import Address
from cnnjax.hub.content import ALL, CARD, MANIFEST, Content, Manifest
from cnnjax.pretrained import description
from cnnjax.shell import command_line

OF_THE_HUB = frozenset((CARD, ".gitattributes"))  # files that a repository may have before the first push

Log = Callable[[str], None]


def push(
    source: pathlib.Path,
    address: Address,
    *,
    step: str | int = ALL,
    public: bool = False,
    license_id: str = "",
    card: pathlib.Path | None = None,
    dry_run: bool = False,
    log: Log = print,
) -> None:
    """Sends a run or a weight file to a repository, in one commit.

    A repository that does not exist is created. The files of an earlier push are replaced; the earlier
    ones stay in its history.

    Args:
      source: a run's folder, or a .safetensors file that `cnnjax export` wrote.
      address: the repository.
      step: checkpoints of the run: 'all', 'last', 'best' or a number.
      public: whether anybody can see a repository that is created.
      license_id: identifier of the license for the card, such as 'apache-2.0'; '' for none.
      card: the card, a Markdown file; None for one that is made of the run.
      dry_run: only log what would be sent.
      log: called with lines of text.

    Raises:
      InputError: a source, an address or a checkpoint that does not exist, a repository with other content, no token,
        or no network.
    """
    if address.revision:
        raise InputError(f"{address}: a push makes a new commit on the main branch; leave out '@{address.revision}'")
    content = contents.gather(source, step)
    manifest = content.manifest()
    text = _read_card(card) if card else cards.write(manifest, _load(source, content), source, address, license_id)
    if dry_run:
        _describe(manifest, text, address, log)
        return
    service.check_login()
    service.create(address, public)
    snapshot = service.find(address)
    stale = _former_names(snapshot) - content.files.keys()
    visible_to = "only you and those you choose" if snapshot.is_private else "anybody"
    log(f"sending {manifest.describe()} to {address}, which {visible_to} can see")
    files = {**content.files, MANIFEST: manifest.to_json(), CARD: text.encode()}
    commit = service.commit(snapshot, files, stale, f"Push a {manifest.kind} with cnnjax")
    log(f"{address} is at commit {commit[:12]}; fetch it with: {command_line('pull', str(address))}")


def _load(source: pathlib.Path, content: Content) -> pretrained.LoadedNetwork:
    """Returns the network of a run or weight file. Raises InputError if the file does not say which it is."""
    if content.kind == "weights" and description.read(source) is None:
        raise InputError(
            f"{source} does not name its network: give a file that `cnnjax export --to=net.safetensors` wrote"
        )
    return pretrained.load(source)


def _read_card(path: pathlib.Path) -> str:
    """Reads a card. Raises InputError if it is missing or not text."""
    try:
        return sealed.read(path).decode()
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise InputError(f"--card={path}: expected a Markdown file: {error}") from error


def _former_names(snapshot: service.Snapshot) -> frozenset[str]:
    """Returns the names that an earlier push listed. Raises InputError if the repository has content of another kind.

    Files that somebody has added on the Hub are not among them.
    """
    if MANIFEST in snapshot.names:
        listed = service.download(snapshot, MANIFEST)
        manifest = contents.parse_manifest(sealed.read(listed, contents.MAX_MANIFEST_BYTES), str(snapshot.address))
        return frozenset(entry.name for entry in manifest.entries) & snapshot.names
    if others := sorted(snapshot.names - OF_THE_HUB):
        raise InputError(
            f"{snapshot.address} has files that `cnnjax push` did not write, such as {others[0]}: choose another name"
        )
    return frozenset()


def _describe(manifest: Manifest, card: str, address: Address, log: Log) -> None:
    """Logs what a push would send: the files and the card."""
    log(f"would send {manifest.describe()} to {address}:")
    for entry in manifest.entries:
        log(f"{entry.size:>12,}  {entry.name}")
    log(f"and, as {CARD}:\n\n{card}")
