"""A run's metrics over time: metrics.jsonl, a JSON object per line, and metrics.crc with a checksum of each line.

A line of metrics.crc is "CRC-32 STEP", written after the line that it belongs to; STEP is 'test' for the final test
metrics, which a resumed run writes again. A line without its checksum is damaged: it is never used. A run of a version
without metrics.crc has its lines taken as they are.
"""

import collections
import contextlib
import dataclasses
import functools
import json
import math
import pathlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cnnjax import sealed
from cnnjax.errors import InputError

FILE = "metrics.jsonl"
CHECKSUMS = "metrics.crc"
HEADER = "CRC-32 and step of each line of metrics.jsonl\n"  # tells an emptied file from a new one
TEST = "test"
MAX_BYTES = 1 << 31  # of a file
Metrics = Mapping[str, float]  # a line: {"step": 20, "epoch": 1.5, "train/loss": 0.5}


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of metrics.jsonl.

    Attributes:
      text: the line without its line break.
      values: the JSON object: {"step": 20, "epoch": 1.5, "train/loss": 0.5}.
    """

    text: str
    values: dict[str, Any]

    @property
    def last_step(self) -> float:
        """Returns the step up to which a resumed run keeps the line: its own, or -1 for the final test metrics."""
        return -1 if "test/loss" in self.values else self.values["step"]

    @property
    def checksum(self) -> str:
        """Returns the line of metrics.crc that belongs to this one: its CRC-32 in hexadecimal, and its step."""
        step = TEST if self.last_step < 0 else self.values["step"]
        return f"{zlib.crc32(self.text.encode()):08x} {step}"


@dataclasses.dataclass(frozen=True)
class History:
    """The metrics of a run so far.

    Attributes:
      lines: the intact lines, in order.
      damaged: the bytes of lines that are damaged.
      lost: checksums without a line.
      unfinished: the last line, if all is right but its checksum is missing: a process may have been killed there.
    """

    lines: list[Line]
    damaged: list[bytes]
    lost: list[str] = dataclasses.field(default_factory=list)
    unfinished: Line | None = None

    @property
    def is_whole(self) -> bool:
        """Returns whether no line is damaged, missing or unfinished, as after a training that has ended."""
        return not (self.damaged or self.lost or self.unfinished)

    def lost_by(self, step: float) -> int:
        """Returns the number of lines that were written up to `step` and are damaged or missing."""
        steps = [text.rpartition(" ")[2][:20] for text in self.lost]
        return sum(1 for text in steps if text != TEST and not (text.isdecimal() and int(text) > step))


def read(folder: pathlib.Path) -> History:
    """Reads the metrics of a run, without an unfinished last line. Raises InputError if a file cannot be read."""
    raw = [line for line in _lines(folder / FILE) or [] if line]
    checksums = _lines(folder / CHECKSUMS)
    parsed = [_parse(line) for line in raw]
    if checksums is None:
        damaged = [content for content, line in zip(raw, parsed, strict=True) if line is None]
        return History([line for line in parsed if line], damaged)
    left = collections.Counter(line.decode(errors="replace") for line in checksums if line)
    has_header = bool(left.pop(HEADER.strip(), 0))
    lines, damaged = [], []
    for content, line in zip(raw, parsed, strict=True):
        if line and left[line.checksum]:
            left[line.checksum] -= 1
            lines.append(line)
        else:
            damaged.append(content)
    lost = list(left.elements())
    if has_header and not lost and raw and damaged == raw[-1:] and parsed[-1]:
        return History(lines, [], lost, unfinished=parsed[-1])
    return History(lines, damaged, lost)


def _lines(path: pathlib.Path) -> list[bytes] | None:
    """Returns the lines of a file, without an unfinished last one; None if there is no file."""
    try:
        return sealed.read(path, MAX_BYTES).split(b"\n")[:-1]
    except FileNotFoundError:
        return None


def _parse(content: bytes) -> Line | None:
    """Parses a line; None if it is no JSON object with a step."""
    with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError, OverflowError):
        values = json.loads(content)
        if math.isfinite(values["step"]):
            return Line(content.decode(), values)
    return None


class MetricsWriter:
    """Context manager that writes metrics to metrics.jsonl and TensorBoard.

    In a process that is not the `leader`, does nothing. When training resumes from step `first_step`, removes the lines
    of later steps, which an interrupted attempt wrote, and the final test line, which will be written again. Moves
    damaged lines to damaged/metrics.jsonl, and says so through `log`. Calls `on_write` with each line, once written.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        first_step: int,
        leader: bool,
        log: Callable[[str], None] = lambda line: None,
        on_write: Callable[[Metrics], None] | None = None,
    ) -> None:
        self._open = contextlib.ExitStack()
        self._leader, self._on_write = leader, on_write
        if leader:
            _cut(workdir, first_step, log)
            self._file, self._checksums = (
                self._open.enter_context(sealed.append(workdir / name)) for name in (FILE, CHECKSUMS)
            )
            self._board = functools.cache(functools.partial(self._open_board, workdir / "tensorboard", first_step + 1))

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _open_board(self, folder: pathlib.Path, purge_step: int) -> Any:
        """Opens a TensorBoard writer. TensorBoard will hide earlier events from `purge_step` on."""
        import tensorboardX  # only now, so that the first training step does not wait for it

        board = tensorboardX.SummaryWriter(str(folder), purge_step=purge_step)
        return self._open.enter_context(contextlib.closing(board))

    def write(self, step: int, epoch: float, group: str, values: dict[str, float]) -> None:
        """Writes metrics of a step under 'group/name', in the line {"step": ..., "epoch": ..., "train/loss": ...}."""
        if not self._leader:
            return
        named = {f"{group}/{name}": value for name, value in values.items()}
        content = {"step": step, "epoch": round(epoch, 4), **named}
        line = Line(json.dumps(content), content)
        try:
            for file, text in ((self._file, line.text), (self._checksums, line.checksum)):
                file.write(f"{text}\n".encode())
                file.flush()
        except OSError as error:
            raise InputError(f"cannot write {FILE} of the run: {error.strerror}") from error
        for name, value in named.items():
            self._board().add_scalar(name, value, step)
        if self._on_write:
            self._on_write(content)


