"""Timed steps of a network, in blocks of about a second, and the peak speeds of the machine."""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import augment, optim, summarize
from cnnjax.config import Config
from cnnjax.data import pipeline
from cnnjax.data.info import DataInfo
from cnnjax.distributed import sharding
from cnnjax.models import create_model
from cnnjax.state import TrainState
from cnnjax.training.init import init_state
from cnnjax.training.loop import feeds
from cnnjax.training.recipe import parse_recipe
from cnnjax.training.setup import Setup, make_setup, state_shapes
from cnnjax.training.step import jit_step

BLOCK = 1.0  # seconds: long compared with clock resolution, short compared with other load on the machine
NO_END = 2**40  # steps: more than any measurement takes

Run = Callable[[int], float]  # runs this many steps; returns their seconds


def of_model(text: str, classes: int, shape: tuple[int, int, int], batch: int, dtype: str) -> Setup:
    """Sets up the network of a call string on one batch of random float32 images, with SGD and momentum 0.9."""
    mesh = sharding.make_mesh()
    sharding.check_batch(batch, mesh)
    # A small rate: numbers that grow to infinity, or shrink to denormal ones, have times of their own.
    config = Config(model=text, batch_size=batch, dtype=dtype, optimizer="sgd(momentum=0.9)", lr=1e-3)
    rng = np.random.default_rng(0)
    rows = sharding.local_rows(mesh, batch)
    arrays = {
        "image": rng.standard_normal((batch, *shape), np.float32),
        "label": rng.integers(classes, size=batch).astype(np.int32),
        "example": np.arange(batch, dtype=np.int32),
        "epoch": np.zeros(batch, np.int32),
    }
    arrays = {name: sharding.put_batch(mesh, array[rows]) for name, array in arrays.items()}
    source = pipeline.Source(
        fetch=lambda steps, indices: (arrays for _ in steps),
        device_split=None,
        num_examples=batch,
        shape=shape,
        statistics=lambda names: {},
    )
    model = create_model(text, classes, dtype)
    recipe = parse_recipe(config)
    schedule = optim.build_schedule(recipe.optim, epoch=1000, total=1_000_000)
    return Setup(
        recipe=recipe,
        mesh=mesh,
        splits=None,
        source=source,
        data=DataInfo(tuple(map(str, range(classes))), shape, has_class_names=False),
        model=model,
        schedule=schedule,
        steps_per_epoch=1000,
        total_steps=1_000_000,
        steps_per_call=1,
        unfreeze_steps={},
        prepare=lambda key, images, *_: images,
        mix=augment.build_mixing([], classes),
        shapes=state_shapes(recipe, model, schedule, shape, mesh),
        init_from=None,
        teacher=None,
        scorers={},
    )


def of_config(config: Config, data_dir: str) -> Setup:
    """Sets up the training of a config, with its data, augmentation, loss, optimizer and teacher."""
    return make_setup(parse_recipe(config), data_dir=data_dir, log=lambda line: None)


# ------------------------------------------------------------------------------------------------- what is compiled


class Program(NamedTuple):
    """A compiled step, and what XLA says of it."""

    run: Run
    text: str  # the optimized HLO
    compile_seconds: float  # without tracing; with a persistent compilation cache, it may be that of reading it
    bytes_accessed: float  # by a step on all devices; 0: not known
    memory_bytes: int  # the most that a step holds on a device: arguments, results and temporaries
    params: int


def compile_step(setup: Setup, what: str) -> Program:
    """Compiles the step of `what`: 'train', 'loop' or 'forward'. Nothing is computed before its first run.

    'train' and 'loop' are what a training compiles: 'train' runs it on one batch (or one group of batches) again and
    again, 'loop' on the next one each time. 'forward' evaluates a batch.
    """
    if what == "forward":
        setup = dataclasses.replace(setup, steps_per_call=1)
    stream = (feed for _, feed in feeds(setup, 0, NO_END, ()))
    feed = next(stream)
    lowered = _lower_forward(setup, feed) if what == "forward" else lower_train(setup, feed)
    begun = time.perf_counter()
    compiled = lowered.compile()
    seconds = time.perf_counter() - begun
    inputs = itertools.chain([feed], stream) if what == "loop" else itertools.repeat(feed)
    # Compiled and called at the first run alone: memory and compile time are known without it.
    fresh = functools.cache(lambda: _initial_state(setup))
    run = _forward_run(compiled, fresh, inputs) if what == "forward" else _train_run(compiled, fresh, inputs, setup)
    stats = compiled.memory_analysis()
    memory = sum(getattr(stats, f"{kind}_size_in_bytes", 0) for kind in ("argument", "output", "temp"))
    costs: Any = compiled.cost_analysis() or {}
    return Program(
        run=run,
        text=compiled.as_text() or "",
        compile_seconds=seconds,
        bytes_accessed=max(0.0, costs.get("bytes accessed", 0.0)) * setup.mesh.size,
        memory_bytes=memory - getattr(stats, "alias_size_in_bytes", 0),  # a donated state is argument and result
        params=sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(setup.shapes.params)),
    )


