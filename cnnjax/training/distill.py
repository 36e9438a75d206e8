"""Knowledge distillation: a student learns from the logits of a trained teacher (Hinton et al. 2015, arXiv:1503.02531).

The teacher sees the same images as the student, with the same random operations, but with its own normalization.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from cnnjax import augment, pretrained, spec
from cnnjax.data.info import DataInfo
from cnnjax.data.operations import parse_normalization
from cnnjax.errors import InputError
from cnnjax.evaluation import scoring
from cnnjax.spec import Fraction, Positive, Range
from cnnjax.state import Tree

Array = jax.Array
StepNumber = Annotated[int, Range(0)]


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """The parsed arguments of a config's `distill` call.

    Attributes:
      folder: the teacher's run folder.
      temperature: divides the logits of both networks.
      weight: fraction of the loss that comes from the teacher.
      step: the teacher's checkpoint: 'last', 'best' or a step number.
    """

    folder: str
    temperature: float
    weight: float
    step: str | int


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained teacher network in the form that the student's training step uses.

    Attributes:
      prepare: (key, images uint8 [N, H, W, C], example, epoch) -> the teacher's input; it applies the student's
        operations and then the teacher's normalization.
      logits: (variables, inputs) -> logits [N, K], in evaluation mode.
      loss: (student's loss [N], student's logits, teacher's logits) -> distillation loss [N].
      variables: the teacher's Flax variables, on the mesh.
    """

    prepare: Callable[..., Array]
    logits: Callable[[Tree, Array], Array]
    loss: Callable[[Array, Array, Array], Array]
    variables: Tree


def distill(
    folder: str, temperature: Positive = 4.0, weight: Fraction = 0.9, step: str | StepNumber = "last"
) -> DistillConfig:
    """Configures distillation from the run in `folder`; `weight` is the teacher's fraction of the loss.

    Hinton et al. 2015, sec. 2. The logits of both networks are divided by `temperature`. `folder` is relative to the
    directory in which the training is started. `step` selects the teacher's checkpoint: 'last', 'best' or a step
    number.
    """
    return DistillConfig(folder, temperature, weight, step)


def parse(text: str) -> DistillConfig:
    """Parses a config's `distill`, such as 'distill("runs/TEACHER", weight=0.9)'.

    Raises InputError for any other form.
    """
    return spec.build("distillation", text, {"distill": distill})


def distillation_loss(
    loss: Array, student_logits: Array, teacher_logits: Array, temperature: float, weight: float
) -> Array:
    """Returns (1 - weight) * loss + weight * T^2 * KL(teacher || student), float32 [N], with T = `temperature`.

    `loss` is the student's loss on the targets, [N]; both logits are [N, K]. The divergence is between the softmax of
    the logits divided by T. The factor T^2 keeps its gradient at the size that it has for T = 1.
    """
    student, teacher = (
        jax.nn.log_softmax(logits.astype(jnp.float32) / temperature) for logits in (student_logits, teacher_logits)
    )
    divergence = optax.losses.kl_divergence_with_log_targets(student, teacher)
    return (1 - weight) * loss + weight * temperature**2 * divergence


def load_teacher(
    config: DistillConfig,
    step_ops: Sequence[spec.Call],
    data: DataInfo,
    mesh: Mesh,
    log: Callable[[str], None],
) -> Teacher:
    """Loads the teacher, puts its variables on the mesh, and builds the functions of `Teacher`.

    `step_ops` are the student's operations in the training step, `data` are its classes, the shape of its images and
    the statistics that its operations use. Raises InputError if the run does not exist, if it has another number of
    classes, or if its network does not take images of this shape. The names of the classes are not compared.
    """
    classes, shape = data.classes, data.shape
    network = pretrained.load(config.folder)
    if (count := len(network.data.classes)) != len(classes):
        raise InputError(f"the teacher in {config.folder} has {count} classes, but the data set has {len(classes)}")
    restored = network.load_variables(mesh, config.step, log)

    def logits(variables: Tree, images: Array) -> Any:
        return network.model.apply(variables, images, train=False)

    with scoring.input_errors(network.config.model, shape):
        normalization, theirs = parse_normalization(network.config.normalize), network.data.statistics
        prepare = augment.build(step_ops, normalization, data.statistics, shape, theirs)
        jax.eval_shape(logits, restored.variables, jax.ShapeDtypeStruct((1, *shape), np.float32))
    log(f"the teacher is {network.config.model} of {config.folder}, step {restored.step:,}")
    loss = functools.partial(distillation_loss, temperature=config.temperature, weight=config.weight)
    return Teacher(prepare, logits, loss, restored.variables)