def _cut(workdir: pathlib.Path, first_step: int, log: Callable[[str], None]) -> None:
    """Prepares the files of a run that goes on from `first_step`, as `MetricsWriter` describes.

    Each file is replaced as a whole, and in this order: whenever the process is killed, no line that is kept lacks its
    checksum.
    """
    history = read(workdir)
    kept = [line for line in history.lines if 0 <= line.last_step <= first_step]
    damaged = list(history.damaged)
    if history.unfinished and 0 <= history.unfinished.last_step <= first_step:  # a checkpoint comes after its lines
        damaged.append(history.unfinished.text.encode())
    if count := max(len(damaged), history.lost_by(first_step)):
        log(f"{workdir / FILE}: {count} lines are damaged or missing; what is left of them is put in damaged/{FILE}")
    if damaged:
        (workdir / "damaged").mkdir(exist_ok=True)
        with sealed.append(workdir / "damaged" / FILE) as file:
            file.write(b"".join(line + b"\n" for line in damaged))
    if not (workdir / CHECKSUMS).exists():  # a new run, or one of an earlier version
        sealed.write_atomically(workdir / CHECKSUMS, _checksums(history.lines))
    sealed.write_atomically(workdir / FILE, "".join(f"{line.text}\n" for line in kept).encode())
    sealed.write_atomically(workdir / CHECKSUMS, _checksums(kept))


def _checksums(lines: Iterable[Line]) -> bytes:
    """Returns the content of metrics.crc for these lines."""
    return (HEADER + "".join(f"{line.checksum}\n" for line in lines)).encode()
