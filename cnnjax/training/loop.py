"""The training loop: start reading at `train`, which runs the stages recipe -> setup -> state -> step."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax import metrics, optim, register, sealed
from cnnjax.config import Config, is_due, parse_duration
from cnnjax.console import Console
from cnnjax.data import pipeline
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.ops.convolution import implementation_name
from cnnjax.optim import freezing
from cnnjax.runs import checkpoint, history, workdir
from cnnjax.runs.duration import training_seconds
from cnnjax.runs.signals import AGREE_EVERY, Interrupted, Signals
from cnnjax.state import TrainState
from cnnjax.training.extend import check_duration
from cnnjax.training.init import split_keys
from cnnjax.training.recipe import parse_recipe
from cnnjax.training.reporter import Reporter
from cnnjax.training.setup import Log, Setup, make_setup
from cnnjax.training.state import restore_or_init
from cnnjax.training.step import jit_step

EVENTS = ("log", "eval", "checkpoint")  # each has a config field: log_every, eval_every, checkpoint_every


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """The result of a finished training.

    Attributes:
      state: the final state.
      metrics: the contents of result.json: metrics of the test split (if there is one), 'step', 'folder' and, on the
        first process, 'seconds' of training (`cnnjax.runs.duration`), ...
      history: {'train', 'val' or 'test': {'step', 'epoch', 'loss', ...: values}}, read from metrics.jsonl; {} on all
        processes but the first.
    """

    state: TrainState
    metrics: dict[str, Any]
    history: dict[str, dict[str, list[float]]]

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.metrics.items() if name != "loop_seconds")
        return f"TrainResult({values})"


def train(
    config: Config,
    folder: pathlib.Path | str,
    *,
    data_dir: str = "",
    mesh: Mesh | None = None,
    console: Console | None = None,
    on_metrics: Callable[[history.Metrics], None] | None = None,
) -> TrainResult:
    """Trains a network up to the last step, and resumes from the newest checkpoint in `folder` if there is one.

    An existing run, even a finished one, may continue with another duration where `extend.check_duration` allows it.

    Args:
      config: settings of the run.
      folder: the run's folder, which takes checkpoints, metrics.jsonl and result.json; it is created if needed.
      data_dir: folder of the data sets; '' for the default one.
      mesh: devices to use; None for config.mesh.
      console: shows the progress; None for the terminal or the notebook.
      on_metrics: called in process 0 with each line of metrics.jsonl once it is written, such as {"step": 20, "epoch":
        1.5, "train/loss": 0.5}; None for nothing.

    Returns:
      The final state, the test metrics, and the history of all metrics.

    Raises:
      InputError: a config, data set or folder that does not fit, or imported code that differs from the run's.
      FloatingPointError: the loss is no longer finite.
      Interrupted: after SIGINT or SIGTERM, once the state is saved. Outside the main thread signals are not handled.
    """
    if not isinstance(config, Config):
        remedy = f"; load it with cnnjax.load_config({config!r})" if isinstance(config, str) else ""
        raise InputError(f"config = {config!r}: expected a cnnjax.Config{remedy}")
    folder = pathlib.Path(folder)
    leader = jax.process_index() == 0
    console = (console or Console()) if leader else Console(quiet=True)
    log = functools.partial(console.print, soft_wrap=True)
    register.check_imports(folder)
    recipe = parse_recipe(config)
    setup = make_setup(recipe, folder=folder, data_dir=data_dir, mesh=mesh, log=log)
    check_duration(setup, folder)
    with workdir.claim(folder, recipe.config) if leader else contextlib.nullcontext():
        if leader:
            workdir.write_data_info(folder, setup.data)
            register.keep_copies(folder)
            workdir.write_versions(folder, data_dir)
        workdir.check_shared(folder)
        state, result = _train(setup, folder, console, log, on_metrics)
    return TrainResult(state, result, read_history(folder) if leader else {})


def _train(
    setup: Setup,
    folder: pathlib.Path,
    console: Console,
    log: Log,
    on_metrics: Callable[[history.Metrics], None] | None,
) -> tuple[TrainState, dict[str, Any]]:
    """Restores or initializes the state, trains to the last step, scores the test split and writes result.json.

    The caller must have claimed `folder`. `on_metrics` is that of `train`. Returns the final state and the contents of
    result.json. Raises FloatingPointError and Interrupted as `train` does.
    """
    recipe, leader = setup.recipe, jax.process_index() == 0
    state = restore_or_init(setup, folder, log, set_aside=leader)

    start, end = int(state.step), setup.total_steps
    if optim.stop_reason(recipe.config.early_stop, state.monitors):  # it stopped early, before it was resumed
        end = start
    _announce(setup, folder, log, start, end)
    with (
        history.MetricsWriter(folder, start, leader, log, on_metrics) as file,
        checkpoint.Saver(folder, recipe.config.keep_checkpoints) as saver,
        Signals() as signals,
        Reporter(setup, file, console, start, end) as reporter,
    ):
        state = _run_steps(setup, state, end, saver, signals, reporter)
        saver.finish()
        reporter.laps.lap("saving")
        stopped = optim.stop_reason(recipe.config.early_stop, jax.device_get(state.monitors))
        if signals.signal is not None and int(state.step) < end and not stopped:
            raise Interrupted(signals.signal, f"stopped after step {int(state.step)}; the state is saved")
        result: dict[str, Any] = {"step": int(state.step), "folder": str(folder)}
        if stopped:
            log(f"stopped after step {int(state.step):,} by {stopped}")
            result["stopped"] = stopped
        if "test" in setup.scorers:
            result |= {"split": recipe.config.test_split, **_score_test(setup, state, file, reporter)}
        if leader:
            lines = (line.values for line in history.read(folder).lines)
            result["seconds"] = round(training_seconds(lines, recipe.config.batch_size), 1)
        earlier = _earlier_result(folder)
        if start < int(state.step):
            log(reporter.laps.line())
            result["loop_seconds"] = {name: round(value, 3) for name, value in reporter.laps.seconds.items()}
        elif earlier.get("step") == start:  # the run was finished: its result stays, with the time of the training
            result |= earlier | {"folder": str(folder)}
        if leader and result != earlier:
            sealed.write_json(folder / "result.json", result)
    return state, result


def _earlier_result(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the content of a run's result.json; {} if there is none, or if it is damaged."""
    try:
        return sealed.read_json(folder / "result.json")
    except (FileNotFoundError, InputError):
        return {}


