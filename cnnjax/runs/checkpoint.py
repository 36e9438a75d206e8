"""Checkpoints: saved in the background, each with a digest of its own, restored only when the digest agrees.

Orbax writes and keeps them, atomically. It does not notice a flipped bit, and takes an empty folder for a step; so
beside the arrays stands a record of every array's type, shape and CRC-32, checked whenever they are read back. The
validation metrics are in that record too.

Orbax is imported where it is used: the first step need not wait for it.
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
from cnnjax.state import TrainState, Tree, path_name

FOLDER = "checkpoints"
METRIC = "accuracy"  # of the validation split: the greatest is the best

# A checkpoint has two parts, so that evaluation reads one and needs to know nothing of the optimiser.
PARTS = {"model": ("params", "model_state", "ema"), "optimizer": ("step", "opt_state", "watched")}
ATTRIBUTES = {"watched": "monitors"}  # items whose name on disk is not that of the state's field
LATER = ("watched",)  # only there when not empty, for old checkpoints have none


def _part(state: TrainState, names: tuple[str, ...]) -> dict[str, Tree]:
    items = {name: getattr(state, ATTRIBUTES.get(name, name)) for name in names}
    return {name: tree for name, tree in items.items() if name not in LATER or tree}


class Saver:
    """Within this context, saves the states of a run in a thread, one after another; at its end it waits for them.

    The newest `keep` checkpoints are kept, and the best.
    """

    def __init__(self, workdir: pathlib.Path, keep: int) -> None:
        self._workdir, self._keep = workdir, keep
        self._folder = workdir.absolute() / FOLDER
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "cnnjax-saver")
        self._writing: concurrent.futures.Future[None] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.finish()
        finally:
            self._thread.shutdown()
            if "_manager" in vars(self):
                with _one_error(self._folder):
                    self._manager.close()

    @functools.cached_property
    def _manager(self) -> Any:
        import orbax.checkpoint as ocp

        _hush()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_Keep(self._workdir, self._keep),
            step_format_fixed_length=8,
            cleanup_tmp_directories=True,  # what a killed run left half written
        )
        return ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: TrainState, metrics: dict[str, float] | None) -> None:
        """Starts saving the state, with the validation metrics where there are any, once the last one is saved.

        It is copied on the device first, so that the next step may overwrite it. Raises what `finish` does, of the
        last one.
        """
        self.finish()
        self._writing = self._thread.submit(self._write, _copy(state), metrics)
        if jax.process_count() > 1:  # in Orbax the processes wait for one another: never while they compute together
            self._writing.result()

    def finish(self) -> None:
        """Waits until everything is on the disk.

        Raises InputError when it cannot be written, and FloatingPointError for a network that is not finite: the loss
        of a step is of the parameters before it. Then nothing is saved.
        """
        writing, self._writing = self._writing, None
        if writing:
            writing.result()
            with _one_error(self._folder):
                self._manager.wait_until_finished()

    def _write(self, state: TrainState, metrics: dict[str, float] | None) -> None:
        with _one_error(self._folder):
            import orbax.checkpoint as ocp

            host = jax.tree.map(_whole, state)
            _check_finite(host)
            digest = {part: _sealed("arrays", record(_part(host, names))) for part, names in PARTS.items()}
            started = self._manager.save(
                int(host.step),
                args=ocp.args.Composite(
                    **{part: ocp.args.StandardSave(_part(state, names)) for part, names in PARTS.items()},
                    digest=ocp.args.JsonSave(digest | {"metrics": _sealed("values", metrics)}),
                ),
                metrics=metrics,
            )
            if not started:
                raise InputError(f"{self._folder} has a later checkpoint than step {int(host.step)} already")


@jax.jit
def _copy(state: TrainState) -> TrainState:
    return jax.tree.map(jnp.copy, state)


def _whole(leaf: jax.Array) -> np.ndarray:
    """An array in this process's memory. Where the processes hold parts of it, all of them have to ask at once."""
    if not (leaf.is_fully_replicated or leaf.is_fully_addressable):
        return multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf.addressable_data(0) if leaf.is_fully_replicated else leaf)


