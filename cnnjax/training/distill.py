"""Learning from another network, a teacher, that a run left behind (Hinton et al. 2015, arXiv:1503.02531).

The teacher sees the images of each step as its pupil does, with the same random operations, but normalised as it learnt
them itself.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from cnnjax import augment, pretrained, spec
from cnnjax.errors import InputError
from cnnjax.evaluation import scoring
from cnnjax.state import Tree

Array = jax.Array


class Teacher(NamedTuple):
    """What a pupil's step needs of its teacher, beside the teacher's variables."""

    prepare: Callable[..., Array]  # as the pupil's, but for the normalisation
    logits: Callable[[Tree, Array], Array]  # (variables, images) -> [N, K]
    blend: Callable[[Array, Array, Array], Array]  # (loss [N], logits, the teacher's logits) -> loss [N]


class Lesson(NamedTuple):
    """What a config says of its teacher."""

    folder: str
    temperature: float
    weight: float
    step: str


def distill(folder: str, temperature: float = 4.0, weight: float = 0.9, step: str = "last") -> Lesson:
    """Softens the logits of both by `temperature`; of the loss, `weight` is from the teacher (Hinton et al., sec. 2).

    `folder` is a run's, as seen from where the training is started; `step` is 'last', 'best' or a checkpoint's number.
    """
    if not temperature > 0:
        raise InputError(f"distill: temperature = {temperature!r}: expected more than 0")
    if not 0 <= weight <= 1:
        raise InputError(f"distill: weight = {weight!r}: expected 0 to 1")
    return Lesson(folder, temperature, weight, step)


def parse(text: str) -> Lesson:
    """What a config's `distill` says. Raises InputError when it is no such call, or the folder is no run's."""
    lesson = spec.build("distillation", text, {"distill": distill})
    pretrained.load(lesson.folder)
    return lesson


def distillation_loss(loss: Array, logits: Array, taught: Array, temperature: float, weight: float) -> Array:
    """(1 - weight) loss + weight T^2 KL(teacher || pupil), [N]: by T^2 both gradients stay of one size."""
    pupil, teacher = (jax.nn.log_softmax(x.astype(jnp.float32) / temperature) for x in (logits, taught))
    return (1 - weight) * loss + weight * temperature**2 * optax.losses.kl_divergence_with_log_targets(pupil, teacher)


def load(
    text: str,
    step_ops: Sequence[spec.Call],
    shape: tuple[int, ...],
    classes: Sequence[str],
    mesh: Mesh,
    say: Callable[[str], None],
) -> tuple[Teacher, Tree]:
    """The teacher that a config's `distill` names, and its variables, on the mesh.

    `step_ops`, `shape` and `classes` are the pupil's. Raises InputError for a run that does not exist, has other
    classes, or a network that does not take images of this shape.
    """
    lesson = parse(text)
    settings, known, model, restore = pretrained.load(lesson.folder)
    if (count := len(known["classes"])) != len(classes):
        raise InputError(f"the teacher in {lesson.folder} has {count} classes; the data set {len(classes)}")
    number, variables = restore(mesh, lesson.step, say)

    def logits(variables: Tree, images: Array) -> Any:
        return model.apply(variables, images, train=False)

    with scoring.input_errors(settings.model, shape):
        prepare = augment.build(step_ops, settings.normalize, known, shape)
        jax.eval_shape(logits, variables, jax.ShapeDtypeStruct((1, *shape), np.float32))
    say(f"the teacher is {settings.model} of {lesson.folder}, step {number:,}")
    mixed = functools.partial(distillation_loss, temperature=lesson.temperature, weight=lesson.weight)
    return Teacher(prepare, logits, mixed), variables
