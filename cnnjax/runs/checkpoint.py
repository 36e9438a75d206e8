"""Checkpoints: saved in a background thread with a digest, restored only if the digest matches.

Orbax writes them atomically and deletes old ones. It does not detect a flipped bit, and takes an empty folder for a
checkpoint. So each has a digest: the dtype, shape and CRC-32 of every array, verified when it is restored, and the
validation metrics. Orbax is imported in functions, so that the first training step does not wait for it.
"""

import concurrent.futures
import contextlib
import functools
import json
import pathlib
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from cnnjax.distributed import processes
from cnnjax.errors import InputError
from cnnjax.metrics import METRICS
from cnnjax.state import TrainState, Tree, path_name

FOLDER = "checkpoints"
METRIC = "accuracy"  # of the validation split: by it a checkpoint is the best

# A checkpoint has two items, so that evaluation reads only the first and needs no optimizer.
ITEMS = {"model": ("params", "model_state", "ema"), "optimizer": ("step", "opt_state", "watched")}
OPTIONAL = ("watched",)  # left out when empty, as in old checkpoints
ATTRIBUTES = {"watched": "monitors"}  # fields of the state that have another name on disk


def _items(state: TrainState) -> dict[str, dict[str, Tree]]:
    """Returns the fields of each item of a checkpoint."""
    return {
        item: {name: _attribute(state, name) for name in names if name not in OPTIONAL or _attribute(state, name)}
        for item, names in ITEMS.items()
    }


def _attribute(state: TrainState, name: str) -> Tree:
    return getattr(state, ATTRIBUTES.get(name, name))


class Saver:
    """Context manager that saves checkpoints of a run in a thread, one at a time. Its exit waits for the last one.

    Keeps the newest `keep` checkpoints, and the best.
    """

    def __init__(self, workdir: pathlib.Path, keep: int) -> None:
        self._workdir, self._keep = workdir, keep
        self._folder = workdir.absolute() / FOLDER
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "cnnjax-saver")
        self._pending: concurrent.futures.Future[None] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.finish()
        finally:
            self._thread.shutdown()
            if "_manager" in vars(self):
                with _as_input_error(self._folder):
                    self._manager.close()

    @functools.cached_property
    def _manager(self) -> Any:
        import orbax.checkpoint as ocp

        _silence_orbax()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_KeepNewestAndBest(self._workdir, self._keep),
            step_format_fixed_length=8,
            cleanup_tmp_directories=True,  # left by a killed run
        )
        return ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: TrainState, metrics: dict[str, float] | None) -> None:
        """Waits for the previous save, then starts to save `state` with its validation metrics (None: no validation).

        Copies the state on the device first, so that the next step may overwrite it. Raises the errors of `finish` for
        the previous save.
        """
        self.finish()
        self._pending = self._thread.submit(self._write, _copy(state), metrics)
        if jax.process_count() > 1:  # Orbax synchronizes the processes, which must not mix with a step's collectives
            self._pending.result()

    def finish(self) -> None:
        """Waits until everything is on disk.

        Raises InputError if it cannot be written, and FloatingPointError, without saving, if a parameter or statistic
        is not finite. (The training loop cannot tell: a step's loss is that of the parameters before it.)
        """
        pending, self._pending = self._pending, None
        if pending:
            pending.result()
            with _as_input_error(self._folder):
                self._manager.wait_until_finished()

    def _write(self, state: TrainState, metrics: dict[str, float] | None) -> None:
        with _as_input_error(self._folder):
            import orbax.checkpoint as ocp

            host_state = jax.tree.map(_to_host, state)
            _check_finite(host_state)
            step = int(host_state.step)
            digest = {item: _with_crc("arrays", array_records(tree)) for item, tree in _items(host_state).items()}
            started = self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{item: ocp.args.StandardSave(tree) for item, tree in _items(state).items()},
                    digest=ocp.args.JsonSave(digest | {"metrics": _with_crc("values", metrics)}),
                ),
                metrics=metrics,
            )
            if not started:
                raise InputError(f"{self._folder} has a later checkpoint than step {step} already")


@jax.jit
def _copy(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.copy, state)


def _to_host(leaf: jax.Array) -> np.ndarray:
    """Returns the global array as numpy. If it is sharded across processes, all of them have to call this."""
    if not (leaf.is_fully_replicated or leaf.is_fully_addressable):
        return multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf.addressable_data(0) if leaf.is_fully_replicated else leaf)


