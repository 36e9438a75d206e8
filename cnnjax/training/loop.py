"""Training, top to bottom: the state, the step, the loop."""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from rich.console import Console

from cnnjax import augment, losses, metrics, optim, pretrained
from cnnjax.config import Config, check, is_due, parse_duration, to_steps
from cnnjax.data import folds, pipeline
from cnnjax.data.build import Split, load
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation import protocols
from cnnjax.evaluation.scoring import input_errors, make_scorer
from cnnjax.models import create_model
from cnnjax.ops.convolution import lowered_by
from cnnjax.optim import freezing
from cnnjax.runs import checkpoint, workdir
from cnnjax.runs.signals import Interrupted, Signals
from cnnjax.state import TrainState, Tree, overlaid
from cnnjax.training import distill
from cnnjax.training.progress import Bar, Laps

Key = jax.Array

EVENTS = ("log", "eval", "checkpoint")  # each has a field, "log_every" and so on
PRIMING = 5000  # training images that a network is primed with, where it is
DISPATCH = 32  # steps in one call, where config.steps_per_call leaves it open


# ---------------------------------------------------------------------------------------------------- state and step


def init_state(
    key: Key, *, config: Config, model: nn.Module, schedule: optax.Schedule, shape: tuple[int, ...]
) -> TrainState:
    """The state before the first step, for images of `shape` [H, W, C].

    Raises InputError when the network gives anything but a row of logits for each image.
    """
    logits, variables = model.init_with_output(key, jnp.zeros((1, *shape)), train=False)
    if getattr(logits, "ndim", 0) != 2:
        what = f"maps of {logits.shape[1:]}" if hasattr(logits, "shape") else f"the maps {', '.join(sorted(logits))}"
        raise InputError(f"the network gives {what}; training needs logits: not features_only, nor head='conv'")
    return first_state(variables, config=config, schedule=schedule)


def first_state(variables: Tree, *, config: Config, schedule: optax.Schedule) -> TrainState:
    """The state before the first step of a network that has these variables."""
    model_state = dict(variables)
    params = model_state.pop("params")
    trained = freezing.trainable(config, params)
    averaged = jax.tree.map(jnp.copy, trained) if optim.keeps_average(config) else {}
    opt_state = optim.build(config, trained, schedule).init(trained)
    watched = jax.tree.map(jnp.asarray, optim.init_monitors(config))
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, opt_state, averaged, watched)


def prime(state: TrainState, images: np.ndarray, model: Any, prepare: Callable[..., jax.Array]) -> TrainState:
    """The state before the first step of a network that takes more of the training `images` than its gradients."""
    placed = jax.tree.map(lambda x: x.sharding, state.model_state)
    primed = jax.jit(lambda old, images: model.primed(old, prepare(jax.random.key(0), images)), out_shardings=placed)
    model_state = primed(state.model_state, images)
    return dataclasses.replace(state, model_state=model_state)


