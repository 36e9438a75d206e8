"""Class activation maps: exact where the head averages its maps and is linear (CAM), else by gradients (Grad-CAM)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core

from cnnjax.errors import InputError, unknown
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.visualize.names import layer_shapes

Function = Callable[[Any], Any]


class ClassMaps(NamedTuple):
    """Class activation maps of a batch.

    Attributes:
      maps: float32 [N, h, w].
      bias: float32 [N]: with CAM, the mean of a map plus the bias is the logit.
      exact: bool [N]: the map is a CAM, not a Grad-CAM.
    """

    maps: jax.Array
    bias: jax.Array
    exact: jax.Array


def split_at(full: Function, features: Function, layer: str, x: jax.Array) -> tuple[jax.Array, Function]:
    """Splits a network at a named layer: returns its maps of x, and the function from such maps to the logits.

    Maps that skip the layer, if there are any, stay those of x.

    Args:
      full: from images to logits.
      features: from images to {layer name: maps}, by the same operations in the same order, as the network with
        features_only=True.
      layer: a name among the features.
      x: images [N, H, W, C].

    Raises:
      InputError: an unknown layer, or functions whose operations differ.
    """
    whole = jax.make_jaxpr(full)(x)
    start, shapes = jax.make_jaxpr(features, return_shape=True)(x)
    names = sorted(shapes)  # the order in which JAX flattens a dictionary
    if layer not in names:
        raise unknown("layer", layer, names)
    output: Any = start.jaxpr.outvars[names.index(layer)]
    for index, (equation, same) in enumerate(zip(start.jaxpr.eqns, whole.jaxpr.eqns, strict=False)):
        if equation.primitive is not same.primitive or [v.aval for v in equation.outvars] != [
            v.aval for v in same.outvars
        ]:
            break
        if output in equation.outvars:
            position = equation.outvars.index(output)
            return features(x)[layer], _from_variable(whole, index, position, x)
    raise InputError(f"layer {layer!r}: its maps were not found on the way to the logits")


def _from_variable(whole: core.ClosedJaxpr, index: int, position: int, x: jax.Array) -> Function:
    """Returns the function from output `position` of equation `index` to the outputs of a jaxpr whose input is x."""
    jaxpr, equations = whole.jaxpr, [*whole.jaxpr.eqns]
    outputs = [*equations[index].outvars]
    variable = outputs[position]
    outputs[position] = core.DropVar(variable.aval)
    equations[index] = equations[index].replace(outvars=outputs)
    inputs = [*jaxpr.invars, variable]
    names = core.DebugInfo("visualize", "head", ("",) * len(inputs), ("",) * len(jaxpr.outvars))
    rest = core.Jaxpr(jaxpr.constvars, inputs, jaxpr.outvars, equations, debug_info=names)
    compute = core.jaxpr_as_fun(core.ClosedJaxpr(rest, whole.consts))
    return lambda maps: compute(x, maps)[0]


def class_maps(
    full: Function, features: Function, layer: str, x: jax.Array, classes: jax.Array, is_exact: bool | None = None
) -> ClassMaps:
    """Computes the class activation maps of a layer.

    CAM (Zhou et al.: Learning Deep Features for Discriminative Localization. CVPR 2016, eq. 2) is the sum of the maps,
    each times the class's weight. It is used where the logit is an affine function of the maps' means. The test is that
    the gradient is the same at all positions and for different maps. Grad-CAM (Selvaraju et al.: ICCV 2017, eq. 1 and
    2) is the positive part of the sum of the maps, each times the mean of its gradient.

    Args:
      full: from images to logits [N, classes] or [N, rows, columns, classes].
      features: from images to {layer name: maps}; see `split_at`.
      layer: a layer with maps [N, h, w, C].
      x: inputs of the network [N, H, W, C].
      classes: the class of each image, int [N].
      is_exact: True forces CAM, False forces Grad-CAM; None decides by the head.
    """
    own, head = split_at(full, features, layer, x)
    maps = own.astype(jnp.float32)  # of a network in bfloat16

    def total(maps: jax.Array) -> tuple[jax.Array, jax.Array]:
        scores = class_logits(head(maps.astype(own.dtype)).astype(jnp.float32), classes)
        return scores.sum(), scores

    gradient, scores = jax.grad(total, has_aux=True)(maps)
    elsewhere, _ = jax.grad(total, has_aux=True)(2 * maps + 1)
    mean = gradient.mean((1, 2), keepdims=True)
    unequal = jnp.maximum(jnp.abs(gradient - mean), jnp.abs(elsewhere - mean)).max((1, 2, 3))
    exact = unequal <= 1e-5 * jnp.abs(gradient).max((1, 2, 3))
    exact = exact if is_exact is None else jnp.full_like(exact, is_exact)
    weighted = (mean * maps).sum(-1)
    cam = weighted * (maps.shape[1] * maps.shape[2])
    shown = jnp.where(exact[:, None, None], cam, jnp.maximum(weighted, 0))
    return ClassMaps(shown, scores - cam.mean((1, 2)), exact)


def class_logits(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """Returns the logit of each image's class, [N]; of spatial logits [N, rows, columns, classes], their mean."""
    logits = logits.reshape(len(logits), -1, logits.shape[-1]).mean(1)
    return jnp.take_along_axis(logits, classes[:, None], axis=1)[:, 0]


def last_maps(net: TrainedNetwork, layer: str = "") -> str:
    """Returns `layer`, or for '' the last layer with maps larger than one pixel.

    Raises InputError for an unknown layer, or one without maps.
    """
    shapes = {name: shape for name, shape in layer_shapes(net).items() if len(shape) == 3 and max(shape[:2]) > 1}
    if layer and layer not in shapes:
        raise unknown(f"layer with maps of {net.config.model!r}:", layer, shapes)
    if not shapes:
        raise InputError(f"{net.config.model!r} has no feature maps: a class activation map needs them")
    return layer or list(shapes)[-1]
