"""Knowledge distillation: a student learns from the logits of a trained teacher (Hinton et al. 2015, arXiv:1503.02531).

The teacher sees the same images as the student, with the same random operations, but with its own normalization.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from cnnjax import augment, pretrained, spec
from cnnjax.data.operations import parse_normalization
from cnnjax.errors import InputError
from cnnjax.evaluation import scoring
from cnnjax.state import Tree

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """The arguments of a config's `distill`."""

    folder: str
    temperature: float
    weight: float
    step: str


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained network, as the student's training step uses it."""

    prepare: Callable[..., Array]  # as the student's, with the teacher's normalization
    logits: Callable[[Tree, Array], Array]  # (variables, images) -> [N, K]
    loss: Callable[[Array, Array, Array], Array]  # (loss [N], student logits, teacher logits) -> loss [N]
    variables: Tree


def distill(folder: str, temperature: float = 4.0, weight: float = 0.9, step: str = "last") -> DistillConfig:
    """Distills from the run in `folder`: `weight` of the loss comes from the teacher (Hinton et al. 2015, sec. 2).

    Both logits are divided by `temperature`. `folder` is relative to where the training is started; `step` is 'last',
    'best' or a checkpoint's number.
    """
    if not temperature > 0:
        raise InputError(f"distill: temperature = {temperature!r}: expected more than 0")
    if not 0 <= weight <= 1:
        raise InputError(f"distill: weight = {weight!r}: expected 0 to 1")
    return DistillConfig(folder, temperature, weight, step)


def parse(text: str) -> DistillConfig:
    """Parses a config's `distill`. Raises InputError when it is not such a call."""
    return spec.build("distillation", text, {"distill": distill})


def distillation_loss(
    loss: Array, student_logits: Array, teacher_logits: Array, temperature: float, weight: float
) -> Array:
    """Returns (1 - weight) loss + weight T^2 KL(teacher || student), [N]; T^2 keeps both gradients of one size."""
    student, teacher = (
        jax.nn.log_softmax(logits.astype(jnp.float32) / temperature) for logits in (student_logits, teacher_logits)
    )
    divergence = optax.losses.kl_divergence_with_log_targets(student, teacher)
    return (1 - weight) * loss + weight * temperature**2 * divergence


def load_teacher(
    config: DistillConfig,
    step_ops: Sequence[spec.Call],
    shape: tuple[int, ...],
    classes: Sequence[str],
    mesh: Mesh,
    log: Callable[[str], None],
) -> Teacher:
    """Loads the teacher and puts its variables on the mesh.

    `step_ops`, `shape` [H, W, C] and `classes` are the student's. Raises InputError for a run that does not exist, has
    other classes, or a network that does not take images of this shape.
    """
    network = pretrained.load(config.folder)
    if (count := len(network.data.classes)) != len(classes):
        raise InputError(f"the teacher in {config.folder} has {count} classes; the data set {len(classes)}")
    restored = network.load_variables(mesh, config.step, log)

    def logits(variables: Tree, images: Array) -> Any:
        return network.model.apply(variables, images, train=False)

    with scoring.input_errors(network.config.model, shape):
        prepare = augment.build(step_ops, parse_normalization(network.config.normalize), network.data.statistics, shape)
        jax.eval_shape(logits, restored.variables, jax.ShapeDtypeStruct((1, *shape), np.float32))
    log(f"the teacher is {network.config.model} of {config.folder}, step {restored.step:,}")
    loss = functools.partial(distillation_loss, temperature=config.temperature, weight=config.weight)
    return Teacher(prepare, logits, loss, restored.variables)