def lower_train(setup: Setup, feed: Any) -> Any:
    """Lowers the training step of a setup for a batch, or a group of batches, as `jit_step` takes it."""
    return jit_step(setup).lower(setup.shapes, feed, jax.random.key(1), _teacher_variables(setup))


def _lower_forward(setup: Setup, batch: Any) -> Any:
    def forward(variables: Any, images: jax.Array) -> Any:
        return setup.model.apply(variables, setup.prepare(jax.random.key(0), images), train=False)

    rows = sharding.batch_sharding(setup.mesh)
    jitted = jax.jit(
        forward,
        in_shardings=(setup.shardings.variables, rows),
        out_shardings=rows,
        compiler_options=sharding.compiler_options(),
    )
    return jitted.lower(setup.shapes.variables, batch["image"])


def _initial_state(setup: Setup) -> TrainState:
    """Initializes the state with a key that is quick to compile, however deep the network."""
    shape = setup.source.shape
    init = functools.partial(init_state, recipe=setup.recipe, model=setup.model, schedule=setup.schedule, shape=shape)
    return jax.jit(init, out_shardings=setup.shardings)(jax.random.key(0, impl="rbg"))


def _teacher_variables(setup: Setup) -> Any:
    return setup.teacher.variables if setup.teacher else {}


def _train_run(compiled: Any, fresh: Callable[[], TrainState], inputs: Iterator[Any], setup: Setup) -> Run:
    key, states, per_call = jax.random.key(1), [], setup.steps_per_call
    teacher_variables = _teacher_variables(setup)

    def run(steps: int) -> float:
        state = states.pop() if states else fresh()
        calls = max(1, round(steps / per_call))
        begun, before = time.perf_counter(), None
        for _ in range(calls):
            state, sums = compiled(state, next(inputs), key, teacher_variables)
            jax.block_until_ready(before)  # no more than two calls ahead of the device, as in training
            before = sums
        jax.block_until_ready(state)
        states.append(state)
        return (time.perf_counter() - begun) * steps / (calls * per_call)

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


def input_run(setup: Setup) -> Run:
    """Returns a run of batches alone, each waited for: what the input pipeline delivers when nobody computes."""
    config = setup.config
    order = {"seed": config.seed, "batch_size": config.batch_size, "repeats": config.repeated_augment}
    batches = pipeline.train_batches(setup.source, **order, start=0, stop=NO_END)

    def run(steps: int) -> float:
        begun = time.perf_counter()
        for _ in range(steps):
            jax.block_until_ready(next(batches))
        return time.perf_counter() - begun

    return run


# ------------------------------------------------------------------------------------------------------------ timing


def steps_in_a_block(run: Run) -> int:
    """Returns the number of steps that take about BLOCK seconds, after some that warm up."""
    run(1)
    few = max(1, min(10, int(BLOCK / run(1))))
    return max(1, round(BLOCK * few / run(few)))


def blocks(run: Run, repeats: int) -> list[float]:
    """Times `repeats` blocks of steps; returns the mean seconds of a step in each block."""
    steps = steps_in_a_block(run)
    return [run(steps) / steps for _ in range(repeats)]


class Peaks(NamedTuple):
    """The peak speeds of all devices together."""

    flops: float  # a second
    bytes: float  # a second, read and written


@functools.cache
def peaks(dtype: str) -> Peaks:
    """Measures the speed of a large matrix product in `dtype`, and of a large copy: the best of five runs each."""
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
    """Returns the FLOP/s that a step of `flops` operations and `accessed` bytes can reach (Williams et al., CACM 2009).

    `accessed` = 0 stands for unknown: then it is the peak of the arithmetic.
    """
    return min(most.flops, flops / accessed * most.bytes) if accessed else most.flops


def step_flops(setup: Setup, what: str) -> int:
    """Returns the floating-point operations of a step: two per multiplication; backward takes twice as many."""
    macs = sum(row.macs for row in summarize.layers(setup.model, setup.data.shape))
    return 2 * macs * setup.config.batch_size * (1 if what == "forward" else 3)