def _run_steps(
    setup: Setup, state: TrainState, end: int, saver: checkpoint.Saver, signals: Signals, reporter: Reporter
) -> TrainState:
    """Runs training steps until step `end`, a signal, or early stopping, and returns the last state.

    Logs, validates and saves checkpoints when these are due, and at the end.
    """
    step_fn, (_, key) = jit_step(setup), split_keys(setup.config)
    teacher_variables = setup.teacher.variables if setup.teacher else {}
    periods = event_periods(setup, end)
    for step, feed in feeds(setup, int(state.step), end, periods.values()):
        reporter.laps.lap("input")
        state, sums = step_fn(state, feed, key, teacher_variables)
        reporter.called(step, sums)
        leaving = signals.should_stop(step)
        reporter.laps.lap("step")

        due = {name: is_due(step, period) or step == end for name, period in periods.items()}
        evaluating = "val" in setup.scorers and due["eval"]
        saving = due["checkpoint"] or evaluating or leaving
        stopped, val = "", None
        if due["log"] or saving:
            reporter.train()
        if evaluating:
            val = metrics.means(setup.scorers["val"](state.variables))
            state = _update_monitors(setup, state, val)
            stopped = optim.stop_reason(setup.config.early_stop, jax.device_get(state.monitors))
            reporter.validation(val)
        if saving:
            saver.save(state, val)
            reporter.laps.lap("saving")
        if due["log"] or saving:
            reporter.restart()
        if leaving or stopped:
            break
    return state


def _score_test(setup: Setup, state: TrainState, file: history.MetricsWriter, reporter: Reporter) -> dict[str, float]:
    """Scores the test split, writes its mean metrics to metrics.jsonl, and returns them."""
    values = metrics.means(setup.scorers["test"](state.variables))
    step = int(state.step)
    file.write(step, step / setup.steps_per_epoch, "test", values)
    reporter.laps.lap("evaluation")
    return values


