"""What is timed, and how: steps of a network in blocks of about a second, and the most that the machine could do."""

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax import augment, optim, summary
from cnnjax.config import Config
from cnnjax.data import pipeline
from cnnjax.data.build import load
from cnnjax.distributed import sharding
from cnnjax.evaluation.scoring import input_errors
from cnnjax.models import create_model
from cnnjax.state import TrainState
from cnnjax.training import loop as training

BLOCK = 1.0  # seconds: long beside a clock's and a scheduler's grain, short beside what else a machine does

Run = Callable[[int], float]  # takes so many steps; returns their seconds


class Subject(NamedTuple):
    """A network with all that its training step needs."""

    config: Config
    model: nn.Module
    shape: tuple[int, int, int]  # of an image: height, width, channels
    prepare: Callable[..., jax.Array]
    mix: Callable[..., tuple[jax.Array, jax.Array]]
    batch: Any  # as `pipeline.train_batches` has them
    mesh: Mesh


def of_model(text: str, classes: int, shape: tuple[int, int, int], batch: int, dtype: str) -> Subject:
    """The network of a call string, on one batch of random float32 images, by SGD with momentum 0.9."""
    mesh = sharding.make_mesh()
    sharding.check_batch(batch, mesh)
    # A small rate: numbers that grow to infinity, or shrink to denormal ones, have times of their own.
    config = Config(model=text, batch_size=batch, dtype=dtype, optimizer="sgd(momentum=0.9)", lr=1e-3)
    rng = np.random.default_rng(0)
    whole = {
        "image": rng.standard_normal((batch, *shape), np.float32),
        "label": rng.integers(classes, size=batch).astype(np.int32),
        "example": np.arange(batch, dtype=np.int32),
        "epoch": np.zeros(batch, np.int32),
    }
    rows = sharding.local_rows(mesh, batch)
    arrays = {name: sharding.put_batch(mesh, array[rows]) for name, array in whole.items()}
    model = create_model(text, classes, dtype)
    return Subject(
        config, model, shape, lambda key, images, *_: images, augment.build_mixing([], classes), arrays, mesh
    )


def of_config(config: Config, data_dir: str) -> tuple[Subject, pipeline.Source]:
    """The network of a config with its own data, augmentation, loss and optimiser; and where its batches come from."""
    mesh = sharding.make_mesh(text=config.mesh)
    sharding.check_batch(config.batch_size // config.grad_accum_steps, mesh)
    examples = load(config.dataset, config.train_split, data_dir)
    host_ops, step_ops = pipeline.split_ops(config.augment)
    step_ops, mixing = pipeline.split_mixing(step_ops)
    source = pipeline.open_source(examples, host_ops, cache=config.cache, seed=config.seed, mesh=mesh)
    known = source.statistics(pipeline.required_statistics(config.augment, normalization=config.normalize))
    prepare = augment.build(step_ops, config.normalize, known, source.shape)
    mix = augment.build_mixing(mixing, len(examples.classes))
    batch = next(_stream(source, config, stop=1))
    model = create_model(config.model, len(examples.classes), config.dtype)
    return Subject(config, model, source.shape, prepare, mix, batch, mesh), source


# ------------------------------------------------------------------------------------------------- what is compiled


class Program(NamedTuple):
    """A compiled step, and what XLA says of it."""

    run: Run
    text: str  # the optimised HLO
    compile_seconds: float  # tracing not included; with a cache of earlier compilations, it may be that of reading
    bytes_accessed: float  # by a step on all devices; 0: not known
    memory_bytes: int  # the most that a step holds on a device: arguments, results and temporaries
    params: int


def compile_step(subject: Subject, what: str, source: pipeline.Source | None = None) -> Program:
    """The step of `what`, which is 'train' or 'forward', compiled; nothing is computed before its first run.

    Training is the step of `cnnjax.training`, state donated; with a `source`, from one batch after the other of that.
    Forward is the evaluation of one batch. Raises InputError when the network does not take the images.
    """
    config, model, mesh = subject.config, subject.model, subject.mesh
    whole, rows = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    schedule = optim.build_schedule(config, epoch=1000, total=1_000_000)
    parts: dict[str, Any] = {"config": config, "model": model, "schedule": schedule}
    init = functools.partial(training.init_state, shape=subject.shape, **parts)
    start = jax.random.key(0, impl="rbg")  # quick to compile, however deep the network
    with input_errors(config.model, subject.shape):
        state = jax.eval_shape(init, start)
        places = sharding.state_sharding(state, mesh, config.zero_1)
        state = sharding.with_sharding(state, places)
        if what == "train":
            step = functools.partial(training.train_step, prepare=subject.prepare, mix=subject.mix, **parts)
            jitted = jax.jit(
                step,
                in_shardings=(places, rows, whole),
                out_shardings=(places, whole),
                donate_argnums=0,
                compiler_options=sharding.compiler_options(),
            )
            lowered = jitted.lower(state, subject.batch, jax.random.key(1))
        else:
            jitted = jax.jit(
                lambda variables, images: model.apply(
                    variables, subject.prepare(jax.random.key(0), images), train=False
                ),
                in_shardings=(places.variables, rows),
                out_shardings=rows,
                compiler_options=sharding.compiler_options(),
            )
            lowered = jitted.lower(state.variables, subject.batch["image"])
    begun = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - begun
    # Compiled and called at the first run alone: memory and compile time are known without it.
    fresh = functools.cache(lambda: jax.jit(init, out_shardings=places)(start))
    batches = itertools.repeat(subject.batch) if source is None else _stream(source, config)
    run = (_train_run if what == "train" else _forward_run)(compiled, fresh, batches)
    stats = compiled.memory_analysis()
    memory = sum(getattr(stats, f"{part}_size_in_bytes", 0) for part in ("argument", "output", "temp"))
    costs: Any = compiled.cost_analysis() or {}
    return Program(
        run=run,
        text=compiled.as_text() or "",
        compile_seconds=seconds,
        bytes_accessed=max(0.0, costs.get("bytes accessed", 0.0)) * mesh.size,
        memory_bytes=memory - getattr(stats, "alias_size_in_bytes", 0),  # a donated state is argument and result
        params=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params)),
    )


