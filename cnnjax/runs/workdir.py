"""A run's folder: its config, data description, software versions, metrics and lock.

config.json     every setting             metrics.jsonl   one JSON object per line, with its step
data.json       classes, shape, mean      metrics.crc     checksums of these lines: see `cnnjax.runs.history`
statistics.npz  long statistics           tensorboard/    the same metrics, for TensorBoard
versions.json   packages, processor, ...  checkpoints/    see `cnnjax.runs.checkpoint`
result.json     the final metrics         evaluations/    see `cnnjax.evaluation.report`
damaged/        what was found damaged    imports/        see `cnnjax.register`

The JSON files are sealed (`cnnjax.sealed`); data.json has the digest of statistics.npz.
"""

import contextlib
import dataclasses
import datetime
import fcntl
import hashlib
import importlib.metadata
import io
import itertools
import os
import pathlib
import platform
import sys
import time
import zlib
from collections.abc import Container, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from cnnjax import __version__, sealed, spec
from cnnjax import config as configs
from cnnjax.config import Config
from cnnjax.data.info import DataInfo
from cnnjax.distributed.devices import processor_name
from cnnjax.errors import InputError
from cnnjax.models import rename_arguments
from cnnjax.ops.convolution import implementation_name
from cnnjax.paths import check_run_folder
from cnnjax.sealed import write_atomically, write_json

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "tensorflow-datasets", "grain")
MAX_JSON_VALUES = 20  # longer statistics go to statistics.npz
MAX_STATISTICS_BYTES = 1 << 32
FOLDERS = ("checkpoints", "damaged", "imports", "tensorboard")  # in a run's folder: what a training writes into
LOCK = "lock"  # held by the training in the folder
SYNC_SECONDS = 60  # a network file system may take this long to show process 0's files on other hosts


@contextlib.contextmanager
def new_folder(name: str, root: str = "runs") -> Iterator[pathlib.Path]:
    """Context manager that creates a run's folder, named by name and time, as in runs/digits_lenet5-20261122-093015.

    No other process gets the same one. A folder that is still empty at the end is removed.
    """
    path = pathlib.Path(root) / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with contextlib.suppress(FileExistsError):  # another process was faster
            (folder := unused_path(path)).mkdir()
            break
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()


def unused_path(path: pathlib.Path) -> pathlib.Path:
    """Returns `path` or, if that exists, the first of `path`-2, `path`-3, ... that does not."""
    suffixes = ("", *(f"-{i}" for i in range(2, 1000)))
    return next(other for suffix in suffixes if not os.path.lexists(other := path.with_name(path.name + suffix)))


def write_data_info(workdir: pathlib.Path, data: DataInfo) -> None:
    """Writes data.json, and beside it statistics.npz for the statistics of more than `MAX_JSON_VALUES` values."""
    content = data.to_dict()
    arrays = {name: value for name, value in content.items() if isinstance(value, np.ndarray)}
    long = {name: value for name, value in arrays.items() if value.size > MAX_JSON_VALUES}
    content = {name: value.tolist() if name in arrays else value for name, value in content.items() if name not in long}
    if long:
        buffer = io.BytesIO()
        np.savez(buffer, **long)  # pyright: ignore[reportArgumentType]
        write_atomically(workdir / "statistics.npz", buffer.getvalue())
        content["statistics"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    write_json(workdir / "data.json", content)


def read_json(path: pathlib.Path, remedy: str = "") -> Any:
    """Reads a JSON file in a run's folder. `remedy` says what to do about a damaged one.

    Raises InputError if the file is missing or damaged.
    """
    try:
        return sealed.read_json(path, remedy)
    except FileNotFoundError:
        raise InputError(f"{path.parent} is not the folder of a run that has started: it has no {path.name}") from None


def read_data_info(workdir: pathlib.Path) -> DataInfo:
    """Reads what `write_data_info` wrote. Raises InputError if a file is missing or damaged."""
    content = read_json(workdir / "data.json", "resuming the run rewrites it")
    path = workdir / "statistics.npz"
    try:
        if digest := content.pop("statistics", ""):
            data = sealed.read(path, MAX_STATISTICS_BYTES)
            if hashlib.sha256(data).hexdigest() != digest:
                raise InputError(f"{path} is damaged; resuming the run rewrites it")
            content |= np.load(io.BytesIO(data))
        return DataInfo.from_dict(content)
    except FileNotFoundError:
        raise InputError(f"{path} is missing; resuming the run rewrites it") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{workdir / 'data.json'} is damaged: {error!r}; resuming the run rewrites it") from error


@contextlib.contextmanager
def claim(workdir: pathlib.Path, config: Config) -> Iterator[None]:
    """Context manager that makes `workdir` the folder of a run with this config, and locks it against other trainings.

    Creates the folder and writes config.json. If the folder belongs to an earlier run, the config may differ from that
    run's in the fields `cnnjax.config.EXTENDABLE` only; the caller has checked the duration. Raises InputError, before
    anything is written, for any other difference, if the folder has files but belongs to no run, if another training
    runs in it, and if a link leads out of it.
    """
    check_run_folder(workdir)
    _check_claim(workdir, config)
    workdir.mkdir(parents=True, exist_ok=True)
    with hold_lock(workdir, "training"):
        _check_claim(workdir, config)  # once more: another training may have come and gone since
        path = workdir / "config.json"
        if path.exists() and configs.load(path).duration != config.duration:
            (workdir / "result.json").unlink(missing_ok=True)  # that of another length: the run is not complete
        write_json(path, dataclasses.asdict(config))
        yield


def _check_claim(workdir: pathlib.Path, config: Config) -> None:
    """Raises InputError if `workdir` cannot become the folder of a run with this config, as `claim` describes."""
    if os.path.lexists(workdir / "config.json"):
        if changed_settings(workdir, config, configs.EXTENDABLE):
            changes = changed_settings(workdir, config)
            why = ", which its plateau schedule or early stopping follows" if "eval_every = " in changes else ""
            raise InputError(
                f"{workdir} holds a run with another config: {changes}{why}. Pass another --workdir, or no --config"
            )
    elif workdir.is_dir() and any(file.name not in ("config.json.part", LOCK) for file in workdir.iterdir()):
        raise InputError(f"{workdir} is not empty and not a run's folder; pass another --workdir")
    for folder in (workdir / name for name in FOLDERS):
        sealed.check_no_link(folder)
        for path in folder.iterdir() if folder.is_dir() else ():
            sealed.check_no_link(path)


@contextlib.contextmanager
def hold_lock(folder: pathlib.Path, activity: str) -> Iterator[None]:
    """Context manager that holds the lock of a folder, that of a run ('training'), a sweep or a study.

    Raises InputError if another process holds it, with `activity` as the word for what runs there. Does nothing on
    a file system that does not support locks.
    """
    check_run_folder(folder)
    path = folder / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}") from error
    with open(descriptor) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process dies
        except BlockingIOError:
            raise InputError(f"{folder} is in use: another {activity} is running in it") from None
        except OSError:
            pass
        yield