def _check_finite(state: TrainState) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path((state.params, state.model_state)):
        if not np.isfinite(leaf).all():
            raise FloatingPointError(f"{path_name(path[1:])} became infinite or NaN by step {int(state.step)}")


class _Keep:
    """The newest and the best stay: a preservation policy, as Orbax's own would stop at metrics that it cannot read."""

    def __init__(self, workdir: pathlib.Path, newest: int) -> None:
        self.workdir, self.newest = workdir, newest

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        found = {info.step: info.metrics or _metrics(self.workdir, info.step) for info in checkpoints}
        kept = {*sorted(found)[-self.newest :], _best(found)}
        return [info.step in kept for info in checkpoints]


@contextlib.contextmanager
def _one_error(folder: Any) -> Iterator[None]:
    """Turns whatever goes wrong while saving into one InputError, but for what is not the folder's fault."""
    try:
        yield
    except (InputError, FloatingPointError):
        raise
    except Exception as error:  # Orbax, tensorstore and the system each have their own
        if processes.several() and processes.reason(error):
            raise
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"cannot save in {folder}: {lines[0]}") from error


@functools.cache
def _hush() -> None:
    """Silences what Orbax leaves unfinished where a read or a write fails: each would print a page when it ends."""
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    others = sys.unraisablehook

    def hook(args: Any) -> None:
        error = args.exc_value
        if not (str(error) == "Event loop is closed" or isinstance(getattr(error, "__cause__", None), GeneratorExit)):
            others(args)

    sys.unraisablehook = hook


def record(tree: Tree) -> dict[str, list]:
    """Path -> [type, shape, CRC-32] of every array; the CRC is 0 where the tree holds only shapes."""
    return {
        path_name(path): [str(leaf.dtype), list(leaf.shape), _crc(leaf)]
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _crc(leaf: Any) -> int:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return 0
    return zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data) if leaf.size else 0


def _sealed(name: str, content: Any) -> dict[str, Any]:
    return {name: content, "crc": zlib.crc32(json.dumps(content).encode())}


def _digest(workdir: pathlib.Path, step: int, part: str, name: str) -> Any:
    """A part of a checkpoint's digest. Raises Damaged when it cannot be read, or is not what was sealed."""
    try:
        sealed = json.loads((_folder(workdir, step) / "digest" / "metadata").read_text())[part]
        if sealed == _sealed(name, sealed[name]):
            return sealed[name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"its digest cannot be read ({type(error).__name__})") from error
    raise Damaged("its digest does not agree with itself")


class Damaged(Exception):
    """A checkpoint that is not what was saved; the message says in what."""


def steps(workdir: pathlib.Path) -> list[int]:
    """The steps that a run has folders for, whether intact or not, oldest first."""
    folder = workdir / FOLDER
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit()) if folder.is_dir() else []


def best(workdir: pathlib.Path) -> int | None:
    """The step with the best validation metric, the newest of equals; None when none was saved with one."""
    return _best({step: _metrics(workdir, step) for step in steps(workdir)})


def _best(found: dict[int, dict[str, float] | None]) -> int | None:
    scores = {step: (metrics[METRIC], step) for step, metrics in found.items() if metrics}
    return max(scores, key=scores.__getitem__) if scores else None


def _metrics(workdir: pathlib.Path, step: int) -> dict[str, float] | None:
    """The validation metrics that a checkpoint was saved with, if it was, and they can be read."""
    try:
        return _digest(workdir, step, "metrics", "values")
    except Damaged:
        return None


def _folder(workdir: pathlib.Path, step: int) -> pathlib.Path:
    return workdir / FOLDER / f"{step:08d}"


