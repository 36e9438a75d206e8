"""Everything that a training needs, assembled in one place: data, network, schedule, shardings, scorers, teacher.

Training, `bench`, `study` and `data preview` all use this assembly, so what they measure is what is trained.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import optax
from jax.sharding import Mesh

from cnnjax import losses, metrics, optim, pretrained
from cnnjax.config import Config, to_steps
from cnnjax.data import pipeline
from cnnjax.data.info import DataInfo
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation.scoring import input_errors, make_scorer
from cnnjax.models import create_model
from cnnjax.optim import freezing
from cnnjax.pretrained import FileOptions, LoadedNetwork, TransferPlan, match_for_transfer
from cnnjax.runs import checkpoint
from cnnjax.state import TrainState, Tree
from cnnjax.training.distill import Teacher, load_teacher
from cnnjax.training.init import check_training_pass, init_state
from cnnjax.training.inputs import Splits, data_info, input_functions, load_splits, open_train_source
from cnnjax.training.memory import check_memory
from cnnjax.training.recipe import Recipe, check_new

MAX_STEPS_PER_CALL = 32  # on an accelerator, where config.steps_per_call = 0

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class InitSource:
    """A trained network from which a run's weights are initialized.

    Attributes:
      network: the trained network.
      plan: which of its arrays are taken.
    """

    network: LoadedNetwork
    plan: TransferPlan


@dataclasses.dataclass(frozen=True)
class Setup:
    """Everything that a training is assembled from.

    Attributes:
      recipe: the parsed config.
      mesh: the devices.
      splits: the opened splits; None for random images, which belong to no data set.
      source: batches of the training split.
      data: classes, image shape and statistics of the training split.
      model: the network.
      schedule: absolute learning rate as a function of the step, without a plateau monitor's factor.
      steps_per_epoch: examples of the training split divided by the batch size, not rounded.
      total_steps: number of steps of the whole training.
      steps_per_call: largest number of steps in one device call.
      unfreeze_steps: {path of a frozen parameter: step from which it is trained}.
      prepare: (key, images uint8, example, epoch) -> network input; see `InputFunctions`.
      mix: (key, inputs, labels) -> inputs, targets; see `InputFunctions`.
      shapes: the state as jax.ShapeDtypeStructs with shardings.
      init_from: trained network that the weights are initialized from; None for a random start, or if the run resumes.
      teacher: None without distillation.
      scorers: 'val' and 'test', where the run has them, each mapped to a function from variables to metric sums.
    """

    recipe: Recipe
    mesh: Mesh
    splits: Splits | None
    source: pipeline.Source
    data: DataInfo
    model: nn.Module
    schedule: optax.Schedule
    steps_per_epoch: float
    total_steps: int
    steps_per_call: int
    unfreeze_steps: Mapping[str, int]
    prepare: Callable[..., jax.Array]
    mix: Callable[..., tuple[jax.Array, jax.Array]]
    shapes: TrainState
    init_from: InitSource | None
    teacher: Teacher | None
    scorers: Mapping[str, Callable[[Tree], metrics.Sums]]

    @property
    def config(self) -> Config:
        """Returns the config of the recipe."""
        return self.recipe.config

    @property
    def shardings(self) -> TrainState:
        """Returns the sharding of each array of the state, as a tree like the state."""
        return jax.tree.map(lambda x: x.sharding, self.shapes)


def make_setup(
    recipe: Recipe,
    *,
    folder: pathlib.Path | None = None,
    data_dir: str = "",
    mesh: Mesh | None = None,
    log: Log = print,
) -> Setup:
    """Assembles a training from its recipe. Writes no files and compiles no training step.

    Args:
      recipe: the parsed config.
      folder: the run's folder. Its data statistics are reused; if it has a checkpoint, config.init is not read. None
        for a new run without a folder.
      data_dir: folder of the data sets; '' for the default one.
      mesh: devices to use; None for config.mesh.
      log: called with lines of text.

    Raises:
      InputError: a config, data set or network that does not fit.
    """
    config = recipe.config
    for name in ("init_match", "init_partial"):
        if (value := getattr(config, name)) and not config.init:
            raise InputError(f"config.{name} = {value!r}: there is nothing to initialize from; give config.init")
    resuming = folder is not None and bool(checkpoint.steps(folder))
    if not resuming:
        check_new(recipe)
    init_network = _load_init(config, log) if config.init and not resuming else None
    if recipe.distill:
        pretrained.load(recipe.distill.folder)  # a missing teacher is an error before the data is read
    mesh = mesh or sharding.make_mesh(text=config.mesh)
    sharding.check_batch(config.batch_size // config.grad_accum_steps, mesh)

    # The training split, if it fits in device memory, is read in the background from here on.
    splits = load_splits(config, data_dir)
    source = open_train_source(recipe, splits, mesh)
    steps_per_epoch = source.num_examples / config.batch_size
    total_steps = to_steps(config.duration, epoch=steps_per_epoch)

    classes = splits.train.classes
    model = create_model(config.model, len(classes), config.dtype)
    _check_ghost_batches(config, model)
    if len(classes) == 1:
        log(f"the data set has a single class, {classes[0]!r}: any network scores 100 % on it")
    schedule = optim.build_schedule(recipe.optim, steps_per_epoch, total_steps)
    shapes = state_shapes(recipe, model, schedule, source.shape, mesh)
    check_memory(shapes, config.batch_size, source.shape, mesh)
    with input_errors(config.model, source.shape):
        check_training_pass(recipe, model, shapes, source.shape, len(classes))
    unfreeze_steps = freezing.unfreeze_steps(
        recipe.optim.freezing, shapes.params, epoch=steps_per_epoch, total=total_steps
    )
    init_from = _plan_transfer(config, init_network, shapes, classes) if init_network else None

    # Statistics of the training split, which was read meanwhile.
    data = data_info(recipe, splits.train, source, folder, log)
    functions = input_functions(recipe, data)
    held_out = {"val": splits.val, "test": splits.test}
    scorers = {
        name: make_scorer(recipe.evaluation, data, split, model, mesh) for name, split in held_out.items() if split
    }
    losses.parse(config.loss, len(classes))
    teacher = None
    if recipe.distill:
        teacher = load_teacher(recipe.distill, recipe.operations.step, data, mesh, log)
    return Setup(
        recipe=recipe,
        mesh=mesh,
        splits=splits,
        source=source,
        data=data,
        model=model,
        schedule=schedule,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        steps_per_call=_steps_per_call(config, source),
        unfreeze_steps=unfreeze_steps,
        prepare=functions.prepare,
        mix=functions.mix,
        shapes=shapes,
        init_from=init_from,
        teacher=teacher,
        scorers=scorers,
    )


def _load_init(config: Config, log: Log) -> LoadedNetwork:
    """Returns the network of config.init. A weight file may lack the head, or any array with config.init_partial."""
    may_lack = "any" if config.init_partial else "head"
    return pretrained.load(
        config.init, FileOptions(model=config.model, match=config.init_match, may_lack=may_lack), log
    )


def state_shapes(
    recipe: Recipe, model: nn.Module, schedule: optax.Schedule, shape: tuple[int, ...], mesh: Mesh
) -> TrainState:
    """Returns the training state as jax.ShapeDtypeStructs with shardings, for images of `shape` [H, W, C].

    Allocates no arrays. Raises InputError if the network does not take such images.
    """
    init = functools.partial(init_state, recipe=recipe, model=model, schedule=schedule, shape=shape)
    with input_errors(recipe.config.model, shape):
        shapes = jax.eval_shape(init, jax.random.key(0))
    return sharding.with_sharding(shapes, sharding.state_sharding(shapes, mesh, recipe.config.zero_1))


def _plan_transfer(config: Config, network: LoadedNetwork, shapes: TrainState, classes: Sequence[str]) -> InitSource:
    """Plans which arrays of the trained `network` replace those of the new state.

    `shapes` and `classes` are those of the run. Raises InputError if the networks do not fit.
    """
    partial = config.init_partial
    return InitSource(network, match_for_transfer(shapes.variables, network, config.init, classes, partial))


def _check_ghost_batches(config: Config, model: nn.Module) -> None:
    """Raises InputError unless a micro-batch divides into ghost batches of the network's `ghost_batch_size`."""
    group, size = getattr(model, "ghost_batch_size", 0), config.batch_size // config.grad_accum_steps
    if group and size % group:
        raise InputError(f"a batch of {size} cannot be divided into the network's ghost batches of {group} images")


def _steps_per_call(config: Config, source: pipeline.Source) -> int:
    """Returns the largest number of training steps in one device call; config.steps_per_call = 0 chooses by device.

    Raises InputError if several are requested, but the training split is not in device memory.
    """
    if source.device_split is None and config.steps_per_call > 1:
        raise InputError(
            f"config.steps_per_call = {config.steps_per_call}: the training split is not in device memory; use 0"
        )
    single = source.device_split is None or jax.default_backend() == "cpu"
    return config.steps_per_call or (1 if single else MAX_STEPS_PER_CALL)