def write_versions(workdir: pathlib.Path, data_dir: str = "") -> None:
    """Writes versions.json: the command, the versions of the packages, the processor and the devices.

    Also the absolute path of `data_dir`, the folder of data sets that the training was given; '' for none. Comes after
    the other sealed files: from then on none of them may lack its seal.
    """
    device = jax.devices()[0]
    content = {
        "command": sys.argv,
        "data_dir": os.path.abspath(os.path.expanduser(data_dir)) if data_dir else "",
        "cnnjax": __version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": f"{jax.device_count()} x {device.device_kind} ({device.platform})",
        "processor": processor_name(),
        "convolutions": implementation_name(),
        "processes": jax.process_count(),
    }
    write_json(workdir / sealed.WITNESS, content)


def recorded_data_dir(versions: Mapping[str, Any]) -> str:
    """Returns the folder of data sets that the training was given, by the content of versions.json; '' for none."""
    found, words = versions.get("data_dir"), [*map(str, versions.get("command", ())), ""]
    if found is None:  # before version 0.3: the flag of the command
        for word, following in itertools.pairwise(words):
            flag, equals, value = word.partition("=")
            if flag == "--data_dir":
                found = value if equals else following
    return str(found or "")


def changed_settings(workdir: pathlib.Path, config: Config, ignored: Container[str] = configs.RESUMABLE) -> str:
    """Returns how `config` differs from the one in a run's folder, as text of `differences`; '' if they are the same.

    Skips the fields in `ignored`. Compares `eval_every` all the same if the training depends on its evaluations. Raises
    InputError if config.json is missing or damaged.
    """
    old, new = (comparable(settings) for settings in (configs.load(workdir / "config.json"), config))
    follows = bool(config.early_stop) or spec.parse(config.schedule).name == "plateau"
    return differences(old, new, [name for name in new if name in ignored and not (follows and name == "eval_every")])


def comparable(config: Config) -> dict[str, Any]:
    """Returns the fields of a config as a dict, with arguments in `model` renamed from old names to today's ones."""
    model = spec.render(rename_arguments(spec.parse(config.model)))
    return dataclasses.asdict(config) | {"model": model}


def differences(old: dict[str, Any], new: dict[str, Any], ignored: Container[str]) -> str:
    """Returns text such as 'lr = 0.1 there, 0.2 now' for the entries of `new` that differ from `old`; '' for none.

    Entries whose name is in `ignored` are not compared.
    """
    changed = [name for name in new if old[name] != new[name] and name not in ignored]
    return ", ".join(f"{name} = {old[name]!r} there, {new[name]!r} now" for name in changed)


def is_locked(workdir: pathlib.Path) -> bool:
    """Returns whether a training is running in the folder; False on a file system without locks."""
    try:
        with open(os.open(workdir / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no lock file, or a file system without locks
        return False
    return False


def check_shared(workdir: pathlib.Path) -> None:
    """Waits until this process sees the same content of the run's folder as process 0, which has claimed the folder.

    Raises InputError after `SYNC_SECONDS`: with a disk of its own, this process would start from scratch while the
    others resume. Does nothing if there is one process.
    """
    if jax.process_count() == 1:
        return
    expected = int(multihost_utils.broadcast_one_to_all(np.uint32(_fingerprint(workdir))))
    deadline = time.monotonic() + SYNC_SECONDS
    while _fingerprint(workdir) != expected:
        if time.monotonic() > deadline:
            raise InputError(
                f"process {jax.process_index()}, on {platform.node()}, does not see {workdir.absolute()} as process 0 "
                "does: the processes of a run need a folder that all of their hosts share"
            )
        time.sleep(0.5)


def _fingerprint(workdir: pathlib.Path) -> int:
    """Returns a checksum of config.json's modification time and the names of the checkpoints; 0 without config.json."""
    with contextlib.suppress(OSError):
        os.listdir(workdir.parent)  # makes a network file system refresh
        claimed = (workdir / "config.json").stat().st_mtime_ns
        return zlib.crc32(repr((claimed, sorted(path.name for path in workdir.glob("checkpoints/*")))).encode())
    return 0