def _read(workdir: pathlib.Path, step: int, abstract: dict[str, Tree]) -> dict[str, Tree]:
    """Reads the parts in `abstract` of one checkpoint. Raises Damaged, or InputError when it is another network's."""
    folder = _folder(workdir, step)
    arrays = {part: _digest(workdir, step, part, "arrays") for part in abstract}
    for part, tree in abstract.items():
        _check_same_network(folder, arrays[part], record(tree))
    import orbax.checkpoint as ocp

    items = {part: ocp.args.StandardRestore(tree) for part, tree in abstract.items()}
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            found = reader.restore(folder.absolute(), args=ocp.args.Composite(**items))
    except Exception as error:  # tensorstore and orbax raise many kinds for a file that is cut off or missing
        _hush()
        raise Damaged(f"its arrays cannot be read ({type(error).__name__})") from error
    for part in abstract:
        for path, read in record(jax.tree.map(_whole, found[part])).items():
            if read != arrays[part][path]:
                raise Damaged(f"{path} is not what was saved (its checksum differs)")
    return {part: found[part] for part in abstract}


def _check_same_network(folder: pathlib.Path, saved: dict[str, list], expected: dict[str, list]) -> None:
    for path in sorted(saved.keys() | expected.keys()):
        have, want = (table[path][:2] if path in table else None for table in (saved, expected))
        if have != want:
            raise InputError(
                f"{folder} is a checkpoint of another network or optimiser: {path} is "
                f"{_describe(have)} there, {_describe(want)} in this config"
            )


def _describe(entry: list | None) -> str:
    return f"{entry[0]}{entry[1]}" if entry else "missing"


def restore(
    workdir: pathlib.Path, abstract: TrainState, say: Callable[[str], None], set_aside: bool = False
) -> TrainState | None:
    """The newest intact state, placed as the leaves of `abstract` are; None when there is no checkpoint at all.

    Each damaged one is named through `say` and, if `set_aside`, moved out of the way so that its step can be saved
    anew. Raises InputError when there are checkpoints, but no intact one, or they are another network's.
    """
    parts = {part: _part(abstract, names) for part, names in PARTS.items()}
    found = _newest(workdir, parts, say, set_aside)
    if found is None:
        return None
    items = found["model"] | found["optimizer"]
    return TrainState(**{ATTRIBUTES.get(name, name): tree for name, tree in items.items()})


def restore_model(
    workdir: pathlib.Path, abstract: dict[str, Tree], step: str, say: Callable[[str], None]
) -> tuple[int, dict[str, Tree]]:
    """What is evaluated, {"params", "model_state", "ema"}, with its step; `step` is 'last', 'best' or a number.

    'last' passes over damaged checkpoints, naming them. Raises InputError when there is none, or not this one.
    """
    available = steps(workdir)
    if step == "last":
        found = _newest(workdir, {"model": abstract}, say, set_aside=False)
        if found is None:
            raise InputError(f"{workdir} has no checkpoint yet")
        return found["step"], found["model"]
    number = best(workdir) if step == "best" else int(step) if step.isdigit() else None
    if step == "best" and number is None:
        raise InputError(f"{workdir} has no best checkpoint: its config has no val_split; use --step=last")
    if number not in available:
        raise InputError(f"{workdir} has no checkpoint of step {step!r}; valid: last, best, {_list(available)}")
    try:
        return number, _read(workdir, number, {"model": abstract})["model"]
    except Damaged as error:
        raise InputError(f"{_folder(workdir, number)} is damaged: {error}; others: {_list(available)}") from error


def _list(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _newest(workdir: pathlib.Path, parts: dict, say: Callable[[str], None], set_aside: bool) -> dict | None:
    available, damaged = steps(workdir), []
    for step in reversed(available):
        try:
            found = _read(workdir, step, parts) | {"step": step}
        except Damaged as error:
            damaged.append(step)
            say(f"checkpoint {_folder(workdir, step)} is damaged: {error}")
            continue
        if damaged:
            say(f"going on from the newest intact checkpoint, step {step}")
        for bad in damaged if set_aside else ():
            _set_aside(workdir, bad)
        return found
    if available:
        raise InputError(f"{workdir / FOLDER} has no intact checkpoint; damaged: {_list(available)}")
    return None


def _set_aside(workdir: pathlib.Path, step: int) -> None:
    """Moves a damaged checkpoint to a folder beside the others. Nothing is deleted."""
    folder = workdir / "damaged"
    folder.mkdir(exist_ok=True)
    number = sum(1 for _ in folder.glob(f"{step:08d}*"))
    _folder(workdir, step).rename(folder / f"{step:08d}-{number}")