def _check_finite(state: TrainState) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path((state.params, state.model_state)):
        if not np.isfinite(leaf).all():
            raise FloatingPointError(f"{path_name(path[1:])} became infinite or NaN by step {int(state.step)}")


class _KeepNewestAndBest:
    """Orbax preservation policy. Unlike Orbax's own, it tolerates metrics that cannot be read."""

    def __init__(self, workdir: pathlib.Path, newest: int) -> None:
        self.workdir, self.newest = workdir, newest

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        metrics = {info.step: info.metrics or _metrics(self.workdir, info.step) for info in checkpoints}
        kept = {*sorted(metrics)[-self.newest :], _best(metrics)}
        return [info.step in kept for info in checkpoints]


@contextlib.contextmanager
def _as_input_error(folder: Any) -> Iterator[None]:
    """Converts errors of saving to InputError, except FloatingPointError and failures of another process."""
    try:
        yield
    except (InputError, FloatingPointError):
        raise
    except Exception as error:  # Orbax, tensorstore and the system each have their own
        if processes.is_distributed() and processes.peer_failure(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"cannot save in {folder}: {lines[0]}") from error


@functools.cache
def _silence_orbax() -> None:
    """Silences the coroutines that Orbax leaves behind after a failed read or write: each prints a traceback."""
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    previous_hook = sys.unraisablehook

    def hook(args: Any) -> None:
        error = args.exc_value
        if not (str(error) == "Event loop is closed" or isinstance(getattr(error, "__cause__", None), GeneratorExit)):
            previous_hook(args)

    sys.unraisablehook = hook


def array_records(tree: Tree) -> dict[str, list]:
    """Returns path -> [dtype, shape, CRC-32] of every array. The CRC-32 of a ShapeDtypeStruct is 0."""
    return {
        path_name(path): [str(leaf.dtype), list(leaf.shape), _crc(leaf)]
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _crc(leaf: Any) -> int:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return 0
    return zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data) if leaf.size else 0


def _with_crc(name: str, content: Any) -> dict[str, Any]:
    return {name: content, "crc": zlib.crc32(json.dumps(content).encode())}


def _read_digest(workdir: pathlib.Path, step: int, section: str, name: str) -> Any:
    """Returns digest[section][name] of a checkpoint. Raises DamagedError if it cannot be read or its CRC differs."""
    try:
        content = json.loads((_folder(workdir, step) / "digest" / "metadata").read_text())[section]
        if content == _with_crc(name, content[name]):
            return content[name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"its digest cannot be read ({type(error).__name__})") from error
    raise DamagedError("its digest has a wrong checksum")


class DamagedError(Exception):
    """Raised for a checkpoint that differs from what was saved. The message says where."""


def steps(workdir: pathlib.Path) -> list[int]:
    """Returns the steps of a run's checkpoints in ascending order, damaged ones included."""
    folder = workdir / FOLDER
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit()) if folder.is_dir() else []


def best(workdir: pathlib.Path) -> int | None:
    """Returns the step with the best validation metric, the latest of ties; None without any metrics."""
    return _best({step: _metrics(workdir, step) for step in steps(workdir)})


def _best(found: dict[int, dict[str, float] | None]) -> int | None:
    sign = METRICS[METRIC].sign
    scores = {step: (sign * metrics[METRIC], step) for step, metrics in found.items() if metrics}
    return max(scores, key=scores.__getitem__) if scores else None


def _metrics(workdir: pathlib.Path, step: int) -> dict[str, float] | None:
    """Returns the validation metrics of a checkpoint; None if it was saved without, or they cannot be read."""
    try:
        return _read_digest(workdir, step, "metrics", "values")
    except DamagedError:
        return None


def _folder(workdir: pathlib.Path, step: int) -> pathlib.Path:
    return workdir / FOLDER / f"{step:08d}"


