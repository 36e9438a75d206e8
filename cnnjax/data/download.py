"""Downloads: resumed after a cut, checked by digest, renamed only when complete."""

import errno
import hashlib
import http.client
import os
import pathlib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence

from cnnjax import sealed
from cnnjax.errors import InputError

_CHUNK_BYTES = 1 << 20
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
_FULL_DIGITS = 32  # of an MD5, the shortest digest
_TIMEOUT_SECONDS = 10  # without a byte
_HINT = "Without a network, put the original files in a folder and give it as the source"


def fetch(
    urls: Sequence[str],
    path: pathlib.Path,
    digest: str,
    log: Callable[[str], None] = print,
    progress: Callable[[int, int], None] | None = None,
    hint: str = _HINT,
) -> pathlib.Path:
    """Downloads a file to `path` from the first of `urls` that works, and returns `path`.

    A file at `path` that has the `digest` is left alone, any other is replaced. `digest` is 'md5:...' or 'sha256:...',
    in full or only its beginning, such as 'sha256:', which any file has. Received bytes are in `path`.part until they
    are complete and their digest is right; after an interruption, the next call resumes from there.

    `log` gets the URL. `progress` is called with the bytes received and the bytes in total, which are 0 if the server
    does not tell. `hint` ends the message of the error. Raises InputError if no URL works, the digest is wrong or the
    disk is full. A URL whose content could be tampered with in transit is not used: see `_is_protected`.
    """
    partial = path.with_name(path.name + ".part")
    reasons = []
    if path.is_file():
        if (actual := digest_of(path, digest)).startswith(digest):
            return path
        reasons.append(f"{path} is another file: {path.stat().st_size:,} bytes with {actual}, expected {digest}")
    path.parent.mkdir(parents=True, exist_ok=True)
    for url in urls:
        if not _is_protected(url, digest):
            reasons.append(f"{url}: not used, because neither https nor a full digest protects its content")
            continue
        log(f"downloading {url}")
        try:
            _receive(url, partial, progress)
        except (OSError, http.client.HTTPException) as error:  # URLError, timeouts and cut connections are OSErrors
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise InputError(f"{partial}: {error.strerror}") from error
            reasons.append(f"{url}: {getattr(error, 'reason', None) or error or type(error).__name__}")
            continue
        actual = digest_of(partial, digest)
        if actual.startswith(digest):
            os.replace(partial, path)
            return path
        reasons.append(f"{url}: {partial.stat().st_size:,} bytes with {actual}, expected {digest}")
        partial.unlink()
    size = partial.stat().st_size if partial.exists() else 0
    kept = f" ({size:,} bytes are kept; the next try resumes from there)" if partial.exists() else ""
    raise InputError(f"could not download {path.name}{kept}: {'; '.join(reasons)}. {hint}")


def _is_protected(url: str, digest: str) -> bool:
    """Returns whether a URL's content is protected against tampering in transit: by https, or by a full digest."""
    parts = urllib.parse.urlsplit(url)
    is_local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    return parts.scheme == "https" or is_local or len(digest.partition(":")[2]) >= _FULL_DIGITS


def digest_of(path: pathlib.Path, like: str) -> str:
    """Returns the digest of a file, as 'md5:...' or 'sha256:...', by the algorithm that `like` begins with."""
    algorithm = like.partition(":")[0]
    with open(path, "rb") as file:
        return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"


def _receive(url: str, partial: pathlib.Path, progress: Callable[[int, int], None] | None) -> None:
    """Downloads the bytes of `url` that the file `partial` lacks, and appends them.

    Starts again from the first byte if the server does not support ranges. Calls progress(bytes so far, bytes in total
    or 0). Raises OSError or HTTPException if the download fails, is cut, or is redirected from https to http. Does not
    check a digest.
    """
    if partial.is_symlink():  # not ours: what it leads to stays as it is
        partial.unlink()
    have = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "cnnjax", "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # no bytes after ours: the file is complete, or another; the digest will tell
            return
        raise
    with response:
        if url.startswith("https:") and not response.url.startswith("https:"):
            raise ConnectionError(f"redirected to {response.url}, which is not https")
        if response.status != 206:
            have = 0
        length = int(response.headers.get("Content-Length") or 0)
        total = have + length if length else 0
        with sealed.append(partial) as file:
            file.truncate(have)
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                have += len(chunk)
                if progress:
                    progress(have, total)
        if have < total:  # a read of a given size ends early without an error
            raise ConnectionError(f"the connection was cut after {have:,} of {total:,} bytes")
