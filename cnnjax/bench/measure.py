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
from cnnjax.ops.convolution import matmul, matmul_precision
from cnnjax.state import TrainState
from cnnjax.training.init import init_state
from cnnjax.training.loop import feeds
from cnnjax.training.recipe import parse_recipe
from cnnjax.training.setup import Setup, make_setup, state_shapes
from cnnjax.training.step import jit_step

BLOCK = 1.0  # seconds: long compared with clock resolution, short compared with other load on the machine
NO_END = 2**40  # steps: more than any measurement takes

Run = Callable[[int], float]  # runs a number of steps; returns their seconds


def of_model(text: str, classes: int, shape: tuple[int, int, int], batch: int, dtype: str) -> Setup:
    """Sets up the network of the call string `text` for timing, on random images of `shape` [H, W, C].

    Every step takes the same batch of `batch` float32 images, which is on the devices already. The optimizer is SGD
    with momentum 0.9; there is no augmentation or normalization. `dtype` is the type of the computation.
    """
    mesh = sharding.make_mesh()
    sharding.check_batch(batch, mesh)
    # The learning rate is small, because infinite or denormal numbers would change the times.
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
    """Sets up the training of a config for timing, with its data, augmentation, loss, optimizer and teacher.

    Prints nothing.
    """
    return make_setup(parse_recipe(config), data_dir=data_dir, log=lambda line: None)


# ------------------------------------------------------------------------------------------------- what is compiled


class Program(NamedTuple):
    """A compiled step, and what XLA reports about it.

    Attributes:
        run: function: number of steps to run -> their seconds.
        text: the optimized HLO.
        compile_seconds: without tracing; with a persistent compilation cache, possibly the time to read from it.
        bytes_accessed: by a step on all devices together; 0 if unknown.
        memory_bytes: the most that a step holds on one device: arguments, results and temporaries.
        params: number of elements in the parameter arrays.
    """

    run: Run
    text: str
    compile_seconds: float
    bytes_accessed: float
    memory_bytes: int
    params: int


def compile_step(setup: Setup, what: str) -> Program:
    """Compiles a step for timing, and returns it with a function that runs it. Computes nothing before the first run.

    `what` is 'train', the training step on the same batch again and again; 'loop', the training step on the next batch
    of the input pipeline each time; or 'forward', the network in evaluation mode on the same batch, after what training
    does to its images on the device. With several steps per call, 'train' and 'loop' take groups of batches, as in
    training.
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
    # Initializes the state at the first run only: memory and compile time are known without it.
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
    """Lowers the training step of a setup.

    `feed` is what `jit_step` takes: a batch, or a group of batches. Returns a jax.stages.Lowered.
    """
    return jit_step(setup).lower(setup.shapes, feed, jax.random.key(1), _teacher_variables(setup))


def _lower_forward(setup: Setup, batch: Any) -> Any:
    """Lowers the network in evaluation mode: (variables, images) -> logits, both split over the devices by image."""

    def forward(variables: Any, images: jax.Array) -> Any:
        with matmul_precision(setup.config.matmul_precision):
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
    """Initializes the training state. Its key, of the 'rbg' kind, is quick to compile for deep networks, too."""
    shape = setup.source.shape
    init = functools.partial(init_state, recipe=setup.recipe, model=setup.model, schedule=setup.schedule, shape=shape)
    return jax.jit(init, out_shardings=setup.shardings)(jax.random.key(0, impl="rbg"))


def _teacher_variables(setup: Setup) -> Any:
    """Returns the variables of the teacher for distillation; {} without one."""
    return setup.teacher.variables if setup.teacher else {}


def _train_run(compiled: Any, fresh: Callable[[], TrainState], inputs: Iterator[Any], setup: Setup) -> Run:
    """Returns a function that runs a number of training steps and returns their seconds.

    `compiled` is the compiled training step; each call takes one of `inputs`. The state comes from `fresh()` at the
    first run, and later from the run before. With K steps per call, the number of steps is rounded to whole calls, and
    the seconds are scaled to the requested number.
    """
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
    """Returns a function that evaluates a number of batches and returns the seconds.

    `compiled` takes the variables of the state that `fresh()` returns, and the images of one of `batches`.
    """

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
    """Returns a function that reads a number of training batches and returns the seconds, without any computation.

    Each batch is waited for, until it is on the devices. This is the highest speed of the input pipeline.
    """
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
    """Returns the number of steps that take about `BLOCK` seconds, from a few timed ones, which also warm up.

    `run` runs a number of steps and returns their seconds.
    """
    run(1)
    few = max(1, min(10, int(BLOCK / run(1))))
    return max(1, round(BLOCK * few / run(few)))


def blocks(run: Run, repeats: int) -> list[float]:
    """Times `repeats` blocks of about `BLOCK` seconds.

    Returns the mean seconds of a step in each block. `run` runs a number of steps and returns their seconds.
    """
    steps = steps_in_a_block(run)
    return [run(steps) / steps for _ in range(repeats)]


class Peaks(NamedTuple):
    """The measured peak speeds of all devices together.

    Attributes:
        flops: floating-point operations per second.
        bytes: bytes read and written per second.
    """

    flops: float
    bytes: float


@functools.cache
def peaks(dtype: str) -> Peaks:
    """Measures the peak speeds: of a large matrix product in `dtype`, and of a large copy.

    Each is the best of five runs. The product is that of fully connected layers: in bfloat16 on a CPU, oneDNN's.
    """
    cpu = jax.default_backend() == "cpu"
    side, size = (2048, 2**26) if cpu else (8192, 2**28)
    a = jnp.ones((side, side), dtype)
    product = jax.jit(lambda x: matmul(x, x))
    flops = 2 * side**3 / _best(product, a)
    rate = 2 * 4 * size / _best(jax.jit(lambda x: -x), jnp.ones(size, jnp.float32))
    count = 1 if cpu else jax.device_count()  # a CPU's devices share its cores
    return Peaks(flops * count, rate * count)


def _best(function: Callable[[jax.Array], jax.Array], x: jax.Array) -> float:
    """Returns the seconds of the fastest of five calls function(x), after one that compiles it."""

    def once() -> float:
        begun = time.perf_counter()
        jax.block_until_ready(function(x))
        return time.perf_counter() - begun

    once()
    return min(once() for _ in range(5))


def roofline(flops: float, accessed: float, most: Peaks) -> float:
    """Returns the FLOP/s that a step can reach at most (roofline model of Williams et al., CACM 2009).

    `flops` are the operations of the step and `accessed` the bytes that it reads and writes; with 0, for unknown, only
    the peak of arithmetic limits it. `most` are the peak speeds.
    """
    return min(most.flops, flops / accessed * most.bytes) if accessed else most.flops


def step_flops(setup: Setup, what: str) -> int:
    """Returns the floating-point operations of a step on a whole batch.

    They are two for each multiply-accumulate of convolutions and fully connected layers. `what` is 'forward', or
    'train' or 'loop', for which the backward pass adds twice the operations of the forward pass.
    """
    macs = sum(row.macs for row in summarize.layers(setup.model, setup.data.shape))
    return 2 * macs * setup.config.batch_size * (1 if what == "forward" else 3)