def _train_run(compiled: Any, fresh: Callable[[], TrainState], batches: Iterator[Any]) -> Run:
    key, states = jax.random.key(1), []

    def run(steps: int) -> float:
        state = states.pop() if states else fresh()
        begun, before = time.perf_counter(), None
        for _ in range(steps):
            state, sums = compiled(state, next(batches), key)
            jax.block_until_ready(before)  # no more than two steps ahead of the device, as in training
            before = sums
        jax.block_until_ready(state)
        states.append(state)
        return time.perf_counter() - begun

    return run


def _forward_run(compiled: Any, fresh: Callable[[], TrainState], batches: Iterator[Any]) -> Run:
    def run(steps: int) -> float:
        variables = fresh().variables
        begun, logits = time.perf_counter(), None
        for _ in range(steps):
            jax.block_until_ready(logits)
            logits = compiled(variables, next(batches)["image"])
        jax.block_until_ready(logits)
        return time.perf_counter() - begun

    return run


def input_run(source: pipeline.Source, config: Config) -> Run:
    """Batches alone, each waited for: what the pipeline gives when nobody computes."""
    batches = _stream(source, config)

    def run(steps: int) -> float:
        begun = time.perf_counter()
        for _ in range(steps):
            jax.block_until_ready(next(batches))
        return time.perf_counter() - begun

    return run


def _stream(source: pipeline.Source, config: Config, stop: int = 2**40) -> Iterator[pipeline.Batch]:
    """A training's batches; without a `stop`, no end of them."""
    return pipeline.train_batches(
        source, seed=config.seed, batch_size=config.batch_size, repeats=config.repeated_augment, start=0, stop=stop
    )


# ------------------------------------------------------------------------------------------------------------ timing


def steps_in_a_block(run: Run) -> int:
    """How many steps take about BLOCK seconds; the first ones, slower than the rest, are out of the way then."""
    run(1)
    few = max(1, min(10, int(BLOCK / run(1))))
    return max(1, round(BLOCK * few / run(few)))


def blocks(run: Run, repeats: int) -> list[float]:
    """The seconds of a step, as the mean of each of `repeats` blocks."""
    steps = steps_in_a_block(run)
    return [run(steps) / steps for _ in range(repeats)]


class Peaks(NamedTuple):
    """The most that all devices together did."""

    flops: float  # a second
    bytes: float  # a second, read and written


@functools.cache
def peaks(dtype: str) -> Peaks:
    """The speed of a large matrix product and of a large copy, each the best of five."""
    cpu = jax.default_backend() == "cpu"
    side, size = (2048, 2**26) if cpu else (8192, 2**28)
    a = jnp.ones((side, side), dtype)
    flops = 2 * side**3 / _best(jax.jit(lambda x: x @ x), a)
    rate = 2 * 4 * size / _best(jax.jit(lambda x: -x), jnp.ones(size, jnp.float32))
    count = 1 if cpu else jax.device_count()  # a CPU's devices share its cores
    return Peaks(flops * count, rate * count)


def _best(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> float:
    def once() -> float:
        begun = time.perf_counter()
        jax.block_until_ready(function(x))
        return time.perf_counter() - begun

    once()
    return min(once() for _ in range(5))


def roofline(flops: float, accessed: float, most: Peaks) -> float:
    """The FLOP/s that a step of so many operations and bytes can reach: Williams et al., CACM 2009.

    With `accessed` = 0, not known, the peak of the arithmetic.
    """
    return min(most.flops, flops / accessed * most.bytes) if accessed else most.flops


def step_flops(subject: Subject, what: str) -> int:
    """Floating-point operations of a step: two for each multiplication of weights; backward has twice as many."""
    macs = sum(row.macs for row in summary.layers(subject.model, subject.shape))
    return 2 * macs * subject.config.batch_size * (1 if what == "forward" else 3)