def train_step(
    state: TrainState,
    batch: pipeline.Batch,
    key: Key,
    teacher_variables: Tree = None,
    *,
    config: Config,
    model: nn.Module,
    schedule: optax.Schedule,
    prepare: Callable[..., jax.Array],
    mix: Callable[..., tuple[jax.Array, jax.Array]],
    teacher: distill.Teacher | None = None,
    waits: Mapping[str, int] | None = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update from one global batch. All randomness comes from `key`, folded with the step.

    `prepare` makes images of a batch, `mix` of them and the labels what the network sees and its targets; both are of
    `cnnjax.augment`. Hits count by the label, also where an image is of several. `waits`: as of `freezing`.
    """
    rate = optim.scaled_schedule(schedule, state.watched)
    trained = freezing.trainable(config, state.params)
    loss, tx = losses.build(config.loss), optim.build(config, trained, rate)
    augment_key, dropout_key, mix_key = jax.random.split(jax.random.fold_in(key, state.step), 3)

    def loss_fn(params, model_state, images, labels, target, taught, key):
        with freezing.freeze_batch_stats(config, state.params, waits or {}, state.step):
            logits, updated = model.apply(
                {"params": overlaid(state.params, params), **model_state},
                images,
                train=True,
                mutable=[*model_state, "aux_logits"],
                rngs={"dropout": key},
            )
        model_state = dict(updated)
        auxiliary = jax.tree.leaves(model_state.pop("aux_logits", {}))
        each = loss(logits, target)
        if teacher:
            each = teacher.blend(each, logits, taught)
        total = each.mean() + config.aux_weight * sum(loss(one, target).mean() for one in auxiliary)
        return total, (model_state, metrics.sums(logits, labels, each))

    def part(index):
        mine = {name: x.reshape(-1, config.grad_accum_steps, *x.shape[1:])[:, index] for name, x in batch.items()}
        drawn = jax.random.fold_in(augment_key, index), mine["image"], mine["example"], mine["epoch"]
        mixed, labels = jax.random.fold_in(mix_key, index), mine["label"]
        images, target = mix(mixed, prepare(*drawn), labels)
        taught = teacher.logits(teacher_variables, mix(mixed, teacher.prepare(*drawn), labels)[0]) if teacher else None
        return images, labels, target, taught, jax.random.fold_in(dropout_key, index)

    def gradient(params):
        # Not a lax.scan, which was tens of times slower on a CPU with XLA's own convolutions.
        grads, model_state, parts = jax.tree.map(jnp.zeros_like, params), state.model_state, []
        for index in range(config.grad_accum_steps):
            (_, (model_state, sums)), new = jax.value_and_grad(loss_fn, has_aux=True)(params, model_state, *part(index))
            grads = jax.tree.map(jnp.add, grads, new)
            parts.append(sums)
        grads = jax.tree.map(lambda g: g / config.grad_accum_steps, grads)
        return grads, model_state, jax.tree.map(lambda *xs: sum(xs), *parts)

    def value(params):
        parts = [loss_fn(params, state.model_state, *part(index))[0] for index in range(config.grad_accum_steps)]
        return sum(parts) / config.grad_accum_steps

    grads, model_state, sums = gradient(trained)
    if config.sam_rho:  # the same images and dropout again
        grads, *_ = gradient(optim.sam_perturb(trained, grads, config.sam_rho))
    awake = freezing.is_unfrozen(trained, waits or {}, state.step)
    updates, opt_state = tx.update(grads, state.opt_state, trained, value_fn=value, awake=awake)
    trained = optax.apply_updates(trained, updates)
    averaged = optim.eval_params(opt_state, trained)
    if config.ema:  # the average starts short, so that it forgets the initialisation
        decay = jnp.minimum(config.ema, (1 + state.step) / (10 + state.step))
        averaged = jax.tree.map(lambda average, p: decay * average + (1 - decay) * p, state.ema, trained)
    params = overlaid(state.params, trained)
    sums["lr"] = rate(state.step)
    return TrainState(state.step + 1, params, model_state, opt_state, averaged, state.watched), sums


def train_steps(
    state: TrainState,
    group: pipeline.StepGroup,
    key: Key,
    teacher_variables: Tree = None,
    *,
    step: Callable,
    place: NamedSharding,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Several updates in one call, from one `pipeline.train_groups`: so a small network waits for no Python.

    `step` is `train_step` with its keywords, `place` where batches live. Returns the metrics of
    all steps, each [K], of which the first group.num_steps are filled. Not for a CPU: there XLA's loops are slow.
    """

    def batch_of(i: jax.Array | int) -> pipeline.Batch:
        batch = pipeline.gather_batch(group.device_split, *group.indices[:, i])
        return jax.lax.with_sharding_constraint(batch, place)

    def body(i: jax.Array, carry: tuple) -> tuple:
        state, columns = carry
        state, sums = step(state, batch_of(i), key, teacher_variables)
        return state, jax.tree.map(lambda column, one: column.at[i].set(one), columns, sums)

    _, sums = jax.eval_shape(lambda: step(state, batch_of(0), key, teacher_variables))
    columns = jax.tree.map(lambda x: jnp.zeros((group.indices.shape[1], *x.shape), x.dtype), sums)
    return jax.lax.fori_loop(0, group.num_steps, body, (state, columns))


# ----------------------------------------------------------------------------------------------------------- the run


def check_names(config: Config) -> None:
    """Raises InputError for any name in the config that does not exist, before anything is read or written."""
    create_model(config.model, 10, config.dtype)
    losses.build(config.loss)
    protocols.build(config.protocol)
    if config.distill:
        distill.parse(config.distill)
    for text in (config.augment, config.preprocess):
        pipeline.parse_operations(text)
    pipeline.parse_normalization(config.normalize)
    optim.check(config)
    freezing.check(config)
    for name in ("duration", *(f"{event}_every" for event in EVENTS)):
        if not to_steps(getattr(config, name), epoch=1000, total=1_000_000):
            raise InputError(f"config.{name} = {getattr(config, name)!r}: expected more than 0")


def train(
    config: Config,
    folder: pathlib.Path,
    *,
    data_dir: str = "",
    mesh: Mesh | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Trains a network from the first step, or from the newest checkpoint in `folder`, to the last.

    `mesh` is in place of the config's. Returns the final numbers, which `folder`/result.json holds too. Raises
    InputError for a config, data set or folder that does not fit, FloatingPointError when the loss is no longer finite,
    and Interrupted after SIGINT or SIGTERM, once the state is saved.
    """
    check(config)
    check_names(config)
    if config.init_partial and not config.init:
        raise InputError("config.init_partial = True: there is nothing to start from; give config.init")
    starting = bool(config.init) and not checkpoint.steps(folder)  # one that goes on needs it no longer
    origin = pretrained.load(config.init, model=config.model) if starting else None
    mesh = mesh or sharding.make_mesh(text=config.mesh)
    leader = jax.process_index() == 0
    console = console if console and leader else Console(quiet=True)
    begun = time.monotonic()
    sharding.check_batch(config.batch_size // config.grad_accum_steps, mesh)

    # Data: the splits. The training split, if it fits in device memory, is read from now on, in the background.
    train_split, val_split = folds.resolve_splits(config, data_dir)
    splits = (train_split, val_split, config.test_split)
    examples = {split: load(config.dataset, split, data_dir) for split in splits if split}
    classes = examples[train_split].classes
    host_ops, step_ops = pipeline.split_ops(config.augment)
    step_ops, mixing = pipeline.split_mixing(step_ops)
    source = pipeline.open_source(examples[train_split], host_ops, cache=config.cache, seed=config.seed, mesh=mesh)
    dispatch = _dispatch(config, source)
    epoch = source.num_examples / config.batch_size
    total = to_steps(config.duration, epoch=epoch)

    # The network, and the state as it will be: from the newest checkpoint, or new.
    model = create_model(config.model, len(classes), config.dtype)
    group, size = getattr(model, "ghost", 0), config.batch_size // config.grad_accum_steps
    if group and size % group:
        raise InputError(f"a batch of {size} does not divide into groups of {group} images, the network's ghost")
    schedule = optim.build_schedule(config, epoch, total)
    init = functools.partial(init_state, config=config, model=model, schedule=schedule, shape=source.shape)
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    whole = sharding.replicated(mesh)
    with input_errors(config.model, source.shape):
        abstract = jax.eval_shape(init, init_key)
    waits = freezing.unfreeze_steps(config, abstract.params, epoch=epoch, total=total)
    fitting = (
        pretrained.match_for_transfer(abstract.variables, origin, config.init, classes, config.init_partial)
        if origin
        else None
    )
    where = sharding.state_sharding(abstract, mesh, config.zero_1)
    abstract = sharding.with_sharding(abstract, where)

    # What all images are seen with: from the training split, which was read meanwhile.
    known = _known(folder, examples[train_split], config, source)
    prepare = augment.build(step_ops, config.normalize, known, source.shape)
    mix = augment.build_mixing(mixing, len(classes))
    score = {split: make_scorer(config, known, examples[split], model, mesh) for split in splits[1:] if split}
    losses.build(config.loss, len(classes))
    teacher, lesson = None, {}
    if config.distill:
        teacher, lesson = distill.load(config.distill, step_ops, source.shape, classes, mesh, console.print)

    if leader:
        workdir.claim(folder, config)
        workdir.write_data_info(folder, known)
    workdir.check_shared(folder)
    state = checkpoint.restore(folder, abstract, console.print, set_aside=leader)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("damaged checkpoints are out of the way")
    if state is None:
        state = jax.jit(init, out_shardings=where)(init_key)
        if hasattr(model, "primed"):
            rows = np.arange(min(PRIMING, source.num_examples))
            images = pipeline.read(examples[train_split], host_ops, rows, rows, config.seed)["image"]
            plain = augment.build([], config.normalize, known, source.shape)
            state = prime(state, images, model, plain)
        if origin and fitting:
            variables = pretrained.apply_transfer(state.variables, origin, fitting, mesh, console.print)
            begin = functools.partial(first_state, config=config, schedule=schedule)
            state = jax.jit(begin, out_shardings=where)(variables)
    start = int(state.step)
    if stopped := optim.stop_reason(config, state.watched):
        total = start

    # The step, compiled once, and what feeds it: a batch for each, or the rows of several.
    every = {name: parse_duration(getattr(config, f"{name}_every"), epoch=epoch, total=total) for name in EVENTS}
    parts = {"config": config, "model": model, "schedule": schedule, "prepare": prepare, "mix": mix, "teacher": teacher}
    step_fn = functools.partial(train_step, **parts, waits=waits)
    order = {"seed": config.seed, "batch_size": config.batch_size, "repeats": config.repeated_augment}
    if dispatch == 1:
        feeds = enumerate(pipeline.train_batches(source, **order, start=start, stop=total), start + 1)
    else:
        step_fn = functools.partial(train_steps, step=step_fn, place=sharding.batch_sharding(mesh))
        groups = _groups(start, total, every.values(), dispatch)
        feeds = pipeline.train_groups(source, groups, **order, max_steps=dispatch, mesh=mesh)
    step_fn = jax.jit(
        step_fn,
        in_shardings=(where, sharding.batch_sharding(mesh) if dispatch == 1 else whole, whole, None),
        out_shardings=(where, whole),
        donate_argnums=0,
        compiler_options=sharding.compiler_options(),
    )

    # The loop.
    trees = abstract.params, freezing.trainable(config, abstract.params)
    parameters, trained = (sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree)) for tree in trees)
    learnt = f"{parameters:,} parameters" + (f" ({trained:,} of them trained)" if trained < parameters else "")
    console.print(
        f"{config.model} on {config.dataset}: {learnt}, {source.num_examples:,} images, {total:,} steps of "
        f"{config.batch_size} on {mesh.size} {jax.default_backend()} device(s), in {folder}",
        soft_wrap=True,
    )
    if config.zero_1 or mesh.shape["model"] > 1:
        held = [f"{sharding.local_bytes(x) / 2**20:.1f} MiB" for x in (abstract.params, abstract.opt_state)]
        console.print(
            f"each device holds {held[0]} of parameters and {held[1]} of the optimizer's state", soft_wrap=True
        )
    if jax.default_backend() == "cpu":
        console.print(f"convolutions are by {lowered_by(mesh.size)}", soft_wrap=True)
    if start:
        console.print(f"going on from step {start:,}")
    with (
        workdir.Metrics(folder, start, leader) as log,
        checkpoint.Saver(folder, config.keep_checkpoints) as saver,
        Signals() as stop,
        Bar(console, start, total, epoch) as bar,
    ):
        clock = Laps()
        pending, reached, since = [], start, time.monotonic()
        for step, feed in feeds:
            clock.lap("input")
            state, sums = step_fn(state, feed, step_key, lesson)
            pending.append((step - reached, sums))
            reached = step
            bar.advance(step)
            clock.lap("dispatch" if "step" in clock.seconds else "compilation")
            jax.block_until_ready(pending[-2:][0])  # no more than two calls ahead of the device
            leave = stop.agreed(step)
            clock.lap("step")
            due = {name: is_due(step, period) or step == total for name, period in every.items()}
            evaluating = bool(val_split) and due["eval"]
            saving = due["checkpoint"] or evaluating or leave

            if due["log"] or saving:
                values = _finite(pending, step)
                clock.lap("step")
                images = config.batch_size * sum(count for count, _ in pending)
                values["images_per_second"] = images / (time.monotonic() - since)
                bar.show(values)
                if due["log"]:
                    log.write(step, step / epoch, "train", values)
                clock.lap("reports")
            val = None
            if evaluating:
                val = metrics.means(score[val_split](state.variables))
                watched = optim.update_monitors(config, jax.device_get(state.watched), val)
                stopped = optim.stop_reason(config, watched)
                watched = jax.tree.map(functools.partial(sharding.put_replicated, mesh), watched)
                state = dataclasses.replace(state, watched=watched)
                log.write(step, step / epoch, "val", val)
                bar.note(f"epoch {step / epoch:.1f}: val loss {val['loss']:.4f}, accuracy {val['accuracy']:.2%}")
                clock.lap("evaluation")
            if saving:
                saver.save(state, val)
                clock.lap("saving")
            if due["log"] or saving:
                pending, since = [], time.monotonic()
            if stopped:
                total = step
            if leave or stopped:
                break
        saver.finish()
        clock.lap("saving")
        if stop.signal is not None and int(state.step) < total:
            raise Interrupted(stop.signal, f"stopped after step {int(state.step)}; the state is saved")

        # The final numbers.
        result: dict[str, Any] = {"step": total, "folder": str(folder)}
        if stopped:
            console.print(f"stopped after step {total:,} by {stopped}", soft_wrap=True)
            result["stopped"] = stopped
        if config.test_split:
            test = metrics.means(score[config.test_split](state.variables))
            log.write(total, total / epoch, "test", test)
            clock.lap("evaluation")
            result |= {"split": config.test_split, **test}
        result["seconds"] = round(time.monotonic() - begun, 1)
        if start < total:
            console.print(clock.line(), soft_wrap=True)
            result["loop_seconds"] = {name: round(seconds, 3) for name, seconds in clock.seconds.items()}
        if leader:
            workdir.write_json(folder / "result.json", result)
    return result


def _known(folder: pathlib.Path, split: Split, config: Config, source: pipeline.Source) -> dict[str, Any]:
    """What data.json holds: the run's own if it began with the same data, for the statistics take a while; or new."""
    of = {**split.identity, "augment": config.augment}
    asked = pipeline.required_statistics(config.augment, config.preprocess, normalization=config.normalize)
    known: dict[str, Any] = {}
    with contextlib.suppress(InputError, KeyError, TypeError):
        found = workdir.read_data_info(folder)
        known = found if found["of"] == of and asked <= found.keys() else {}
    known = known or {"of": of, "classes": split.classes, "shape": list(source.shape), **source.statistics(asked)}
    if jax.process_count() > 1 and asked:  # not from whole numbers, like mean and std: they could differ in a last bit
        known |= multihost_utils.broadcast_one_to_all({name: np.float32(known[name]) for name in sorted(asked)})
    return known


def _dispatch(config: Config, source: pipeline.Source) -> int:
    """The most steps in one call. Raises InputError where there can only be one, and more are asked for."""
    if source.device_split is None and config.steps_per_call > 1:
        raise InputError(
            f"config.steps_per_call = {config.steps_per_call}: the training split is not in device memory; use 0"
        )
    return config.steps_per_call or (1 if source.device_split is None or jax.default_backend() == "cpu" else DISPATCH)


def _groups(start: int, total: int, periods: Iterable[float], most: int) -> Iterator[range]:
    """The steps from `start` to `total` in groups of up to `most`, each of which ends where something is due."""
    periods = [*periods, *([10.0] if jax.process_count() > 1 else [])]  # at these, the processes agree on signals
    while start < total:
        stop = start + 1
        while stop < min(start + most, total) and not any(is_due(stop, period) for period in periods):
            stop += 1
        yield range(start, stop)
        start = stop


def _finite(pending: list[tuple[int, dict[str, jax.Array]]], step: int) -> dict[str, float]:
    """The mean metrics of the steps since the last time: for each call, the number of its steps and what it returned.

    Raises FloatingPointError when a loss was not finite.
    """
    columns: dict[str, list[Any]] = {}
    for count, sums in jax.device_get(pending):
        for name, values in sums.items():
            columns.setdefault(name, []).extend(np.atleast_1d(values)[:count])
    for ago, loss in zip(range(len(columns["loss"]) - 1, -1, -1), columns["loss"], strict=True):
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss:.0f} at step {step - ago}")
    rate = float(columns.pop("lr")[-1])
    each = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return metrics.means(metrics.add(each)) | {"lr": rate}