def _update_monitors(setup: Setup, state: TrainState, val: dict[str, float]) -> TrainState:
    """Returns the state after an evaluation: its plateau and early-stop monitors, if any, updated by `val`.

    `val` holds the mean validation metrics.
    """
    monitors = optim.update_monitors(setup.recipe.optim.monitors, jax.device_get(state.monitors), val)
    placed = jax.tree.map(functools.partial(sharding.put_replicated, setup.mesh), monitors)
    return dataclasses.replace(state, monitors=placed)


def event_periods(setup: Setup, total: int) -> dict[str, float]:
    """Returns the period of each of EVENTS in steps, not rounded: {'log': 50.0, 'eval': 390.625, ...}.

    `total` is the number of steps of the whole training.
    """
    epoch = setup.steps_per_epoch
    return {name: parse_duration(getattr(setup.config, f"{name}_every"), epoch=epoch, total=total) for name in EVENTS}


def feeds(setup: Setup, start: int, total: int, periods: Iterable[float]) -> Iterator[tuple[int, Any]]:
    """Yields (number of steps done afterwards, input) for each device call from step `start` to step `total`.

    The input of `jit_step` is one batch, or a `pipeline.StepGroup` if setup.steps_per_call > 1. A group ends early
    wherever one of `periods` (in steps) is due.
    """
    config, max_steps = setup.config, setup.steps_per_call
    order = {"seed": config.seed, "batch_size": config.batch_size, "repeats": config.repeated_augment}
    if max_steps == 1:
        return enumerate(pipeline.train_batches(setup.source, **order, start=start, stop=total), start + 1)
    groups = _groups(start, total, periods, max_steps)
    return pipeline.train_groups(setup.source, groups, **order, max_steps=max_steps, mesh=setup.mesh)


def _groups(start: int, total: int, periods: Iterable[float], max_steps: int) -> Iterator[range]:
    """Yields ranges of up to `max_steps` steps that cover `start` to `total`; a range ends where a period is due."""
    periods = [*periods, *([AGREE_EVERY] if jax.process_count() > 1 else [])]
    while start < total:
        stop = start + 1
        while stop < min(start + max_steps, total) and not any(is_due(stop, period) for period in periods):
            stop += 1
        yield range(start, stop)
        start = stop


def _announce(setup: Setup, folder: pathlib.Path, log: Log, start: int, total: int) -> None:
    """Logs the network, data set, number of steps, devices and folder, and the step from which the run resumes."""
    config, mesh, params = setup.config, setup.mesh, setup.shapes.params
    count, trainable = (_size(tree) for tree in (params, freezing.trainable(setup.recipe.optim.freezing, params)))
    counted = f"{count:,} parameters" + (f" ({trainable:,} of them trained)" if trainable < count else "")
    log(
        f"{config.model} on {config.dataset}: {counted}, {setup.source.num_examples:,} images, {total:,} steps of "
        f"{config.batch_size} on {mesh.size} {jax.default_backend()} device(s), in {folder}",
    )
    if config.zero_1 or mesh.shape["model"] > 1:
        trees = (params, setup.shapes.opt_state)
        held = [f"{sharding.local_bytes(tree) / 2**20:.1f} MiB" for tree in trees]
        log(f"each device holds {held[0]} of parameters and {held[1]} of optimizer state")
    if jax.default_backend() == "cpu":
        log(f"using {implementation_name(config.dtype)} for CPU convolutions")
    if start:
        log(f"resuming from step {start:,}")


def _size(tree: Any) -> int:
    """Returns the number of elements in all arrays of a tree."""
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


def read_history(folder: pathlib.Path) -> dict[str, dict[str, list[float]]]:
    """Reads a run's metrics.jsonl as columns: {'train': {'step': [...], 'epoch': [...], 'loss': [...]}, 'val': ...}."""
    columns: dict[str, dict[str, list[float]]] = {}
    for line in history.read(folder).lines:
        for group in {name.partition("/")[0] for name in line.values if "/" in name}:
            group_columns = columns.setdefault(group, {})
            for name, value in line.values.items():
                if "/" not in name or name.startswith(f"{group}/"):
                    group_columns.setdefault(name.removeprefix(f"{group}/"), []).append(value)
    return columns