def _read(workdir: pathlib.Path, step: int, abstract: dict[str, dict[str, Tree]]) -> dict[str, dict[str, Tree]]:
    """Restores the items in `abstract` of one checkpoint.

    Raises DamagedError, or InputError if the checkpoint is of another network or optimizer.
    """
    folder = _folder(workdir, step)
    saved = {item: _read_digest(workdir, step, item, "arrays") for item in abstract}
    for item, tree in abstract.items():
        _check_same_network(folder, saved[item], array_records(tree))
    import orbax.checkpoint as ocp

    args = {item: ocp.args.StandardRestore(tree) for item, tree in abstract.items()}
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            restored = reader.restore(folder.absolute(), args=ocp.args.Composite(**args))
    except Exception as error:  # tensorstore and orbax raise many types for truncated or missing files
        _silence_orbax()
        raise DamagedError(f"its arrays cannot be read ({type(error).__name__})") from error
    for item in abstract:
        for path, record in array_records(jax.tree.map(_to_host, restored[item])).items():
            if record != saved[item][path]:
                raise DamagedError(f"{path} differs from what was saved (wrong checksum)")
    return {item: restored[item] for item in abstract}


def _check_same_network(folder: pathlib.Path, saved: dict[str, list], expected: dict[str, list]) -> None:
    for path in sorted(saved.keys() | expected.keys()):
        there, here = (records[path][:2] if path in records else None for records in (saved, expected))
        if there != here:
            raise InputError(
                f"{folder} is a checkpoint of another network or optimizer: {path} is "
                f"{_describe(there)} there, {_describe(here)} in this config"
            )


def _describe(record: list | None) -> str:
    return f"{record[0]}{record[1]}" if record else "missing"


def restore(
    workdir: pathlib.Path, abstract: TrainState, log: Callable[[str], None], set_aside: bool = False
) -> TrainState | None:
    """Restores the newest intact checkpoint; returns None if there is none at all.

    `abstract` holds ShapeDtypeStructs with the shardings to restore into. Each damaged checkpoint is reported through
    `log` and, with `set_aside`, moved to damaged/ so that its step can be saved again. Raises InputError if all
    checkpoints are damaged, or they are of another network or optimizer.
    """
    newest = _newest(workdir, _items(abstract), log, set_aside)
    if newest is None:
        return None
    fields: dict[str, Tree] = newest[1]["model"] | newest[1]["optimizer"]
    return TrainState(**{ATTRIBUTES.get(name, name): tree for name, tree in fields.items()})


def restore_model(
    workdir: pathlib.Path, abstract: dict[str, Tree], step: str, log: Callable[[str], None]
) -> tuple[int, dict[str, Tree]]:
    """Returns the step and {"params", "model_state", "ema"} of a checkpoint; `step` is 'last', 'best' or a number.

    'last' skips damaged checkpoints and reports them through `log`. Raises InputError if there is none, or not the one
    requested.
    """
    available = steps(workdir)
    if step == "last":
        newest = _newest(workdir, {"model": abstract}, log, set_aside=False)
        if newest is None:
            raise InputError(f"{workdir} has no checkpoint yet")
        return newest[0], newest[1]["model"]
    number = best(workdir) if step == "best" else int(step) if step.isdigit() else None
    if step == "best" and number is None:
        raise InputError(f"{workdir} has no best checkpoint: its config has no val_split; use --step=last")
    if number not in available:
        raise InputError(f"{workdir} has no checkpoint of step {step!r}; valid: last, best, {_list(available)}")
    try:
        return number, _read(workdir, number, {"model": abstract})["model"]
    except DamagedError as error:
        raise InputError(f"{_folder(workdir, number)} is damaged: {error}; others: {_list(available)}") from error


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _newest(
    workdir: pathlib.Path, abstract: dict[str, dict[str, Tree]], log: Callable[[str], None], set_aside: bool
) -> tuple[int, dict[str, Any]] | None:
    """Returns the step and the items of the newest intact checkpoint; None if there are no checkpoints."""
    available, damaged = steps(workdir), []
    for step in reversed(available):
        try:
            items = _read(workdir, step, abstract)
        except DamagedError as error:
            damaged.append(step)
            log(f"checkpoint {_folder(workdir, step)} is damaged: {error}")
            continue
        if damaged:
            log(f"using the newest intact checkpoint, step {step}")
        for damaged_step in damaged if set_aside else ():
            _set_aside(workdir, damaged_step)
        return step, items
    if available:
        raise InputError(f"{workdir / FOLDER} has no intact checkpoint; damaged: {_list(available)}")
    return None


def _set_aside(workdir: pathlib.Path, step: int) -> None:
    """Moves a damaged checkpoint to the folder damaged/ of the run. Nothing is deleted."""
    folder = workdir / "damaged"
    folder.mkdir(exist_ok=True)
    number = sum(1 for _ in folder.glob(f"{step:08d}*"))
    _folder(workdir, step).rename(folder / f"{step:08d}-{number}")
