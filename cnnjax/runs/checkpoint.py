"""Checkpoints: saved in a background thread with a digest, restored only if the digest matches.

Orbax writes them atomically and deletes old ones. It does not detect a flipped bit, and takes an empty folder for a
checkpoint. So each checkpoint has a digest (`cnnjax.runs.digest`), which is verified on restoring. It also holds the
validation metrics. Orbax is imported in functions, so that the first training step does not wait for it.
"""

import concurrent.futures
import contextlib
import functools
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cnnjax import config as configs
from cnnjax.distributed import processes
from cnnjax.errors import InputError
from cnnjax.metrics import METRICS
from cnnjax.paths import check_run_folder, make_epath_literal
from cnnjax.runs.digest import DamagedError, array_records, check_same_network, read_section, to_host, with_crc
from cnnjax.state import TrainState, Tree, check_finite

FOLDER = "checkpoints"
Log = Callable[[str], None]
METRIC = "accuracy"  # of the validation split; decides which checkpoint is best

# A checkpoint has two items, so that evaluation reads only the first and needs no optimizer.
ITEMS = {"model": ("params", "model_state", "ema"), "optimizer": ("step", "opt_state", "watched")}
OPTIONAL = ("watched",)  # left out when empty, as in old checkpoints
ATTRIBUTES = {"watched": "monitors"}  # fields of the state that have another name on disk


def _items(state: TrainState) -> dict[str, dict[str, Tree]]:
    """Splits a state into the items of a checkpoint: {item: {name of a field on disk: its tree}}, see `ITEMS`."""
    return {
        item: {name: _attribute(state, name) for name in names if name not in OPTIONAL or _attribute(state, name)}
        for item, names in ITEMS.items()
    }


def _attribute(state: TrainState, name: str) -> Tree:
    """Returns the field of `state` that has this name on disk: 'watched' on disk is `state.monitors`."""
    return getattr(state, ATTRIBUTES.get(name, name))


class Saver:
    """Context manager that saves a run's checkpoints in a background thread, one at a time.

    On exit it waits until the last checkpoint is on disk. Keeps the newest `keep` checkpoints and the best one, which
    has the highest validation accuracy, and deletes the others.
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
        """Returns the Orbax CheckpointManager of the run's folder, made at the first save."""
        import orbax.checkpoint as ocp

        _silence_orbax()
        make_epath_literal()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_KeepNewestAndBest(self._workdir, self._keep),
            step_format_fixed_length=8,
            cleanup_tmp_directories=True,  # left by a killed run
        )
        return ocp.CheckpointManager(self._folder, options=options)

    def save(self, state: TrainState, metrics: dict[str, float] | None) -> None:
        """Waits for the previous save, then starts to save `state`. With several processes, also waits for this save.

        Copies the state on the device first, so that the next step may donate its buffers. `metrics` are validation
        metrics to store, such as {'accuracy': 0.9}; None if there was no validation. Raises the errors of `finish` for
        the previous save.
        """
        self.finish()
        self._pending = self._thread.submit(self._write, _copy(state), metrics)
        if jax.process_count() > 1:  # Orbax synchronizes the processes, which must not mix with a step's collectives
            self._pending.result()

    def finish(self) -> None:
        """Waits until every checkpoint that `save` started is on disk.

        Raises InputError if a checkpoint cannot be written. Raises FloatingPointError if a parameter or running
        statistic is infinite or NaN: that checkpoint is not written. The loss of a step does not show this, as it is
        computed before the update.
        """
        pending, self._pending = self._pending, None
        if pending:
            pending.result()
            with _as_input_error(self._folder):
                self._manager.wait_until_finished()

    def _write(self, state: TrainState, metrics: dict[str, float] | None) -> None:
        """Writes one checkpoint in the saver's thread. Raises the errors described in `finish`."""
        with _as_input_error(self._folder):
            import orbax.checkpoint as ocp

            host_state = jax.tree.map(to_host, state)
            check_finite(host_state)
            step = int(host_state.step)
            digest = {item: with_crc("arrays", array_records(tree)) for item, tree in _items(host_state).items()}
            started = self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{item: ocp.args.StandardSave(tree) for item, tree in _items(state).items()},
                    digest=ocp.args.JsonSave(digest | {"metrics": with_crc("values", metrics)}),
                ),
                metrics=metrics,
            )
            if not started:
                raise InputError(f"{self._folder} has a later checkpoint than step {step} already")


