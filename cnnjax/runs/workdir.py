"""The folder of a run: its config, what it knows of the data, the versions, and its metrics as they come.

config.json     every setting             metrics.jsonl   one JSON object per line, with its step
data.json       classes, shape, mean      tensorboard/    the same, for TensorBoard
statistics.npz  what is too long for it   checkpoints/    see `cnnjax.runs.checkpoint`
versions.json   packages, devices         evaluations/    see `cnnjax.evaluation.scoring`
result.json     the final numbers
"""

import contextlib
import dataclasses
import datetime
import fcntl
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import sys
import time
import zlib
from collections.abc import Container
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from cnnjax import __version__
from cnnjax import config as configs
from cnnjax.config import Config
from cnnjax.data.info import DataInfo
from cnnjax.errors import InputError

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets", "grain")
LONG = 20  # values: of longer statistics, data.json has no list
LOCK = "lock"  # held by the training in the folder
SEEN_SECONDS = 60  # what process 0 writes may take so long to be seen on other hosts


def unique_path(name: str, root: str = "runs") -> pathlib.Path:
    """A folder name that says what and when, and that no other run has: runs/digits_lenet5-20261122-093015."""
    start = f"{datetime.datetime.now():%Y%m%d-%H%M%S}"
    names = (pathlib.Path(root) / f"{name}-{start}{suffix}" for suffix in ("", *(f"-{i}" for i in range(2, 1000))))
    return next(path for path in names if not path.exists())


def write_json(path: pathlib.Path, content: Any) -> None:
    """Writes the whole file or, when killed half-way, nothing."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content, indent=2) + "\n")
    part.replace(path)


def read_json(path: pathlib.Path) -> Any:
    """What `write_json` wrote. Raises InputError when the file is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path.parent} is not a run's folder, or has not begun: it has no {path.name}") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged: {error}") from error


