"""The Hugging Face Hub, through `huggingface_hub`: an extra, imported when a command asks for it.

Each function raises InputError, in one line, for what the Hub or the network refuses.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from cnnjax import __version__, extras
from cnnjax.errors import InputError, nearest
from cnnjax.hub.address import PREFIX, Address

LOG_IN = "run `hf auth login`, or set HF_TOKEN"
MAX_SUGGESTED = 200  # repositories of an owner that a wrong name is compared with

# What an error of huggingface_hub means to a person, by the name of its class.
MEANINGS = {
    "LocalTokenNotFoundError": f"you are not logged in: {LOG_IN}",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set in the environment; unset it to use the network",
    "GatedRepoError": "its owner gives access on request: ask for it on the repository's page",
    "RevisionNotFoundError": "there is no such branch, tag or commit",
}
STATUSES = {
    401: f"the Hub rejects your token, or requires one: {LOG_IN}",
    403: "your token may not do this",
    409: "somebody else has just changed it; try again",
    412: "somebody else has just changed it; try again",
    429: "the Hub limits the rate of requests; try again later",
}


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A repository at one commit.

    Attributes:
      address: the repository.
      commit: its hexadecimal digest.
      names: names of all files.
      is_private: whether only its owner sees it.
    """

    address: Address
    commit: str
    names: frozenset[str]
    is_private: bool


def check_login() -> None:
    """Raises InputError if there is no token of the Hub on this machine."""
    if not _library().get_token():
        raise InputError(f"you are not logged in to the Hugging Face Hub: {LOG_IN}")


def find(address: Address) -> Snapshot:
    """Returns a repository at its revision. If there is none, the error names the owner's most similar one."""
    with _as_input_error(address):
        info = _api().repo_info(address.repository, revision=address.revision or None)
        names = frozenset(file.rfilename for file in info.siblings or ())
        return Snapshot(address, info.sha, names, bool(info.private))


def create(address: Address, public: bool) -> None:
    """Creates a repository, private unless `public`. Does nothing if there is one of this name."""
    with _as_input_error(address):
        _api().create_repo(address.repository, private=not public, exist_ok=True)


def download(snapshot: Snapshot, name: str, again: bool = False) -> pathlib.Path:
    """Downloads a file into the cache of huggingface_hub, and returns its path there.

    `again` downloads it even if the cache has it.
    """
    with _as_input_error(snapshot.address):
        path = _api().hf_hub_download(snapshot.address.repository, name, revision=snapshot.commit, force_download=again)
        return pathlib.Path(path).resolve()


def commit(snapshot: Snapshot, files: Mapping[str, pathlib.Path | bytes], deleted: frozenset[str], message: str) -> str:
    """Adds files, and deletes others, in one commit, whose digest is returned.

    Raises InputError also if the repository has changed since the snapshot.
    """
    library = _library()
    add, delete = library.CommitOperationAdd, library.CommitOperationDelete
    operations = [add(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
    operations += [delete(path_in_repo=name) for name in sorted(deleted)]
    with _as_input_error(snapshot.address):
        done = _api().create_commit(
            snapshot.address.repository, operations, commit_message=message, parent_commit=snapshot.commit
        )
        return str(done.oid)


def _library() -> Any:
    """Returns the module huggingface_hub. Raises InputError if the extra is not installed."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # one for each of some forty files; read at import
    return extras.load("huggingface_hub", "hub")


def _api() -> Any:
    """Returns a client of the Hub, with the token of this machine if there is one."""
    return _library().HfApi(library_name="cnnjax", library_version=__version__)


@contextlib.contextmanager
def _as_input_error(address: Address) -> Iterator[None]:
    """Context manager that turns the errors of huggingface_hub, and of the network below it, into an InputError."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # of several HTTP libraries, each with errors of its own
        raise InputError(f"{address}: {_meaning(error, address)}") from error


def _meaning(error: Exception, address: Address) -> str:
    """Returns what an error means, and what to do."""
    names = [kind.__name__ for kind in type(error).__mro__]
    if meaning := next((MEANINGS[name] for name in names if name in MEANINGS), ""):
        return meaning
    if "RepositoryNotFoundError" in names:
        return f"there is no such repository, or your token may not read it{_similar(address)}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in STATUSES:
        return STATUSES[status] + (_owners(address) if status == 403 else "")
    reason = next((line for line in str(error).splitlines() if line.strip()), "")
    if status is not None:
        return f"the Hub answers with status {status}: {reason}"
    return f"the Hub cannot be reached or read: {type(error).__name__}: {reason}"


def _similar(address: Address) -> str:
    """Returns the end of a message with the owner's repositories that are most similar; '' if none can be listed."""
    with contextlib.suppress(Exception):
        found = [model.id for model in _api().list_models(author=address.owner, limit=MAX_SUGGESTED)]
        return f"; {nearest(str(address), [PREFIX + name for name in found])}" if found else ""
    return ""


def _owners(address: Address) -> str:
    """Returns the end of a message with the owners that the token stands for, if `address` has another; else ''."""
    with contextlib.suppress(Exception):
        me = _api().whoami()
        owners = [me["name"], *(organization["name"] for organization in me.get("orgs", ()))]
        return "" if address.owner in owners else f": {nearest(address.owner, owners)}"
    return ""
