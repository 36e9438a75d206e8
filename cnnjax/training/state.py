"""The state that a run begins with: resumed, initialized from trained weights, or initialized at random."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from cnnjax import augment, pretrained
from cnnjax.data import pipeline
from cnnjax.runs import checkpoint
from cnnjax.state import TrainState
from cnnjax.training.init import first_state, init_state, split_keys
from cnnjax.training.setup import Setup

INIT_IMAGES = 5000  # training images that a data-dependent initialization uses, at most


def restore_or_init(setup: Setup, folder: pathlib.Path, log: Callable[[str], None], set_aside: bool) -> TrainState:
    """Returns the state with which a run begins: restored from the newest intact checkpoint in `folder`, or new.

    With `set_aside`, damaged checkpoints are moved to another folder. Waits for the other processes. Raises InputError
    if all checkpoints are damaged or do not fit the network.
    """
    state = checkpoint.restore(folder, setup.shapes, log, set_aside=set_aside)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("damaged checkpoints are out of the way")
    return new_state(setup, log) if state is None else state


def new_state(setup: Setup, log: Callable[[str], None]) -> TrainState:
    """Returns a state at step 0 with new weights; ignores checkpoints of the run.

    The weights are random. A network with `init_from_data` then computes some from training images. With config.init,
    arrays that fit are finally replaced by those of the trained network.
    """
    recipe, schedule = setup.recipe, setup.schedule
    init = functools.partial(init_state, recipe=recipe, model=setup.model, schedule=schedule, shape=setup.source.shape)
    state = jax.jit(init, out_shardings=setup.shardings)(split_keys(setup.config)[0])
    if hasattr(setup.model, "init_from_data"):
        state = _init_from_data(setup, state)
    if setup.init_from:
        network, plan = setup.init_from.network, setup.init_from.plan
        variables = pretrained.apply_transfer(state.variables, network, plan, setup.mesh, log)
        first = functools.partial(first_state, recipe=recipe, schedule=schedule)
        state = jax.jit(first, out_shardings=setup.shardings)(variables)
    return state


def _init_from_data(setup: Setup, state: TrainState) -> TrainState:
    """Returns `state` with the network's data-dependent variables computed from the first INIT_IMAGES training images.

    The images are normalized. Of config.augment, only the operations that run on the host apply, random ones included;
    those inside the training step do not. Replaces `model_state` only; parameters stay.
    """
    assert setup.splits is not None
    model: Any = setup.model
    rows = np.arange(min(INIT_IMAGES, setup.source.num_examples))
    batch = pipeline.read(setup.splits.train, setup.recipe.operations.host, rows, rows, setup.config.seed)
    prepare = augment.build([], setup.recipe.normalization, setup.data.statistics, setup.source.shape)
    init = jax.jit(
        lambda model_state, images: model.init_from_data(model_state, prepare(jax.random.key(0), images)),
        out_shardings=jax.tree.map(lambda x: x.sharding, state.model_state),
    )
    return dataclasses.replace(state, model_state=init(state.model_state, batch["image"]))
