"""The last resort: an exception that nobody expected becomes one line and a file with its traceback."""

import datetime
import pathlib
import platform
import tempfile
import traceback
from collections.abc import Sequence

from cnnjax import __version__, cache


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether Python, numpy or XLA could not allocate memory."""
    text = str(error)
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text or "out of memory" in text.lower()


def describe(error: BaseException, argv: Sequence[str]) -> str:
    """Returns a message of one line for an unexpected exception, and writes its traceback to a file that it names.

    `argv` is the command line. If memory ran out, the message says what to lower instead, and no file is written.
    """
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    if is_out_of_memory(error):
        return (
            f"out of memory ({text}); lower batch_size or eval_batch_size, raise grad_accum_steps, or choose a smaller "
            "network or image"
        )
    path = _write_report(error, argv)
    where = f"with {path}" if path else "with the traceback that CNNJAX_TRACEBACK=1 shows"
    return f"unexpected {text}. This is a bug, in cnnjax or in code that it imports for you: please report it {where}"


def _write_report(error: BaseException, argv: Sequence[str]) -> pathlib.Path | None:
    """Writes the traceback of `error` to a file in the cache, or else in the temporary folder; returns its path.

    Returns None if neither can be written.
    """
    content = [
        f"cnnjax {__version__}, Python {platform.python_version()}, {platform.platform()}\n",
        f"command: {list(argv)!r}\n\n",
        *traceback.format_exception(error),
    ]
    name = f"traceback-{datetime.datetime.now():%Y%m%d-%H%M%S}-"
    for folder in (cache.folder("tracebacks"), pathlib.Path(tempfile.gettempdir())):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(
                "w", dir=folder, prefix=name, suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
            ) as file:
                file.writelines(content)
            return pathlib.Path(file.name)
        except OSError:
            continue
    return None