@jax.jit
def _copy(state: TrainState) -> TrainState:
    """Copies every array of a state on its devices."""
    return jax.tree.map(jnp.copy, state)


class _KeepNewestAndBest:
    """Orbax preservation policy: keeps the `newest` latest checkpoints and the best one.

    Unlike Orbax's own policies, it tolerates metrics that cannot be read.
    """

    def __init__(self, workdir: pathlib.Path, newest: int) -> None:
        self.workdir, self.newest = workdir, newest

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Returns for each checkpoint whether to keep it, as Orbax asks. `context` is not used."""
        metrics = {info.step: info.metrics or _metrics(self.workdir, info.step) for info in checkpoints}
        kept = {*sorted(metrics)[-self.newest :], _best(metrics)}
        return [info.step in kept for info in checkpoints]


@contextlib.contextmanager
def _as_input_error(folder: Any) -> Iterator[None]:
    """Context manager that turns an exception while saving in `folder` into an InputError.

    Lets InputError, FloatingPointError and the failure of another process through unchanged.
    """
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
    """Suppresses the tracebacks that coroutines of Orbax print when a read or write has failed. Stays in effect."""
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    previous_hook = sys.unraisablehook

    def hook(args: Any) -> None:
        """Stands in for sys.unraisablehook: ignores such errors, and passes others to the previous hook."""
        error = args.exc_value
        if not (str(error) == "Event loop is closed" or isinstance(getattr(error, "__cause__", None), GeneratorExit)):
            previous_hook(args)

    sys.unraisablehook = hook


def steps(workdir: pathlib.Path) -> list[int]:
    """Returns the training steps of a run's checkpoints, ascending, damaged ones included; [] if there are none."""
    folder = workdir / FOLDER
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal()) if folder.is_dir() else []


def best(workdir: pathlib.Path, log: Log = print) -> int | None:
    """Returns the step of the checkpoint with the highest validation accuracy, the latest of several.

    Returns None if no checkpoint has validation metrics. `log` gets a line for each whose metrics are damaged.
    """
    return _best({step: _metrics(workdir, step, log) for step in steps(workdir)})


def find(workdir: pathlib.Path, name: str | int, log: Log = print, others: tuple[str, ...] = ()) -> int:
    """Returns the step of the checkpoint of this name: 'last', 'best' or a number.

    `log` gets the messages of `best`. `others` are further names that the caller accepts; the error lists them. Raises
    InputError if the run has no such checkpoint.
    """
    available, name = steps(workdir), str(name)
    if not available:
        raise InputError(f"{workdir} has no checkpoint yet")
    if name == "last":
        return available[-1]
    if name == "best":
        if (number := best(workdir, log)) is None:
            config = configs.load(workdir / "config.json")
            is_scored = config.val_split or config.fold
            why = "none has a score on its validation split" if is_scored else "its config has no val_split"
            raise InputError(f"{workdir} has no best checkpoint: {why}; use --step=last")
        return number
    if matching := [step for step in available if str(step) == name.lstrip("0")]:
        return matching[0]
    valid = ", ".join([*others, "last", "best", *map(str, available)])
    raise InputError(f"{workdir} has no checkpoint of step {name!r}; valid: {valid}")


def _best(metrics_by_step: dict[int, dict[str, float] | None]) -> int | None:
    """Returns the step with the highest accuracy, the latest of several; None if no step has metrics.

    `metrics_by_step` has None for a checkpoint without validation metrics.
    """
    sign = METRICS[METRIC].sign
    scores = {step: (sign * metrics[METRIC], step) for step, metrics in metrics_by_step.items() if metrics}
    return max(scores, key=scores.__getitem__) if scores else None


def _metrics(workdir: pathlib.Path, step: int, log: Log = lambda line: None) -> dict[str, float] | None:
    """Returns the validation metrics of a checkpoint; None if it has none or, after a line to `log`, if damaged."""
    try:
        return read_section(_folder(workdir, step), "metrics", "values")
    except DamagedError as error:
        log(f"checkpoint {_folder(workdir, step)} is not considered for the best: {error}")
        return None


