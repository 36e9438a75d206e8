"""Files from the network: resumed, checked, and never half there."""

import errno
import hashlib
import http.client
import os
import pathlib
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence

from cnnjax.errors import InputError

_CHUNK = 1 << 20
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
_TIMEOUT = 10  # seconds without a byte
_HINT = "Without a network, put the original files in a folder and give it as the source"


def fetch(
    urls: Sequence[str],
    path: pathlib.Path,
    digest: str,
    say: Callable[[str], None] = print,
    progress: Callable[[int, int], None] | None = None,
    hint: str = _HINT,
) -> pathlib.Path:
    """Downloads one of `urls`, tried in order, to `path`, unless it is there with that digest ('md5:...').

    Of the digest the first digits may be all that is known, or none: 'sha256:'.

    What arrives is kept in `path`.part until it is whole and its digest is right; the next try goes on from there.
    `progress` is called with the bytes so far and in all (0 if the server does not say).
    Raises InputError when no address works, when the digest is wrong, or when the disk is full.
    """
    part = path.with_name(path.name + ".part")
    reasons = []
    if path.is_file():
        if (got := digest_of(path, digest)).startswith(digest):
            return path
        reasons.append(f"{path} is another file: {path.stat().st_size:,} bytes with {got}, expected {digest}")
    path.parent.mkdir(parents=True, exist_ok=True)
    for url in urls:
        say(f"downloading {url}")
        try:
            _receive(url, part, progress)
        except (OSError, http.client.HTTPException) as error:  # URLError, timeouts and cut connections are OSErrors
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise InputError(f"{part}: {error.strerror}") from error
            reasons.append(f"{url}: {getattr(error, 'reason', None) or error or type(error).__name__}")
            continue
        got = digest_of(part, digest)
        if got.startswith(digest):
            os.replace(part, path)
            return path
        reasons.append(f"{url}: {part.stat().st_size:,} bytes with {got}, expected {digest}")
        part.unlink()
    kept = f" ({part.stat().st_size:,} bytes are kept; the next try goes on from there)" if part.exists() else ""
    raise InputError(f"could not download {path.name}{kept}: {'; '.join(reasons)}. {hint}")


def digest_of(path: pathlib.Path, like: str) -> str:
    """The file's digest by the algorithm of `like`: 'md5:...'."""
    algorithm = like.partition(":")[0]
    with open(path, "rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _receive(url: str, part: pathlib.Path, progress: Callable[[int, int], None] | None) -> None:
    """Appends to `part` what it lacks, or begins again where the server sends whole files only."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "cnnjax", "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # nothing lies beyond what we have: whole, or another file; the digest will tell
            return
        raise
    with response:
        if response.status != 206:
            have = 0
        length = int(response.headers.get("Content-Length") or 0)
        total = have + length if length else 0
        with open(part, "ab" if have else "wb") as file:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                if progress:
                    progress(have, total)
        if have < total:  # a read of a given size ends early without an error
            raise ConnectionError(f"the connection was cut after {have:,} of {total:,} bytes")