def write_data_info(workdir: pathlib.Path, data: DataInfo) -> None:
    """Writes data.json, and statistics of more than `LONG` values as arrays beside it."""
    content = data.to_dict()
    arrays = {name: value for name, value in content.items() if isinstance(value, np.ndarray)}
    long = {name: value for name, value in arrays.items() if value.size > LONG}
    content = {name: value.tolist() if name in arrays else value for name, value in content.items() if name not in long}
    if long:
        buffer = io.BytesIO()
        np.savez(buffer, **long)  # pyright: ignore[reportArgumentType]
        part = workdir / "statistics.npz.part"
        part.write_bytes(buffer.getvalue())
        part.replace(workdir / "statistics.npz")
        content["statistics"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    write_json(workdir / "data.json", content)


def read_data_info(workdir: pathlib.Path) -> DataInfo:
    """Reads what `write_data_info` wrote. Raises InputError when a file is missing or damaged."""
    content = read_json(workdir / "data.json")
    if digest := content.pop("statistics", ""):
        path = workdir / "statistics.npz"
        data = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(data).hexdigest() != digest:
            raise InputError(f"{path} is {'damaged' if data else 'missing'}; going on with the run writes it anew")
        content |= np.load(io.BytesIO(data))
    return DataInfo.from_dict(content)


def claim(workdir: pathlib.Path, config: Config) -> None:
    """Makes `workdir` the folder of a run with this config, or goes on with one that already is.

    Raises InputError when it belongs to a run with other settings, or holds something else.
    """
    path = workdir / "config.json"
    if path.exists():
        old, new = (dataclasses.asdict(c) for c in (configs.load(path), config))
        if what := differences(old, new, configs.RESUMABLE):
            raise InputError(f"{workdir} is the run of another config: {what}. Give another --workdir, or no --config")
    elif workdir.is_dir() and any(other.name != "config.json.part" for other in workdir.iterdir()):
        raise InputError(f"{workdir} is not empty and not a run's folder; give another --workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(path, dataclasses.asdict(config))
    device = jax.devices()[0]
    write_json(
        workdir / "versions.json",
        {
            "command": sys.argv,
            "cnnjax": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in PACKAGES},
            "devices": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
            "processes": jax.process_count(),
        },
    )


def differences(old: dict[str, Any], new: dict[str, Any], free: Container[str]) -> str:
    """What of `unique_path` is not as it was, in words; what is `free` may be. '' for nothing."""
    changed = [name for name in new if old[name] != new[name] and name not in free]
    return ", ".join(f"{name} = {old[name]!r} there, {new[name]!r} now" for name in changed)


def is_locked(workdir: pathlib.Path) -> bool:
    """Whether a training is going on in the folder."""
    try:
        with (workdir / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or the file system has no locks
        return False
    return False


def check_shared(workdir: pathlib.Path) -> None:
    """Waits until every process sees the folder of a run as process 0 does. Before it, process 0 has claimed it.

    Raises InputError in one that does not within `SEEN_SECONDS`: on a disk of its own, it would begin anew where the
    others go on.
    """
    if jax.process_count() == 1:
        return
    expected = int(multihost_utils.broadcast_one_to_all(np.uint32(_view(workdir))))
    end = time.monotonic() + SEEN_SECONDS
    while _view(workdir) != expected:
        if time.monotonic() > end:
            raise InputError(
                f"process {jax.process_index()}, on {platform.node()}, does not see {workdir.absolute()} as process 0 "
                "does: the processes of a run need a folder that all of their hosts share"
            )
        time.sleep(0.5)


def _view(workdir: pathlib.Path) -> int:
    """A number for what this process sees: when the run was claimed last, and its checkpoints."""
    with contextlib.suppress(OSError):
        os.listdir(workdir.parent)  # a network file system looks anew
        claimed = (workdir / "config.json").stat().st_mtime_ns
        return zlib.crc32(repr((claimed, sorted(path.name for path in workdir.glob("checkpoints/*")))).encode())
    return 0


class Metrics:
    """Writes numbers to metrics.jsonl and to TensorBoard, in the one process that leads.

    Lines from after step `start` are of an attempt that was lost, and the last one is written anew: they are cut.
    Raises InputError while another training has the folder.
    """

    def __init__(self, workdir: pathlib.Path, start: int, leader: bool) -> None:
        self._open = contextlib.ExitStack()
        self._leader = leader
        if leader:
            lock = self._open.enter_context((workdir / LOCK).open("w"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it when the process dies
            except BlockingIOError:
                self._open.close()
                raise InputError(f"{workdir} is in use: another training is going on in it") from None
            except OSError:
                pass  # a file system without locks
            path = workdir / "metrics.jsonl"
            part = path.with_name(path.name + ".part")
            part.write_text("".join(line + "\n" for line in lines(path) if _is_kept(line, start)))
            part.replace(path)
            self._file = self._open.enter_context(path.open("a", buffering=1))
            self._board = functools.cache(functools.partial(self._open_board, workdir / "tensorboard", start + 1))

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _open_board(self, folder: pathlib.Path, begin: int) -> Any:
        import tensorboardX  # with the first line: the first step need not wait for it

        board = tensorboardX.SummaryWriter(str(folder), purge_step=begin)
        return self._open.enter_context(contextlib.closing(board))

    def write(self, step: int, epoch: float, group: str, values: dict[str, float]) -> None:
        """One line, {"step", "epoch", "group/name": value ...}."""
        if not self._leader:
            return
        named = {f"{group}/{name}": value for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "epoch": round(epoch, 4), **named}) + "\n")
        for name, value in named.items():
            self._board().add_scalar(name, value, step)


def lines(path: pathlib.Path) -> list[str]:
    """The whole lines of a file that may end in half a one; none where there is no file."""
    if not path.exists():
        return []
    return [line for line in path.read_text().split("\n")[:-1] if line]


def _is_kept(line: str, start: int) -> bool:
    try:
        values = json.loads(line)
        return values["step"] <= start and "test/loss" not in values
    except (ValueError, KeyError, TypeError):
        return True  # not ours to judge