def _folder(workdir: pathlib.Path, step: int) -> pathlib.Path:
    """Returns the path of a checkpoint's folder, such as RUN/checkpoints/00000500 for step 500."""
    return workdir / FOLDER / f"{step:08d}"


def _read(workdir: pathlib.Path, step: int, abstract: dict[str, dict[str, Tree]]) -> dict[str, dict[str, Tree]]:
    """Restores some items of a checkpoint, {item: {field: tree}} as `_items` returns, into the structure of `abstract`.

    The leaves of `abstract` are ShapeDtypeStructs with the shardings of the result. Raises DamagedError if a checksum
    differs or a file cannot be read, and InputError if the checkpoint is of another network or optimizer.
    """
    check_run_folder(workdir)
    make_epath_literal()
    folder = _folder(workdir, step)
    saved = {item: read_section(folder, item, "arrays") for item in abstract}
    for item, tree in abstract.items():
        check_same_network(folder, saved[item], array_records(tree))
    import orbax.checkpoint as ocp

    args = {item: ocp.args.StandardRestore(tree) for item, tree in abstract.items()}
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            restored = reader.restore(folder.absolute(), args=ocp.args.Composite(**args))
    except Exception as error:  # tensorstore and orbax raise many types for truncated or missing files
        _silence_orbax()
        raise DamagedError(f"its arrays cannot be read ({type(error).__name__})") from error
    for item in abstract:
        for path, record in array_records(jax.tree.map(to_host, restored[item])).items():
            if record != saved[item][path]:
                raise DamagedError(f"{path} differs from what was saved (wrong checksum)")
    return {item: restored[item] for item in abstract}


def restore(workdir: pathlib.Path, abstract: TrainState, log: Log, set_aside: bool = False) -> TrainState | None:
    """Restores the newest intact checkpoint; returns None if the run has no checkpoints.

    Args:
      workdir: the run's folder.
      abstract: a state of ShapeDtypeStructs, with the shardings of the result.
      log: called with a message for each damaged checkpoint.
      set_aside: moves damaged checkpoints to damaged/, so that the resumed training can save these steps again.

    Raises InputError if all checkpoints are damaged, or if one is of another network or optimizer.
    """
    newest = _newest(workdir, _items(abstract), log, set_aside)
    if newest is None:
        return None
    fields: dict[str, Tree] = newest[1]["model"] | newest[1]["optimizer"]
    return TrainState(**{ATTRIBUTES.get(name, name): tree for name, tree in fields.items()})


def restore_model(
    workdir: pathlib.Path, abstract: dict[str, Tree], step: str | int, log: Log
) -> tuple[int, dict[str, Tree]]:
    """Returns the step of a checkpoint and its variables {"params": ..., "model_state": ..., "ema": ...}.

    `abstract` has the same keys, with trees of ShapeDtypeStructs. `step` is 'last', 'best' or a number. 'last' skips
    damaged checkpoints and reports them through `log`. Raises InputError if the checkpoint is missing or damaged.
    """
    if step == "last" and (newest := _newest(workdir, {"model": abstract}, log, set_aside=False)):
        return newest[0], newest[1]["model"]
    number = find(workdir, step, log)
    try:
        return number, _read(workdir, number, {"model": abstract})["model"]
    except DamagedError as error:
        raise InputError(f"{_folder(workdir, number)} is damaged: {error}; others: {_list(steps(workdir))}") from error


def _list(numbers: list[int]) -> str:
    """Joins numbers with commas; 'none' for []."""
    return ", ".join(map(str, numbers)) or "none"


def _newest(
    workdir: pathlib.Path, abstract: dict[str, dict[str, Tree]], log: Log, set_aside: bool
) -> tuple[int, dict[str, Any]] | None:
    """Returns (step, items) of the newest intact checkpoint, restored into `abstract` as in `_read`.

    Returns None if there are no checkpoints. Raises InputError if all are damaged, or one is of another network.
    """
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
    """Moves a damaged checkpoint to damaged/STEP-NUMBER in the run's folder. Overwrites and deletes nothing."""
    folder = workdir / "damaged"
    folder.mkdir(exist_ok=True)
    number = sum(1 for _ in folder.glob(f"{step:08d}*"))
    _folder(workdir, step).rename(folder / f"{step:08d}-{number}")
